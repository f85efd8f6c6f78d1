"""Lengths and contents of recordings: each file is opened once, until it changes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.core import Utterance
from benchmark.encoding import recordings as module
from benchmark.encoding.recordings import (
    any_known,
    duration_s,
    durations,
    estimate_s,
    file_hashes,
    joint_sha256,
)


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


def test_durations_are_estimated_from_some_headers(tmp_path, monkeypatch):
    utterances = []
    for index in range(50):
        write(tmp_path / f"{index}.wav", 1 + index / 10)
        utterances.append(Utterance(str(index), tmp_path / f"{index}.wav", "train"))
    exact = sum(map(duration_s, utterances))
    assert exact == pytest.approx(50 + 49 * 50 / 20)
    opened = []
    monkeypatch.setattr(module, "duration_s", lambda u: opened.append(u.id) or duration_s(u))
    assert estimate_s(utterances, sample=50) == pytest.approx(exact)
    opened.clear()
    assert estimate_s(utterances, sample=10) == pytest.approx(exact, rel=0.02)
    assert len(opened) == 10
    assert estimate_s([Utterance("gone", tmp_path / "gone.wav", "train")]) == 0
    crop = Utterance("crop", utterances[0].audio, "train", span=(0.01, 0.05))
    assert estimate_s([*utterances, crop], sample=50) == pytest.approx(exact + 0.05)


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


@dataclass(eq=False)
class Stored:
    """Audio inside another file."""

    path: Path
    origin: tuple[str, int] | None
    reads: int = 0
    size: int = 0
    far: bool = False

    def read(self) -> bytes:
        self.reads += 1
        return self.path.read_bytes()


def test_audio_inside_a_file_is_read_once_until_that_file_changes(tmp_path):
    path, cache = tmp_path / "a.wav", tmp_path / "cache"
    write(path, 1.0)
    before = Stored(path, ("table/0", 10**9))
    first = [Utterance("a", before, "train")]
    assert not any_known(first, cache)
    assert durations(first, cache) == {"a": 1.0}
    hashes = file_hashes(first, cache)
    assert hashes == {before: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert before.reads == 2  # once for its length, once for its hash

    same = Stored(path, ("table/0", 10**9))
    again = [Utterance("a", same, "train")]
    assert durations(again, cache) == {"a": 1.0}
    assert joint_sha256(file_hashes(again, cache)) == joint_sha256(hashes)
    assert same.reads == 0

    write(path, 2.0)
    changed = Stored(path, ("table/0", 2 * 10**9))
    last = [Utterance("a", changed, "train")]
    assert any_known(last, cache)
    assert durations(last, cache) == {"a": 2.0}
    assert joint_sha256(file_hashes(last, cache)) != joint_sha256(hashes)


def test_audio_of_which_nothing_can_be_said_is_read_every_time(tmp_path):
    path = tmp_path / "a.wav"
    write(path, 1.0)
    stored = Stored(path, None)
    utterances = [Utterance("a", stored, "train")]
    assert file_hashes(utterances, tmp_path) == file_hashes(utterances, tmp_path)
    assert stored.reads == 2
    assert not any_known(utterances, tmp_path)
