"""Connectionist temporal classification (Graves et al. 2006): what the tasks that use it share.

The first output is the blank, everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmark.answers import Span
from benchmark.errors import SuperbError

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Tensor

BLANK: Final = "<blank>"

RECURRENT_HEAD: Final[Mapping[str, Any]] = {
    "frame_s": 0.04,
    "projection": 128,
    "hidden": 128,
    "layers": 2,
    "dropout": 0.2,
}
"""Settings of `downstreams.heads.RecurrentTranscriber` for little data.

``frame_s`` is how many seconds a frame of the head covers: shorter frames of the encoder are
stacked. 0 means no stacking.
"""


def loss(logits: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """CTC loss per symbol, averaged over the batch.

    A target that cannot fit into its frames has no alignment; it contributes nothing.

    Args:
        logits: ``[utterance, frame, symbol]``.
        lengths: valid frames of each utterance.
        targets: places of its symbols in the vocabulary.
    """
    import torch

    return torch.nn.functional.ctc_loss(
        logits.log_softmax(dim=-1).transpose(0, 1),
        torch.tensor([symbol for target in targets for symbol in target]),
        lengths.cpu(),
        torch.tensor([len(target) for target in targets]),
        zero_infinity=True,
    )


def places(symbols: Sequence[str], vocabulary: Sequence[str]) -> list[int]:
    """Places of symbols in the vocabulary, without those that have none.

    What train never had can be in valid: no output stands for it.
    """
    index = {symbol: place for place, symbol in enumerate(vocabulary)}
    return [index[symbol] for symbol in symbols if symbol in index]


def best_paths(logits: Tensor, lengths: Tensor, vocabulary: Sequence[str]) -> list[list[str]]:
    """The symbols of the best path of each utterance (section 3.2)."""
    best = logits.argmax(dim=-1).cpu()
    return [
        collapse(path[:length].tolist(), vocabulary)
        for path, length in zip(best, lengths.tolist(), strict=True)
    ]


def collapse(path: Sequence[int], vocabulary: Sequence[str]) -> list[str]:
    """Symbols of a path: repeats joined, then blanks dropped (section 3.1).

    >>> collapse([1, 1, 0, 1, 2], ["<blank>", "A", "B"])
    ['A', 'A', 'B']
    """
    return [vocabulary[index] for index, _ in groupby(path) if index != 0]


class Heard(NamedTuple):
    """A symbol of the best path.

    Attributes:
        place: in the vocabulary.
        first: frame of the head in which it begins.
        after: the frame after its last.
        probability: the highest that it has in any of them.
    """

    place: int
    first: int
    after: int
    probability: float


def heard(logits: Tensor, lengths: Tensor) -> list[list[Heard]]:
    """The symbols of the best path of each utterance, with their frames."""
    most, best = (own.cpu() for own in logits.softmax(dim=-1).max(dim=-1))
    found = []
    for path, sure, length in zip(best.tolist(), most.tolist(), lengths.tolist(), strict=True):
        own, start = [], 0
        for place, run in groupby(path[:length]):
            end = start + len(list(run))
            if place != 0:
                own.append(Heard(place, start, end, max(sure[start:end])))
            start = end
        found.append(own)
    return found


def confidence(symbols: Iterable[Heard]) -> float | None:
    """Geometric mean of the probabilities of symbols; None where there is none."""
    logs = [math.log(max(symbol.probability, 1e-30)) for symbol in symbols]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def span(symbols: Sequence[Heard], text: str, frame_s: float, label: str = "") -> Span:
    """Neighbouring symbols as a part of an answer.

    Args:
        symbols: at least one.
        text: what they spell.
        frame_s: seconds of a frame of the head.
        label: what they are part of.
    """
    start, end = symbols[0].first * frame_s, symbols[-1].after * frame_s
    return Span(text, round(start, 3), round(end, 3), label, confidence(symbols))


def words(symbols: Sequence[Heard], vocabulary: Sequence[str], frame_s: float) -> tuple[Span, ...]:
    """Words of characters: what stands between spaces."""
    found = []
    for blank, run in groupby(symbols, key=lambda symbol: vocabulary[symbol.place].isspace()):
        if not blank:
            own = list(run)
            found.append(span(own, "".join(vocabulary[one.place] for one in own), frame_s))
    return tuple(found)


def stacked(hop_s: float, settings: Mapping[str, Any]) -> int:
    """How many frames of the encoder make one of a recurrent head."""
    return max(1, round(float(settings["frame_s"]) / hop_s))


def too_long(
    what: str,
    targets: Sequence[Sequence[str]],
    lengths: Sequence[int],
    hop_s: float,
    stack: int = 1,
) -> list[str]:
    """A note on targets that have no alignment, or nothing.

    Raises:
        SuperbError: none has.

    Args:
        what: the symbols, for the note.
        targets: symbols of each training utterance.
        lengths: frames of the encoder for each.
        hop_s: seconds between them.
        stack: how many of them make one of the head.
    """
    unfit = [
        target
        for target, length in zip(targets, lengths, strict=True)
        # a frame per symbol, and a blank between equal neighbours
        if len(target) + sum(a == b for a, b in pairwise(target)) > -(-length // stack)
    ]
    if not unfit:
        return []
    if len(unfit) == len(targets):
        raise SuperbError(
            f"every training transcript has more {what} than the head has frames "
            f"({stack * hop_s * 1000:.0f} ms each), so CTC can align none. Take an encoder with "
            "more frames, or a smaller frame_s in the protocol's table of the head"
        )
    return [
        f"{len(unfit)} of {len(targets)} training transcripts have more {what} than the head has "
        f"frames ({stack * hop_s * 1000:.0f} ms each); CTC cannot align them, so they teach "
        f"nothing: {beginning(unfit[0])}"
    ]


def unanswerable(
    targets: Sequence[Sequence[str]],
    lengths: Sequence[int],
    stack: int,
    frame_s: float,
    per_frame: int,
) -> list[str]:
    """A note on targets that are longer than a search lets an answer be, or nothing.

    Args:
        targets: symbols of each training utterance.
        lengths: frames of the encoder for each.
        stack: how many of them make one of the head.
        frame_s: seconds of that.
        per_frame: symbols that are said at most for each.

    Raises:
        SuperbError: all are.
    """
    long = [
        target
        for target, length in zip(targets, lengths, strict=True)
        if len(target) > per_frame * -(-length // stack)
    ]
    if not long:
        return []
    if len(long) == len(targets):
        raise SuperbError(
            f"every training transcript has more than {per_frame} characters for each frame of the "
            f"head ({frame_s * 1000:.0f} ms), so none can be answered. Take an encoder with more "
            "frames, or a smaller frame_s in the protocol's table of the head"
        )
    return [
        f"{len(long)} of {len(targets)} training transcripts are longer than any answer, which has "
        f"{per_frame} characters at most for each {frame_s * 1000:.0f} ms: {beginning(long[0])}"
    ]


def beginning(target: Sequence[str], most: int = 40) -> str:
    """How a transcript begins, by which it is found.

    >>> beginning("ALL THAT IS SAID", 8), beginning(["AH", "B"])
    ("'ALL THAT …'", "'AH B'")
    >>> beginning([*"PLAY ", "B-album", *"JAZZ", "E-album"])
    "'PLAY B-album JAZZ E-album'"
    """
    if " " in target:  # characters, and perhaps tags among them
        spaced = [symbol if len(symbol) == 1 else f" {symbol} " for symbol in target]
        text = " ".join("".join(spaced).split())
    else:
        text = ("" if all(len(symbol) == 1 for symbol in target) else " ").join(target)
    return f"'{text[:most]} …'" if len(text) > most else f"'{text}'"
