"""Trackio: runs in a local data base, or on a Space of the Hugging Face hub."""

from __future__ import annotations

import contextvars
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

from benchmark.errors import SuperbError
from benchmark.tracking.tracker import PROJECT, About


class Trackio:
    """A run per result, in project ``superb`` or that of ``$TRACKIO_PROJECT``.

    Args:
        folder: of its data base; ``$TRACKIO_DIR`` or trackio's own place if None.

    Raises:
        SuperbError: this process has told it of another folder, and it knows but one.
    """

    _folder: ClassVar[tuple[Path | None, ...]] = ()

    def __init__(self, folder: Path | None = None) -> None:
        place = None if folder is None else folder.resolve()
        if Trackio._folder not in ((), (place,)):
            raise SuperbError(
                "--track trackio keeps all runs of a process in one folder, which is "
                f"{Trackio._folder[0] or 'its own'}; got {folder or 'none'}. Give all runs one "
                "--log-dir, or start them one by one"
            )
        Trackio._folder = (place,)
        if place is not None:  # read when it is first imported
            os.environ["TRACKIO_DIR"] = str(place)

    def open(self, about: About) -> TrackioRun:
        """The run of a result; one of the same name goes on."""
        import trackio

        with redirect_stdout(sys.stderr):  # results go to standard output
            # it would end the last run of this context
            run = contextvars.Context().run(
                trackio.init,
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=f"{about}, {about.run_id}",
                group=about.task,
                config=dict(about.config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return TrackioRun(run)


class TrackioRun:
    """A run of trackio."""

    def __init__(self, run: Any) -> None:  # noqa: ANN401 - its class is the extra's
        self._run = run

    def look(self, curve: str, update: int, values: Mapping[str, float]) -> None:
        """Log a point of each curve."""
        self._run.log({f"{name}, {curve}": value for name, value in values.items()}, step=update)

    def score(self, values: Mapping[str, float | str]) -> None:
        """Log the scores, which is all the summary that it has."""
        self._run.log(dict(values))

    def close(self) -> None:
        """Finish the run."""
        with redirect_stdout(sys.stderr):
            self._run.finish()
