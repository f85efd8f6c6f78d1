"""A log that many processes write and read at once, on one machine or several, without a lock.

Locks of network file systems are not to be relied on, and nothing here needs one: every writer has
a segment of its own, a file that it alone appends blocks to, and a reader takes the blocks of all
segments, each once. A block carries its length and checksum, so that one that is only half there,
because its writer is at it or was killed, is none. What follows a damaged block is none either.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".log"
_HEAD = struct.Struct("<4sII")  # tag, bytes that follow, CRC-32 of these two and of what follows


def block(tag: bytes, payload: bytes) -> bytes:
    """A block as it stands in a segment; `tag`, of four bytes, says what the payload is."""
    return _HEAD.pack(tag, len(payload), _checksum(tag, payload)) + payload


def _checksum(tag: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(tag + len(payload).to_bytes(4, "little")))


class OwnFile:
    """A file that one writer alone appends to; it is made when first written to.

    What a failed write left behind its end is written over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0
        self._handle: int | None = None

    def write(self, data: bytes) -> int:
        """Append bytes; the offset where they are.

        Raises:
            OSError: when they could not all be written; the file then ends where it did.
        """
        if self._handle is None:
            self._handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        view, place = memoryview(data), self._end
        while view:
            written = os.pwrite(self._handle, view, place)
            view, place = view[written:], place + written
        start, self._end = self._end, place
        return start

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            OSError: when that failed; what was written since the last time is then in doubt for
                good, since the system may take it for written the next time.
        """
        if self._handle is not None:
            os.fsync(self._handle)

    def close(self) -> None:
        """Release the handle."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class SegmentReader:
    """Takes each block of each segment of a folder once.

    Args:
        folder: of the segments.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: dict[str, int] = {}  # file → bytes of it that were taken

    def skip(self, segment: str) -> None:
        """Leave out a segment, as one's own may be."""
        self._taken[segment + SUFFIX] = sys.maxsize

    def refresh(self, take: Callable[[str, bytes, bytes], bool]) -> None:
        """Take what has come since the last time, segments by name.

        Args:
            take: gets a segment's name, a block's tag and its payload. Where it returns False,
                this block and those after it wait for the next time.

        Raises:
            OSError: when the folder or a segment cannot be read. (One that is deleted meanwhile
                has nothing more.)
        """
        with os.scandir(self.folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
        for name in names:
            path, taken = self.folder / name, self._taken.get(name, 0)
            try:
                if path.stat().st_size <= taken:
                    continue
                with path.open("rb") as file:
                    file.seek(taken)
                    segment = name.removesuffix(SUFFIX)
                    while (found := _next_block(file)) and take(segment, *found):
                        self._taken[name] = file.tell()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESTALE):
                    raise


def _next_block(file: BinaryIO) -> tuple[bytes, bytes] | None:
    """Tag and payload of the block at the file's place; None where none is whole."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    tag, size, checksum = _HEAD.unpack(head)
    if size > os.fstat(file.fileno()).st_size - file.tell():
        return None
    payload = file.read(size)
    return (tag, payload) if _checksum(tag, payload) == checksum else None
