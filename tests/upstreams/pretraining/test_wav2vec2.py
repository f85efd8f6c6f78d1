"""wav2vec 2.0 and wav2vec-C; and what w2v-BERT has in common with them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmark.errors import SuperbError
from upstreams.models.generative import kaldi_mel
from upstreams.models.transformer import HUBERT_BASE, MINI
from upstreams.pretraining import wav2vec2
from upstreams.pretraining.masking import masked_front, span_mask
from upstreams.pretraining.objective import Batch, Moment
from upstreams.pretraining.w2v_bert import W2VBERT, W2VBERTSettings
from upstreams.pretraining.wav2vec2 import (
    Wav2Vec2,
    Wav2Vec2Settings,
    Wav2VecC,
    Wav2VecCSettings,
    contrastive_loss,
    draw_distractors,
    spectra,
)

TINY = replace(
    HUBERT_BASE,
    pre_norm=True,
    conv_dims=(16,) * 7,
    dim=32,
    layers=2,
    heads=2,
    feed_forward_dim=64,
    position_kernel=16,
    position_groups=4,
)
OBJECTIVES = [Wav2Vec2, Wav2VecC, W2VBERT]
SMALL = {"codes": 8, "final_dim": 16, "distractors": 10, "mask_span": 3}


def build(kind, architecture=TINY, seed=1, **settings):
    tiny = type(f"Tiny{kind.__name__}", (kind,), {"sizes": {"tiny": architecture}})
    settings = kind.Settings(**{**SMALL, **settings})
    return tiny("tiny", settings, torch.Generator().manual_seed(seed))


def moment(seed=0, progress=0.5):
    return Moment(progress, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def batch():
    """Four seconds of tones that jump every tenth of a second."""
    generator = torch.Generator().manual_seed(0)
    hertz = (200 + 3000 * torch.rand(4, 10, generator=generator)).repeat_interleave(1600, dim=1)
    waves = 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(16_000) / 16_000)
    return Batch(waves + 0.01 * torch.randn(waves.shape, generator=generator), torch.zeros(4))


# --------------------------------------------------------------------------------------------
# Distractors and the contrastive loss
# --------------------------------------------------------------------------------------------


def test_distractors_are_other_masked_frames_of_the_same_utterance():
    counts = [5, 2, 9]
    drawn = draw_distractors(counts, 300, torch.Generator().manual_seed(0))
    assert drawn.shape == (16, 300)
    frame = 0
    for first, count in zip([0, 5, 7], counts, strict=True):
        for _ in range(count):
            others = set(range(first, first + count)) - {frame}
            assert set(drawn[frame].tolist()) == others  # all of them, and nothing else
            frame += 1


def test_distractors_are_uniform():
    drawn = draw_distractors([4], 30_000, torch.Generator().manual_seed(0))
    shares = torch.stack([(drawn == frame).float().mean(1) for frame in range(4)], 1)
    torch.testing.assert_close(shares, (1 - torch.eye(4)) / 3, atol=0.01, rtol=0)


@pytest.mark.parametrize("negatives", ["utterance", "batch"])
def test_negatives_of_a_batch_are_compared_with_frames_of_all_utterances(
    batch, monkeypatch, negatives
):
    made, seen = build(Wav2Vec2, negatives=negatives), []

    def watched(context, target, codes, distractors, counts, temperature):
        seen.append((distractors, counts))
        return contrastive_loss(context, target, codes, distractors, counts, temperature)

    monkeypatch.setattr(wav2vec2, "contrastive_loss", watched)
    loss = made(batch, moment())
    ((distractors, counts),) = seen
    assert loss.value.isfinite()
    assert len(counts) == {"utterance": 4, "batch": 1}[negatives]
    own = distractors // (len(distractors) // 4)  # as many frames are masked in each
    elsewhere = (own != torch.arange(4).repeat_interleave(len(own) // 4)[:, None]).float().mean()
    expected = {"utterance": 0.0, "batch": 0.75}[negatives]
    assert elsewhere.item() == pytest.approx(expected, abs=0.1)


def random_case(counts=(5, 1, 7), codes=3):
    generator = torch.Generator().manual_seed(0)
    number = sum(counts)
    context = torch.randn(number, 6, generator=generator)
    chosen = torch.randint(codes, (number, 2), generator=generator)
    books = torch.randn(2, codes, 3, generator=generator)
    target = torch.cat([books[0, chosen[:, 0]], books[1, chosen[:, 1]]], 1)
    return context, target, chosen, draw_distractors(counts, 8, generator), counts


def test_contrastive_loss_equals_a_written_out_one():
    context, target, chosen, drawn, counts = random_case()
    loss, accuracy = contrastive_loss(context, target, chosen, drawn, counts, 0.1)
    losses, right, excluded = [], 0, 0
    for frame in range(len(context)):
        others = [
            other for other in drawn[frame].tolist() if (target[other] != target[frame]).any()
        ]
        excluded += drawn.shape[1] - len(others)
        positive, *wrong = (
            F.cosine_similarity(context[frame], target[other], dim=0).item() / 0.1
            for other in [frame, *others]
        )
        losses.append(-positive + math.log(sum(math.exp(value) for value in [positive, *wrong])))
        right += bool(wrong) and positive > max(wrong)
    assert excluded > 8  # more than the lonely frame's
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert accuracy.item() == pytest.approx(right / len(losses))


def test_contrastive_loss_of_a_collapsed_codebook_is_zero_and_nothing_is_right():
    context, target, chosen, drawn, counts = random_case(codes=1)
    context.requires_grad_()
    loss, accuracy = contrastive_loss(context, target, chosen, drawn, counts, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert accuracy.item() == 0
    assert not context.grad.any()


def test_contrastive_loss_has_the_right_gradient():
    context, target, chosen, drawn, counts = random_case()
    context, target = context.requires_grad_(), target.requires_grad_()
    loss, _ = contrastive_loss(context, target, chosen, drawn, counts, 0.5)
    loss.backward()
    step, direction = 1e-2, torch.randn(context.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        up, down = (
            contrastive_loss(context + sign * step * direction, target, chosen, drawn, counts, 0.5)[
                0
            ]
            for sign in (1, -1)
        )
    expected = (context.grad * direction).sum().item()
    assert ((up - down) / (2 * step)).item() == pytest.approx(expected, rel=1e-2)
    assert target.grad.any()


# --------------------------------------------------------------------------------------------
# The masked front
# --------------------------------------------------------------------------------------------


def front(objective, batch, grad_mult=1.0):
    generator = torch.Generator().manual_seed(4)
    embedding = objective.contrast.mask_embedding
    return masked_front(
        objective.encoder, embedding, batch.waveforms, 0.065, 3, grad_mult, generator
    )


def test_front_masks_the_projection_and_leaves_the_latents(batch):
    objective = build(Wav2Vec2)
    masked = front(objective, batch)
    frames = TINY.frames(16_000)
    mask = span_mask(4, frames, 0.065, 3, torch.Generator().manual_seed(4))
    plain, lengths = objective.encoder.front_end(batch.waveforms, [16_000] * 4)
    assert masked.lengths == lengths == [frames] * 4
    assert masked.counts == mask.sum(1).tolist()
    assert torch.equal(masked.rows(masked.frames_btd), masked.frames_btd[mask])
    torch.testing.assert_close(masked.frames_btd[~mask], plain[~mask])
    embedding = objective.contrast.mask_embedding
    assert torch.equal(masked.frames_btd[mask], embedding.expand(int(mask.sum()), -1))
    torch.testing.assert_close(objective.encoder.projection(masked.z_btc), plain)


def test_penalty_is_on_the_convolutions_before_the_norm(batch):
    objective = build(Wav2Vec2)
    x_btc, length = batch.waveforms.unsqueeze(2), 16_000
    for layer, kernel, stride in zip(
        objective.encoder.convolutions, TINY.conv_kernels, TINY.conv_strides, strict=True
    ):
        length = (length - kernel) // stride + 1
        x_btc = layer(x_btc, [length] * 4)
    torch.testing.assert_close(front(objective, batch).penalty, x_btc.square().mean())
    assert not objective.encoder.convolutions[-1]._forward_hooks


def test_gradient_of_the_convolutions_alone_is_scaled(batch):
    grads = []
    for factor in (1.0, 0.1):
        objective = build(Wav2Vec2, feature_grad_mult=factor)
        objective(batch, moment()).value.backward()
        encoder = objective.encoder
        grads.append(
            (encoder.convolutions[2].convolution.weight.grad, encoder.projection.weight.grad)
        )
    (convolution, projection), (small_convolution, small_projection) = grads
    torch.testing.assert_close(small_convolution, 0.1 * convolution, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(small_projection, projection)


# --------------------------------------------------------------------------------------------
# Objectives
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_same_seed_same_loss_and_no_global_randomness(kind, batch, rng_untouched):
    first, again = (build(kind)(batch, moment()).value for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, build(kind, seed=2)(batch, moment()).value)
    assert not torch.equal(first, build(kind)(batch, moment(seed=1)).value)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_parameter_learns(kind, pre_norm, batch):
    objective = build(kind, replace(TINY, pre_norm=pre_norm))
    loss = objective(batch, moment())
    assert all(part.dim() == 0 and not part.requires_grad for part in loss.parts.values())
    loss.value.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_states_matter_at_masked_frames_only(kind, batch, monkeypatch):
    objective = build(kind, mask_share=0.065)
    states = []

    def watched(frames_btd, lengths):
        for state in type(objective.encoder).states(objective.encoder, frames_btd, lengths):
            state.retain_grad()
            states.append(state)
            yield state

    monkeypatch.setattr(objective.encoder, "states", watched)
    objective(batch, moment(seed=7)).value.backward()
    # The mask is the first thing drawn.
    generator = torch.Generator().manual_seed(7)
    mask = span_mask(4, TINY.frames(16_000), 0.065, 3, generator)
    last = states[-1].grad
    assert not last[~mask].any()
    assert last[mask].any(dim=1).all()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_targets_are_the_latents_behind_the_mask(kind, batch):
    objective = build(kind).eval()
    seen = []
    objective.contrast.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs))
    objective(batch, moment())
    _, quantized, masked, _ = seen[0]
    z_nc = masked.rows(masked.z_btc)
    expected = objective.contrast.quantize(z_nc, moment())
    assert torch.equal(quantized.chosen_ng, expected.chosen_ng)
    assert torch.equal(quantized.values_nd, expected.values_nd)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_autocast_agrees_loosely(kind, batch):
    objective = build(kind).eval()  # no noise: rounding could turn a sampled code
    exact = objective(batch, moment())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective(batch, moment())
    assert rounded.value.dtype == torch.float32
    assert rounded.value.item() == pytest.approx(exact.value.item(), rel=0.1)
    rounded.value.backward()
    assert all(
        parameter.grad is None or parameter.grad.isfinite().all()
        for parameter in objective.parameters()
    )


FALLING = {
    Wav2Vec2: ["contrastive"],
    Wav2VecC: ["contrastive", "consistency"],
    W2VBERT: ["contrastive", "prediction"],
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_overfits_one_mask_and_uses_its_codes(kind, batch):
    objective = build(kind)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    history = []
    for step in range(120):
        loss = objective(batch, moment(progress=step / 119))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        history.append({name: part.item() for name, part in loss.parts.items()})
    first, last = history[0], history[-1]
    assert (first["temperature"], last["temperature"]) == (2.0, 0.5)
    mean = {name: sum(parts[name] for parts in history[-10:]) / 10 for name in first}
    assert mean["contrastive_accuracy"] > 0.9
    assert mean["code_perplexity"] > 8 / 3
    for name in FALLING[kind]:
        assert mean[name] < (0.95 if name == "consistency" else 0.5) * first[name], name


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_can_be_saved_and_loaded(kind, batch):
    one, other = build(kind), build(kind, seed=2)
    other.load_state_dict(one.state_dict(), strict=True)
    assert torch.equal(one(batch, moment()).value, other(batch, moment()).value)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_declares_what_the_trainer_asks_for(kind):
    assert (kind.sizes["mini"], kind.sizes["base"]) == (MINI, HUBERT_BASE)
    objective = build(kind)
    assert objective.architecture is objective.encoder.config is TINY
    assert objective.prepare([torch.zeros(16_000)], moment()) == {}


def test_crops_shorter_than_a_mask_are_refused(batch):
    short = Batch(batch.waveforms[:, :1000], batch.speakers)
    with pytest.raises(SuperbError, match="longer audio"):
        build(Wav2Vec2)(short, moment())


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (Wav2Vec2Settings, "mask_share", 0),
        (Wav2Vec2Settings, "mask_share", 1.5),
        (Wav2Vec2Settings, "mask_span", 0),
        (Wav2Vec2Settings, "groups", 0),
        (Wav2Vec2Settings, "codes", 1),
        (Wav2Vec2Settings, "final_dim", 127),
        (Wav2Vec2Settings, "final_dim", 0),
        (Wav2Vec2Settings, "distractors", 0),
        (Wav2Vec2Settings, "similarity_temperature", 0.0),
        (Wav2Vec2Settings, "first_temperature", -1.0),
        (Wav2Vec2Settings, "last_temperature", math.nan),
        (Wav2Vec2Settings, "diversity_weight", -0.1),
        (Wav2Vec2Settings, "penalty_weight", math.inf),
        (Wav2Vec2Settings, "feature_grad_mult", 0.0),
        (Wav2VecCSettings, "consistency_weight", -1.0),
        (Wav2VecCSettings, "consistency_layers", 0),
        (Wav2VecCSettings, "consistency_dim", 0),
        (Wav2VecCSettings, "codes", 0),
        (W2VBERTSettings, "lower_share", 1.0),
        (W2VBERTSettings, "contrastive_weight", -1.0),
        (W2VBERTSettings, "prediction_weight", math.nan),
        (W2VBERTSettings, "groups", -1),
    ],
)
def test_nonsense_is_refused_by_name_and_value(settings, name, value):
    with pytest.raises(SuperbError, match=f"{name} must be .*; got {value}"):
        settings(**{name: value})


# --------------------------------------------------------------------------------------------
# The spectrum of wav2vec-C
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [16_000, 16_079, 16_080, 16_240, 16_400])
def test_spectra_stand_over_the_encoders_frames(samples, noise):
    wave = noise(samples)
    found = spectra(wave.unsqueeze(0), 2)[0]
    frames = TINY.frames(samples)
    assert found.shape[1] == 160
    assert frames - 1 <= len(found) <= frames
    mel = kaldi_mel(wave)
    torch.testing.assert_close(found[:, :80], mel[0::2][: len(found)])
    torch.testing.assert_close(found[:, 80:], mel[1::2])


def test_a_click_is_heard_in_the_frames_that_see_it():
    """Frame t of the encoder sees samples 320 t to 320 t + 400; its spectrum, 160 more."""
    wave = 1e-3 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    wave[8000 + 200] = 1.0
    loud = (spectra(wave.unsqueeze(0), 2)[0].mean(1) > 1).nonzero().flatten().tolist()
    assert 25 in loud
    assert set(loud) <= {24, 25}


def test_unmasked_frames_are_reconstructed_too(batch):
    objective = build(Wav2VecC)
    codes = torch.ones(4, TINY.frames(16_000), 16).requires_grad_()
    spectra_btm = spectra(batch.waveforms, 2)
    objective.reconstruction_loss(codes, spectra_btm).backward()
    assert codes.grad[:, : spectra_btm.shape[1]].any(dim=2).all()


def test_spectra_can_begin_in_the_middle_of_what_a_frame_sees():
    waveforms = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    plain, later = spectra(waveforms, 2), spectra(waveforms, 2, 2)
    assert torch.equal(later, plain[:, 1 : 1 + later.shape[1]])
    # In the middle of 1040 samples, two hops after the first of the five windows in them.
    assert build(Wav2VecC, MINI).first == 2
    assert build(Wav2VecC).first == 0
