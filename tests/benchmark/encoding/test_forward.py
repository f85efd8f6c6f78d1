"""The forms in which hidden states are kept."""

import math

import pytest
import torch

from benchmark.core import HiddenStates
from benchmark.encoding.forward import features_of, normalise


def test_normalise_by_hand():
    frame = torch.tensor([1.0, 2.0, 3.0, 6.0])
    deviation = math.sqrt((4 + 1 + 0 + 9) / 4)
    expected = torch.tensor([-2.0, -1.0, 0.0, 3.0]) / deviation
    assert torch.allclose(normalise(frame), expected, atol=1e-4)


def test_what_is_kept_is_of_the_frames_that_there_are():
    values = torch.randn(3, 1, 6, 4, generator=torch.Generator().manual_seed(0))
    states = HiddenStates(values, torch.tensor([5]))
    frames = values[:, 0, :5]
    assert torch.equal(features_of(states, "frames"), frames)
    assert torch.equal(features_of(states, "frames", (2, 0)), frames[[2, 0]])
    assert torch.equal(features_of(states, "mean"), frames.mean(1))
    assert torch.equal(features_of(states, "mean", (2,)), frames.mean(1))  # all layers
    assert torch.equal(features_of(states, "mean-normalised"), normalise(frames).mean(1))
    with pytest.raises(ValueError, match="median"):
        features_of(states, "median")
