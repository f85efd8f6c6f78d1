"""The folder of a run: written wholly or not at all, and errors that say what is kept."""

from __future__ import annotations

import csv
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from benchmark.errors import SuperbError

Row: TypeAlias = dict[str, float]


def write_history(folder: Path, history: Sequence[Row], title: str) -> None:
    """Write ``loss.csv`` and ``loss.png``.

    Args:
        folder: of the run.
        history: numbers of steps.
        title: of the picture.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    with (folder / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)
    from upstreams.pretraining.plot import plot_losses

    plot_losses(list(history), title, folder / "loss.png")


class Log:
    """What tensorboard reads."""

    def __init__(self, folder: Path | None, step: int) -> None:
        self.folder, self.step = folder, step
        self.writer: Any = None
        self._hook = threading.excepthook

    def __enter__(self) -> Log:
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            # its thread hands what goes wrong to the next write, and need not print it too
            threading.excepthook = self._leave_to_writer
            with writing(self.folder):
                # What a killed run logged past its checkpoint is hidden.
                self.writer = SummaryWriter(
                    str(self.folder / "tensorboard"), purge_step=self.step + 1, flush_secs=10
                )
        return self

    def _leave_to_writer(self, error: threading.ExceptHookArgs) -> None:
        if not type(error.thread).__module__.startswith("tensorboard"):
            self._hook(error)

    def __exit__(self, *error: object) -> None:
        try:
            if self.writer is not None and self.folder is not None:
                with writing(self.folder):
                    self.writer.close()
        finally:
            threading.excepthook = self._hook

    def write(self, row: Row) -> None:
        """Log the numbers of a step."""
        if self.writer is not None and self.folder is not None:
            with writing(self.folder):
                for name, value in row.items():
                    if name != "step":
                        self.writer.add_scalar(name, value, int(row["step"]))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for a moment; what came is raised at the end."""
    came: list[int] = []
    held: dict[signal.Signals, Callable[..., Any] | int] = {}
    if threading.current_thread() is threading.main_thread():
        for kind in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(kind)
            if handler is not None:  # else it is not Python's, and cannot be put back
                held[kind] = handler
                signal.signal(kind, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for kind, handler in held.items():
            signal.signal(kind, handler)
    for number in came:
        signal.raise_signal(number)


class writing:  # noqa: N801 - read as a statement: with writing(folder)
    """Turn a failed write into an error that says what is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # torch.save reports a full disk as a RuntimeError.
        if isinstance(error, OSError | RuntimeError):
            kept = self.folder / "checkpoint.pt"
            raise SuperbError(
                f"cannot write to {self.folder}: {first_line(error)}. "
                + (
                    f"The last good checkpoint, {kept}, is kept; make room and type the command "
                    "again"
                    if kept.exists()
                    else "Make room or choose another --output"
                )
            ) from error


def replace(path: Path, content: bytes) -> None:
    """Write a file wholly or not at all."""
    temporary = path.with_suffix(".new")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """What an exception says, in a line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
