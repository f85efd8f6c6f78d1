"""The forms in which hidden states are kept."""

import math

import numpy as np
import pytest
import torch

from benchmark.core import HiddenStates
from benchmark.encoding.forward import forms_of, normalise, packs


def test_normalise_by_hand():
    frame = torch.tensor([1.0, 2.0, 3.0, 6.0])
    deviation = math.sqrt((4 + 1 + 0 + 9) / 4)
    expected = torch.tensor([-2.0, -1.0, 0.0, 3.0]) / deviation
    assert torch.allclose(normalise(frame), expected, atol=1e-4)


def test_what_is_kept_is_of_the_frames_that_there_are():
    values = torch.randn(3, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    states = HiddenStates(values, torch.tensor([5, 6]))
    kinds = ("frames", "mean", "mean-normalised")
    for layers in (None, (2, 0)):
        for row, (forms, norms) in enumerate(forms_of(states, kinds, layers)):
            frames = values[:, row, : states.lengths[row]]
            kept = frames if layers is None else frames[list(layers)]
            assert np.array_equal(forms["frames"], kept)
            assert np.array_equal(forms["mean"], frames.mean(1))  # of all layers
            assert np.array_equal(forms["mean-normalised"], normalise(frames).mean(1))
            assert np.array_equal(norms, frames.norm(dim=-1).mean(1))
    with pytest.raises(ValueError, match="median"):
        forms_of(states, ["median"], None)


def test_packs_hold_everything_once_and_no_more_than_they_may():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    found = packs(lengths, 100)
    assert sorted(index for pack in found for index in pack) == list(range(200))
    for pack in found:
        assert len(pack) == 1 or len(pack) * max(lengths[index] for index in pack) <= 100
    assert [len(pack) for pack in packs(lengths, 0)] == [1] * 200
    padded = sum(len(pack) * max(lengths[index] for index in pack) for pack in found)
    assert padded < 1.1 * sum(lengths)
