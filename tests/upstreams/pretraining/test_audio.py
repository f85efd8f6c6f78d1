"""Recordings become batches of equal-length crops, the same ones for the same seed and step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
import torch

from benchmark.errors import AudioError, SuperbError
from upstreams.pretraining import audio
from upstreams.pretraining.audio import Stream, hold_out, measure, read_crop, scan

RATE = 16_000


@pytest.fixture
def clips(speech):
    return scan([speech])


def test_scanning_finds_all_files_with_speakers_and_lengths(clips):
    assert len(clips) == 12
    assert {clip.speaker for clip in clips} == {"10", "11", "12", "13"}
    assert sorted(clip.samples for clip in clips)[0] == int(1.2 * RATE)


@pytest.mark.parametrize(
    ("name", "speaker"),
    [
        ("84/121123/84-121123-0000.flac", "84"),
        ("103-1240-0000.opus", "103"),
        ("1272_1272-128104-0000.opus", "1272"),
        ("id10001/xyz/00001.wav", "id10001"),
        ("alexa_17.opus", "alexa_17.opus"),
    ],
)
def test_speakers_are_read_from_usual_names_only(tmp_path, babble, name, speaker):
    path = (tmp_path / name).with_suffix(".wav")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, babble(0, 1.0), RATE)
    (clip,) = scan([tmp_path])
    assert clip.speaker == speaker.replace(".opus", ".wav")


def test_a_pattern_of_ones_own_finds_the_speaker(tmp_path, babble):
    soundfile.write(tmp_path / "take7_of_ada.wav", babble(0, 1.0), RATE)
    (clip,) = scan([tmp_path], r"_of_(\w+)\.")
    assert clip.speaker == "ada"


@pytest.mark.parametrize("pattern", ["(", "no group"])
def test_a_bad_pattern_is_refused(speech, pattern):
    with pytest.raises(SuperbError, match="--speakers"):
        scan([speech], pattern)


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(SuperbError, match="no such folder"):
        scan([tmp_path / "nowhere"])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SuperbError, match="holds no audio"):
        scan([tmp_path])


def test_a_folder_given_twice_or_inside_another_is_refused(speech):
    for folders in ([speech, speech], [speech, speech / "10"], [speech / "10", speech]):
        with pytest.raises(SuperbError, match="give each folder once"):
            scan(folders)


def test_files_that_are_no_audio_are_counted_and_named(tmp_path, babble):
    soundfile.write(tmp_path / "good.wav", babble(0, 1.0), RATE)
    (tmp_path / "bad.wav").write_bytes(b"RIFF what is this")
    with pytest.raises(AudioError, match=r"1 of 2 files.*bad\.wav"):
        scan([tmp_path])


def test_a_crop_is_that_stretch_of_the_file(clips):
    whole, rate = soundfile.read(clips[0].audio, dtype="float32")
    assert rate == RATE
    crop = read_crop(clips[0], 3200, 8000)
    np.testing.assert_array_equal(crop.numpy(), whole[3200:11200])


def test_other_rates_and_stereo_become_mono_at_16_khz(tmp_path):
    time = np.arange(44_100) / 44_100
    both = np.stack([np.sin(2 * np.pi * 440 * time), np.zeros_like(time)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, 44_100)
    clip = measure(tmp_path / "a.wav", "x")
    assert clip.samples == RATE
    crop = read_crop(clip, 1600, 8000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * (np.arange(8000) + 1600) / RATE)
    assert np.abs(crop.numpy() - expected)[100:-100].max() < 0.01


def test_a_file_cut_after_it_was_scanned_is_an_error(tmp_path, babble):
    path = tmp_path / "a.wav"
    soundfile.write(path, babble(0, 2.0), RATE)
    clip = measure(path, "x")
    soundfile.write(path, babble(0, 1.0), RATE)
    with pytest.raises(AudioError, match=r"a\.wav.*Repair it and type the command again"):
        read_crop(clip, 0, clip.samples)
    path.unlink()
    with pytest.raises(AudioError, match=r"a\.wav"):
        read_crop(clip, 0, 100)


def test_a_batch_is_full_of_equal_lengths_and_within_its_seconds(clips):
    stream = Stream(clips, batch_seconds=4.0, crop_seconds=1.5, seed=0)
    for plan in stream.epoch(0):
        assert len(plan.crops) * plan.samples <= 4.0 * RATE
        assert plan.samples <= 1.5 * RATE
        for crop in plan.crops:
            assert crop.start % audio.HOP_SAMPLES == 0
            assert crop.start + plan.samples <= clips[crop.clip].samples


@pytest.mark.parametrize("seconds", [0.001, 0.02, 1e-9])
def test_batches_with_room_for_less_than_a_crop_hold_one(clips, seconds):
    plans = Stream(clips, seconds, crop_seconds=1.5, seed=0).epoch(0)
    assert sorted(plan.crops[0].clip for plan in plans) == list(range(12))
    assert all(len(plan.crops) == 1 for plan in plans)


def test_an_epoch_hears_every_clip_once_and_epochs_differ(clips):
    stream = Stream(clips, batch_seconds=4.0, crop_seconds=9.0, seed=0)
    heard = [crop.clip for plan in stream.epoch(0) for crop in plan.crops]
    assert sorted(heard) == list(range(12))
    assert stream.epoch(0) == stream.epoch(0)
    assert stream.epoch(0) != stream.epoch(1)
    assert stream.epoch(0) != Stream(clips, 4.0, 9.0, seed=1).epoch(0)


def test_batches_from_a_step_on_are_those_of_a_run_from_the_start(clips):
    stream = Stream(clips, batch_seconds=4.0, crop_seconds=1.5, seed=3)
    everything = list(itertools.islice(stream.batches(), 9))
    later = list(itertools.islice(stream.batches(start=6), 3))
    for one, other in zip(everything[6:], later, strict=True):
        assert torch.equal(one.waveforms, other.waveforms)
        assert torch.equal(one.speakers, other.speakers)


def test_processes_share_the_batches_out(clips):
    stream = Stream(clips, batch_seconds=4.0, crop_seconds=1.5, seed=3)
    plans = list(itertools.islice(stream.plans(), 8))
    assert list(itertools.islice(stream.plans(0, 2), 4)) == plans[0::2]
    assert list(itertools.islice(stream.plans(1, 2), 4)) == plans[1::2]


def test_an_error_while_decoding_ahead_reaches_the_caller(tmp_path, babble):
    for index in range(3):
        soundfile.write(tmp_path / f"{index}.wav", babble(index, 1.0), RATE)
    stream = Stream(scan([tmp_path]), 1.0, 1.0, seed=0)
    (tmp_path / "1.wav").unlink()
    with pytest.raises(AudioError, match=r"1\.wav"):
        list(itertools.islice(stream.batches(), 3))


def test_held_out_clips_are_apart_and_at_least_one(clips):
    train, held = hold_out(clips, 0.02, seed=0)
    assert len(held) == 1
    assert len(train) == 11
    assert held[0] not in train
    with pytest.raises(SuperbError, match="at least 2 usable clips"):
        hold_out(clips[:1], 0.02, seed=0)
