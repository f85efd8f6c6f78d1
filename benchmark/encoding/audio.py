"""Audio files to waveforms: one decoder for every corpus and every encoder.

Nothing is repaired: a file that cannot be decoded whole is an error, never a shorter clip.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import AudioError

if TYPE_CHECKING:
    import numpy as np
    import soundfile
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmark.core import StoredAudio

    Array = NDArray[np.float32]

# libsndfile reads a cut WAV file to its end and says so only here.
_CUT = re.compile(r"^\s*data : (\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that write WAV to a pipe cannot know the length and put a huge one.
_LENGTH_UNKNOWN = 0x7F00_0000


def decode(
    audio: Path | bytes | StoredAudio,
    sample_rate: int,
    *,
    name: str,
    min_samples: int = 1,
    span: tuple[float, float] | None = None,
) -> Tensor:
    """Read audio as one mono waveform at the rate an encoder wants.

    Args:
        audio: a file, the bytes of one, or where to read them, in any format that soundfile reads.
        sample_rate: Hz of the result; audio at another rate is resampled.
        name: how errors call it, e.g. the utterance's id.
        min_samples: shortest allowed result, in samples at `sample_rate`.
        span: the part that is wanted, as (first second, seconds); None for all. Nothing else is
            read, so that what resampling does at its ends depends on nothing else.

    Returns:
        float32 ``[sample]``, the mean of all channels.

    Raises:
        AudioError: for a missing, unreadable, truncated or empty file, for NaN or infinite
            samples, for a span that is not in the file, and for less than `min_samples`; its
            ``reason`` says which.
    """
    # Seconds to import; whoever only hashes audio does not pay.
    import numpy as np
    import torch

    audio = _at_hand(audio, name)
    channels, rate = _read(audio, name, span)
    # numpy, not torch: on clips this short, waking threads costs more than the work.
    mono = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    if mono.size == 0:
        raise _no_samples(audio, name)
    bad = mono.size - int(np.isfinite(mono).sum())
    if bad:
        raise AudioError(
            f"{_where(audio, name)} has {bad} samples that are NaN or infinite "
            f"(of {mono.size}); write the file again with finite samples",
            reason="not finite",
        )
    waveform = torch.from_numpy(np.ascontiguousarray(mono))
    if rate != sample_rate:
        import torchaudio

        waveform = torchaudio.functional.resample(waveform, rate, sample_rate)
    samples = waveform.numel()
    if samples < min_samples:
        raise AudioError(
            f"{_where(audio, name)} is too short: {samples} samples at {sample_rate} Hz, the "
            f"encoder needs {min_samples} ({min_samples / sample_rate * 1000:.1f} ms); "
            "drop it from the corpus",
            reason="too short",
        )
    return waveform


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
        with soundfile.SoundFile(io.BytesIO(audio) if isinstance(audio, bytes) else audio) as file:
            expected, declared = file.frames, _CUT.search(file.extra_info)
            # The length of an MP3 file is an estimate unless its encoder left a note.
            exact = file.format != "MP3"
            rate = int(file.samplerate)
            lead, count = 0, -1
            if span is not None:
                lead, count = _seek(file, audio, name, span)
                expected = count - lead
            channels = np.asarray(
                file.read(count, dtype="float32", always_2d=True)[lead:], dtype=np.float32
            )
    except (soundfile.SoundFileError, OSError) as error:
        if _size(audio) == 0:
            raise _no_samples(audio, name) from error
        what = str(error).rpartition(": ")[2].rstrip(".")
        raise AudioError(
            f"cannot decode {_where(audio, name)}: {what}. "
            "Formats that work: WAV, FLAC, Ogg Vorbis, Ogg Opus, MP3, AIFF and whatever else "
            "soundfile reads",
            reason="unreadable",
        ) from error
    cut = declared is not None and int(declared[2]) < int(declared[1]) < _LENGTH_UNKNOWN
    if cut or (exact and len(channels) < expected):
        raise AudioError(
            f"{_where(audio, name)} is truncated: its header promises more audio than the file "
            "holds; copy or download it again",
            reason="truncated",
        )
    return channels, rate


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
    if file.format == "MP3":  # what it decodes to in one place depends on what came before
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
