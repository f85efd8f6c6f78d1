"""Recordings that come with the package, for the report, which knows no corpus by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from benchmark.core import Corpus
from benchmark.registry import load_attribute
from downstreams.corpora import CORPORA
from leaderboard.read.board import Table


def bundled_recordings(table: Table) -> Mapping[str, bytes]:
    """Encoded audio of a table's test utterances by id; nothing for a corpus that is not bundled.

    The corpus has to be the one that was tested, by content.

    Raises:
        SuperbError: when a file of the bundled corpus is damaged.
    """
    entry = CORPORA.get(table.corpus)
    if entry is None or entry.where != "bundled" or table.downstream not in entry.tasks:
        return {}
    corpus = _load(entry.target, table.downstream)
    if corpus.sha256 != table.corpus_sha256:
        return {}
    return {
        utterance.id: utterance.audio
        for utterance in corpus.utterances
        if utterance.split == "test" and isinstance(utterance.audio, bytes)
    }


@cache
def _load(target: str, task: str) -> Corpus:
    corpus: Corpus = load_attribute(target)(task)
    return corpus
