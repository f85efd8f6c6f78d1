"""The suite of corpora: a sound one passes it, and one fault fails exactly one check."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from benchmark.conformance import check_corpus
from benchmark.conformance.corpus import EXPECTED
from benchmark.core import Corpus, DownstreamCard, Metric, Utterance

CARD = DownstreamCard(
    "toy", "Toy", 1, (Metric("accuracy", "higher"),), "mean", needs=("label",), closed_set=True
)


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
    checks = check_corpus(corpus, CARD, **given)
    return {check.name: check.found for check in checks if check.passed is False}


def test_a_sound_corpus_passes_everything():
    checks = check_corpus(SOUND, CARD, again=lambda: SOUND)
    assert [check.name for check in checks] == list(EXPECTED)
    assert all(check.passed for check in checks)


def test_without_a_task_targets_are_not_asked_for():
    checks = {check.name: check.passed for check in check_corpus(SOUND)}
    assert checks["targets"] is checks["closed-set"] is None
    assert "again" not in checks


def test_no_speaker_at_all_is_no_fault():
    nobody = replace(SOUND, utterances=tuple(replace(u, speaker="") for u in SOUND.utterances))
    checks = {check.name: check for check in check_corpus(nobody, CARD)}
    assert checks["speakers"].passed is None
    assert "too narrow" in checks["speakers"].found


FOLD = {"u0": "train", "u1": "valid", "u2": "test"}


@pytest.mark.parametrize(
    ("corpus", "name", "says"),
    [
        (5, "corpus", "a int"),
        (replace(SOUND, sha256=""), "corpus", "an empty sha256"),
        (changed(1, id="u0"), "ids", "'u0' occur twice"),
        (changed(2, split="dev"), "splits", "train 2, valid 0, test 1, dev 1"),
        (replace(SOUND, folds={"a": FOLD | {"u2": "valid"}}), "splits", "a: train 1, valid 2"),
        (changed(0, label=""), "targets", "no 'label' in u0"),
        (changed(3, label="no"), "closed-set", "labels that train does not have in u3"),
        (changed(0, speaker=""), "speakers", "none in u0"),
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
