"""What is remembered of audio files: found until a file changes, by whoever wrote it down."""

import errno
import os

import pytest

from benchmark.encoding.audio_hashes import AudioHashes
from benchmark.errors import SuperbError


def test_hashes_are_found_until_the_file_changes(tmp_path):
    path = tmp_path / "a.wav"

    def write(text, seconds):
        path.write_text(text)
        os.utime(path, (seconds, seconds))

    write("one", 1000)
    with AudioHashes(tmp_path / "cache") as hashes:
        assert hashes.find(path) is None
        hashes.remember(path, path.stat(), "1" * 64)
    with AudioHashes(tmp_path / "cache") as hashes:
        assert hashes.find(path) == "1" * 64
        write("two", 1001)  # another time
        assert hashes.find(path) is None
        write("more", 1000)  # another size
        assert hashes.find(path) is None
        hashes.remember(path, path.stat(), "2" * 64)
        hashes.commit()
        assert hashes.find(path) == "2" * 64
        path.unlink()
        assert hashes.find(path) is None


def test_lengths_are_found_until_the_file_changes(tmp_path):
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"1234")
    os.utime(audio, (1e9, 1e9))
    with AudioHashes(tmp_path / "cache") as known:
        assert known.find_duration(audio) is None
        known.remember_duration(audio, audio.stat(), 2.5)
    with AudioHashes(tmp_path / "cache") as known:
        assert known.find_duration(audio) == 2.5
        assert known.find(audio) is None
        os.utime(audio, (1e9, 1e9 + 1))
        assert known.find_duration(audio) is None


def test_what_was_just_written_is_not_believed(tmp_path):
    """It may change again within a tick of the clock, and look the same."""
    path = tmp_path / "a.wav"
    path.write_text("one")
    with AudioHashes(tmp_path / "cache") as hashes:
        hashes.remember(path, path.stat(), "1" * 64)
        hashes.commit()
        assert hashes.find(path) is None


def test_many_write_at_once_and_later_ones_know_it_all(tmp_path):
    paths = [tmp_path / f"{name}.wav" for name in "abc"]
    for second, path in enumerate(paths):
        path.write_text("audio")
        os.utime(path, (1000 + second,) * 2)
    with AudioHashes(tmp_path) as one, AudioHashes(tmp_path) as two:
        one.remember(paths[0], paths[0].stat(), "0" * 64)
        two.remember(paths[0], paths[0].stat(), "0" * 64)
        two.remember(paths[1], paths[1].stat(), "1" * 64)
        two.remember_duration(paths[0], paths[0].stat(), 1.5)
    os.utime(paths[1], (2000, 2000))
    with AudioHashes(tmp_path) as known:
        assert [known.find(path) for path in paths] == ["0" * 64, None, None]
        assert [known.seen(path) for path in paths] == [True, True, False]
        assert known.find_duration(paths[0]) == 1.5
        known.remember(paths[2], paths[2].stat(), "2" * 64)
        assert known.seen(paths[2])
    # whoever only reads leaves no file
    assert len(list((tmp_path / "audio").iterdir())) == 3


def test_damage_costs_time_alone(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("audio")
    os.utime(path, (1000, 1000))
    with AudioHashes(tmp_path) as known:
        known.remember(path, path.stat(), "1" * 64)
    (file,) = (tmp_path / "audio").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with AudioHashes(tmp_path) as known:
        assert known.find(path) is None
        known.remember(path, path.stat(), "1" * 64)
    with AudioHashes(tmp_path) as known:
        assert known.find(path) == "1" * 64


def test_what_cannot_be_read_or_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "audio").write_text("in the way")
    with pytest.raises(SuperbError, match=r"audio cannot be used.*Delete it.*--cache-dir"):
        AudioHashes(tmp_path / "file")

    def full(handle, data, offset):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.wav"
    path.write_text("audio")
    os.utime(path, (1000, 1000))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SuperbError, match="No space left"), AudioHashes(tmp_path) as known:
        known.remember(path, path.stat(), "1" * 64)
