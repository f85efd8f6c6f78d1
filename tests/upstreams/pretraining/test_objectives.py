"""What holds for every objective in the table, at the size and with the settings it starts with."""

from __future__ import annotations

import pytest
import torch

from upstreams.pretraining import OBJECTIVES
from upstreams.pretraining.bodies import SHARED, build, contexts, front, mel_frames, read
from upstreams.pretraining.generative import MaskedReconstruction, altered
from upstreams.pretraining.objective import Batch, Moment
from upstreams.pretraining.run import objective_class

SIZES = [
    (name, size)
    for name in OBJECTIVES
    for size in objective_class(name).sizes
    if size == "mini" or size in SHARED
]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_every_weight_of_a_small_size_learns(name, size, babble):
    torch.set_num_threads(1)
    kind = objective_class(name)
    made = kind(size, kind.Settings(), torch.Generator().manual_seed(0))
    waveforms = torch.stack([torch.from_numpy(babble(seed, 2.1)) for seed in range(3)])
    batch = Batch(waveforms, torch.arange(3))

    def moment() -> Moment:
        return Moment(0.5, torch.Generator().manual_seed(0))

    made.prepare([batch], moment())
    loss = made(batch, moment())
    assert bool(loss.value.isfinite())
    loss.value.backward()
    asleep = [
        weight_name
        for weight_name, weight in made.named_parameters()
        if weight.requires_grad and (weight.grad is None or not bool(weight.grad.any()))
    ]
    assert not asleep


def test_each_school_trains_each_shared_body():
    """Sizes of one name are one architecture, whatever the objective."""
    schools = {body: set() for body in SHARED}
    for name, size in SIZES:
        if size in SHARED:
            assert objective_class(name).sizes[size] == SHARED[size]
            schools[size].add(OBJECTIVES[name].school)
    assert schools == {body: {"predictive", "contrastive", "generative"} for body in SHARED}


@pytest.mark.parametrize("size", SHARED)
def test_a_masked_frame_is_not_seen(size, babble):
    """Whatever lies below a mask, states are the same; what lies beside it, they tell."""
    encoder = build(SHARED[size])
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    waveforms = torch.from_numpy(babble(0, 2.1))[None]
    mel_btm = mel_frames(encoder, waveforms)
    settings = MaskedReconstruction.Settings(zero_probability=1.0, replace_probability=0.0)

    def states(given_btm):
        hidden_btm, chosen_btm = altered(given_btm, settings, torch.Generator().manual_seed(1))
        return read(encoder, hidden_btm), chosen_btm

    hidden, chosen_btm = states(mel_btm)
    assert states(torch.where(chosen_btm, 7.0, mel_btm))[0].equal(hidden)
    assert not states(torch.where(chosen_btm, mel_btm, 7.0))[0].equal(hidden)
    assert not read(encoder, mel_btm).equal(hidden)
    # and the front end of waveforms and that of mel frames are one
    _, frames_btd, _ = front(encoder, waveforms)
    torch.testing.assert_close(contexts(encoder, frames_btd), read(encoder, mel_btm))
