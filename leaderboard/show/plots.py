"""Pictures as PNG files, those of a study of layers here: the same results, the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from benchmark.errors import SuperbError
from benchmark.scoring.results import no_interval, safe_name
from leaderboard.compare.encoders import LEVEL
from leaderboard.compare.layers import LayerRow, LayerStudy, LayerTable
from leaderboard.read.names import printable
from leaderboard.show.numbers import difference_text, step_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The blue of Okabe & Ito's palette. Colour-blind readers tell the maps "Blues" and "Oranges" below
# from each other, and in both of them darker is more.
_BLUE, GREY = "#0072B2", "#666666"
WIDTH = 8.0  # inches
_DPI = 150
_ROOMY = 14  # layers; more need smaller figures
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a name may hold dollar signs
}


def draw(study: LayerStudy, folder: Path | str) -> list[Path]:
    """Draw every table of a study: ``<task>-differences.png``, and ``<task>-layers.png`` if learned
    weights are there; a second table of a task gets a 2 behind it.

    Raises:
        SuperbError: when the folder cannot be written.
    """
    return write_pictures(
        folder,
        (
            (
                entry.table.downstream,
                {
                    "differences": partial(draw_differences, entry),
                    "layers": partial(draw_layers, entry),
                },
            )
            for entry in study.tables
        ),
    )


def write_pictures(
    folder: Path | str,
    pictures: Iterable[tuple[str, Mapping[str, Callable[[], Figure | None]]]],
) -> list[Path]:
    """Draw and write ``<name>-<kind>.png``; of a name that was there before, with a 2 behind it.

    Args:
        folder: made if it does not exist.
        pictures: name, and what draws each kind; None draws nothing.

    Raises:
        SuperbError: when the folder cannot be written.
    """
    import matplotlib.style

    folder = Path(folder)
    written: list[Path] = []
    seen: dict[str, int] = {}
    for name, kinds in pictures:
        seen[name] = seen.get(name, 0) + 1
        stem = safe_name(name) + (f"-{seen[name]}" if seen[name] > 1 else "")
        # The reader's own settings of matplotlib do not change the pictures.
        with matplotlib.style.context(["default", _STYLE]):
            for kind, drawn in kinds.items():
                figure = drawn()
                if figure is None:
                    continue
                path = folder / f"{stem}-{kind}.png"
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
                except OSError as error:
                    raise SuperbError(
                        f"{path} cannot be written: {error.strerror}. "
                        "Choose a folder that you can write to with --output."
                    ) from error
                written.append(path)
    return written


def draw_differences(entry: LayerTable) -> Figure | None:
    """Weighted sum minus last layer, a dot and an interval for each encoder; None without pairs."""
    from matplotlib.figure import Figure

    rows = [row for row in entry.rows if row.pair is not None]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 1.4 + 0.38 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=GREY, linewidth=1, zorder=1)
    for height, row in enumerate(reversed(rows)):
        assert row.pair is not None
        found = row.pair.difference
        clear = row.p_value is not None and row.p_value < LEVEL
        if not no_interval(found, entry.table.unit):
            axes.plot([found.low, found.high], [height, height], color=_BLUE, linewidth=2, zorder=2)
        axes.plot(
            found.value, height, "o", color=_BLUE, markerfacecolor=_BLUE if clear else "white",
            markersize=8, markeredgewidth=2, zorder=3,
        )  # fmt: skip
        axes.annotate(
            difference_text(found, entry.table.unit).replace("-", "−"),
            (1.02, height), xycoords=("axes fraction", "data"), va="center",
            fontweight="bold" if clear else "normal",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [fill(printable(row.upstream), 26) for row in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{entry.table.metric}, weighted sum − last layer, {step_of(entry.table.unit)}")
    headline(figure, f"{_title(entry)}: what the other layers add")
    sides = ["last layer better", "weighted sum better"]
    left, right = reversed(sides) if entry.table.lower_is_better else sides
    for text, place, anchor, line in (
        ("95 % paired intervals; filled: p < 0.05 after Holm's correction", 0.0, "left", 1.4),
        (f"← {left}", 0.0, "left", 0.2),
        (f"{right} →", 1.0, "right", 0.2),
    ):
        axes.annotate(
            text, (place, 1), (0, 12 * line), ha=anchor, xycoords="axes fraction",
            textcoords="offset points", fontsize=9, color=GREY,
        )  # fmt: skip
    return figure


def draw_layers(entry: LayerTable) -> Figure | None:
    """Norm, weight, their product and score of each layer, a strip for each encoder.

    Each line of a strip has a colour scale of its own. None when no encoder has a learned sum.
    """
    from matplotlib.figure import Figure

    rows = [row for row in entry.rows if len(row.weights) > 1]
    if not rows:
        return None
    heights = [len(_lines(row, entry)) for row in rows]
    figure = Figure(figsize=(WIDTH, 1.1 + sum(0.3 * lines + 0.6 for lines in heights)),
                    layout="constrained")  # fmt: skip
    grid = figure.add_gridspec(len(rows), 1, height_ratios=heights)
    headline(figure, f"{_title(entry)}: learned weights beside norms and single layers")
    for position, row in enumerate(rows):
        _strip(figure.add_subplot(grid[position]), row, entry)
    legend = "Each line has its own scale: darker is more"
    alone = any(line.alone for row in rows for line in _lines(row, entry))
    legend += ", or better where a layer stands alone." if alone else "."
    if any(row.weight_correlation is not None for row in rows):
        legend += "\nρ: rank correlation with the layers alone, turned so that more is better."
    if any(row.best is not None for row in rows):
        legend += "\nBold: the single layer that is best on valid."
    figure.supxlabel(legend, x=0.01, ha="left", fontsize=9, color=GREY)
    return figure


def headline(figure: Figure, text: str) -> None:
    """Write what a picture is about above it."""
    figure.suptitle(text, fontsize=11, fontweight="bold", x=0.01, ha="left")


def _title(entry: LayerTable) -> str:
    table = entry.table
    return printable(f"{table.downstream} on {table.corpus}")


@dataclass(frozen=True)
class _Line:
    """One line of a strip: its label, a number and its text for each layer, what stands behind."""

    label: str
    values: Sequence[float]
    texts: Sequence[str]
    correlation: float | None = None
    alone: bool = False


def _lines(row: LayerRow, entry: LayerTable) -> list[_Line]:
    lines: list[_Line] = []
    if len(row.norms) == len(row.weights):
        texts = [f"{norm:.0f}" if norm >= 10 else f"{norm:.1f}" for norm in row.norms]
        lines.append(_Line("norm", row.norms, texts))
    for label, shares, correlation in (
        ("weight, %", row.weights, row.weight_correlation),
        ("weight × norm, %", row.products, row.product_correlation),
    ):
        if shares:
            texts = [f"{100 * share:.0f}" for share in shares]
            lines.append(_Line(label, shares, texts, correlation))
    scores = [score for score in row.scores if score is not None]
    if len(scores) == len(row.scores) == len(row.weights):
        texts = [f"{score:.{1 if len(scores) <= _ROOMY else 0}f}" for score in scores]
        label = f"{entry.table.metric} alone, {entry.table.unit}"
        lines.append(_Line(label, scores, texts, alone=True))
    return lines


def _strip(axes: Axes, row: LayerRow, entry: LayerTable) -> None:
    import matplotlib
    from matplotlib.patches import Rectangle

    lines = _lines(row, entry)
    layers = len(row.weights)
    small = 9 if layers <= _ROOMY else 7
    for height, line in enumerate(lines):
        low, high = (min(line.values) if line.alone else 0.0), max(line.values)
        colours = matplotlib.colormaps["Oranges" if line.alone else "Blues"]
        for layer, (value, text) in enumerate(zip(line.values, line.texts, strict=True)):
            shade = 0.85 * (value - low) / (high - low) if high > low else 0.0
            if line.alone and entry.table.lower_is_better:
                shade = 0.85 - shade
            cell = Rectangle(
                (layer - 0.5, height - 0.5), 1, 1, facecolor=colours(shade), edgecolor="white",
                linewidth=1.5,
            )  # fmt: skip
            axes.add_patch(cell)
            axes.text(
                layer, height, text, ha="center", va="center", fontsize=small,
                color="white" if shade > 0.55 else "black",
                fontweight="bold" if line.alone and layer == row.best else "normal",
            )  # fmt: skip
        if line.correlation is not None:
            axes.annotate(
                f"ρ {line.correlation:+.2f}".replace("-", "−"), (1, height), (6, 0),
                xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                fontsize=9,
            )  # fmt: skip
    axes.set_xlim(-0.5, layers - 0.5)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xticks(range(layers), [str(layer) for layer in range(layers)], fontsize=small)
    axes.annotate(
        "layer", (0, 0), (-4, -4), xycoords="axes fraction", textcoords="offset points",
        ha="right", va="top", fontsize=9,
    )  # fmt: skip
    axes.set_yticks(range(len(lines)), [line.label for line in lines], fontsize=9)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(printable(row.upstream), loc="left", fontsize=10)
