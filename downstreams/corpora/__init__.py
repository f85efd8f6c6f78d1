"""Corpora: one file each. This table imports none of them, so that listing stays instant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmark.audio import audio_sha256
from benchmark.core import Corpus, DownstreamCard, Utterance
from benchmark.errors import SuperbError, unknown
from benchmark.registry import load_attribute

MANIFEST_SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class CorpusEntry:
    """One line of the list of corpora.

    Attributes:
        name: as typed on the command line.
        title: for tables.
        tasks: the tasks it serves.
        hours: how much audio, in words.
        licence: of the audio.
        where: how to get it, in words.
        target: ``module:attribute`` of the function from a task's name to the corpus.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    hours: str
    licence: str
    where: str
    target: str


CORPORA: Final[Mapping[str, CorpusEntry]] = {
    entry.name: entry
    for entry in (
        CorpusEntry(
            name="mini",
            title="superb mini (synthetic English)",
            tasks=("asr", "sid", "ks"),
            hours="1.4 h",
            licence="MIT",
            where="bundled",
            target="downstreams.corpora.mini:load",
        ),
    )
}


def load_corpus(name_or_path: str, card: DownstreamCard, label_from: str = "label") -> Corpus:
    """Load a corpus of the table by name, or one's own data by the path of its manifest.

    Args:
        name_or_path: a name in `CORPORA`, or a file that ends in one of `MANIFEST_SUFFIXES`.
        card: the task that is to read it.
        label_from: the manifest column that holds the label (``"speaker"`` for SID).

    Raises:
        SuperbError: for an unknown name, a task that the corpus does not serve, and whatever the
            corpus's own loader finds wrong.
    """
    entry = CORPORA.get(name_or_path)
    if entry is not None:
        if card.name not in entry.tasks:
            serving = [other.name for other in CORPORA.values() if card.name in other.tasks]
            raise SuperbError(
                f"corpus {entry.name!r} does not serve task {card.name!r}, only "
                f"{', '.join(entry.tasks)}. Corpora for {card.name}: "
                f"{', '.join(serving) or 'none'}, or your own manifest "
                f"({', '.join(MANIFEST_SUFFIXES)}) with columns "
                f"{', '.join(('audio', 'split', *card.needs))}"
            )
        corpus: Corpus = load_attribute(entry.target)(card.name)
        return corpus
    # A separator or a suffix means a file was meant; the manifest reader says what is wrong.
    if Path(name_or_path).suffix or len(Path(name_or_path).parts) > 1:
        from downstreams.corpora import manifest

        return manifest.load(Path(name_or_path), card, label_from)
    raise unknown(
        "corpus",
        name_or_path,
        CORPORA,
        hint=f"Or give the path of a manifest ({', '.join(MANIFEST_SUFFIXES)}) of your own data.",
    )


def content_sha256(utterances: Iterable[Utterance]) -> str:
    """Identity of a corpus: ids, splits, speakers, texts, labels and audio bytes, in order.

    Raises:
        AudioError: when an audio file cannot be read.
    """
    digest = hashlib.sha256()
    for utterance in utterances:
        row = (
            utterance.id,
            utterance.split,
            utterance.speaker,
            utterance.text,
            utterance.label,
            audio_sha256(utterance.audio),
        )
        # JSON keeps the cells apart whatever they contain.
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
