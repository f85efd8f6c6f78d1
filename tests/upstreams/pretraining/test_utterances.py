"""Utterance-wise contrast: frames of one utterance belong together."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from upstreams.pretraining.utterances import utterance_contrast


def test_the_loss_equals_a_written_out_one():
    states = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    anchors = [0, 5, 6, 11]
    told = utterance_contrast(states, torch.tensor(anchors), 0.2)
    frames = [(utterance, frame) for utterance in range(3) for frame in range(4)]

    def likeness(one, other):
        return F.cosine_similarity(states[one], states[other], dim=0).item() / 0.2

    losses, right = [], 0
    for anchor in (frames[index] for index in anchors):
        own = [likeness(anchor, x) for x in frames if x[0] == anchor[0] and x != anchor]
        others = [likeness(anchor, x) for x in frames if x[0] != anchor[0]]
        for value in own:
            below = math.exp(value) + sum(math.exp(other) for other in others)
            losses.append(-math.log(math.exp(value) / below))
        right += max(own) > max(others)
    assert told.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert told.accuracy.item() == pytest.approx(right / len(anchors))


def test_utterances_that_are_alike_within_and_apart_between_cost_nothing():
    states = torch.eye(3)[:, None].expand(3, 5, 3)
    told = utterance_contrast(states, torch.arange(15), 0.01)
    assert told.loss.item() < 1e-6
    assert told.accuracy.item() == 1


@pytest.mark.parametrize("shape", [(1, 6, 4), (6, 1, 4)])
def test_where_there_is_nothing_to_tell_the_loss_is_zero_and_so_is_its_gradient(shape):
    states = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    told = utterance_contrast(states, torch.arange(6), 0.1)
    told.loss.backward()
    assert told.loss.item() == told.accuracy.item() == 0
    assert states.grad.abs().max() == 0


def test_order_of_utterances_and_of_frames_does_not_matter_and_gradients_are_finite():
    states = torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    anchors = torch.arange(28)
    told = utterance_contrast(states, anchors, 0.1)
    told.loss.backward()
    assert states.grad.isfinite().all()
    other = utterance_contrast(states[[2, 0, 3, 1]].flip(1), anchors, 0.1)
    torch.testing.assert_close(other.loss, told.loss)
    assert other.accuracy == told.accuracy
