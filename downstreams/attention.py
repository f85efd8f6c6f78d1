"""Attention: a recogniser that spells and looks at the frames it needs (Chan et al. 2016).

"Listen, attend and spell": the listener halves its frames between layers, as a pyramid. Attention
is by content and by place (Chorowski et al. 2015, section 2.2). Where a protocol says so, the
listener learns by CTC too (Kim et al. 2017). Answers come from the speller alone, by beam search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from downstreams import ctc
from downstreams.heads import Listener, heard_frames

END = 0
"""Begins and ends each transcript."""
# Symbols that are said at most for each frame: a search must end.
_PER_FRAME = 2


class State(NamedTuple):
    """Of the speller, between symbols.

    Attributes:
        hidden: of its LSTM, ``[utterance, hidden]``.
        cell: likewise.
        context: what it looked at last, ``[utterance, width]``.
        weights: where that was, ``[utterance, frame]``.
    """

    hidden: Tensor
    cell: Tensor
    context: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Heard:
    """What the listener gives, with the speller that goes on from it.

    Attributes:
        speller: whose.
        frames: ``[utterance, frame, width]``.
    """

    speller: Speller
    frames: Tensor


class Speller(nn.Module):
    """Listener, attention, LSTM and linear: one symbol after another."""

    def __init__(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> None:
        super().__init__()
        self.listener = Listener(dim, hop_s, settings, generator)
        width, hidden = self.listener.width, int(settings["speller"])
        attention, window = int(settings["attention"]), int(settings["window"])
        self.ctc_weight = float(settings["ctc_weight"])
        self.aligned = nn.Linear(width, outputs) if self.ctc_weight else None
        self.embed = nn.Embedding(outputs, hidden)
        self.cell = nn.LSTMCell(hidden + width, hidden)
        self.query = nn.Linear(hidden, attention, bias=False)
        self.key = nn.Linear(width, attention)
        self.place = nn.Linear(2 * window + 1, attention, bias=False)
        self.window = window
        self.energy = nn.Linear(attention, 1, bias=False)
        self.classify = nn.Linear(hidden + width, outputs)
        self.beam = int(settings["beam"])
        self.dropout = self.listener.dropout

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Heard, Tensor]:
        """What is heard, and the number of valid frames of it."""
        heard, lengths = self.listener(frames, lengths)
        return Heard(self, heard.float()), lengths

    def begin(self, frames: Tensor) -> State:
        """Before the first symbol: it looks at the first frame."""
        utterances, count, width = frames.shape
        nothing = frames.new_zeros(utterances, self.cell.hidden_size)
        weights = frames.new_zeros(utterances, count)
        weights[:, 0] = 1
        return State(nothing, nothing, frames.new_zeros(utterances, width), weights)

    def step(
        self, state: State, said: Tensor, frames: Tensor, keys: Tensor, unheard: Tensor
    ) -> State:
        """After one more symbol.

        Args:
            state: before it.
            said: embeddings of the last symbols ``[utterance, hidden]``.
            frames: what is heard.
            keys: of these.
            unheard: minus infinity where they are padding, else 0 ``[utterance, frame]``.
        """
        given = torch.cat([said, state.context], dim=-1)
        hidden, cell = self.cell(given, (state.hidden, state.cell))
        around = nn.functional.pad(state.weights, (self.window, self.window))
        place = self.place(around.unfold(1, 2 * self.window + 1, 1))  # a convolution
        energies = self.energy(torch.tanh(self.query(hidden)[:, None] + keys + place))[..., 0]
        weights = (energies + unheard).softmax(dim=-1)
        return State(hidden, cell, (weights[:, None] @ frames)[:, 0], weights)

    def spell(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Logits of the next symbol ``[…, symbol]``."""
        logits: Tensor = self.classify(self.dropout(torch.cat([hidden, context], dim=-1)))
        return logits


class Attention:
    """Listen, attend and spell."""

    name = "attention"
    title = "linear, 2-layer BLSTM, attention, LSTM, linear; characters one by one, beam search"
    settings: Mapping[str, Any] = {
        **ctc.RECURRENT_HEAD,
        "reduction": 2,
        "speller": 128,
        "attention": 64,
        "window": 7,
        "ctc_weight": 0.0,
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
        """Settings: those of `Listener`; widths of ``speller`` and ``attention``; ``window``, the
        frames that it sees to each side of its last place; the share of CTC in the loss; the beam.
        """
        return Speller(dim, hop_s, outputs, settings, generator)

    def loss(self, heard: Heard, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
        """Cross-entropy per symbol, each after the right ones before it, and the share of CTC."""
        speller, frames = heard.speller, heard.frames
        wanted = nn.utils.rnn.pad_sequence(
            [torch.tensor([*target, END], device=frames.device) for target in targets],
            batch_first=True,
            padding_value=-1,
        )
        keys, unheard, state = speller.key(frames), _unheard(frames, lengths), speller.begin(frames)
        before = nn.functional.pad(wanted.clamp(min=0)[:, :-1], (1, 0), value=END)
        steps = []
        for said in speller.embed(before).unbind(dim=1):
            state = speller.step(state, said, frames, keys, unheard)
            steps.append(state)
        logits = speller.spell(
            torch.stack([step.hidden for step in steps], dim=1),
            torch.stack([step.context for step in steps], dim=1),
        )
        each = nn.functional.cross_entropy(
            logits.transpose(1, 2), wanted, ignore_index=-1, reduction="none"
        )
        spelt = (each.sum(dim=1) / (wanted >= 0).sum(dim=1)).mean()
        if speller.aligned is None:
            return spelt
        aligned = ctc.loss(speller.aligned(frames), lengths, targets)
        return (1 - speller.ctc_weight) * spelt + speller.ctc_weight * aligned

    def transcribe(self, heard: Heard, lengths: Tensor) -> list[list[int]]:
        """The best of what a beam search finds, by mean log probability of a symbol.

        Nobody says more than two symbols in a frame of the listener, so that it ends.
        """
        speller, frames = heard.speller, heard.frames
        count, beam = len(frames), speller.beam
        rows = torch.arange(count, device=frames.device).repeat_interleave(beam)
        several, unheard = frames[rows], _unheard(frames, lengths)[rows]
        keys, state = speller.key(several), speller.begin(several)
        scores = frames.new_full((count, beam), -torch.inf)
        scores[:, 0] = 0
        symbols = torch.full((count * beam,), END, device=frames.device)
        said = symbols.new_zeros(count, beam, 0)
        ended = torch.zeros(count, beam, dtype=torch.bool, device=frames.device)
        spoken = frames.new_zeros(count, beam)  # symbols, the end among them
        for place in range(_PER_FRAME * int(lengths.max()) + 1):
            after = speller.step(state, speller.embed(symbols), several, keys, unheard)
            logits = speller.spell(after.hidden, after.context)
            following = logits.log_softmax(dim=-1).view(count, beam, -1)
            over = place >= _PER_FRAME * lengths[:, None].to(frames.device)
            only_end = torch.full_like(following, -torch.inf)
            only_end[..., END] = torch.where(ended, 0, following[..., END])
            following = torch.where((ended | over)[..., None], only_end, following)
            outputs = following.shape[-1]
            scores, best = (scores[..., None] + following).flatten(1).topk(beam)
            parent, chosen = best // outputs, best % outputs
            spoken = spoken.gather(1, parent) + ~ended.gather(1, parent)
            ended = ended.gather(1, parent) | (chosen == END)
            said = torch.cat(
                [said.gather(1, parent[..., None].expand(-1, -1, place)), chosen[..., None]], dim=2
            )
            from_rows = (
                torch.arange(count, device=frames.device)[:, None] * beam + parent
            ).flatten()
            state = State(*(own[from_rows] for own in after))
            symbols = chosen.flatten()
            if ended.all():
                break
        finished = scores.masked_fill(~ended, -torch.inf) / spoken
        winners = finished.argmax(dim=1)
        best_said = said[torch.arange(count, device=frames.device), winners].tolist()
        return [[symbol for symbol in own if symbol != END] for own in best_said]

    def looked_at(
        self, heard: Heard, lengths: Tensor, said: Sequence[Sequence[int]]
    ) -> list[tuple[tuple[float, ...], ...]]:
        """The weights of attention for each symbol ``[symbol][frame]``, of 0.01 and more."""
        speller, frames = heard.speller, heard.frames
        found = []
        for row, (symbols, length) in enumerate(zip(said, lengths.tolist(), strict=True)):
            own = frames[row : row + 1, :length]
            keys, state = speller.key(own), speller.begin(own)
            unheard, weights = own.new_zeros(1, length), []
            for before in (END, *symbols)[: len(symbols)]:
                last = speller.embed(torch.tensor([before], device=own.device))
                state = speller.step(state, last, own, keys, unheard)
                weights.append(tuple(round(weight, 2) for weight in state.weights[0].tolist()))
            found.append(tuple(weights))
        return found

    def notes(
        self,
        targets: Sequence[Sequence[str]],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Count the transcripts that are too long for an answer, or for the share of CTC."""
        stack = ctc.stacked(hop_s, settings)
        stack *= int(settings["reduction"]) ** (int(settings["layers"]) - 1)
        notes = ctc.unanswerable(targets, lengths, stack, stack * hop_s, _PER_FRAME)
        if float(settings["ctc_weight"]):
            notes += ctc.too_long("characters", targets, lengths, hop_s, stack)
        return notes


def _unheard(frames: Tensor, lengths: Tensor) -> Tensor:
    """Minus infinity for frames that are padding, 0 for others ``[utterance, frame]``."""
    heard = heard_frames(frames, lengths)
    return torch.zeros(heard.shape, device=frames.device).masked_fill(~heard, -torch.inf)
