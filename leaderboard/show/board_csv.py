"""A board as tidy CSV in full precision, for programs."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from typing import Any, Final

from benchmark.scoring.results import shown_score
from leaderboard.compare.contamination import judge
from leaderboard.compare.ranks import CONFIDENCE, Summary, summarise
from leaderboard.read.board import Board, Cell, Row, Table
from leaderboard.read.names import printable
from leaderboard.read.published import load_published
from leaderboard.show.escape import no_formula

_COLUMNS: Final = (
    *("kind", "downstream", "downstream_version", "corpus", "corpus_sha256", "audio_sha256"),
    *("utterances_left_out", "left_out_sha256"),
    *("protocol", "protocol_version", "protocol_sha256", "engine"),
    *("upstream", "weights", "fingerprint", "precision", "storage", "device"),
    *("family", "parameters", "macs", "throughput", "training_data", "heard"),
    *("untrained", "note", "layer", "status"),
    *("metric", "ranks", "lower_is_better", "value", "low", "high", "confidence"),
    *("clusters", "by_utterance", "utterances"),
    *("seeds", "seed_std", "not_separated_from_best"),
    *("learning_rate", "learning_rate_at_edge", "lm_sha256", "run_id", "created"),
    *("source", "remark"),
)


def board_csv(board: Board, with_published: bool = False) -> str:
    """One row per run and metric; a failed run has one row and no metric.

    `kind` tells them apart: ``measured`` runs, ``mean`` over tasks, ``published`` figures. Notes
    and files left out have no place in a table of numbers: they are in the other formats.

    Args:
        board: what to show.
        with_published: with SUPERB's published figures after the measured ones.
    """
    rows: list[dict[str, Any]] = []
    for table in board.tables:
        for row in table.rows:
            for layer in table.layers:
                if layer in row.cells:
                    rows += _run(table, row, layer, row.cells[layer])
    for summary in summarise(board):
        rows += _means(summary)
    if with_published:
        rows += _published()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for values in rows:
        writer.writerow({name: safe_cell(value) for name, value in values.items()})
    return text.getvalue()


def safe_cell(value: object) -> object:
    """A value that neither steers a terminal nor runs in a spreadsheet."""
    return no_formula(printable(value)) if isinstance(value, str) else value


def _run(table: Table, row: Row, layer: str, cell: Cell) -> Iterator[dict[str, Any]]:
    """The columns are named like the fields they hold; other fields have no column."""
    left_out = hashlib.sha256("\n".join(table.skipped).encode(errors="surrogatepass")).hexdigest()
    found = judge(row.trained_on, table.corpus)
    run = {
        **vars(table),
        **vars(row),
        **vars(cell),
        "kind": "measured",
        "downstream_version": table.version,
        "utterances_left_out": len(table.skipped),
        "left_out_sha256": left_out if table.skipped else "",
        "training_data": found.verdict,
        "heard": " ".join(found.heard),
        "layer": layer,
        "lower_is_better": None,
    }
    units = {metric.name: metric.unit for metric in table.metrics}
    for name, score in cell.metrics.items():
        ranks = name == table.metric
        yield {
            **run,
            **shown_score(score, units.get(name, "")),
            "metric": name,
            "ranks": ranks,
            "lower_is_better": table.lower_is_better if ranks else None,
            "not_separated_from_best": cell.not_separated if ranks else None,
        }
    if not cell.metrics:
        yield run


def _means(summary: Summary) -> Iterator[dict[str, Any]]:
    for row in summary.rows:
        for name, means in (("mean_rank", row.mean_rank), ("overall", row.overall)):
            for layer, mean in means.items():
                yield {
                    **vars(summary),
                    **vars(row),
                    **vars(mean),
                    "kind": "mean",
                    "downstream": " ".join(table.downstream for table in summary.tables),
                    "corpus": summary.corpora,
                    "layer": layer,
                    "metric": name,
                    "lower_is_better": name == "mean_rank",
                    "confidence": CONFIDENCE,
                }


def _published() -> Iterator[dict[str, Any]]:
    for figure in load_published():
        if figure.figure == "score":
            named = {"kind": "published", "downstream": figure.task, "upstream": figure.row}
            yield {**vars(figure), **named}
