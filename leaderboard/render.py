"""Boards as text: for the terminal, as Markdown, as CSV. Numbers come from the board alone."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from benchmark.errors import unknown
from leaderboard.collect import Board, Cell, Row, Table, list_some

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("terminal", "markdown", "csv")

_MISSING = "–"
_ONE_SEED = "¹"
_AT_EDGE = "²"
_BY_UTTERANCE = "³"
_UNTRAINED = "†"
_CLOSE = "*"


def render(board: Board, format: str = "terminal", *, width: int = 100) -> str:
    """A board as text, ending in a line break; the same board gives the same text.

    Args:
        board: what to show.
        format: ``terminal`` (plain text, without colours), ``markdown`` or ``csv``.
        width: columns of the terminal.

    Raises:
        SuperbError: for another format.
    """
    if format == "markdown":
        return _markdown(board)
    if format == "csv":
        return _csv(board)
    if format == "terminal":
        from rich.console import Console

        text = io.StringIO()
        show(
            board,
            Console(emoji=False, file=text, width=width, color_system=None, legacy_windows=False),
        )
        # Cells are padded to their column; a file should not end its lines in blanks.
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip() + "\n"
    raise unknown("format", format, FORMATS, "Choose one with --format.")


def show(board: Board, console: Console | None = None) -> None:
    """Print a board to a terminal, with bold where the terminal can."""
    # Here and not above, so that Markdown and CSV do not wait for it.
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = console or Console(emoji=False)
    for table in board.tables:
        heading, *details = _heading(table)
        console.print(Text(heading, style="bold"))
        for line in details:
            console.print(Text(line))
        # Cells are never wrapped or cut: what does not fit goes into a further grid.
        per_grid = max(1, (console.width - 24) // 22)
        for start in range(0, len(table.layers), per_grid):
            layers = table.layers[start : start + per_grid]
            grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
            grid.add_column("upstream", overflow="fold")
            for layer in layers:
                # Text objects are printed as they are: no name is ever read as markup.
                heading_text = Text(f"{printable(layer)} {_arrow(table)}")
                grid.add_column(heading_text, justify="right", no_wrap=True)
            room = {layer: _mark_room(table, layer) for layer in layers}
            for row in table.rows:
                if start and not any(layer in row.cells for layer in layers):
                    continue
                cells: list[Text] = []
                for layer in layers:
                    text, marks, close = _cell(table, row, layer)
                    marks += _CLOSE if close else ""
                    style = "bold" if close else ""
                    cells.append(Text(text + marks.ljust(room[layer]), style=style))
                grid.add_row(Text(_label(row)), *cells)
            console.print(grid)
        for line in _footnotes(table, f"{_CLOSE} and bold"):
            console.print(Text(line, style="dim"))
        console.print()
    for line in _below(board):
        console.print(Text(line))


def printable(text: str) -> str:
    """Text with everything that could move the cursor, break a line or reverse it spelled out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table."""
    text = html.escape(printable(text), quote=False)
    text = re.sub(r"([\\`*\[\]~|])", r"\\\1", text)
    # Inside a word an underscore means nothing, and model names are full of them.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def _markdown(board: Board) -> str:
    lines: list[str] = []
    for table in board.tables:
        heading, *details = (escape_markdown(line) for line in _heading(table))
        lines += [f"## {heading}", "", "  \n".join(details), ""]
        columns = [f"{escape_markdown(layer)} {_arrow(table)}" for layer in table.layers]
        lines.append(f"| upstream | {' | '.join(columns)} |")
        lines.append("| :-- |" + " --: |" * len(columns))
        for row in table.rows:
            cells = [
                f"**{text}**{marks}" if close else text + marks
                for text, marks, close in (_cell(table, row, layer) for layer in table.layers)
            ]
            lines.append(f"| {escape_markdown(_label(row))} | {' | '.join(cells)} |")
        lines += ["", *(f"- {escape_markdown(line)}" for line in _footnotes(table, "Bold")), ""]
    below = [f"- {escape_markdown(line)}" for line in _below(board)]
    return "\n".join([*lines, *below]).rstrip("\n") + "\n"


_CSV_COLUMNS = (
    *("downstream", "downstream_version", "corpus", "corpus_sha256"),
    *("utterances_left_out", "left_out_sha256"),
    *("protocol", "protocol_version", "protocol_sha256"),
    *("upstream", "fingerprint", "precision", "storage", "device"),
    *("untrained", "note", "layer", "status"),
    *("metric", "ranks", "lower_is_better", "value", "low", "high", "confidence"),
    *("clusters", "by_utterance", "utterances"),
    *("seeds", "seed_std", "not_separated_from_best"),
    *("learning_rate", "learning_rate_at_edge", "run_id", "created"),
)


def _csv(board: Board) -> str:
    """One row per run and metric, in full precision; a failed run has one row and no metric.

    Notes and files left out have no place in a table of numbers: they are in the other formats.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for table in board.tables:
        for row in table.rows:
            for layer in table.layers:
                for values in _csv_rows(table, row, layer):
                    writer.writerow(
                        printable(value) if isinstance(value, str) else value for value in values
                    )
    return text.getvalue()


def _csv_rows(table: Table, row: Row, layer: str) -> Iterator[Sequence[object]]:
    cell = row.cells.get(layer)
    if cell is None:
        return
    left_out = hashlib.sha256("\n".join(table.skipped).encode(errors="surrogatepass")).hexdigest()
    front = (
        *(table.downstream, table.version, table.corpus, table.corpus_sha256),
        *(len(table.skipped), left_out if table.skipped else ""),
        *(table.protocol, table.protocol_version, table.protocol_sha256),
        *(row.upstream, row.fingerprint, row.precision, row.storage, row.device),
        *(row.untrained, row.note, layer, cell.status),
    )
    back = (cell.learning_rate, cell.learning_rate_at_edge, cell.run_id, cell.created)
    for name, score in cell.metrics.items():
        ranks = name == table.metric
        yield (
            *front,
            *(name, ranks, table.lower_is_better if ranks else None),
            *(score["value"], score["low"], score["high"], score["confidence"]),
            *(score["clusters"], score.get("by_utterance"), score["utterances"]),
            *(cell.seeds, score["seed_std"]),
            cell.not_separated if ranks else None,
            *back,
        )
    if not cell.metrics:
        yield (*front, *(None,) * 10, cell.seeds, None, None, *back)


def _arrow(table: Table) -> str:
    return "↓" if table.lower_is_better else "↑"


def _label(row: Row) -> str:
    return printable(row.label) + (f" {_UNTRAINED}" if row.untrained else "")


def _heading(table: Table) -> list[str]:
    better = "lower" if table.lower_is_better else "higher"
    protocol = f"protocol {table.protocol} version {table.protocol_version}"
    if table.protocol_sha256:
        protocol += f" ({table.protocol_sha256[:8]})"
    lines = [
        f"{table.downstream} version {table.version}: {table.metric} in % {_arrow(table)} "
        f"({better} is better)",
        f"corpus {table.corpus} ({table.corpus_sha256[:8]}), {protocol}",
    ]
    if table.skipped:
        count = len(table.skipped)
        noun = "utterance" if count == 1 else "utterances"
        lines.append(f"{count} {noun} left out for bad audio: {list_some(table.skipped)}")
    if table.corpus_note:
        lines.append(f"corpus note: {table.corpus_note}")
    return [printable(line) for line in lines]


def _cell(table: Table, row: Row, layer: str) -> tuple[str, str, bool]:
    """Text of a cell, its marks, and whether it is the best or not separated from it."""
    cell = row.cells.get(layer)
    if cell is None:
        return _MISSING, "", False
    if cell.status == "failed" or table.metric not in cell.metrics:
        return "failed", "", False
    score = cell.metrics[table.metric]
    text = f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]"
    return text, _marks(table, cell), cell.not_separated


def _marks(table: Table, cell: Cell) -> str:
    marks = _ONE_SEED if cell.seeds == 1 else ""
    marks += _AT_EDGE if cell.learning_rate_at_edge else ""
    by_utterance = cell.metrics[table.metric].get("by_utterance", False)
    return marks + (_BY_UTTERANCE if by_utterance else "")


def _mark_room(table: Table, layer: str) -> int:
    """Width of the longest marks of a column, so that its numbers stand below each other."""
    cells = [_cell(table, row, layer) for row in table.rows]
    return max((len(marks) + close for _, marks, close in cells), default=0)


def _footnotes(table: Table, bold: str) -> list[str]:
    """What the marks of a table mean, only those that it has, and the notes of its upstreams."""
    finished = [
        (cell, cell.metrics[table.metric])
        for row in table.rows
        for cell in row.cells.values()
        if cell.status == "finished" and table.metric in cell.metrics
    ]
    by_utterance = [score.get("by_utterance", False) for _, score in finished]
    lines: list[str] = []
    if finished:
        shares = sorted({f"{100 * score['confidence']:g} %" for _, score in finished})
        over = "speakers"
        if all(by_utterance):
            over = "utterances"
        elif any(by_utterance):
            over = f"speakers, or over utterances where marked {_BY_UTTERANCE}"
        lines.append(f"[low, high]: {' or '.join(shares)} interval over {over}")
    if any(cell.not_separated for cell, _ in finished):
        lines.append(
            f"{bold}: best of its column, or not separated from the best (intervals overlap)"
        )
    if any(cell.seeds == 1 for cell, _ in finished):
        lines.append(f"{_ONE_SEED} one seed: no estimate of seed variance")
    if any(cell.learning_rate_at_edge for cell, _ in finished):
        lines.append(f"{_AT_EDGE} best learning rate at an edge of the grid: the score may be low")
    if any(by_utterance):
        lines.append(
            f"{_BY_UTTERANCE} interval over utterances for want of known speakers: "
            "nothing is said of other speakers"
        )
    if any(row.untrained for row in table.rows):
        lines.append(f"{_UNTRAINED} untrained: random weights, a floor for the others")
    lines += [f"{row.label}: {row.note}" for row in table.rows if row.note]
    return [printable(line) for line in lines]


def _below(board: Board) -> list[str]:
    lines = [f"note: {note}" for note in board.notes]
    lines += [f"left out: {problem}" for problem in board.problems]
    if not board.tables:
        lines.insert(0, "no result could be read")
    return [printable(line) for line in lines]
