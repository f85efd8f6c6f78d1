"""Published figures as grids: SUPERB's own table, and measured scores beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leaderboard.compare.reproduction import Reproduction
from leaderboard.read.board import MAIN_LAYERS
from leaderboard.read.published import LOWER_IS_BETTER, Figure, load_published
from leaderboard.show.grid import MISSING, Grid, GridRow, Item
from leaderboard.show.numbers import score_text


def published_grid() -> Grid:
    """SUPERB's published table: two kinds of columns, each value with its source."""
    scores = [figure for figure in load_published() if figure.figure == "score"]
    marks: dict[tuple[str, str], str] = {}
    for figure in scores:
        marks.setdefault((figure.source, figure.remark), f"[{chr(ord('a') + len(marks))}]")
    metrics = dict.fromkeys((figure.task, figure.metric) for figure in scores)
    columns = [(*metric, layer) for metric in metrics for layer in MAIN_LAYERS]
    by_row: dict[str, dict[tuple[str, str, str], Figure]] = {}
    for figure in scores:
        place = (figure.task, figure.metric, figure.layer)
        by_row.setdefault(figure.row, {})[place] = figure
    return Grid(
        title="Published by others: not measured here, not ranked, without intervals",
        details=(
            "the SUPERB leaderboard, on its corpora and under its protocol; in %, mtwv times 100",
        ),
        labels=("published as",),
        columns=(
            "parameters",
            *("last (inferred)" if layer == "last" else layer for *_, layer in columns),
        ),
        groups=(
            "",
            *(
                f"{task} {metric} {'↓' if metric in LOWER_IS_BETTER else '↑'}"
                for task, metric, _ in columns
            ),
        ),
        rows=tuple(
            GridRow((name,), _published_items(figures, columns, marks))
            for name, figures in by_row.items()
        ),
        bold="",
        footnotes=(
            "last (inferred): that the leaderboard's early values are the last layer's is our "
            "reading of its history, not its word",
            *(
                f"{mark} {'; '.join(part for part in origin if part)}"
                for origin, mark in marks.items()
            ),
        ),
    )


def _published_items(
    figures: Mapping[tuple[str, str, str], Figure],
    columns: Sequence[tuple[str, str, str]],
    marks: Mapping[tuple[str, str], str],
) -> tuple[Item, ...]:
    size = next(iter(figures.values())).parameters_millions
    items = [Item(MISSING if size is None else f"{size:g} M")]
    for place in columns:
        figure = figures.get(place)
        if figure is None:
            items.append(Item(MISSING))
        else:
            items.append(Item(f"{figure.value:.2f}", marks[figure.source, figure.remark]))
    return tuple(items)


def reproduction_grid(found: Reproduction) -> Grid:
    """Measured beside published scores of one encoder."""
    rows = []
    remarks: dict[str, None] = {}
    for item in found.comparisons:
        figure = item.published
        measured, difference = MISSING, MISSING
        if item.measured is not None:
            score = item.measured
            measured = score_text(score, "%", 2)
            difference = f"{score['value'] - figure.value:+.2f}"
        tolerance = MISSING
        if item.tolerance is not None:
            tolerance = f"± {item.tolerance.value:g}"
            remarks.setdefault(_origin(f"tolerance for {figure.task}", item.tolerance))
        remarks.setdefault(_origin(f"published {figure.task}, {figure.layer}", figure))
        rows.append(
            GridRow(
                (f"{figure.task} {figure.metric}", figure.layer),
                (
                    Item(measured),
                    Item(f"{figure.value:.2f}"),
                    Item(difference),
                    Item(item.outcome),
                    Item(tolerance),
                    Item(item.protocol or MISSING),
                ),
            )
        )
    columns = ("measured", "published", "difference", "outcome", "re-run", "protocol")
    return Grid(
        title=f"{found.upstream}: measured beside published, in %",
        details=(),
        labels=("task", "layers"),
        columns=columns,
        groups=("",) * len(columns),
        rows=tuple(rows),
        bold="",
        footnotes=(
            "re-run: how far others came out who ran the published protocol again",
            *remarks,
        ),
    )


def _origin(what: str, figure: Figure) -> str:
    return f"{what}: {'; '.join(part for part in (figure.source, figure.remark) if part)}"
