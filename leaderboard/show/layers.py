"""What `superb layers` prints."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from leaderboard.compare.encoders import LEVEL
from leaderboard.compare.layers import LayerRow, LayerStudy
from leaderboard.read.board import BEST
from leaderboard.read.names import printable
from leaderboard.show.board import headline
from leaderboard.show.numbers import difference_text, p_text
from leaderboard.show.terminal import difference_table, show_lines


def show_layers(study: LayerStudy, console: Console) -> None:
    """Print a table for each task."""
    for entry in study.tables:
        table = entry.table
        console.print(Text(printable(headline(table)), style="bold"))
        grid = difference_table("last", "sum", "sum − last [95 %]", "p", "best", "ρ w", "ρ w·n")
        for row in entry.rows:
            separated = row.p_value is not None and row.p_value < LEVEL
            grid.add_row(
                Text(printable(row.upstream)),
                _number(row.last),
                _number(row.weighted_sum),
                Text(_difference(row, table.unit), style="bold" if separated else ""),
                "" if row.pair is None else p_text(row.p_value),
                "–" if row.best is None else f"{row.best}: {_number(row.scores[row.best])}",
                _correlation(row.weight_correlation),
                _correlation(row.product_correlation),
            )
        console.print(grid)
    notes = (f"note: {note}" for note in study.notes)
    show_lines((*_footnotes(study), *notes), console, "dim")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _correlation(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _difference(row: LayerRow, unit: str) -> str:
    if row.pair is None:
        return "same: one layer" if len(row.scores) == 1 else "–"
    return difference_text(row.pair.difference, unit)


def _footnotes(study: LayerStudy) -> list[str]:
    rows = [row for entry in study.tables for row in entry.rows]
    lines = [
        "sum − last: weighted sum minus last layer, paired by utterance, over speakers; p adjusted "
        f"for {study.comparisons} comparison{'s' if study.comparisons > 1 else ''} (Holm)."
    ]
    if searching := [
        entry.table.downstream for entry in study.tables if BEST in entry.table.layers
    ]:
        lines.append(
            f"{', '.join(map(printable, searching))}: no head is trained; in place of the sum "
            "stands the layer that is best on valid."
        )
    if any(row.best is not None for row in rows):
        lines.append("best: number and test score of the single layer that is best on valid.")
    else:
        lines.append("best: not known; add --layers each to superb run.")
    if any(row.weight_correlation is not None for row in rows):
        lines.append(
            "ρ: rank correlation of learned weights w, or of w times the norm n of the layer, "
            "with the scores of single layers; of few layers it says little."
        )
    lines += dict.fromkeys(row.why_not for row in rows if row.why_not and len(row.scores) > 1)
    return lines
