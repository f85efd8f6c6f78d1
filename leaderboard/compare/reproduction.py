"""Measured scores beside those that SUPERB published of the same encoder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmark.errors import SuperbError, unknown
from benchmark.scoring.results import MetricValue
from leaderboard.read.board import MAIN_LAYERS, Board
from leaderboard.read.collect import collect
from leaderboard.read.published import (
    PROTOCOLS,
    PUBLISHED_CORPORA,
    Figure,
    find_figure,
    is_published_setting,
    load_published,
)

Outcome = Literal[
    "within the tolerance",
    "within the interval",
    "outside",
    "missing",
    "failed",
    "not comparable",
]


@dataclass(frozen=True)
class Comparison:
    """A published score beside ours.

    Attributes:
        published: the figure, with its task, metric and layer.
        protocol: name and version of ours; "" when missing.
        measured: our score; None when missing or failed.
        tolerance: how far re-runs by others came out; None when nobody said.
        outcome: ``missing`` when no result on the published corpus under a published protocol
            is there; ``not comparable`` where ours would be of something else.
    """

    published: Figure
    protocol: str
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
        figure
        for task in PUBLISHED_CORPORA
        for layer in MAIN_LAYERS
        for key, figure in published.items()
        if key[:2] == (task, layer)
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
            task, metric = item.published.task, item.published.metric
            missing[task] = missing.get(task, False) or metric == "wer_lm"
    reasons = dict.fromkeys(
        PUBLISHED_CORPORA[item.published.task].why_not
        for item in comparisons
        if item.outcome == "not comparable"
    )
    return Reproduction(
        upstream,
        tuple(comparisons),
        tuple(_command(upstream, task, folder, lm) for task, lm in missing.items()),
        (*board.notes, *(f"left out: {problem}" for problem in board.problems), *reasons),
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
    if PUBLISHED_CORPORA[figure.task].why_not:
        return [Comparison(figure, "", None, tolerance, "not comparable")]
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
                found.append(Comparison(figure, protocol, score, tolerance, outcome))
            elif cell.status == "failed":
                found.append(Comparison(figure, protocol, None, tolerance, "failed"))
    return found or [Comparison(figure, "", None, tolerance, "missing")]


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
