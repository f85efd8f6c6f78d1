"""Recordings packed into one Parquet file, as Hugging Face ``datasets`` writes and reads them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmark.errors import SuperbError

RATE: Final = 16_000
# libsndfile's scale from 0 (best) to 1 (smallest): about 20 kbit/s for speech.
OPUS_COMPRESSION: Final = 0.955

# pyarrow declares no types; imported plainly, a strict type checker rejects each use of it.
pa: Any = import_module("pyarrow")
pq: Any = import_module("pyarrow.parquet")


def opus(signal: npt.NDArray[np.floating[Any]]) -> bytes:
    """A complete Ogg/Opus file of mono audio at `RATE`, the same for the same samples.

    libsndfile gives each stream a random serial number; put a fixed one into every page. It writes
    through Python, where an interrupt is dropped and a page loses its head: call this in a thread,
    in which none arrives.

    Raises:
        SuperbError: a page is not whole.
    """
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(
        buffer, signal, RATE, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION
    )
    data = bytearray(buffer.getvalue())
    start = 0
    while start < len(data):
        if not data.startswith(b"OggS", start):
            raise SuperbError("a recording was not coded whole; type the same command again")
        segments = data[start + 26]
        end = start + 27 + segments + sum(data[start + 27 : start + 27 + segments])
        data[start + 14 : start + 18] = (1).to_bytes(4, "little")
        data[start + 22 : start + 26] = bytes(4)
        data[start + 22 : start + 26] = _checksum(data[start:end]).to_bytes(4, "little")
        start = end
    return bytes(data)


def _checksum(page: bytes | bytearray) -> int:
    """Ogg's own CRC-32: unreflected, starting from zero."""
    register = 0
    for byte in page:
        register = (register << 8 & 0xFFFFFFFF) ^ _CRC[register >> 24 ^ byte]
    return register


def _shifted_out(byte: int) -> int:
    """What a byte that leaves the register does to the rest of it."""
    register = byte << 24
    for _ in range(8):
        register = (register << 1) ^ (0x104C11DB7 if register & 0x80000000 else 0)
    return register


_CRC: Final = tuple(map(_shifted_out, range(256)))


def flac(signal: npt.NDArray[np.floating[Any]]) -> bytes:
    """A complete FLAC file of mono audio at `RATE`, 16 bits a sample."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, signal, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def stored(name: str, data: bytes) -> dict[str, Any]:
    """A recording as a cell: the bytes of a file, and a name for it."""
    return {"bytes": data, "path": name}


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of text and ``audio``, with the metadata by which ``datasets`` knows audio.

    Args:
        path: of the file.
        rows: at least one; ``audio`` as of `stored`, everything else text or None.
    """
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {
        name: {"sampling_rate": RATE, "_type": "Audio"}
        if name == "audio"
        else {"dtype": "string", "_type": "Value"}
        for name in rows[0]
    }
    schema = pa.schema(
        [(name, audio if name == "audio" else pa.string()) for name in rows[0]],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=200)
