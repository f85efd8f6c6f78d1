"""Boards as text: terminal, Markdown, CSV, LaTeX, HTML. Numbers come from the board alone."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import groupby

from benchmark.errors import unknown
from leaderboard.read.board import Board
from leaderboard.show.board import board_grids, notes_below
from leaderboard.show.board_csv import board_csv
from leaderboard.show.escape import escape_html, escape_latex, escape_markdown
from leaderboard.show.grid import Grid, Item

FORMATS = ("terminal", "markdown", "csv", "latex", "html")


def render(
    board: Board,
    format: str = "terminal",
    *,
    width: int = 100,
    with_published: bool = False,
    wide: bool = False,
) -> str:
    """A board as text, ending in a line break; the same board gives the same text.

    Args:
        board: what to show.
        format: ``terminal`` (plain text, without colours), ``markdown``, ``csv``, ``latex`` (for
            the packages booktabs and graphicx) or ``html`` (a fragment).
        width: columns of the terminal.
        with_published: with the published SUPERB table after the measured ones.
        wide: one line per upstream whatever the width.

    Raises:
        SuperbError: for another format.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, "Choose one with --format.")
    if format == "csv":
        return board_csv(board, with_published)
    if format == "terminal":
        # Here and not above, so that the other formats do not wait for it.
        from rich.console import Console

        from leaderboard.show.terminal import show_board

        text = io.StringIO()
        console = Console(
            emoji=False, file=text, width=width, color_system=None, legacy_windows=False
        )
        show_board(board, console, with_published=with_published, wide=wide)
        # Cells are padded to their column; a file should not end its lines in blanks.
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip() + "\n"
    write = {"markdown": _markdown, "latex": _latex, "html": _html}[format]
    stacked = format == "latex" and not wide  # a page is as narrow as a terminal
    found = board_grids(board, with_published=with_published, stacked=stacked)
    return write(found, notes_below(board))


def _markdown(found: Sequence[Grid], below: Sequence[str]) -> str:
    lines: list[str] = []
    for grid in found:
        details = [escape_markdown(line) for line in grid.details]
        lines += [f"## {escape_markdown(grid.title)}", "", "  \n".join(details), ""]
        headings = [grid.heading(column) for column in range(len(grid.columns))]
        lines.append(_markdown_row([*grid.labels, *headings]))
        lines.append("|" + " :-- |" * len(grid.labels) + " --: |" * len(headings))
        for row in grid.rows:
            labels = [escape_markdown(label) for label in row.labels]
            items = [_markdown_item(item) for item in row.items]
            lines.append(f"| {' | '.join([*labels, *items])} |")
        lines += ["", *(f"- {escape_markdown(line)}" for line in grid.notes()), ""]
    lines += [f"- {escape_markdown(line)}" for line in below]
    return "\n".join(lines).rstrip("\n") + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape_markdown(cell) for cell in cells)} |"


def _markdown_item(item: Item) -> str:
    text = _plain_number(item.text) or escape_markdown(item.text)
    return (f"**{text}**" if item.bold else text) + escape_markdown(item.marks)


def _plain_number(text: str) -> str:
    """A score with its interval needs no escaping, and is easier to read in the source without."""
    return text if re.fullmatch(r"[-+\d.]+ \[[-+\d.]+, [-+\d.]+\]", text) else ""


def _html(found: Sequence[Grid], below: Sequence[str]) -> str:
    lines = ['<div class="superb-leaderboard">']
    for grid in found:
        lines += ["<section>", f"<h2>{escape_html(grid.title)}</h2>"]
        lines += [f"<p>{escape_html(line)}</p>" for line in grid.details]
        lines += ["<table>", "<thead>"]
        if any(grid.groups):
            spans = [
                f'<th scope="colgroup" colspan="{len(list(columns))}">{escape_html(group)}</th>'
                for group, columns in groupby(grid.groups)
            ]
            lines.append(f'<tr><td colspan="{len(grid.labels)}"></td>{"".join(spans)}</tr>')
        names = (*grid.labels, *grid.columns)
        headings = [f'<th scope="col">{escape_html(name)}</th>' for name in names]
        lines += [f"<tr>{''.join(headings)}</tr>", "</thead>", "<tbody>"]
        for row in grid.rows:
            labels = [f'<th scope="row">{escape_html(label)}</th>' for label in row.labels]
            items = [f"<td>{_html_item(item)}</td>" for item in row.items]
            lines.append(f"<tr>{''.join(labels)}{''.join(items)}</tr>")
        lines += ["</tbody>", "</table>"]
        lines += _html_list(grid.notes())
        lines.append("</section>")
    lines += _html_list(below)
    return "\n".join([*lines, "</div>"]) + "\n"


def _html_list(lines: Sequence[str]) -> list[str]:
    items = [f"<li>{escape_html(line)}</li>" for line in lines]
    return ["<ul>", *items, "</ul>"] if items else []


def _html_item(item: Item) -> str:
    text = escape_html(item.text)
    marks = f"<sup>{escape_html(item.marks)}</sup>" if item.marks else ""
    return (f"<strong>{text}</strong>" if item.bold else text) + marks


def _latex(found: Sequence[Grid], below: Sequence[str]) -> str:
    lines = [r"% needs \usepackage{booktabs} and \usepackage{graphicx}"]
    # A comment ends with its line, and no line break is left in any of these.
    lines += [f"% {line}" for line in below]
    for grid in found:
        count = len(grid.labels)
        lines += ["", r"\begin{table}", r"  \centering\small\setlength{\tabcolsep}{4pt}"]
        caption = "; ".join([grid.title, *grid.details])
        lines.append(f"  \\caption{{{escape_latex(caption)}}}\\smallskip")
        lines.append(r"  \resizebox{\ifdim\width>\linewidth \linewidth\else\width\fi}{!}{%")
        lines.append(f"  \\begin{{tabular}}{{{'l' * count}{'r' * len(grid.columns)}}}")
        lines.append(r"    \toprule")
        if any(grid.groups):
            lines += _latex_groups(grid)
        lines += [_latex_row([escape_latex(cell) for cell in (*grid.labels, *grid.columns)])]
        lines.append(r"    \midrule")
        for row in grid.rows:
            labels = [escape_latex(label) for label in row.labels]
            lines.append(_latex_row([*labels, *(_latex_item(item) for item in row.items)]))
        lines += [r"    \bottomrule", r"  \end{tabular}}"]
        lines.append(r"  \par\raggedright\footnotesize")
        lines += [f"  {escape_latex(note)}\\par" for note in grid.notes()]
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _latex_groups(grid: Grid) -> list[str]:
    cells = [""] * len(grid.labels)
    rules: list[str] = []
    first = len(grid.labels) + 1
    for group, columns in groupby(grid.groups):
        span = len(list(columns))
        if group:
            cells.append(f"\\multicolumn{{{span}}}{{c}}{{{escape_latex(group)}}}")
            rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
        else:
            cells += [""] * span
        first += span
    return [_latex_row(cells), f"    {' '.join(rules)}"]


def _latex_row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _latex_item(item: Item) -> str:
    text = escape_latex(item.text)
    return (f"\\textbf{{{text}}}" if item.bold else text) + escape_latex(item.marks)
