"""Training that was cut off goes on from a file, to the same weights as if nothing had happened.

One file holds the state of all probes of a task: tensors, numbers and text only, so that reading it
runs no code. It is written now and then, atomically, and deleted once the results are written.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch

from benchmark.encoding.cache import format_bytes
from benchmark.progress import Progress

EVERY_S = 120.0
# Writing takes at most this share of the time, however large the heads are.
_SHARE = 0.05
# Training that was begun by other code (but for the task's, which the caller names) is begun again.
_ENGINE = hashlib.sha256(
    b"".join(
        path.read_bytes()
        for path in (
            *sorted(Path(__file__).parent.glob("*.py")),
            Path(__file__).parents[1] / "metrics.py",
            Path(__file__).parents[1] / "protocol.py",
        )
    )
).hexdigest()


def clear(folder: Path, run: str) -> None:
    """Remove all states of a run that is finished, those that killed processes left half-written.

    Args:
        folder: of all such files.
        run: as the snapshots were told.
    """
    with suppress(OSError):
        for path in folder.glob(f"{run}-*"):
            path.unlink(missing_ok=True)


class Snapshot:
    """Where the state of a training is kept until it is done.

    Args:
        folder: of all such files; made when the first is written.
        depends_on: everything that the course of the training depends on; JSON values only. It
            names the file, so that what was begun differently is not found.
        progress: where to warn.
        every_s: seconds between two savings, at least.
        run: what the training is for, so that `clear` finds the file.
    """

    def __init__(
        self,
        folder: Path,
        depends_on: Mapping[str, Any],
        progress: Progress,
        every_s: float = EVERY_S,
        run: str = "run",
    ) -> None:
        about = {"engine": _ENGINE, "torch": torch.__version__, **depends_on}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        self.path = folder / f"{run}-{digest}.pt"
        # of this process alone: the same command may be running twice, here or elsewhere
        self._temporary = self.path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        self._progress = progress
        self._every_s = every_s
        self._saved = time.monotonic()
        self._cost_s = 0.0
        self._warned = False

    @property
    def due(self) -> bool:
        """Whether it is time to save again."""
        wait = max(self._every_s, self._cost_s / _SHARE)
        return time.monotonic() - self._saved >= wait

    def read(self) -> dict[str, Any] | None:
        """The state, on the processor, or None when there is none that can be read."""
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError, BadZipFile):
            self.damaged()
            return None
        return state

    def damaged(self) -> None:
        """Say that the file cannot be used, and remove it."""
        self._progress.warn(f"{self.path} is damaged; training starts from the beginning")
        self.discard()

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state; should that fail, say so once, and let training go on without."""
        started = time.monotonic()
        temporary = self._temporary
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            torch.save(dict(state), temporary)
            temporary.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self._warned:
                self._warned = True
                self._progress.warn(self._loss(error))
        self._saved = time.monotonic()
        self._cost_s = self._saved - started

    def discard(self) -> None:
        """Remove the file: the training is done, or the file is of no use."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._temporary.unlink(missing_ok=True)

    def _loss(self, error: Exception) -> str:
        older = self.path.is_file()
        kept = f" (there is one of {format_bytes(self.path.stat().st_size)})" if older else ""
        return (
            f"the state of training cannot be saved to {self.path}: {str(error).splitlines()[0]}. "
            f"Training goes on; if it is stopped, it goes on from the last state saved{kept} or "
            "from the beginning. Free some space, or choose another folder with --cache-dir"
        )
