"""Arrays as bytes: what is lost, how many bytes, and that they are always the same."""

import hashlib

import numpy as np
import pytest

from benchmark.encoding.packing import STORAGES, feature_bytes, pack, packed_bytes, unpack


def array(seed, shape, scale=1.0):
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return values.astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 50, 40), (3, 1, 40), (3, 40)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_eight_bits_err_by_half_a_step_at_most(shape, scale):
    values = array(1, shape, scale)
    values[1] *= np.geomspace(1e-3, 1e3, values[1].size, dtype=np.float32).reshape(shape[1:])
    values[2, ..., 0] = 0
    found = unpack(pack(values, "int8"), values.shape, "int8")
    # frames share a step, or the dimensions of a time mean
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    assert found.dtype == np.float32
    # and float32's own rounding, of a quotient and a product
    assert (np.abs(found - values) <= step / 2 + 2**-22 * np.abs(values)).all()
    assert np.abs(found - values).max() > 0 or shape[1] == 1
    assert (found[2, ..., 0] == 0).all()


def test_eight_bits_of_a_layer_do_not_depend_on_other_layers():
    values = array(2, (4, 30, 6))
    whole = unpack(pack(values, "int8"), values.shape, "int8")
    part = values[[1, 3]]
    assert np.array_equal(unpack(pack(part, "int8"), part.shape, "int8"), whole[[1, 3]])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", [(13, 20, 8), (13, 8)])
def test_bytes_are_foretold(storage, shape):
    if storage != "none":
        assert packed_bytes(shape, storage) == len(pack(array(0, shape), storage))
    kind, frames = ("frames", shape[1]) if len(shape) == 3 else ("mean", 0)
    foretold = feature_bytes(kind, storage, 13, 8, 1, frames)
    # one frame to spare
    spare = 13 * 8 * {"float16": 2, "float32": 4, "int8": 1, "none": 0}[storage]
    assert foretold == packed_bytes(shape, storage) + (spare if kind == "frames" else 0)


@pytest.mark.parametrize(
    ("storage", "golden"),
    [
        ("float16", "bb58e1f16e753a08"),
        ("float32", "a4803a550dfcdb25"),
        ("int8", "b32be8783a973d3a"),
    ],
)
def test_bytes_are_what_they_always_were(storage, golden):
    packed = b""
    for number in range(5):
        whole = np.arange(3 * (4 + number) * 5, dtype=np.float32).reshape(3, 4 + number, 5)
        packed += pack(((whole * (37 + number)) % 101 - 50) / np.float32(7), storage)
    assert hashlib.sha256(packed).hexdigest()[:16] == golden
