"""The heads of SUPERB (Yang et al. 2021, section 3): light, on top of mixed frames.

Every head takes ``frames [utterance, frame, dim]`` and ``lengths [utterance]`` and returns logits
with their lengths. None looks beyond an utterance's length, so padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.encoding.arithmetic import recur
from downstreams import ctc


class Dropout(nn.Module):
    """Dropout that draws from its own generator, so that heads trained side by side stay apart."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share = share
        self.generator = generator

    def forward(self, values: Tensor) -> Tensor:
        """Zero a share of the values in training and scale up the rest."""
        if not self.training or self.share == 0:
            return values
        kept = torch.rand(values.shape, generator=self.generator, device=values.device)
        return values * (kept >= self.share) / (1 - self.share)


class PooledClassifier(nn.Module):
    """Linear, mean over time, linear: the head of all tasks on whole utterances.

    Nothing in it is nonlinear before the mean, so it gives the same on frames and on their mean.
    """

    def __init__(self, dim: int, projection: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, projection)
        self.classify = nn.Linear(projection, outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``logits [utterance, class]``, and `lengths` as they came."""
        projected = self.project(frames)
        valid = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
        pooled = (projected * valid[..., None]).sum(1) / lengths[:, None]
        return self.classify(pooled), lengths


class FrameClassifier(nn.Module):
    """Linear, linear, of every frame by itself: the head of phone recognition."""

    def __init__(self, dim: int, projection: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, projection)
        self.classify = nn.Linear(projection, outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``logits [utterance, frame, symbol]``, and `lengths` as they came."""
        return self.classify(self.project(frames)), lengths


class RecurrentTagger(nn.Module):
    """One LSTM layer that runs forward, linear of every frame: the head of diarization."""

    def __init__(self, dim: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(dim, hidden, batch_first=True)
        self.classify = nn.Linear(hidden, outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``logits [utterance, frame, track]``, and `lengths` as they came."""
        hidden, _ = recur(self.recurrent, frames)
        return self.classify(hidden), lengths


class RecurrentTranscriber(nn.Module):
    """Linear, bidirectional LSTM layers with dropout after each, linear: for ASR and slot filling.

    Args:
        dim: features per frame.
        outputs: symbols, the CTC blank included.
        stack: neighbouring frames that are joined into one before the first linear layer.
        projection: width of the first linear layer.
        hidden: width of each LSTM direction.
        layers: number of bidirectional layers.
        dropout: share dropped after each of them.
        generator: for dropout.
    """

    def __init__(
        self,
        dim: int,
        outputs: int,
        *,
        stack: int,
        projection: int,
        hidden: int,
        layers: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.stack = stack
        self.project = nn.Linear(dim * stack, projection)
        widths = [projection] + [2 * hidden] * (layers - 1)
        self.recurrent = nn.ModuleList(BidirectionalLSTM(width, hidden) for width in widths)
        self.dropout = Dropout(dropout, generator)
        self.classify = nn.Linear(2 * hidden, outputs)

    @classmethod
    def of(
        cls,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> RecurrentTranscriber:
        """The head of some settings (`downstreams.ctc.RECURRENT_HEAD`), as a task makes it."""
        return cls(
            dim,
            outputs,
            stack=ctc.stacked(hop_s, settings),
            projection=settings["projection"],
            hidden=settings["hidden"],
            layers=settings["layers"],
            dropout=settings["dropout"],
            generator=generator,
        )

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``logits [utterance, frame, symbol]`` and the number of valid ones."""
        frames, lengths = stack_frames(frames, lengths, self.stack)
        hidden = self.project(frames)
        for layer in self.recurrent:
            hidden = self.dropout(layer(hidden, lengths))
        return self.classify(hidden), lengths


class Listener(nn.Module):
    """Linear, bidirectional LSTM layers with dropout after each: what hears, for any recogniser.

    Args:
        dim: features per frame.
        hop_s: seconds between them.
        settings: ``frame_s``, ``projection``, ``hidden``, ``layers`` and ``dropout``, as of
            `downstreams.ctc.RECURRENT_HEAD`, and perhaps ``reduction``: how many neighbouring
            frames are joined before each layer but the first (Chan et al. 2016).
        generator: for dropout.

    Attributes:
        width: of what it gives.
    """

    def __init__(
        self, dim: int, hop_s: float, settings: Mapping[str, Any], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.stack = ctc.stacked(hop_s, settings)
        self.reduction = int(settings.get("reduction", 1))
        projection, hidden = int(settings["projection"]), int(settings["hidden"])
        self.width = 2 * hidden
        self.project = nn.Linear(dim * self.stack, projection)
        widths = [projection] + [2 * hidden * self.reduction] * (int(settings["layers"]) - 1)
        self.recurrent = nn.ModuleList(BidirectionalLSTM(width, hidden) for width in widths)
        self.dropout = Dropout(float(settings["dropout"]), generator)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[utterance, frame, width]`` and the number of valid frames."""
        frames, lengths = stack_frames(frames, lengths, self.stack)
        hidden = self.project(frames)
        for place, layer in enumerate(self.recurrent):
            if place and self.reduction > 1:
                # what a layer gives beyond the end is to be nothing where it is joined to the last
                hidden = hidden * heard_frames(hidden, lengths)[..., None]
                hidden, lengths = stack_frames(hidden, lengths, self.reduction)
            hidden = self.dropout(layer(hidden, lengths))
        return hidden, lengths


def stack_frames(frames: Tensor, lengths: Tensor, stack: int) -> tuple[Tensor, Tensor]:
    """Join every `stack` neighbouring frames: ``[u, t, d] → [u, ceil(t / stack), stack d]``."""
    if stack == 1:
        return frames, lengths
    utterances, count, dim = frames.shape
    padded = nn.functional.pad(frames, (0, 0, 0, -count % stack))
    return padded.reshape(utterances, -1, stack * dim), (lengths + stack - 1) // stack


def heard_frames(frames: Tensor, lengths: Tensor) -> Tensor:
    """Which frames are no padding ``[utterance, frame]``."""
    places = torch.arange(frames.shape[1], device=frames.device)
    return places < lengths[:, None].to(frames.device)


class BidirectionalLSTM(nn.Module):
    """One bidirectional LSTM layer over a padded batch.

    The backward direction runs forward over each utterance turned round within its own length.
    A packed sequence would say the same, but on a processor its backward pass is ten times slower.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(width, hidden, batch_first=True)
        self.backwards = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """``[utterance, frame, width] → [utterance, frame, 2 hidden]``."""
        ahead, _ = recur(self.forwards, frames)
        behind, _ = recur(self.backwards, turn_round(frames, lengths))
        return torch.cat([ahead, turn_round(behind, lengths)], dim=-1)


def turn_round(frames: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each utterance in time within its own length; padding stays where it is."""
    utterances, count, _ = frames.shape
    time = torch.arange(count, device=frames.device)[None]
    source = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    rows = source + count * torch.arange(utterances, device=frames.device)[:, None]
    # whole frames move, which is quicker than a gather of values
    return frames.flatten(0, 1).index_select(0, rows.flatten()).view_as(frames)


class XVector(nn.Module):
    """Linear, TDNN layers, mean and deviation over time, linear, linear: the head of ASV.

    The x-vector of Snyder et al. (2018), without batch normalisation as SUPERB has it: each frame
    hears seven on either side. Utterances of fewer than 15 frames go on with their last frame.

    Args:
        dim: features per frame.
        outputs: speakers of train.
        projection: width of the first linear layer.
        hidden: width of the TDNN layers but the last.
        pooled: width of the last one.
        embedding: width of both layers after pooling; the first of them is the embedding.
    """

    CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
    """Kernel and dilation of each TDNN layer."""

    def __init__(
        self,
        dim: int,
        outputs: int,
        *,
        projection: int,
        hidden: int,
        pooled: int,
        embedding: int,
    ) -> None:
        super().__init__()
        self.extra_outputs = embedding
        self.project = nn.Linear(dim, projection)
        widths = (projection, hidden, hidden, hidden, hidden, pooled)
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, kernel, dilation=dilation)
            for before, after, (kernel, dilation) in zip(
                widths, widths[1:], self.CONTEXTS, strict=False
            )
        )
        self.lost = sum((kernel - 1) * dilation for kernel, dilation in self.CONTEXTS)
        self.embed = nn.Linear(2 * pooled, embedding)
        self.refine = nn.Linear(embedding, embedding)
        self.speakers = nn.Parameter(torch.empty(outputs, embedding))
        nn.init.xavier_normal_(self.speakers)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[utterance, cosine to each speaker and embedding]``, and `lengths` as they came.

        The embedding is the first layer after pooling; the cosines are of the second.
        """
        hidden = self.project(lengthened(frames, lengths, self.lost + 1)).transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden).relu()
        left = lengths.clamp(min=self.lost + 1) - self.lost
        valid = torch.arange(hidden.shape[2], device=hidden.device) < left[:, None]
        count = left[:, None].to(hidden.dtype)
        mean = (hidden * valid[:, None]).sum(2) / count
        variance = ((hidden - mean[..., None]).square() * valid[:, None]).sum(2) / count
        # not 0, where the root has no slope
        embedding = self.embed(torch.cat([mean, (variance + 1e-6).sqrt()], dim=1)).relu()
        refined = nn.functional.normalize(self.refine(embedding).relu(), dim=1)
        cosines = refined @ nn.functional.normalize(self.speakers, dim=1).T
        return torch.cat([cosines, embedding], dim=1), lengths


def lengthened(frames: Tensor, lengths: Tensor, least: int) -> Tensor:
    """Utterances of fewer than `least` frames, with their last frame again up to that many."""
    if int(lengths.min()) >= least:
        return frames
    time = torch.arange(max(frames.shape[1], least), device=frames.device)[None]
    last = (lengths[:, None] - 1).clamp(min=0)
    place = torch.where(time < lengths.clamp(min=least)[:, None], time.minimum(last), time)
    place = place.clamp(max=frames.shape[1] - 1)
    return frames.gather(1, place[..., None].expand(-1, -1, frames.shape[2]))
