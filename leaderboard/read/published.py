"""Figures published by others, each with its source, and measured ones beside them.

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
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from benchmark.errors import SuperbError, unknown
from benchmark.scoring.results import MetricValue
from leaderboard.read.collect import MAIN_LAYERS, Board, Cell, Table, collect

Kind = Literal["score", "fbank", "sota", "rerun"]
Outcome = Literal["within the tolerance", "within the interval", "outside", "missing", "failed"]

PROTOCOLS: Final = ("superb", "superb-s3prl")
"""Protocols that keep the published heads and budgets on the published audio."""


@dataclass(frozen=True)
class PublishedCorpus:
    """What a task of SUPERB is measured on.

    Attributes:
        name: as typed on the command line.
        test_utterances: how many its test split has.
    """

    name: str
    test_utterances: int


PUBLISHED_CORPORA: Final = {
    "asr": PublishedCorpus("librispeech", 2_620),
    "sid": PublishedCorpus("voxceleb1", 8_251),
    "ks": PublishedCorpus("speech-commands-v1", 3_081),
}
"""Task → corpus; numbers as the corpora give them (test-clean, iden_split.txt, test set v0.01)."""


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


@dataclass(frozen=True)
class Comparison:
    """A published score beside ours.

    Attributes:
        task: its name.
        metric: the one compared.
        layer: of the probe.
        protocol: name and version of ours; "" when missing.
        published: the figure.
        measured: our score; None when missing or failed.
        tolerance: how far re-runs by others came out; None when nobody said.
        outcome: ``missing`` when no result on the published corpus under a published protocol
            is there.
    """

    task: str
    metric: str
    layer: str
    protocol: str
    published: Figure
    measured: MetricValue | None
    tolerance: Figure | None
    outcome: Outcome


@dataclass(frozen=True)
class Reproduction:
    """All published scores of one encoder beside ours.

    Attributes:
        upstream: its name.
        comparisons: task by task, last layer first.
        commands: what to type for those that are missing.
        notes: what was decided on the way, and files that were left out.
    """

    upstream: str
    comparisons: tuple[Comparison, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...]


@cache
def load_published() -> tuple[Figure, ...]:
    """Every figure of ``published.csv``, in its order."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(_figure(row) for row in csv.DictReader(stream))


def _figure(row: dict[str, str]) -> Figure:
    kinds: dict[str, Kind] = {name: name for name in ("score", "fbank", "sota", "rerun")}
    return Figure(
        figure=kinds[row["figure"]],
        upstream=row["upstream"],
        row=row["row"],
        parameters_millions=float(row["parameters_millions"])
        if row["parameters_millions"]
        else None,
        task=row["task"],
        metric=row["metric"],
        layer=row["layer"],
        inferred=row["inferred"] == "yes",
        value=float(row["value"]),
        source=row["source"],
        remark=row["remark"],
    )


@cache
def find_figure(figure: Kind, task: str, metric: str) -> Figure | None:
    """The constant or tolerance of a task; None when there is none."""
    return next(
        (
            entry
            for entry in load_published()
            if (entry.figure, entry.task, entry.metric) == (figure, task, metric)
        ),
        None,
    )


def is_published_setting(table: Table, cell: Cell | None = None) -> bool:
    """True for a table on the published audio under a protocol that keeps heads and budgets.

    Args:
        table: of a task.
        cell: one of its scores, to see that it was scored on the whole test split.
    """
    corpus = PUBLISHED_CORPORA.get(table.downstream)
    if corpus is None or table.corpus != corpus.name or table.protocol not in PROTOCOLS:
        return False
    if table.skipped:
        return False
    scores = [] if cell is None else list(cell.metrics.values())
    return all(score["utterances"] == corpus.test_utterances for score in scores)


def reproduce(upstream: str, folder: Path | str) -> Reproduction:
    """Published scores of an encoder beside those in a folder of results.

    Args:
        upstream: our name of a published encoder.
        folder: of results; it may be empty or not there yet.

    Raises:
        SuperbError: when nothing was published of it, or the folder is a file.
    """
    published: dict[tuple[str, str, str], Figure] = {}
    for figure in load_published():
        if figure.figure == "score" and figure.upstream == upstream:
            published.setdefault((figure.task, figure.layer, figure.metric), figure)
    wanted = [
        published[task, layer, metric]
        for task, metrics in (
            ("asr", ("wer", "wer_lm")),
            ("sid", ("accuracy",)),
            ("ks", ("accuracy",)),
        )
        for layer in MAIN_LAYERS
        for metric in metrics
        if (task, layer, metric) in published
    ]
    if not wanted:
        names = {figure.upstream for figure in load_published() if figure.upstream}
        raise unknown("published upstream", upstream, names, "Scores of these were published.")
    board = _board(Path(folder))
    comparisons = [
        comparison for figure in wanted for comparison in _compare(figure, upstream, board)
    ]
    # One run with a language model scores transcripts without it too.
    missing: dict[str, bool] = {}
    for item in comparisons:
        if item.outcome == "missing":
            missing[item.task] = missing.get(item.task, False) or item.metric == "wer_lm"
    return Reproduction(
        upstream,
        tuple(comparisons),
        tuple(_command(upstream, task, folder, lm) for task, lm in missing.items()),
        (*board.notes, *(f"left out: {problem}" for problem in board.problems)),
    )


def _board(folder: Path) -> Board:
    """An empty board for a folder without results: what is missing is the answer then."""
    if folder.exists() and not folder.is_dir():
        raise SuperbError(f"{folder} is a file, not a folder; give a folder of results")
    if not folder.is_dir() or next(folder.rglob("*.json"), None) is None:
        return Board((), (), ())
    return collect(folder)


def _compare(figure: Figure, upstream: str, board: Board) -> list[Comparison]:
    """One comparison for each of our scores of the same thing; at least one, that it is missing."""
    tolerance = find_figure("rerun", figure.task, figure.metric)
    same = (figure.task, figure.metric, figure.layer)
    found: list[Comparison] = []
    for table in board.tables:
        if table.downstream != figure.task:
            continue
        for row in table.rows:
            cell = row.cells.get(figure.layer)
            if row.upstream != upstream or cell is None or not is_published_setting(table, cell):
                continue
            protocol = f"{table.protocol} version {table.protocol_version}"
            score = cell.metrics.get(figure.metric)
            if score is not None:
                outcome = _outcome(score, figure, tolerance)
                found.append(Comparison(*same, protocol, figure, score, tolerance, outcome))
            elif cell.status == "failed":
                found.append(Comparison(*same, protocol, figure, None, tolerance, "failed"))
    return found or [Comparison(*same, "", figure, None, tolerance, "missing")]


def _outcome(measured: MetricValue, published: Figure, tolerance: Figure | None) -> Outcome:
    # Rounded as published: a tolerance of 0.1 is not to fail for a bit in the last place.
    distance = round(abs(measured["value"] - published.value), 2)
    if tolerance is not None and distance <= tolerance.value:
        return "within the tolerance"
    if measured["low"] <= published.value <= measured["high"]:
        return "within the interval"
    return "outside"


def _command(upstream: str, task: str, folder: Path | str, lm: bool) -> str:
    words: Sequence[str] = (
        *("superb", "run", "--upstream", upstream, "--downstream", task),
        *("--corpus", PUBLISHED_CORPORA[task].name, "--data-root", "FOLDER"),
        *("--protocol", PROTOCOLS[0], "--seeds", "3"),
        *(("--lm", "4-gram.arpa") if lm else ()),
        *("--output", str(folder)),
    )
    return shlex.join(words)
