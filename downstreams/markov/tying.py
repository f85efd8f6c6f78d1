"""Which states of which units are one: decision trees over phonetic contexts.

Young, Odell and Woodland 1994, "Tree-based state tying for high accuracy acoustic modelling": each
state of each phone has a tree of questions on its neighbours. A leaf is split by the question
after which single Gaussians fit its frames best, as long as that gains enough.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering

from downstreams.markov.units import EDGE, SILENCE, Unit

_FLOOR = 1e-3


class Tying(Protocol):
    """Which state an HMM of a unit has at each of its places."""

    @property
    def count(self) -> int:
        """How many states there are."""
        ...

    @property
    def places(self) -> int:
        """States of a unit, one after another."""
        ...

    def state(self, unit: Unit, place: int) -> int:
        """The state at a place of a unit."""
        ...


@dataclass(frozen=True)
class Monophones:
    """States that do not depend on neighbours.

    Attributes:
        phones: all of them.
        places: states of each.
    """

    phones: tuple[str, ...]
    places: int

    @property
    def count(self) -> int:
        """How many states there are."""
        return len(self.phones) * self.places

    def state(self, unit: Unit, place: int) -> int:
        """That of the phone."""
        return self.phones.index(unit.phone) * self.places + place


@dataclass(frozen=True)
class Question:
    """Whether a neighbour is one of some phones, and where that leads."""

    side: str
    phones: frozenset[str]
    yes: Question | int
    no: Question | int


@dataclass(frozen=True)
class Tree:
    """States that depend on neighbours.

    Attributes:
        roots: phone and place → a question, or a state.
        count: how many states there are.
        places: states of each unit.
    """

    roots: Mapping[tuple[str, int], Question | int]
    count: int
    places: int

    def state(self, unit: Unit, place: int) -> int:
        """The leaf that the answers lead to, seen in training or not."""
        node = self.roots[unit.phone, place]
        while not isinstance(node, int):
            node = node.yes if getattr(unit, node.side) in node.phones else node.no
        return node


@dataclass(frozen=True)
class Stats:
    """Sums over frames: number, values ``[dim]`` and their squares."""

    count: float
    first: NDArray[np.float64]
    second: NDArray[np.float64]

    def __add__(self, other: Stats) -> Stats:
        return Stats(self.count + other.count, self.first + other.first, self.second + other.second)

    @property
    def fit(self) -> float:
        """Log likelihood of the frames under their own Gaussian, without constants."""
        mean = self.first / self.count
        variance = np.maximum(self.second / self.count - mean**2, _FLOOR)
        return float(-0.5 * self.count * np.log(variance).sum())


Seen = Mapping[tuple[Unit, int], Stats]


def grow(
    seen: Seen, phones: Sequence[str], places: int, *, leaves: int, gain: float, least: float
) -> Tree:
    """Grow a tree for each state of each phone, always where it gains most.

    Args:
        seen: unit and place → sums over its frames in an alignment.
        phones: all of them.
        places: states of each.
        leaves: at most so many in all.
        gain: of log likelihood, that a split must have.
        least: frames in a leaf.
    """
    questions = _questions(seen, phones)
    groups: dict[tuple[str, int], list[tuple[Unit, Stats]]] = {
        (phone, place): [] for phone in phones for place in range(places)
    }
    for (unit, place), stats in seen.items():
        groups[unit.phone, place].append((unit, stats))
    order = count()
    heap: list[tuple[float, int, _Leaf]] = []
    roots = {}
    for key, members in groups.items():
        roots[key] = leaf = _Leaf(members)
        if key[0] != SILENCE:
            _propose(leaf, questions, gain, least, heap, order)
    total = len(roots)
    while heap and total < leaves:
        _, _, leaf = heapq.heappop(heap)
        leaf.split()
        total += 1
        for part in leaf.parts:
            _propose(part, questions, gain, least, heap, order)
    states = count()
    return Tree({key: root.frozen(states) for key, root in roots.items()}, total, places)


class _Leaf:
    """Units that are one state so far."""

    def __init__(self, members: list[tuple[Unit, Stats]]) -> None:
        self.members = members
        self.best: tuple[str, frozenset[str]] | None = None
        self.parts: tuple[_Leaf, ...] = ()

    def split(self) -> None:
        assert self.best is not None
        side, phones = self.best
        self.parts = (
            _Leaf([own for own in self.members if getattr(own[0], side) in phones]),
            _Leaf([own for own in self.members if getattr(own[0], side) not in phones]),
        )

    def frozen(self, states: count[int]) -> Question | int:
        if not self.parts:
            return next(states)
        assert self.best is not None
        yes, no = (part.frozen(states) for part in self.parts)
        return Question(*self.best, yes, no)


def _propose(
    leaf: _Leaf,
    questions: Sequence[frozenset[str]],
    gain: float,
    least: float,
    heap: list[tuple[float, int, _Leaf]],
    order: count[int],
) -> None:
    """Find the best question of a leaf, and queue it if it gains enough."""
    if len(leaf.members) < 2:
        return
    whole = _sum([stats for _, stats in leaf.members])
    best = gain
    for side in ("left", "right"):
        by_phone: dict[str, Stats] = {}
        for unit, stats in leaf.members:
            phone = getattr(unit, side)
            by_phone[phone] = by_phone[phone] + stats if phone in by_phone else stats
        tried = set()
        for phones in questions:
            inside = phones.intersection(by_phone)
            if not inside or len(inside) == len(by_phone) or inside in tried:
                continue
            tried.add(inside)
            yes = _sum([by_phone[phone] for phone in sorted(inside)])
            no = _sum([own for phone, own in by_phone.items() if phone not in inside])
            if min(yes.count, no.count) < least:
                continue
            gained = yes.fit + no.fit - whole.fit
            if gained > best:
                best, leaf.best = gained, (side, phones)
    if leaf.best is not None:
        heapq.heappush(heap, (-best, next(order), leaf))


def _sum(stats: Sequence[Stats]) -> Stats:
    return Stats(
        sum(own.count for own in stats),
        np.sum([own.first for own in stats], axis=0),
        np.sum([own.second for own in stats], axis=0),
    )


def _questions(seen: Seen, phones: Sequence[str]) -> list[frozenset[str]]:
    """Sets of phones that sound alike, by clustering their means, and each by itself.

    Taken from the data as Kaldi does, so that any set of phones has some.
    """
    found = [frozenset([phone]) for phone in (*phones, EDGE)]
    heard: dict[str, Stats] = {}
    for (unit, _), stats in seen.items():
        heard[unit.phone] = heard[unit.phone] + stats if unit.phone in heard else stats
    names = sorted(heard.keys() - {SILENCE})
    if len(names) < 3:
        return found
    means = np.stack([heard[name].first / heard[name].count for name in names])
    merged = AgglomerativeClustering(n_clusters=None, distance_threshold=0).fit(means)
    sets = [frozenset([name]) for name in names]
    for first, second in merged.children_:
        sets.append(sets[first] | sets[second])
    return [*found, *sets[len(names) : -1]]
