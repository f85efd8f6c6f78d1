"""Audio files to waveforms: one decoder for every corpus and every encoder.

Nothing is repaired: a file that cannot be decoded whole is an error, never a shorter clip.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmark.encoding.containers import find_fault, is_mpeg
from benchmark.errors import AudioError

if TYPE_CHECKING:
    import numpy as np
    import soundfile
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmark.core import StoredAudio

    Array = NDArray[np.float32]

# Lossy decoders and resampling exceed full scale (1) by a half; integers kept as floats, by
# far more than this.
MOST_PEAK: Final = 4.0
# 70 dB below full scale: under the quietest speech and the background of a quiet room, which tasks
# may have a class for, and far above the noise of 16-bit rounding.
SILENT_RMS: Final = 10 ** (-70 / 20)
# Of the channels' power, what is left in their mean when they are one signal with opposite signs.
CANCELLED_SHARE: Final = 0.01

# libsndfile reads a cut file of these to its end and says so only here.
_CUT = re.compile(
    r"^\s*(?:data|SSND|Data Size  |riff|Riff size) : (\d+) \(should be (\d+)\)", re.MULTILINE
)
# Programs that write to a pipe cannot know the length and put a huge one, as libsndfile does
# where none is given.
_LENGTH_UNKNOWN = 0x7F00_0000
# Those that say how long they are; of others, a cut one looks like a short one.
_CONTAINERS: Final = frozenset(
    {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3"}
)
_WORKING: Final = (
    "Formats that work: WAV, RF64, W64, AIFF, AU, CAF, NIST SPHERE, FLAC, Ogg Vorbis, Ogg Opus, MP3"
)
_LEAST_RATE: Final = 4_000
# Beyond what any converter does; from a header's 2^31 the filter alone would take minutes.
_MOST_RATE: Final = 1_000_000
# Of the table that torchaudio makes for two rates; of odd ones it would take gigabytes.
_MOST_WEIGHTS: Final = 2**24


@dataclass(frozen=True)
class Sound:
    """What decoding gives.

    Attributes:
        waveform: float32 ``[sample]``.
        oddity: ``silent`` or ``cancelled`` (only the mean of the channels is), with a figure; ""
            for audio that can be heard.
    """

    waveform: Tensor
    oddity: str = ""


def decode(
    audio: Path | bytes | StoredAudio,
    sample_rate: int,
    *,
    name: str,
    min_samples: int = 1,
    span: tuple[float, float] | None = None,
    channel: int | None = None,
) -> Tensor:
    """The waveform of `hear` alone."""
    return hear(
        audio, sample_rate, name=name, min_samples=min_samples, span=span, channel=channel
    ).waveform


def hear(
    audio: Path | bytes | StoredAudio,
    sample_rate: int,
    *,
    name: str,
    min_samples: int = 1,
    span: tuple[float, float] | None = None,
    channel: int | None = None,
) -> Sound:
    """Read audio as one mono waveform at the rate an encoder wants.

    Args:
        audio: a file, the bytes of one, or where to read them, in a format that says its length.
        sample_rate: Hz of the result; audio at another rate is resampled.
        name: how errors call it, e.g. the utterance's id.
        min_samples: shortest allowed result, in samples at `sample_rate`.
        span: the part that is wanted, as (first second, seconds); None for all. Nothing else is
            read, so that what resampling does at its ends depends on nothing else.
        channel: the one that is heard, counted from 0; the mean of all if None.

    Raises:
        AudioError: for a missing, unreadable, truncated or empty file, for NaN or infinite
            samples or any beyond `MOST_PEAK`, for a span or a channel that is not in the file, and
            for less than `min_samples`; its ``reason`` says which.
    """
    # Seconds to import; whoever only hashes audio does not pay.
    import numpy as np
    import torch

    audio = _at_hand(audio, name)
    channels, rate = _read(audio, name, span)
    count = channels.shape[1]
    if channel is not None and not 0 <= channel < count:
        raise AudioError(
            f"{_where(audio, name)} has {count} channel{'' if count == 1 else 's'}, counted from "
            f"0; --channel {channel} is not among them",
            reason="no such channel",
        )
    if channel is not None:
        channels = channels[:, channel : channel + 1]
    # numpy, not torch: on clips this short, waking threads costs more than the work.
    with np.errstate(over="ignore", invalid="ignore"):  # what they come from is refused below
        mono = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    if mono.size == 0:
        raise _no_samples(audio, name)
    lowest, highest = float(channels.min()), float(channels.max())  # NaN if any is
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        bad = mono.size - int(np.isfinite(mono).sum())
        raise AudioError(
            f"{_where(audio, name)} has {bad} samples that are NaN or infinite "
            f"(of {mono.size}); write the file again with finite samples",
            reason="not finite",
        )
    peak = max(-lowest, highest)
    if peak > MOST_PEAK:
        raise AudioError(
            f"{_where(audio, name)} has samples of up to {peak:g}, where full scale is 1 and what "
            f"exceeds {MOST_PEAK:g} is no rounding: its samples are of another scale, as 16-bit "
            "integers kept as floats are. Divide them (by 32768 there) and write the file again",
            reason="out of range",
        )
    waveform = torch.from_numpy(np.ascontiguousarray(mono))
    if rate != sample_rate:
        waveform = _resample(waveform, rate, sample_rate)
    samples = waveform.numel()
    if samples < min_samples:
        raise AudioError(
            f"{_where(audio, name)} is too short: {samples} samples at {sample_rate} Hz, the "
            f"encoder needs {min_samples} ({min_samples / sample_rate * 1000:.1f} ms); "
            "drop it from the corpus",
            reason="too short",
        )
    # Most are loud, and two samples that far apart show it already.
    loud = count == 1 and (highest - lowest) ** 2 > 3 * mono.size * SILENT_RMS**2
    return Sound(waveform, "" if loud else _oddity(mono, channels))


def _oddity(mono: Array, channels: Array) -> str:
    """What nobody can hear: silence, a constant, or channels that cancel out in their mean."""
    import numpy as np

    # all vary by no less than a share of them does, times that share
    if channels.shape[1] == 1 and _power(mono[::32]) > 40 * SILENT_RMS**2:
        return ""
    power = _power(mono)
    if channels.shape[1] > 1:
        each = [_power(one) for one in channels.T]
        if max(each) >= SILENT_RMS**2 and power < CANCELLED_SHARE * sum(each) / len(each):
            with np.errstate(invalid="ignore"):
                correlation = float(np.nanmin(np.corrcoef(channels.T)))
            return f"cancelled, correlation of channels {correlation:.2f}"
    if power >= SILENT_RMS**2:
        return ""
    level = float(np.mean(mono, dtype=np.float64))
    if abs(level) >= SILENT_RMS:
        return f"silent, constant {level:.3g}"
    return f"silent, {10 * math.log10(power):.0f} dB" if power else "silent, all zero"


def _power(samples: Array) -> float:
    """Mean square without a constant part."""
    import numpy as np

    return float(np.var(samples, dtype=np.float64))


def _resample(waveform: Tensor, rate: int, wanted: int) -> Tensor:
    import torch
    import torchaudio

    common = math.gcd(rate, wanted)
    if (rate // common) * (wanted // common) <= _MOST_WEIGHTS:
        resampled: Tensor = torchaudio.functional.resample(waveform, rate, wanted)
        return resampled
    # The same windowed sinc (six zeros, cut-off at 0.99), weight by weight where it is not zero.
    zeros, cutoff = 6, min(rate, wanted) * 0.99
    reach = math.ceil(zeros * rate / cutoff)
    padded = torch.nn.functional.pad(waveform, (reach, reach + 1))
    out = torch.arange(-(-waveform.numel() * wanted // rate), dtype=torch.float64) * rate / wanted
    first = out.floor().long()
    total = torch.zeros(len(out), dtype=torch.float64)
    for step in range(-reach, reach + 2):
        time = ((first + step - out) * cutoff / rate).clamp(-zeros, zeros)
        weights = torch.sinc(time) * torch.cos(time * torch.pi / zeros / 2) ** 2 * cutoff / rate
        total += weights * padded[(first + step + reach).clamp(max=len(padded) - 1)]
    return total.float()


def audio_sha256(audio: Path | bytes | StoredAudio) -> str:
    """Hash the bytes of an audio file as they are stored, before any decoding.

    Raises:
        AudioError: when the file does not exist or cannot be opened.
    """
    audio = _at_hand(audio, str(audio))
    if isinstance(audio, bytes):
        return hashlib.sha256(audio).hexdigest()
    try:
        with audio.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise _missing(audio, str(audio)) from error
    except OSError as error:
        raise AudioError(f"cannot read {audio}: {error.strerror}", reason="unreadable") from error


def audio_size(audio: Path | bytes | StoredAudio) -> int:
    """The size of an audio file in bytes; no file is opened.

    Raises:
        AudioError: when the file does not exist or cannot be looked at.
    """
    if isinstance(audio, bytes):
        return len(audio)
    if not isinstance(audio, Path):
        return audio.size
    try:
        return audio.stat().st_size
    except FileNotFoundError as error:
        raise _missing(audio, str(audio)) from error
    except OSError as error:
        raise AudioError(f"cannot read {audio}: {error.strerror}", reason="unreadable") from error


def _at_hand(audio: Path | bytes | StoredAudio, name: str) -> Path | bytes:
    """A file or bytes, whatever was given."""
    if isinstance(audio, Path | bytes):
        return audio
    try:
        return audio.read()
    except OSError as error:
        raise AudioError(
            f"cannot read the audio of {name}: {error}", reason="unreadable"
        ) from error


def _read(audio: Path | bytes, name: str, span: tuple[float, float] | None) -> tuple[Array, int]:
    """The samples of a file as float32 ``[sample, channel]``, and their rate in Hz."""
    import numpy as np
    import soundfile

    if isinstance(audio, Path) and not audio.is_file():
        raise _missing(audio, name)
    try:
        _require_whole(audio, name)
        with opened(audio) as file:
            if file.format not in _CONTAINERS:
                raise soundfile.SoundFileRuntimeError(
                    f"{file.format} does not say for sure how long it is"
                )
            expected, said = file.frames, file.extra_info
            declared = _CUT.search(said) if "should be" in said else None
            rate = int(file.samplerate)
            if not _LEAST_RATE <= rate <= _MOST_RATE:
                raise soundfile.SoundFileRuntimeError(f"{rate} Hz is no rate of speech")
            lead, count = 0, -1
            if span is not None:
                lead, count = _seek(file, audio, name, span)
                expected = count - lead
            channels = np.asarray(
                # of what cannot be sought in, soundfile wants to know how much
                file.read(file.frames if count < 0 else count, dtype="float32", always_2d=True)[
                    lead:
                ],
                dtype=np.float32,
            )
    except (soundfile.SoundFileError, OSError) as error:
        if _size(audio) == 0:
            raise _no_samples(audio, name) from error
        what = str(error).rpartition(": ")[2].rstrip(".")
        raise AudioError(
            f"cannot decode {_where(audio, name)}: {what}. {_WORKING}",
            reason="unreadable",
        ) from error
    cut = declared is not None and int(declared[2]) < int(declared[1]) < _LENGTH_UNKNOWN
    if cut or len(channels) < expected:
        raise AudioError(
            f"{_where(audio, name)} is truncated: its header promises more audio than the file "
            "holds; copy or download it again",
            reason="truncated",
        )
    return channels, rate


def _require_whole(audio: Path | bytes, name: str) -> None:
    """Look at a file's own framing before a decoder does, which would read on and talk."""
    if isinstance(audio, Path):
        with audio.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise _no_samples(audio, name)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                fault = find_fault(data)
    else:
        fault = find_fault(audio)
    if fault is None:
        return
    what = "is truncated" if fault.reason == "truncated" else "cannot be used"
    raise AudioError(f"{_where(audio, name)} {what}: {fault.words}", reason=fault.reason)


_LOCK: Final = threading.Lock()
_quiet: list[int] = []  # where errors went before, once for each thread that is at it


class _Bytes(io.BytesIO):
    """Bytes as a file in which a seek to nowhere leaves the place as it is.

    A header can make libsndfile try; as it asks through C, an exception would only be printed.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


@contextmanager
def opened(audio: Path | bytes) -> Iterator[soundfile.SoundFile]:
    """A file as soundfile opens it; what libmpg123 has to say of MP3 reaches no terminal.

    It writes to the file descriptor of standard error, which is shut only while MP3 is open. What
    Python writes goes elsewhere: the command line has a descriptor of its own for it.

    Raises:
        SoundFileError: it cannot be opened.
        OSError: likewise.
    """
    import soundfile

    if isinstance(audio, Path):
        with audio.open("rb") as file:
            head = file.read(64)
    else:
        head = audio[:64]
    loud = is_mpeg(head)
    if loud:
        _shut()
    try:
        with soundfile.SoundFile(_Bytes(audio) if isinstance(audio, bytes) else audio) as file:
            if file.frames >= _LENGTH_UNKNOWN:  # FLAC from a pipe
                raise soundfile.SoundFileRuntimeError(
                    "its header does not say how long it is; write it again, not through a pipe"
                )
            yield file
    finally:
        if loud:
            _open_again()


def _shut() -> None:
    with _LOCK:
        if not _quiet:
            before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
            _quiet.append(before)
        else:
            _quiet.append(-1)


def _open_again() -> None:
    with _LOCK:
        if len(_quiet) > 1:
            _quiet.pop()
        else:
            before = _quiet.pop()
            os.dup2(before, 2)
            os.close(before)


def _seek(
    file: soundfile.SoundFile, audio: Path | bytes, name: str, span: tuple[float, float]
) -> tuple[int, int]:
    """Go to a span; how many samples to drop and how many to read, at the file's own rate."""
    first, seconds = span
    rate = int(file.samplerate)
    start, count = round(first * rate), round(seconds * rate)
    if start < 0 or count < 1 or start + count > file.frames:
        raise AudioError(
            f"{_where(audio, name)} lasts {file.frames / rate:g} s; the {seconds:g} s "
            f"from {first:g} s are not in it",
            reason="too short",
        )
    # what MP3 decodes to in one place depends on what came before, and some have no places
    if file.format == "MP3" or not file.seekable():
        return start, start + count
    file.seek(start)
    return 0, count


def _size(audio: Path | bytes) -> int:
    return len(audio) if isinstance(audio, bytes) else audio.stat().st_size


def _where(audio: Path | bytes, name: str) -> str:
    """How to call the audio in a message: by its name, and its file if that says more."""
    if isinstance(audio, bytes) or str(audio).endswith(name):
        return name if isinstance(audio, bytes) else str(audio)
    return f"{name} ({audio})"


def _missing(audio: Path, name: str) -> AudioError:
    return AudioError(
        f"no audio file at {_where(audio, name)}; check the path in the corpus",
        reason="missing file",
    )


def _no_samples(audio: Path | bytes, name: str) -> AudioError:
    return AudioError(
        f"{_where(audio, name)} holds no samples; drop it from the corpus or record it again",
        reason="empty",
    )
