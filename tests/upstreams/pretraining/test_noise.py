"""What is mixed into utterances, and into how many."""

from __future__ import annotations

import torch

from upstreams.pretraining.noise import coloured_noise, disturb


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_at_most_half_of_some_utterances_changes_and_the_input_stays():
    clean = torch.randn(200, 1000, generator=generator(1))
    before = clean.clone()
    mixed = disturb(clean, 0.2, generator())
    assert torch.equal(clean, before)
    changed = mixed != clean
    assert 0.1 < float(changed.any(dim=1).float().mean()) < 0.3
    assert int(changed.sum(dim=1).max()) <= 500


def test_another_voice_is_another_utterance_of_the_batch_scaled():
    clean = torch.randn(2, 4000, generator=generator(1))
    mixed = disturb(clean, 1.0, generator(0))
    added = (mixed - clean)[0]
    where = added.nonzero().squeeze(1)
    stretch = added[where[0] : where[-1] + 1]
    # It is somewhere in the other one: their correlation there is 1.
    windows = clean[1].unfold(0, len(stretch), 1)
    likeness = torch.cosine_similarity(windows, stretch.unsqueeze(0), dim=1)
    assert float(likeness.max()) > 0.999


def test_nothing_is_mixed_into_a_share_of_none():
    clean = torch.randn(5, 100, generator=generator(1))
    assert torch.equal(disturb(clean, 0.0, generator()), clean)


def test_a_single_utterance_gets_noise():
    clean = torch.randn(1, 1000, generator=generator(1))
    assert not torch.equal(disturb(clean, 1.0, generator()), clean)


def test_noise_has_unit_power_and_its_colour():
    for exponent in (0.0, 1.0, 2.0):
        noise = coloured_noise(16_384, exponent, generator())
        assert abs(float(noise.square().mean()) - 1) < 1e-3
        power = torch.fft.rfft(noise).abs().square()
        low, high = power[64:128].mean(), power[4096:8192].mean()
        slope = float(torch.log(low / high) / torch.log(torch.tensor(64.0)))
        assert abs(slope - exponent) < 0.15
