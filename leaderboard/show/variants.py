"""What `superb heads` and `superb labels` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from leaderboard.compare.variants import FEWEST, Study
from leaderboard.read.names import list_some, printable
from leaderboard.show.board import arrow, score_item
from leaderboard.show.terminal import difference_table, show_lines


def show_variants(studies: Sequence[Study], console: Console) -> None:
    """Print a table of encoders by heads, or by amounts of labels, and what it says."""
    for study in studies:
        first = study.tables[0]
        title = (
            f"{first.base}: {first.metric} in {first.unit} {arrow(first)}, {study.layer}, corpus "
            f"{first.corpus} ({first.content}), protocol {first.protocol} v{first.protocol_version}"
        )
        console.print(Text(printable(title), style="bold"))
        grid = difference_table(*map(printable, study.columns))
        for _, label, cells in study.rows:
            items = [
                score_item(table, row, study.layer)
                for table, row in zip(study.tables, cells, strict=True)
            ]
            grid.add_row(Text(printable(label)), *(Text(item.text) for item in items))
        console.print(grid)
        show_lines(_lines(study), console, "dim")


def _lines(study: Study) -> list[str]:
    lines = [
        f"ranks by {agreement.one} and {agreement.other}: Kendall's tau {agreement.tau.value:+.2f} "
        f"[{agreement.tau.low:+.2f}, {agreement.tau.high:+.2f}]"
        for agreement in study.agreements
        if agreement.tau is not None
    ]
    if not lines:
        lines.append(
            f"no rank correlation: it takes {FEWEST} upstreams with a score in every column"
        )
    pairs = len(study.holds) + len(study.flips) + study.open_pairs
    lines.append(
        f"of {pairs} pairs, {len(study.holds)} hold in every column, {len(study.flips)} flip, "
        f"{study.open_pairs} are open"
    )
    for word, found in (("holds", study.holds), ("flips", study.flips)):
        if found:
            said = " beats " if word == "holds" else " and "
            lines.append(f"{word}: {list_some([said.join(pair) for pair in found])}")
    lines.append("[low, high]: 95 % interval")
    return list(map(printable, lines))
