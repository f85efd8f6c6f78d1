"""Figures published by others, each with its source.

``published.csv`` holds them, one figure a row:

- ``score``: of the SUPERB leaderboard. Rows ``weighted-sum`` are its table; rows ``last`` are the
  values it showed before the commit that introduced the weighted sum. That those are the last
  layer's is an inference, and ``inferred`` says so.
- ``fbank`` and ``sota``: the constants of SUPERB's overall score.
- ``rerun``: how far others came out when they ran the published protocol again.

Nothing here ranks: a figure without an interval and one with an interval are not compared by order.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from leaderboard.read.board import Cell, Table

Kind = Literal["score", "fbank", "sota", "rerun"]

PROTOCOLS: Final = ("superb", "superb-s3prl")
"""Protocols that keep the published heads and budgets on the published audio."""


@dataclass(frozen=True)
class PublishedCorpus:
    """What a task of SUPERB is measured on.

    Attributes:
        name: as typed on the command line.
        test_utterances: how many its test split has.
        needs: the columns that the task reads; empty for any.
        note: what the corpus's note must say, where its answers could have been made otherwise.
        why_not: why our values are not held against published ones; empty where they are.
    """

    name: str
    test_utterances: int
    needs: tuple[str, ...] = ()
    note: str = ""
    why_not: str = ""


PUBLISHED_CORPORA: Final = {
    "asr": PublishedCorpus("librispeech", 2_620),
    "sid": PublishedCorpus("voxceleb1", 8_251),
    "ks": PublishedCorpus("speech-commands-v1", 3_081),
    "pr": PublishedCorpus(
        "librispeech",
        2_620,
        note="phones from librispeech-lexicon-200k-g2p.txt and "
        "librispeech-lexicon-allothers-g2p.txt",
    ),
    "ic": PublishedCorpus("fluent-speech-commands", 3_793, ("action", "object", "location")),
    "sf": PublishedCorpus("audio-snips", 2_800),
    "er": PublishedCorpus("iemocap", 5_531),
    "asv": PublishedCorpus("voxceleb1-verification", 37_720),
    "sd": PublishedCorpus("libri2mix", 3_000),
    "qbe": PublishedCorpus(
        "quesst14",
        336_444,
        why_not="published values of qbe count queries in other languages as missed; ours are over "
        "the English ones alone",
    ),
}
"""Task → corpus; numbers as the corpora give them (test-clean, iden_split.txt, test set v0.01; four
voices of 700 sentences; all five sessions; trials of voxceleb1_test_v2.txt; queries times
documents)."""

LOWER_IS_BETTER: Final = frozenset({"wer", "wer_lm", "per", "slot_cer", "eer", "der"})
"""Published metrics that count errors; of the others, more is better."""


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes:
        figure: what it is.
        upstream: our name of the same encoder; "" when there is none.
        row: the name it was published under; "" for figures that belong to no encoder.
        parameters_millions: as published; None when it was not.
        task: ours where we have it, otherwise its usual abbreviation in lower case.
        metric: likewise; in percent, except ``mtwv``, which is times 100.
        layer: ``last``, ``weighted-sum``, or "" where it does not matter.
        inferred: True when the layer is our reading and was not said.
        value: as published.
        source: where it stands.
        remark: what else must be known of it.
    """

    figure: Kind
    upstream: str
    row: str
    parameters_millions: float | None
    task: str
    metric: str
    layer: str
    inferred: bool
    value: float
    source: str
    remark: str


@cache
def load_published() -> tuple[Figure, ...]:
    """Every figure of ``published.csv``, in its order."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(_figure(row) for row in csv.DictReader(stream))


def _figure(row: dict[str, Any]) -> Figure:
    size = row["parameters_millions"]
    typed = {
        "parameters_millions": float(size) if size else None,
        "inferred": row["inferred"] == "yes",
        "value": float(row["value"]),
    }
    return Figure(**{**row, **typed})


@cache
def find_figure(figure: Kind, task: str, metric: str) -> Figure | None:
    """The constant or tolerance of a task; None when there is none."""
    wanted = (figure, task, metric)
    found = (f for f in load_published() if (f.figure, f.task, f.metric) == wanted)
    return next(found, None)


def is_published_setting(table: Table, cell: Cell | None = None) -> bool:
    """True for a table on the published audio under a protocol that keeps heads and budgets.

    Args:
        table: of a task.
        cell: one of its scores, to see that it was scored on the whole test split.
    """
    corpus = PUBLISHED_CORPORA.get(table.downstream)
    if corpus is None or table.corpus != corpus.name or table.protocol not in PROTOCOLS:
        return False
    if corpus.why_not:
        return False
    if table.skipped or corpus.note not in table.corpus_note:
        return False
    if corpus.needs and table.needs != corpus.needs:
        return False
    scores = [] if cell is None else list(cell.metrics.values())
    return all(score["utterances"] == corpus.test_utterances for score in scores)
