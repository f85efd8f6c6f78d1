"""Features on disk: written once, read by `pread`, never trusted when half-written.

Four storages: ``float32``; ``float16``; ``int8``, a byte a value and a scale for each layer and
dimension of an utterance (`pack`); ``none``, which keeps shapes and norms alone and encodes the
utterance again whenever it is read.

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
import math
import os
import shutil
import sqlite3
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmark.core import StoredAudio
from benchmark.errors import SuperbError

FORMAT_VERSION = 2
STORAGES = ("float16", "float32", "int8", "none")
NONE = "none"
# Folder of the states of trainings, beside that of the features.
TRAINING = "training"
_COMMIT_BYTES = 64 * 2**20
_COMMIT_S = 5.0
_SPARE_BYTES = 256 * 2**20
# A file that changes twice within a tick of its file system's clock looks unchanged: what has just
# been written is hashed again next time.
_CLOCK_NS = 2_000_000_000
_INT8_MAX = 127
# What has one step: the frames of [layer, frame, dim]; the dimensions of a time mean [layer, dim].
_STEP_AXIS = 1

Floats = NDArray[np.float32]


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


def pack(values: Floats, storage: str) -> bytes:
    """The bytes of an array in a storage.

    ``int8`` holds multiples of a step from -127 to 127. Each layer and dimension of an utterance
    has a step of its own, its largest magnitude over the frames divided by 127; a few dimensions of
    trained encoders are much larger than the rest, and would leave them few steps to share. (Of
    time means, which have no frames, each layer has a step.) The steps come first, in float32.

    Raises:
        SuperbError: when a value does not fit.
    """
    packed: bytes
    if storage == "int8":
        steps = np.abs(values).max(axis=_STEP_AXIS, keepdims=True) / np.float32(_INT8_MAX)
        whole = np.rint(values / np.where(steps > 0, steps, np.float32(1)))
        # a step near float32's smallest numbers is itself rounded
        whole = np.clip(whole, -_INT8_MAX, _INT8_MAX)
        packed = steps.astype(np.float32).tobytes() + whole.astype(np.int8).tobytes()
    else:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values, dtype=storage)
        if not np.isfinite(stored).all():
            raise SuperbError(
                f"a feature of magnitude {np.abs(values).max():.3g} does not fit into {storage}; "
                "run with --storage float32"
            )
        packed = stored.tobytes()
    return packed


def unpack(data: bytes, shape: tuple[int, ...], storage: str) -> Floats:
    """The array that `pack` made bytes of, up to what storage rounds, in float32."""
    if storage != "int8":
        return np.frombuffer(data, storage).reshape(shape).astype(np.float32)
    few = (*shape[:_STEP_AXIS], 1, *shape[_STEP_AXIS + 1 :])
    count = math.prod(few)
    steps = np.frombuffer(data, np.float32, count).reshape(few)
    whole = np.frombuffer(data, np.int8, offset=4 * count).reshape(shape)
    return np.multiply(whole, steps, dtype=np.float32)


def packed_bytes(shape: tuple[int, ...], storage: str) -> int:
    """How many bytes `pack` makes of an array, for ``none`` 0."""
    if storage == NONE:
        return 0
    values = math.prod(shape)
    if storage != "int8":
        return values * np.dtype(storage).itemsize
    return values + 4 * values // shape[_STEP_AXIS]


def feature_bytes(
    kind: str, storage: str, layers: int, dim: int, utterances: int, frames: float
) -> int:
    """What the features of some utterances take on disk, at most, up to the index.

    Args:
        kind: ``frames``, or a kind of time mean.
        storage: one of `STORAGES`.
        layers: layers that are kept.
        dim: features per frame.
        utterances: how many there are.
        frames: how many they have in all, sample rate times seconds over hop; one to spare is
            added for each utterance.
    """
    if kind != "frames":
        return utterances * packed_bytes((layers, dim), storage)
    if storage == "int8":
        return int(layers * dim * (frames + 5 * utterances))  # a frame to spare, and 4 for the step
    return int(packed_bytes((layers, 1, dim), storage) * (frames + utterances))


def store_folder(root: Path, about: Mapping[str, Any]) -> Path:
    """Where the store of such features is, or would be."""
    return root / "features" / store_key(about)


class FeatureStore:
    """Arrays of one kind (frames, or time means) of one encoder, keyed by audio hash.

    Args:
        root: the folder of all stores.
        about: everything the features depend on, apart from the audio; JSON values only.
            ``layers`` lists the layers that are kept, None for all.

    Attributes:
        again: for storage ``none``, makes an utterance's array anew from its key.

    Raises:
        SuperbError: when the folder cannot be written.
    """

    def __init__(self, root: Path, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        self.folder = store_folder(root, about)
        self.storage = str(about["storage"])
        self.again: Callable[[str], Floats] | None = None
        self._readers: dict[str, int] = {}
        self._checked: set[str] = set()
        self._writer: tuple[str, int] | None = None
        self._offset = 0
        self._pending: dict[str, tuple[str, str, int, str, int, float, float, bytes]] = {}
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
                "offset INTEGER, shape TEXT, crc INTEGER, error REAL, audio_s REAL, norms BLOB)"
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
        return set(keys) - present - self._pending.keys()

    def __contains__(self, key: str) -> bool:
        """Whether there is a record, committed or not, of this audio hash."""
        return key in self._pending or bool(
            self._rows("SELECT 1 FROM records WHERE audio = ?", (key,))
        )

    def append(self, key: str, values: Floats, norms: Floats, audio_s: float = 0.0) -> None:
        """Add one utterance's array, rounded to the store's precision.

        Args:
            key: hash of the utterance's audio.
            values: ``[layer, frame, dim]`` or, for time means, ``[layer, dim]``.
            norms: ``[layer]``, mean L2 norm of its frames in every layer, kept here or not.
            audio_s: how long it is.

        Raises:
            SuperbError: when the disk is full, or a value does not fit the precision.
        """
        name, data, error = "", b"", 0.0
        if self.storage != NONE:
            data = pack(values, self.storage)
            error = float(
                np.linalg.norm(unpack(data, values.shape, self.storage) - values)
                / max(float(np.linalg.norm(values)), 1e-12)
            )
            name = self._write(data)
        self._pending[key] = (
            key,
            name,
            self._offset,
            ",".join(map(str, values.shape)),
            zlib.crc32(data),
            error,
            audio_s,
            norms.astype(np.float32).tobytes(),
        )
        self._offset += len(data)
        self._pending_bytes += len(data)
        waited = time.monotonic() - self._committed
        if self._pending_bytes >= _COMMIT_BYTES or waited >= _COMMIT_S:
            self.commit()

    def _write(self, data: bytes) -> str:
        """Put bytes behind what this writer wrote before; the name of its file."""
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
        return name

    def commit(self) -> None:
        """Make everything appended so far durable, bytes first, then the rows that name them."""
        self._committed = time.monotonic()
        if not self._pending:
            return
        try:
            if self._writer is not None:
                os.fsync(self._writer[1])
            self._index.execute("BEGIN IMMEDIATE")
            self._index.executemany(
                "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                list(self._pending.values()),
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

    def read(self, key: str) -> Floats:
        """One utterance's array in float32; its checksum is verified on the first read.

        Of storage ``none`` it is encoded anew.

        Raises:
            SuperbError: when the record is missing or damaged.
        """
        rows = self._rows("SELECT file, offset, shape, crc FROM records WHERE audio = ?", (key,))
        if not rows:
            raise SuperbError(f"no features for audio {key[:12]} in {self.folder}")
        name, offset, text, crc = rows[0]
        shape = tuple(int(size) for size in text.split(","))
        if self.storage == NONE:
            assert self.again is not None
            return self.again(key)
        size = packed_bytes(shape, self.storage)
        try:
            if name not in self._readers:
                self._readers[name] = os.open(self.folder / name, os.O_RDONLY)
            data = os.pread(self._readers[name], size, offset)
        except OSError as reason:
            raise SuperbError(f"{self._damaged(name)} ({reason})") from reason
        if len(data) != size or (key not in self._checked and zlib.crc32(data) != crc):
            raise SuperbError(self._damaged(name))
        self._checked.add(key)
        return unpack(data, shape, self.storage)

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
        total, count = np.zeros(1), 0
        # one row at a time, in an order that does not depend on which came first
        for audio, blob in self._index.execute("SELECT audio, norms FROM records ORDER BY audio"):
            if audio in wanted:
                total, count = total + np.frombuffer(blob, np.float32), count + 1
        return [float(norm) for norm in total / count]

    def audio_s(self, keys: Sequence[str]) -> float:
        """Seconds of audio behind these records; a key that is named twice counts twice."""
        times = Counter(keys)
        rows = self._rows("SELECT audio, audio_s FROM records")
        return math.fsum(times[audio] * seconds for audio, seconds in rows if audio in times)

    def log_session(self, audio_s: float, encoder_s: float) -> None:
        """Remember how long the encoder of one process took for how much audio."""
        self._index.execute("INSERT INTO sessions VALUES (?, ?)", (audio_s, encoder_s))

    def throughput(self) -> float | None:
        """Seconds of audio per second of encoder over all sessions, None before the first.

        Processes that share a run log a session each, so this is the speed of one of them, as it
        was beside the others.
        """
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


class AudioHashes:
    """SHA-256 and length of audio, remembered by path, size and time of last change.

    For audio inside another file, its origin stands for these.

    A second run over the same corpus need not read it to know what is stored. Only a cache:
    losing it costs time.

    Args:
        root: the folder of all stores.

    Raises:
        SuperbError: when it cannot be read or written.
    """

    # table → its last column
    _TABLES: Final = {"files": "sha256 TEXT", "durations": "seconds REAL"}

    def __init__(self, root: Path) -> None:
        self.file = root / "audio.sqlite"
        self._pending: dict[str, list[tuple[str, int, int, str | float]]] = {
            table: [] for table in self._TABLES
        }
        self._committed = time.monotonic()
        with self._explained():
            root.mkdir(parents=True, exist_ok=True)
            self._index = sqlite3.connect(self.file, isolation_level=None)
            self._index.execute("PRAGMA busy_timeout = 60000")
            for table, column in self._TABLES.items():
                self._index.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} (path TEXT PRIMARY KEY, size INTEGER, "
                    f"mtime_ns INTEGER, {column}) WITHOUT ROWID"
                )

    def __enter__(self) -> AudioHashes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.commit()
        finally:
            self._index.close()

    def find(self, audio: Path | StoredAudio) -> str | None:
        """The hash of audio that has not changed since, None when it must be read."""
        found = self._find("files", audio)
        return None if found is None else str(found)

    def seen(self, audio: Path | StoredAudio) -> bool:
        """Whether the hash of audio is known, though perhaps from before it changed."""
        name = _name(audio)
        with self._explained():
            found = self._index.execute("SELECT 1 FROM files WHERE path = ?", (name,)).fetchone()
        return found is not None

    def find_duration(self, audio: Path | StoredAudio) -> float | None:
        """The seconds of audio that has not changed since, None when it must be opened."""
        found = self._find("durations", audio)
        return None if found is None else float(found)

    def remember(
        self, audio: Path | StoredAudio, status: os.stat_result | None, sha256: str
    ) -> None:
        """Note the hash of audio; the `status` of a file was taken before it was read."""
        self._remember("files", audio, status, sha256)

    def remember_duration(
        self, audio: Path | StoredAudio, status: os.stat_result | None, seconds: float
    ) -> None:
        """Note the length of audio; the `status` of a file was taken before it was opened."""
        self._remember("durations", audio, status, seconds)

    def _find(self, table: str, audio: Path | StoredAudio) -> str | float | None:
        try:
            state = _state(audio, audio.stat() if isinstance(audio, Path) else None)
        except OSError:
            return None
        if state is None:
            return None
        with self._explained():
            row = self._index.execute(
                f"SELECT * FROM {table} WHERE path = ? AND size = ? AND mtime_ns = ?",
                (_name(audio), *state),
            ).fetchone()
        return None if row is None else row[-1]

    def _remember(
        self,
        table: str,
        audio: Path | StoredAudio,
        status: os.stat_result | None,
        value: str | float,
    ) -> None:
        state = _state(audio, status)
        if state is None or time.time_ns() - state[1] < _CLOCK_NS:
            return
        self._pending[table].append((_name(audio), *state, value))
        if time.monotonic() - self._committed >= _COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Write down what was noted so far."""
        self._committed = time.monotonic()
        if not any(self._pending.values()):
            return
        with self._explained():
            self._index.execute("BEGIN IMMEDIATE")
            for table, rows in self._pending.items():
                self._index.executemany(f"REPLACE INTO {table} VALUES (?, ?, ?, ?)", rows)
            self._index.execute("COMMIT")
        for rows in self._pending.values():
            rows.clear()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise SuperbError(
                f"the list of audio hashes {self.file} cannot be used: {error}. Delete it (it is "
                "made again), or choose another folder with --cache-dir DIR or SUPERB_CACHE"
            ) from error


def _name(audio: Path | StoredAudio) -> str:
    """What audio is remembered by; "" for what is not."""
    if isinstance(audio, Path):
        return os.path.abspath(audio)  # noqa: PTH100 - resolving links would cost a call a folder
    return audio.origin[0] if audio.origin is not None else ""


def _state(audio: Path | StoredAudio, status: os.stat_result | None) -> tuple[int, int] | None:
    """Size and time of last change; None where these are not known."""
    if isinstance(audio, Path):
        return (status.st_size, status.st_mtime_ns) if status is not None else None
    # whoever streams does not know the size, which the name stands for too
    return (0, audio.origin[1]) if audio.origin is not None else None


def free_bytes(root: Path) -> int:
    """What features may still take on the disk of `root`, a little being left free."""
    root.mkdir(parents=True, exist_ok=True)
    return max(0, shutil.disk_usage(root).free - _SPARE_BYTES)


def require_room(root: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        SuperbError: when fewer than `needed` bytes and a little more are free.
    """
    if needed > free_bytes(root):
        free = shutil.disk_usage(root).free
        raise SuperbError(
            f"features would take {format_bytes(needed)} but {root} has {format_bytes(free)} "
            "free. Choose another disk (--cache-dir DIR or SUPERB_CACHE), a smaller storage "
            "(--storage int8, or none), fewer layers (--layers last), clear old features "
            "(superb cache clear), or probe fewer tasks at once"
        )


@dataclass(frozen=True)
class StoreSummary:
    """One store as ``superb cache`` lists it; `size` in bytes, `used` a POSIX time.

    The states of trainings that were cut off are listed as one, whose key is `TRAINING`.
    """

    key: str
    upstream: str
    kind: str
    storage: str
    utterances: int
    size: int
    used: float


def list_stores(root: Path) -> list[StoreSummary]:
    """All stores under `root`, biggest first; a folder without a readable index counts 0."""
    summaries = _training_states(root)
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


def _training_states(root: Path) -> list[StoreSummary]:
    """One line for all states of trainings; none where there are none."""
    files = [file.stat() for file in sorted((root / TRAINING).glob("*")) if file.is_file()]
    if not files:
        return []
    return [
        StoreSummary(
            key=TRAINING,
            upstream="–",
            kind=f"{len(files)} cut off",
            storage="–",
            utterances=0,
            size=sum(file.st_size for file in files),
            used=max(file.st_mtime for file in files),
        )
    ]


def clear_stores(root: Path, selection: Iterable[str] = ()) -> list[StoreSummary]:
    """Delete the stores whose key starts with, or whose upstream equals, one of `selection`.

    ``training`` stands for the states of trainings that were cut off. An empty selection deletes
    everything.

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
        training = summary.key == TRAINING
        shutil.rmtree(root / TRAINING if training else root / "features" / summary.key)
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
