"""Lengths and contents of recordings: each file is opened once, until it changes."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import soundfile

from benchmark import recordings as module
from benchmark.core import Utterance
from benchmark.recordings import any_known, durations, file_hashes, joint_sha256


def write(path, seconds):
    soundfile.write(path, np.zeros(round(seconds * 8000)), 8000)
    os.utime(path, (1e9, 1e9 + seconds))


def test_a_file_is_opened_once_until_it_changes(tmp_path, monkeypatch):
    opened = []
    read = module.duration_s
    monkeypatch.setattr(module, "duration_s", lambda u: opened.append(u.id) or read(u))
    paths = [tmp_path / f"{name}.wav" for name in "ab"]
    for path, seconds in zip(paths, (1.5, 2.0), strict=True):
        write(path, seconds)
    utterances = [Utterance(path.stem, path, "train") for path in paths]
    cache = tmp_path / "cache"
    assert durations(utterances, cache) == {"a": 1.5, "b": 2.0}
    assert durations(utterances, cache) == {"a": 1.5, "b": 2.0}
    assert opened == ["a", "b"]
    write(paths[1], 3.0)
    assert durations(utterances, cache) == {"a": 1.5, "b": 3.0}
    assert opened == ["a", "b", "b"]


def test_spans_and_audio_in_memory_need_no_file(tmp_path):
    path = tmp_path / "a.wav"
    write(path, 1.25)
    utterances = [
        Utterance("span", tmp_path / "unopened.wav", "train", span=(0.5, 0.75)),
        Utterance("bytes", path.read_bytes(), "train"),
    ]
    assert durations(utterances, tmp_path / "cache") == {"span": 0.75, "bytes": 1.25}


def test_what_cannot_be_read_is_looked_at_again(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"no audio")
    os.utime(path, (1e9, 1e9))
    utterances = [Utterance("a", path, "train"), Utterance("gone", tmp_path / "gone.wav", "train")]
    assert durations(utterances, tmp_path / "cache") == {"a": 0.0, "gone": 0.0}
    write(path, 1.0)
    os.utime(path, (1e9, 1e9))
    assert durations(utterances[:1], tmp_path / "cache") == {"a": 1.0}


def test_contents_are_read_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    read = []
    sha256 = module.audio_sha256
    monkeypatch.setattr(module, "audio_sha256", lambda path: read.append(path.stem) or sha256(path))
    paths = [tmp_path / f"{name}.wav" for name in "ab"]
    for path in paths:
        write(path, 1.0)
    utterances = [Utterance(path.stem, path, "train") for path in paths]
    cache = tmp_path / "cache"
    assert not any_known(utterances, cache)
    before = file_hashes(utterances, cache)
    assert file_hashes(utterances, cache) == before
    assert list(before) == paths
    assert read == ["a", "b"]
    data = bytearray(paths[1].read_bytes())
    data[-1] ^= 1
    paths[1].write_bytes(data)  # as large as before
    os.utime(paths[1], (1e9, 1e9 + 7))
    assert any_known(utterances, cache)
    after = file_hashes(utterances, cache)
    assert after[paths[0]] == before[paths[0]]
    assert after[paths[1]] == hashlib.sha256(data).hexdigest() != before[paths[1]]
    assert read == ["a", "b", "b"]
    assert joint_sha256(after) != joint_sha256(before)


def test_audio_in_memory_is_no_file(tmp_path):
    assert file_hashes([Utterance("bytes", b"1", "train")], tmp_path / "cache") == {}
    assert joint_sha256({}) is None


def test_what_is_not_there_has_no_hash(tmp_path):
    gone = tmp_path / "gone.wav"
    assert file_hashes([Utterance("gone", gone, "train")], tmp_path / "cache") == {gone: ""}
