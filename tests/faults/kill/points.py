"""The points at which a command touches the disk, and what may happen at one of them.

Python tells an audit hook of every file that is opened, renamed, removed or made; writing and
syncing are wrapped. So a command can be stopped, or its disk taken away, at its n-th touch, which
hits the moments between two steps of a write that a clock would hardly ever hit.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_NAMED = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


class Points:
    """Counts touches, and lets one happen.

    Args:
        folders: where touches count.
        at: number of the touch, from 1.
        happens: called before it, with what it is and the path.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        at: int = 0,
        happens: Callable[[str, str], None] = lambda _what, _path: None,
    ) -> None:
        self.seen: list[str] = []
        self._folders = tuple(f"{folder}{os.sep}" for folder in folders)
        self._at, self._happens, self._busy = at, happens, False
        self._paths: dict[int, str] = {}

    def watch(self) -> None:
        """Begin, in this process and for good."""
        sys.addaudithook(self._hook)
        write, sync = os.pwrite, os.fsync

        def pwrite(file: int, data: Any, place: int) -> int:
            path = Path(f"/proc/self/fd/{file}").readlink()
            half = memoryview(data)[: len(data) // 2]
            if len(self.seen) + 1 == self._at and half:
                write(file, half, place)
            self._touch("write", path)
            return write(file, data, place)

        def fsync(file: int) -> None:
            self._touch("sync", Path(f"/proc/self/fd/{file}").readlink())
            sync(file)

        os.pwrite, os.fsync = pwrite, fsync

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy:
            return
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            if arguments[2] & _WRITING:
                self._touch("open", os.fspath(arguments[0]))
        elif event in _NAMED:
            self._touch(event.partition(".")[2], os.fspath(arguments[0]))

    def _touch(self, what: str, path: Any) -> None:
        if self._busy or not str(path).startswith(self._folders):
            return
        self.seen.append(f"{what} {path}")
        if len(self.seen) == self._at:
            self._busy = True
            self._happens(what, str(path))
            self._busy = False


def die(_what: str, _path: str) -> None:
    """Be killed just before."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_half(what: str, path: str) -> None:
    """Be killed while the file that is about to be renamed was being written."""
    if what == "rename":
        os.truncate(path, Path(path).stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)
