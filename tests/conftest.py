"""Small made-up data and models shared by the tests.

Tones, whose pitch says who speaks and what is said; a toy encoder; models of transformers.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

# As the command line does, and before torch is imported: waiting threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

RATE = 16_000
SPEAKERS = ("ada", "ben", "cy", "dora")
WORDS = ("yes", "no", "stop")
PITCHES = {"yes": 500.0, "no": 1500.0, "stop": 2500.0}


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "conv_dim": [12] * 7,
}


def tone(word: str, speaker: str, take: int, seconds: float = 0.3) -> np.ndarray:
    """A word is a pitch, a speaker an overtone, a take some noise."""
    random = np.random.default_rng([take, *word.encode(), *speaker.encode()])
    time = np.arange(int((seconds + 0.02 * take) * RATE)) / RATE
    overtone = 3500 + 1000 * SPEAKERS.index(speaker)
    wave = 0.3 * np.sin(2 * np.pi * PITCHES[word] * time)
    wave += 0.2 * np.sin(2 * np.pi * overtone * time)
    return (wave + 0.02 * random.standard_normal(time.size)).astype(np.float32)


@pytest.fixture(scope="session")
def bands_file() -> Path:
    """The file of a toy encoder, `Bands`."""
    return Path(__file__).with_name("bands.py")


@pytest.fixture(scope="session")
def bands(bands_file: Path) -> type[Any]:
    """The class of a toy encoder, `Bands`."""
    spec = importlib.util.spec_from_file_location("bands", bands_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Bands


@pytest.fixture
def places(tmp_path: Path, tones: Path, quick: Path) -> dict[str, Any]:
    """What a quick run of the tones is told: where, by which rules, and to be quiet."""
    from benchmark.progress import Progress

    return {
        "corpus": str(tones),
        "protocol": str(quick),
        "output": tmp_path / "results",
        "cache_dir": tmp_path / "cache",
        "progress": Progress(quiet=True),
    }


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 72 tones with text, speaker and label: 3 takes train, 1 valid, 2 test."""
    folder = tmp_path_factory.mktemp("tones")
    rows = ["audio\tsplit\tspeaker\ttext\tlabel"]
    splits = ("train", "train", "train", "valid", "test", "test")
    for speaker in SPEAKERS:
        for word in WORDS:
            for take, split in enumerate(splits):
                name = f"{speaker}-{word}-{take}.wav"
                soundfile.write(folder / name, tone(word, speaker, take), RATE)
                rows.append(f"{name}\t{split}\t{speaker}\t{word}\t{word}")
    manifest = folder / "tones.tsv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return manifest


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protocol that takes seconds."""
    path = tmp_path_factory.mktemp("protocol") / "quick.toml"
    pooled = """
updates = 60
batch_utterances = 8
accumulate = 1
sampling = "shuffle"
crop_s = 0.0
crops = 1
gain_db = 0.0
first_seed = 0
learning_rates = [1e-3, 1e-2, 1e-1]
schedule = "constant"
warmup = 0
clip_norm = 1.0
evaluate_every = 20
valid_sampling = "all"
select_by = "score-loss"
patience = 0
head_precision = "float32"
standardise = true
halving = [{ update = 20, keep = 2, by = "score" }]
head = { projection = 16 }
"""
    asr = """
updates = 40
batch_utterances = 8
accumulate = 1
sampling = "shuffle"
crop_s = 0.0
crops = 1
gain_db = 0.0
first_seed = 0
learning_rates = [3e-3, 3e-2]
schedule = "linear"
warmup = 5
clip_norm = 1.0
evaluate_every = 20
valid_sampling = "all"
select_by = "score-loss"
patience = 0
head_precision = "float32"
standardise = false
head = { frame_s = 0.02, projection = 12, hidden = 8, layers = 2, dropout = 0.2 }
[asr.spec_augment]
time_warp = 2
time_masks = 1
time_width = 4
time_share = 0.2
feature_masks = 1
feature_width = 4
feature_share = 0.2
"""
    path.write_text(
        f'name = "quick"\nversion = 1\n[asr]{asr}\n[sid]{pooled}\n[ks]{pooled}', encoding="utf-8"
    )
    return path


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """``make_model(kind, **options)``: of transformers, random, all weights away from 0 and 1."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    def make(kind="hubert", seed=0, **options):
        config_class, model_class = {
            "hubert": (HubertConfig, HubertModel),
            "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
        }[kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(config_class(**TINY, **options)).eval()
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(0.2 * torch.randn_like(weight))
        return model

    return make


@pytest.fixture
def make_folder(make_model, tmp_path) -> Callable[..., tuple[Path, Any]]:
    """``make_folder(name, normalize, **make_model arguments)``: the same as a checkpoint folder."""
    from transformers import Wav2Vec2FeatureExtractor

    def make(name="model", normalize=False, **options):
        model = make_model(**options)
        folder = tmp_path / name
        model.save_pretrained(folder)
        extractor = Wav2Vec2FeatureExtractor(do_normalize=normalize)
        extractor.save_pretrained(folder)
        return folder, model

    return make


@pytest.fixture
def rng_untouched():
    """Fails the test if torch's global random state changed during it."""
    import torch

    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())
