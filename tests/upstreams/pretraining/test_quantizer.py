"""The product quantiser: what is chosen, how often, and where gradients go."""

from __future__ import annotations

import math

import pytest
import torch

from upstreams.pretraining.quantizer import ProductQuantizer, annealed, perplexity

DIM, GROUPS, CODES, OUTPUT = 6, 2, 5, 8


@pytest.fixture
def quantizer():
    module = ProductQuantizer(DIM, GROUPS, CODES, OUTPUT)
    module.reset_parameters(torch.Generator().manual_seed(0))
    return module


def latents(number=40):
    return torch.randn(number, DIM, generator=torch.Generator().manual_seed(1))


def quantize(quantizer, z_nc, temperature=1.0, seed=2):
    return quantizer(z_nc, temperature, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("training", [True, False])
def test_values_are_the_chosen_entries_to_the_bit(quantizer, training):
    out = quantize(quantizer.train(training), latents())
    books = quantizer.codebooks.detach()
    expected = torch.cat([books[g, out.chosen_ng[:, g]] for g in range(GROUPS)], dim=1)
    assert torch.equal(out.values_nd, expected)
    assert torch.equal(out.likeliest_ng, logits_of(quantizer, latents()).argmax(2))


def test_noise_changes_choices_in_training_only(quantizer):
    first, other = (quantize(quantizer, latents(), seed=seed) for seed in (3, 4))
    assert not torch.equal(first.chosen_ng, other.chosen_ng)
    assert torch.equal(first.likeliest_ng, other.likeliest_ng)
    assert torch.equal(first.soft_perplexity, other.soft_perplexity)
    quiet = quantize(quantizer.eval(), latents())
    assert torch.equal(quiet.chosen_ng, quiet.likeliest_ng)


def test_sampled_choices_follow_the_softmax(quantizer):
    one = latents(1)
    out = quantize(quantizer, one.expand(20_000, DIM))
    shares = torch.stack([(out.chosen_ng == code).float().mean(0) for code in range(CODES)], 1)
    torch.testing.assert_close(shares, logits_of(quantizer, one)[0].softmax(1), atol=0.015, rtol=0)


def test_gradient_is_that_of_the_sampled_softmax(quantizer):
    """Straight-through: the values are those of one-hot choices, the gradient that of soft ones."""
    z_nc, temperature = latents(), 0.7
    weight = torch.randn(len(z_nc), OUTPUT, generator=torch.Generator().manual_seed(5))
    (quantize(quantizer, z_nc, temperature, seed=6).values_nd * weight).sum().backward()
    found = quantizer.logits.weight.grad.clone()
    quantizer.zero_grad()
    noise = torch.empty(len(z_nc), GROUPS, CODES)
    noise = -noise.exponential_(generator=torch.Generator().manual_seed(6)).log()
    soft = ((logits_of(quantizer, z_nc) + noise) / temperature).softmax(2)
    values = torch.einsum("ngv,gvd->ngd", soft, quantizer.codebooks).flatten(1)
    (values * weight).sum().backward()
    torch.testing.assert_close(found, quantizer.logits.weight.grad)


def test_uniform_logits_use_all_codes(quantizer):
    torch.nn.init.zeros_(quantizer.logits.weight)
    out = quantize(quantizer, latents())
    assert out.soft_perplexity.item() == pytest.approx(CODES)
    assert out.diversity.item() == pytest.approx(0, abs=1e-6)
    assert out.hard_perplexity.item() == pytest.approx(1)  # all of them choose the first


def test_perplexity_counts_the_entries_in_use():
    shares = torch.tensor([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4], dtype=torch.float32)
    torch.testing.assert_close(perplexity(shares), torch.tensor([1.0, 2.0, 4.0]))


@pytest.mark.parametrize("seed", range(3))
def test_diversity_closed_form_and_bounds(quantizer, seed):
    z_nc = 3 * torch.randn(30, DIM, generator=torch.Generator().manual_seed(seed))
    out = quantize(quantizer, z_nc)
    total = 0.0
    for shares in logits_of(quantizer, z_nc).softmax(2).mean(0).tolist():
        total += math.exp(-sum(share * math.log(share) for share in shares))
    expected = (GROUPS * CODES - total) / (GROUPS * CODES)
    assert out.diversity.item() == pytest.approx(expected, abs=1e-5)
    assert 1 <= out.soft_perplexity <= CODES
    assert 1 <= out.hard_perplexity <= CODES
    assert not out.soft_perplexity.requires_grad


def test_diversity_has_a_gradient_when_shares_underflow(quantizer):
    torch.nn.init.zeros_(quantizer.logits.weight)
    with torch.no_grad():
        quantizer.logits.bias[0] = 1000.0
    quantize(quantizer, latents()).diversity.backward()
    assert all(
        parameter.grad is None or parameter.grad.isfinite().all()
        for parameter in quantizer.parameters()
    )


def test_rows_are_those_asked_for(quantizer):
    out = quantize(quantizer, latents())
    some = out.rows(torch.tensor([3, 0]))
    assert torch.equal(some.values_nd, out.values_nd[[3, 0]])
    assert torch.equal(some.chosen_ng, out.chosen_ng[[3, 0]])
    assert torch.equal(some.likeliest_ng, out.likeliest_ng[[3, 0]])
    assert some.diversity is out.diversity


@pytest.mark.parametrize(("progress", "expected"), [(0, 2.0), (0.5, 1.0), (1, 0.5)])
def test_temperature_falls_exponentially(progress, expected):
    assert annealed(2.0, 0.5, progress) == pytest.approx(expected)


def logits_of(quantizer, z_nc):
    return quantizer.logits(z_nc).unflatten(1, (GROUPS, CODES))
