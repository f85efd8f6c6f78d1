"""What `superb heads` and `superb labels` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from leaderboard.compare.variants import FEWEST, Study
from leaderboard.read.names import list_some, printable
from leaderboard.show.board import arrow, best_notes, bold_of, footnotes_of, label_of, score_item
from leaderboard.show.curves import DIFFERS
from leaderboard.show.grid import Grid, GridRow
from leaderboard.show.numbers import tau_text
from leaderboard.show.terminal import show_grid, show_lines


def show_variants(studies: Sequence[Study], console: Console) -> None:
    """Print a table of encoders by heads, or by amounts of labels, and what it says."""
    for study in studies:
        show_grid(study_grid(study), console)
        show_lines(study_lines(study), console)


def study_grid(study: Study) -> Grid:
    """Encoders by heads, or by amounts of labels."""
    first = study.tables[0]
    cells = [
        (table, row, cell)
        for _, _, rows in study.rows
        for table, row in zip(study.tables, rows, strict=True)
        if row is not None and (cell := row.cell(study.layer)) is not None
    ]
    return Grid(
        title=f"{study.subject} by {DIFFERS[study.by]}: {first.metric} in {first.unit} "
        f"{arrow(first)}, {study.layer}",
        details=(
            f"corpus {first.corpus} ({first.content}), protocol {first.protocol} version "
            f"{first.protocol_version}",
        ),
        labels=("upstream",),
        columns=tuple(f"{name} {arrow(first)}" for name in study.columns),
        groups=("",) * len(study.columns),
        rows=tuple(
            GridRow(
                (label_of(label, any(row.untrained for row in rows if row)),),
                tuple(
                    score_item(table, row, study.layer)
                    for table, row in zip(study.tables, rows, strict=True)
                ),
            )
            for _, label, rows in study.rows
        ),
        bold=bold_of(cells),
        footnotes=(*best_notes(study.searching), *footnotes_of(cells)),
    )


def study_lines(study: Study) -> list[str]:
    """How alike the columns rank the encoders, and which pairs hold or flip."""
    lines = [
        f"ranks by {agreement.one} and {agreement.other}: Kendall's tau {tau_text(agreement.tau)} "
        f"({agreement.upstreams} upstreams)"
        for agreement in study.agreements
        if agreement.tau is not None
    ]
    if lines:
        lines.append("[low, high] of tau: 95 % of draws of the scores by their intervals")
    else:
        lines.append(
            f"no rank correlation: it takes {FEWEST} upstreams with a score in two columns"
        )
    pairs = len(study.holds) + len(study.flips) + study.open_pairs
    lines.append(
        f"of {pairs} pair{'s' * (pairs != 1)} in two columns or more, {len(study.holds)} hold "
        f"in all, {len(study.flips)} flip, {study.open_pairs} are open"
    )
    if study.left_out:
        lines.append(
            f"{study.left_out} further tables of these columns, by another lexicon or other rules, "
            "are left out for those with most upstreams"
        )
    for word, found in (("holds", study.holds), ("flips", study.flips)):
        if found:
            said = " beats " if word == "holds" else " and "
            lines.append(f"{word}: {list_some([said.join(pair) for pair in found])}")
    return list(map(printable, lines))
