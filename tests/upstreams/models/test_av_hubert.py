"""AV-HuBERT's audio stream against the same written out in numpy, on weights under their names."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.core import UpstreamCard
from benchmark.encoding.macs import macs_per_second
from benchmark.errors import UpstreamError
from upstreams.loading.checkpoint import converted
from upstreams.loading.convert import convert
from upstreams.loading.layouts.read import read_training_file
from upstreams.loading.load import load_upstream
from upstreams.models.architecture import untrained_encoder
from upstreams.models.av_hubert import (
    AV_HUBERT_BASE,
    AV_HUBERT_LARGE,
    AVHubertConfig,
    log_filter_banks,
    names,
)
from upstreams.models.utterance import FrozenEncoder

SMALL = AVHubertConfig(
    dim=24, layers=2, heads=3, feed_forward_dim=40, position_kernel=6, position_groups=4
)
CONFIGS = {
    "pre-norm": SMALL,
    "post-norm": replace(SMALL, pre_norm=False),
    "odd kernel, five frames in one, as they are": replace(
        SMALL, layers=1, position_kernel=5, stack=5, normalize=False
    ),
}


def their_weights(config: AVHubertConfig) -> dict[str, np.ndarray]:
    """Random weights as a training file of the authors has them, without the video's."""
    random = np.random.default_rng(0)
    dim, wide = config.dim, config.feed_forward_dim
    layers = [f"encoder.layers.{index}" for index in range(config.layers)]
    linear = {
        "feature_extractor_audio.proj": (dim, 26 * config.stack),
        "post_extract_proj": (dim, 2 * dim),
    }
    norms = {"layer_norm": 2 * dim, "encoder.layer_norm": dim}
    for layer in layers:
        linear |= {f"{layer}.self_attn.{part}_proj": (dim, dim) for part in ("q", "k", "v", "out")}
        linear |= {f"{layer}.fc1": (wide, dim), f"{layer}.fc2": (dim, wide)}
        norms |= {f"{layer}.self_attn_layer_norm": dim, f"{layer}.final_layer_norm": dim}
    weights = {f"{name}.weight": 0.3 * random.standard_normal(linear[name]) for name in linear}
    weights |= {f"{name}.bias": random.standard_normal(shape[0]) for name, shape in linear.items()}
    for name, size in norms.items():
        weights[f"{name}.weight"] = 1 + 0.3 * random.standard_normal(size)
        weights[f"{name}.bias"] = 0.3 * random.standard_normal(size)
    position, kernel = "encoder.pos_conv.0", config.position_kernel
    weights[f"{position}.weight_g"] = random.uniform(1, 3, (1, 1, kernel))
    weights[f"{position}.weight_v"] = random.standard_normal(
        (dim, dim // config.position_groups, kernel)
    )
    weights[f"{position}.bias"] = random.standard_normal(dim)
    return weights


def ours(config: AVHubertConfig) -> FrozenEncoder:
    """The same weights in our encoder, by `names`."""
    encoder = config.build()
    weights = {
        name: torch.from_numpy(weight).float() for name, weight in their_weights(config).items()
    }
    table = names(config)
    assert sorted(part for parts in table.values() for part in parts) == sorted(weights)
    encoder.load_state_dict(
        {name: converted(name, [weights[part] for part in parts]) for name, parts in table.items()}
    )
    return frozen(encoder)


def frozen(encoder) -> FrozenEncoder:
    config = encoder.config
    card = UpstreamCard(
        "small",
        layers=config.states,
        dim=config.dim,
        hop_samples=config.hop_samples,
        min_samples=config.min_samples,
    )
    return FrozenEncoder(encoder, card)


# --------------------------------------------------------------------------------------------
# The model in numpy, one number after the other
# --------------------------------------------------------------------------------------------


def mel_energies(waveform: np.ndarray) -> np.ndarray:
    samples = np.round(waveform * 32768)
    flat = [samples[0]] + [samples[n] - 0.97 * samples[n - 1] for n in range(1, len(samples))]
    hertz = [700 * ((1 + 8000 / 700) ** (point / 27) - 1) for point in range(28)]
    corners = [math.floor(513 * frequency / 16000) for frequency in hertz]
    rows = []
    start = 0
    while True:
        window = np.zeros(512)
        part = flat[start : start + 400]
        window[: len(part)] = part
        power = np.abs(np.fft.rfft(window)) ** 2 / 512
        row = []
        for left, centre, right in zip(corners, corners[1:], corners[2:], strict=False):
            energy = 0.0
            for point in range(left, right):
                up = point < centre
                side = (
                    (point - left) / (centre - left) if up else (right - point) / (right - centre)
                )
                energy += side * power[point]
            row.append(math.log(energy or 2.0**-52))
        rows.append(row)
        if start + 400 >= len(flat):
            return np.array(rows)
        start += 160


def stacked(rows: np.ndarray, config: AVHubertConfig) -> np.ndarray:
    while len(rows) % config.stack:
        rows = np.vstack([rows, np.zeros(26)])
    frames = [
        np.concatenate(rows[first : first + config.stack])
        for first in range(0, len(rows), config.stack)
    ]
    if config.normalize:
        frames = [(frame - frame.mean()) / np.sqrt(frame.var() + 1e-5) for frame in frames]
    return np.array(frames)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * np.vectorize(lambda value: 0.5 * (1 + math.erf(value / math.sqrt(2))))(x)


def expected(waveform: torch.Tensor, config: AVHubertConfig) -> list[np.ndarray]:
    weights, dim = their_weights(config), config.dim

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(name, x):
        size = dim // config.heads
        heads = []
        for head in range(config.heads):
            mine = slice(head * size, (head + 1) * size)
            query, key, value = (linear(f"{name}.{p}_proj", x)[:, mine] for p in "qkv")
            scores = np.exp(query @ key.T / math.sqrt(size))
            heads.append(scores / scores.sum(1, keepdims=True) @ value)
        return linear(f"{name}.out_proj", np.hstack(heads))

    def position(x):
        magnitude, direction = (weights[f"encoder.pos_conv.0.weight_{p}"] for p in "gv")
        kernel, width = config.position_kernel, dim // config.position_groups
        out = np.tile(weights["encoder.pos_conv.0.bias"], (len(x), 1))
        for tap in range(kernel):
            filters = direction[:, :, tap]
            filters = filters * magnitude[0, 0, tap] / np.sqrt((filters**2).sum())
            for frame in range(len(x)):
                source = frame + tap - kernel // 2
                if 0 <= source < len(x):
                    for channel in range(dim):
                        group = channel // width * width
                        out[frame, channel] += filters[channel] @ x[source, group : group + width]
        return gelu(out)

    audio = linear("feature_extractor_audio.proj", stacked(mel_energies(waveform.numpy()), config))
    fused = norm("layer_norm", np.hstack([audio, np.zeros_like(audio)]))
    x = linear("post_extract_proj", fused)
    x = x + position(x)
    if not config.pre_norm:
        x = norm("encoder.layer_norm", x)
    states = [x]
    for index in range(config.layers):
        layer = f"encoder.layers.{index}"
        first, second = f"{layer}.self_attn_layer_norm", f"{layer}.final_layer_norm"

        def forward(x, layer=layer):
            return linear(f"{layer}.fc2", gelu(linear(f"{layer}.fc1", x)))

        if config.pre_norm:
            x = x + attention(f"{layer}.self_attn", norm(first, x))
            x = x + forward(norm(second, x))
        else:
            x = norm(first, x + attention(f"{layer}.self_attn", x))
            x = norm(second, x + forward(x))
        states.append(x)
    if config.pre_norm:
        states[-1] = norm("encoder.layer_norm", states[-1])
    return states


def speech_like(samples: int) -> torch.Tensor:
    """Noise, a silence, and a tone: 16-bit numbers."""
    generator = torch.Generator().manual_seed(samples)
    waveform = 0.1 * torch.randn(samples, generator=generator)
    waveform[samples // 3 : samples // 2] = 0
    waveform[samples // 2 :] = 0.5 * torch.sin(torch.arange(samples - samples // 2) / 7)
    return (waveform * 32768).round() / 32768


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_is_as_written_out(name):
    config = CONFIGS[name]
    upstream = ours(config)
    for samples in (1, 161, 400, 401, 7000):
        waveform = speech_like(samples)
        found = upstream([waveform]).values[:, 0].numpy()
        states = expected(waveform, config)
        assert found.shape == (len(states), *states[0].shape)
        for layer, state in zip(found, states, strict=True):
            assert np.abs(layer - state).max() / np.abs(state).max() < 1e-4


@pytest.mark.parametrize(
    "waveform", [torch.zeros(2000), torch.full((1000,), 1 / 32768), torch.full((1000,), -1.0)]
)
def test_filter_banks_of_silence_and_of_a_constant(waveform):
    found = log_filter_banks(waveform).numpy()
    np.testing.assert_allclose(found, mel_energies(waveform.numpy()), atol=1e-4)


@pytest.mark.parametrize("pre_norm", [True, False])
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(samples=st.lists(st.integers(1, 9000), min_size=2, max_size=4))
def test_company_changes_nothing(noise, change_in_company, pre_norm, samples):
    upstream = ours(replace(SMALL, pre_norm=pre_norm))
    waveforms = [noise(count, seed) for seed, count in enumerate(samples)]
    assert change_in_company(upstream, waveforms) < 1e-5


def test_frames(noise):
    upstream = ours(SMALL)
    lengths = [int(upstream([noise(count)]).lengths) for count in (1, 400, 880, 881, 1520, 1521)]
    assert lengths == [1, 1, 1, 2, 2, 3]
    assert int(upstream([noise(16_000)]).lengths) == 25


def test_level_goes_where_frames_are_normalised_but_not_from_the_last(noise):
    encoder = ours(SMALL).encoder
    waveform = noise(4000)  # 24 windows: six whole frames
    whole, louder = encoder.features(waveform), encoder.features(4 * waveform)
    assert torch.allclose(whole, louder, atol=1e-4)
    waveform = noise(4160)  # one more window
    whole, louder = encoder.features(waveform), encoder.features(4 * waveform)
    assert torch.allclose(whole[:-1], louder[:-1], atol=1e-4)
    assert not torch.allclose(whole[-1], louder[-1], atol=0.01)
    assert whole[-1, 26:].unique().numel() == 1


def test_sizes_are_those_of_the_paper():
    assert (AV_HUBERT_BASE.states, AV_HUBERT_BASE.dim) == (13, 768)
    assert (AV_HUBERT_LARGE.states, AV_HUBERT_LARGE.dim) == (25, 1024)
    assert {config.hop_samples for config in (AV_HUBERT_BASE, AV_HUBERT_LARGE)} == {640}
    assert AV_HUBERT_BASE.pre_norm
    assert AV_HUBERT_LARGE.pre_norm


def test_random_weights_are_no_worse_than_others(noise, rng_untouched):
    upstream = frozen(untrained_encoder(replace(SMALL, position_kernel=128), 3))
    states = upstream([noise(16_000)]).values
    assert states.isfinite().all()
    assert states.std(dim=2).mean() > 0.01  # over time
    position = upstream.encoder.position.convolutions[0].weight
    assert float(position.std()) == pytest.approx(math.sqrt(4 / (128 * 24)), rel=0.1)


def test_arithmetic_can_be_counted():
    assert macs_per_second(ours(SMALL))


def test_autocast_leaves_the_filter_banks_exact(noise):
    upstream, waveform = ours(SMALL), noise(8000)
    exact, energies = upstream([waveform]).values, log_filter_banks(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_filter_banks(waveform), energies)
        rough = upstream([waveform]).values
    assert 0 < float((rough.float() - exact).norm() / exact.norm()) < 0.05


# --------------------------------------------------------------------------------------------
# Settings of the authors' files
# --------------------------------------------------------------------------------------------

SETTINGS = {
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 40,
    "encoder_attention_heads": 3,
    "layer_norm_first": True,
    "conv_pos": 6,
    "conv_pos_groups": 4,
    "audio_feat_dim": 104,
    "modality_fuse": "concat",
    "sub_encoder_layers": 0,
    "activation_fn": "gelu",
    "resnet_relu_type": "prelu",
    "modality_dropout": 0.5,
    "stack_order_audio": 4,
    "normalize": True,
    "sample_rate": 25,
}


@pytest.fixture
def written(tmp_path):
    """``written(config, changes)``: a training file of the authors with these weights."""

    def write(config=SMALL, **changes):
        settings = {**SETTINGS, **changes}
        weights = {
            name: torch.from_numpy(weight).float() for name, weight in their_weights(config).items()
        }
        path = tmp_path / "file.pt"
        torch.save({"cfg": {"model": settings, "task": {}}, "model": weights}, path)
        return path

    return write


def test_settings_of_a_file(written, noise):
    other = replace(SMALL, stack=5, normalize=False, pre_norm=False)
    said = {"stack_order_audio": 5, "audio_feat_dim": 130}
    path = written(other, normalize=False, layer_norm_first=False, **said)
    upstream = load_upstream(str(path))
    assert upstream.encoder.config == other
    assert torch.allclose(upstream([noise(9000)]).values, ours(other)([noise(9000)]).values)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modality_fuse": "add"}, "modality_fuse='add' is not read here; it must be concat"),
        ({"sub_encoder_layers": 2}, "sub_encoder_layers=2 is not read here; it must be 0"),
        ({"activation_fn": "relu"}, "activation_fn='relu' is not read here; it must be gelu"),
        ({"wav_input": True}, "wav_input=True is not read here; it must be False"),
        ({"encoder_layers": None}, "does not say encoder_layers"),
        ({"encoder_layers": 10**9}, "encoder_layers=1000000000 is not read here"),
        ({"encoder_embed_dim": "24"}, "encoder_embed_dim='24' is not read here"),
        ({"encoder_attention_heads": 5}, "dim 24 must be a multiple of heads 5"),
        ({"conv_pos": True}, "conv_pos=True is not read here"),
        ({"layer_norm_first": 1}, "layer_norm_first=1 is not read here"),
        ({"normalize": None}, "does not say normalize"),
        ({"audio_feat_dim": 26}, "audio_feat_dim must be 26 times stack_order_audio = 104; got 26"),
    ],
)
def test_settings_of_another_model(changes, says, written):
    with pytest.raises(UpstreamError, match=rf"file\.pt.*{says}"):
        load_upstream(str(written(**changes)))


@pytest.mark.parametrize("tuned", [False, True])
def test_the_authors_training_file(tuned, tmp_path, noise):
    """Under ``model`` with the video's weights beside, and inside a model tuned for lip reading."""
    weights = {
        name: torch.from_numpy(weight).float() for name, weight in their_weights(SMALL).items()
    }
    weights |= {
        "feature_extractor_video.resnet.frontend3D.0.weight": torch.ones(3),
        "mask_emb": torch.ones(24),
        "label_embs_concat": torch.ones(4, 2),
    }
    cfg = {"model": {"_name": "av_hubert", **SETTINGS}, "task": {"data": "/x/lrs3/433h_data"}}
    if tuned:
        weights = {f"encoder.w2v_model.{name}": weight for name, weight in weights.items()}
        weights["decoder.embed_tokens.weight"] = torch.ones(5, 3)
        cfg = {
            "model": {"_name": "av_hubert_seq2seq", "w2v_args": cfg},
            "task": {"normalize": SETTINGS["normalize"]},
        }
    path = tmp_path / "base_vox_iter5.pt"
    torch.save({"args": None, "cfg": cfg, "model": weights}, path)
    found = read_training_file(path, {})
    expected = ours(SMALL)([noise(20_000)]).values
    assert torch.allclose(found.upstream([noise(20_000)]).values, expected, atol=1e-5)
    assert "zeros in the place of the video" in found.upstream.card.note
    assert ("decoder.embed_tokens" in found.left_out) == tuned
    assert "feature_extractor_video.resnet" in found.left_out
    with pytest.raises(UpstreamError, match=r"layers, dim and hop \(3, 24, 640\), and av-hubert-b"):
        load_upstream(f"av-hubert-base:{path}")
    if tuned:
        cfg["task"]["modalities"] = ["video"]
        torch.save({"cfg": cfg, "model": weights}, path)
        with pytest.raises(UpstreamError, match="its transformer has unlearned to hear"):
            load_upstream(str(path))
    convert(found.upstream, tmp_path / "folder", "superb")
    again = load_upstream(str(tmp_path / "folder"))
    assert torch.equal(again([noise(9000)]).values, found.upstream([noise(9000)]).values)
