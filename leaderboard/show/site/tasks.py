"""The page of a task: its tables, one for each corpus and protocol."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.read.board import Cell, Row, Table
from leaderboard.show.board import label_of, table_grid
from leaderboard.show.report.markup import Html, element, join
from leaderboard.show.report.tables import about_bars, footnotes, score_table, title_of
from leaderboard.show.site.addresses import run_link
from leaderboard.show.site.content import Content
from leaderboard.show.site.layout import Place


def task_text(content: Content, downstream: str, place: Place) -> str:
    """All of it."""
    tables = content.tasks[downstream]
    title = tables[0].title or downstream
    if downstream != title.lower():
        title += f" ({downstream})"
    return place.write(
        title,
        [_section(content, position, table, place) for position, table in enumerate(tables)],
        lead="Press a score to see where it comes from. Press the name of a column to sort by it.",
    )


def _section(content: Content, position: int, table: Table, place: Place) -> Html:
    title = f"table-{position}"
    grid = table_grid(table)

    def named(at: int) -> Html:
        row = table.rows[at]
        encoder = content.encoder(row.upstream, row.weights)
        return join(place.link(row.label, encoder.page), label_of("", row.untrained))

    owners = {cell.run_id: row for row in table.rows for cell in row.cells.values()}

    def scored(cell: Cell, parts: Sequence[Html]) -> Html:
        return score_link(content, owners[cell.run_id], cell, parts, place)

    return element(
        "section",
        element("h2", title_of(table), id=title),
        *(element("p", line) for line in (grid.title, *grid.details)),
        score_table(table, grid, title, named, scored),
        footnotes(grid, about_bars(table)),
        aria_labelledby=title,
    )


def score_link(content: Content, row: Row, cell: Cell, parts: Sequence[Html], place: Place) -> Html:
    """A score that leads to where it comes from."""
    encoder = content.encoder(row.upstream, row.weights)
    return element("a", *parts, href=place.to(run_link(encoder, cell.run_id)))
