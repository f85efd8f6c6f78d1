"""Other people's models through transformers, Whisper above all."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from benchmark.errors import UpstreamError
from upstreams.loading.load import load_upstream

WHISPER = (
    Path(__file__).parents[3].joinpath("../shared/checkpoints/whisper-tiny.en-encoder").resolve()
)
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "conv_dim": [12] * 7,
}


def save(folder, model, extractor):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model()
    model.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model


@pytest.fixture
def conformer(tmp_path):
    config = transformers.Wav2Vec2ConformerConfig(
        **SMALL, feat_extract_norm="layer", architectures=None
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    return tmp_path, save(tmp_path, lambda: transformers.Wav2Vec2ConformerModel(config), extractor)


@pytest.fixture
def small_whisper(tmp_path):
    """Windows of 2 s: 200 mel frames, 100 positions."""
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=100,
        vocab_size=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    extractor = transformers.WhisperFeatureExtractor(chunk_length=2)
    build = transformers.WhisperForConditionalGeneration
    return tmp_path, save(tmp_path, lambda: build(config), extractor)


def test_any_other_model(conformer, noise, rng_untouched):
    folder, model = conformer
    upstream = load_upstream(str(folder))
    card = upstream.card
    assert (card.layers, card.dim, card.hop_samples, card.min_samples) == (3, 32, 320, 400)
    assert card.family == "contrastive"
    assert card.parameters == sum(weight.numel() for weight in model.parameters())
    waveform = noise(5000)
    normal = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    with torch.inference_mode():
        theirs = model(normal[None], output_hidden_states=True)
    ours = upstream([waveform]).values[:, 0]
    expected = torch.cat([*theirs.hidden_states[:-1], theirs.last_hidden_state])
    assert torch.allclose(ours, expected, atol=1e-4)


def test_a_hubert_that_ours_is_not(make_folder, noise):
    folder, model = make_folder(conv_pos_batch_norm=True)
    upstream = load_upstream(str(folder))
    assert type(upstream).__name__ == "HuggingFaceUpstream"
    with torch.inference_mode():
        expected = model(noise(4000)[None]).last_hidden_state
    assert torch.allclose(upstream([noise(4000)]).values[-1], expected, atol=1e-5)


def test_heads_are_left_out(tmp_path, noise):
    config = transformers.Wav2Vec2ConformerConfig(**SMALL, vocab_size=5)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    model = save(tmp_path, lambda: transformers.Wav2Vec2ConformerForCTC(config), extractor)
    upstream = load_upstream(str(tmp_path))
    assert upstream.card.note == "fine-tuned: Wav2Vec2ConformerForCTC"
    with torch.inference_mode():
        expected = model.wav2vec2_conformer(noise(4000)[None]).last_hidden_state
    assert torch.allclose(upstream([noise(4000)]).values[-1], expected, atol=1e-5)


def test_a_neighbour_changes_nothing(conformer, noise):
    upstream = load_upstream(str(conformer[0]))
    short, long = noise(4000), noise(9000)
    together, alone = upstream([short, long]), upstream([short])
    length = int(alone.lengths)
    assert torch.equal(together.values[:, :1, :length], alone.values)
    assert not together.values[:, 0, length:].any()


def test_fingerprint_follows_weights_and_settings(conformer, noise):
    folder, _ = conformer
    first = load_upstream(str(folder))
    before = first.fingerprint
    first([noise(4000)])
    assert before == first.fingerprint == load_upstream(str(folder)).fingerprint
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_normalize": False}))
    changed = load_upstream(str(folder))
    assert changed.fingerprint != before
    assert changed.weights_sha256 != first.weights_sha256


def test_what_it_has_learnt_outlives_a_release_of_transformers(conformer, monkeypatch):
    folder, _ = conformer
    first, later = (load_upstream(str(folder)) for _ in range(2))
    before = first.fingerprint
    assert first.weights_sha256 == later.weights_sha256
    path = folder / "config.json"
    named = {**json.loads(path.read_text()), "transformers_version": "9.0.0"}
    path.write_text(json.dumps(named))
    assert load_upstream(str(folder)).weights_sha256 == first.weights_sha256
    path.write_text(json.dumps({**named, "layer_norm_eps": 1e-3}))
    assert load_upstream(str(folder)).weights_sha256 != first.weights_sha256
    monkeypatch.setattr(transformers, "__version__", "9.0.0")
    kind = type(later.model.config)
    told = kind.to_dict
    # a setting that a release adds, with its default, in every configuration
    monkeypatch.setattr(kind, "to_dict", lambda self: {**told(self), "since_9": 0.5})
    del later.weights_sha256
    assert later.weights_sha256 == first.weights_sha256
    assert later.fingerprint != before


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda w: w.pop("encoder.layers.1.final_layer_norm.weight"), "missing: encoder.layers.1"),
        (lambda w: w.update(surprise=torch.zeros(2)), "unexpected: surprise"),
        (
            lambda w: w.update({"feature_projection.projection.bias": torch.zeros(3)}),
            "shape: feature_proj",
        ),
    ],
)
def test_weights_that_do_not_fit(conformer, edit, says):
    folder, _ = conformer
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UpstreamError, match=says):
        load_upstream(str(folder))


def test_a_truncated_file(conformer):
    path = conformer[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UpstreamError, match="is damaged or incomplete"):
        load_upstream(str(conformer[0]))


def test_code_of_a_repository_is_never_run(conformer, tmp_path):
    folder, _ = conformer
    path = folder / "config.json"
    config = {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.M"},
    }
    path.write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UpstreamError, match="never run"):
        load_upstream(str(folder))


REMOTE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class MineConfig(PretrainedConfig):
    model_type = "mine"

class Mine(PreTrainedModel):
    config_class = MineConfig
    main_input_name = "input_values"

    def __init__(self, config):
        super().__init__(config)
        self.convolution = torch.nn.Conv1d(1, 4, 400, 320)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, torch.nn.Conv1d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.zeros_(module.bias)

    def forward(self, input_values, output_hidden_states=False):
        x = self.convolution(input_values[:, None]).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=2 * x, hidden_states=(x, 2 * x))
"""


@pytest.fixture
def remote(tmp_path):
    """A checkpoint whose model is in a file beside it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "modeling_mine.py").write_text(REMOTE)
    names = {"AutoConfig": "modeling_mine.MineConfig", "AutoModel": "modeling_mine.Mine"}
    (folder / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": names}))
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    weight = 0.01 * torch.arange(1600.0).reshape(4, 1, 400)
    save_file(
        {"convolution.weight": weight, "convolution.bias": torch.ones(4)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_code_of_a_repository_is_run_on_request(remote, noise, rng_untouched):
    for name in (str(remote), f"untrained:{remote}"):
        with pytest.raises(UpstreamError, match="--trust-remote-code"):
            load_upstream(name)
    upstream = load_upstream(str(remote), trust_remote_code=True)
    assert "ran code shipped with the checkpoint" in upstream.card.note
    assert (upstream.card.layers, upstream.card.dim, upstream.card.hop_samples) == (2, 4, 320)
    assert upstream([torch.zeros(400)]).values.tolist() == [[[[1.0] * 4]], [[[2.0] * 4]]]
    twin = load_upstream(f"untrained:{remote}", trust_remote_code=True)
    assert twin.card.note.startswith("UNTRAINED")
    assert "ran code shipped with the checkpoint" in twin.card.note


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_code_of_a_repository_is_part_of_what_an_encoder_is(remote):
    def hashes():
        found = load_upstream(str(remote), trust_remote_code=True)
        return found.fingerprint, found.weights_sha256

    first = hashes()
    assert hashes() == first
    file = remote / "modeling_mine.py"
    for old, new in (
        ("2 * x", "3 * x"),
        ('model_type = "mine"', 'model_type = "mine"\n    scale = 3'),
    ):
        file.write_text(file.read_text().replace(old, new))
        changed = hashes()
        assert changed[0] != first[0]
        assert changed[1] != first[1]
        first = changed
    # a configuration that cannot be made without arguments
    needy = "    def __init__(self, scale, **rest):\n        super().__init__(**rest)\n"
    file.write_text(file.read_text().replace("    scale = 3\n", needy))
    config = remote / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scale": 3}))
    assert hashes()[1] not in {None, first[1]}


def test_what_a_class_takes_for_granted_is_part_of_it(conformer):
    """Settings that are the defaults of their class are left out, so the class must be in."""
    folder, _ = conformer
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    one = load_upstream(str(folder)).weights_sha256
    transformers.SpeechT5FeatureExtractor(num_mel_bins=80).save_pretrained(folder)
    assert load_upstream(str(folder)).weights_sha256 != one


def test_a_codec_is_told_by_the_settings_of_the_whole(tmp_path):
    sizes = {"hidden_size": 8, "num_filters": 2, "num_lstm_layers": 1, "upsampling_ratios": [4, 2]}
    marks = set()
    for causal in (True, False):
        folder = tmp_path / str(causal)
        config = transformers.EncodecConfig(**sizes, use_causal_conv=causal, sampling_rate=16_000)
        torch.manual_seed(0)
        transformers.EncodecModel(config).save_pretrained(folder)
        transformers.EncodecFeatureExtractor(sampling_rate=16_000).save_pretrained(folder)
        found = load_upstream(str(folder))
        marks |= {found.fingerprint, found.weights_sha256}
    assert len(marks) == 4


def test_permission_changes_nothing_for_a_known_model(conformer):
    upstream = load_upstream(str(conformer[0]), trust_remote_code=True)
    assert upstream.card.note == ""


def test_a_model_of_text(tmp_path):
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=9,
    )
    save(tmp_path, lambda: transformers.BertModel(config), transformers.Wav2Vec2FeatureExtractor())
    with pytest.raises(UpstreamError, match="no speech encoder"):
        load_upstream(str(tmp_path))


def test_logging_is_as_before(conformer):
    library = transformers.utils.logging
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    load_upstream(str(conformer[0]))
    assert (library.get_verbosity(), library.is_progress_bar_enabled()) == (level, bars)
    assert level != logging.CRITICAL


def whisper_by_hand(folder, encoder, waveform):
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    features = extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        output = encoder(features, output_hidden_states=True)
    return torch.cat([*output.hidden_states[:-1], output.last_hidden_state])


def test_whisper_windows(small_whisper, noise):
    folder, model = small_whisper
    upstream = load_upstream(str(folder))
    card = upstream.card
    assert (card.layers, card.dim, card.hop_samples, card.min_samples) == (3, 16, 320, 1)
    assert card.family == "supervised"
    encoder = model.get_encoder()
    for samples in (1, 320, 321, 31_999, 32_000):
        frames = -(-samples // 320)
        found = upstream([noise(samples)])
        expected = whisper_by_hand(folder, encoder, noise(samples))[:, :frames]
        assert int(found.lengths) == frames
        assert torch.allclose(found.values[:, 0], expected, atol=1e-5)
    # Longer than a window: consecutive windows, nothing dropped.
    long = noise(70_001)
    found = upstream([long]).values[:, 0]
    assert found.shape[1] == 219
    parts = [long[:32_000], long[32_000:64_000], long[64_000:]]
    expected = torch.cat(
        [whisper_by_hand(folder, encoder, part)[:, : -(-part.numel() // 320)] for part in parts],
        dim=1,
    )
    assert torch.allclose(found, expected, atol=1e-5)


def test_only_the_part_that_hears_is_read(small_whisper, noise):
    folder, model = small_whisper
    before = load_upstream(str(folder))([noise(4000)]).values
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if ".encoder." in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    upstream = load_upstream(str(folder))
    assert torch.equal(upstream([noise(4000)]).values, before)
    encoder = model.get_encoder()
    assert upstream.card.parameters == sum(weight.numel() for weight in encoder.parameters())


def test_windows_of_several_utterances_go_through_together(small_whisper, noise, monkeypatch):
    upstream = load_upstream(str(small_whisper[0]))
    waveforms = [noise(samples) for samples in (500, 70_001, 32_000, 40_000)]
    alone = [upstream([waveform]).values[:, 0] for waveform in waveforms]
    monkeypatch.setattr("upstreams.loading.huggingface.windows_at_once", lambda device: 3)
    together = upstream(waveforms)
    for index, expected in enumerate(alone):
        found = together.values[:, index, : int(together.lengths[index])]
        assert torch.allclose(found, expected, atol=1e-5)


def test_windows_are_let_go_of_and_their_spectra_are_taken_on_the_device(
    small_whisper, noise, monkeypatch
):
    """Hundreds of clips of a second, on a card, would keep as many windows there."""
    upstream = load_upstream(str(small_whisper[0]))
    assert upstream._basics["device"] == "cpu"
    kept, cat = [], torch.cat
    monkeypatch.setattr(torch, "cat", lambda given, dim=0: (kept.extend(given), cat(given, dim))[1])
    upstream([noise(500), noise(1000)])
    frames = [one for one in kept if one.dim() == 3 and len(one) == upstream.card.layers]
    assert len(frames) == 2
    assert all(one.untyped_storage().nbytes() == 4 * one.numel() for one in frames)
    weight = SimpleNamespace(device=torch.device("cuda:1"))
    monkeypatch.setattr(upstream, "_weight", lambda: weight)
    assert upstream._basics["device"] == "cuda:1"


def test_whisper_misses_an_encoder_weight(small_whisper):
    folder, _ = small_whisper
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.encoder.layers.0.fc1.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UpstreamError, match=r"missing: encoder\.layers\.0\.fc1\.weight"):
        load_upstream(str(folder))


@pytest.mark.skipif(not WHISPER.is_dir(), reason="no ../shared/checkpoints/whisper-tiny.en-encoder")
def test_the_real_whisper(noise):
    upstream = load_upstream(str(WHISPER))
    card = upstream.card
    assert (card.layers, card.dim, card.hop_samples) == (5, 384, 320)
    assert {weight.dtype for weight in upstream.parameters()} == {torch.float32}
    classifier = transformers.WhisperForAudioClassification.from_pretrained(
        WHISPER, dtype=torch.float32
    )
    waveform = noise(40_001)
    expected = whisper_by_hand(WHISPER, classifier.encoder.eval(), waveform)[:, :126]
    found = upstream([waveform])
    assert int(found.lengths) == 126
    error = (found.values[:, 0] - expected).abs().amax(dim=(1, 2)) / expected.abs().amax(dim=(1, 2))
    assert float(error.max()) < 1e-5
