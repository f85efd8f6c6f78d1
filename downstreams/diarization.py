"""Who speaks when: segments as text, as frames, and the error between two accounts of two speakers.

A column ``segments`` holds ``A 0.00 1.25; B 0.90 3.00``: who, the first and the last second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Activity = NDArray[np.bool_]
"""Who speaks: ``[time, 2]``."""

COLUMN: Final = "segments"


class Segment(NamedTuple):
    """A stretch of speech of one person, in seconds."""

    speaker: str
    start_s: float
    end_s: float


@lru_cache(maxsize=100_000)
def read(text: str) -> tuple[Segment, ...]:
    """The segments of a text, in its order; a name may hold spaces.

    Raises:
        ValueError: a segment that cannot be read, or is empty.
    """
    segments = []
    for part in filter(None, map(str.strip, text.split(";"))):
        try:
            speaker, start, end = part.rsplit(None, 2)
            segment = Segment(speaker, float(start), float(end))
        except ValueError:
            raise ValueError(f"{part!r} is not: name, first second, last second") from None
        if not (math.isfinite(segment.end_s) and 0 <= segment.start_s < segment.end_s):
            raise ValueError(f"{part!r} does not end after it starts, from 0 on")
        segments.append(segment)
    return tuple(segments)


def written(segments: Iterable[Segment]) -> str:
    """The text that `read` reads, to the millisecond.

    >>> written([Segment("A", 0, 1.25), Segment("B", 0.9, 3)])
    'A 0.000 1.250; B 0.900 3.000'
    """
    return "; ".join(f"{who} {start:.3f} {end:.3f}" for who, start, end in segments)


def shown(segments: Iterable[Segment]) -> str:
    """The same for a reader, in order of time.

    >>> shown([Segment("B", 0.9, 3), Segment("A", 0, 1.25)])
    'A 0.00-1.25 B 0.90-3.00'
    """
    ordered = sorted(segments, key=lambda segment: (segment.start_s, segment.speaker))
    return " ".join(f"{who} {start:.2f}-{end:.2f}" for who, start, end in ordered)


def speakers(segments: Iterable[Segment]) -> tuple[str, ...]:
    """The names that occur, sorted."""
    return tuple(sorted({segment.speaker for segment in segments}))


def at_centres(segments: Sequence[Segment], frames: int, hop_s: float) -> Activity:
    """Who speaks at the centre of each frame; who comes first by name stands first.

    Args:
        segments: of two speakers.
        frames: how many there are.
        hop_s: seconds from frame to frame; frame 0 begins with the recording.
    """
    centres = (np.arange(frames) + 0.5) * hop_s
    return _active(segments, centres)


def in_milliseconds(segments: Sequence[Segment]) -> Activity:
    """Who speaks in each millisecond until the last segment ends."""
    rounded = [Segment(who, round(start * 1000), round(end * 1000)) for who, start, end in segments]
    end = max((int(segment.end_s) for segment in rounded), default=0)
    return _active(rounded, np.arange(end))


def _active(segments: Sequence[Segment], times: NDArray[np.floating | np.integer]) -> Activity:
    names = speakers(segments)
    active = np.zeros((len(times), 2), np.bool_)
    for who, start, end in segments:
        active[np.searchsorted(times, start) : np.searchsorted(times, end), names.index(who)] = True
    return active


def smoothed(probabilities: NDArray[np.floating], threshold: float, median: int) -> Activity:
    """Who speaks in each frame, by what a head answers.

    Args:
        probabilities: ``[frame, 2]``.
        threshold: of these, above which somebody speaks.
        median: frames of the median filter over what that gives, an odd number; beyond both ends
            nobody speaks.
    """
    active = probabilities > threshold
    half = median // 2
    total = np.cumsum(np.pad(active, ((half + 1, half), (0, 0))), axis=0, dtype=np.int64)
    majority: Activity = total[median:] - total[:-median] > half
    return majority


def stretched(frames: Activity, hop_s: float) -> Activity:
    """What stands for frames, in milliseconds: each lasts from its start to that of the next."""
    bounds = np.rint(np.arange(len(frames) + 1) * hop_s * 1000).astype(np.int64)
    return frames.repeat(np.diff(bounds), axis=0)


def segments_of(milliseconds: Activity, names: Sequence[str]) -> list[Segment]:
    """The segments in which somebody speaks without a break."""
    found = []
    for column, name in enumerate(names):
        turns = np.flatnonzero(np.diff(milliseconds[:, column], prepend=False, append=False))
        for start, end in list(pairwise(turns.tolist()))[::2]:
            found.append(Segment(name, start / 1000, end / 1000))
    return found


def errors(reference: Activity, hypothesis: Activity) -> tuple[int, int, bool]:
    """Diarization error, without a collar and with overlap (NIST's, as dscore counts it).

    Args:
        reference: in steps of equal length; what is beyond the end of either is silent.
        hypothesis: likewise, of two speakers whose order means nothing.

    Returns:
        Steps that are missed, said too much, or given to the wrong speaker, of each speaker;
        steps of reference speech, of each speaker; and whether the hypothesis has the speakers in
        the other order. That order counts which has less errors.
    """
    length = max(len(reference), len(hypothesis))
    reference, hypothesis = (
        np.pad(own, ((0, length - len(own)), (0, 0))) for own in (reference, hypothesis)
    )
    wanted, heard = reference.sum(1), hypothesis.sum(1)
    right, crossed = (
        int(np.count_nonzero(reference & own)) for own in (hypothesis, hypothesis[:, ::-1])
    )
    wrong = int(np.maximum(wanted, heard).sum()) - max(right, crossed)
    return wrong, int(wanted.sum()), crossed > right
