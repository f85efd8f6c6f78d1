"""Pictures of a study of heads or of labels: a curve for each encoder; those that cross flip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import fill, wrap
from typing import TYPE_CHECKING

from leaderboard.compare.variants import Study
from leaderboard.read.names import printable
from leaderboard.show.curves import Chart, Curve, chart_of, spread, stagger
from leaderboard.show.numbers import tau_text
from leaderboard.show.plots import GREY, WIDTH, headline, write_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette without its yellow, which is too pale for lines. Seven colours and eight
# shapes: no two of 56 encoders share both.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<")
# inches
_LINE = 0.17  # of text
_LEFT, _TOP, _TAUS, _BELOW, _PLOT = 0.75, 0.5, 0.4, 0.75, 3.4
_AWAY = 0.25  # from the plot to the names
_TAU = 1.0  # width of a rank correlation
_SHIFT = 0.09  # between the whiskers of two encoders


def draw_studies(studies: Sequence[Study], folder: Path | str) -> list[Path]:
    """Draw every study that can be: ``<task>-heads.png`` or ``<task>-labels.png``.

    Raises:
        SuperbError: when the folder cannot be written.
    """
    return write_pictures(
        folder, ((study.subject, {study.by: partial(draw_study, study)}) for study in studies)
    )


def draw_study(study: Study) -> Figure | None:
    """A picture of one; None where there is nothing to draw."""
    from matplotlib.figure import Figure

    chart = chart_of(study)
    if chart is None:
        return None
    labels = [fill(printable(curve.label), 24) for curve in chart.curves]
    sizes = [_LINE * (0.2 + len(label.splitlines())) for label in labels]
    width = WIDTH - _LEFT - _AWAY - 0.3 - max(map(_width, labels))
    names = [printable(name) for name in chart.names]
    middles = _middles(chart, width)
    rows = stagger(middles, [_width(name) + 0.15 for name in names])
    spans = [other - place for place, other in pairwise(middles)]
    taus = [tau if span >= _TAU else None for tau, span in zip(chart.taus, spans, strict=True)]
    notes = [line for note in chart.notes for line in wrap(printable(note), 100)]
    height = max(_PLOT, sum(sizes))
    below = _BELOW + _LINE * (max(rows) + len(notes))
    whole = _TOP + _TAUS * any(taus) + height + below
    figure = Figure(figsize=(WIDTH, whole))
    axes = figure.add_axes((_LEFT / WIDTH, below / whole, width / WIDTH, height / whole))
    axes.set_xlim(0, width)
    up, down = (math.log10, lambda place: 10**place) if chart.logarithmic else (float, float)
    low, high = map(up, chart.ends)
    free = 0.04 * (high - low) or 1.0
    bottom, top = low - free, high + free
    if chart.logarithmic:
        axes.set_yscale("log")
        axes.set_yticks(chart.ticks, [f"{tick:g}" for tick in chart.ticks])
        axes.set_yticks([], minor=True)
    elif low >= 0:
        bottom = max(0.0, bottom)
    axes.set_ylim(down(bottom), down(top))
    axes.set_xticks(middles, ["\n" * row + name for row, name in zip(rows, names, strict=True)])
    axes.tick_params(axis="x", length=0)
    axes.grid(color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel(chart.y_label)
    axes.set_xlabel(chart.x_label)
    scale = height / (top - bottom)  # inches in a unit
    last = [(up(curve.dots[-1].value) - bottom) * scale for curve in chart.curves]
    heights = [down(bottom + place / scale) for place in spread(last, sizes, 0, height)]
    shift = min(_SHIFT, min(1.6 * middles[0], 0.5 * min(spans)) / len(labels))
    for number, (curve, label) in enumerate(zip(chart.curves, labels, strict=True)):
        aside = shift * (number - (len(labels) - 1) / 2)
        places = [middle + aside for middle in middles]
        _draw(axes, curve, number, places, (width + _AWAY, heights[number]), label)
    for (place, other), tau in zip(pairwise(middles), taus, strict=True):
        if tau is not None:
            text = tau_text(tau).replace("-", "−").replace(" [", "\n[")
            axes.annotate(
                f"τ {text}", ((place + other) / 2, 1), (0, 6), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", fontsize=9, color=GREY, linespacing=1.3,
            )  # fmt: skip
    headline(figure, printable(chart.title))
    figure.text(
        0.01, 0.06 / whole, "\n".join(notes), fontsize=9, color=GREY, va="bottom", linespacing=1.3
    )
    return figure


def _middles(chart: Chart, width: float) -> list[float]:
    """Where columns stand, in inches, with room for whiskers at both sides."""
    side = min(0.4, width / 10)
    return [side + place * (width - 2 * side) for place in chart.places]


def _width(text: str) -> float:
    """Of text, in inches."""
    from matplotlib.textpath import TextPath

    lines = [TextPath((0, 0), line, size=10).get_extents() for line in text.split("\n")]
    return max(line.width for line in lines) / 72


def _draw(
    axes: Axes, curve: Curve, number: int, places: Sequence[float], end: tuple[float, float],
    label: str,
) -> None:  # fmt: skip
    colour, shape = _COLOURS[number % len(_COLOURS)], _SHAPES[number % len(_SHAPES)]
    for run in curve.runs:
        axes.plot(
            [places[dot.column] for dot in run], [dot.value for dot in run], shape + "-",
            color=colour, markersize=7.5, linewidth=2, markeredgecolor="white", markeredgewidth=0.6,
            zorder=3,
        )  # fmt: skip
        for dot in run:
            if dot.low is not None and dot.high is not None:
                place = places[dot.column]
                axes.plot(
                    [place, place], [dot.low, dot.high], color=colour, linewidth=1.5, zorder=2
                )
    last = curve.dots[-1]
    axes.plot(
        [places[last.column], end[0]], [last.value, end[1]], ":", color=colour, linewidth=1.2,
        zorder=1, clip_on=False,
    )  # fmt: skip
    axes.plot(*end, shape, color=colour, markersize=7, clip_on=False)
    axes.annotate(
        label, end, (9, 0), textcoords="offset points", va="center", linespacing=1.05,
        annotation_clip=False,
    )  # fmt: skip
