"""The heads of SUPERB (Yang et al. 2021, section 3): light, on top of mixed frames.

Every head takes ``frames [utterance, frame, dim]`` and ``lengths [utterance]`` and returns logits
with their lengths. None looks beyond an utterance's length, so padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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
        hidden, _ = self.recurrent(frames)
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


def stack_frames(frames: Tensor, lengths: Tensor, stack: int) -> tuple[Tensor, Tensor]:
    """Join every `stack` neighbouring frames: ``[u, t, d] → [u, ceil(t / stack), stack d]``."""
    if stack == 1:
        return frames, lengths
    utterances, count, dim = frames.shape
    padded = nn.functional.pad(frames, (0, 0, 0, -count % stack))
    return padded.reshape(utterances, -1, stack * dim), (lengths + stack - 1) // stack


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
        ahead, _ = self.forwards(frames)
        behind, _ = self.backwards(turn_round(frames, lengths))
        return torch.cat([ahead, turn_round(behind, lengths)], dim=-1)


def turn_round(frames: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each utterance in time within its own length; padding stays where it is."""
    time = torch.arange(frames.shape[1], device=frames.device)[None]
    source = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return frames.gather(1, source[..., None].expand_as(frames))
