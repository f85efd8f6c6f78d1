"""Small drawings as inline SVG: plain functions from numbers to markup, colours left to the CSS.

Every drawing is `WIDTH` wide, so that it stays sharp and readable on a phone. Marks differ in
shape as well as in colour, and each has its exact value as a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING

from benchmark.scoring.results import MetricValue, no_interval
from leaderboard.show.curves import Chart, spread, stagger
from leaderboard.show.report.markup import Html, element, join

if TYPE_CHECKING:
    from benchmark.scoring.statistics import Difference

WIDTH = 340.0
_HEIGHT = 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 10.0, 38.0
_NAME = 14  # characters of a name beside a row
_ROW = 18.0  # height of a line of a row chart
_LANE = 28.0  # height of a speaker in a time line


@dataclass(frozen=True)
class Point:
    """One value of a chart.

    Attributes:
        x: where, in the unit of the axis.
        y: the value.
        label: the tooltip.
        kind: class of the mark: ``finished``, ``dropped``, ``failed``, or ``""``.
        low: lower end of its interval, if it has one.
        high: upper end.
    """

    x: float
    y: float
    label: str
    kind: str = ""
    low: float | None = None
    high: float | None = None


def interval_bar(score: MetricValue, unit: str, ends: tuple[float, float]) -> Html:
    """A score and its interval, if it has one, as a band with a tick, on a scale of `ends`."""
    x = _Scale(*ends, 2, 98)
    reach = element("line", x1=x(score["low"]), x2=x(score["high"]), y1=5, y2=5, class_="reach")
    return element(
        "svg",
        element("line", x1=2, x2=98, y1=5, y2=5, class_="track"),
        None if no_interval(score, unit) else reach,
        element("line", x1=x(score["value"]), x2=x(score["value"]), y1=1, y2=9, class_="tick"),
        viewBox="0 0 100 10",
        class_="interval",
        aria_hidden="true",
    )


def difference_bar(found: Difference, unit: str, reach: float) -> Html:
    """A difference and its interval, if it has one, on a scale of `reach` to either side of 0."""
    x = _Scale(-reach, reach, 2, 98)
    ends = element("line", x1=x(found.low), x2=x(found.high), y1=5, y2=5, class_="reach")
    return element(
        "svg",
        element("line", x1=2, x2=98, y1=5, y2=5, class_="track"),
        element("line", x1=50, x2=50, y1=0, y2=10, class_="zero"),
        None if no_interval(found, unit) else ends,
        element("line", x1=x(found.value), x2=x(found.value), y1=1, y2=9, class_="tick"),
        viewBox="0 0 100 10",
        class_="interval",
        aria_hidden="true",
    )


def bars(
    values: Sequence[float],
    names: Sequence[str],
    title: str,
    x_label: str,
    y_label: str,
    *,
    reference: float | None = None,
    tooltips: Sequence[str] = (),
) -> Html:
    """Upright bars from 0, with a dashed line at `reference` if there is one."""
    y = _Scale.nice(0, max([*values, reference or 0.0]), _HEIGHT - _BOTTOM, _TOP)
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    drawn: list[Html] = []
    every = max(1, math.ceil(len(values) * max(len(name) for name in names) * 7 / 280))
    for position, (value, name) in enumerate(zip(values, names, strict=True)):
        left = _LEFT + position * step
        tip = tooltips[position] if tooltips else f"{name}: {value:.4g}"
        drawn.append(
            element(
                "rect",
                element("title", tip),
                x=left + step * 0.12,
                width=step * 0.76,
                y=y(value),
                height=max(0.0, y(0) - y(value)),
                class_="bar",
            )
        )
        if position % every == 0:
            drawn.append(_text(name, left + step / 2, _HEIGHT - _BOTTOM + 14, "middle"))
    if reference is not None:
        drawn.append(
            element(
                "line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y(reference), y2=y(reference), class_="ref"
            )
        )
    return _chart(title, x_label, y_label, y, drawn)


def points(
    values: Sequence[Point], x_ticks: Mapping[float, str], title: str, x_label: str, y_label: str
) -> Html:
    """Marks with intervals where given, joined from left to right."""
    values = sorted(values, key=lambda point: point.x)
    x = _Scale(min(x_ticks), max(x_ticks), _LEFT + 12, WIDTH - _RIGHT - 12)
    y = _Scale.nice(*_extent(values), _HEIGHT - _BOTTOM, _TOP)
    drawn = _x_axis(x, x_ticks)
    drawn.append(_line([(x(point.x), y(point.y)) for point in values], "joined"))
    drawn += [_mark(point, x(point.x), y) for point in values]
    return _chart(title, x_label, y_label, y, drawn)


def lines(
    series: Sequence[tuple[str, bool, Sequence[Point]]], title: str, x_label: str, y_label: str
) -> Html:
    """Curves over a shared axis from 0, or from below it where some x is negative.

    Each is (name, whether it is the one that counts, points).

    The name stands at the end of each curve.
    """
    everything = [point for _, _, values in series for point in values]
    start, end = min(0.0, *(p.x for p in everything)), max(p.x for p in everything)
    x = _Scale(start, end, _LEFT, WIDTH - _RIGHT - 44)
    y = _Scale.nice(*_extent(everything), _HEIGHT - _BOTTOM, _TOP)
    drawn = _x_axis(
        x, {tick: f"{tick:g}" for tick in _ticks(x.low, x.high, 4) if x.low <= tick <= x.high}
    )
    heights: list[float] = []
    for name, chosen, values in sorted(series, key=lambda entry: not entry[1]):
        kind = "curve chosen" if chosen else "curve"
        drawn.append(_line([(x(point.x), y(point.y)) for point in values], kind, name))
        last = values[-1]
        # A name that would lie on another one is left to the tooltip.
        if all(abs(y(last.y) - height) > 12 for height in heights):
            heights.append(y(last.y))
            drawn.append(_text(name, x(last.x) + 4, y(last.y) + 4, "start", strong=chosen))
    return _chart(title, x_label, y_label, y, drawn)


def comparison(chart: Chart) -> Html:
    """A curve for each encoder with its name at the end; what `leaderboard.show.curves` holds."""
    names = [_short(curve.label) for curve in chart.curves]
    right = WIDTH - 24 - 6.2 * max(map(len, names))
    x = _Scale(0, 1, _LEFT + 16, right - 26)
    columns = [x(place) for place in chart.places]
    rows = stagger(columns, [6.2 * len(name) + 8 for name in chart.names])
    top, bottom = _TOP, _TOP + max(150.0, 14.0 * len(names))
    if chart.logarithmic:
        low, high = map(math.log10, chart.ends)
        free = 0.04 * (high - low)
        scale = _Scale(low - free, high + free, bottom, top, tuple(map(math.log10, chart.ticks)))
        ticks = list(zip(scale.ticks, chart.ticks, strict=True))
    else:
        scale = _Scale.nice(*chart.ends, bottom, top)
        ticks = [(tick, tick) for tick in scale.ticks]

    def y(value: float) -> float:
        return scale(math.log10(value) if chart.logarithmic else value)

    drawn: list[Html] = []
    for place, tick in ticks:
        drawn += [
            element("line", x1=_LEFT, x2=right, y1=scale(place), y2=scale(place), class_="grid"),
            _text(f"{tick:g}", _LEFT - 6, scale(place) + 4, "end"),
        ]
    for column, row, name in zip(columns, rows, chart.names, strict=True):
        drawn += [
            element("line", x1=column, x2=column, y1=top, y2=bottom, class_="grid"),
            _text(name, column, bottom + 14 + 13 * row, "middle"),
        ]
    ends = spread([y(curve.dots[-1].value) for curve in chart.curves], [13.0] * len(names),
                  top, bottom)  # fmt: skip
    shift = min(5.0, 0.5 * min(b - a for a, b in pairwise(columns)) / len(names))
    for number, (curve, name, end) in enumerate(zip(chart.curves, names, ends, strict=True)):
        aside = shift * (number - (len(names) - 1) / 2)
        places = [column + aside for column in columns]
        shape = _SERIES[number % len(_SERIES)]
        last = curve.dots[-1]
        parts = [_line([(places[last.column], y(last.value)), (right + 8, end)], "lead")]
        for run in curve.runs:
            parts.append(_line([(places[dot.column], y(dot.value)) for dot in run], "way"))
            for dot in run:
                place = places[dot.column]
                tip = f"{curve.label}, {chart.names[dot.column]}: {dot.text}"
                if dot.low is not None and dot.high is not None:
                    reach = {"y1": y(dot.low), "y2": y(dot.high)}
                    parts.append(element("line", x1=place, x2=place, **reach, class_="whisker"))
                parts.append(shape(place, y(dot.value), element("title", tip)))
        parts += [
            shape(right + 8, end, element("title", curve.label)),
            _text(name, right + 16, end + 4, "start"),
        ]
        drawn.append(element("g", *parts, class_=f"series series-{number % _COLOURS}"))
    under = bottom + 14 + 13 * max(rows)
    drawn += [
        _text(chart.x_label, (_LEFT + right) / 2, under + 18, "middle"),
        _upright(chart.y_label, (top + bottom) / 2),
    ]
    return _svg(chart.title, drawn, under + 24)


def _polygon(*corners: tuple[float, float]) -> Callable[[float, float, Html], Html]:
    def shape(x: float, y: float, title: Html) -> Html:
        path = "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in corners) + "z"
        return element("path", title, d=path, class_="spot")

    return shape


def _disc(x: float, y: float, title: Html) -> Html:
    return element("circle", title, cx=x, cy=y, r=3.8, class_="spot")


# Seven colours and six shapes: no two of 42 encoders share both.
_COLOURS = 7
_SERIES: tuple[Callable[[float, float, Html], Html], ...] = (
    _disc,
    _polygon((-3.4, -3.4), (3.4, -3.4), (3.4, 3.4), (-3.4, 3.4)),
    _polygon((0, -4.6), (4.4, 3.4), (-4.4, 3.4)),
    _polygon((0, -5), (5, 0), (0, 5), (-5, 0)),
    _polygon((0, 4.6), (4.4, -3.4), (-4.4, -3.4)),
    _polygon((-1.4, -4.4), (1.4, -4.4), (1.4, -1.4), (4.4, -1.4), (4.4, 1.4), (1.4, 1.4),
             (1.4, 4.4), (-1.4, 4.4), (-1.4, 1.4), (-4.4, 1.4), (-4.4, -1.4), (-1.4, -1.4)),
)  # fmt: skip


def tradeoff(rates: Sequence[tuple[float, float]], title: str) -> Html:
    """Misses over false alarms on normal deviates, where two normal scores give a straight line.

    (DET curve: Martin et al. 1997.) Rates are shares; those of nothing and of everything are left
    out.
    """
    deviate = NormalDist().inv_cdf
    ticks = {share: f"{100 * share:g}" for share in (0.001, 0.01, 0.05, 0.2, 0.5, 0.8)}
    low, high = deviate(0.0005), deviate(0.9)
    x = _Scale(low, high, _LEFT, WIDTH - _RIGHT)
    y = _Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    inside = [
        (a, b) for a, b in rates if low <= deviate(_within(a)) <= high and 0 < b < 1 and 0 < a < 1
    ]
    places = [(x(deviate(a)), y(min(high, max(low, deviate(b))))) for a, b in inside]
    drawn: list[Html] = []
    for share, name in ticks.items():
        across, up = x(deviate(share)), y(deviate(share))
        drawn += [
            element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=up, y2=up, class_="grid"),
            _text(name, across, _HEIGHT - _BOTTOM + 14, "middle"),
            _text(name, _LEFT - 6, up + 4, "end"),
        ]
    drawn.append(_line([(x(low), y(low)), (x(high), y(high))], "ref", "equal errors"))
    if places:
        drawn.append(_line(places, "curve chosen", title))
    return _chart(title, "false alarms %", "misses %", _Scale(low, high, y.start, y.end), drawn)


def _within(share: float) -> float:
    """A share that has a deviate."""
    return min(1 - 1e-9, max(1e-9, share))


def rows(entries: Sequence[tuple[str, float, str]], title: str, x_label: str) -> Html:
    """One dot per line on a shared axis from 0; each entry is (name, value, tooltip)."""
    left = _room(name for name, _, _ in entries)
    x = _Scale.nice(0, max(value for _, value, _ in entries), left, WIDTH - 16)
    bottom = _TOP + _ROW * len(entries)
    drawn = _grid(x, bottom)
    for position, (name, value, tip) in enumerate(entries):
        height = _TOP + _ROW * (position + 0.5)
        drawn += [
            _text(_short(name), left - 8, height + 4, "end"),
            element("line", x1=x(0), x2=x(value), y1=height, y2=height, class_="stem"),
            element(
                "circle", element("title", tip), cx=x(value), cy=height, r=4, class_="mark finished"
            ),
        ]
    drawn.append(_text(x_label, (left + WIDTH) / 2, bottom + 28, "middle"))
    return _svg(title, drawn, bottom + 36)


def time_line(
    above: Sequence[tuple[str, float, float]], below: Sequence[tuple[str, float, float]], title: str
) -> Html:
    """For each speaker two bars over time, one above the other; each entry is (who, start, end)."""
    names = sorted({who for who, _, _ in (*above, *below)})
    left = _room(names)
    x = _Scale.nice(0, max(end for _, _, end in (*above, *below)), left, WIDTH - 16)
    bottom = _TOP + _LANE * len(names)
    drawn = _grid(x, bottom)
    for lane, name in enumerate(names):
        top = _TOP + _LANE * lane
        drawn.append(_text(_short(name), left - 8, top + _LANE / 2 + 2, "end"))
        for entries, height, kind in ((above, top, "said"), (below, top + 11, "heard")):
            drawn += [
                element(
                    "rect",
                    element("title", f"{name} {kind} from {start:.2f} to {end:.2f} s"),
                    x=x(start),
                    width=x(end) - x(start),
                    y=height,
                    height=9,
                    class_=f"bar {kind}",
                )
                for who, start, end in entries
                if who == name
            ]
    drawn.append(_text("seconds", (left + WIDTH) / 2, bottom + 28, "middle"))
    return _svg(title, drawn, bottom + 36)


def heat_map(counts: Mapping[tuple[int, int], int], names: Sequence[str], title: str) -> Html:
    """A confusion matrix: rows are references, columns hypotheses, shade the share of the row.

    Cells show their count where there is room for it. Only cells that are not empty are drawn.
    """
    size = len(names)
    written = size <= 16
    room = 6.8 * max(min(len(name), 11) for name in names) + 8 if written else 20
    cell = (WIDTH - room - 2) / size
    totals = [sum(count for (row, _), count in counts.items() if row == own) for own in range(size)]
    drawn = [element("rect", x=room, y=room, width=cell * size, height=cell * size, class_="field")]
    for (row, column), count in sorted(counts.items()):
        share = count / totals[row]
        kind = "hit" if row == column else "miss"
        tip = f"{names[row]} → {names[column]}: {count} of {totals[row]} ({100 * share:.0f} %)"
        left, top = room + column * cell, room + row * cell
        drawn.append(
            element(
                "rect",
                element("title", tip),
                x=left,
                y=top,
                width=cell,
                height=cell,
                class_=kind,
                fill_opacity=0.12 + 0.88 * share,
            )
        )
        if written and cell >= 16:
            strong = "count dense" if share > 0.5 else "count"
            drawn.append(
                element(
                    "text",
                    str(count),
                    x=left + cell / 2,
                    y=top + cell / 2 + 3.5,
                    class_=strong,
                    text_anchor="middle",
                )
            )
    if written:
        for position, name in enumerate(names):
            short = name if len(name) <= 11 else name[:10] + "…"
            middle = room + (position + 0.5) * cell
            drawn += [
                _text(short, room - 5, middle + 4, "end"),
                element(
                    "text",
                    short,
                    class_="axis",
                    text_anchor="start",
                    transform=f"translate({middle + 4:.1f} {room - 5:.1f}) rotate(-90)",
                ),
            ]
    else:
        drawn += [
            _text("hypothesis →", room, room - 6, "start"),
            element(
                "text",
                "← reference",
                class_="axis",
                text_anchor="end",
                transform=f"translate({room - 6:.1f} {room:.1f}) rotate(-90)",
            ),
        ]
    return _svg(title, drawn, room + cell * size + 2)


@dataclass(frozen=True)
class _Scale:
    """From values to pixels, in a straight line; `ticks` are the round values on it."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...] = ()

    @classmethod
    def nice(cls, low: float, high: float, start: float, end: float) -> _Scale:
        """One whose ends are ticks."""
        ticks = _ticks(low, high, 4)
        return cls(ticks[0], ticks[-1], start, end, tuple(ticks))

    def __call__(self, value: float) -> float:
        reach = self.high - self.low
        share = (value - self.low) / reach if reach else 0.5
        return self.start + share * (self.end - self.start)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers about `count` steps apart, the first and last at or beyond the ends."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(
        factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= count + 0.5
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Rounded, or 3 x 0.1 is no tick at 0.3.
    return [float(f"{position * step:.10g}") for position in range(first, last + 1)]


def _extent(values: Iterable[Point]) -> tuple[float, float]:
    ends = [end for point in values for end in (point.y, point.low, point.high) if end is not None]
    return min(ends), max(ends)


def _mark(point: Point, x: float, y: _Scale) -> Html:
    parts: list[Html] = []
    if point.low is not None and point.high is not None:
        parts.append(element("line", x1=x, x2=x, y1=y(point.low), y2=y(point.high), class_="span"))
    shape = _SHAPES.get(point.kind, _circle)
    parts.append(shape(x, y(point.y), point.kind, element("title", point.label)))
    return join(*parts)


def _circle(x: float, y: float, kind: str, title: Html) -> Html:
    return element("circle", title, cx=x, cy=y, r=4, class_=f"mark {kind}".strip())


def _cross(x: float, y: float, kind: str, title: Html) -> Html:
    path = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8"
    return element("path", title, d=path, class_=f"mark {kind}")


def _diamond(x: float, y: float, kind: str, title: Html) -> Html:
    path = f"M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7-7z"
    return element("path", title, d=path, class_=f"mark {kind}")


_SHAPES: Mapping[str, Callable[[float, float, str, Html], Html]] = {
    "failed": _cross,
    "chosen": _diamond,
}


def _line(places: Sequence[tuple[float, float]], kind: str, tip: str = "") -> Html:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return element("path", element("title", tip) if tip else None, d=path, class_=kind)


def _grid(x: _Scale, bottom: float) -> list[Html]:
    """Upright lines at the ticks, and their numbers below."""
    return [
        join(
            element("line", x1=x(tick), x2=x(tick), y1=_TOP - 4, y2=bottom, class_="grid"),
            _text(f"{tick:g}", x(tick), bottom + 12, "middle"),
        )
        for tick in x.ticks
    ]


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _room(names: Iterable[str]) -> float:
    """Where drawings start that have names to their left."""
    return 30 + 6.5 * max(len(_short(name)) for name in names)


def _x_axis(x: _Scale, ticks: Mapping[float, str]) -> list[Html]:
    return [
        _text(name, x(value), _HEIGHT - _BOTTOM + 14, "middle") for value, name in ticks.items()
    ]


def _chart(title: str, x_label: str, y_label: str, y: _Scale, drawn: Sequence[Html]) -> Html:
    """The frame: ticks and grid lines of the y axis, and the names of both."""
    axis: list[Html] = []
    for tick in y.ticks:
        axis += [
            element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y(tick), y2=y(tick), class_="grid"),
            _text(f"{tick:g}", _LEFT - 6, y(tick) + 4, "end"),
        ]
    axis += [
        _text(x_label, (_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 6, "middle"),
        _upright(y_label, (_HEIGHT - _BOTTOM + _TOP) / 2),
    ]
    return _svg(title, [*axis, *drawn], _HEIGHT)


def _upright(text: str, middle: float) -> Html:
    """The name of the y axis."""
    return element(
        "text",
        text,
        class_="axis",
        text_anchor="middle",
        transform=f"translate(10 {middle:.1f}) rotate(-90)",
    )


def attention(symbols: Sequence[str], weights: Sequence[Sequence[float]], title: str) -> Html:
    """Where each symbol of an answer came from: symbols downwards, frames to the right."""
    left, top = 24.0, 4.0
    columns = max(map(len, weights))
    width, height = (WIDTH - left - 2) / columns, min(13.0, 360 / len(symbols))
    bottom = top + height * len(symbols)
    field = {"x": left, "y": top, "width": width * columns, "height": bottom - top}
    drawn = [element("rect", **field, class_="field")]
    for row, (symbol, own) in enumerate(zip(symbols, weights, strict=True)):
        y = top + row * height
        shown = "·" if symbol == " " else symbol
        drawn.append(_text(shown, left - 6, y + height / 2 + 3.5, "end"))
        for column, weight in enumerate(own):
            if weight >= 0.02:
                tip = f"{shown}: {100 * weight:.0f} % at frame {column + 1} of {len(own)}"
                place = {"x": left + column * width, "y": y, "width": width, "height": height}
                title_of = element("title", tip)
                drawn.append(
                    element("rect", title_of, **place, class_="hit", fill_opacity=min(1.0, weight))
                )
    drawn.append(_text("frames of the head →", left, bottom + 14, "start"))
    return _svg(title, drawn, bottom + 20)


def _text(text: str, x: float, y: float, anchor: str, *, strong: bool = False) -> Html:
    kind = "axis strong" if strong else "axis"
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


def _svg(title: str, drawn: Iterable[Html], height: float) -> Html:
    return element(
        "svg",
        *drawn,
        viewBox=f"0 0 {WIDTH:g} {height:.0f}",
        class_="chart",
        role="img",
        aria_label=title,
    )
