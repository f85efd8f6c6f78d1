"""Alignments of recordings: where tones are, and when what was kept may be used again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("kaldi_hmm_gmm", reason="needs the extra hmm")

from benchmark.core import Material, Utterance
from downstreams.markov.alignment import PLACES, alignments, at_frames
from downstreams.markov.training import Recipe

RATE = 16_000
PITCH = {"A": 300, "B": 1000, "C": 3000}
PHONES = ("SIL", *PITCH)
RECIPE = Recipe(mono_components=24, tri_passes=0)


def tones(text):
    """A fifth of a second for each letter, and a tenth of quiet around."""
    random = np.random.default_rng(len(text))
    times = np.arange(RATE // 5) / RATE
    parts = [np.sin(2 * np.pi * PITCH[letter] * times) for letter in text]
    quiet = np.zeros(RATE // 10)
    samples = np.concatenate([quiet, *parts, quiet])
    return torch.tensor(samples + 0.01 * random.normal(size=len(samples)), dtype=torch.float32)


@pytest.fixture
def material(tmp_path):
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list(PITCH), 3)) for _ in range(30)]
    both = [Utterance(f"u{i}", b"", "train", "s", text=text) for i, text in enumerate(texts)]
    heard = []

    def waveform(utterance, rate):
        assert rate == RATE
        heard.append(utterance.id)
        return tones(utterance.text)

    return heard, Material(
        train=both[:24],
        valid=both[24:],
        keys={utterance.id: utterance.text for utterance in both},
        vocabulary=(),
        hop_s=0.02,
        settings={},
        channel=None,
        waveform=waveform,
        folder=tmp_path / "prepared",
        say=lambda line: None,
    )


def said(material):
    return {u.id: [" ".join(u.text)] for u in (*material.train, *material.valid)}


def test_tones_are_found_where_they_are(material):
    _, given = material
    found = alignments(given, said(given), PHONES, RECIPE)
    right = total = 0
    for utterance in (*given.train, *given.valid):
        states = at_frames(found[utterance.id], 40, 0.02)
        heard = [PHONES[state // PLACES] for state in states]
        wanted = ["SIL"] * 5 + [letter for letter in utterance.text for _ in range(10)]
        right += sum(a == b for a, b in zip(heard[:35], wanted, strict=True))
        total += 35
    assert right / total > 0.8


def test_what_was_kept_serves_the_same_alone(material):
    heard, given = material
    first = alignments(given, said(given), PHONES, RECIPE)
    heard.clear()
    again = alignments(given, said(given), PHONES, RECIPE)
    assert not heard
    assert {name: own.tolist() for name, own in again.items()} == {
        name: own.tolist() for name, own in first.items()
    }
    others = (
        replace(given, channel=1),
        replace(given, train=given.train[1:]),
        replace(given, keys={**given.keys, "u3": "another recording"}),
    )
    for other in others:
        heard.clear()
        alignments(other, said(other), PHONES, RECIPE)
        assert heard
    heard.clear()
    alignments(given, said(given), PHONES, replace(RECIPE, mono_passes=3))
    assert heard


def test_damage_is_made_good_and_short_recordings_have_none(material):
    heard, given = material
    alignments(given, said(given), PHONES, RECIPE)
    (kept,) = given.folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-40])
    heard.clear()
    assert len(alignments(given, said(given), PHONES, RECIPE)) == 30
    assert heard
    short = replace(
        given,
        keys={**given.keys, "u29": "short"},
        waveform=lambda u, rate: torch.zeros(100) if u.id == "u29" else tones(u.text),
    )
    assert "u29" not in alignments(short, said(short), PHONES, RECIPE)
