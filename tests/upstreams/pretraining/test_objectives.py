"""What holds for every objective in the table, at the size and with the settings it starts with."""

from __future__ import annotations

import pytest
import torch

from upstreams.pretraining import OBJECTIVES
from upstreams.pretraining.objective import Batch, Moment
from upstreams.pretraining.run import objective_class


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_weight_of_the_mini_size_learns(name, babble):
    torch.set_num_threads(1)
    kind = objective_class(name)
    made = kind("mini", kind.Settings(), torch.Generator().manual_seed(0))
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
