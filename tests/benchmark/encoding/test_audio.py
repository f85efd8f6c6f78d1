"""Decoding: formats, rates, channels, and every way a file can be bad."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from benchmark.encoding.audio import audio_sha256, audio_size, decode
from benchmark.errors import AudioError

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def encoded(
    samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "FLOAT", 1e-6),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.1),
    ],
)
def test_formats_give_the_same_waveform(tmp_path, format, subtype, tolerance):
    data = encoded(tone(), format=format, subtype=subtype)
    path = tmp_path / f"ä ton.{format.lower()}"
    path.write_bytes(data)
    from_bytes = decode(data, RATE, name="x")
    assert from_bytes.dtype == torch.float32
    assert from_bytes.shape == (RATE // 2,)
    assert torch.equal(from_bytes, decode(path, RATE, name="x"))
    middle = slice(2000, 6000)  # lossy codecs fade in
    assert np.abs(from_bytes.numpy()[middle] - tone()[middle]).max() < tolerance


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(rate):
    waveform = decode(encoded(tone(rate=rate), rate=rate), RATE, name="x")
    assert abs(len(waveform) - RATE // 2) <= 1
    middle = slice(1000, 7000)
    assert np.abs(waveform.numpy()[middle] - tone()[: len(waveform)][middle]).max() < 0.01


def test_channels_are_averaged():
    left = tone()
    stereo = decode(encoded(np.stack([left, -0.5 * left], axis=1)), RATE, name="x")
    assert stereo.shape == (RATE // 2,)
    assert np.abs(stereo.numpy() - 0.25 * left).max() < 1e-4


def bad_float(value: float) -> bytes:
    samples = tone()
    samples[100] = value
    return encoded(samples, subtype="FLOAT")


@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        (bad_float(np.nan), "not finite", "1 samples that are NaN or infinite"),
        (bad_float(np.inf), "not finite", "of 8000"),
        (encoded(tone(0.0)), "empty", "no samples"),
        (b"", "empty", "no samples"),
        (b"this is no audio at all, but text\n" * 9, "unreadable", "cannot decode .*clip-7: "),
        (encoded(tone())[:8000], "truncated", "promises more"),
        (encoded(tone(), format="FLAC")[:3000], "unreadable", "cannot decode"),
        (encoded(tone(), format="OGG", subtype="VORBIS")[:900], "truncated", "ends within a page"),
        (encoded(tone(0.01)), "too short", "160 samples at 16000 Hz, the encoder needs 400"),
    ],
)
@pytest.mark.parametrize("stored", ["bytes", "file"])
def test_bad_audio_is_one_clear_error(tmp_path, data, reason, says, stored):
    audio: Path | bytes = data
    if stored == "file":
        audio = tmp_path / "clip-7"
        audio.write_bytes(data)
    with pytest.raises(AudioError, match=says) as caught:
        decode(audio, RATE, name="clip-7", min_samples=400)
    assert caught.value.reason == reason
    assert "clip-7" in str(caught.value)


def test_missing_file_names_id_and_path(tmp_path):
    with pytest.raises(AudioError, match=r"no audio file at speaker-3 \(.*gone\.wav\)") as caught:
        decode(tmp_path / "gone.wav", RATE, name="speaker-3")
    assert caught.value.reason == "missing file"
    with pytest.raises(AudioError, match="no audio file") as caught:
        audio_sha256(tmp_path / "gone.wav")
    assert caught.value.reason == "missing file"


def test_a_wav_from_a_pipe_has_no_length_in_its_header():
    data = bytearray(encoded(tone()))
    position = data.index(b"data") + 4
    data[position : position + 4] = b"\xff\xff\xff\xff"
    data[4:8] = b"\xff\xff\xff\xff"
    assert len(decode(bytes(data), RATE, name="x")) == RATE // 2


def test_length_is_counted_at_the_encoders_rate():
    data = encoded(tone(0.03, rate=8_000), rate=8_000)  # 240 samples, 480 at 16 kHz
    assert len(decode(data, RATE, name="x", min_samples=480)) == 480


def test_hash_is_of_the_stored_bytes(tmp_path):
    data = encoded(tone())
    (tmp_path / "a.wav").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert audio_sha256(data) == audio_sha256(tmp_path / "a.wav") == expected


@pytest.mark.parametrize(
    ("format", "subtype", "tolerance"),
    [("WAV", "PCM_16", 0), ("FLAC", "PCM_16", 0), ("OGG", "VORBIS", 1e-3), ("MP3", None, 0)],
)
def test_a_span_is_the_part_that_it_names(format, subtype, tolerance):
    data = encoded(tone(2.0), format=format, subtype=subtype)
    whole = decode(data, RATE, name="x")
    part = decode(data, RATE, name="x", span=(0.625, 1.0))
    assert part.shape == (RATE,)
    assert float((part - whole[10_000:26_000]).abs().max()) <= tolerance


def test_a_span_is_in_seconds_at_any_rate(tmp_path):
    data = encoded(tone(2.0, rate=44_100), rate=44_100)
    (tmp_path / "a.wav").write_bytes(data)
    part = decode(tmp_path / "a.wav", RATE, name="x", span=(0.5, 0.75))
    assert abs(len(part) - 12_000) <= 1
    whole = decode(data, RATE, name="x")
    middle = slice(500, 11_000)  # resampling has an end of its own here
    assert float((part[middle] - whole[8000:20_000][middle]).abs().max()) < 1e-3


def test_a_span_may_be_the_whole_file():
    data = encoded(tone(0.5))
    assert torch.equal(decode(data, RATE, name="x", span=(0.0, 0.5)), decode(data, RATE, name="x"))


@pytest.mark.parametrize("span", [(0.4, 0.2), (0.6, 0.1), (-0.1, 0.2), (0.1, 0.0), (0.1, -0.05)])
def test_a_span_outside_the_file_is_an_error(span):
    with pytest.raises(
        AudioError, match=r"x lasts 0\.5 s; the .* s from .* s are not in it"
    ) as caught:
        decode(encoded(tone(0.5)), RATE, name="x", span=span)
    assert caught.value.reason == "too short"


def test_a_span_of_a_file_that_was_cut_is_an_error():
    data = encoded(tone(0.5))
    with pytest.raises(AudioError, match="truncated"):
        decode(data[: len(data) // 2], RATE, name="x", span=(0.0, 0.1))


def test_size_needs_no_reading(tmp_path):
    data = encoded(tone())
    (tmp_path / "a.wav").write_bytes(data)
    assert audio_size(data) == audio_size(tmp_path / "a.wav") == len(data)
    with pytest.raises(AudioError, match="no audio file at") as caught:
        audio_size(tmp_path / "gone.wav")
    assert caught.value.reason == "missing file"
