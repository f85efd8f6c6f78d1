"""The two layouts of ``torch.save``: where a file has its object and the numbers of its tensors.

Since torch 1.6 it is a zip archive whose entries are stored as they are: ``NAME/data.pkl`` and
``NAME/data/KEY``. Before, it was five pickles one after the other (a magic number, a version, the
machine, the object, the keys of its storages), then each storage, its length in front. Numbers are
not read but mapped where they are aligned, as the zip layout has them, so that what nobody looks
at, such as the state of an optimiser, costs nothing.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor

from benchmark.errors import UpstreamError
from upstreams.loading.files import refuse_pointer
from upstreams.loading.pickled import Name, RefusedError, follow

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
    "_UntypedStorage": torch.uint8,
}
NOT_SAVED = "is no file of torch.save"
OTHER_ORDER = "was written by a big-endian machine; load and save it with torch on another"


@dataclass(frozen=True)
class Stored:
    """The numbers of tensors, as a pickle refers to them.

    Attributes:
        key: their name in the file.
        dtype: of a number.
        count: of numbers.
    """

    key: str
    dtype: torch.dtype
    count: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * self.dtype.itemsize


class FormError(Exception):
    """A file is of another form; the text says of which, and what to do."""


def read_saved(path: Path) -> tuple[object, Callable[[Stored], torch.UntypedStorage]]:
    """Read a file of ``torch.save`` as far as its pickles go.

    Returns:
        The object as `pickled.follow` gives it, with `Stored` in it, and what maps those.

    Raises:
        UpstreamError: it is a pointer of git-lfs.
        FormError: it is something else than torch.save writes.
        RefusedError: one of its pickles asks for a call that is refused.
        Exception: of any other kind: it is damaged.
    """
    refuse_pointer(path)
    if not path.stat().st_size:
        raise FormError("is empty (0 bytes); fetch it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _refuse_other_forms(content)
        zipped = content[:4] == b"PK\x03\x04"
        saved, places = _zipped(path, content) if zipped else _in_a_row(content)
        size = len(content)
    whole = torch.UntypedStorage.from_file(str(path), False, size)
    mapped: dict[str, torch.UntypedStorage] = {}

    def storage(stored: Stored) -> torch.UntypedStorage:
        start, length = places(stored)
        if stored.count < 0 or stored.size > length or start + length > size:
            raise ValueError(f"storage {stored.key!r} is larger than its file")
        if stored.key not in mapped:
            mapped[stored.key] = _aligned(whole[start : start + length], start)
        return mapped[stored.key]

    return saved, storage


def _aligned(part: torch.UntypedStorage, start: int) -> torch.UntypedStorage:
    """The same bytes, at an address that suits numbers of any type."""
    if not start % 16:
        return part
    return torch.empty(0, dtype=torch.uint8).set_(part).clone().untyped_storage()


def refuse_damage(path: Path, tensors: Iterable[Tensor]) -> None:
    """Refuse numbers that are not those that were saved, by the checksums of the archive.

    A hole in a file loads as zeros, and zeros are weights like any other. Only what is asked for is
    read. The layout before zip has no checksums, and torch can be told to write none.

    Args:
        path: the file.
        tensors: as `read_saved` maps them, not copies.

    Raises:
        UpstreamError: one differs.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        sums = {(entry.file_size, entry.CRC) for entry in archive.infolist()}
    if not any(checksum for _, checksum in sums):
        return
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
    for storage in storages.values():
        numbers = torch.empty(0, dtype=torch.uint8).set_(storage)
        if (len(numbers), zlib.crc32(numbers.numpy().data)) not in sums:
            raise UpstreamError(
                f"{path} is damaged: its numbers do not have the checksum that was saved with "
                "them; fetch it again"
            )


def _refuse_other_forms(content: mmap.mmap) -> None:
    head = content[:512]
    if head[257:262] == b"ustar":
        raise FormError("is a tar archive of the oldest torch; load it there and save it again")
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < len(content):
        raise FormError("holds safetensors; name it so, ending in .safetensors")
    if head.lstrip()[:1] == b"<":
        raise FormError(f"{NOT_SAVED} but a web page: its download went wrong; fetch it again")
    if head[:1] != b"\x80" and head[:4] != b"PK\x03\x04":
        what = "text" if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) else "other data"
        raise FormError(f"{NOT_SAVED} but {what}, which begins with {head[:20]!r}")


def _zipped(path: Path, content: mmap.mmap) -> tuple[object, Callable[[Stored], tuple[int, int]]]:
    """The object of a zip archive, and where its storages are: start and length in bytes."""
    with zipfile.ZipFile(path) as archive:
        listed = archive.infolist()
    entries = {entry.filename.partition("/")[2]: entry for entry in listed}
    if "constants.pkl" in entries or any(name.startswith("code/") for name in entries):
        raise FormError(
            "is a TorchScript program (torch.jit.save): code, which is not run. Give its weights: "
            "torch.save(model.state_dict(), ...)"
        )
    if "data.pkl" not in entries:
        raise FormError(f"{NOT_SAVED} but a zip archive of other files; unpack it")
    if len(entries) < len(listed):
        raise FormError("is a zip archive that names an entry twice, which torch.save never does")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in listed):
        raise FormError(
            "is a zip archive of compressed files, which torch.save never writes; load it with "
            "torch and save it again, or fetch the original"
        )

    def place(name: str) -> tuple[int, int]:
        entry = entries[name]
        # The entry's own header: 26 bytes, the lengths of its name and of what follows it, both.
        lengths = struct.unpack_from("<HH", content, entry.header_offset + 26)
        return entry.header_offset + 30 + sum(lengths), entry.file_size

    def read(name: str) -> bytes:
        start, length = place(name)
        return content[start : start + length]

    if "byteorder" in entries and read("byteorder") != b"little":
        raise FormError(
            "was written by a big-endian machine; load and save it with torch elsewhere"
        )
    stored: dict[Stored, tuple[int, int]] = {}

    def persistent(told: object) -> Stored:
        found = _stored(told)
        stored[found] = place(f"data/{found.key}")
        return found

    return follow(BytesIO(read("data.pkl")), persistent), stored.__getitem__


def _in_a_row(
    content: mmap.mmap,
) -> tuple[object, Callable[[Stored], tuple[int, int]]]:
    """The object of pickles in a row, and where its storages are: start and length in bytes."""
    file = cast("IO[bytes]", content)
    stored: dict[str, Stored] = {}

    def persistent(told: object) -> object:
        match told:
            case ("module", Name() as kind, *_):  # a module saved whole, with its source code
                return kind
        found = _stored(told)
        return stored.setdefault(found.key, found)

    def apart(told: object) -> object:
        raise RefusedError("keeps parts of its header outside of it, which torch.save never does")

    if follow(file, apart) != MAGIC or follow(file, apart) != VERSION:
        raise FormError(f"{NOT_SAVED} but another pickle; save it again with torch.save")
    machine = follow(file, apart)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise FormError(
            "was written by a big-endian machine; load and save it with torch elsewhere"
        )
    saved = follow(file, persistent)
    keys = follow(file, apart)
    if not isinstance(keys, list) or sorted(keys) != sorted(stored):
        raise ValueError("its object and its storages do not fit together")
    places: dict[str, tuple[int, int]] = {}
    start = content.tell()
    for key in keys:
        (count,) = struct.unpack_from("<q", content, start)
        if count != stored[key].count:
            raise ValueError(f"storage {key!r} has another length than its object says")
        places[key] = start + 8, stored[key].size
        start += 8 + stored[key].size
    return saved, lambda found: places[found.key]


def _stored(told: object) -> Stored:
    """What a pickle says of a storage; both layouts say it alike.

    Raises:
        ValueError: it says something else.
    """
    match told:
        case ("storage", Name(kind), str(key), str(_), int(count), *view) if view in ([], [None]):
            package, _, name = kind.rpartition(".")
            if package.partition(".")[0] == "torch" and name in DTYPES and count >= 0:
                return Stored(key, DTYPES[name], count)
    raise RefusedError("keeps something else than numbers outside of its object")
