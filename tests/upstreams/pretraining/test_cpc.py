"""InfoNCE, where negatives come from, and the three objectives that use both."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from benchmark.errors import SuperbError
from upstreams.models import cpc
from upstreams.models.architecture import parameter_count
from upstreams.models.utterance import draw_weights
from upstreams.pretraining import OBJECTIVES
from upstreams.pretraining.cpc import (
    CPC,
    BidirectionalCPC,
    ModifiedCPC,
    StepMatrices,
    TransformerPredictor,
    draw_negatives,
    info_nce,
)
from upstreams.pretraining.objective import Batch, Moment


def thin(config, dim):
    return replace(config, convolutions=replace(config.convolutions, dim=dim))


CLASSES = {"cpc": CPC, "modified-cpc": ModifiedCPC, "bidirectional-cpc": BidirectionalCPC}
TINY = {
    "cpc": replace(thin(cpc.CPC_MINI, 24), context_dim=16),
    "modified-cpc": replace(thin(cpc.MODIFIED_CPC_MINI, 16), context_dim=16),
    "bidirectional-cpc": replace(
        thin(cpc.BIDIRECTIONAL_CPC_MINI, 16), direction_dim=8, context_kernels=(1, 2, 3)
    ),
}
NAMES = list(TINY)
SPEAKERS = torch.tensor([7, 3, 7, 5])


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are so small that a second thread would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make(monkeypatch):
    """``make(name, **settings)``: a tiny objective; always the same for the same arguments."""

    def build(name, seed=0, **settings):
        objective = CLASSES[name]
        monkeypatch.setitem(objective.sizes, "tiny", TINY[name])
        options = {"future_steps": 3, "negatives_count": 10, **settings}
        generator = torch.Generator().manual_seed(seed)
        return objective("tiny", objective.Settings(**options), generator)

    return build


def batch(samples=4800, utterances=4):
    generator = torch.Generator().manual_seed(1)
    waveforms = torch.randn(utterances, samples, generator=generator)
    return Batch(waveforms, SPEAKERS[:utterances])


def moment(seed=0):
    return Moment(0.5, torch.Generator().manual_seed(seed))


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


# InfoNCE ------------------------------------------------------------------------------------


def test_info_nce_is_the_formula():
    utterances, frames, dim, steps = 3, 6, 4, 2
    z_btd = rows(utterances, frames, dim)
    predictions = [rows(utterances, frames, dim), rows(utterances, frames, dim) * 0.5]
    # Few frames and many draws: anchors meet their own positives among the negatives.
    negatives_bn = draw_negatives(
        "utterance", torch.arange(utterances), frames, 8, torch.Generator().manual_seed(0)
    )
    latents = [z_btd[b, t] for b in range(utterances) for t in range(frames)]
    losses, wins, met = [], [], 0
    for step in range(1, steps + 1):
        terms, won = [], []
        for b in range(utterances):
            for t in range(frames - step):
                prediction = predictions[step - 1][b, t]
                own = b * frames + t + step
                positive = float(prediction @ latents[own])
                others = [
                    float(prediction @ latents[index])
                    for index in negatives_bn[b].tolist()
                    if index != own
                ]
                met += len(others) < 8
                total = math.exp(positive) + sum(map(math.exp, others))
                terms.append(-math.log(math.exp(positive) / total))
                won.append(positive > max(others))
        losses.append(sum(terms) / len(terms))
        wins.append(sum(won) / len(won))
    assert met
    contrast = info_nce(z_btd, predictions, negatives_bn)
    assert float(contrast.loss) == pytest.approx(sum(losses) / steps, rel=1e-5)
    assert contrast.accuracy_k.tolist() == pytest.approx(wins)


def test_only_an_anchors_own_positive_is_left_out():
    z_btd = torch.nn.functional.one_hot(torch.arange(4)).float()[None]
    predictions = [torch.zeros(1, 4, 4)]
    # Anchors 0, 1, 2 have the positives 1, 2, 3; the second meets two of its own.
    negatives_bn = torch.tensor([[2, 2, 0]])
    expected = [math.log(4), math.log(2), math.log(4)]
    loss = float(info_nce(z_btd, predictions, negatives_bn).loss)
    assert loss == pytest.approx(sum(expected) / 3)


def test_an_anchor_without_negatives_costs_nothing():
    z_btd = rows(1, 2, 3).requires_grad_()
    loss = info_nce(z_btd, [rows(1, 2, 3)], torch.tensor([[1, 1]])).loss
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(z_btd.grad, torch.zeros(1, 2, 3))


def test_scores_are_float32_under_autocast():
    z_btd, prediction, negatives = rows(2, 9, 32), rows(2, 9, 32), torch.randint(18, (2, 5))
    expected = info_nce(z_btd, [prediction], negatives).loss
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(z_btd, [prediction], negatives).loss
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


# Negatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("utterance", [{0}, {1}, {2}, {3}]),
        ("speaker", [{0, 2}, {1}, {0, 2}, {3}]),
        ("batch", [{0, 1, 2, 3}] * 4),
    ],
)
def test_negatives_come_from_where_they_may_and_from_all_of_it(source, allowed, rng_untouched):
    frames, count = 5, 4000
    index_bn = draw_negatives(source, SPEAKERS, frames, count, torch.Generator().manual_seed(0))
    assert index_bn.shape == (4, count)
    for drawn, utterances in zip(index_bn, allowed, strict=True):
        counts = drawn.bincount(minlength=4 * frames).float().view(4, frames)
        elsewhere = sorted({0, 1, 2, 3} - utterances)
        assert counts[elsewhere].sum() == 0
        share = count / (frames * len(utterances))
        # Uniform: five standard deviations of a binomial draw.
        assert (counts[sorted(utterances)] - share).abs().max() < 5 * share**0.5


# Predictions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_predictor", [lambda: StepMatrices(8, 6, 3), lambda: TransformerPredictor(8, 6, 3, 2)]
)
def test_predictions_see_no_later_context(make_predictor):
    with torch.device("meta"):
        predictor = make_predictor()
    predictor.to_empty(device="cpu")
    draw_weights(predictor, torch.Generator().manual_seed(0))
    one = rows(2, 7, 8)
    other = one.clone()
    other[:, 4:] = one[:, 4:].roll(1, dims=2)
    pairs = list(zip(predictor(one), predictor(other), strict=True))
    assert len(pairs) == 3
    for before, after in pairs:
        assert before.shape == (2, 7, 6)
        assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
        assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-3)


# Objectives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_table_names_it_and_its_size_is_that_of_the_others(name):
    module, _, attribute = OBJECTIVES[name].target.partition(":")
    objective = CLASSES[name]
    assert (objective.__module__, objective.__name__) == (module, attribute)
    assert parameter_count(objective.sizes["mini"]) == pytest.approx(2_960_000, rel=0.03)


@pytest.mark.parametrize("source", ["utterance", "speaker", "batch"])
@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns_and_a_seed_is_a_loss(name, source, make, rng_untouched):
    objective = make(name, negatives=source)
    loss = objective(batch(), moment())
    loss.value.backward()
    assert not [n for n, w in objective.named_parameters() if w.grad is None or not w.grad.any()]
    assert objective.prepare([], moment()) == {}
    again, other = make(name, negatives=source)(batch(), moment()), objective(batch(), moment(1))
    assert float(again.value.detach()) == float(loss.value.detach())
    assert float(other.value.detach()) != float(loss.value.detach())
    assert {"accuracy", "accuracy_first_step", "accuracy_last_step"} <= loss.parts.keys()
    assert not any(part.requires_grad for part in loss.parts.values())


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_comes_near(name, make):
    objective = make(name)
    expected = objective(batch(), moment()).value
    with torch.autocast("cpu", torch.bfloat16):
        found = objective(batch(), moment()).value
    found.backward()
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_learns_a_batch_by_heart(name, make):
    objective = make(name)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    fixed = batch(samples=1600, utterances=2)
    for step in range(200):
        loss = objective(fixed, moment(step))
        if loss.parts["accuracy"] > 0.95:
            return
        optimiser.zero_grad()
        loss.value.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimiser.step()
    pytest.fail(f"accuracy {float(loss.parts['accuracy']):.2f} after 200 steps")


def test_backwards_is_forwards_in_reversed_time(make):
    objective = make("bidirectional-cpc")
    encoder, given = objective.encoder, batch()
    z_btd = encoder.latents(given.waveforms)
    past, future = encoder.contexts(z_btd)
    draws = moment().generator
    settings = ("utterance", given.speakers, z_btd.shape[1], 10, draws)
    ahead = info_nce(z_btd, objective.ahead(past[-1]), draw_negatives(*settings)).loss
    # Step k of the backward direction expects latent t − k from the context of t and after.
    mirrored = [prediction.flip(1) for prediction in objective.back(future[-1])]
    back = info_nce(z_btd.flip(1), mirrored, draw_negatives(*settings)).loss
    loss = objective(given, moment())
    assert torch.allclose(loss.value, ahead + back)
    assert torch.allclose(loss.parts["loss_ahead"], ahead)
    assert torch.allclose(loss.parts["loss_back"], back)


@pytest.mark.parametrize("name", NAMES)
def test_too_short_a_crop_is_refused(name, make):
    with pytest.raises(SuperbError, match="longer crops, or fewer future_steps"):
        make(name, future_steps=40)(batch(samples=3200), moment())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"negatives": "uterance"}, "'uterance'.*utterance.*Known: batch, speaker, utterance"),
        ({"negatives_count": 0}, "negatives_count must be at least 1; got 0"),
        ({"future_steps": -1}, "future_steps must be at least 1; got -1"),
    ],
)
def test_bad_settings_are_refused(name, settings, words):
    with pytest.raises(SuperbError, match=words):
        CLASSES[name].Settings(**settings)


def test_heads_must_fit(make):
    with pytest.raises(SuperbError, match="heads must be at least 1; got 0"):
        ModifiedCPC.Settings(heads=0)
    with pytest.raises(SuperbError, match="divide the 16 features of a context; 3 do not"):
        make("modified-cpc", heads=3)
