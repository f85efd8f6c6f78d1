"""Features on disk: written once, read by `pread`, never trusted when half-written.

A store is one folder: ``about.json`` says in words what its features depend on. Every writer has a
pair of files of its own there: ``*.bin`` with arrays (`benchmark.encoding.packing`) and ``*.log``
with what is to be known of them (`benchmark.encoding.segments`), the hash of an utterance's audio
and the place of its array before all. Records go to the log when their arrays are synced, in blocks
that count whole or not at all, and only while all of their arrays are there. So a killed run leaves
nothing that a later run would trust, and any number of processes, on one machine or several, write
to a store and read it at once, without locks. Two may store the same utterance: each reader of
both takes that of the first writer by name.

Random reads by `pread` are an order of magnitude faster than a bare memory map when the page
cache is cold.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.encoding.packing import NONE, Floats, Packed, packed, unpack
from benchmark.encoding.segments import SUFFIX, OwnFile, SegmentReader, block
from benchmark.errors import SuperbError

FORMAT_VERSION = 3
# Folder of all stores.
FEATURES = "features"
_DATA = ".bin"
_RECORDS, _SESSION, _REMARK = b"rows", b"time", b"note"
_KEY_CHARACTERS = 64
_MOST_AXES = 3
_COMMIT_BYTES = 64 * 2**20
_COMMIT_S = 5.0
_MOST_OPEN = 256
# Network file systems may show for a minute what a folder was before, and then what a file was.
VISIBLE_S = 130.0
_LOOK_EVERY_S = 0.5

Records = NDArray[np.void]


def _record_type(layers: int) -> np.dtype[np.void]:
    """What a log has of each utterance; `layers` are those of the encoder."""
    return np.dtype(
        [
            ("key", f"S{_KEY_CHARACTERS}"),
            ("offset", "<i8"),
            ("size", "<i8"),
            ("shape", "<i4", (_MOST_AXES,)),  # filled up with -1
            ("crc", "<u4"),
            ("error", "<f8"),
            ("audio_s", "<f8"),
            ("norms", "<f4", (layers,)),
        ]
    )


def _records(payload: bytes) -> Records:
    """The records of a block, whose first four bytes say how many layers there are."""
    return np.frombuffer(payload, _record_type(int.from_bytes(payload[:4], "little")), offset=4)


def store_key(about: Mapping[str, Any]) -> str:
    """The folder name of a store: a hash of everything that determines its features."""
    canonical = json.dumps({"format": FORMAT_VERSION, **about}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]


def store_folder(root: Path, about: Mapping[str, Any]) -> Path:
    """Where the store of such features is, or would be."""
    return root / FEATURES / store_key(about)


def count_records(folder: Path) -> int:
    """How many utterances the store in a folder knows of.

    Raises:
        OSError: when it cannot be read.
    """
    keys: set[bytes] = set()

    def take(_: str, tag: bytes, payload: bytes) -> bool:
        if tag == _RECORDS:
            keys.update(_records(payload)["key"].tolist())
        return True

    SegmentReader(folder).refresh(take)
    return len(keys)


class FeatureStore:
    """Arrays of one kind (frames, or time means) of one encoder, keyed by audio hash.

    What other processes have stored is noticed when this is made, at `refresh`, `missing` and
    `commit`, and whenever a record is asked for that is not known. For one thread at a time.

    Args:
        root: the folder of all stores.
        about: everything the features depend on, apart from the audio; JSON values only.
            ``layers`` lists the layers that are kept, None for all.

    Raises:
        SuperbError: when the folder cannot be used.
    """

    def __init__(self, root: Path, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        self.folder = store_folder(root, about)
        self.storage = str(about["storage"])
        self._handles: dict[str, int] = {}
        # what was taken from the logs: of each row its record, its segment, whether it was checked
        self._reader = SegmentReader(self.folder)
        self._taken: list[tuple[str, Records]] = []
        self._rows: dict[str, int] = {}
        self._records = np.empty(0, _record_type(0))
        self._segments: list[str] = []
        self._checked = bytearray()
        self._sizes: dict[str, int] = {}
        self._sessions: list[tuple[float, float]] = []
        self._remarks: dict[str, str] = {}
        # what is being written
        self._pending: dict[str, tuple[Any, ...]] = {}
        self._pending_bytes = 0
        self._committed = time.monotonic()
        self._start_segment()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_once(self.folder / "about.json", json.dumps(self.about, indent=1) + "\n")
        except OSError as error:
            raise SuperbError(
                f"the feature cache {self.folder} cannot be used: {error}. Set SUPERB_CACHE or "
                f"--cache-dir to a folder that you can write to, or clear this one: {self._clear}"
            ) from error
        self.refresh()

    def _start_segment(self) -> None:
        self._own = uuid.uuid4().hex
        self._reader.skip(self._own)
        self._data = OwnFile(self.folder / f"{self._own}{_DATA}")
        self._log = OwnFile(self.folder / f"{self._own}{SUFFIX}")

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refresh(self) -> None:
        """Take notice of what was stored since, by whichever process.

        Raises:
            SuperbError: when the folder cannot be read, or is gone.
        """
        try:
            self._reader.refresh(self._take)
        except OSError as error:
            raise SuperbError(
                f"the feature cache {self.folder} cannot be read: {error}. If it was cleared "
                "meanwhile, type the same command again; else choose another folder with "
                "--cache-dir DIR or SUPERB_CACHE"
            ) from error
        if not self._taken:
            return
        first = len(self._records)
        before = [self._records] if first else []
        self._records = np.concatenate([*before, *(records for _, records in self._taken)])
        names = (segment for segment, records in self._taken for _ in range(len(records)))
        self._segments = [*self._segments, *names]
        self._checked += bytes(len(self._records) - first)
        for row, key in enumerate(self._records["key"][first:].tolist(), first):
            old = self._rows.get(name := key.decode())
            if old is None or self._segments[row] < self._segments[old]:
                self._rows[name] = row
        self._taken.clear()

    def _take(self, segment: str, tag: bytes, payload: bytes) -> bool:
        if tag == _SESSION:
            self._sessions.append(struct.unpack("<dd", payload))
            return True
        if tag == _REMARK:
            key, _, text = payload.decode().partition(" ")
            self._remarks[key] = text
            return True
        records = _records(payload)
        end = int((records["offset"] + records["size"]).max())
        if end > self._sizes.get(segment, 0):
            with suppress(FileNotFoundError):
                self._sizes[segment] = (self.folder / f"{segment}{_DATA}").stat().st_size
        if end > self._sizes.get(segment, 0):
            return False  # these arrays are not there, or this machine does not see them yet
        self._taken.append((segment, records))
        return True

    def _column(self, keys: Iterable[str], name: str) -> tuple[list[str], NDArray[Any]]:
        """Those of the keys that have a record, each once, and what it says."""
        wanted = dict.fromkeys(keys)
        if not wanted.keys() <= self._rows.keys():
            self.refresh()
        known = [key for key in wanted if key in self._rows]
        rows = np.fromiter((self._rows[key] for key in known), np.intp, len(known))
        return known, self._records[name][rows]

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Those of the audio hashes that have no record yet."""
        self.refresh()
        return set(keys) - self._rows.keys() - self._pending.keys()

    def wait_for(self, keys: Iterable[str], timeout_s: float) -> None:
        """Wait until what another process has stored is to be seen here.

        Raises:
            SuperbError: when it is not within `timeout_s` seconds.
        """
        until, left = time.monotonic() + timeout_s, set(keys)
        while left := self.missing(left):
            if time.monotonic() > until:
                raise SuperbError(
                    f"features that another process stored are not in {self.folder.parent.parent}: "
                    "choose a folder that all machines share with --cache-dir DIR or SUPERB_CACHE"
                )
            time.sleep(_LOOK_EVERY_S)

    def __contains__(self, key: str) -> bool:
        """Whether there is a record, committed or not, of this audio hash; costs no disk access."""
        return key in self._pending or key in self._rows

    def append(
        self,
        key: str,
        values: Floats | Packed,
        norms: Floats,
        audio_s: float = 0.0,
        remark: str = "",
    ) -> None:
        """Add one utterance's array, rounded to the store's precision.

        Args:
            key: hash of the utterance's audio, at most 64 ASCII characters.
            values: ``[layer, frame, dim]`` or, for time means, ``[layer, dim]``; or what another
                thread has made of them.
            norms: ``[layer]``, mean L2 norm of its frames in every layer, kept here or not.
            audio_s: how long it is.
            remark: what is odd about it; see `remarks`.

        Raises:
            SuperbError: when the disk is full, or a value does not fit the precision.
            ValueError: for another kind of key.
        """
        if not (key.isascii() and 0 < len(key) <= _KEY_CHARACTERS):
            raise ValueError(f"no hash of audio: {key!r}")
        made = values if isinstance(values, Packed) else packed(values, self.storage)
        offset = 0
        if made.data:
            try:
                offset = self._data.write(made.data)
            except OSError as reason:
                raise self._disk_error(reason) from reason
        if remark:
            self._remarks[key] = remark
            try:  # before the record that it is about
                self._log.write(block(_REMARK, f"{key} {remark}".encode()))
            except OSError as reason:
                raise self._disk_error(reason) from reason
        shape = (*made.shape, *[-1] * (_MOST_AXES - len(made.shape)))
        place, own_norms = (offset, len(made.data), shape), norms.astype(np.float32)
        self._pending[key] = (key, *place, made.crc, made.error, audio_s, own_norms)
        self._pending_bytes += len(made.data)
        waited = time.monotonic() - self._committed
        if self._pending_bytes >= _COMMIT_BYTES or waited >= _COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Make everything appended so far durable, arrays first, then the records that name them.

        Raises:
            SuperbError: when the disk is full, or the store was cleared meanwhile.
        """
        self._committed = time.monotonic()
        if not self._pending:
            return
        rows = list(self._pending.values())
        layers = len(rows[0][-1])
        records = np.array(rows, _record_type(layers))
        try:
            self._sync(self._data)
            self._log.write(block(_RECORDS, layers.to_bytes(4, "little") + records.tobytes()))
            self._sync(self._log)
        except OSError as reason:
            raise self._disk_error(reason) from reason
        self._taken.append((self._own, records))
        self._pending.clear()
        self._pending_bytes = 0
        self.refresh()
        if not self._log.path.exists():
            raise SuperbError(
                f"{self._log.path} is gone: the feature cache was cleared while this run wrote to "
                "it. Type the same command again"
            )

    def _sync(self, file: OwnFile) -> None:
        try:
            file.sync()
        except OSError:
            # what is pending is in doubt for good: it is left out, and what comes begins anew
            self._pending.clear()
            self._pending_bytes = 0
            self._data.close()
            self._log.close()
            self._start_segment()
            raise

    def shapes(self, keys: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The shape of each of the records."""
        found, shapes = self._column(keys, "shape")
        return dict(zip(found, map(_shape, shapes.tolist()), strict=True))

    def read(self, key: str) -> Floats:
        """The array of one utterance; see `read_all`."""
        return self.read_all([key])[0]

    def read_all(self, keys: Sequence[str]) -> list[Floats]:
        """The arrays of some utterances in float32; a checksum is verified on the first read.

        Raises:
            SuperbError: when a record is missing or damaged.
            ValueError: of storage ``none``.
        """
        if self.storage == NONE:
            raise ValueError(f"{self.folder} keeps no arrays")
        rows = [self._row(key) for key in keys]
        return [self._read(row) for row in rows]

    def _row(self, key: str) -> int:
        if key not in self._rows:
            self.refresh()
        if (row := self._rows.get(key)) is None:
            raise SuperbError(f"no features for audio {key[:12]} in {self.folder}")
        return row

    def _read(self, row: int) -> Floats:
        name, record = f"{self._segments[row]}{_DATA}", self._records[row]
        place, crc = (int(record["size"]), int(record["offset"])), int(record["crc"])

        def whole(data: bytes) -> bool:
            return len(data) == place[0] and (bool(self._checked[row]) or zlib.crc32(data) == crc)

        try:
            data = os.pread(self._open(name), *place)
            if not whole(data):
                # what another machine has written is seen for sure by whoever opens the file then
                os.close(self._handles.pop(name))
                data = os.pread(self._open(name), *place)
        except FileNotFoundError as reason:
            raise SuperbError(
                f"{self.folder / name} is gone: the feature cache was cleared while this run read "
                "it. Type the same command again"
            ) from reason
        except OSError as reason:
            raise SuperbError(f"{self._damaged(name)} ({reason})") from reason
        if not whole(data):
            raise SuperbError(self._damaged(name))
        self._checked[row] = True
        return unpack(data, _shape(record["shape"].tolist()), self.storage)

    def _open(self, name: str) -> int:
        if name not in self._handles:
            if len(self._handles) >= _MOST_OPEN:
                os.close(self._handles.pop(next(iter(self._handles))))
            self._handles[name] = os.open(self.folder / name, os.O_RDONLY)
        return self._handles[name]

    @property
    def _clear(self) -> str:
        root = self.folder.parent.parent
        return f"superb cache clear {self.folder.name} --cache-dir {root}"

    def _damaged(self, name: str) -> str:
        return (
            f"the feature cache is damaged: {self.folder / name}. Extract again after: "
            f"{self._clear}"
        )

    def _disk_error(self, reason: OSError) -> SuperbError:
        return SuperbError(
            f"writing features to {self.folder} failed: {reason}. What was finished is kept; make "
            "room or choose another disk (--cache-dir DIR), then type the same command again"
        )

    def rounding_error(self, keys: Iterable[str]) -> float:
        """Root mean square over utterances of the relative L2 error that storage added."""
        errors = self._column(keys, "error")[1].tolist()
        return math.sqrt(math.fsum(e * e for e in errors) / len(errors)) if errors else 0.0

    def layer_norms(self, keys: Iterable[str]) -> list[float]:
        """Mean L2 norm of a frame in each layer, averaged over utterances: ``[layer]``."""
        # one after another, in an order that does not depend on who wrote what
        _, norms = self._column(sorted(set(keys)), "norms")
        totals: list[float] = np.cumsum(norms, axis=0, dtype=np.float64)[-1].tolist()
        return [total / len(norms) for total in totals]

    def audio_s(self, keys: Sequence[str]) -> float:
        """Seconds of audio behind these records; a key that is named twice counts twice."""
        times = Counter(keys)
        found, seconds = self._column(times, "audio_s")
        pairs = zip(found, seconds.tolist(), strict=True)
        return math.fsum(times[key] * each for key, each in pairs)

    def remarks(self, keys: Iterable[str]) -> dict[str, str]:
        """What was found odd about some of the audio when it was decoded, by key."""
        wanted = dict.fromkeys(keys)
        if not wanted.keys() <= self._rows.keys():
            self.refresh()
        return {key: self._remarks[key] for key in wanted if key in self._remarks}

    def log_session(self, audio_s: float, encoder_s: float) -> None:
        """Remember how long the encoder of one process took for how much audio."""
        try:
            self._log.write(block(_SESSION, struct.pack("<dd", audio_s, encoder_s)))
        except OSError as reason:
            raise self._disk_error(reason) from reason
        self._sessions.append((audio_s, encoder_s))

    def throughput(self) -> float | None:
        """Seconds of audio per second of encoder over all sessions, None before the first.

        Processes that share a run log a session each, so this is the speed of one of them, as it
        was beside the others.
        """
        self.refresh()
        audio_s, encoder_s = (math.fsum(session[i] for session in self._sessions) for i in (0, 1))
        return audio_s / encoder_s if encoder_s else None

    def close(self) -> None:
        """Commit and release every handle."""
        try:
            self.commit()
        finally:
            for handle in self._handles.values():
                os.close(handle)
            self._handles.clear()
            self._data.close()
            self._log.close()


def _shape(stored: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in stored if size >= 0)


def _write_once(path: Path, text: str) -> None:
    """Write a file that is the same whoever writes it, and clear what killed writers of it left."""
    while not path.exists():
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        partial.write_text(text)
        with suppress(FileNotFoundError):  # cleared by another, who has written it
            partial.replace(path)
        for other in path.parent.glob(f"{path.name}.*"):
            other.unlink(missing_ok=True)
