"""What ``superb predict`` is asked about: files, folders, manifests, standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmark.core import DownstreamCard, Utterance
from benchmark.encoding import folders
from benchmark.encoding.audio import opened
from benchmark.errors import SuperbError
from downstreams.corpora import MANIFEST_SUFFIXES
from downstreams.corpora.manifest import recordings

STANDARD_INPUT: Final = "-"


def gather(names: Sequence[str], card: DownstreamCard) -> list[Utterance]:
    """The recordings behind what was typed, in that order; those of a folder by name.

    Args:
        names: paths of recordings, folders and manifests, or ``-`` for a recording on standard
            input.
        card: the task, whose columns are read of manifests.

    Raises:
        SuperbError: one does not exist, holds no recording, or is named twice.
    """
    if not names:
        raise SuperbError("no recording given: name files, folders, manifests, or - for one piped")
    found: list[Utterance] = []
    for name in names:
        found += _recordings(name, card)
    by_id: dict[str, Utterance] = {}
    for utterance in found:
        if utterance.id in by_id:
            raise SuperbError(f"{utterance.id} is given twice")
        by_id[utterance.id] = utterance
    return found


def _recordings(name: str, card: DownstreamCard) -> list[Utterance]:
    if name == STANDARD_INPUT:
        data = sys.stdin.buffer.read()
        if not data:
            raise SuperbError("standard input holds nothing: pipe a recording, cat clip.wav | …")
        return [Utterance(STANDARD_INPUT, data, "test")]
    path = Path(name).expanduser()
    if path.is_dir():
        files = folders.recordings(path)
        if not files:
            known = ", ".join(sorted(folders.SUFFIXES))
            raise SuperbError(f"no recording in the folder {name}: looked for {known}")
        return [Utterance(str(own), own, "test") for own in files]
    if not path.is_file():
        raise SuperbError(f"there is no file or folder {name}")
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return [replace(u, split="test") for u in recordings(path, card)]
    return [Utterance(name, path, "test")]


def rate_of(utterance: Utterance) -> int | None:
    """Samples per second of a recording, in Hz; None where that is not known before it is read."""
    audio = utterance.audio
    if not isinstance(audio, Path | bytes):
        return None
    with opened(audio) as file:
        return int(file.samplerate)
