"""Faults of recordings."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from benchmark.encoding.audio import decode
from benchmark.errors import AudioError
from tests.faults.case import fault, manifest, record, refused, rows, run, superb
from tests.made import RATE

Samples = NDArray[np.float64] | NDArray[np.int16]


def wave(seconds: float = 1.0, rate: int = RATE, level: float = 0.3) -> Samples:
    """A tone, the truth that decoding is held against."""
    samples: Samples = level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return samples


def encoded(
    samples: Samples, rate: int = RATE, container: str = "WAV", subtype: str | None = None
) -> bytes:
    """The bytes of an audio file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def patched(data: bytes, place: int, new: bytes) -> bytes:
    """Some bytes replaced."""
    return data[:place] + new + data[place + len(new) :]


def bad(audio: bytes | Path, reason: str, says: str = "clip-7", **asked: int) -> None:
    """Decoding fails for one of these reasons and says so."""
    with pytest.raises(AudioError, match=says) as caught:
        decode(audio, RATE, name="clip-7", **asked)
    assert caught.value.reason in reason.split(", "), caught.value
    assert "clip-7" in str(caught.value)


def near(audio: bytes | Path, truth: Samples, most: float, longer: int = 0, edge: int = 0) -> None:
    """Decoding gives this waveform; some codecs fill up the last block, resampling has edges."""
    got = decode(audio, RATE, name="clip-7").numpy()
    assert len(truth) <= len(got) <= len(truth) + longer, (len(got), len(truth))
    middle = slice(edge, len(truth) - edge)
    worst = float(np.abs(got[: len(truth)] - truth)[middle].max())
    assert worst <= most, worst


def corpus(folder: Path, audio: Mapping[str, bytes] | None = None) -> Path:
    """Sixty tones, some of them replaced."""
    own = rows()
    record(folder, own)
    for name, data in (audio or {}).items():
        (folder / name).write_bytes(data)
    return manifest(folder, own)


# Cut, damaged, joined --------------------------------------------------------------------------


@fault("an MP3 cut off in the middle", "refused as truncated; its decoder says nothing")
def cut_mp3(folder: Path) -> None:
    whole = encoded(wave(3.0), container="MP3")
    near(whole, wave(3.0), 0.02, edge=1500)
    for size in (len(whole) - 20, len(whole) // 2, len(whole) // 9):
        bad(whole[:size], "truncated", "ends within a frame|promises more")
    first = "ada-yes-0.wav"  # its name does not matter
    answer = superb("data", "check", corpus(folder, {first: whole[: len(whole) // 2]}), "-q")
    assert answer.code == 1, answer
    assert "truncated" in answer.out, answer
    assert answer.err == "", answer


@fault("a damaged frame within an MP3", "what its decoder says reaches no terminal")
def chatter(folder: Path) -> None:
    whole = encoded(wave(3.0), container="MP3")
    middle = whole.index(b"\xff\xf3", len(whole) // 2) + 8
    spoilt = patched(whole, middle, bytes(range(255, 155, -1)))
    answer = superb("data", "check", corpus(folder, {"ada-yes-0.wav": spoilt}), "-q")
    assert answer.err == "", answer


@fault("an MP3 cut at a frame, zeroed behind, or two in one file", "refused, with the reason")
def frames_of_mp3(folder: Path) -> None:
    whole = encoded(wave(3.0), container="MP3")
    frame = whole.index(b"\xff\xf3", len(whole) // 2)
    bad(whole[:frame], "truncated", "promises more")
    bad(whole[:frame] + bytes(len(whole) - frame), "unreadable", "from byte")
    bad(whole + whole, "unreadable", "its header says")


@fault("an MP3 with tags before, behind and between its frames", "decoded whole")
def tags_of_mp3(folder: Path) -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
    whole = encoded(wave(3.0), container="MP3")
    near(tag + whole + b"TAG" + bytes(125), wave(3.0), 0.02, edge=1500)


@fault("an MP3 of variable bitrate without a note of its length", "refused: its end would be lost")
def unknown_length_of_mp3(folder: Path) -> None:
    level = np.repeat(np.random.default_rng(1).uniform(0, 1, 30), 1600)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    whole = encoded(noise * level, container="MP3")
    bad(whole[whole.index(b"\xff\xf3", 4) :], "unreadable", "variable bitrate")


@fault("an Ogg file (Vorbis, Opus) cut anywhere", "refused as truncated")
def cut_ogg(folder: Path) -> None:
    for subtype in ("VORBIS", "OPUS"):
        whole = encoded(wave(10.0), container="OGG", subtype=subtype)
        last = whole.rindex(b"OggS")
        for size in (len(whole) - 1, last, len(whole) // 2):
            bad(whole[:size], "truncated", "within a page|last page is not there")


@fault("a changed byte in an Ogg or FLAC file, or a second Ogg stream", "refused")
def damaged_streams(folder: Path) -> None:
    for container, subtype in (("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")):
        whole = encoded(wave(10.0), container=container, subtype=subtype)
        bad(patched(whole, len(whole) // 2, b"\x00\xff\x00\xff"), "truncated, unreadable")
    two = (encoded(wave(10.0, level=level), container="OGG") for level in (0.1, 0.3))
    bad(b"".join(two), "unreadable", "several Ogg streams|a page is damaged")


@fault("a cut file of AIFF, AU, W64, RF64, CAF, NIST SPHERE, FLAC", "refused")
def cut_others(folder: Path) -> None:
    for container in ("WAV", "WAVEX", "AIFF", "AU", "W64", "RF64", "CAF", "NIST", "FLAC"):
        whole = encoded(wave(), container=container)
        near(whole, wave(), 4e-5)
        for size in (len(whole) // 2, len(whole) * 9 // 10):
            bad(whole[:size], "truncated, unreadable")


@fault("a format that does not say its length (VOC, MAT, PVF)", "refused: a cut one looks whole")
def lengthless(folder: Path) -> None:
    for container in ("VOC", "MAT4", "PVF"):
        bad(encoded(wave(), container=container), "unreadable", "does not say for sure how long")


# Nothing to hear -------------------------------------------------------------------------------


def silences() -> dict[str, bytes]:
    """One recording of each kind."""
    sound = wave(0.4)
    return {
        "ada-yes-0.wav": encoded(np.stack([sound, -sound], axis=1)),
        "ben-yes-0.wav": encoded(0 * sound),
        "cy-yes-0.wav": encoded(0 * sound + 0.25),
    }


@fault("stereo in opposite phase, silence, a constant", "counted in data check, each with figures")
def silent_check(folder: Path) -> None:
    path = corpus(folder, silences())
    answer = superb("data", "check", path, "-q")
    said = " ".join(answer.out.split())
    assert answer.code == 0, answer
    for part in ("3 warnings", "correlation of channels -1.00", "all zero", "constant 0.25"):
        assert part in said, (part, said)


@fault("the same in a run", "counted in the result's warnings, also from stored features")
def silent_run(folder: Path) -> None:
    path = corpus(folder, silences())
    for output in ("results", "again"):
        answer = run(folder, path, "ks", "-o", folder / output, "--json")
        assert answer.code == 0, answer
        said = " ".join(answer.out.split())
        assert "2 of 60 recordings hold nothing but silence" in said, said
        assert "1 of 60 recordings hold channels that cancel out" in said, said


@fault("--channel", "hears one; another run and other features, and only where it is given")
def one_channel(folder: Path) -> None:
    left, right = wave(0.4), 0.5 * wave(0.4)
    stereo = encoded(np.stack([left, right], axis=1))
    for channel, truth in ((0, left), (1, right)):
        got = decode(stereo, RATE, name="x", channel=channel).numpy()
        assert np.abs(got - truth).max() < 4e-5
    near(stereo, 0.75 * left, 4e-5)
    bad(stereo, "no such channel", "has 2 channels, counted from 0; --channel 2", channel=2)
    path = corpus(folder, {"ada-yes-0.wav": stereo})
    refused(run(folder, path, "ks", "--channel", 1), "59 of 60", "has 1 channel,")
    refused(run(folder, path, "ks", "--channel", -1), "counted from 0")
    checked = superb("data", "check", path, "-q", "--channel", 1)
    assert checked.code == 1, checked
    assert "no such channel" in checked.out, checked


# Samples ---------------------------------------------------------------------------------------


@fault("floats of another scale: 3,000, 1e30", "refused, with the peak and what to do")
def out_of_range(folder: Path) -> None:
    for level in (4.5, 3000.0, 1e30):
        loud = encoded(wave(level=level), subtype="FLOAT")
        bad(loud, "out of range", rf"up to {level:g}".replace("+", r"\+") + ".*full scale is 1")
    near(encoded(wave(level=1.5), subtype="FLOAT"), wave(level=1.5), 1e-6)
    both = np.stack([wave(level=3e3), -wave(level=3e3)], axis=1)
    bad(encoded(both, subtype="FLOAT"), "out of range")


@fault("NaN or infinite samples, or doubles beyond floats", "refused and counted")
def not_finite(folder: Path) -> None:
    for value in (np.nan, np.inf, -np.inf, 1e300):
        samples = wave()
        samples[7] = value
        bad(encoded(samples, subtype="DOUBLE"), "not finite", "has 1 samples")


STEPS = {
    "PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 1e-7, "FLOAT": 1e-7,
    "DOUBLE": 1e-7, "ULAW": 0.016, "ALAW": 0.016, "IMA_ADPCM": 0.02, "MS_ADPCM": 0.02,
    "GSM610": 0.1, "G721_32": 0.02,
}  # fmt: skip


@fault("8 to 64 bits, µ-law, A-law, ADPCM, GSM", "decoded within what the format rounds")
def sample_formats(folder: Path) -> None:
    for subtype, step in STEPS.items():
        compressed = subtype in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")
        edge = 800 if compressed else 0
        near(encoded(wave(), subtype=subtype), wave(), step, 1100 * compressed, edge)


@fault("AIFF, AU, CAF, W64, RF64, NIST SPHERE, extensible WAV", "decoded as WAV is")
def containers(folder: Path) -> None:
    numbers = np.round(wave() * 32768).astype(np.int16)
    for container in ("WAV", "AIFF", "AU", "CAF", "W64", "RF64", "NIST", "WAVEX", "FLAC"):
        near(encoded(numbers, container=container, subtype="PCM_16"), numbers / 32768, 0.0)


@fault("8, 11.025, 22.05, 44.1, 48, 96 kHz", "resampled to the same tone")
def rates(folder: Path) -> None:
    for rate in (8000, 11_025, 22_050, 44_100, 48_000, 96_000):
        near(encoded(wave(rate=rate), rate), wave(), 1e-3, 1, edge=400)


@fault("15,999 Hz, whose resampling table takes 5 GB", "resampled to the same tone at once")
def odd_rate(folder: Path) -> None:
    for rate in (15_999, 22_254, 16_001):
        near(encoded(wave(rate=rate), rate), wave(), 1e-3, 1, edge=400)


@fault("a header with 100 Hz", "refused, not stretched a hundredfold")
def absurd_rate(folder: Path) -> None:
    bad(encoded(wave(), 100), "unreadable", "100 Hz is no rate of speech")


@fault("six channels", "their mean is heard, as of two")
def six_channels(folder: Path) -> None:
    near(encoded(np.stack([k * wave() / 6 for k in range(6)], axis=1)), 2.5 / 6 * wave(), 4e-5)


# Headers ---------------------------------------------------------------------------------------


@fault("a WAV from a pipe (0xFFFFFFFF, 0x7FFFF000), a LIST before data", "decoded to its end")
def streamed_wav(folder: Path) -> None:
    whole = encoded(wave())
    place = whole.index(b"data") + 4
    for size in (0xFFFF_FFFF, 0x7FFF_F000, 0x7FFF_FFDB, 0x8000_0000):
        near(patched(whole, place, struct.pack("<I", size)), wave(), 4e-5)
    listed = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"x" * 14
    near(whole[:36] + listed + whole[36:], wave(), 4e-5)
    near(whole + b"id3 " + struct.pack("<I", 8) + bytes(8), wave(), 4e-5)


@fault("a WAV whose header was never finished (0 bytes, or the first buffer)", "refused")
def unfinished_wav(folder: Path) -> None:
    whole = encoded(wave())
    place = whole.index(b"data") + 4
    for size in (0, 1000):
        unfinished = patched(whole, place, struct.pack("<I", size))
        bad(unfinished, "unreadable", f"says {size} bytes of audio, and 32000 follow")


@fault("a FLAC from a pipe, without its length", "refused, with what to do")
def streamed_flac(folder: Path) -> None:
    whole = encoded(wave(3.0), container="FLAC")
    streamed = patched(whole, 21, bytes([whole[21] & 0xF0]) + bytes(4))
    bad(streamed, "unreadable", "does not say how long it is; write it again")
    answer = superb("data", "check", corpus(folder, {"ada-yes-0.wav": streamed}), "-q", "--quick")
    assert answer.code == 1, answer
    assert "undecodable" in answer.out, answer


def sphere(coding: str, order: str, body: bytes) -> bytes:
    """A NIST SPHERE file as LDC has them."""
    fields: Sequence[str] = (
        "NIST_1A", "   1024", "sample_rate -i 16000", "channel_count -i 1", "sample_n_bytes -i 2",
        f"sample_byte_format -s2 {order}", "sample_sig_bits -i 16", "sample_count -i 16000",
        f"sample_coding -s{len(coding)} {coding}", "end_head", "",
    )  # fmt: skip
    return "\n".join(fields).encode().ljust(1024) + body


@fault("NIST SPHERE in both orders of bytes, cut, or compressed by shorten", "decoded, or refused")
def nist_sphere(folder: Path) -> None:
    whole = np.round(wave() * 32768)
    near(sphere("pcm", "01", whole.astype("<i2").tobytes()), wave(), 4e-5)
    near(sphere("pcm", "10", whole.astype(">i2").tobytes()), wave(), 4e-5)
    bad(sphere("pcm", "01", whole.astype("<i2").tobytes()[:-2]), "truncated", "promises more")
    packed = sphere("pcm,embedded-shorten-v2.00", "01", b"ajkg\x02" + bytes(9000))
    bad(packed, "unreadable", "compressed by shorten.*sph2pipe")


@fault("a wrong extension", "decoded by content")
def wrong_extension(folder: Path) -> None:
    for container, edge in (("MP3", 1500), ("FLAC", 0), ("OGG", 1500), ("AIFF", 0)):
        path = folder / f"{container}.wav"
        path.write_bytes(encoded(wave(), container=container))
        near(path, wave(), 0.03, edge=edge)


@fault("MP4, WebM, AAC, HTML, ZIP, a Git LFS pointer named .wav", "refused by what it is")
def strangers(folder: Path) -> None:
    for start, says in (
        (b"\0\0\0\x20ftypM4A ", "MP4"),
        (b"\x1aE\xdf\xa3", "WebM"),
        (b"\xff\xf1\x60\x40", "AAC"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04", "ZIP"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ):
        bad(start + bytes(999), "unreadable", says)


@fault("a zero-byte file, a header alone, a folder, a link to itself", "refused by what it is")
def nothing(folder: Path) -> None:
    bad(b"", "empty")
    bad(encoded(wave(0)), "empty", "holds no samples")
    (folder / "a.wav").mkdir()
    (folder / "b.wav").symlink_to(folder / "b.wav")
    for name in ("a.wav", "b.wav"):
        bad(folder / name, "missing file", "no audio file at")


@fault("a clip shorter than the encoder's window", "refused, with what it needs")
def short(folder: Path) -> None:
    bad(encoded(wave(0.01)), "too short", "160 samples.*needs 400", min_samples=400)


@fault("mostly clipped audio", "counted in data check, with its share")
def clipped(folder: Path) -> None:
    square = encoded(np.clip(wave(0.4, level=9.0), -1, 1))
    answer = superb("data", "check", corpus(folder, {"ada-yes-0.wav": square}), "-q")
    assert answer.code == 0, answer
    assert "clipped" in answer.out, answer
