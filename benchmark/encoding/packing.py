"""Arrays as bytes, in the storages that features are kept in.

Four storages: ``float32``; ``float16``; ``int8``, a byte a value and a scale for each layer and
dimension of an utterance (`pack`); ``none``, which keeps nothing of them.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import SuperbError

STORAGES = ("float16", "float32", "int8", "none")
NONE = "none"
_INT8_MAX = 127
# What has one step: the frames of [layer, frame, dim]; the dimensions of a time mean [layer, dim].
_STEP_AXIS = 1

Floats = NDArray[np.float32]


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


@dataclass(frozen=True)
class Packed:
    """An array as it is kept.

    Attributes:
        shape: of the array.
        data: its bytes; none in storage ``none``.
        crc: their checksum.
        error: L2 norm of what rounding changed, over that of the array.
    """

    shape: tuple[int, ...]
    data: bytes = b""
    crc: int = 0
    error: float = 0.0


def packed(values: Floats, storage: str) -> Packed:
    """An array in a storage, with what is to be known of it.

    Raises:
        SuperbError: when a value does not fit.
    """
    if storage == NONE:
        return Packed(values.shape)
    data = pack(values, storage)
    off = np.linalg.norm(unpack(data, values.shape, storage) - values)
    error = float(off / max(float(np.linalg.norm(values)), 1e-12))
    return Packed(values.shape, data, zlib.crc32(data), error)


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
