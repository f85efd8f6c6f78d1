"""Boards as text: terminal, Markdown, CSV, LaTeX, HTML. Numbers come from the board alone."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from benchmark.errors import unknown
from leaderboard.compare.contamination import judge
from leaderboard.compare.scores import Summary, summarise
from leaderboard.read.collect import Board, Row, Table
from leaderboard.read.published import load_published
from leaderboard.show.grid import (
    CLOSE,
    MISSING,
    Grid,
    Item,
    notes_of,
    published_grid,
    summary_grid,
    table_grid,
)

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("terminal", "markdown", "csv", "latex", "html")

_WIDE = 400  # columns; nothing is broken, so that it can be piped into less -S or grep


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
        wide: one line per upstream whatever the width, and all published tasks.

    Raises:
        SuperbError: for another format.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, "Choose one with --format.")
    if format == "csv":
        return _csv(board, with_published)
    if format == "terminal":
        from rich.console import Console

        text = io.StringIO()
        console = Console(
            emoji=False, file=text, width=width, color_system=None, legacy_windows=False
        )
        show(board, console, with_published=with_published, wide=wide)
        # Cells are padded to their column; a file should not end its lines in blanks.
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip() + "\n"
    write = {"markdown": _markdown, "latex": _latex, "html": _html}[format]
    stacked = format == "latex" and not wide  # a page is as narrow as a terminal
    found = grids(board, with_published=with_published, wide=wide, stacked=stacked)
    return write(found, _below(board))


def grids(
    board: Board, *, with_published: bool = False, wide: bool = False, stacked: bool = False
) -> list[Grid]:
    """Summaries first, then every task, then, visibly apart, what others published."""
    found = [summary_grid(summary, stacked=stacked) for summary in summarise(board)]
    found += [table_grid(table) for table in board.tables]
    return found + ([published_grid(wide=wide)] if with_published else [])


def show(
    board: Board,
    console: Console | None = None,
    *,
    with_published: bool = False,
    wide: bool = False,
) -> None:
    """Print a board to a terminal, with bold where the terminal can."""
    # Here and not above, so that the other formats do not wait for it.
    from rich.console import Console
    from rich.text import Text

    console = console or Console(emoji=False)
    if wide:
        console.width = max(console.width, _WIDE)
    for grid in grids(board, with_published=with_published, wide=wide, stacked=not wide):
        show_grid(grid, console)
        console.print()
    for line in _below(board):
        console.print(Text(line))


def show_grid(grid: Grid, console: Console) -> None:
    """Print one grid; columns that do not fit beside the others go into a further one."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(printable(grid.title), style="bold"))
    for line in grid.details:
        console.print(Text(printable(line)))
    # Marks stand left in their room, so that numbers stand below each other.
    room = [
        max((len(_marks(row.items[column])) for row in grid.rows), default=0)
        for column in range(len(grid.columns))
    ]
    for columns in _pages(grid, room, console.width):
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
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
    if grid.bold:
        console.print(Text(f"{CLOSE} and bold: {grid.bold}", style="dim"))
    for line in grid.footnotes:
        console.print(Text(printable(line), style="dim"))


def _marks(item: Item) -> str:
    return item.marks + (CLOSE if item.bold else "")


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


def printable(text: str) -> str:
    """Text with everything that could move the cursor, break a line or reverse it spelled out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def no_formula(text: str) -> str:
    """Text that a spreadsheet does not run: an apostrophe before what it would read as a formula.

    A number stays as it is, a layer such as -1 too.

    >>> no_formula("=1+1"), no_formula("-1"), no_formula("hubert")
    ("'=1+1", '-1', 'hubert')
    """
    dangerous = text.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{text}" if dangerous and not re.fullmatch(r"[-+]?\d+(\.\d+)?", text) else text


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table and at the start of a line."""
    text = html.escape(printable(text), quote=False)
    text = re.sub(r"([\\`*\[\]~|$])", r"\\\1", text)
    # A heading, a list or a rule.
    text = re.sub(r"^(#|[-+=](?![\d.]))", r"\\\1", text)
    # Inside a word an underscore means nothing, and model names are full of them.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    # After \\ these would be read as its argument.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "–": r"\textendash{}",
    "−": "$-$",
    "±": r"$\pm$",
    "¹": r"\textsuperscript{1}",
    "²": r"\textsuperscript{2}",
    "³": r"\textsuperscript{3}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\textsection{}",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is, also at the start of a table's row.

    Letters of Latin-1 are left to LaTeX's own UTF-8; what its default fonts do not have is spelled
    out as its code point.
    """
    escaped = "".join(_latex_char(char) for char in printable(text))
    # Two hyphens side by side would become a dash.
    return re.sub(r"-(?=-)", "-{}", escaped)


def _latex_char(char: str) -> str:
    if char in _LATEX:
        return _LATEX[char]
    if char.isascii() or (char.isalpha() and "À" <= char <= "ÿ" and char not in "ÐÞðþ"):
        return char
    return escape_latex(char.encode("unicode_escape").decode())


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
        notes = [*([f"Bold: {grid.bold}"] if grid.bold else []), *grid.footnotes]
        lines += ["", *(f"- {escape_markdown(line)}" for line in notes), ""]
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
        lines += ["<section>", f"<h2>{_escape_html(grid.title)}</h2>"]
        lines += [f"<p>{_escape_html(line)}</p>" for line in grid.details]
        lines += ["<table>", "<thead>"]
        if any(grid.groups):
            spans = [
                f'<th scope="colgroup" colspan="{len(list(columns))}">{_escape_html(group)}</th>'
                for group, columns in groupby(grid.groups)
            ]
            lines.append(f'<tr><td colspan="{len(grid.labels)}"></td>{"".join(spans)}</tr>')
        names = (*grid.labels, *grid.columns)
        headings = [f'<th scope="col">{_escape_html(name)}</th>' for name in names]
        lines += [f"<tr>{''.join(headings)}</tr>", "</thead>", "<tbody>"]
        for row in grid.rows:
            labels = [f'<th scope="row">{_escape_html(label)}</th>' for label in row.labels]
            items = [f"<td>{_html_item(item)}</td>" for item in row.items]
            lines.append(f"<tr>{''.join(labels)}{''.join(items)}</tr>")
        lines += ["</tbody>", "</table>"]
        notes = [*([f"Bold: {grid.bold}"] if grid.bold else []), *grid.footnotes]
        lines += _html_list(notes)
        lines.append("</section>")
    lines += _html_list(below)
    return "\n".join([*lines, "</div>"]) + "\n"


def _html_list(lines: Sequence[str]) -> list[str]:
    items = [f"<li>{_escape_html(line)}</li>" for line in lines]
    return ["<ul>", *items, "</ul>"] if items else []


def _html_item(item: Item) -> str:
    text = _escape_html(item.text)
    marks = f"<sup>{_escape_html(item.marks)}</sup>" if item.marks else ""
    return (f"<strong>{text}</strong>" if item.bold else text) + marks


def _escape_html(text: str) -> str:
    return html.escape(printable(text))


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
        notes = [*([f"Bold: {grid.bold}"] if grid.bold else []), *grid.footnotes]
        lines += [r"  \par\raggedright\footnotesize", *(f"  {escape_latex(n)}\\par" for n in notes)]
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


_CSV_COLUMNS: Final = (
    *("kind", "downstream", "downstream_version", "corpus", "corpus_sha256", "audio_sha256"),
    *("utterances_left_out", "left_out_sha256"),
    *("protocol", "protocol_version", "protocol_sha256", "engine"),
    *("upstream", "fingerprint", "precision", "storage", "device"),
    *("family", "parameters", "macs", "throughput", "training_data", "heard"),
    *("untrained", "note", "layer", "status"),
    *("metric", "ranks", "lower_is_better", "value", "low", "high", "confidence"),
    *("clusters", "by_utterance", "utterances"),
    *("seeds", "seed_std", "not_separated_from_best"),
    *("learning_rate", "learning_rate_at_edge", "lm_sha256", "run_id", "created"),
    *("source", "remark"),
)


def _csv(board: Board, with_published: bool) -> str:
    """One row per run and metric, in full precision; a failed run has one row and no metric.

    `kind` tells them apart: ``measured`` runs, ``mean`` over tasks, ``published`` figures. Notes
    and files left out have no place in a table of numbers: they are in the other formats.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    rows: list[dict[str, object]] = []
    for table in board.tables:
        for row in table.rows:
            for layer in table.layers:
                rows += _csv_run(table, row, layer)
    for summary in summarise(board):
        rows += _csv_means(summary)
    if with_published:
        rows += _csv_published()
    for values in rows:
        writer.writerow(
            {
                name: no_formula(printable(value)) if isinstance(value, str) else value
                for name, value in values.items()
            }
        )
    return text.getvalue()


def _csv_run(table: Table, row: Row, layer: str) -> Iterator[dict[str, object]]:
    cell = row.cells.get(layer)
    if cell is None:
        return
    left_out = hashlib.sha256("\n".join(table.skipped).encode(errors="surrogatepass")).hexdigest()
    found = judge(row.trained_on, table.corpus)
    run: dict[str, object] = {
        "kind": "measured",
        "downstream": table.downstream,
        "downstream_version": table.version,
        "corpus": table.corpus,
        "corpus_sha256": table.corpus_sha256,
        "audio_sha256": table.audio_sha256,
        "utterances_left_out": len(table.skipped),
        "left_out_sha256": left_out if table.skipped else "",
        "protocol": table.protocol,
        "protocol_version": table.protocol_version,
        "protocol_sha256": table.protocol_sha256,
        "engine": table.engine,
        "upstream": row.upstream,
        "fingerprint": row.fingerprint,
        "precision": row.precision,
        "storage": row.storage,
        "device": row.device,
        "family": row.family,
        "parameters": row.parameters,
        "macs": row.macs,
        "throughput": row.throughput,
        "training_data": found.verdict,
        "heard": " ".join(found.heard),
        "untrained": row.untrained,
        "note": row.note,
        "layer": layer,
        "status": cell.status,
        "seeds": cell.seeds,
        "learning_rate": cell.learning_rate,
        "learning_rate_at_edge": cell.learning_rate_at_edge,
        "lm_sha256": cell.lm_sha256,
        "run_id": cell.run_id,
        "created": cell.created,
    }
    for name, score in cell.metrics.items():
        ranks = name == table.metric
        yield run | {
            "metric": name,
            "ranks": ranks,
            "lower_is_better": table.lower_is_better if ranks else None,
            "value": score["value"],
            "low": score["low"],
            "high": score["high"],
            "confidence": score["confidence"],
            "clusters": score["clusters"],
            "by_utterance": score.get("by_utterance"),
            "utterances": score["utterances"],
            "seed_std": score["seed_std"],
            "not_separated_from_best": cell.not_separated if ranks else None,
        }
    if not cell.metrics:
        yield run


def _csv_means(summary: Summary) -> Iterator[dict[str, object]]:
    for row in summary.rows:
        for name, means in (("mean_rank", row.mean_rank), ("overall", row.overall)):
            for layer, mean in means.items():
                yield {
                    "kind": "mean",
                    "downstream": " ".join(table.downstream for table in summary.tables),
                    "corpus": summary.corpora,
                    "protocol": summary.protocol,
                    "protocol_version": summary.protocol_version,
                    "upstream": row.upstream,
                    "fingerprint": row.fingerprint,
                    "precision": row.precision,
                    "layer": layer,
                    "metric": name,
                    "lower_is_better": name == "mean_rank",
                    "value": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "confidence": 0.95,
                }


def _csv_published() -> Iterator[dict[str, object]]:
    for figure in load_published():
        if figure.figure == "score":
            yield {
                "kind": "published",
                "downstream": figure.task,
                "upstream": figure.row,
                "layer": figure.layer,
                "metric": figure.metric,
                "value": figure.value,
                "source": figure.source,
                "remark": figure.remark,
            }


def _below(board: Board) -> list[str]:
    lines = [f"note: {note}" for note in notes_of(board)]
    lines += [f"left out: {problem}" for problem in board.problems]
    if not board.tables:
        lines.insert(0, "no result could be read")
    return [printable(line) for line in lines]
