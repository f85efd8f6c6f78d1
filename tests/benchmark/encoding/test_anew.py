"""Frames that are encoded anew: once for all who train on them, and they never leave the card.

The card is a pretence: tensors that say they are on one, and a record of all that is copied.
"""

from __future__ import annotations

import io
from contextlib import ExitStack

import numpy as np
import pytest
import soundfile
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any, tree_map_only

from benchmark.core import HiddenStates, UpstreamCard, Utterance
from benchmark.encoding.features import Extraction, ExtractionSettings, extract, find_features
from benchmark.probing.fit import SplitData, standardisation
from benchmark.probing.layers import LayerMix, Mix
from benchmark.progress import Progress

HOP, LAYERS, DIM = 160, 3, 4
CUDA = torch.device("cuda")


class OnCard(torch.Tensor):
    """A tensor that says it is on a card."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = CUDA


class Card(TorchFunctionMode):
    """What is done with tensors of the card is on the card; what leaves it or comes is recorded.

    Attributes:
        left: shapes of what was copied to the processor.
        came: shapes of what was copied to the card.
    """

    MIXED = ("copy_", "__setitem__", "__getitem__", "_has_compatible_shallow_copy_type")
    LEAVES = ("cpu", "numpy", "tolist", "item", "__array__", "__bool__", "__float__", "__int__")

    def __init__(self):
        super().__init__()
        self.left, self.came = [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        there = tree_any(lambda one: isinstance(one, OnCard), (args, kwargs))
        name = getattr(func, "__name__", "")
        if name == "to":
            return self.moved(*args, **kwargs)
        asked = kwargs.pop("device", None)
        plain = tree_map_only(OnCard, lambda one: one.as_subclass(torch.Tensor), (args, kwargs))
        if name in self.LEAVES and there:
            self.left.append(tuple(args[0].shape))
            return func(*plain[0], **plain[1])
        if there and name not in self.MIXED:
            for one in args:  # as a card would have it
                alone = isinstance(one, torch.Tensor) and not isinstance(one, OnCard)
                assert not (alone and one.dim()), f"{name} of tensors on two devices"
        out = func(*plain[0], **plain[1])
        if there or (asked is not None and torch.device(asked).type == "cuda"):
            return tree_map_only(torch.Tensor, lambda one: one.as_subclass(OnCard), out)
        return out

    def moved(self, tensor, *args, **kwargs):
        given = (*args, *kwargs.values())
        to = [torch.device(one) for one in given if isinstance(one, torch.device | str)]
        dtypes = [one for one in given if isinstance(one, torch.dtype)]
        plain = tensor.as_subclass(torch.Tensor).to(*dtypes)
        if not to or to[0].type == tensor.device.type:
            return plain.as_subclass(type(tensor))
        comes = to[0].type == "cuda"
        (self.came if comes else self.left).append(tuple(tensor.shape))
        return plain.clone().as_subclass(OnCard if comes else torch.Tensor)


class Toy:
    """Three layers of a linear map of each hop, of several utterances; counts its calls."""

    def __init__(self):
        self.card = UpstreamCard("toy", LAYERS, DIM, HOP, min_samples=HOP, pad_invariant=True)
        self.weight = torch.randn(LAYERS, HOP, DIM, generator=torch.Generator().manual_seed(0))
        self.calls = []

    def to(self, device):
        self.weight = self.weight.to(device)
        return self

    def __call__(self, waveforms):
        self.calls.append(len(waveforms))
        lengths = [len(waveform) // HOP for waveform in waveforms]
        values = self.weight.new_zeros(LAYERS, len(waveforms), max(lengths), DIM)
        for row, (waveform, length) in enumerate(zip(waveforms, lengths, strict=True)):
            frames = waveform[: length * HOP].view(-1, HOP)
            values[:, row, :length] = torch.einsum("th,lhd->ltd", frames, self.weight)
        return HiddenStates(values, torch.tensor(lengths))


def utterances(count):
    found = []
    for place in range(count):
        noise = 0.1 * np.random.default_rng(place).standard_normal(1600 + 160 * place)
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, 16_000, format="WAV", subtype="FLOAT")
        found.append(Utterance(f"u{place}", buffer.getvalue(), "train", label="ab"[place % 2]))
    return found


def split(toy, folder, resources, **settings):
    """A split of ten utterances, read as training reads it."""
    wanted = {"frames": utterances(10)}
    extraction = Extraction(toy, "toy", wanted, ExtractionSettings(folder, **settings))
    shares = [extract(extraction, Progress(quiet=True))]
    features = find_features(extraction, shares, resources)
    return SplitData(
        wanted["frames"],
        features.keys,
        features.stores,
        settings.get("device", "cpu"),
        keep_bytes=2000,  # a few of them
        anew=features.anew,
    )


@pytest.fixture
def card(monkeypatch):
    pinned = []

    def pin_memory(tensor):
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    # weights that are moved are other tensors then
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    with Card() as mode:
        mode.pinned = pinned
        yield mode


def test_frames_never_leave_the_card(tmp_path, card):
    mixes = (Mix(None), Mix(None, normalised=True), Mix(1))
    seen, batches = {}, ([3, 9, 0], [9, 5, 7, 2], [1])
    for storage in ("none", "float32"):
        with ExitStack() as resources:
            toy = Toy().to("cuda")
            card.left.clear()
            data = split(toy, tmp_path, resources, device="cuda", storage=storage)
            frames_left = [shape for shape in card.left if len(shape) > 2]
            assert bool(frames_left) is (storage == "float32")
            card.left.clear(), card.came.clear(), toy.calls.clear(), card.pinned.clear()
            values = []
            for indices in batches:
                batch = data.batch(indices, normalised=True)
                for mix in mixes:
                    states = batch.normalised if mix.normalised else batch.plain
                    frames = LayerMix(mix, LAYERS).requires_grad_(False).to("cuda")(states)
                    assert frames.device == CUDA
                    values.append(frames)
            shift, scale = standardisation(data, Mix(None))
            assert shift.device == scale.device == CUDA
            if storage == "none":
                # waveforms, lengths and masks come; whether all is finite, and figures, leave
                assert max(map(len, card.came)) < 3
                assert all(np.prod(shape, initial=1) <= 10 for shape in card.left)
                assert toy.calls[: len(batches)] == [3, 3, 1]  # u9 was kept
                assert len(card.pinned) == sum(toy.calls)
            else:
                assert toy.calls == []
                assert any(len(shape) > 2 for shape in card.came)
            seen[storage] = [*values, shift, scale]
    for anew, stored in zip(seen["none"], seen["float32"], strict=True):
        assert torch.equal(anew, stored)
