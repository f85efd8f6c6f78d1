"""What recordings are: their length, and whether they are still the same. Opened once, remembered.

A corpus is told from another by names and sizes of files, so that a thousand hours start within
seconds (`downstreams.corpora.content_sha256`). Audio that was changed in place and kept its size,
as plain WAV does, is found here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmark.audio import audio_sha256
from benchmark.core import Utterance
from benchmark.errors import AudioError
from benchmark.features import duration_s
from benchmark.store import AudioHashes


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
            if not isinstance(audio, Path) or utterance.span is not None:
                seconds[utterance.id] = duration_s(utterance)
                continue
            found = known.find_duration(audio)
            if found is None:
                status = audio.stat() if audio.is_file() else None
                found = duration_s(utterance)
                if status is not None and found:
                    known.remember_duration(audio, status, found)
            seconds[utterance.id] = found
    return seconds


def file_hashes(utterances: Iterable[Utterance], cache_dir: Path) -> dict[Path, str]:
    """SHA-256 of the bytes of each audio file, in order; "" for one that cannot be read.

    Only files that are new or changed since they were last hashed are read. Audio in memory or in
    a table is no file.

    Args:
        utterances: of a corpus.
        cache_dir: the folder of all stores.

    Raises:
        SuperbError: when the cache folder cannot be used.
    """
    hashes: dict[Path, str] = {}
    with AudioHashes(cache_dir) as known:
        for path in _files(utterances):
            found = known.find(path)
            if found is None:
                try:
                    status = path.stat()
                    found = audio_sha256(path)
                    known.remember(path, status, found)
                except (OSError, AudioError):
                    found = ""
            hashes[path] = found
    return hashes


def joint_sha256(hashes: Mapping[Path, str]) -> str | None:
    """One hash of all files, in order; None where there are none."""
    text = "\n".join(hashes.values())
    return hashlib.sha256(text.encode()).hexdigest() if hashes else None


def any_known(utterances: Iterable[Utterance], cache_dir: Path) -> bool:
    """Whether audio files were hashed before, in this state or another."""
    with AudioHashes(cache_dir) as known:
        return any(known.seen(path) for path in _files(utterances))


def _files(utterances: Iterable[Utterance]) -> list[Path]:
    return list(dict.fromkeys(u.audio for u in utterances if isinstance(u.audio, Path)))
