"""The suite of corpora: a sound one passes it, and one fault fails exactly one check."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from benchmark.conformance import check_corpus
from benchmark.conformance.corpus import EXPECTED
from benchmark.core import Corpus, Utterance


def wav(value):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(160, value / 100), 16_000, format="WAV")
    return buffer.getvalue()


SOUND = Corpus(
    "toy",
    "0" * 64,
    tuple(
        Utterance(f"u{i}", wav(i), split, speaker=f"s{i}", label="yes")
        for i, split in enumerate(("train", "train", "valid", "test"))
    ),
)


def changed(index, **changes):
    own = list(SOUND.utterances)
    own[index] = replace(own[index], **changes)
    return replace(SOUND, utterances=tuple(own))


def found(corpus, **given):
    checks = check_corpus(corpus, **given)
    return {check.name: check.found for check in checks if check.passed is False}


def test_a_sound_corpus_passes_everything():
    checks = check_corpus(SOUND, again=lambda: SOUND)
    assert [check.name for check in checks] == list(EXPECTED)
    assert all(check.passed for check in checks)


def test_what_is_in_it_is_counted():
    (first, *_) = check_corpus(SOUND)
    assert first.found == "toy (00000000); train 2, valid 1, test 1; 1 labels; 4 speakers"
    nobody = replace(SOUND, utterances=tuple(replace(u, speaker="") for u in SOUND.utterances))
    assert "too narrow" in check_corpus(nobody)[0].found
    folds = check_corpus(replace(SOUND, folds={"a": FOLD}))[0].found
    assert "a: train 1, valid 1, test 1" in folds


FOLD = {"u0": "train", "u1": "valid", "u2": "test"}


@pytest.mark.parametrize(
    ("corpus", "name", "says"),
    [
        (changed(0, audio=b"noise"), "audio", "1 of 4 cannot be used"),
        (changed(3, audio=wav(0)), "shared-audio", "u3 stand in train or valid too"),
    ],
)
def test_one_fault_fails_its_check(corpus, name, says):
    faults = found(corpus)
    assert list(faults) == [name]
    assert says in faults[name]


def test_folds_are_checked_one_by_one():
    assert not found(replace(SOUND, folds={"a": FOLD, "b": FOLD}))
    own = changed(3, audio=wav(0))
    folds = {"a": FOLD, "b": {"u0": "train", "u1": "valid", "u3": "test"}}
    assert "in fold b" in found(replace(own, folds=folds))["shared-audio"]


def test_a_corpus_that_changes_is_noticed():
    other = replace(SOUND, sha256="1" * 64)
    assert found(SOUND, again=lambda: other) == {
        "again": "11111111 the second time, 00000000 the first"
    }
