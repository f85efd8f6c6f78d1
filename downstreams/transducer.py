"""The RNN transducer: CTC that knows what it has said (Graves 2012, "Sequence transduction").

A prediction network runs over the symbols so far, a joiner adds it to what is heard, and the loss
sums over all ways to say the symbols in time, by torchaudio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from downstreams import ctc
from downstreams.heads import Listener, heard_frames

BLANK = 0
# Symbols that are said at most for each frame: a search must end.
_PER_FRAME = 2


@dataclass(frozen=True)
class Heard:
    """What the encoder gives, with the networks that go on from it.

    Attributes:
        networks: whose.
        frames: ``[utterance, frame, joint]``.
    """

    networks: Networks
    frames: Tensor


class Networks(nn.Module):
    """Encoder, prediction network and joiner (sections 2.2 to 2.4)."""

    def __init__(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> None:
        super().__init__()
        joint, hidden = int(settings["joint"]), int(settings["prediction"])
        self.listener = Listener(dim, hop_s, settings, generator)
        self.heard = nn.Linear(self.listener.width, joint)
        self.embed = nn.Embedding(outputs, hidden)
        self.predict = nn.LSTM(hidden, hidden, batch_first=True)
        self.said = nn.Linear(hidden, joint, bias=False)
        self.classify = nn.Linear(joint, outputs)
        self.dropout = self.listener.dropout
        self.beam = int(settings["beam"])

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Heard, Tensor]:
        """What is heard, and the number of valid frames of it."""
        heard, lengths = self.listener(frames, lengths)
        return Heard(self, self.heard(heard).float()), lengths

    def join(self, heard: Tensor, said: Tensor) -> Tensor:
        """Logits of the next symbol; both broadcast."""
        logits: Tensor = self.classify(torch.tanh(heard + said))
        return logits


class Transducer:
    """The RNN transducer."""

    name = "transducer"
    title = "linear, 2-layer BLSTM; LSTM over what was said; joiner; characters, beam search"
    settings: Mapping[str, Any] = {
        **ctc.RECURRENT_HEAD,
        "reduction": 2,
        "joint": 128,
        "prediction": 128,
        "beam": 4,
    }

    def module(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """Settings: those of `Listener`, widths of joiner and prediction network, and the beam."""
        return Networks(dim, hop_s, outputs, settings, generator)

    def loss(self, heard: Heard, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
        """Minus the log probability of the symbols, over their number."""
        from torchaudio.functional import rnnt_loss

        networks = heard.networks
        frames = heard.frames[:, : int(lengths.max())]  # which the loss insists on
        counts = torch.tensor([len(target) for target in targets], device=frames.device)
        padded = frames.new_zeros((len(targets), max(1, int(counts.max()))), dtype=torch.int32)
        for own, target in zip(padded, targets, strict=True):
            own[: len(target)] = torch.tensor(target, dtype=torch.int32)
        before = nn.functional.pad(padded.long(), (1, 0), value=BLANK)
        predicted, _ = networks.predict(networks.dropout(networks.embed(before)))
        logits = networks.join(frames[:, :, None], networks.said(predicted)[:, None])
        each = (
            counts
            if not counts.any()
            else rnnt_loss(
                logits.float(),
                padded,
                lengths.to(frames.device, torch.int32),
                counts.int(),
                blank=BLANK,
                reduction="none",
            )
        )
        if not counts.any():  # of nothing but blanks there is one path, which the loss cannot take
            blank = logits[:, :, 0].float().log_softmax(dim=-1)[..., BLANK]
            each = -(blank * heard_frames(frames, lengths)).sum(dim=1)
        mean: Tensor = (each / counts.clamp(min=1)).mean()
        return mean

    def transcribe(self, heard: Heard, lengths: Tensor) -> list[list[int]]:
        """The best path that a beam search finds, in which all have taken as many steps.

        A step says a symbol or goes on to the next frame (Saon et al. 2020, "alignment-length
        synchronous decoding"); a beam of one takes the likelier of all each time.
        """
        networks, frames = heard.networks, heard.frames
        count, beam = len(frames), networks.beam
        device = frames.device
        lengths = lengths.to(device)[:, None]
        row = torch.arange(count, device=device)[:, None]
        scores = frames.new_full((count, beam), -torch.inf)
        scores[:, 0] = 0
        frame = torch.zeros(count, beam, dtype=torch.long, device=device)
        spoken = torch.zeros_like(frame)
        said = frame.new_full((count, beam, _PER_FRAME * int(lengths.max())), BLANK)
        last = frame.new_full((count * beam, 1), BLANK)
        output, (hidden, cell) = networks.predict(networks.embed(last))
        for _ in range((_PER_FRAME + 1) * int(lengths.max())):
            ended = frame >= lengths
            if ended.all():
                break
            now = frames[row, frame.clamp(max=frames.shape[1] - 1)]
            following = networks.join(now, networks.said(output[:, 0]).view(count, beam, -1))
            following = following.log_softmax(dim=-1)
            stay = torch.full_like(following, -torch.inf)
            stay[..., BLANK] = torch.where(ended, 0, following[..., BLANK])
            full = spoken >= _PER_FRAME * lengths
            following = torch.where((ended | full)[..., None], stay, following)
            outputs = following.shape[-1]
            scores, best = (scores[..., None] + following).flatten(1).topk(beam)
            parent, chosen = best // outputs, best % outputs
            ended, frame = ended.gather(1, parent), frame.gather(1, parent)
            spoken = spoken.gather(1, parent)
            said = said.gather(1, parent[..., None].expand_as(said))
            places = spoken.clamp(max=said.shape[2] - 1)[..., None]
            speaks = chosen != BLANK
            said.scatter_(
                2, places, torch.where(speaks, chosen, said.gather(2, places)[..., 0])[..., None]
            )
            spoken = spoken + speaks
            frame = frame + (~speaks & ~ended)
            # where nothing was said, the prediction network stays where it was
            rows = (row * beam + parent).flatten()
            hidden, cell, output = hidden[:, rows], cell[:, rows], output[rows]
            after, (next_hidden, next_cell) = networks.predict(
                networks.embed(chosen.flatten()[:, None]), (hidden, cell)
            )
            keep = ~speaks.flatten()
            output = torch.where(keep[:, None, None], output, after)
            hidden = torch.where(keep[None, :, None], hidden, next_hidden)
            cell = torch.where(keep[None, :, None], cell, next_cell)
        winners = scores.masked_fill(frame < lengths, -torch.inf).argmax(dim=1)
        best_said = said[row[:, 0], winners].tolist()
        return [[symbol for symbol in own if symbol != BLANK] for own in best_said]

    def notes(
        self,
        targets: Sequence[Sequence[str]],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Count the transcripts that are longer than an answer can be."""
        stack = ctc.stacked(hop_s, settings)
        stack *= int(settings.get("reduction", 1)) ** (int(settings["layers"]) - 1)
        return ctc.unanswerable(targets, lengths, stack, stack * hop_s, _PER_FRAME)
