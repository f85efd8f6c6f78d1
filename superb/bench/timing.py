"""Timings that may be compared: taken in turns, several times, with their spread."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Work: TypeAlias = Callable[[], float]
"""Does something, and says how many seconds that took."""


@dataclass(frozen=True)
class Timing:
    """Seconds that the same work took, time after time."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What counts."""
        return statistics.median(self.seconds)


def rounded(values: tuple[float, ...]) -> str:
    """Some measurements of one thing: the median, and half the way from the lowest to the highest.

    >>> rounded((9.0, 10.0, 12.0))
    '10.0 ±1.5'
    """
    middle, spread = statistics.median(values), (max(values) - min(values)) / 2
    digits = 0 if middle >= 100 else 1
    return f"{middle:.{digits}f} ±{spread:.{digits}f}"


def take_turns(works: Mapping[str, Work], rounds: int, *, warm: bool = False) -> dict[str, Timing]:
    """Time each several times; every round begins with another one.

    So whatever else the machine does falls on all alike. Each is done once before, to warm up,
    unless it is `warm` by itself.
    """
    labels = list(works)
    taken: dict[str, list[float]] = {label: [] for label in labels}
    if not warm:
        for label in labels:
            works[label]()
    for turn in range(rounds):
        start = turn % len(labels)
        for label in labels[start:] + labels[:start]:
            taken[label].append(works[label]())
    return {label: Timing(tuple(times)) for label, times in taken.items()}


@contextmanager
def threads(wanted: int | None) -> Iterator[None]:
    """So many threads of torch; as they are if None."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(wanted or before)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, progress bars and load reports of other libraries."""
    import logging

    from transformers.utils import logging as theirs

    library: Any = theirs  # not typed throughout
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    other = logging.getLogger("torchaudio")
    level = other.level
    library.set_verbosity_error()
    library.disable_progress_bar()
    other.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()
        other.setLevel(level)
