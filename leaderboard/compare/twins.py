"""What did learning add? Every encoder beside its own untrained twin, paired and corrected.

A random network of the same shape is no zero: its front end and its recurrence or attention carry
much of what a score counts. So what an encoder learned is its gain over the twin, not its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmark.errors import SuperbError
from leaderboard.compare.difference import Scored, pair
from leaderboard.compare.encoders import Comparisons, Paired, judged
from leaderboard.read.board import Board, Row, Table
from leaderboard.read.collect import Run, notes_about, read_board, tables_of
from leaderboard.read.names import list_some, printable

TWIN: Final = "untrained:"


def compare_twins(
    folder: Path | str, downstreams: Sequence[str] = (), *, layer: str = "weighted-sum"
) -> Comparisons:
    """Compare each encoder of a folder with its untrained twin, on every task that both have.

    Args:
        folder: of results.
        downstreams: tasks; all that the folder has if none.
        layer: the layer choice to compare.

    Raises:
        SuperbError: for a task that the folder does not have, and when no encoder has its twin.
    """
    board, runs = read_board(folder)
    found = twins_of(board, runs, tables_of(board, downstreams), layer)
    if not found.pairs:
        names = sorted({row.upstream for table in board.tables for row in table.rows})
        learned = [name for name in names if not name.startswith(TWIN)]
        raise SuperbError(
            f"no encoder in {folder} has {layer} results beside those of its untrained twin under "
            f"the same protocol. Make some with: superb run --upstream {TWIN}"
            f"{printable(learned[0]) if learned else 'hubert'} --downstream TASK"
        )
    return found


def twins_of(
    board: Board, runs: Mapping[str, Run], tables: Sequence[Table], layer: str
) -> Comparisons:
    """The same of a board that was read; without pairs where no encoder has its twin."""
    pairs, alone, unpaired = [], set(), []
    for table in tables:
        choice = table.stands_for(layer)
        finished = [
            row
            for row in table.rows
            if (cell := row.cells.get(choice)) is not None and cell.status == "finished"
        ]
        scored = {row.label: Scored(runs[row.cells[choice].run_id].path) for row in finished}
        for row in finished:
            if row.untrained or row.parameters == 0:  # nothing that could be drawn at random
                continue
            twins = [other for other in finished if _are_twins(row, other)]
            if not twins:
                alone.add(row.label)
            for twin in twins:
                try:
                    found = pair(scored[twin.label], scored[row.label])
                except SuperbError as error:
                    unpaired.append(f"{row.label} and its twin in {table.downstream}: {error}")
                else:
                    pairs.append(Paired(table, choice, twin, row, found))
    used = {row.cells[entry.layer].run_id for entry in pairs for row in (entry.a, entry.b)}
    notes = [*unpaired]
    if pairs and alone:
        notes.append(f"without a twin in some task: {list_some(sorted(alone))}")
    notes += notes_about(board, used)
    return Comparisons(judged(pairs), tuple(map(printable, notes)), board.problems)


def _are_twins(row: Row, other: Row) -> bool:
    """Whether the other one is the first without its learning, computed in the same way."""
    return (
        other.untrained
        and other.upstream == TWIN + row.upstream
        and (other.parameters, other.macs) == (row.parameters, row.macs)
        and (other.precision, other.storage, other.device)
        == (row.precision, row.storage, row.device)
    )
