"""Progress: one live line on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

_LINE_EVERY_S = 10.0


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, steps: int = 1) -> None:
        """Report `steps` more done."""
        ...

    def rate(self, text: str) -> None:
        """Show a rate, a loss or a score beside the bar."""
        ...


class Progress:
    """Where the engine reports. Writes to standard error, so that tables can be piped.

    Args:
        quiet: report nothing but warnings.
        console: where to write; standard error by default.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.quiet = quiet
        self.console = console or Console(stderr=True, highlight=False, emoji=False)

    def note(self, text: str) -> None:
        """One line of information."""
        if not self.quiet:
            self.console.print(escape(text), style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        """One loud line, also when quiet."""
        self.console.print(f"[bold yellow]warning:[/] {escape(text)}", soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A piece of work of `total` steps."""
        if self.quiet:
            yield _Silent()
        elif self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[rate]}", style="dim"),
            )
            with RichProgress(*columns, console=self.console, transient=True) as live:
                yield _Live(live, live.add_task(escape(title), total=total, rate=""))
        else:
            yield _Lines(self, title, total)


class Messages(Progress):
    """Keeps warnings for whoever shows them, and shows nothing."""

    def __init__(self) -> None:
        super().__init__(quiet=True, console=Console(quiet=True))
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.warnings.append(text)


class _Silent:
    def advance(self, steps: int = 1) -> None:
        return

    def rate(self, text: str) -> None:
        return


class _Live:
    def __init__(self, live: RichProgress, task: object) -> None:
        self._live, self._task = live, task

    def advance(self, steps: int = 1) -> None:
        self._live.advance(self._task, steps)  # type: ignore[arg-type]

    def rate(self, text: str) -> None:
        self._live.update(self._task, rate=escape(text))  # type: ignore[arg-type]


class _Lines:
    """A line now and then, with rate and time left, for logs."""

    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._progress, self._title, self._total = progress, title, total
        self._done, self._text = 0, ""
        self._started = self._printed = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._printed >= _LINE_EVERY_S or self._done == self._total:
            self._printed = now
            spent = now - self._started
            left = spent / max(self._done, 1) * (self._total - self._done)
            self._progress.note(
                f"{self._title}: {self._done}/{self._total}, {spent:.0f} s, {left:.0f} s left"
                + (f", {self._text}" if self._text else "")
            )

    def rate(self, text: str) -> None:
        self._text = text
