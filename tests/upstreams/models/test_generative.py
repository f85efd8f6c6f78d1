"""APC, VQ-APC, NPC, Mockingjay and TERA: frames, states, who sees what, weights from files."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchaudio import functional

from benchmark.errors import UpstreamError
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.load import load_upstream
from upstreams.models import generative

ROWS = [
    name
    for name, entry in UPSTREAMS.items()
    if entry.architecture.startswith("upstreams.models.generative:")
]


@pytest.fixture
def mel():
    """Normalised frames of one utterance, ``[1, frame, 80]``."""
    return torch.randn(1, 40, 80, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ["apc-3x512", "tera-3x768"])
def test_every_remainder_of_the_hop(name, small, noise):
    upstream = small(name)
    lengths = range(800, 961)
    found = upstream([noise(samples) for samples in lengths]).lengths.tolist()
    for samples, frames in zip(lengths, found, strict=True):
        assert frames == (1 + samples // 160 if "tera" in name else 1 + (samples - 400) // 160)


# Input.


@pytest.mark.parametrize("samples", [400, 559, 560, 4001])
def test_kaldi_frames(samples, noise):
    frames = generative.kaldi_mel(noise(samples))
    assert frames.shape == (1 + (samples - 400) // 160, 80)
    if len(frames) > 1:
        assert frames.mean(0).abs().max() < 1e-4
        assert torch.allclose(frames.std(0), torch.ones(80), atol=1e-3)
    else:
        assert not frames.any()


@pytest.mark.parametrize("samples", [201, 319, 320, 4001])
def test_centred_frames(samples, noise):
    assert generative.centred_mel(noise(samples)).shape == (1 + samples // 160, 80)


def test_centred_mel_is_torchaudio_and_ignores_loudness(noise):
    waveform = noise(4000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the lowest bands hold no bin, as it says
        filters = functional.melscale_fbanks(201, 0.0, 8000.0, 80, 16_000)
    assert torch.allclose(generative.mel_filters(201, 80), filters, atol=1e-5)
    window = torch.hann_window(400)
    loudness = waveform.square().mean().sqrt()
    scaled = waveform / loudness * 10 ** (-25 / 20)
    power = functional.spectrogram(scaled, 0, window, 400, 160, 400, 2.0, False)
    log = torch.log(power.T @ filters + 1e-10)
    varies = log.std(0) > 1e-5
    expected = ((log - log.mean(0)) / log.std(0))[:, varies]
    found = generative.centred_mel(waveform)
    assert torch.allclose(found[:, varies], expected, atol=1e-3)
    assert not found[:, ~varies].any()
    assert torch.allclose(generative.centred_mel(0.01 * waveform), found, atol=1e-3)


def test_silence_is_zero():
    for make in (generative.kaldi_mel, generative.centred_mel):
        assert not make(torch.zeros(4000)).any()


# Batches, as training has them.


def heard(encoder, waveform):
    """What the states are computed of."""
    mel_tm = encoder.mel(waveform)
    return encoder.stacked(mel_tm) if hasattr(encoder, "stacked") else mel_tm


@pytest.mark.parametrize("name", ROWS)
def test_a_batch_is_its_utterances(name, small, noise):
    encoder = small(name).encoder
    waveforms = [noise(3000, seed) for seed in (0, 1)]
    states = encoder.states(torch.stack([heard(encoder, waveform) for waveform in waveforms]))
    for index, waveform in enumerate(waveforms):
        # Without the state that is the input itself.
        assert torch.allclose(states[:, index], encoder(waveform)[-len(states) :], atol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_gradients_reach_every_weight(name, small, noise):
    encoder = small(name).encoder.requires_grad_(True)
    x_btm = torch.stack([heard(encoder, noise(3000, seed)) for seed in (0, 1)])
    encoder.states(x_btm).square().sum().backward()
    without = {key for key, weight in encoder.named_parameters() if weight.grad is None}
    assert {key.split(".")[0] for key in without} <= {"prediction", "codes"}  # behind the states
    assert all(w.grad.isfinite().all() for w in encoder.parameters() if w.grad is not None)


# APC.


def test_apc_states_are_gru_inputs_and_the_output(small, mel):
    encoder = small("apc-3x512").encoder
    with torch.inference_mode():
        states = encoder.states(mel)
        first = encoder.layers[0](mel)[0]
        second = encoder.layers[1](first)[0] + first
        third = encoder.layers[2](second)[0] + second
    assert torch.allclose(states, torch.stack([first, second, third]), atol=1e-6)


def test_stacked_frames_lie_side_by_side_and_none_is_half_full(noise):
    encoder = replace(generative.RECURRENT_MINI, dim=16, input_state=False).build()
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    assert (encoder.config.hop_samples, encoder.config.min_samples) == (320, 560)
    mel_tm = encoder.mel(noise(4001))
    assert len(mel_tm) == 23
    paired_tm = torch.cat([mel_tm[0:22:2], mel_tm[1:22:2]], dim=1)
    assert torch.equal(encoder.stacked(mel_tm), paired_tm)
    with torch.inference_mode():
        states = encoder(noise(4001))
        assert torch.allclose(states[0], encoder.layers[0](paired_tm[None])[0][0], atol=1e-6)
        assert encoder.predict(states[-1][None]).shape == (1, 11, 160)
        assert [len(encoder(noise(samples))[0]) for samples in (560, 879, 880)] == [1, 1, 2]
    assert states.shape == (3, 11, 16)


@torch.inference_mode()
def test_level_and_mean_spectrum_are_in_the_input_state_alone(noise):
    encoder = replace(generative.RECURRENT_MINI, dim=176).build()
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    states, louder = (encoder(gain * noise(4001)) for gain in (1, 10))
    assert states.shape == (4, 11, 176)
    fbank = (generative.kaldi_fbank(noise(4001))[:22] - generative.FBANK_MEAN).reshape(11, 160)
    assert torch.allclose(states[0, :, :160], fbank / generative.FBANK_DEVIATION)
    assert not states[0, :, 160:].any()
    gained = (louder - states)[0, :, :160] * generative.FBANK_DEVIATION
    assert torch.allclose(gained, torch.tensor(100.0).log(), atol=1e-2)
    assert torch.allclose(states[1:], louder[1:], atol=1e-2)
    heard = encoder.states(encoder.stacked(encoder.mel(noise(4001)))[None])[:, 0]
    assert torch.allclose(states[1:], heard, atol=1e-6)
    with pytest.raises(UpstreamError, match="input_state takes dim 16 to be at least 2 frames"):
        replace(generative.RECURRENT_MINI, dim=16)


@pytest.mark.parametrize("name", ["apc-3x512", "vq-apc-3x512"])
def test_apc_is_causal_in_its_frames(name, small, mel):
    encoder = small(name).encoder
    other = mel.clone()
    other[:, 20:] += 1
    before, after = encoder.states(mel)[:, 0], encoder.states(other)[:, 0]
    assert torch.allclose(before[:, :20], after[:, :20], atol=1e-6)
    assert not torch.allclose(before[:, 20], after[:, 20], atol=1e-4)


def test_vq_apc_predicts_from_one_code(small, mel):
    encoder = small("vq-apc-3x512").encoder
    assert len(encoder.states(mel)) == 3
    state = encoder.states(mel)[2]
    predicted = encoder.predict(state)[0]
    assert predicted.shape == (40, 80)
    chosen = encoder.codes.logits[0](state[0]).argmax(1)
    expected = encoder.prediction(encoder.codes.codebooks[0].weight.T[chosen])
    assert torch.allclose(predicted, expected, atol=1e-6)
    assert small("apc-3x512").encoder.predict(state).shape == (1, 40, 80)


# NPC.


def test_npc_does_not_see_the_frames_it_predicts(small, mel):
    encoder = small("npc-4x512").encoder
    other = mel.clone()
    other[:, 18:23] += 1  # the five frames around 20
    before, after = encoder.states(mel)[:, 0], encoder.states(other)[:, 0]
    assert len(before) == 9
    assert torch.allclose(before[4:, 20], after[4:, 20], atol=1e-6)
    assert torch.allclose(encoder.predict(before[8:])[0, 20], encoder.predict(after[8:])[0, 20])
    for seen in (19, 21):
        assert not torch.allclose(before[8, seen], after[8, seen], atol=1e-4)
    assert not torch.allclose(before[0, 20], after[0, 20], atol=1e-4)


def test_npc_sees_a_fixed_neighbourhood(small, mel):
    """Receptive field: the kernel and one frame on each side per block, 15 + 2 × 4 = 23."""
    encoder = small("npc-4x512").encoder
    other = mel.clone()
    other[:, 20] += 5
    moved = (encoder.states(mel)[8, 0] - encoder.states(other)[8, 0]).abs().amax(1) > 1e-6
    away = [abs(frame - 20) for frame in range(40) if moved[frame]]
    assert (min(away), max(away)) == (3, 11)


def test_npc_sum(small, mel):
    states = small("npc-4x512").encoder.states(mel)
    assert torch.allclose(states[4:8].sum(0), states[8], atol=1e-6)
    assert states[4:8].abs().max() <= 1


def test_npc_hole_swallows_kernel():
    with pytest.raises(UpstreamError, match="kernel > mask"):
        replace(generative.NPC_4X512, kernel=13)


# Mockingjay and TERA.


def test_transformer_layer_written_out(small, mel):
    """Post-norm BERT: attention, add, norm, feed-forward, add, norm."""
    encoder = small("tera-3x768").encoder
    with torch.inference_mode():
        states = encoder.states(mel)[:, 0]
        x = encoder.projection(mel[0]) + generative.sinusoids(40, 16)
        x = nn.functional.layer_norm(x, (16,), eps=1e-12)
        assert torch.allclose(states[0], x, atol=1e-5)
        layer = encoder.layers[0]
        weights = layer.self_attn.in_proj_weight.chunk(3)
        query, key, value = (x @ weight.T for weight in weights)
        heads = []
        for head in (slice(0, 8), slice(8, 16)):
            scores = query[:, head] @ key[:, head].T / math.sqrt(8)
            heads.append(scores.softmax(1) @ value[:, head])
        x = x + layer.self_attn.out_proj(torch.cat(heads, 1))
        x = nn.functional.layer_norm(x, (16,), eps=1e-12)
        x = x + layer.linear2(nn.functional.gelu(layer.linear1(x)))
        x = nn.functional.layer_norm(x, (16,), eps=1e-12)
    assert torch.allclose(states[1], x, atol=1e-5)


def test_transformer_sees_both_sides(small, mel):
    encoder = small("mockingjay-12x768").encoder
    other = mel.clone()
    other[:, 30] += 5
    change = (encoder.states(mel)[1:, 0] - encoder.states(other)[1:, 0]).abs().amax(2)
    assert change[-1].min() > 1e-6


def test_sinusoids():
    table = generative.sinusoids(50, 6)
    assert table.shape == (50, 6)
    for position, feature in [(0, 0), (7, 2), (49, 5), (13, 1)]:
        angle = position / 10_000 ** (2 * (feature // 2) / 6)
        expected = math.cos(angle) if feature % 2 else math.sin(angle)
        assert math.isclose(float(table[position, feature]), expected, abs_tol=1e-6)


# Weights from files.


def random_like(shapes):
    generator = torch.Generator().manual_seed(3)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def code_shapes(groups, size, codes):
    shapes = {}
    for group in range(groups):
        shapes[f"vq_layers.{group}.vq_logits.weight"] = (codes, size)
        shapes[f"vq_layers.{group}.vq_logits.bias"] = (codes,)
        shapes[f"vq_layers.{group}.codebook_CxE.weight"] = (size, codes)
    return shapes


@pytest.mark.parametrize("name", ["apc-3x512", "vq-apc-3x512"])
def test_apc_layout(name, small_rows, tmp_path, noise, rng_untouched):
    shapes = {"postnet.weight": (80, 16), "postnet.bias": (80,)}
    for index in range(3):
        shapes[f"rnn_layers.{index}.weight_ih_l0"] = (48, 16 if index else 80)
        shapes[f"rnn_layers.{index}.weight_hh_l0"] = (48, 16)
        shapes[f"rnn_layers.{index}.bias_ih_l0"] = (48,)
        shapes[f"rnn_layers.{index}.bias_hh_l0"] = (48,)
    if name.startswith("vq"):
        shapes |= code_shapes(1, 16, 7)
    weights = random_like(shapes)
    path = tmp_path / "apc.ckpt"
    torch.save({"config": {"model": {}}, "model": weights}, path)
    upstream = load_upstream(f"{name}:{path}")
    assert upstream.card.trained_on is None
    values = upstream([noise(3000)]).values[:, 0]
    # Without the name, the file is known by its weights.
    assert torch.equal(load_upstream(str(path))([noise(3000)]).values[:, 0], values)
    # The same network written out, frame by frame.
    x = generative.kaldi_mel(noise(3000))
    for index in range(3):
        w = {k.removeprefix(f"rnn_layers.{index}."): v for k, v in weights.items()}
        hidden, outputs = torch.zeros(16), []
        for frame in x:
            from_x = (w["weight_ih_l0"] @ frame + w["bias_ih_l0"]).chunk(3)
            from_h = (w["weight_hh_l0"] @ hidden + w["bias_hh_l0"]).chunk(3)
            reset, update = ((a + b).sigmoid() for a, b in zip(from_x[:2], from_h[:2], strict=True))
            candidate = (from_x[2] + reset * from_h[2]).tanh()
            hidden = (1 - update) * candidate + update * hidden
            outputs.append(hidden)
        x = torch.stack(outputs) + (x if index else 0)
        assert torch.allclose(values[index], x, atol=1e-5)


def test_npc_layout(small_rows, tmp_path, noise):
    shapes = {"postnet.weight": (80, 16), "postnet.bias": (80,)} | code_shapes(4, 4, 5)
    for index in range(4):
        block = f"blocks.{index}"
        shapes[f"{block}.conv.weight"] = (16, 16 if index else 80, 3)
        shapes[f"{block}.linear.weight"] = (16, 16, 1)
        for part in ("conv.bias", "linear.bias", "bn1.weight", "bn1.bias", "bn2.weight"):
            shapes[f"{block}.{part}"] = (16,)
        for part in ("bn2.bias", "bn1.running_mean", "bn2.running_mean"):
            shapes[f"{block}.{part}"] = (16,)
        for part in ("bn1.running_var", "bn2.running_var"):
            shapes[f"{block}.{part}"] = (16,)
        for part in ("weight", "conv_mask"):
            where = "conv_mask" if part == "conv_mask" else "conv.weight"
            shapes[f"masked_convs.{index}.{where}"] = (16, 16, 15)
        shapes[f"masked_convs.{index}.conv.bias"] = (16,)
    weights = random_like(shapes)
    for name, tensor in weights.items():
        if name.endswith("running_var"):
            weights[name] = tensor.abs() + 1
    for index in range(4):
        for norm in ("bn1", "bn2"):
            weights[f"blocks.{index}.{norm}.num_batches_tracked"] = torch.tensor(9)
    path = tmp_path / "npc.ckpt"
    torch.save({"config": {}, "model": weights}, path)
    upstream = load_upstream(f"npc-4x512:{path}")
    assert upstream.encoder.blocks[0].mix_norm.num_batches_tracked == 9
    mel = generative.kaldi_mel(noise(3000))
    values = upstream([noise(3000)]).values[:, 0]
    assert torch.equal(load_upstream(str(path))([noise(3000)]).values[:, 0], values)
    # The first block and its masked convolution written out.
    w = {k.removeprefix("blocks.0."): v for k, v in weights.items()}

    def norm(x, name):
        x = (x - w[f"{name}.running_mean"][:, None]) / (w[f"{name}.running_var"] + 1e-5)[
            :, None
        ].sqrt()
        return x * w[f"{name}.weight"][:, None] + w[f"{name}.bias"][:, None]

    x = nn.functional.conv1d(mel.T[None], w["conv.weight"], w["conv.bias"], padding=1)
    x = nn.functional.conv1d(norm(x, "bn1").relu(), w["linear.weight"], w["linear.bias"])
    x = norm(x, "bn2").relu()
    assert torch.allclose(values[0], x[0].T, atol=1e-5)
    kernel = weights["masked_convs.0.conv.weight"].clone()
    kernel[:, :, 4:11] = 0  # 15 - 7 = 8 frames seen, 4 on each side
    seen = nn.functional.conv1d(x, kernel, weights["masked_convs.0.conv.bias"], padding=7).tanh()
    assert torch.allclose(values[4], seen[0].T, atol=1e-5)
