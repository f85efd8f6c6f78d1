"""Tables whose columns sort, made of the grids that every format of the leaderboard shares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from leaderboard.compare.encoders import Comparisons
from leaderboard.compare.ranks import summarise
from leaderboard.read.board import Board
from leaderboard.show.board import summary_grid
from leaderboard.show.comparison import footnotes as comparison_notes
from leaderboard.show.comparison import twin_grid
from leaderboard.show.grid import CLOSE, MISSING, Grid, Item
from leaderboard.show.report.markup import Html, element, join

HEARD: Final = "corpus heard in training"
"""Heading of the column that tells clean encoders from others."""

_WORDS = ("upstream", "family", HEARD)  # columns of text rather than numbers


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
        role="region",
        tabindex="0",
        aria_labelledby=title_id,
    )


def score_parts(item: Item) -> list[Html]:
    """Value, interval and marks."""
    value, bracket, rest = item.text.partition(" [")
    marks = item.marks + (CLOSE if item.bold else "")
    parts = [element("span", value, class_="value")]
    if rest:
        parts.append(element("span", bracket + rest, class_="range"))
    return [*parts, element("sup", marks)] if marks else parts


def plain_cell(item: Item, value: str | None) -> Html:
    """A cell that cannot be pressed; it is sorted by `value`, and stays last without one."""
    number = value is None or not value[0].isalpha()
    kind = "close" if item.bold else None if number else "words"
    return element("td", *score_parts(item), class_=kind, data_value=value)


def footnotes(grid: Grid, *more: str) -> Html:
    """What the marks of a table mean."""
    lines = [*grid.notes(f"{CLOSE} and bold"), *more]
    return element("ul", *(element("li", line) for line in lines), class_="footnotes")


def summaries(board: Board) -> Html:
    """The tables over all tasks; their scores are those of the tables below."""
    sections: list[Html] = []
    for place, summary in enumerate(summarise(board)):
        grid = summary_grid(summary)
        names = [row.label for row in summary.rows]
        rows = [
            element(
                "tr",
                element("th", shown.labels[0], scope="row", data_value=name),
                *(plain_cell(item, _sort_value(item.text)) for item in shown.items),
                data_name=name.lower(),
            )
            for name, shown in zip(names, grid.rows, strict=True)
        ]
        title = f"summary-{place}-title"
        headings = [grid.heading(column) for column in range(len(grid.columns))]
        sections.append(
            element(
                "section",
                element("h2", grid.title, id=title),
                *(element("p", line) for line in grid.details),
                sortable(title, [*grid.labels, *headings], rows),
                footnotes(grid, "where a score comes from: press it in the table of its task"),
                class_="summary",
                aria_labelledby=title,
                data_task="",
                data_protocol=protocol_of(summary.protocol, summary.protocol_version),
                data_corpus="" if summary.corpora == "published" else summary.corpora,
            )
        )
    return join(*sections)


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
