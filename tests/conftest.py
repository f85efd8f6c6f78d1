"""Small made-up data and models shared by the tests.

Tones as a corpus; a toy encoder; models of transformers.
"""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.made import FOLDS, QUICK, RATE, SPEAKERS, WORDS, tone

# As the command line does, and before torch is imported: waiting threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Tests that run beside one another share the cores.
if beside := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // beside)))
# A shell in the background hands on that Ctrl-C is ignored, to us and to what tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "conv_dim": [12] * 7,
}


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
def folded(tones: Path) -> Any:
    """A corpus of three folds over the tones, by speaker; in the last nobody says stop."""
    from benchmark.core import Corpus, Utterance

    utterances = []
    for row in tones.read_text().splitlines()[1:]:
        name, _, speaker, text, label = row.split("\t")
        utterances.append(
            Utterance(name, tones.parent / name, "train", speaker, text=text, label=label)
        )
    folds = {
        fold: {
            u.id: {test: "test", valid: "valid"}.get(u.speaker, "train")
            for u in utterances
            if fold != "c" or u.label != "stop"
        }
        for fold, (test, valid) in FOLDS.items()
    }
    return Corpus("folded", utterances=tuple(utterances), folds=folds)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protocol that takes seconds."""
    path = tmp_path_factory.mktemp("protocol") / "quick.toml"
    path.write_text(QUICK, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """``make_model(kind, **options)``: of transformers, random, all weights away from 0 and 1."""
    import torch
    import transformers

    names = {
        "hubert": "Hubert",
        "wav2vec2": "Wav2Vec2",
        "wavlm": "WavLM",
        "data2vec-audio": "Data2VecAudio",
        "unispeech-sat": "UniSpeechSat",
    }

    def make(kind="hubert", seed=0, **options):
        config_class = getattr(transformers, f"{names[kind]}Config")
        model_class = getattr(transformers, f"{names[kind]}Model")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(config_class(**{**TINY, **options})).eval()
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
