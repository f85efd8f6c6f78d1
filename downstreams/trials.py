"""Trials: pairs of utterances, and whether one person speaks in both."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Final, NamedTuple

from benchmark.core import Utterance
from benchmark.errors import SuperbError

COLUMN: Final = "trials"
MOST: Final = 2_000
"""Trials of a split that names none: half of one speaker, half of two, as far as there are."""


class Pair(NamedTuple):
    """A trial: the places of two utterances in their split, and whether they share a speaker."""

    one: int
    other: int
    target: bool


def pairs_of(utterances: Sequence[Utterance], *, partial: bool = False) -> tuple[Pair, ...]:
    """The trials of a split.

    An utterance may name the others that it is compared with in the column ``trials``, ids between
    spaces. Where none of a split does, all pairs of its utterances are trials, or `MOST` of them if
    there are more: of either kind those whose places in the split come first by their hash.

    Args:
        utterances: the split.
        partial: of the split there are these alone; trials of others are left out.

    Raises:
        SuperbError: a trial of an utterance with itself, or with one that is not there, or twice.
    """
    named = [utterance.value(COLUMN) for utterance in utterances]
    if partial and any(named):
        ids = {utterance.id for utterance in utterances}
        named = [" ".join(name for name in own.split() if name in ids) for own in named]
        if not any(named):
            return ()
    return _pairs(
        tuple(utterance.id for utterance in utterances),
        tuple(utterance.speaker for utterance in utterances),
        tuple(named),
    )


def left_out(utterances: Sequence[Utterance]) -> int:
    """How many trials are named with an utterance that is not there."""
    ids = {utterance.id for utterance in utterances}
    return sum(name not in ids for u in utterances for name in u.value(COLUMN).split())


@lru_cache(maxsize=16)  # every look at valid asks anew
def _pairs(
    ids: tuple[str, ...], speakers: tuple[str, ...], named: tuple[str, ...]
) -> tuple[Pair, ...]:
    index = {own: number for number, own in enumerate(ids)}
    if any(named):
        pairs = []
        for one, others in enumerate(named):
            for name in others.split():
                if name not in index or index[name] == one:
                    raise SuperbError(
                        f"a trial of {ids[one]!r} with {name!r}, which is "
                        f"{'itself' if name in index else 'no utterance of its split'}"
                    )
                pairs.append(Pair(one, index[name], speakers[one] == speakers[index[name]]))
        if len(set(pairs)) < len(pairs):
            one, other, _ = next(pair for pair, count in Counter(pairs).items() if count > 1)
            raise SuperbError(f"a trial of {ids[one]!r} with {ids[other]!r} that occurs twice")
        return tuple(pairs)
    if len(ids) * (len(ids) - 1) // 2 <= MOST:
        everything = combinations(range(len(ids)), 2)
        return tuple(Pair(a, b, speakers[a] == speakers[b]) for a, b in everything)
    of_speaker: dict[str, list[int]] = defaultdict(list)
    for place, speaker in enumerate(speakers):
        of_speaker[speaker].append(place)
    same = [Pair(a, b, True) for own in of_speaker.values() for a, b in combinations(own, 2)]
    half = MOST // 2
    return (*_drawn(same, half), *_different(speakers, half))


def _drawn(pairs: Sequence[Pair], most: int) -> list[Pair]:
    return sorted(sorted(pairs, key=lambda pair: _hash(pair.one, pair.other))[:most])


def _different(speakers: Sequence[str], most: int) -> list[Pair]:
    """Pairs of two speakers; of many utterances they are drawn without going through all."""
    count = len(speakers)
    if count <= most:
        everything = combinations(range(count), 2)
        return _drawn(
            [Pair(a, b, False) for a, b in everything if speakers[a] != speakers[b]], most
        )
    if len(set(speakers)) < 2:
        return []
    found: set[Pair] = set()
    draw = 0
    # of so many utterances there are more such pairs than are wanted
    while len(found) < most:
        a, b = (_hash(draw, side) % count for side in (0, 1))
        draw += 1
        if speakers[a] != speakers[b]:
            found.add(Pair(min(a, b), max(a, b), False))
    return sorted(found)


def _hash(*numbers: int) -> int:
    """Chance that is the same wherever it is asked."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8])
