"""The classical system: monophones from a flat start, then tied triphones (Young et al. 1994).

The passes are those of Kaldi's recipes for little data, fewer of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import SuperbError
from downstreams.markov.graph import aligned
from downstreams.markov.mixtures import Frames, Mixtures
from downstreams.markov.tying import Monophones, Stats, Tying, grow
from downstreams.markov.units import QUIET, Unit

Alignment = list[tuple[Unit, int]]
"""Unit and place in it, of each frame."""


@dataclass(frozen=True)
class Recipe:
    """How a classical system is trained.

    Attributes:
        mono_passes: over train, of monophones.
        mono_components: Gaussians of all monophones in the end.
        tri_passes: of triphones.
        tri_components: Gaussians of all triphones in the end.
        leaves: tied states at most.
        gain: of log likelihood, for a split of the tree.
        least: frames in a leaf.
    """

    mono_passes: int = 14
    mono_components: int = 600
    tri_passes: int = 12
    tri_components: int = 2400
    leaves: int = 600
    gain: float = 200.0
    least: float = 60.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Recipe:
        """The settings of a head that are its own."""
        return cls(**{own.name: settings[own.name] for own in fields(cls) if own.name in settings})


@dataclass(frozen=True)
class System:
    """What was learnt.

    Attributes:
        tying: the states.
        mixtures: of each.
        unfit: places of the utterances that had fewer frames than states.
    """

    tying: Tying
    mixtures: Mixtures
    unfit: tuple[int, ...]

    def align(self, spoken: Sequence[Sequence[Unit]], frames: Frames) -> Alignment | None:
        """Where each unit of a transcript is; None if it does not fit."""
        return aligned(spoken, self.tying, self.mixtures.scores(frames))


def states_of(hop_s: float) -> int:
    """States of a phone: three where frames come every 10 ms, as ever; so many as fit elsewhere.

    >>> [states_of(hop_s) for hop_s in (0.01, 0.02, 0.04)]
    [3, 2, 1]
    """
    return max(1, min(3, round(0.03 / hop_s + 0.01)))


def least_frames(spoken: Sequence[Sequence[Unit]], places: int) -> int:
    """The frames that a transcript takes."""
    return places * sum(map(len, spoken))


def train(
    frames: Sequence[Frames],
    spoken: Sequence[Sequence[Sequence[Unit]]],
    phones: tuple[str, ...],
    places: int,
    recipe: Recipe,
) -> System:
    """Train a system.

    Args:
        frames: of each utterance, ``[frame, dim]``.
        spoken: the units of its words.
        phones: all of them, silence first.
        places: states of each.
        recipe: how.

    Raises:
        SuperbError: no utterance has enough frames.
    """
    fits = [
        least_frames(own, places) + 2 * places <= len(f)
        for own, f in zip(spoken, frames, strict=True)
    ]
    unfit = tuple(place for place, fit in enumerate(fits) if not fit)
    frames = [own for own, fit in zip(frames, fits, strict=True) if fit]
    spoken = [own for own, fit in zip(spoken, fits, strict=True) if fit]
    if not frames:
        raise SuperbError(
            f"none of {len(fits)} transcripts fits into its frames with {places} for each phone: "
            "the head hmm needs encoders with more frames, or shorter transcripts"
        )
    tying: Tying = Monophones(phones, places)
    alignments = [_flat(own, places, len(f)) for own, f in zip(spoken, frames, strict=True)]
    states = _states(alignments, tying)
    mixtures = Mixtures.single(frames, states, tying.count)
    for number in range(1, recipe.mono_passes + 1):
        if number <= 4 or number % 2 == 0:
            alignments = _realigned(System(tying, mixtures, ()), spoken, frames, alignments)
            states = _states(alignments, tying)
        components = _between(tying.count, recipe.mono_components, number, recipe.mono_passes)
        mixtures = mixtures.improved(frames, states, components)
    if not recipe.tri_passes:
        return System(tying, mixtures, unfit)
    seen = _seen(frames, alignments)
    tying = grow(seen, phones, places, leaves=recipe.leaves, gain=recipe.gain, least=recipe.least)
    states = _states(alignments, tying)
    mixtures = Mixtures.single(frames, states, tying.count)
    for number in range(1, recipe.tri_passes + 1):
        if number % 3 == 0:
            alignments = _realigned(System(tying, mixtures, ()), spoken, frames, alignments)
            states = _states(alignments, tying)
        components = _between(tying.count, recipe.tri_components, number, recipe.tri_passes)
        mixtures = mixtures.improved(frames, states, components)
    return System(tying, mixtures, unfit)


def _between(first: int, last: int, number: int, passes: int) -> int:
    """Components after a pass: they grow evenly, and not in the last quarter."""
    return round(first + (last - first) * min(1.0, number / (0.75 * passes)))


def _flat(spoken: Sequence[Sequence[Unit]], places: int, frames: int) -> Alignment:
    """All states in order, equally long."""
    units = [QUIET, *(unit for own in spoken for unit in own), QUIET]
    path = [(unit, place) for unit in units for place in range(places)]
    return [path[frame * len(path) // frames] for frame in range(frames)]


def _realigned(
    system: System,
    spoken: Sequence[Sequence[Sequence[Unit]]],
    frames: Sequence[Frames],
    before: Sequence[Alignment],
) -> list[Alignment]:
    return [
        system.align(own, of_frames) or last
        for own, of_frames, last in zip(spoken, frames, before, strict=True)
    ]


def _states(alignments: Iterable[Alignment], tying: Tying) -> list[NDArray[np.int64]]:
    known: dict[tuple[Unit, int], int] = {}
    found = []
    for alignment in alignments:
        for key in alignment:
            if key not in known:
                known[key] = tying.state(*key)
        found.append(np.array([known[key] for key in alignment]))
    return found


def _seen(
    frames: Sequence[Frames], alignments: Sequence[Alignment]
) -> dict[tuple[Unit, int], Stats]:
    """Sums over the frames of each unit and place."""
    dim = frames[0].shape[1]
    sums: dict[tuple[Unit, int], list[Any]] = {}
    for own, alignment in zip(frames, alignments, strict=True):
        wide = own.astype(np.float64)
        begin = 0
        for end in range(1, len(alignment) + 1):
            if end < len(alignment) and alignment[end] == alignment[begin]:
                continue
            part = wide[begin:end]
            entry = sums.setdefault(alignment[begin], [0.0, np.zeros(dim), np.zeros(dim)])
            entry[0] += end - begin
            entry[1] += part.sum(axis=0)
            entry[2] += (part**2).sum(axis=0)
            begin = end
    return {key: Stats(*entry) for key, entry in sums.items()}
