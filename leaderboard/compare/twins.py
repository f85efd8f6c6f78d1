"""What did learning add? Every encoder beside its own untrained twin, paired and corrected.

A random network of the same shape is no zero: its front end and its recurrence or attention carry
much of what a score counts. So what an encoder learned is its gain over the twin, not its score.

Encoders of one body have one twin, drawn from one seed. Where a task has no result of
``untrained:wav2vec2``, another's twin stands for it whose weights are the same by their hash, as
another task's result tells.
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
    drawn = _drawn(board)
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
            twins = _twins_of(row, finished, drawn.get(row.upstream, frozenset()))
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
    lent = {
        f"{entry.a.label} for {entry.b.label} in {entry.table.downstream}"
        for entry in pairs
        if entry.a.upstream != TWIN + entry.b.upstream
    }
    if lent:
        notes.append(f"one body, so one twin: {list_some(sorted(lent))}")
    if pairs and alone:
        notes.append(f"without a twin in some task: {list_some(sorted(alone))}")
    notes += notes_about(board, used)
    return Comparisons(judged(pairs), tuple(map(printable, notes)), board.problems)


def _drawn(board: Board) -> dict[str, frozenset[str]]:
    """Encoder → the weights of what is called its twin, in any table."""
    found: dict[str, set[str]] = {}
    for table in board.tables:
        for row in table.rows:
            if row.untrained and row.weights and row.upstream.startswith(TWIN):
                found.setdefault(row.upstream.removeprefix(TWIN), set()).add(row.weights)
    return {name: frozenset(weights) for name, weights in found.items()}


def _twins_of(row: Row, others: Sequence[Row], drawn: frozenset[str]) -> list[Row]:
    """Those of its name without its learning, computed in the same way; else one of its weights."""
    alike = [
        other
        for other in others
        if other.untrained
        and (other.layers, other.parameters, other.macs) == (row.layers, row.parameters, row.macs)
        and (other.precision, other.storage, other.device)
        == (row.precision, row.storage, row.device)
    ]
    own = [other for other in alike if other.upstream == TWIN + row.upstream]
    return own or [other for other in alike if other.weights in drawn][:1]
