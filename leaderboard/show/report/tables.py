"""Tables whose columns sort, made of the grids that every format of the leaderboard shares."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Final

from benchmark.scoring.results import no_interval
from leaderboard.compare.contamination import judge
from leaderboard.compare.encoders import Comparisons
from leaderboard.compare.ranks import Summary, SummaryRow, summarise
from leaderboard.read.board import Board, Cell, Row, Table
from leaderboard.show.board import FACTS, label_of, summary_grid
from leaderboard.show.comparison import footnotes as comparison_notes
from leaderboard.show.comparison import twin_grid
from leaderboard.show.grid import CLOSE, MISSING, Grid, Item
from leaderboard.show.report import charts
from leaderboard.show.report.markup import Html, element, join

HEARD: Final = "corpus heard in training"
"""Heading of the column that tells clean encoders from others."""

# Columns of text rather than numbers.
_WORDS = (
    *("upstream", "layers", "family", HEARD, "metric", "better", "corpus", "protocol"),
    *("features", "what", "first row", "trained on"),
)


def sortable(title_id: str, headings: Sequence[str], rows: Sequence[Html]) -> Html:
    """A table whose columns sort."""
    heads = [
        element(
            "th",
            element(
                "button",
                heading,
                element("span", class_="order", aria_hidden="true"),
                type="button",
            ),
            scope="col",
            aria_sort="none",
            class_="words" if heading in _WORDS else None,
        )
        for heading in headings
    ]
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", *heads)),
            element("tbody", *rows),
            aria_labelledby=title_id,
        ),
        class_="scroll",
        role="group",
        tabindex="0",
        aria_labelledby=title_id,
    )


def score_parts(item: Item) -> list[Html]:
    """Value, interval and marks."""
    value, bracket, rest = item.text.partition(" [")
    marks = item.marks + (CLOSE if item.bold else "")
    parts = [element("span", value, class_="value")]
    if marks:
        parts.append(element("sup", marks))
    if rest:
        parts.append(element("span", bracket + rest, class_="range"))
    return parts


def plain_cell(item: Item, value: str | None) -> Html:
    """A cell that cannot be pressed; it is sorted by `value`, and stays last without one."""
    number = value is None or not value[0].isalpha()
    kind = "close" if item.bold else None if number else "words"
    return element("td", *score_parts(item), class_=kind, data_value=value)


def footnotes(grid: Grid, *more: str) -> Html:
    """What the marks of a table mean."""
    lines = [*grid.notes(f"{CLOSE} and bold"), *more]
    return element("ul", *(element("li", line) for line in lines), class_="footnotes")


Named = Callable[[SummaryRow], "Html | str"]
"""What stands for an encoder in a summary, such as a link to its page."""


def summaries(board: Board, named: Named | None = None, hint: str = "") -> Html:
    """The tables over all tasks, a row for each layer choice, and what the encoders are."""
    sections: list[Html] = []
    for place, summary in enumerate(summarise(board)):
        grid = summary_grid(summary, stacked=True)
        names = [row for row in summary.rows for _ in summary.layers]
        facts = [place for place, name in enumerate(grid.columns) if name in FACTS]
        scores = [place for place in range(len(grid.columns)) if place not in facts]
        title = f"summary-{place}-title"
        rows = [
            element(
                "tr",
                _name(row, named),
                element("td", shown.labels[1], class_="words", data_value=shown.labels[1]),
                *(_plain(shown.items[column]) for column in scores),
                data_name=row.label.lower(),
            )
            for row, shown in zip(names, grid.rows, strict=True)
        ]
        headings = [grid.heading(column) for column in scores]
        sections.append(
            element(
                "section",
                element("h2", grid.title, id=title),
                sortable(title, [*grid.labels, *headings], rows),
                footnotes(grid, *filter(None, (hint,)), *grid.details),
                _facts(f"summary-{place}-facts", grid, facts, summary, named),
                class_="summary",
                aria_labelledby=title,
                data_task="",
                data_protocol=protocol_of(summary.protocol, summary.protocol_version),
                data_corpus="" if summary.corpora == "published" else summary.corpora,
            )
        )
    return join(*sections)


def _facts(
    title: str, grid: Grid, columns: Sequence[int], summary: Summary, named: Named | None
) -> Html | None:
    """A table of what the encoders are and cost; None where no result says."""
    if not columns:
        return None
    first = grid.rows[:: len(summary.layers)]
    rows = [
        element(
            "tr",
            _name(row, named),
            *(_plain(shown.items[column]) for column in columns),
            data_name=row.label.lower(),
        )
        for row, shown in zip(summary.rows, first, strict=True)
    ]
    headings = [grid.heading(column) for column in columns]
    heading = element("h3", "What the encoders are, and cost", id=title)
    return join(heading, sortable(title, ["upstream", *headings], rows))


def _name(row: SummaryRow, named: Named | None) -> Html:
    shown = named(row) if named else None
    mark = label_of("", row.newest.untrained)
    return element("th", shown or row.label, mark, scope="row", data_value=row.label)


def _plain(item: Item) -> Html:
    return plain_cell(item, _sort_value(item.text))


def twin_section(comparisons: Comparisons) -> Html | None:
    """What each encoder has over its untrained twin; nothing where none has one."""
    if not comparisons.pairs:
        return None
    grid = twin_grid(comparisons)
    rows = [
        element(
            "tr",
            *(element("th", label, scope="row", data_value=label) for label in row.labels),
            *(plain_cell(item, _sort_value(item.text.lstrip("+<"))) for item in row.items),
            data_name=row.labels[-1].lower(),
        )
        for row in grid.rows
    ]
    return element(
        "section",
        element("h2", grid.title, id="twins-title"),
        sortable("twins-title", [*grid.labels, *grid.columns], rows),
        footnotes(grid, *comparison_notes(comparisons, checks=False)),
        class_="summary",
        id="twins",
        aria_labelledby="twins-title",
        data_task="",
        data_protocol="",
        data_corpus="",
    )


def _sort_value(text: str) -> str | None:
    """The number that a text starts with, its unit prefix counted; None for an empty cell."""
    found = re.match(r"(-?\d+(?:\.\d+)?)(?: ([kMGT]))?(?![^ ])", text)
    if found is None:
        return None if text in ("", MISSING, "failed") else text
    return repr(float(found[1]) * {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(found[2], 1))


def protocol_of(name: str, version: str) -> str:
    """A protocol as it is shown and filtered by."""
    return f"{name} version {version}"


def title_of(table: Table) -> str:
    """What a table is about, for a heading."""
    protocol = protocol_of(table.protocol, table.protocol_version)
    name = table.title or table.downstream
    if table.title and table.downstream != table.base:
        name += f" ({table.downstream})"  # whose title is that of the task which it varies
    return f"{name} on {table.corpus}, protocol {protocol}"


def score_table(
    table: Table,
    grid: Grid,
    title_id: str,
    named: Callable[[int], Html | str],
    scored: Callable[[Cell, Sequence[Html]], Html],
) -> Html:
    """One table of the board, with bars below the scores.

    Args:
        table: of the board.
        grid: the same as text.
        title_id: of the heading that names it.
        named: from the place of a row to what names it.
        scored: from a run and its score as markup to what stands in the cell.
    """
    ends = ends_of(table)
    rows = []
    for place, (row, shown) in enumerate(zip(table.rows, grid.rows, strict=True)):
        cells = [element("th", named(place), scope="row", data_value=row.label)]
        for layer, item in zip(table.layers, shown.items, strict=True):
            cell = row.cells.get(layer)
            if cell is None:
                cells.append(plain_cell(item, None))
                continue
            bar, value = None, None
            if cell.score is not None:
                bar = charts.interval_bar(cell.score, table.unit, ends)
                value = repr(float(cell.score["value"]))
            shown_cell = scored(cell, score_parts(item))
            kind = "close" if item.bold else None
            cells.append(element("td", shown_cell, bar, class_=kind, data_value=value))
        verdict = _heard(row, table)
        cells.append(element("td", verdict, class_="words", data_value=verdict))
        rows.append(element("tr", *cells, data_name=row.label.lower()))
    return sortable(title_id, [*grid.labels, *grid.columns, HEARD], rows)


def ends_of(table: Table) -> tuple[float, float]:
    """Of the bars below the scores, in percent: tens, so that the reader can place them."""
    scores = [cell.score for cell in table.cells if cell.score is not None]
    known = [score for score in scores if not no_interval(score, table.unit)]
    values = [score["value"] for score in scores]
    low = min([*values, *(score["low"] for score in known)], default=0.0)
    high = max([*values, *(score["high"] for score in known)], default=100.0)
    return 10 * math.floor(low / 10), 10 * math.ceil(max(high, low + 1) / 10)


def about_bars(table: Table) -> str:
    """What the bars of a table mean."""
    low, high = ends_of(table)
    return f"bars: value and interval on a scale from {low:g} to {high:g} {table.unit}"


def _heard(row: Row, table: Table) -> str:
    """Only names can be compared, so nothing more than what a card lists is said."""
    found = judge(row.trained_on, table.corpus)
    if found.verdict == "overlap":
        return f"{'yes' if found.itself else 'maybe'}: {', '.join(found.heard)}"
    return "not on its card" if found.verdict == "clean" else "not disclosed"
