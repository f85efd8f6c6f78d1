"""What the table promises, against what is built."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams.catalogue import UPSTREAMS
from upstreams.loading import rows
from upstreams.loading.checkpoint import encoder_config
from upstreams.loading.files import read_json
from upstreams.loading.load import load_upstream
from upstreams.models.architecture import parameter_count

LEARNED = [
    name
    for name, entry in UPSTREAMS.items()
    if entry.architecture.startswith("upstreams.models.transformer:")
]
BUNDLED = [name for name, entry in UPSTREAMS.items() if entry.checkpoint == "bundled"]
THROUGH_TRANSFORMERS = [
    name for name, entry in UPSTREAMS.items() if "/" in entry.checkpoint and not entry.architecture
]
LOCAL = [name for name, entry in UPSTREAMS.items() if entry.checkpoint in ("bundled", "none")]


@pytest.mark.parametrize("name", LEARNED)
def test_sizes(name, rng_untouched):
    entry = UPSTREAMS[name]
    config = load_attribute(entry.architecture)
    assert parameter_count(config) == entry.parameters
    assert (config.states, config.dim, config.hop_samples) == (
        entry.layers,
        entry.dim,
        entry.hop_samples,
    )


@pytest.mark.parametrize("name", LOCAL)
def test_cards(name, noise):
    upstream, entry = load_upstream(name), UPSTREAMS[name]
    card = upstream.card
    assert card.name == name
    for field in ("family", "layers", "dim", "hop_samples", "parameters", "trained_on", "licence"):
        assert getattr(card, field) == getattr(entry, field), field
    assert entry.note in card.note
    states = upstream([noise(8000)])
    assert states.values.shape[0] == card.layers
    assert states.values.shape[3] == card.dim
    assert upstream([noise(card.min_samples)]).values.isfinite().all()


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_encoder_is_small_and_says_how_it_was_made(name):
    folder = rows.CHECKPOINTS / name
    assert (folder / "model.safetensors").stat().st_size < 8_000_000
    card = read_json(folder, "card.json")
    assert card["command"].startswith("superb pretrain ")
    assert " --objective " in card["command"]
    assert "CC BY 4.0" in card["attribution"]
    assert card["parameters"] == UPSTREAMS[name].parameters
    for value in (card["audio"]["hours"], card["run"]["steps"], card["compute"]["minutes"]):
        assert value > 0


@pytest.mark.parametrize("entry", UPSTREAMS.values(), ids=UPSTREAMS)
def test_every_row_is_complete(entry):
    for target in filter(None, (entry.target, entry.architecture, entry.layout)):
        load_attribute(target)
    assert entry.loads or entry.note
    assert bool(entry.target) == (entry.checkpoint == "none")
    assert not entry.layout or entry.checkpoint == "local file"
    assert entry.paper
    assert 1900 < entry.year < 2100
    if "/" in entry.checkpoint:
        assert entry.licence
        assert entry.trained_on is None or entry.trained_on
        assert len(entry.revision) in (0, 40)


@pytest.mark.parametrize("pinned", [True, False])
def test_a_published_row(monkeypatch, make_folder, pinned):
    """The path from a row to a card, with a small model in the place of the published one."""
    commit = "a" * 40
    folder, _ = make_folder(commit)
    row = replace(UPSTREAMS["hubert-base"], revision=commit if pinned else "")
    monkeypatch.setitem(UPSTREAMS, "hubert-base", row)
    monkeypatch.setattr(rows, "download", lambda repository, revision: folder)
    with pytest.raises(UpstreamError, match="it is another model than 'hubert-base'"):
        load_upstream("hubert-base")
    parameters = parameter_count(encoder_config(read_json(folder, "config.json")))
    small = replace(row, layers=4, dim=32, parameters=parameters)
    monkeypatch.setitem(UPSTREAMS, "hubert-base", small)
    upstream = load_upstream("hubert-base")
    card = upstream.card
    assert (card.name, card.source, card.revision) == ("hubert-base", row.checkpoint, commit)
    assert (card.trained_on, card.parameters) == ({"librispeech"}, parameters)
    assert card.note == (
        "" if pinned else f"revision not pinned, this is {row.checkpoint}@{commit}"
    )
    assert isinstance(upstream([torch.zeros(400)]).values, torch.Tensor)


# The systems a lecture on self-supervised speech names, and the rows that stand for each.
LECTURE = {
    "CPC": ("cpc-2019",),
    "wav2vec": ("wav2vec-large",),
    "modified CPC": ("modified-cpc",),
    "bidirectional CPC": ("bidirectional-cpc",),
    "wav2vec 2.0": ("wav2vec2-base", "wav2vec2-large"),
    "XLSR-53": ("xlsr-53",),
    "XLS-R": ("xls-r-300m", "xls-r-1b", "xls-r-2b"),
    "wav2vec-C": ("wav2vec-c",),
    "w2v-BERT": ("w2v-bert-2.0",),
    "HuBERT": ("hubert-base", "hubert-large", "hubert-xlarge"),
    "AV-HuBERT": ("av-hubert-base", "av-hubert-large"),
    "Whisper": (
        "whisper-tiny",
        "whisper-tiny.en",
        "whisper-base",
        "whisper-small",
        "whisper-medium",
        "whisper-large-v3",
    ),
    "MFCC": ("mfcc",),
    "PLP": ("plp",),
    "log-mel": ("fbank", "fbank-cmvn"),
}


@pytest.mark.parametrize("system", LECTURE)
def test_every_system_of_the_lecture_has_its_row(system):
    for name in LECTURE[system]:
        entry = UPSTREAMS[name]
        # Weights by name, or a note that says why there are none.
        assert "/" in entry.checkpoint or entry.checkpoint == "none" or entry.note


def transformers_model(name):
    """The published model of a row, without memory: settings as their checkpoints have them."""
    entry = UPSTREAMS[name]
    if name.startswith("w2v-bert"):
        return transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig())
    config = transformers.WhisperConfig(
        d_model=entry.dim,
        encoder_layers=entry.layers - 1,
        encoder_attention_heads=entry.dim // 64,
        encoder_ffn_dim=4 * entry.dim,
        num_mel_bins=128 if name == "whisper-large-v3" else 80,
    )
    return WhisperEncoder(config)


@pytest.mark.parametrize("name", THROUGH_TRANSFORMERS)
def test_sizes_through_transformers(name):
    entry = UPSTREAMS[name]
    with torch.device("meta"):
        model = transformers_model(name)
    assert sum(weight.numel() for weight in model.parameters()) == entry.parameters
    assert (model.config.num_hidden_layers + 1, model.config.hidden_size, entry.hop_samples) == (
        entry.layers,
        entry.dim,
        320,
    )


def test_a_row_through_transformers(monkeypatch, tmp_path, noise):
    """The path from a row to a card, with a small model in the place of the published one."""
    folder = tmp_path / ("b" * 40)
    config = transformers.WhisperConfig(
        vocab_size=20,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        transformers.WhisperModel(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder)
    row = replace(UPSTREAMS["whisper-tiny.en"], revision="b" * 40)
    monkeypatch.setitem(UPSTREAMS, "whisper-tiny.en", row)
    asked = []

    def download(repository, revision, weights=True, code=False):
        asked.append((repository, revision, weights))
        return folder

    monkeypatch.setattr(rows, "download", download)
    monkeypatch.setattr("upstreams.loading.hub.download", download)
    with pytest.raises(UpstreamError, match=r"it is another model than 'whisper-tiny\.en'"):
        load_upstream("whisper-tiny.en")
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in WhisperEncoder(config).parameters())
    monkeypatch.setitem(
        UPSTREAMS, "whisper-tiny.en", replace(row, layers=3, dim=16, parameters=parameters)
    )
    upstream = load_upstream("whisper-tiny.en")
    card = upstream.card
    assert asked == [(row.checkpoint, row.revision, True)] * 2
    assert (card.name, card.source, card.revision) == ("whisper-tiny.en", row.checkpoint, "b" * 40)
    assert (card.family, card.licence, card.paper) == ("supervised", row.licence, row.paper)
    assert (card.trained_on, card.note) == (None, row.note)
    assert upstream([noise(8000)]).values.shape == (3, 1, 25, 16)
    # Its twin takes the settings, and no weights, from the hub.
    twin = load_upstream("untrained:whisper-tiny.en")
    assert asked[2:] == [(row.checkpoint, row.revision, False)]
    assert (twin.card.name, twin.card.family) == ("untrained:whisper-tiny.en", "untrained")
    assert twin([noise(8000)]).values.shape == (3, 1, 25, 16)
