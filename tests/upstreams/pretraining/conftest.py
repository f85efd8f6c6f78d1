"""Folders of made-up speech for pretraining."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from upstreams.models.transformer import MINI
from upstreams.pretraining.hubert import HuBERT

RATE = 16_000
TINY = dataclasses.replace(
    MINI,
    conv_dims=(24, 16, 16),
    input_state=False,
    state_norm=False,
    dim=32,
    layers=2,
    heads=2,
    feed_forward_dim=64,
    position_kernel=16,
)


def make_babble(seed: int, seconds: float) -> np.ndarray:
    """Bursts of tones of changing pitch: something with structure in time to predict."""
    random = np.random.default_rng(seed)
    samples = int(seconds * RATE)
    pitch = np.repeat(random.choice([300, 700, 1500, 2600], samples // 1600 + 1), 1600)[:samples]
    wave = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    return (wave + 0.01 * random.standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files of four speakers in LibriSpeech's layout, 1.2 to 2.3 s."""
    folder = tmp_path_factory.mktemp("speech")
    for index in range(12):
        speaker = 10 + index % 4
        path = folder / str(speaker) / "1" / f"{speaker}-1-{index:04}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, make_babble(index, 1.2 + 0.1 * index), RATE)
    return folder


@pytest.fixture(scope="session")
def babble() -> Callable[[int, float], np.ndarray]:
    """Made-up speech, 16 kHz: (seed, seconds) to samples."""
    return make_babble


@pytest.fixture
def tiny_hubert(monkeypatch: pytest.MonkeyPatch) -> None:
    """HuBERT in a size that trains in a second, under the name of the bundled one."""
    monkeypatch.setattr(HuBERT, "sizes", {"mini": TINY})
