"""What did learning add? Every encoder beside its own untrained twin, paired and corrected.

A random network of the same shape is no zero: its front end and its recurrence or attention carry
much of what a score counts. So what an encoder learned is its gain over the twin, not its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmark.errors import SuperbError
from leaderboard.compare.encoders import Comparisons, paired
from leaderboard.read.board import Board, Row, Table
from leaderboard.read.collect import Run, read_board, tables_of
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
    found, alone = [], set()
    for table in tables:
        finished = [
            row
            for row in table.rows
            if (cell := row.cells.get(layer)) is not None and cell.status == "finished"
        ]
        for row in finished:
            if row.untrained or row.parameters == 0:  # nothing that could be drawn at random
                continue
            twins = [other for other in finished if _are_twins(row, other)]
            found += [(table, twin, row) for twin in twins]
            if not twins:
                alone.add(row.label)
    notes = []
    if found and alone:
        notes.append(f"without a twin in some task: {printable(list_some(sorted(alone)))}")
    return paired(board, runs, found, layer, notes)


def _are_twins(row: Row, other: Row) -> bool:
    """Whether the other one is the first without its learning, computed in the same way."""
    return (
        other.untrained
        and other.upstream == TWIN + row.upstream
        and (other.precision, other.storage, other.device)
        == (row.precision, row.storage, row.device)
    )
