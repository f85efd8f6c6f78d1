"""What a site shows: the board, its encoders, and where each stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import SuperbError
from benchmark.scoring.results import result_files
from leaderboard.read.board import Board, Row, Table
from leaderboard.read.collect import Run, read_board
from leaderboard.read.names import told_apart
from leaderboard.show.site.addresses import Encoder


@dataclass(frozen=True)
class Content:
    """A board by encoder and by task.

    Attributes:
        folder: of the results.
        board: all tables.
        runs: the run behind each run id.
        encoders: each, sorted by name, with its rows.
        tasks: the tables of each task.
    """

    folder: Path
    board: Board
    runs: Mapping[str, Run]
    encoders: Mapping[Encoder, Sequence[tuple[Table, Row]]]
    tasks: Mapping[str, Sequence[Table]]
    _by_key: Mapping[tuple[str, str], Encoder]

    def encoder(self, name: str, weights: str) -> Encoder:
        """That of a row."""
        return self._by_key[name, weights]


def read_content(folder: Path) -> Content:
    """Read a folder of results.

    Raises:
        SuperbError: when it holds no results, or a link that leads out of it.
    """
    root = folder.resolve()
    for path in result_files(folder):
        if not path.resolve().is_relative_to(root):
            raise SuperbError(f"{path} leads out of {folder}: remove the link")
    board, runs = read_board(folder)
    rows: dict[tuple[str, str], list[tuple[Table, Row]]] = {}
    tasks: dict[str, list[Table]] = {}
    for table in board.tables:
        tasks.setdefault(table.downstream, []).append(table)
        for row in table.rows:
            rows.setdefault((row.upstream, row.weights), []).append((table, row))
    sources: dict[str, dict[str, str]] = {}
    for (name, weights), own in rows.items():
        sources.setdefault(name, {})[weights] = own[-1][1].source
    labels = {name: told_apart(name, own) for name, own in sources.items()}
    by_key = {(name, print_): Encoder(name, print_, labels[name][print_]) for name, print_ in rows}
    encoders = {by_key[key]: rows[key] for key in sorted(rows)}
    return Content(folder, board, runs, encoders, tasks, by_key)
