"""The courses that a process has open: fitting begins them, writing the result ends them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.registry import cause
from benchmark.scoring.results import shown_result
from benchmark.tracking.tracker import About, Course, Tracker, load_tracker

if TYPE_CHECKING:
    from benchmark.probing.fit import Look, Probe
    from benchmark.probing.layers import Mix
    from benchmark.progress import Progress
    from benchmark.scoring.results import Result


class Courses:
    """Tells trackers of results that are under way.

    A tracker that fails is given up with a warning: it may be the network, and what is trained is
    worth more than what is watched.

    Args:
        names: of trackers.
        folder: where they keep files; each in its own place if None.

    Raises:
        SuperbError: a tracker is unknown, not installed, or cannot be used as it is set up.
    """

    def __init__(self, names: Sequence[str] = (), folder: Path | None = None) -> None:
        self._trackers: dict[str, Tracker] = {name: load_tracker(name, folder) for name in names}
        self._open: dict[tuple[str, str], Course] = {}

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def listener(
        self, results: Mapping[Mix, Sequence[About]], fold: str, metric: str, progress: Progress
    ) -> Callable[[Probe, Look], None]:
        """What `benchmark.probing.fit.fit` tells of every look at valid.

        Args:
            results: layer mix → the results whose probe it is.
            fold: its name, "" for the only one.
            metric: what the task's valid score is called.
            progress: where to warn of trackers that fail.
        """

        def listen(probe: Probe, look: Look) -> None:
            curve = f"{probe.spec.learning_rate:g}, seed {probe.spec.seed}"
            values = {
                "train/loss": look.train_loss,
                "valid/loss": look.valid_loss,
                f"valid/{metric}": look.valid,
            }
            for about in results[probe.spec.mix]:
                self._tell(
                    about,
                    lambda course: course.look(
                        f"fold {fold}, {curve}" if fold else curve, look.update, values
                    ),
                    progress,
                )

        return listen

    def score(self, about: About, result: Result, progress: Progress) -> None:
        """Tell what came of a result, and close its courses."""
        values: dict[str, float | str] = {"status": result.status}
        if result.learning_rate is not None:
            values["learning_rate"] = result.learning_rate
        for name, found in shown_result(result).metrics.items():
            ends = {"": found["value"], "_low": found["low"], "_high": found["high"]}
            values |= {f"test/{name}{e}": value for e, value in ends.items() if value is not None}
        self._tell(about, lambda course: course.score(values), progress)
        self._close([key for key in self._open if key[1] == about.run_id], progress)

    def close(self, progress: Progress) -> None:
        """Have everything written; a course that goes on is opened again."""
        self._close(list(self._open), progress)

    def _close(self, keys: Sequence[tuple[str, str]], progress: Progress) -> None:
        for name, run_id in keys:
            course = self._open.pop((name, run_id))
            try:
                course.close()
            except Exception as error:
                progress.warn(f"--track {name} may lack the end of {run_id}: {cause(error)}")

    def _tell(self, about: About, say: Callable[[Course], None], progress: Progress) -> None:
        for name, tracker in list(self._trackers.items()):
            key = (name, about.run_id)
            try:
                if key not in self._open:
                    self._open[key] = tracker.open(about)
                say(self._open[key])
            except Exception as error:
                progress.warn(
                    f"--track {name} is given up, training goes on: {cause(error)}. Results have "
                    "every curve all the same"
                )
                del self._trackers[name]
