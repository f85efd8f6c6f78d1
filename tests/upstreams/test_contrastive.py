"""CPC and its descendants: frames, states, who sees what, weights from files."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmark.errors import AudioError, UpstreamError
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.convert import convert
from upstreams.loading.load import load_upstream
from upstreams.models import cpc

ROWS = [
    name
    for name, entry in UPSTREAMS.items()
    if entry.architecture.startswith(("upstreams.models.cpc:", "upstreams.models.wav2vec:"))
]


@pytest.mark.parametrize("name", ROWS)
def test_frames_and_the_shortest(name, small):
    upstream = small(name)
    shortest = upstream.card.min_samples
    with pytest.raises(AudioError, match=f"at least {shortest}"):
        upstream([torch.zeros(shortest - 1)])
    padded = name in ("modified-cpc", "cpc-2019")
    # Every remainder of the hop for one of each kind of padding.
    every = name in ("modified-cpc", "wav2vec-large")
    lengths = [shortest, *(range(800, 960) if every else (800, 959)), 960, 961, 1200]
    found = upstream([torch.zeros(samples) for samples in lengths]).lengths.tolist()
    for samples, frames in zip(lengths, found, strict=True):
        assert frames == ((samples + 1) // 160 if padded else 1 + (samples - 465) // 160)


# Who sees what.


def changed_after(upstream, noise, frames=20):
    """States of a clip, and of one that differs past the last sample of half of the frames."""
    kept = frames // 2
    last = upstream.encoder.config.convolutions.last_sample(kept - 1)
    clip = noise(frames * 160 + 800)
    other = clip.clone()
    other[last + 1 :] += noise(clip.numel() - last - 1, 1)
    return kept, upstream([clip]).values[:, 0], upstream([other]).values[:, 0]


@pytest.mark.parametrize("name", ["cpc-2019", "modified-cpc"])
def test_context_is_causal(name, small, noise):
    kept, before, after = changed_after(small(name), noise)
    assert torch.allclose(before[:, :kept], after[:, :kept], atol=1e-6)
    assert not torch.allclose(before[:, kept], after[:, kept], atol=1e-6)


@pytest.mark.parametrize("name", ["wav2vec-large", "vq-wav2vec-gumbel"])
def test_convolutions_are_causal_and_norms_are_not(name, small, noise):
    upstream = small(name)
    kept, before, after = changed_after(upstream, noise)
    assert not torch.allclose(before[:, :kept], after[:, :kept], atol=1e-4)
    encoder = upstream.encoder
    for norms in (encoder.convolutions.norms, encoder.context_norms):
        for index in range(len(norms)):
            norms[index] = nn.Identity()
    kept, before, after = changed_after(upstream, noise)
    assert torch.allclose(before[:, :kept], after[:, :kept], atol=1e-5)
    assert not torch.allclose(before[0, kept:], after[0, kept:], atol=1e-4)


def test_bidirectional_halves_look_opposite_ways(small, noise):
    name = "bidirectional-cpc"
    upstream = small(name)
    kept, before, after = changed_after(upstream, noise)
    past, future = (slice(None), slice(kept), slice(8)), (slice(1, None), slice(kept), slice(8, 16))
    assert torch.allclose(before[past], after[past], atol=1e-6)
    # Layer 1 has a kernel of one frame: it sees z alone, the next ones more of the future.
    assert torch.allclose(before[1][:kept], after[1][:kept], atol=1e-6)
    assert not torch.allclose(before[future], after[future], atol=1e-4)
    # The other way round: a change at the start reaches the past half only.
    clip = noise(4000)
    other = clip.clone()
    other[:160] *= -1
    one, two = (upstream([wave]).values[1:, 0] for wave in (clip, other))
    assert torch.allclose(one[:, 5:, 8:], two[:, 5:, 8:], atol=1e-6)
    assert not torch.allclose(one[:, 5:, :8], two[:, 5:, :8], atol=1e-4)


# Batches, as training has them.


@pytest.mark.parametrize("name", ["cpc-2019", "modified-cpc", "bidirectional-cpc"])
def test_a_batch_is_its_utterances(name, small, noise):
    encoder = small(name).encoder
    waveforms_bs = torch.stack([noise(3000, seed) for seed in (0, 1)])
    z_btd = encoder.latents(waveforms_bs)
    contexts = encoder.contexts(z_btd)
    layers = (
        [torch.cat(pair, dim=2) for pair in zip(*contexts, strict=True)]
        if name == "bidirectional-cpc"
        else [contexts]
    )
    states = [z_btd, *layers][-encoder.config.states :]
    for index, waveform in enumerate(waveforms_bs):
        alone = encoder(waveform)
        for state, expected in zip(states, alone, strict=True):
            assert torch.allclose(state[index], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["cpc-2019", "modified-cpc", "bidirectional-cpc"])
def test_gradients_reach_every_weight(name, small, noise):
    encoder = small(name).encoder.requires_grad_(True)
    contexts = encoder.contexts(encoder.latents(torch.stack([noise(3000), noise(3000, 1)])))
    outputs = [contexts] if isinstance(contexts, torch.Tensor) else [c[-1] for c in contexts]
    sum(output.square().sum() for output in outputs).backward()
    for key, weight in encoder.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.isfinite().all(), key


# Closed forms.


def test_modified_cpc_states_are_latents_and_their_lstm(small, noise):
    upstream = small("modified-cpc")
    z, c = upstream([noise(3000)]).values[:, 0]
    expected, _ = upstream.encoder.context(z.clone().unsqueeze(0))
    assert torch.allclose(c, expected[0], atol=1e-6)
    assert z.min() >= 0
    assert c.abs().max() <= 1


def test_channel_norm_is_a_layer_norm_with_unbiased_variance():
    norm = cpc.ChannelNorm(6)
    x = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    out = norm(x)
    assert torch.allclose(out.mean(2), torch.zeros(1, 4), atol=1e-6)
    assert torch.allclose(out.var(2), torch.ones(1, 4), atol=1e-4)


def test_wav2vec_layers_add_to_their_input(small, noise):
    upstream = small("wav2vec-large")
    values = upstream([noise(3000)]).values[:, 0]
    encoder = upstream.encoder
    assert values[0].min() >= 0  # log(1 + ReLU)
    for index, kernel in enumerate(range(2, 14)):
        x = values[index].T.clone()
        padded = torch.cat([x[:, :1].expand(-1, kernel - 1), x], dim=1).unsqueeze(0)
        change = encoder.context_norms[index](encoder.context[index](padded)).relu()[0]
        expected = ((x + change) * 0.5**0.5).T
        assert torch.allclose(values[index + 1], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["vq-wav2vec-gumbel", "vq-wav2vec-kmeans"])
def test_quantised_latents_are_codes(name, small, noise):
    upstream = small(name)
    encoder = upstream.encoder
    with torch.inference_mode():
        z = encoder.convolutions(noise(4000).unsqueeze(0)).transpose(1, 2)
        quantised, chosen = encoder.quantizer(z)[0].T, encoder.quantizer.indices(z)
    assert chosen.shape == (z.shape[2], 2)
    book = encoder.quantizer.codebook
    for frame in range(len(chosen)):
        for group, code in enumerate(chosen[frame].tolist()):
            entry = book[group * 5 + code] if "gumbel" in name else book[code, group]
            assert torch.equal(quantised[frame, 6 * group : 6 * group + 6], entry)


def test_kmeans_takes_the_nearest_code(small, noise):
    quantizer = small("vq-wav2vec-kmeans").encoder.quantizer
    with torch.inference_mode():
        z = noise(12 * 7).view(1, 12, 7)
        projected = quantizer.norm(quantizer.projection(z))[0].T
        chosen = quantizer.indices(z)
    for frame in range(7):
        for group in range(2):
            part = projected[frame, 6 * group : 6 * group + 6]
            distances = (quantizer.codebook[:, group] - part).norm(dim=1)
            assert int(distances.argmin()) == int(chosen[frame, group])


def test_kmeans_tells_near_codes_apart(small):
    """Far from the origin, where distances through a matrix product are rounding."""
    quantizer = small("vq-wav2vec-kmeans").encoder.quantizer
    with torch.inference_mode():
        z = torch.randn(1, 12, 40, generator=torch.Generator().manual_seed(0))
        projected_gtd = quantizer.norm(quantizer.projection(z))[0].view(2, 6, 40).transpose(1, 2)
        quantizer.norm.bias.add_(1000)
        steps_c = torch.arange(5) - 2
        target_gd = projected_gtd[:, 7] + 1000
        quantizer.codebook.copy_(target_gd + 0.01 * steps_c[:, None, None])
        assert quantizer.indices(z)[7].tolist() == [2, 2]


def test_prediction_is_a_linear_map_per_step(small):
    encoder = small("wav2vec-large").encoder
    c = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(0))
    ahead = encoder.predict(c)
    assert ahead.shape == (1, 5, 12, 12)
    weight, bias = encoder.prediction.weight, encoder.prediction.bias
    assert torch.allclose(ahead[0, :, :, 3], c[0] @ weight[:, :, 0, 3] + bias, atol=1e-5)


def test_widths_that_do_not_fit():
    config = replace(cpc.BIDIRECTIONAL_CPC, direction_dim=100)
    with pytest.raises(UpstreamError, match="must be equal"):
        config.build()


# Weights from files.


def test_wav2vec_c_can_be_built(noise):
    twin = load_upstream("untrained:wav2vec-c")
    assert (twin.card.layers, twin.card.dim, twin.card.hop_samples) == (13, 768, 320)
    assert twin([noise(1000)]).values.isfinite().all()


def random_like(shapes):
    generator = torch.Generator().manual_seed(3)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def cpc_audio():
    """Weights in the layout of facebookresearch/CPC_audio."""
    shapes = {}
    for index, (kernel, source) in enumerate(zip((10, 8, 4, 4, 4), (1, *[12] * 4), strict=True)):
        shapes[f"gEncoder.conv{index}.weight"] = (12, source, kernel)
        shapes[f"gEncoder.conv{index}.bias"] = (12,)
        for part in ("weight", "bias"):
            shapes[f"gEncoder.batchNorm{index}.{part}"] = (1, 12, 1)
    for part in ("ih", "hh"):
        shapes[f"gAR.baseNet.weight_{part}_l0"] = (48, 12)
        shapes[f"gAR.baseNet.bias_{part}_l0"] = (48,)
    return random_like(shapes)


def fairseq(kind):
    """Weights in fairseq's layout."""
    kernels = (10, 8, 4, 4, 4, 1, 1) if kind == "none" else (10, 8, 4, 4, 4, 1, 1, 1)
    shapes = {}
    for index, kernel in enumerate(kernels):
        where = f"feature_extractor.conv_layers.{index}"
        shapes[f"{where}.0.weight"] = (12, 12 if index else 1, kernel)
        shapes[f"{where}.2.weight"] = shapes[f"{where}.2.bias"] = (12,)
    for index, kernel in enumerate(range(2, 14)):
        where = f"feature_aggregator.conv_layers.{index}"
        shapes[f"{where}.1.weight"] = (12, 12, kernel)
        for part in ("1.bias", "3.weight", "3.bias"):
            shapes[f"{where}.{part}"] = (12,)
    shapes["wav2vec_predictions.project_to_steps.weight"] = (12, 12, 1, 12)
    shapes["wav2vec_predictions.project_to_steps.bias"] = (12,)
    if kind == "gumbel":
        shapes["vector_quantizer.vars"] = (1, 10, 6)
        shapes["vector_quantizer.weight_proj.0.0.weight"] = (24, 12)
        shapes["vector_quantizer.weight_proj.0.0.bias"] = (24,)
        shapes["vector_quantizer.weight_proj.1.weight"] = (10, 24)
        shapes["vector_quantizer.weight_proj.1.bias"] = (10,)
    elif kind == "kmeans":
        shapes["vector_quantizer.embedding"] = (5, 2, 6)
        shapes["vector_quantizer.projection.0.weight"] = (12, 6, 1)
        shapes["vector_quantizer.projection.1.weight"] = (12,)
        shapes["vector_quantizer.projection.1.bias"] = (12,)
    return random_like(shapes)


def test_cpc_audio_layout(small_rows, cpc_audio, tmp_path, noise, rng_untouched):
    path = tmp_path / "60k.pt"
    torch.save({"config": {"hiddenEncoder": 12}, "weights": cpc_audio}, path)
    upstream = load_upstream(f"modified-cpc:{path}")
    card = upstream.card
    assert (card.name, card.family, card.source) == ("modified-cpc", "contrastive", str(path))
    assert card.trained_on is None
    waveform = noise(3000)
    z, c = upstream([waveform]).values[:, 0]
    # The same network written out.
    x = waveform.view(1, 1, -1)
    for index, (stride, padding) in enumerate(zip((5, 4, 2, 2, 2), (3, 2, 1, 1, 1), strict=True)):
        name = f"gEncoder.conv{index}"
        x = nn.functional.conv1d(
            x, cpc_audio[f"{name}.weight"], cpc_audio[f"{name}.bias"], stride, padding
        )
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()
        norm = f"gEncoder.batchNorm{index}"
        x = (x * cpc_audio[f"{norm}.weight"] + cpc_audio[f"{norm}.bias"]).relu()
    assert torch.allclose(z, x[0].T, atol=1e-5)
    with torch.random.fork_rng(devices=[]):
        lstm = nn.LSTM(12, 12, batch_first=True)
    lstm.load_state_dict(
        {n.removeprefix("gAR.baseNet."): w for n, w in cpc_audio.items() if n.startswith("gAR")}
    )
    assert torch.allclose(c, lstm(x.transpose(1, 2))[0][0], atol=1e-5)
    # Without the name, the file is known by its weights.
    assert torch.equal(load_upstream(str(path))([waveform]).values, upstream([waveform]).values)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("wav2vec-large", "none"), ("vq-wav2vec-gumbel", "gumbel"), ("vq-wav2vec-kmeans", "kmeans")],
)
def test_fairseq_layout(name, kind, small_rows, tmp_path, noise):
    weights = fairseq(kind)
    path = tmp_path / "model.pt"
    settings = {"activation": "gelu", "log_compression": True, "residual_scale": 0.5}
    torch.save({"task_cfg": {}, "model_cfg": settings, "model_weight": weights}, path)
    upstream = load_upstream(f"{name}:{path}")
    assert upstream.encoder.config.convolutions.activation == "gelu"
    assert upstream.encoder.config.convolutions.log_compression
    values = upstream([noise(3000)]).values
    assert values.shape[0] == 13
    assert values.isfinite().all()
    encoder = upstream.encoder
    assert torch.equal(
        encoder.context[4].weight, weights["feature_aggregator.conv_layers.4.1.weight"]
    )
    if kind == "gumbel":
        assert torch.equal(encoder.quantizer.codebook, weights["vector_quantizer.vars"][0])
    # fairseq's own file says all of that itself, in a namespace.
    count = 7 if kind == "none" else 8
    rows = list(zip((10, 8, 4, 4, 4, 1, 1, 1), (5, 4, 2, 2, 2, 1, 1, 1), strict=True))[:count]
    said = argparse.Namespace(
        arch="wav2vec",
        conv_feature_layers=str([(12, kernel, stride) for kernel, stride in rows]),
        conv_aggregator_layers=str([(12, kernel, 1) for kernel in range(2, 14)]),
        prediction_steps=12,
        aggregator="cnn",
        skip_connections_feat=False,
        skip_connections_agg=True,
        vq_type=kind,
        vq_vars=5,
        vq_depth=2,
        **settings,
    )
    theirs = tmp_path / "theirs.pt"
    torch.save({"args": said, "model": weights}, theirs)
    own = load_upstream(str(theirs))
    assert torch.equal(own([noise(3000)]).values, values)
    assert own.card.family == "contrastive"
    convert(own, tmp_path / "theirs", "superb")
    assert torch.equal(load_upstream(str(tmp_path / "theirs"))([noise(3000)]).values, values)
    with pytest.raises(UpstreamError, match="of an architecture that transformers has not"):
        convert(own, tmp_path / "other", "transformers")
    said.aggregator = "gru"
    torch.save({"args": said, "model": weights}, theirs)
    with pytest.raises(UpstreamError, match=r"aggregator='gru' is not read here; it must be cnn"):
        load_upstream(str(theirs))
    said.aggregator = "cnn"
    # The oldest files come from code that had no other activation.
    del said.activation
    torch.save({"args": said, "model": weights}, theirs)
    assert load_upstream(str(theirs)).encoder.config.convolutions.activation == "relu"
    said.vq_depth = 1
    torch.save({"args": said, "model": weights}, theirs)
    if kind == "gumbel":
        with pytest.raises(UpstreamError, match=r"vq_depth=1 is not implemented"):
            load_upstream(str(theirs))
    else:
        load_upstream(str(theirs))
    if kind == "none":
        return
    # One codebook that all groups share, as the authors' command asks for.
    book = "vector_quantizer." + ("vars" if kind == "gumbel" else "embedding")
    shared = weights[book][:, : 5 if kind == "gumbel" else 1]
    both = weights | {book: shared.repeat(1, 2, 1)}
    said.vq_depth = 2
    torch.save({"args": said, "model": both}, theirs)
    wanted = load_upstream(str(theirs))([noise(3000)]).values
    said.combine_groups = True
    torch.save({"args": said, "model": both | {book: shared}}, theirs)
    assert torch.equal(load_upstream(str(theirs))([noise(3000)]).values, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda w: w.pop("gEncoder.conv0.bias"), r"missing: gEncoder\.conv0\.bias"),
        (
            lambda w: w.update({"gEncoder.conv0.bias": torch.zeros(3)}),
            r"wrong shape: gEncoder\.conv0\.bias \(3,\) instead of \(12,\)",
        ),
    ],
)
def test_strict(change, message, small_rows, cpc_audio, tmp_path):
    change(cpc_audio)
    path = tmp_path / "model.pt"
    torch.save({"config": {}, "weights": cpc_audio}, path)
    with pytest.raises(UpstreamError, match=message):
        load_upstream(f"modified-cpc:{path}")


def test_files_that_are_refused(small_rows, tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"model_weight": fairseq("none")}, path)
    with pytest.raises(UpstreamError, match="'model_cfg'"):
        load_upstream(f"wav2vec-large:{path}")
    torch.save({"model_cfg": {"combine_groups": True}, "model_weight": fairseq("none")}, path)
    with pytest.raises(UpstreamError, match="combine_groups=True instead of False"):
        load_upstream(f"wav2vec-large:{path}")
    torch.save({"model_cfg": {"activation": "tanh"}, "model_weight": fairseq("none")}, path)
    with pytest.raises(UpstreamError, match="relu or gelu"):
        load_upstream(f"wav2vec-large:{path}")
    torch.save({"weights": [1, 2]}, path)
    with pytest.raises(UpstreamError, match="under 'weights', must hold named tensors"):
        load_upstream(f"modified-cpc:{path}")
    torch.save([1, 2], path)
    with pytest.raises(UpstreamError, match="holds list, not the named weights"):
        load_upstream(f"modified-cpc:{path}")
    with pytest.raises(UpstreamError, match=r"nothing\.pt"):
        load_upstream(f"modified-cpc:{tmp_path}/nothing.pt")
