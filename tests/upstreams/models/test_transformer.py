"""Our encoder against transformers', and an utterance alone against the same in a batch."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torchaudio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.core import UpstreamCard
from benchmark.encoding.fingerprint import fingerprint
from benchmark.encoding.forward import FrozenEncoder, forms_of
from benchmark.errors import AudioError, UpstreamError
from upstreams.models.architecture import untrained_encoder
from upstreams.models.transformer import (
    HUBERT_BASE,
    MINI,
    EncoderConfig,
    LogMel,
    TransformerUpstream,
    converted,
    normalised_product,
)

# Hears mel bands as they come.
PLAIN = replace(MINI, input_state=False)


def test_shortest_is_the_receptive_field():
    assert (HUBERT_BASE.min_samples, HUBERT_BASE.hop_samples) == (400, 320)
    assert [HUBERT_BASE.frames(samples) for samples in (399, 400, 719, 720)] == [0, 1, 1, 2]


def small_upstream(norm, pre):
    config = EncoderConfig(
        conv_dims=(16,) * 7,
        conv_norm=norm,
        pre_norm=pre,
        dim=32,
        layers=2,
        heads=4,
        feed_forward_dim=64,
        position_kernel=16,
        position_groups=4,
    )
    card = UpstreamCard("small", layers=3, dim=32, hop_samples=320, min_samples=400)
    return TransformerUpstream(untrained_encoder(config, 1), card, normalize=pre)


@pytest.mark.parametrize(("norm", "pre"), [("group", False), ("layer", True)])
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(samples=st.lists(st.integers(400, 9000), min_size=2, max_size=4))
def test_padding_changes_nothing(noise, change_in_company, norm, pre, samples):
    waveforms = [noise(count, seed) for seed, count in enumerate(samples)]
    assert change_in_company(small_upstream(norm, pre), waveforms) < 1e-5


@pytest.mark.parametrize("config", [MINI, PLAIN])
def test_padding_changes_nothing_in_the_bundled_size(noise, change_in_company, config):
    shortest = config.min_samples
    card = UpstreamCard("mini", config.states, dim=192, hop_samples=320, min_samples=shortest)
    upstream = TransformerUpstream(untrained_encoder(config, 0), card, normalize=False)
    assert change_in_company(upstream, [noise(shortest), noise(48_000), noise(20_011)]) < 1e-5


def test_a_pack_makes_the_device_wait_once(noise):
    """For the look whether all is finite: on a card, one synchronisation for all of them."""
    upstream = small_upstream("group", False)
    waveforms = [noise(4000 + 320 * place) for place in range(12)]
    names = [str(place) for place in range(12)]
    waits = []
    for packs in ([waveforms], [[waveform] for waveform in waveforms]):
        with torch.profiler.profile(acc_events=True) as profile:
            for pack in packs:
                states = FrozenEncoder(upstream).encode(pack, names[: len(pack)])
                forms_of(states, ["frames", "mean"], None)
        counts = {event.key: event.count for event in profile.key_averages()}
        waits.append(counts["aten::_local_scalar_dense"])
    assert waits == [1, 12]


def test_log_mel_is_torchaudio_s(noise):
    waveform = noise(16_000)
    # torchaudio puts the window into the middle of the zeros that fill it up, ours at their start.
    theirs = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=512, win_length=400, hop_length=160, n_mels=80, center=False
    )(torch.nn.functional.pad(waveform, (56, 56)))
    expected = (theirs.T.clamp(min=LogMel.FLOOR).log10() - LogMel.MEAN) / LogMel.DEVIATION
    given = LogMel(PLAIN)(waveform[None, :, None], [16_000])[0]
    assert given.shape == (98, 80)
    assert torch.allclose(given, expected[:98], atol=1e-4)


@torch.inference_mode()
def test_level_and_mean_spectrum_are_in_the_input_state_alone(noise):
    encoder, waveform = untrained_encoder(MINI, 0), noise(8000)[None]
    plain = untrained_encoder(PLAIN, 0)
    states, louder = (encoder(gain * waveform, [8000]).values[:, 0] for gain in (1, 10))
    assert states.shape == (8, 22, 192)
    # The frames of 10 ms in the middle of the five that a frame of 20 ms sees, and zeros.
    mel = encoder.convolutions[0].scaled(waveform[..., None])[0]
    assert torch.equal(states[0, :, :80], mel[2:46:2])
    assert torch.equal(states[0, :, 80:160], mel[3:47:2])
    assert not states[0, :, 160:].any()
    assert torch.allclose(louder[0, :, :160] - states[0, :, :160], torch.tensor(0.8), atol=1e-4)
    assert torch.allclose(states[1:], louder[1:], atol=1e-3)
    # The other states are those of the body without it, which hears normalised bands.
    deviation, mean = torch.std_mean(mel, dim=0, correction=0)
    plain.convolutions[0].register_forward_hook(
        lambda *_: ((mel - mean) / (deviation + LogMel.LEAST))[None]
    )
    assert torch.allclose(states[1:], plain(waveform, [8000]).values[:, 0], atol=1e-5)


@torch.inference_mode()
def test_states_are_of_equal_size_and_layers_hear_them_as_they_are(noise):
    encoder = untrained_encoder(MINI, 0)
    for layer in encoder.layers:  # as training makes them
        layer.contract.weight.mul_(20)
    raw = replace(MINI, state_norm=False).build()
    raw.load_state_dict(encoder.state_dict())
    waveform = noise(8000)[None]
    states, before = (each(waveform, [8000]).values[:, 0] for each in (encoder, raw))
    assert torch.equal(states[0], before[0])
    assert torch.allclose(states[1:], torch.nn.functional.layer_norm(before[1:], (192,)))
    sizes = states.norm(dim=2).mean(1)
    assert sizes.max() < 2 * sizes.min()
    assert before.norm(dim=2).mean(1)[6] > 3 * sizes[6]


def test_silence_and_a_single_frame_have_finite_states():
    encoder = untrained_encoder(MINI, 0)
    for samples in (MINI.min_samples, 4000):
        assert encoder(torch.zeros(1, samples), [samples]).values.isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [
        {"log_mel": False},
        {"dim": 128},
        {"conv_dims": (80, 192), "conv_kernels": (400, 1), "conv_strides": (160, 2)},
    ],
)
def test_an_input_state_that_cannot_be_is_refused(changes):
    with pytest.raises(UpstreamError, match="input_state takes log_mel, dim"):
        replace(MINI, **changes)


def test_log_mel_keeps_the_level(noise):
    mel = LogMel(PLAIN)
    waveform = noise(4000)[None, :, None]
    louder = mel(10 * waveform, [4000]) - mel(waveform, [4000])
    assert torch.allclose(louder, torch.tensor(2 / LogMel.DEVIATION), atol=1e-4)  # 20 dB


def test_log_mel_of_silence_is_the_floor():
    mel = LogMel(PLAIN)(torch.zeros(1, 800, 1), [800])
    assert mel.unique().tolist() == pytest.approx([(-8 - LogMel.MEAN) / LogMel.DEVIATION])


@pytest.mark.parametrize(
    "changes", [{"conv_dims": (300, 192, 192)}, {"conv_kernels": (10_000, 3, 3)}]
)
def test_log_mel_refuses_what_it_cannot_be(changes):
    with pytest.raises(UpstreamError, match="log_mel takes a window of at most 8192 samples"):
        replace(MINI, **changes)


def test_normalising_makes_gain_and_offset_vanish(noise):
    upstream = small_upstream("layer", True)
    waveform = noise(4000)
    plain, other = upstream([waveform]).values, upstream([3 * waveform + 0.2]).values
    assert torch.allclose(plain, other, atol=1e-4)


def test_no_gradients_and_no_training_mode(noise):
    upstream = small_upstream("group", False)
    states = upstream([noise(800)])
    assert not states.values.requires_grad
    assert not upstream.training
    assert not any(weight.requires_grad for weight in upstream.parameters())


def test_the_encoder_itself_can_be_trained(noise):
    encoder = untrained_encoder(small_upstream("group", False).encoder.config, 0)
    frames, lengths = encoder.front_end(torch.stack([noise(4000), noise(4000, 1)]), [4000, 2000])
    *_, last = encoder.states(frames, lengths)
    last.square().sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters())


def test_random_weights_leave_the_global_random_state(rng_untouched):
    one, two = untrained_encoder(MINI, 3), untrained_encoder(MINI, 3)
    other = untrained_encoder(MINI, 4)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name])
        assert weight.isfinite().all()
    assert not torch.equal(one.projection.weight, other.projection.weight)


def test_bfloat16_is_close(noise):
    upstream = small_upstream("group", False)
    exact = upstream([noise(8000)]).values
    rough = upstream.to(torch.bfloat16)([noise(8000)]).values
    assert rough.dtype == torch.bfloat16
    assert float((rough.float() - exact).norm() / exact.norm()) < 0.05


def test_autocast_converts_the_weights_once(noise):
    upstream = small_upstream("group", False)
    before, identity = upstream([noise(8000)]).values, fingerprint(upstream)
    with torch.autocast("cpu", torch.bfloat16):
        rough = upstream([noise(8000)]).values
        again = converted(upstream.encoder, torch.bfloat16)
        assert converted(upstream.encoder, torch.bfloat16) is again
    assert rough.dtype == torch.bfloat16
    expected = copy.deepcopy(upstream).to(torch.bfloat16)([noise(8000)]).values
    assert torch.equal(rough, expected)
    # Nothing of it shows: neither in the weights, nor in the features, nor in the identity.
    assert torch.equal(upstream([noise(8000)]).values, before)
    assert fingerprint(upstream) == identity
    assert {weight.dtype for weight in upstream.parameters()} == {torch.float32}
    upstream.to("cpu")
    assert converted(upstream.encoder, torch.bfloat16) is not again


def test_gradients_and_none_agree(noise):
    """What is done in place and by other kernels without gradients, against the plain way."""
    for norm, pre in (("group", False), ("layer", True)):
        encoder = small_upstream(norm, pre).encoder
        waveforms = torch.stack([noise(4000), noise(4000, 1)])
        with torch.enable_grad():
            plain = encoder(waveforms, [4000, 2500]).values
        with torch.inference_mode():
            fast = encoder(waveforms, [4000, 2500]).values
        assert float((plain - fast).abs().max() / plain.abs().max()) < 1e-5


def test_the_norm_of_the_first_convolution_is_exact(noise):
    """Statistics from the covariance of the patches, on a signal that is nearly one frequency."""
    time = torch.arange(16_000) / 16_000
    waveform = 0.5 + 0.4 * torch.sin(2 * torch.pi * 50 * time) + 1e-4 * noise(16_000)
    convolution = torch.nn.Conv1d(1, 64, 10, stride=5, bias=False)
    norm = torch.nn.GroupNorm(64, 64)
    with torch.no_grad():
        expected = norm.double()(convolution.double()(waveform.double()[None, None]))
        patches = waveform[None].unfold(1, 10, 5)
        weight = convolution.weight[:, 0].float()
        found = normalised_product(patches, [patches.shape[1]], weight, norm.float())
    assert float((found.transpose(1, 2) - expected).abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("waveforms", "says"),
    [
        ([], "no waveform"),
        ([torch.zeros(399)], "at least 400 samples"),
        ([torch.zeros(1, 800)], "1-D"),
        ([torch.zeros(800, dtype=torch.int16)], "float"),
    ],
)
def test_waveforms_it_cannot_take(waveforms, says):
    with pytest.raises(AudioError, match=says):
        small_upstream("group", False)(waveforms)


def test_sizes_that_do_not_fit():
    with pytest.raises(UpstreamError, match="multiple of heads"):
        EncoderConfig(conv_dims=(8,) * 7, dim=30, heads=4)
    with pytest.raises(UpstreamError, match="one value per convolution"):
        EncoderConfig(conv_dims=(8,) * 3)
