"""TensorBoard: files in a folder, a run for each probe, and one for the score of each result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from torch.utils.tensorboard import SummaryWriter

from benchmark.tracking.tracker import About

# Where nothing else is said, as TensorBoard's own guides have it.
LOGS = Path("logs")


class TensorBoard:
    """Writes ``<folder>/<task>/<upstream>/<run id>``: ``<layer>``, ``<layer>, <rate>, seed <n>``.

    Without the run id, another run of the same encoder, task and layer would be laid over it.

    Args:
        folder: of all logs; ``logs`` if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or LOGS

    def open(self, about: About) -> Events:
        """The event files of a result."""
        place = self.folder / about.task / quote(about.upstream, safe=" @:+-_") / about.run_id
        return Events(place, about)


class Events:
    """The event files of one result, each opened when it is first written to.

    Args:
        place: the folder that they lie in.
        about: the result.
    """

    def __init__(self, place: Path, about: About) -> None:
        self._place, self._about = place, about
        self._writers: dict[str, SummaryWriter] = {}

    def look(self, curve: str, update: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve of a probe."""
        # what a run that was cut off wrote after its state was saved comes again
        writer = self._writer(f"{self._about.layer}, {curve}", purge=update)
        for name, value in values.items():
            writer.add_scalar(name, value, update)

    def score(self, values: Mapping[str, float | str]) -> None:
        """Write the scores as points, and all there is to know as text."""
        writer = self._writer(self._about.layer, purge=0)
        for name, value in values.items():
            if not isinstance(value, str):
                writer.add_scalar(name, value, 0)
        told = {"run_id": self._about.run_id, **values, "config": self._about.config}
        writer.add_text("result", "    " + json.dumps(told, indent=1).replace("\n", "\n    "))

    def close(self) -> None:
        """Have all files written."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, name: str, purge: int) -> SummaryWriter:
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._place / name), purge_step=purge)
        return self._writers[name]
