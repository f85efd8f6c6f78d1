"""What a tracker is: a course per result, a curve per learning rate and seed, then the score."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from benchmark.errors import SuperbError, unknown
from benchmark.registry import load_attribute


@dataclass(frozen=True)
class About:
    """What a course is of: one result, which may be there only later.

    Attributes:
        run_id: of the result; whoever goes on with it opens the same course again.
        upstream: name of the encoder.
        task: name of the task.
        layer: the layer choice.
        config: everything that the score depends on, for tables and filters.
    """

    run_id: str
    upstream: str
    task: str
    layer: str
    config: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.upstream}, {self.task}, {self.layer}"


class Course(Protocol):
    """What a tracker shows of one result."""

    def look(self, curve: str, update: int, values: Mapping[str, float]) -> None:
        """Add a point to the curves of a probe.

        Args:
            curve: which probe: its fold, learning rate and seed in words.
            update: how many it has had.
            values: ``train/loss``, ``valid/loss`` and ``valid/<metric>``.
        """
        ...

    def score(self, values: Mapping[str, float | str]) -> None:
        """Show what came of it: ``test/<metric>``, its interval, what was chosen."""
        ...

    def close(self) -> None:
        """Have everything written; it can be opened again."""
        ...


class Tracker(Protocol):
    """Opens courses."""

    def open(self, about: About) -> Course:
        """A course, or what there is of it already."""
        ...


@dataclass(frozen=True)
class Kind:
    """A line of the table of trackers.

    Attributes:
        target: ``module:Class``, made with the folder that it keeps files in, or None.
        package: that it needs.
    """

    target: str
    package: str


TRACKERS: Final[Mapping[str, Kind]] = {
    "tensorboard": Kind("benchmark.tracking.with_tensorboard:TensorBoard", "tensorboard"),
    "trackio": Kind("benchmark.tracking.with_trackio:Trackio", "trackio"),
    "wandb": Kind("benchmark.tracking.with_wandb:WandB", "wandb"),
}
PROJECT: Final = "superb"
"""What trackers file runs under, unless they are told otherwise in their own way."""


def require_tracker(name: str) -> None:
    """Make sure that a tracker can be had, before hours of work; imports none.

    Raises:
        SuperbError: it is unknown, or its package is not installed.
    """
    if name not in TRACKERS:
        raise unknown("value of --track", name, TRACKERS)
    package = TRACKERS[name].package
    if importlib.util.find_spec(package) is None:
        raise SuperbError(
            f"--track {name} needs the package {package}: pip install 'superb[{name}]'"
        )


def load_tracker(name: str, folder: Path | None) -> Tracker:
    """A tracker by name.

    Args:
        name: a key of `TRACKERS`.
        folder: where it keeps files; its own place if None.

    Raises:
        SuperbError: as for `require_tracker`.
    """
    require_tracker(name)
    tracker: Tracker = load_attribute(TRACKERS[name].target)(folder)
    return tracker
