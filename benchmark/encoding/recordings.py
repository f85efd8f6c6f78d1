"""What recordings are: their length, and whether they are still the same. Opened once, remembered.

A corpus is told from another by names and sizes of files, so that a thousand hours start within
seconds (`downstreams.corpora.content_sha256`). Audio that was changed in place and kept its size,
as plain WAV does, is found here.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmark.core import StoredAudio, Utterance
from benchmark.encoding.audio import audio_sha256, audio_size, opened
from benchmark.encoding.audio_hashes import AudioHashes
from benchmark.errors import AudioError

_FAR_SAMPLE = 8

Hashes = Mapping[Path | StoredAudio, str]
"""Audio file → SHA-256 of its bytes."""


def durations(utterances: Iterable[Utterance], cache_dir: Path) -> dict[str, float]:
    """Seconds of each utterance.

    Opening every header of a big corpus takes minutes, so lengths are kept in the cache folder
    until a file changes. What cannot be read counts 0 and is not kept; it is found out later.

    Args:
        utterances: whose lengths are wanted.
        cache_dir: the folder of all stores.

    Returns:
        Utterance id → seconds.

    Raises:
        SuperbError: when the cache folder cannot be used.
    """
    seconds: dict[str, float] = {}
    with AudioHashes(cache_dir) as known:
        for utterance in utterances:
            audio = utterance.audio
            if isinstance(audio, bytes) or utterance.span is not None:
                seconds[utterance.id] = duration_s(utterance)
                continue
            found = known.find_duration(audio)
            if found is None:
                status = _status(audio)
                found = duration_s(utterance)
                if found:
                    known.remember_duration(audio, status, found)
            seconds[utterance.id] = found
    return seconds


def file_hashes(utterances: Iterable[Utterance], cache_dir: Path) -> Hashes:
    """SHA-256 of the bytes of each audio file, in order; "" for one that cannot be read.

    Only files that are new or changed since they were last hashed are read. Audio in memory is no
    file, and counts with its bytes in the corpus's own hash.

    Args:
        utterances: of a corpus.
        cache_dir: the folder of all stores.

    Raises:
        SuperbError: when the cache folder cannot be used.
    """
    hashes = {}
    with AudioHashes(cache_dir) as known:
        for audio in _files(utterances):
            found = known.find(audio)
            if found is None:
                status = _status(audio)
                try:
                    found = audio_sha256(audio)
                    known.remember(audio, status, found)
                except AudioError:
                    found = ""
            hashes[audio] = found
    return hashes


def joint_sha256(hashes: Hashes) -> str | None:
    """One hash of all files, in order; None where there are none."""
    text = "\n".join(hashes.values())
    return hashlib.sha256(text.encode()).hexdigest() if hashes else None


def any_known(utterances: Iterable[Utterance], cache_dir: Path) -> bool:
    """Whether audio files were hashed before, in this state or another."""
    with AudioHashes(cache_dir) as known:
        return any(known.seen(audio) for audio in _files(utterances))


def _files(utterances: Iterable[Utterance]) -> list[Path | StoredAudio]:
    return list(dict.fromkeys(u.audio for u in utterances if not isinstance(u.audio, bytes)))


def _status(audio: Path | StoredAudio) -> os.stat_result | None:
    """What the file system says of a file; None for what is none."""
    try:
        return audio.stat() if isinstance(audio, Path) else None
    except OSError:
        return None


def duration_s(utterance: Utterance) -> float:
    """Seconds of audio by the file's header; 0 when it cannot be read (found out later)."""
    if utterance.span is not None:
        return utterance.span[1]
    source = utterance.audio
    try:
        if not isinstance(source, Path | bytes):
            source = source.read()
        with opened(source) as file:
            return float(file.frames) / float(file.samplerate) if file.samplerate else 0.0
    except (RuntimeError, OSError, TypeError):
        return 0.0


def estimate_s(utterances: Sequence[Utterance], sample: int = 256) -> float:
    """Seconds of audio, from the headers of at most `sample` files and the sizes of all.

    Opening every header of a big corpus takes minutes. Files without a readable header count 0.
    Of audio across a network the first few are looked at, which are wanted first anyway.
    """
    spans = math.fsum(u.span[1] for u in utterances if u.span is not None)
    whole = [u for u in utterances if u.span is None]
    step = max(1, -(-len(whole) // sample))
    looked_at = whole[:_FAR_SAMPLE] if any(map(_far, whole[:1])) else whole[::step]
    seconds = math.fsum(map(duration_s, looked_at))
    if len(looked_at) == len(whole):
        return spans + seconds
    size = sum(map(_size, looked_at))
    return spans + (seconds / size * sum(map(_size, whole)) if size else 0.0)


def _far(utterance: Utterance) -> bool:
    return not isinstance(utterance.audio, Path | bytes) and utterance.audio.far


def _size(utterance: Utterance) -> int:
    try:
        return audio_size(utterance.audio)
    except AudioError:
        return 0
