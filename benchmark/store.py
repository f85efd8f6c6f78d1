"""Features on disk: written once, read by `pread`, never trusted when half-written.

A store is one folder: ``about.json`` says in words what its features depend on, ``index.sqlite``
maps the hash of an utterance's audio to a place in one of the ``*.bin`` files. A record counts
only once its bytes are synced and its index row is committed, so a killed run leaves nothing that
a later run would trust. Every writer appends to a file of its own: two runs may share a store.

Random reads by `pread` are an order of magnitude faster than a bare memory map when the page
cache is cold.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import SuperbError

FORMAT_VERSION = 1
_COMMIT_BYTES = 64 * 2**20
_COMMIT_S = 5.0
_SPARE_BYTES = 256 * 2**20


def cache_folder() -> Path:
    """Where features are kept: ``$SUPERB_CACHE``, or ``~/.cache/superb``."""
    if chosen := os.environ.get("SUPERB_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "superb"


def store_key(about: Mapping[str, Any]) -> str:
    """The folder name of a store: a hash of everything that determines its features."""
    canonical = json.dumps({"format": FORMAT_VERSION, **about}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]


class FeatureStore:
    """Arrays of one kind (frames, or time means) of one encoder, keyed by audio hash.

    Args:
        root: the folder of all stores.
        about: everything the features depend on, apart from the audio; JSON values only.

    Raises:
        SuperbError: when the folder cannot be written.
    """

    def __init__(self, root: Path, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        self.folder = root / "features" / store_key(about)
        self.dtype = np.dtype(str(about["storage"]))
        self._readers: dict[str, int] = {}
        self._checked: set[str] = set()
        self._writer: tuple[str, int] | None = None
        self._offset = 0
        self._pending: list[tuple[str, str, int, str, int, float, bytes]] = []
        self._pending_bytes = 0
        self._committed = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_once(self.folder / "about.json", json.dumps(self.about, indent=1) + "\n")
            # autocommit; every batch of rows is one explicit transaction
            self._index = sqlite3.connect(
                self.folder / "index.sqlite", isolation_level=None, check_same_thread=False
            )
            self._index.execute("PRAGMA busy_timeout = 60000")
            self._index.execute(
                "CREATE TABLE IF NOT EXISTS records (audio TEXT PRIMARY KEY, file TEXT, "
                "offset INTEGER, shape TEXT, crc INTEGER, error REAL, norms BLOB)"
            )
            self._index.execute(
                "CREATE TABLE IF NOT EXISTS sessions (audio_s REAL, encoder_s REAL)"
            )
        except (OSError, sqlite3.Error) as error:
            raise SuperbError(
                f"the feature cache {self.folder} cannot be used: {error}. Set SUPERB_CACHE or "
                "--cache-dir to a folder that you can write to, or clear this one: "
                f"superb cache clear {self.folder.name} --cache-dir {root}"
            ) from error

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _rows(self, query: str, values: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of the index; a damaged one is named, with the way out."""
        try:
            return self._index.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise SuperbError(f"{self._damaged('index.sqlite')} ({error})") from error

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Those of the audio hashes that have no record yet."""
        present = {row[0] for row in self._rows("SELECT audio FROM records")}
        return set(keys) - present - {row[0] for row in self._pending}

    def append(self, key: str, values: NDArray[np.float32], norms: NDArray[np.float32]) -> None:
        """Add one utterance's array, rounded to the store's precision.

        Args:
            key: hash of the utterance's audio.
            values: ``[layer, frame, dim]`` or, for time means, ``[layer, dim]``.
            norms: ``[layer]``, mean L2 norm of its frames.

        Raises:
            SuperbError: when the disk is full, or a value does not fit the precision.
        """
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values, dtype=self.dtype)
        if not np.isfinite(stored).all():
            raise SuperbError(
                f"a feature of magnitude {np.abs(values).max():.3g} does not fit into "
                f"{self.dtype.name}; run with --storage float32"
            )
        error = float(
            np.linalg.norm(stored.astype(np.float32) - values)
            / max(float(np.linalg.norm(values)), 1e-12)
        )
        data = stored.tobytes()
        try:
            if self._writer is None:
                name = f"{uuid.uuid4().hex}.bin"
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
                self._writer = (name, os.open(self.folder / name, flags, 0o644))
                self._offset = 0
            name, handle = self._writer
            _write_all(handle, data, self._offset)
        except OSError as reason:
            raise _disk_error(self.folder, reason) from reason
        self._pending.append(
            (
                key,
                name,
                self._offset,
                ",".join(map(str, stored.shape)),
                zlib.crc32(data),
                error,
                norms.astype(np.float32).tobytes(),
            )
        )
        self._offset += len(data)
        self._pending_bytes += len(data)
        now = time.monotonic()
        if self._pending_bytes >= _COMMIT_BYTES or now - self._committed >= _COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Make everything appended so far durable, bytes first, then the rows that name them."""
        if not self._pending:
            return
        assert self._writer is not None
        try:
            os.fsync(self._writer[1])
            self._index.execute("BEGIN IMMEDIATE")
            self._index.executemany(
                "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", self._pending
            )
            self._index.execute("COMMIT")
        except BaseException as reason:
            if self._index.in_transaction:
                self._index.execute("ROLLBACK")
            if isinstance(reason, OSError | sqlite3.Error):
                raise _disk_error(self.folder, reason) from reason
            raise
        self._pending.clear()
        self._pending_bytes = 0

    def shapes(self, keys: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The shape of each of the records."""
        wanted = set(keys)
        rows = self._rows("SELECT audio, shape FROM records")
        return {
            audio: tuple(int(size) for size in shape.split(","))
            for audio, shape in rows
            if audio in wanted
        }

    def read(self, key: str) -> NDArray[np.float32]:
        """One utterance's array in float32; its checksum is verified on the first read.

        Raises:
            SuperbError: when the record is missing or damaged.
        """
        rows = self._rows("SELECT file, offset, shape, crc FROM records WHERE audio = ?", (key,))
        if not rows:
            raise SuperbError(f"no features for audio {key[:12]} in {self.folder}")
        name, offset, text, crc = rows[0]
        shape = tuple(int(size) for size in text.split(","))
        size = int(np.prod(shape)) * self.dtype.itemsize
        try:
            if name not in self._readers:
                self._readers[name] = os.open(self.folder / name, os.O_RDONLY)
            data = os.pread(self._readers[name], size, offset)
        except OSError as reason:
            raise SuperbError(f"{self._damaged(name)} ({reason})") from reason
        if len(data) != size or (key not in self._checked and zlib.crc32(data) != crc):
            raise SuperbError(self._damaged(name))
        self._checked.add(key)
        values: NDArray[np.float32] = np.frombuffer(data, self.dtype).reshape(shape)
        return values.astype(np.float32)

    def _damaged(self, name: str) -> str:
        return (
            f"the feature cache is damaged: {self.folder / name}. Extract again after: "
            f"superb cache clear {self.folder.name} --cache-dir {self.folder.parent.parent}"
        )

    def rounding_error(self, keys: Iterable[str]) -> float:
        """Root mean square over utterances of the relative L2 error that storage added."""
        wanted = set(keys)
        rows = self._rows("SELECT audio, error FROM records")
        errors = [error for audio, error in rows if audio in wanted]
        return float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0

    def layer_norms(self, keys: Iterable[str]) -> list[float]:
        """Mean L2 norm of a frame in each layer, averaged over utterances: ``[layer]``."""
        wanted = set(keys)
        rows = self._rows("SELECT audio, norms FROM records")
        norms = [np.frombuffer(blob, np.float32) for audio, blob in rows if audio in wanted]
        return [float(norm) for norm in np.mean(norms, axis=0)]

    def log_session(self, audio_s: float, encoder_s: float) -> None:
        """Remember how long the encoder took for how much audio."""
        self._index.execute("INSERT INTO sessions VALUES (?, ?)", (audio_s, encoder_s))

    def throughput(self) -> float | None:
        """Seconds of audio per second of encoder over all sessions, None before the first."""
        ((audio_s, encoder_s),) = self._rows("SELECT SUM(audio_s), SUM(encoder_s) FROM sessions")
        return float(audio_s / encoder_s) if encoder_s else None

    def close(self) -> None:
        """Commit and release every handle."""
        try:
            self.commit()
        finally:
            for handle in self._readers.values():
                os.close(handle)
            self._readers.clear()
            if self._writer is not None:
                os.close(self._writer[1])
                self._writer = None
            self._index.close()


def require_room(root: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        SuperbError: when fewer than `needed` bytes and a little more are free.
    """
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed + _SPARE_BYTES > free:
        raise SuperbError(
            f"features would take {format_bytes(needed)} but {root} has {format_bytes(free)} "
            "free. Choose another disk (--cache-dir DIR or SUPERB_CACHE), clear old features "
            "(superb cache clear), or probe fewer tasks at once"
        )


@dataclass(frozen=True)
class StoreSummary:
    """One store as ``superb cache`` lists it; `size` in bytes, `used` a POSIX time."""

    key: str
    upstream: str
    kind: str
    storage: str
    utterances: int
    size: int
    used: float


def list_stores(root: Path) -> list[StoreSummary]:
    """All stores under `root`, biggest first; a folder without a readable index counts 0."""
    summaries = []
    for about_file in sorted((root / "features").glob("*/about.json")):
        folder = about_file.parent
        about, utterances = {}, 0
        with suppress(OSError, ValueError, sqlite3.Error):
            about = json.loads(about_file.read_text())
            place = (folder / "index.sqlite").resolve().as_uri()
            with closing(sqlite3.connect(f"{place}?mode=ro", uri=True)) as index:
                utterances = index.execute("SELECT COUNT(*) FROM records").fetchone()[0]
        files = [file.stat() for file in folder.iterdir() if file.is_file()]
        summaries.append(
            StoreSummary(
                key=folder.name,
                upstream=str(about.get("upstream", "?")),
                kind=str(about.get("kind", "?")),
                storage=str(about.get("storage", "?")),
                utterances=int(utterances),
                size=sum(file.st_size for file in files),
                used=max((file.st_mtime for file in files), default=0.0),
            )
        )
    return sorted(summaries, key=lambda summary: (-summary.size, summary.key))


def clear_stores(root: Path, selection: Iterable[str] = ()) -> list[StoreSummary]:
    """Delete the stores whose key starts with, or whose upstream equals, one of `selection`.

    An empty selection deletes all of them.

    Raises:
        SuperbError: when a selector matches nothing.
    """
    stores, chosen = list_stores(root), list(selection)
    for selector in chosen:
        if not any(_selects(selector, summary) for summary in stores):
            known = ", ".join(f"{s.key[:12]} ({s.upstream})" for s in stores) or "none"
            raise SuperbError(f"no stored features match {selector!r}. Stored: {known}")
    doomed = [s for s in stores if not chosen or any(_selects(c, s) for c in chosen)]
    for summary in doomed:
        shutil.rmtree(root / "features" / summary.key)
    return doomed


def _selects(selector: str, summary: StoreSummary) -> bool:
    return summary.upstream == selector or (len(selector) >= 6 and summary.key.startswith(selector))


def format_bytes(size: float) -> str:
    """A size in words: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    partial.write_text(text)
    partial.replace(path)


def _write_all(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def _disk_error(folder: Path, reason: Exception) -> SuperbError:
    return SuperbError(
        f"writing features to {folder} failed: {reason}. What was finished is kept; make room "
        "or choose another disk (--cache-dir DIR), then type the same command again"
    )
