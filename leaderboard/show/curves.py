"""A study of heads or of labels as curves, one for each encoder, before any format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

from benchmark.scoring.results import MetricValue, no_interval
from leaderboard.compare.ranks import Mean
from leaderboard.compare.variants import Study
from leaderboard.show.board import best_notes
from leaderboard.show.numbers import score_text


@dataclass(frozen=True)
class Dot:
    """A score.

    Attributes:
        column: its number among those of the chart.
        value: in the unit of the metric.
        low: lower end of its interval; None where there is none.
        high: upper end.
        text: all of it in words.
    """

    column: int
    value: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Curve:
    """The scores of an encoder.

    Attributes:
        label: its name.
        runs: dots to be joined; a gap is where a column has no score.
    """

    label: str
    runs: tuple[tuple[Dot, ...], ...]

    @property
    def dots(self) -> list[Dot]:
        """All of them, from left to right."""
        return [dot for run in self.runs for dot in run]


@dataclass(frozen=True)
class Chart:
    """What is to be drawn.

    Attributes:
        title: its heading.
        names: of the columns.
        places: of the columns, from 0 to 1.
        taus: how alike each column ranks the encoders as the next one; None where nothing says.
        curves: of encoders that have a score.
        x_label: what the columns are.
        y_label: what the scores are, and which way is better.
        logarithmic: whether scores stand by their logarithm: errors of which the largest is many
            times the smallest, whose curves would lie on each other where encoders are good.
        notes: what is to be known besides.
    """

    title: str
    names: tuple[str, ...]
    places: tuple[float, ...]
    taus: tuple[Mean | None, ...]
    curves: tuple[Curve, ...]
    x_label: str
    y_label: str
    logarithmic: bool
    notes: tuple[str, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value, intervals among them."""
        return _ends(self.curves)

    @property
    def ticks(self) -> list[float]:
        """Round numbers of a logarithmic scale, from end to end of the values."""
        low, high = self.ends
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found: list[float] = []
        for steps in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7)):  # more of them where few would be seen
            numbers = [float(f"{step}e{decade}") for decade in decades for step in steps]
            found = [number for number in numbers if low <= number <= high]
            if len(found) >= _FEW:
                break
        return found


def chart_of(study: Study) -> Chart | None:
    """Scores over heads side by side, or over the logarithm of the seconds of train with labels.

    None where less than two columns have a place, or no encoder a score.
    """
    places: dict[int, float] = {}  # by column
    names = list(study.columns)
    for column, table in enumerate(study.tables):
        if study.by == "heads":
            places[column] = column
        elif table.train_s:
            places[column] = math.log(table.train_s)
            names[column] = table.labels or f"all: {_duration(table.train_s)}"
    first = study.tables[0]
    curves = []
    for _, label, cells in study.rows:
        found = [row.cell(study.layer) if row else None for row in cells]
        scores = [cell.score if (cell := found[column]) else None for column in places]
        curves.append(_curve(label, scores, first.unit))
    curves = [curve for curve in curves if curve.runs]
    if len(places) < 2 or not curves:
        return None
    low, high = _ends(curves)
    logarithmic = first.lower_is_better and 0 < _MANY * low < high
    known = any(dot.low is not None for curve in curves for dot in curve.dots)
    better = f"{'lower' if first.lower_is_better else 'higher'} is better"
    taus = {(agreement.one, agreement.other): agreement.tau for agreement in study.agreements}
    return Chart(
        title=f"{study.subject} on {first.corpus} by {DIFFERS[study.by]}",
        names=tuple(names[column] for column in places),
        places=_unit_range(list(places.values())),
        taus=tuple(
            taus[study.columns[one], study.columns[other]] for one, other in pairwise(places)
        ),
        curves=tuple(curves),
        x_label="head" if study.by == "heads" else "train with labels, logarithmic scale",
        y_label=f"{first.metric}, {first.unit} ({better})",
        logarithmic=logarithmic,
        notes=(
            "; ".join(
                [
                    study.layer,
                    "whiskers: 95 % intervals" if known else "no score has an interval",
                    *(["scores on a logarithmic scale"] if logarithmic else []),
                ]
            ),
            *best_notes(study.searching),
            *(
                f"{name} is not drawn: no result says how long train is"
                for column, name in enumerate(names)
                if column not in places
            ),
        ),
    )


_MANY, _FEW = 5.0, 4
DIFFERS = {"heads": "head", "labels": "amount of labels"}


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Middles of things that do not overlap, as near to those wanted as can be (least squares).

    Between `low` and `high`, where so much fits.

    >>> spread([5.0, 5.0, 9.0], [2.0, 2.0, 2.0], 0.0, 10.0)
    [4.0, 6.0, 9.0]
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    ends = list(accumulate((sizes[index] for index in order), initial=0.0))
    offsets = {index: ends[rank] + sizes[index] / 2 for rank, index in enumerate(order)}
    # With the gaps taken out, what must not fall is the mean of each block of those that would.
    blocks: list[tuple[float, int]] = []
    for index in order:
        mean, size = wanted[index] - offsets[index], 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    top = max(low, high - ends[-1])
    levels = [min(max(mean, low), top) for mean, size in blocks for _ in range(size)]
    found = dict(zip(order, levels, strict=True))
    return [found[index] + offsets[index] for index in range(len(wanted))]


def stagger(places: Sequence[float], widths: Sequence[float]) -> list[int]:
    """On which line each name stands, from 0, so that those of a line do not touch.

    Args:
        places: of their middles, rising.
        widths: of the names, with the room between them.
    """
    ends: list[float] = []
    lines = []
    for place, width in zip(places, widths, strict=True):
        free = (number for number, end in enumerate(ends) if end <= place - width / 2)
        line = next(free, len(ends))
        ends[line : line + 1] = [place + width / 2]
        lines.append(line)
    return lines


def _ends(curves: Sequence[Curve]) -> tuple[float, float]:
    dots = [dot for curve in curves for dot in curve.dots]
    values = [end for dot in dots for end in (dot.value, dot.low, dot.high) if end is not None]
    return min(values), max(values)


def _curve(label: str, scores: Sequence[MetricValue | None], unit: str) -> Curve:
    dots: list[Dot | None] = []
    for column, score in enumerate(scores):
        if score is None:
            dots.append(None)
            continue
        known = not no_interval(score, unit)
        low, high = (score["low"], score["high"]) if known else (None, None)
        dots.append(Dot(column, score["value"], low, high, score_text(score, unit)))
    runs = [list(run) for _, run in groupby(dots, lambda dot: dot is None)]
    known_runs = [tuple(dot for dot in run if dot) for run in runs]
    return Curve(label, tuple(filter(None, known_runs)))


def _duration(seconds: float) -> str:
    """Of speech, in the largest unit that it fills: 39 min.

    >>> _duration(2340), _duration(5400), _duration(360_000)
    ('39 min', '1.5 h', '100 h')
    """
    size, unit = next((s, u) for s, u in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= s)
    return f"{seconds / size:.3g} {unit}"


def _unit_range(values: Sequence[float]) -> tuple[float, ...]:
    reach = max(values) - min(values) or 1.0
    return tuple((value - min(values)) / reach for value in values)
