"""The audio of utterances: read once, for its hash and for its samples."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import StoredAudio, UpstreamCard, Utterance
from benchmark.encoding.audio import Sound, audio_sha256, hear
from benchmark.errors import AudioError


@dataclass(frozen=True)
class Loaded:
    """Audio that has been read, or needs not be to know its hash."""

    audio: Path | bytes | StoredAudio
    sha256: str
    status: os.stat_result | None = None


def key_of(audio: str, span: tuple[float, float] | None) -> str:
    """The key of an utterance in a store: what its audio is, and which part of it is meant."""
    if span is None:
        return audio
    first, seconds = span
    return hashlib.sha256(f"{audio} {first!r} {seconds!r}".encode()).hexdigest()


def load(utterance: Utterance, read: dict[Path | StoredAudio, str]) -> Loaded:
    """Read audio once, for its hash and for its samples; of a span, only the span later on."""
    audio = utterance.audio
    if isinstance(audio, bytes):
        return Loaded(audio, audio_sha256(audio))
    if utterance.span is not None:
        if audio in read:
            return Loaded(audio, read[audio])
        status = audio.stat() if isinstance(audio, Path) and audio.is_file() else None
        read[audio] = audio_sha256(audio)
        return Loaded(audio, read[audio], status)
    if not isinstance(audio, Path):
        try:
            data = audio.read()
        except OSError as error:
            raise AudioError(
                f"cannot read the audio of {utterance.id}: {error}", reason="unreadable"
            ) from error
        return Loaded(data, audio_sha256(data))
    try:
        with audio.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
    except FileNotFoundError as error:
        raise AudioError(
            f"no audio file at {audio_name(utterance)}; check the path in the corpus",
            reason="missing file",
        ) from error
    except OSError as error:
        raise AudioError(
            f"cannot read {audio_name(utterance)}: {error.strerror}", reason="unreadable"
        ) from error
    return Loaded(data, audio_sha256(data), status)


def sound_of(
    utterance: Utterance, loaded: Loaded, card: UpstreamCard, channel: int | None
) -> Sound:
    """What an encoder with such a card hears of an utterance."""
    return hear(
        loaded.audio,
        card.sample_rate,
        name=audio_name(utterance),
        min_samples=card.min_samples,
        span=utterance.span,
        channel=channel,
    )


def audio_name(utterance: Utterance) -> str:
    """How messages call its audio: by its file if that says more than its id."""
    name, audio = utterance.id, utterance.audio
    if not isinstance(audio, Path):
        return name
    return str(audio) if str(audio).endswith(name) else f"{name} ({audio})"
