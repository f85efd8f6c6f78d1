"""Grids on a terminal, through rich: pages of columns that fit, bold, and dim notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leaderboard.read.board import Board
from leaderboard.read.names import printable
from leaderboard.show.board import board_grids, notes_below
from leaderboard.show.grid import CLOSE, MISSING, Grid, Item

_WIDE = 400  # columns; nothing is broken, so that it can be piped into less -S or grep


def show_board(
    board: Board, console: Console, *, with_published: bool = False, wide: bool = False
) -> None:
    """Print a board, with bold where the terminal can.

    Args:
        board: what to show.
        console: to print to; made wide if `wide`.
        with_published: with the published SUPERB table after the measured ones.
        wide: one line per upstream whatever the width.
    """
    if wide:
        console.width = max(console.width, _WIDE)
    for grid in board_grids(board, with_published=with_published, stacked=not wide):
        show_grid(grid, console)
        console.print()
    for line in notes_below(board):
        console.print(Text(line))


def show_grid(grid: Grid, console: Console) -> None:
    """Print one grid; columns that do not fit beside the others go into a further one."""
    console.print(Text(printable(grid.title), style="bold"))
    for line in grid.details:
        console.print(Text(printable(line)))
    # Marks stand left in their room, so that numbers stand below each other.
    room = [
        max((len(_marks(row.items[column])) for row in grid.rows), default=0)
        for column in range(len(grid.columns))
    ]
    for columns in _pages(grid, room, console.width):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for position, label in enumerate(grid.labels):
            table.add_column(Text(label), overflow="fold", no_wrap=position > 0)
        for column in columns:
            # Text objects are printed as they are: no name is ever read as markup.
            table.add_column(Text(printable(grid.heading(column))), justify="right", no_wrap=True)
        rows = [(row, [row.items[column] for column in columns]) for row in grid.rows]
        if columns[0]:  # a further page holds only those with something to add
            rows = [
                (row, items)
                for row, items in rows
                if any(item.text not in ("", MISSING) for item in items)
            ]
        for row, items in rows:
            cells = [
                Text(
                    printable(item.text) + _marks(item).ljust(room[column]),
                    style="bold" if item.bold else "",
                )
                for column, item in zip(columns, items, strict=True)
            ]
            table.add_row(*(Text(printable(label)) for label in row.labels), *cells)
        if rows:
            console.print(table)
    for line in grid.notes(f"{CLOSE} and bold"):
        console.print(Text(printable(line), style="dim"))


def _marks(item: Item) -> str:
    return item.marks + (CLOSE if item.bold else "")


def difference_table(*columns: str) -> Table:
    """A narrow table of encoders: a name that folds, and numbers that do not."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("upstream", overflow="fold", min_width=12)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def show_lines(lines: Iterable[str], console: Console, style: str = "") -> None:
    """Print lines whole, so that they can be copied or piped."""
    for line in lines:
        console.print(Text(printable(line), style=style), soft_wrap=True)


def _pages(grid: Grid, room: Sequence[int], width: int) -> Iterator[list[int]]:
    """Columns that fit beside the labels, page by page; at least one a page."""
    labels = [
        max(len(heading), *(len(printable(row.labels[position])) for row in grid.rows), 0)
        for position, heading in enumerate(grid.labels)
    ]
    # A long name is folded, a layer choice is not.
    labels[0] = min(labels[0], 24)
    # Three blanks between columns, as rich draws this kind of box.
    free = width - sum(label + 3 for label in labels)
    page: list[int] = []
    used = 0
    for column in range(len(grid.columns)):
        texts = [len(printable(row.items[column].text)) + room[column] for row in grid.rows]
        size = max(len(printable(grid.heading(column))), *texts, 0) + 3
        if page and used + size > free:
            yield page
            page, used = [], 0
        page.append(column)
        used += size
    if page:
        yield page
