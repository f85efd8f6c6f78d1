"""Hashes and lengths of audio, remembered from run to run."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from benchmark.core import StoredAudio
from benchmark.encoding.segments import SUFFIX, OwnFile, SegmentReader, block
from benchmark.errors import SuperbError

_COMMIT_S = 5.0
# A file that changes twice within a tick of its file system's clock looks unchanged: what has just
# been written is hashed again next time.
_CLOCK_NS = 2_000_000_000
_HASH, _SECONDS = b"hash", b"secs"
_NAME_BYTES = 16


class AudioHashes:
    """SHA-256 and length of audio, remembered by path, size and time of last change.

    For audio inside another file, its origin stands for these.

    A second run over the same corpus need not read it to know what is stored. Only a cache:
    losing it costs time. Every writer appends to a log of its own (`benchmark.encoding.segments`),
    and what is there when this is made is known to it.

    Args:
        root: the folder of all stores.

    Raises:
        SuperbError: when it cannot be read or written.
    """

    # kind of block → its rows; a key is a hash of the path, then size and time of change
    _ROWS: Final = {
        _HASH: np.dtype([("key", "V32"), ("value", "V32")]),
        _SECONDS: np.dtype([("key", "V32"), ("value", "V8")]),
    }

    def __init__(self, root: Path) -> None:
        self.folder = root / "audio"
        self._known: dict[bytes, dict[bytes, bytes]] = {tag: {} for tag in self._ROWS}
        self._names: set[bytes] | None = None
        self._pending: dict[bytes, list[bytes]] = {tag: [] for tag in self._ROWS}
        self._own = OwnFile(self.folder / f"{uuid.uuid4().hex}{SUFFIX}")
        self._committed = time.monotonic()
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            SegmentReader(self.folder).refresh(self._take)

    def _take(self, _: str, tag: bytes, payload: bytes) -> bool:
        rows = np.frombuffer(payload, self._ROWS[tag])
        self._known[tag].update(zip(rows["key"].tolist(), rows["value"].tolist(), strict=True))
        return True

    def __enter__(self) -> AudioHashes:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            self._own.close()

    def find(self, audio: Path | StoredAudio) -> str | None:
        """The hash of audio that has not changed since, None when it must be read."""
        found = self._find(_HASH, audio)
        return None if found is None else found.hex()

    def seen(self, audio: Path | StoredAudio) -> bool:
        """Whether the hash of audio is known, though perhaps from before it changed."""
        if self._names is None:
            self._names = {key[:_NAME_BYTES] for key in self._known[_HASH]}
        return _name(audio) in self._names

    def find_duration(self, audio: Path | StoredAudio) -> float | None:
        """The seconds of audio that has not changed since, None when it must be opened."""
        found = self._find(_SECONDS, audio)
        return None if found is None else float(struct.unpack("<d", found)[0])

    def remember(
        self, audio: Path | StoredAudio, status: os.stat_result | None, sha256: str
    ) -> None:
        """Note the hash of audio; the `status` of a file was taken before it was read."""
        self._remember(_HASH, audio, status, bytes.fromhex(sha256))
        self._names = None

    def remember_duration(
        self, audio: Path | StoredAudio, status: os.stat_result | None, seconds: float
    ) -> None:
        """Note the length of audio; the `status` of a file was taken before it was opened."""
        self._remember(_SECONDS, audio, status, struct.pack("<d", seconds))

    def _find(self, tag: bytes, audio: Path | StoredAudio) -> bytes | None:
        try:
            state = _state(audio, audio.stat() if isinstance(audio, Path) else None)
        except OSError:
            return None
        return None if state is None else self._known[tag].get(_key(audio, state))

    def _remember(
        self,
        tag: bytes,
        audio: Path | StoredAudio,
        status: os.stat_result | None,
        value: bytes,
    ) -> None:
        state = _state(audio, status)
        if state is None or time.time_ns() - state[1] < _CLOCK_NS:
            return
        key = _key(audio, state)
        self._known[tag][key] = value
        self._pending[tag].append(key + value)
        if time.monotonic() - self._committed >= _COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Write down what was noted so far."""
        self._committed = time.monotonic()
        for tag, rows in self._pending.items():
            if rows:
                with self._explained():
                    self._own.write(block(tag, b"".join(rows)))
                    self._own.sync()
                rows.clear()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SuperbError(
                f"the list of audio hashes {self.folder} cannot be used: {error}. Delete it (it is "
                "made again), or choose another folder with --cache-dir DIR or SUPERB_CACHE"
            ) from error


def _name(audio: Path | StoredAudio) -> bytes:
    """What audio is remembered by; no bytes for what is not."""
    if isinstance(audio, Path):
        path = os.path.abspath(audio)  # noqa: PTH100 - resolving links would cost a call a folder
    elif audio.origin is not None:
        path = audio.origin[0]
    else:
        return b""
    return hashlib.blake2b(os.fsencode(path), digest_size=_NAME_BYTES).digest()


def _key(audio: Path | StoredAudio, state: tuple[int, int]) -> bytes:
    return _name(audio) + struct.pack("<qq", *state)


def _state(audio: Path | StoredAudio, status: os.stat_result | None) -> tuple[int, int] | None:
    """Size and time of last change; None where these are not known."""
    if isinstance(audio, Path):
        return (status.st_size, status.st_mtime_ns) if status is not None else None
    # whoever streams does not know the size, which the name stands for too
    return (0, audio.origin[1]) if audio.origin is not None else None
