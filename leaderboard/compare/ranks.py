"""One row per upstream over all tasks: mean rank, SUPERB's overall score, and their intervals.

Both intervals come from one parametric bootstrap: every score is drawn anew from its own interval
(half a normal distribution on either side, as wide as that side), all of them independent, and
ranks and means are taken again. The intervals of the scores are over speakers and were tried on
simulated test sets, which a bootstrap over the few speakers of a small test set would not survive
(docs/statistics.md). Upstreams share their test speakers, so their scores move together more than
these draws do, which makes intervals of ranks too wide. Drawing around scores that are noisy
already makes them too narrow where upstreams are closer to each other than their standard errors,
as with any bootstrap of ranks (Xie, Singh & Zhang 2009, "Confidence intervals for population ranks
in the presence of ties and near ties"); a simulation of both is in the tests.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmark.scoring.results import MetricValue, no_interval
from leaderboard.read.board import MAIN_LAYERS, Board, Row, Table
from leaderboard.read.names import list_some, told_apart
from leaderboard.read.published import PUBLISHED_CORPORA, find_figure, is_published_setting

Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95
"""Of the intervals of means over tasks."""

_DRAWS = 500
_ENDS: tuple[Literal["fbank", "sota"], ...] = ("fbank", "sota")
"""SUPERB's constants: 0 and 1000 on the scale of its overall score."""
# A standard normal distribution as 256 equally likely values: a draw is a random byte, which is the
# same wherever Python runs, as NumPy's draws are not.
_NORMAL = np.array([NormalDist().inv_cdf((number + 0.5) / 256) for number in range(256)])


@dataclass(frozen=True)
class Mean:
    """A mean over tasks with its 95 % interval; None where a score that it is of has none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SummaryRow:
    """One upstream.

    Attributes:
        label: its name, with the start of that hash or its precision where others share it.
        upstream: its name.
        weights: as in `Row`.
        precision: of its numbers.
        rows: its row in each column's table; None where it has none.
        mean_rank: by layer choice, where every task has a score; 1 is best.
        overall: SUPERB's overall score by layer choice, likewise.
    """

    label: str
    upstream: str
    weights: str
    precision: str
    rows: tuple[Row | None, ...]
    mean_rank: Mapping[str, Mean]
    overall: Mapping[str, Mean]

    @property
    def newest(self) -> Row:
        """The row of its newest run, for what is said of the encoder."""
        return max((row for row in self.rows if row is not None), key=_age)


@dataclass(frozen=True)
class Summary:
    """All tasks under one protocol on one corpus, or on the published ones.

    Attributes:
        protocol: its name.
        protocol_version: its version.
        corpora: ``published`` for those of `PUBLISHED_CORPORA`, otherwise the corpus's name.
        layers: those of `MAIN_LAYERS` that have results.
        tables: the columns.
        rows: best mean rank first, then those without, by name.
        notes: why there are no ranks or no overall score, and what tells the tasks of a row apart.
    """

    protocol: str
    protocol_version: str
    corpora: str
    layers: tuple[str, ...]
    tables: tuple[Table, ...]
    rows: tuple[SummaryRow, ...]
    notes: tuple[str, ...]


def _age(row: Row) -> str:
    """When its newest run was made."""
    return max(cell.created for cell in row.cells.values())


class _Key(NamedTuple):
    upstream: str
    weights: str
    precision: str


def summarise(board: Board) -> tuple[Summary, ...]:
    """Every group of two or more tables that belong together, sorted by protocol and corpus.

    Tables belong together when they share protocol, its version, and the corpus by name; those on
    the published corpora under one protocol do too. Other heads of a task stand in none, and fewer
    labels stand by themselves, since a task counts once. Where a task stands in several of them
    (with another version, content, or other utterances left out), each is a column of its own and
    nothing is averaged.
    """
    groups: dict[tuple[str, str, str, str], list[Table]] = {}
    for table in board.tables:
        if table.head != table.base:
            continue
        corpus = PUBLISHED_CORPORA.get(table.downstream)
        published = corpus is not None and corpus.name == table.corpus
        corpora = "published" if published else table.corpus
        key = (table.protocol, table.protocol_version, corpora, table.labels)
        groups.setdefault(key, []).append(table)
    return tuple(_summary(key[:3], groups[key]) for key in sorted(groups) if len(groups[key]) > 1)


def _summary(key: tuple[str, str, str], tables: Sequence[Table]) -> Summary:
    layers = tuple(
        layer
        for layer in MAIN_LAYERS
        if any(layer in row.cells for table in tables for row in table.rows)
    )
    notes: list[str] = []
    rows = join_rows(tables, layers, notes)
    tasks = [table.downstream for table in tables]
    ranks: dict[str, list[Mean | None]] = {}
    overall: dict[str, list[Mean | None]] = {}
    if len(set(tasks)) < len(tasks):
        twice = sorted({task for task in tasks if tasks.count(task) > 1})
        notes.append(
            f"no mean over tasks: {', '.join(twice)} stands in several columns that must not be "
            "mixed; keep the results of one in a folder of their own"
        )
    else:
        for layer in layers:
            drawn = draw_scores(rows, layer)
            ranks[layer] = _mean_ranks(drawn, [table.lower_is_better for table in tables])
            overall[layer] = _overall(tables, rows, layer)
            if lacks_interval(tables, rows, layer):
                ranks[layer] = [mean and Mean(mean.value, None, None) for mean in ranks[layer]]
                overall[layer] = [mean and Mean(mean.value, None, None) for mean in overall[layer]]
        ranked = [mean is not None for means in ranks.values() for mean in means]
        if not any(ranked):
            notes.append("no mean rank: fewer than two upstreams have a score in every task")
        elif not all(ranked):
            notes.append("mean rank: among those with a score in every task; the others have none")
        notes.append(_about_overall(tables, overall))
    finished = [
        SummaryRow(
            **row._asdict(),
            rows=cells,
            label=label,
            mean_rank=_present(ranks, position),
            overall=_present(overall, position),
        )
        for position, (row, label, cells) in enumerate(rows)
    ]
    finished.sort(key=_order)
    return Summary(*key, layers, tuple(tables), tuple(finished), tuple(notes))


Rows = Sequence[tuple[_Key, str, tuple[Row | None, ...]]]


def join_rows(tables: Sequence[Table], layers: Sequence[str], notes: list[str]) -> Rows:
    """The tables' rows joined by encoder and precision, sorted.

    Storage and device may differ between the tasks of a row, as both are chosen by what fits the
    machine; where they do, a note says so.
    """
    found: dict[_Key, list[list[Row]]] = {}
    for column, table in enumerate(tables):
        for row in table.rows:
            key = _Key(row.upstream, row.weights, row.precision)
            found.setdefault(key, [[] for _ in tables])[column].append(row)
    namesakes: dict[str, list[_Key]] = {}
    for key in found:
        namesakes.setdefault(key.upstream, []).append(key)
    labels = {
        name: told_apart(
            name,
            {
                key.weights: max((row for part in found[key] for row in part), key=_age).source
                for key in keys
            },
        )
        for name, keys in namesakes.items()
    }
    rows = []
    for key in sorted(found):
        label = labels[key.upstream][key.weights]
        if len({other.precision for other in namesakes[key.upstream]}) > 1 and key.precision:
            label += f" ({key.precision})"
        cells = tuple(
            max(candidates, key=lambda row: _worth(row, layers)) if candidates else None
            for candidates in found[key]
        )
        rows.append((key, label, cells))
        features = {
            table.downstream: f"stored as {row.storage} on {row.device or 'an unnamed device'}"
            for table, row in zip(tables, cells, strict=True)
            if row is not None and (row.storage or row.device)
        }
        several = any(len(candidates) > 1 for candidates in found[key])
        if several or len(set(features.values())) > 1:
            parts = [f"{task} {feature}" for task, feature in features.items()]
            notes.append(f"{label}: features of {', '.join(parts)}")
    return rows


def _worth(row: Row, layers: Sequence[str]) -> tuple[object, ...]:
    cells = [cell for layer in layers if (cell := row.cell(layer))]
    return (
        sum(cell.status == "finished" for cell in cells),
        sum(cell.seeds for cell in cells),
        max((cell.created for cell in cells), default=""),
        row.storage,
        row.device,
    )


def _order(row: SummaryRow) -> tuple[object, ...]:
    ranks = [row.mean_rank.get(layer) for layer in reversed(MAIN_LAYERS)]
    keys = [(1, 0.0) if rank is None else (0, rank.value) for rank in ranks]
    return (*keys, row.upstream, row.weights, row.precision)


def _present(means: Mapping[str, Sequence[Mean | None]], position: int) -> dict[str, Mean]:
    return {
        layer: mean for layer, values in means.items() if (mean := values[position]) is not None
    }


def lacks_interval(tables: Sequence[Table], rows: Rows, layer: str) -> bool:
    """Whether a score has no interval to draw from: then no mean has one, nor any rank."""
    return any(
        row is not None
        and (cell := row.cell(layer)) is not None
        and cell.score is not None
        and bool(no_interval(cell.score, table.unit))
        for _, _, cells in rows
        for table, row in zip(tables, cells, strict=True)
    )


def draw_scores(rows: Rows, layer: str) -> list[Floats | None]:
    """For each row ``[draw, task]``, its scores first; None where a task is missing."""
    drawn: list[Floats | None] = []
    for key, _, cells in rows:
        scores = [cell.score for row in cells if row and (cell := row.cell(layer))]
        present = [score for score in scores if score is not None]
        complete = len(present) == len(cells)
        # a generator of its own, so that no other row decides what is drawn
        generator = random.Random("\n".join(key))
        drawn.append(_draws_of(present, generator) if complete else None)
    return drawn


def _draws_of(scores: Sequence[MetricValue], generator: random.Random) -> Floats:
    columns = [[s["value"], s["low"], s["high"], s["confidence"]] for s in scores]
    value, low, high, confidence = np.array(columns).T
    quantile = np.array([NormalDist().inv_cdf((1 + level) / 2) for level in confidence])
    codes = np.frombuffer(generator.randbytes(_DRAWS * len(scores)), np.uint8)
    steps = _NORMAL[codes].reshape(_DRAWS, len(scores))
    drawn = value + steps * np.where(steps > 0, high - value, value - low) / quantile
    return np.vstack([value, drawn])


def _mean_ranks(drawn: Sequence[Floats | None], lower: Sequence[bool]) -> list[Mean | None]:
    complete = [scores for scores in drawn if scores is not None]
    if len(complete) < 2:  # alone, it is the first of one
        return [None] * len(drawn)
    scores = np.stack(complete, axis=2)  # [draw, task, upstream]
    signs = np.where(lower, 1.0, -1.0)
    ranks = rank_values(scores * signs[:, None])
    means = iter(ranks.mean(axis=1).T)
    return [None if scores is None else mean_of(next(means)) for scores in drawn]


def rank_values(values: Sequence[float] | Floats) -> Floats:
    """The rank of each value along the last axis, 1 for the smallest.

    Equal values share the mean of their ranks.

    >>> rank_values([7.0, 5.0, 7.0, 9.0]).tolist()
    [2.5, 1.0, 2.5, 4.0]
    """
    given = np.asarray(values)
    order = given.argsort(axis=-1)
    differs = np.diff(np.take_along_axis(given, order, -1), axis=-1) != 0
    places = np.broadcast_to(np.arange(1.0, given.shape[-1] + 1), given.shape)
    # each run of equal values reaches from its first place to its last
    first, last = places.copy(), places.copy()
    first[..., 1:][~differs] = 0
    last[..., :-1][~differs] = np.inf
    first = np.maximum.accumulate(first, axis=-1)
    last = np.minimum.accumulate(last[..., ::-1], axis=-1)[..., ::-1]
    ranks: Floats = np.empty(given.shape)
    np.put_along_axis(ranks, order, (first + last) / 2, -1)
    return ranks


def _overall(tables: Sequence[Table], rows: Rows, layer: str) -> list[Mean | None]:
    """Mean over tasks of 1000 (x − FBANK) / (SOTA − FBANK), where those constants hold.

    Of a task that they give several metrics of, the mean of these counts, as in SUPERB.
    """
    counted = [_counts(table) for table in tables]
    ends = [_ends(table) for table in compress(tables, counted)]
    means: list[Mean | None] = []
    for key, _, cells in rows:
        scores: list[MetricValue] = []
        columns = compress(zip(tables, cells, strict=True), counted)
        for (table, row), own in zip(columns, ends, strict=True):
            cell = row.cell(layer) if row else None
            if row and cell and all(is_published_setting(table, c) for c in row.cells.values()):
                scores += [cell.metrics[metric] for metric in own if metric in cell.metrics]
        if not ends or not all(ends) or len(scores) < sum(map(len, ends)):
            means.append(None)
            continue
        low, high = np.array([pair for own in ends for pair in own.values()]).T
        weights = np.array([1 / len(own) / len(ends) for own in ends for _ in own])
        # with one metric a task, the draws that ranks come from
        drawn = _draws_of(scores, random.Random("\n".join(key)))
        means.append(mean_of((1000 * (drawn - low) / (high - low)) @ weights))
    return means


def _counts(table: Table) -> bool:
    """Whether a task can be part of the overall score at all."""
    corpus = PUBLISHED_CORPORA.get(table.downstream)
    return corpus is None or not corpus.why_not


def _ends(table: Table) -> dict[str, tuple[float, float]]:
    """Metric → SUPERB's constants; nothing where it has none, as on another corpus."""
    found = {}
    for metric in table.metrics:
        fbank, sota = (find_figure(kind, table.downstream, metric.name) for kind in _ENDS)
        if fbank and sota:
            found[metric.name] = (fbank.value, sota.value)
    return found


def _about_overall(tables: Sequence[Table], overall: Mapping[str, Sequence[Mean | None]]) -> str:
    tasks = [table.downstream for table in tables if _counts(table)]
    if any(mean is not None for means in overall.values() for mean in means):
        reasons = [
            PUBLISHED_CORPORA[table.downstream].why_not for table in tables if not _counts(table)
        ]
        return "; ".join(
            [
                f"overall score: mean over {', '.join(tasks)} of 1000 (x − FBANK) / "
                "(SOTA − FBANK) with SUPERB's constants",
                *reasons,
                "theirs is over ten tasks, so compare only within this table",
            ]
        )
    here = list_some(sorted({f"{table.downstream} on {table.corpus}" for table in tables}))
    return (
        "no overall score: SUPERB's constants hold for its own corpora, whole test splits, under "
        f"the published heads and budgets; here: {here}, protocol {tables[0].protocol}"
    )


def mean_of(draws: Floats) -> Mean:
    """A value with its interval: the first is the value; the rest are its draws."""
    value = float(draws[0])
    cut = (1 - CONFIDENCE) / 2
    low, high = map(float, np.quantile(draws[1:], [cut, 1 - cut], method="nearest"))
    # Draws of ranks are pulled to the middle: the best by a little is rarely drawn as the best.
    return Mean(value, min(low, value), max(high, value))
