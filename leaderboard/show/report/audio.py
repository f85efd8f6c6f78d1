"""Recordings of the bundled corpus, as they are stored, for the few utterances that are shown."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from leaderboard.read.collect import Table

LIMIT_BYTES: Final = 1_500_000
"""Most that the recordings of one report may take, as they are written into it."""

_TYPES: Final = {b"OggS": "audio/ogg", b"fLaC": "audio/flac", b"RIFF": "audio/wav"}


def recordings(table: Table) -> Mapping[str, bytes]:
    """Encoded audio of a table's test utterances by id; nothing for a corpus that is not bundled.

    The corpus has to be the one that was tested, by content.

    Raises:
        SuperbError: when a file of the bundled corpus is damaged.
    """
    if table.corpus != "mini":
        return {}
    sha256, audio = _mini(table.downstream)
    return audio if sha256 == table.corpus_sha256 else {}


@cache
def _mini(task: str) -> tuple[str, Mapping[str, bytes]]:
    from downstreams.corpora import CORPORA
    from downstreams.corpora.mini import load

    if task not in CORPORA["mini"].tasks:
        return "", {}
    corpus = load(task)
    return corpus.sha256, {
        utterance.id: utterance.audio
        for utterance in corpus.utterances
        if utterance.split == "test" and isinstance(utterance.audio, bytes)
    }


def embed(wanted: Iterable[tuple[str, bytes]], limit_bytes: int = LIMIT_BYTES) -> dict[str, str]:
    """Data URIs by name, in the order given, until the limit is reached.

    A recording whose format browsers do not play is left out.
    """
    embedded: dict[str, str] = {}
    used = 0
    for name, audio in wanted:
        kind = _TYPES.get(audio[:4])
        if name in embedded or kind is None:
            continue
        uri = f"data:{kind};base64,{base64.b64encode(audio).decode()}"
        if used + len(uri) > limit_bytes:
            break
        used += len(uri)
        embedded[name] = uri
    return embedded
