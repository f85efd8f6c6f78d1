"""APC and masked reconstruction: who sees which frame, and which frames count."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmark.errors import SuperbError
from upstreams.models import generative
from upstreams.models.architecture import parameter_count
from upstreams.pretraining import OBJECTIVES
from upstreams.pretraining.generative import (
    APC,
    MaskedReconstruction,
    altered,
    masked_l1,
    mel_frames,
)
from upstreams.pretraining.objective import Batch, Moment

CLASSES = {"apc": APC, "masked-reconstruction": MaskedReconstruction}
TINY = {
    "apc": replace(generative.RECURRENT_MINI, dim=32, layers=2, input_state=False),
    "masked-reconstruction": replace(
        generative.MEL_TRANSFORMER_MINI, dim=32, layers=2, feed_forward_dim=64
    ),
}
NAMES = list(TINY)
MaskSettings = MaskedReconstruction.Settings


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

    def build(name, **settings):
        objective = CLASSES[name]
        monkeypatch.setitem(objective.sizes, "tiny", TINY[name])
        generator = torch.Generator().manual_seed(0)
        return objective("tiny", objective.Settings(**settings), generator)

    return build


def batch(samples=8000, utterances=3):
    generator = torch.Generator().manual_seed(1)
    # A tone that glides differently in each utterance, in some noise.
    seconds = torch.arange(samples) / 16_000
    hertz = torch.tensor([300.0, 900.0, 2500.0])[:utterances, None]
    tone = torch.sin(2 * torch.pi * hertz * seconds * (1 + seconds))
    noise = torch.randn(utterances, samples, generator=generator)
    return Batch(0.1 * tone + 0.01 * noise, torch.arange(utterances))


def moment(seed=0):
    return Moment(0.5, torch.Generator().manual_seed(seed))


def frames(utterances=6, count=200):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(utterances, count, 80, generator=generator)


# Both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_table_names_it_and_its_size_is_that_of_the_others(name):
    module, _, attribute = OBJECTIVES[name].target.partition(":")
    objective = CLASSES[name]
    assert (objective.__module__, objective.__name__) == (module, attribute)
    assert parameter_count(objective.sizes["mini"]) == pytest.approx(2_960_000, rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns_and_a_seed_is_a_loss(name, make, rng_untouched):
    objective = make(name)
    loss = objective(batch(), moment())
    loss.value.backward()
    assert not [n for n, w in objective.named_parameters() if w.grad is None or not w.grad.any()]
    assert objective.prepare([], moment()) == {}
    again = make(name)(batch(), moment())
    assert float(again.value.detach()) == float(loss.value.detach())
    assert not any(part.requires_grad for part in loss.parts.values())


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_comes_near(name, make):
    objective = make(name)
    expected = objective(batch(), moment())
    with torch.autocast("cpu", torch.bfloat16):
        found = objective(batch(), moment())
    found.value.backward()
    assert found.value.dtype == torch.float32
    assert float(found.value.detach()) == pytest.approx(float(expected.value.detach()), rel=0.02)
    # What does not pass the encoder, the target among it, is not rounded at all.
    assert found.parts == expected.parts


@pytest.mark.parametrize("name", NAMES)
def test_learns_a_batch_by_heart(name, make):
    objective = make(name)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    fixed = batch(samples=4000, utterances=2)
    for step in range(300):
        # One mask, over and over.
        loss = objective(fixed, moment())
        if step == 0:
            start = float(loss.value.detach())
        if float(loss.value.detach()) < 0.2 * start:
            return
        optimiser.zero_grad()
        loss.value.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimiser.step()
    pytest.fail(f"L1 fell from {start:.2f} to {float(loss.value.detach()):.2f} only")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("apc", {"steps_ahead": 60}, "none 60 frames ahead; use longer crops"),
        ("masked-reconstruction", {"span": 60}, "use longer audio, or a shorter mask"),
    ],
)
def test_too_short_a_crop_is_refused(name, settings, words, make):
    with pytest.raises(SuperbError, match=words):
        make(name, **settings)(batch(), moment())


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("apc", {"steps_ahead": 0}, "steps_ahead must be at least 1; got 0"),
        (
            "masked-reconstruction",
            {"mask_share": 0.0},
            "mask_share must be above 0 and below 1; got 0.0",
        ),
        ("masked-reconstruction", {"span": 0}, "span must be at least 1; got 0"),
        ("masked-reconstruction", {"noise_probability": 2.0}, "from 0 to 1; got 2.0"),
        ("masked-reconstruction", {"replace_probability": 0.3}, "at most 1; got 1.1"),
        ("masked-reconstruction", {"channel_share": 1.0}, "channel_share must be 0 or more"),
        ("masked-reconstruction", {"noise_deviation": -1.0}, "at least 0; got -1.0"),
        ("masked-reconstruction", {"noise_deviation": float("nan")}, "at least 0; got nan"),
    ],
)
def test_bad_settings_are_refused(name, settings, words):
    with pytest.raises(SuperbError, match=words):
        CLASSES[name].Settings(**settings)


# APC ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 3])
def test_apc_predicts_the_frame_that_far_ahead(ahead, make):
    objective, given = make("apc", steps_ahead=ahead), batch()
    encoder = objective.encoder
    total = []
    for waveform in given.waveforms:
        mel_tm = encoder.stacked(encoder.mel(waveform))
        predicted_tm = encoder.predict(encoder(waveform)[-1][None])[0]
        total += [
            (predicted_tm[t] - mel_tm[t + ahead]).abs().mean() for t in range(len(mel_tm) - ahead)
        ]
    loss = objective(given, moment())
    assert torch.allclose(loss.value, torch.stack(total).mean(), atol=1e-5)
    mel_btm = encoder.stacked(mel_frames(encoder, given.waveforms))
    copied = F.l1_loss(mel_btm[:, :-ahead], mel_btm[:, ahead:])
    assert torch.equal(loss.parts["l1_copy"], copied)


def test_apc_sees_no_frame_after_the_one_it_predicts_from(make):
    encoder = make("apc").encoder
    one = frames(2, 40)
    other = one.clone()
    other[:, 22:] += 1
    before, after = (
        encoder.predict(encoder.states(encoder.stacked(mel))[-1]) for mel in (one, other)
    )
    assert torch.equal(before[:, :11], after[:, :11])
    assert not torch.allclose(before[:, 11:], after[:, 11:], atol=1e-3)


# Masked reconstruction ----------------------------------------------------------------------


def test_only_chosen_frames_count():
    chosen_btm = torch.rand(2, 9, 80, generator=moment().generator) < 0.3
    predicted = frames(2, 9).requires_grad_()
    target = torch.zeros(2, 9, 80)
    loss = masked_l1(predicted, target, chosen_btm)
    loss.backward()
    assert torch.equal(predicted.grad != 0, chosen_btm)
    assert torch.allclose(loss, predicted.detach()[chosen_btm].abs().mean())
    elsewhere = target.masked_fill(~chosen_btm, 5.0)
    assert torch.equal(masked_l1(predicted, elsewhere, chosen_btm), loss)


def test_the_loss_is_over_what_was_chosen(make):
    objective, given = make("masked-reconstruction"), batch()
    mel_btm = mel_frames(objective.encoder, given.waveforms)
    altered_btm, chosen_btm = altered(mel_btm, objective.settings, moment().generator)
    written_btm = objective.prediction(objective.encoder.states(altered_btm)[-1])
    loss = objective(given, moment())
    assert torch.allclose(loss.value, (written_btm - mel_btm).abs()[chosen_btm].mean())
    assert torch.allclose(loss.parts["l1_zero"], mel_btm.abs()[chosen_btm].mean())


def test_spans_are_chosen_and_nothing_else_is_altered():
    mel_btm = frames()
    altered_btm, chosen_btm = altered(mel_btm, MaskSettings(), moment().generator)
    assert torch.equal(altered_btm[~chosen_btm], mel_btm[~chosen_btm])
    chosen_bt = chosen_btm[:, :, 0]
    assert torch.equal(chosen_btm, chosen_bt[:, :, None].expand_as(chosen_btm))
    # Overlap takes a little from 15 %.
    assert 0.1 < chosen_bt.float().mean() <= 0.16
    for row in chosen_bt:
        # Lengths of runs: distances between changes, every second one.
        edges = F.pad(row.int(), (1, 1)).diff().nonzero().flatten()
        assert (edges[1::2] - edges[::2]).min() >= 7


@pytest.mark.parametrize(
    ("zero", "replace_probability"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)], ids=str
)
def test_chosen_frames_are_zeroed_replaced_or_left(zero, replace_probability):
    settings = MaskSettings(zero_probability=zero, replace_probability=replace_probability)
    mel_btm = frames()
    altered_btm, chosen_btm = altered(mel_btm, settings, moment().generator)
    assert chosen_btm.any(dim=(1, 2)).all()
    if zero:
        assert not altered_btm[chosen_btm].any()
    elif replace_probability:
        for before, after, chosen in zip(mel_btm, altered_btm, chosen_btm[:, :, 0], strict=True):
            known = {tuple(row.tolist()) for row in before}
            assert {tuple(row.tolist()) for row in after} <= known
            assert (after[chosen] != before[chosen]).any(1).float().mean() > 0.9
    else:
        assert torch.equal(altered_btm, mel_btm)


def test_each_fate_has_its_share():
    settings = MaskSettings(zero_probability=0.6, replace_probability=0.3)
    mel_btm = frames(1000, 20)
    altered_btm, chosen_btm = altered(mel_btm, settings, moment().generator)
    zeroed = ((altered_btm == 0) | ~chosen_btm).all(dim=2).all(dim=1).float().mean()
    left = (altered_btm == mel_btm).all(dim=2).all(dim=1).float().mean()
    assert float(zeroed) == pytest.approx(0.6, abs=0.06)
    assert float(left) == pytest.approx(0.1, abs=0.04)


def test_bands_are_blanked_in_all_frames():
    settings = MaskSettings(channel_share=0.2, zero_probability=0.0, replace_probability=0.0)
    mel_btm = frames(400, 10)
    altered_btm, chosen_btm = altered(mel_btm, settings, moment().generator)
    blanked_bm = (altered_btm == 0).all(dim=1)
    assert torch.equal((altered_btm == 0).any(dim=1), blanked_bm)
    assert chosen_btm[(altered_btm == 0)].all()
    widths = blanked_bm.sum(1)
    assert set(widths.tolist()) == set(range(17))
    # One block each, and every band is in one.
    assert (F.pad(blanked_bm.int(), (1, 1)).diff(dim=1) == 1).sum(1).max() == 1
    assert blanked_bm.any(dim=0).all()


def test_noise_is_added_to_a_share_of_the_utterances_and_chooses_nothing():
    settings = MaskSettings(
        noise_probability=0.3, noise_deviation=0.2, zero_probability=0.0, replace_probability=0.0
    )
    mel_btm = frames(400, 10)
    quiet = altered(mel_btm, replace(settings, noise_probability=0.0), moment().generator)
    altered_btm, chosen_btm = altered(mel_btm, settings, moment().generator)
    assert torch.equal(chosen_btm, quiet[1])
    noise_btm = altered_btm - mel_btm
    noisy_b = noise_btm.flatten(1).any(dim=1)
    assert float(noisy_b.float().mean()) == pytest.approx(0.3, abs=0.08)
    assert float(noise_btm[noisy_b].std()) == pytest.approx(0.2, rel=0.02)
