"""Every family our encoder stands for, against transformers' own model of it."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from benchmark.core import UpstreamCard
from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.checkpoint import encoder_config, load_encoder
from upstreams.loading.load import load_upstream
from upstreams.models.architecture import parameter_count
from upstreams.models.transformer import EncoderConfig, RelativePositions, TransformerUpstream

FAMILIES = {
    "hubert": "Hubert",
    "wav2vec2": "Wav2Vec2",
    "unispeech": "UniSpeech",
    "unispeech-sat": "UniSpeechSat",
    "wavlm": "WavLM",
    "data2vec-audio": "Data2VecAudio",
}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embedding_groups": 4,
}
SHORT_STACK = {"conv_dim": [12] * 3, "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2]}
FULL_STACK = {"conv_dim": [12] * 7}
POSITION = {"num_conv_pos_embeddings": 8}
# Few buckets, so that a short utterance reaches the shared last one.
BUCKETS = {"num_buckets": 12, "max_bucket_distance": 20}


def build(family, head="Model", seed=0, **options):
    """A small model of transformers', all weights away from 0 and 1."""
    name = FAMILIES[family]
    options = {**({} if family == "data2vec-audio" else POSITION), **SMALL, **options}
    config = getattr(transformers, f"{name}Config")(**options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{name}{head}")(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
    return model


def variants():
    """Families × normalised convolutions × norm before or after × bias in the convolutions."""
    for family in FAMILIES:
        if family == "data2vec-audio":
            continue
        for norm, pre, bias in itertools.product(("group", "layer"), (False, True), (False, True)):
            options = {"feat_extract_norm": norm, "do_stable_layer_norm": pre, "conv_bias": bias}
            name = f"{family}-{norm}-{'pre' if pre else 'post'}-{'bias' if bias else 'nobias'}"
            yield pytest.param(family, options, id=name)
    yield pytest.param("wavlm", BUCKETS, id="wavlm-few-buckets")
    for bias, (layers, kernel) in itertools.product((False, True), ((5, 19), (2, 4))):
        options = {
            "conv_bias": bias,
            "num_conv_pos_embeddings": layers,
            "conv_pos_kernel_size": kernel,
        }
        name = f"data2vec-audio-{layers}x{kernel}-{'bias' if bias else 'nobias'}"
        yield pytest.param("data2vec-audio", options, id=name)
    yield pytest.param("hubert", {"layer_norm_eps": 1e-3}, id="hubert-epsilon")
    distilled = {"num_hidden_layers": 2, "feat_proj_layer_norm": False}
    yield pytest.param("hubert", distilled, id="distilhubert")


VARIANTS = list(variants())
# As published: group norm with post-norm, layer norm with pre-norm.
PUBLISHED = [
    variant for variant in VARIANTS if not any(x in variant.id for x in ("group-pre", "layer-post"))
]


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors are slower on several threads, above all when the processor is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ours(model):
    """The same weights in our encoder."""
    settings = json.loads(model.config.to_json_string(use_diff=False))
    return load_encoder(encoder_config(settings), model.state_dict(), "test")


def largest_error(model, encoder, waveform):
    """Largest relative error of a hidden state against transformers."""
    with torch.inference_mode():
        theirs = model(waveform[None], output_hidden_states=True)
        found = encoder(waveform[None], [waveform.numel()])
    # transformers 5 leaves the last norm of pre-norm models out of hidden_states.
    expected = [*theirs.hidden_states[:-1], theirs.last_hidden_state]
    assert found.layers == len(expected)
    assert int(found.lengths) == expected[0].shape[1]
    return max(
        float((a - b).abs().max() / b.abs().max())
        for a, b in zip(found.values, expected, strict=True)
    )


@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_every_length_matches_transformers(noise, family, options):
    model = build(family, **SHORT_STACK, **options)
    encoder = ours(model)
    shortest, hop = encoder.config.min_samples, encoder.config.hop_samples
    assert encoder.config.frames(shortest - 1) == 0
    for samples in [*range(shortest, shortest + hop + 1), 1000, 3001]:
        assert largest_error(model, encoder, noise(samples)) < 1e-4


@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_the_published_front_end_matches_transformers(noise, family, options):
    model = build(family, **FULL_STACK, **options)
    encoder = ours(model)
    for samples in (400, 401, 719, 720, 721, 1039, 5000):
        assert largest_error(model, encoder, noise(samples)) < 1e-4


@pytest.mark.parametrize(("family", "options"), PUBLISHED)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(samples=st.lists(st.integers(30, 3000), min_size=2, max_size=4))
def test_padding_changes_nothing(noise, change_in_company, family, options, samples):
    encoder = ours(build(family, **SHORT_STACK, **options))
    card = UpstreamCard("small", layers=1, dim=32, hop_samples=20, min_samples=30)
    upstream = TransformerUpstream(encoder, card, normalize=False)
    waveforms = [noise(count, seed) for seed, count in enumerate(samples)]
    assert change_in_company(upstream, waveforms) < 1e-5


@pytest.mark.parametrize(("buckets", "distance"), [(320, 800), (12, 20), (4, 2)])
def test_buckets_are_wavlms(buckets, distance):
    config = EncoderConfig((8,), (10,), (5,), relative_buckets=buckets, relative_distance=distance)
    attention = transformers.models.wavlm.modeling_wavlm.WavLMAttention(
        768, 12, num_buckets=buckets, max_distance=distance
    )
    offsets = torch.arange(-3000, 3001)
    expected = attention._relative_positions_bucket(offsets)
    assert torch.equal(RelativePositions(config).bucket(offsets), expected)


def folder_of(model, folder, normalize=False):
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_every_family(tmp_path, noise, family):
    model = build(family, **FULL_STACK)
    upstream = load_upstream(str(folder_of(model, tmp_path)))
    assert type(upstream) is TransformerUpstream
    contrastive = family in ("wav2vec2", "unispeech")
    assert upstream.card.family == ("contrastive" if contrastive else "predictive")
    assert "arXiv" in upstream.card.paper
    with torch.inference_mode():
        expected = model(noise(5000)[None]).last_hidden_state
    found = upstream([noise(5000)]).values[-1]
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("hubert", "ForCTC"),
        ("wav2vec2", "ForPreTraining"),
        ("wav2vec2", "ForXVector"),
        ("unispeech", "ForPreTraining"),
        ("unispeech-sat", "ForPreTraining"),
        ("unispeech-sat", "ForXVector"),
        ("wavlm", "ForCTC"),
        ("wavlm", "ForXVector"),
        ("wavlm", "ForSequenceClassification"),
        ("data2vec-audio", "ForCTC"),
        ("data2vec-audio", "ForAudioFrameClassification"),
    ],
)
def test_heads_are_left_out(tmp_path, noise, family, head):
    model = build(family, head, **FULL_STACK, vocab_size=5, use_weighted_layer_sum="For" in head)
    upstream = load_upstream(str(folder_of(model, tmp_path)))
    assert type(upstream) is TransformerUpstream
    with torch.inference_mode():
        expected = model.base_model(noise(4000)[None]).last_hidden_state
    found = upstream([noise(4000)]).values[-1]
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


GATE = "encoder.layers.1.attention.gru_rel_pos_linear.weight"
SCALE = "encoder.layers.2.attention.gru_rel_pos_const"
BUCKET = "encoder.layers.0.attention.rel_attn_embed.weight"
STACKED = "encoder.pos_conv_embed.layers.1.conv.weight"


@pytest.mark.parametrize(
    ("family", "edit", "says"),
    [
        ("wavlm", lambda w: w.pop(GATE), f"missing: {GATE}"),
        ("wavlm", lambda w: w.update({GATE: torch.zeros(2, 8)}), r"\(2, 8\) instead of \(8, 8\)"),
        ("wavlm", lambda w: w.update({SCALE: torch.zeros(4)}), r"\(4,\) instead of \(1, 4, 1, 1\)"),
        ("wavlm", lambda w: w.update({BUCKET: torch.zeros(9, 4)}), r"\(9, 4\) instead of"),
        (
            "wavlm",
            lambda w: w.update({BUCKET.replace("0", "1"): torch.zeros(9, 4)}),
            "unexpected: encoder.layers.1.attention.rel_attn_embed.weight",
        ),
        ("data2vec-audio", lambda w: w.pop(STACKED), f"missing: {STACKED}"),
        (
            "data2vec-audio",
            lambda w: w.update({STACKED.replace("1", "5"): torch.zeros(2)}),
            "unexpected: encoder.pos_conv_embed.layers.5.conv.weight",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, family, edit, says):
    folder = folder_of(build(family, **FULL_STACK), tmp_path)
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UpstreamError, match=says):
        load_upstream(str(folder))


def test_relative_positions_that_cannot_be():
    for buckets, distance in ((3, 800), (2, 800), (320, 80)):
        with pytest.raises(UpstreamError, match="relative_buckets must be"):
            EncoderConfig((8,) * 7, relative_buckets=buckets, relative_distance=distance)


# What a checkpoint holds besides the encoder. All: the embedding of masked frames, and a magnitude
# for each tap of the positional convolution. WavLM: six more rows for the gates of each layer.
# HuBERT: projection and embeddings of 504 clusters. wav2vec 2.0: codebook, its logits, projections
# of its entries and of the context.
@pytest.mark.parametrize(
    ("name", "besides", "published"),
    [
        ("hubert-base", 768 + 128 + (768 + 1) * 256 + 504 * 256, 94_697_600),
        ("hubert-large", 1024 + 128 + (1024 + 1) * 768 + 504 * 768, 316_609_408),
        ("wavlm-base", 768 + 128 + 12 * 6 * 65, 94_381_936),
        ("wavlm-large", 1024 + 128 + 24 * 6 * 65, 315_453_120),
        (
            "wav2vec2-base",
            768 + 128 + 640 * 128 + 513 * 640 + 257 * 256 + 769 * 256,
            95_044_608,
        ),
        (
            "wav2vec2-large",
            1024 + 128 + 640 * 384 + 513 * 640 + 769 * 768 + 1025 * 768,
            317_390_592,
        ),
    ],
)
def test_published_parameter_counts(name, besides, published):
    assert parameter_count(load_attribute(UPSTREAMS[name].architecture)) + besides == published


@pytest.mark.parametrize("name", ["wavlm-base", "data2vec-audio-base", "distilhubert"])
def test_untrained_needs_no_download(noise, name):
    upstream, entry = load_upstream(f"untrained:{name}"), UPSTREAMS[name]
    states = upstream([noise(1000)])
    assert tuple(states.values.shape) == (entry.layers, 1, 2, entry.dim)
    assert states.values.isfinite().all()
    assert states.values.std() > 0.1
    assert upstream.card.family == "untrained"
