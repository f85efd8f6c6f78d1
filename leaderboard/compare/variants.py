"""Does the rank of encoders depend on the head, or on how many labels there are?

Of a task that was run by several heads, or on several amounts of labels, the scores of each
encoder stand side by side, with the rank correlation of each two columns and the conclusions that
hold in all of them. Intervals come from draws of each score by its interval, as in
`leaderboard.compare.ranks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import SuperbError
from leaderboard.compare.ranks import (
    Floats,
    Mean,
    Rows,
    draw_scores,
    join_rows,
    lacks_interval,
    mean_of,
)
from leaderboard.read.board import MAIN_LAYERS, Board, Row, Table
from leaderboard.read.collect import collect

By = Literal["heads", "labels"]
Bools: TypeAlias = NDArray[np.bool_]
_SURE = 0.975
"""Share of draws in which one encoder must be better for a conclusion: both sides at 95 %."""
FEWEST = 3
"""Encoders that a rank correlation takes."""


@dataclass(frozen=True)
class Agreement:
    """How alike two columns rank the encoders.

    Attributes:
        one: name of a column.
        other: of the other.
        tau: Kendall's tau-b, with its interval where every score has one; None for fewer than
            three encoders.
        upstreams: how many have a score in both.
    """

    one: str
    other: str
    tau: Mean | None
    upstreams: int


@dataclass(frozen=True)
class Study:
    """One task by several heads, or on several amounts of labels.

    Attributes:
        by: what the columns differ in.
        tables: one for each column.
        columns: their names.
        rows: encoders, as `join_rows` has them.
        layer: the layer choice that is compared, as `Row.cell` finds it.
        agreements: of each two columns.
        holds: pairs of encoders of which the first is better in every column that has both, two at
            least.
        flips: pairs of which one is better in one column and the other in another. A column where
            a score has no interval settles nothing, and no pair holds there.
        open_pairs: how many of those in two columns or more are neither.
        left_out: tables of the same columns, by another lexicon, say, with fewer encoders.
    """

    by: By
    tables: tuple[Table, ...]
    columns: tuple[str, ...]
    rows: Rows
    layer: str
    agreements: tuple[Agreement, ...]
    holds: tuple[tuple[str, str], ...]
    flips: tuple[tuple[str, str], ...]
    open_pairs: int
    left_out: int = 0

    @property
    def subject(self) -> str:
        """The task, with the budget of labels or the head that all columns have in common."""
        first = self.tables[0]
        if self.by == "labels":
            return first.head
        return f"{first.base}-{first.labels}" if first.labels else first.base

    @property
    def searching(self) -> tuple[str, ...]:
        """Columns in which the best layer stands for the weighted sum, as nothing is trained."""
        pairs = zip(self.columns, self.tables, strict=True)
        return tuple(name for name, table in pairs if table.stands_for(self.layer) != self.layer)


def study_variants(folder: Path | str, by: By) -> list[Study]:
    """Every task of a folder that was run by several heads, or on several amounts of labels.

    Raises:
        SuperbError: there is no such folder, or no such task in it.
    """
    studies = find_studies(collect(folder), by)
    if not studies:
        option = "--head ctc,attention" if by == "heads" else "--labels 2min,10min,all"
        raise SuperbError(
            f"no task in {folder} was run {'by several heads' if by == 'heads' else 'on several '}"
            f"{'' if by == 'heads' else 'amounts of labels'}. Make some results with: superb run "
            f"--upstream hubert,fbank --downstream asr {option} --output {folder}"
        )
    return studies


def find_studies(board: Board, by: By) -> list[Study]:
    """The same of a board that was read; empty where there is no such task."""
    kept: Callable[[Table], str] = (lambda t: t.labels) if by == "heads" else (lambda t: t.head)
    name: Callable[[Table], str] = (
        (lambda t: t.head) if by == "heads" else (lambda t: t.labels or "all")
    )
    groups: dict[tuple[str, ...], list[Table]] = {}
    for table in board.tables:
        key = (
            *(table.base, kept(table), table.corpus, table.corpus_sha256, table.audio_sha256),
            *(table.protocol, table.protocol_version, table.channel, table.engine),
        )
        groups.setdefault(key, []).append(table)
    studies = []
    for _, tables in sorted(groups.items()):
        # of several tables of one column, by other rules or another lexicon, the one with most rows
        columns: dict[str, Table] = {}
        for table in sorted(tables, key=lambda table: len(table.rows)):
            columns[name(table)] = table
        if len(columns) > 1:
            study = _study(by, sorted(columns.values(), key=_place), name)
            studies.append(replace(study, left_out=len(tables) - len(columns)))
    return studies


def _place(table: Table) -> tuple[object, ...]:
    """Columns: the task as it is first, and from few labels to all."""
    return (table.head != table.base, table.head, not table.labels, table.train_s or 0)


def _study(by: By, tables: Sequence[Table], name: Callable[[Table], str]) -> Study:
    columns = tuple(map(name, tables))
    # the layer choice of most columns, the weighted sum before the last layer
    layer = max(
        reversed(MAIN_LAYERS),
        key=lambda layer: sum(any(row.cell(layer) for row in table.rows) for table in tables),
    )
    rows = join_rows(tables, (layer,), [])
    places = range(len(tables))
    agreements = [
        _agreement(tables, columns, rows, layer, pair) for pair in combinations(places, 2)
    ]
    holds, flips, unsettled = [], [], 0
    for one, other in combinations(rows, 2):
        both = [place for place in places if all(_scored(r[2][place], layer) for r in (one, other))]
        if len(both) < 2:
            continue
        shared = [tables[place] for place in both]
        ahead, behind = _sure(shared, _in_columns((one, other), both), layer)
        if ahead.any() and behind.any():
            flips.append((one[1], other[1]))
        elif ahead.all() or behind.all():
            holds.append((one[1], other[1]) if ahead.all() else (other[1], one[1]))
        else:
            unsettled += 1
    return Study(
        by,
        tuple(tables),
        columns,
        rows,
        layer,
        tuple(agreements),
        tuple(holds),
        tuple(flips),
        unsettled,
    )


def _agreement(
    tables: Sequence[Table],
    columns: Sequence[str],
    rows: Rows,
    layer: str,
    pair: tuple[int, int],
) -> Agreement:
    """How alike two of the columns rank the encoders that have a score in both."""
    two = [tables[place] for place in pair]
    drawn = _drawn(two, _in_columns(rows, pair), layer)
    tau = None
    if len(drawn) >= FEWEST:
        both = np.stack([draws * _signs(two) for _, draws, _ in drawn])
        tau = mean_of(kendall(both[..., 0].T, both[..., 1].T))
        if not all(known for *_, known in drawn):
            tau = Mean(tau.value, None, None)
    return Agreement(columns[pair[0]], columns[pair[1]], tau, len(drawn))


def _in_columns(rows: Rows, places: Sequence[int]) -> Rows:
    """The same encoders in some of the columns."""
    return [(key, label, tuple(cells[place] for place in places)) for key, label, cells in rows]


def _scored(row: Row | None, layer: str) -> bool:
    cell = row.cell(layer) if row else None
    return cell is not None and cell.score is not None


def _sure(tables: Sequence[Table], pair: Rows, layer: str) -> tuple[Bools, Bools]:
    """For each table that has both: whether the first is surely better, and whether the second is.

    Neither is where a score has no interval.
    """
    (_, one, _), (_, other, _) = _drawn(tables, pair, layer)
    lead = (other - one) * _signs(tables)
    known = [
        not lacks_interval([table], _in_columns(pair, [place]), layer)
        for place, table in enumerate(tables)
    ]
    ahead, behind = ((share.mean(axis=0) >= _SURE) & known for share in (lead > 0, lead < 0))
    return ahead, behind


def _drawn(tables: Sequence[Table], rows: Rows, layer: str) -> list[tuple[str, Floats, bool]]:
    """Of each encoder with a score in all tables: its name, draws, and whether all are known."""
    return [
        (row[1], draws, not lacks_interval(tables, [row], layer))
        for row, draws in zip(rows, draw_scores(rows, layer), strict=True)
        if draws is not None
    ]


def _signs(tables: Sequence[Table]) -> Floats:
    return np.array([1.0 if table.lower_is_better else -1.0 for table in tables])


def kendall(one: Floats, other: Floats) -> Floats:
    """Kendall's tau-b along the last axis; 0 where all of one are equal.

    >>> kendall(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 3.0, 2.0]])).round(2).tolist()
    [0.33]
    """
    signs = [np.sign(values[..., :, None] - values[..., None, :]) for values in (one, other)]
    both = (signs[0] * signs[1]).sum(axis=(-2, -1))
    sizes = [(own**2).sum(axis=(-2, -1)) for own in signs]
    whole = np.sqrt(sizes[0] * sizes[1])
    found: Floats = np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)
    return found
