"""Is one encoder better than another? Paired on the same utterances, and corrected."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmark.errors import SuperbError, unknown
from leaderboard.compare.difference import Pair, Scored, adjusted, pair
from leaderboard.read.board import Board, Cell, Row, Table
from leaderboard.read.collect import Run, notes_about, read_board, tables_of
from leaderboard.read.names import printable

LEVEL = 0.05
"""Of the tests, over all comparisons of a command together."""

POWER = 0.8
"""The share of test sets that would have shown a difference as large as `Comparison.detectable`."""


@dataclass(frozen=True)
class Comparison:
    """Two encoders on one task.

    Attributes:
        table: the board's table they stand in.
        layer: the layer choice of both.
        a: label of the first.
        b: label of the other.
        a_cell: its run.
        b_cell: likewise.
        pair: score of b minus score of a, and the check beside it.
        p_value: of `pair`, adjusted for the number of comparisons (Holm 1979); None over too few
            speakers to test anything, and so are the next two.
        check_p_value: of the check, adjusted likewise; None without one.
        detectable: the smallest true difference, in percentage points, that this test set would
            have shown with a probability of `POWER` at `LEVEL` over the number of comparisons.
    """

    table: Table
    layer: str
    a: str
    b: str
    a_cell: Cell
    b_cell: Cell
    pair: Pair
    p_value: float | None
    check_p_value: float | None
    detectable: float | None

    @property
    def better(self) -> str | None:
        """Label of the better one; None when they cannot be told apart."""
        if self.p_value is None or self.p_value >= LEVEL:
            return None
        return self.b if (self.pair.difference.value < 0) == self.table.lower_is_better else self.a


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of one command.

    Attributes:
        pairs: by task, then in the order the encoders were named.
        notes: what a reader must know besides.
        left_out: files that cannot be read, and why; the notes say so too.
    """

    pairs: tuple[Comparison, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def compare(
    folder: Path | str,
    upstreams: Sequence[str],
    downstreams: Sequence[str] = (),
    *,
    layer: str = "weighted-sum",
) -> Comparisons:
    """Compare encoders with the first of them, on every task that was asked for.

    Args:
        folder: of results.
        upstreams: names as the leaderboard shows them, two or more.
        downstreams: tasks; all that the folder has if none.
        layer: the layer choice to compare.

    Raises:
        SuperbError: when a name is not in the folder, or two results cannot be paired. A task
            that was not named and that lacks one of the encoders is left out with a note.
    """
    board, runs = read_board(folder)
    known = _known(board)
    names = list(
        dict.fromkeys(
            name.strip()
            for given in upstreams  # a name may hold a comma
            for name in ([given] if given in known else given.split(","))
            if name.strip()
        )
    )
    if len(names) < 2:
        raise SuperbError(
            f"compare takes two or more different upstreams and then the folder of results; got "
            f"{', '.join(names) or 'no upstream'} and {folder}. "
            "Type for instance: superb compare hubert wav2vec2 results"
        )
    wanted = tables_of(board, downstreams)
    _refuse_unknown(board, names, downstreams, layer)
    tasks = downstreams or [table.downstream for table in wanted]
    notes: list[str] = []
    found: list[tuple[Table, Row, Row]] = []
    for task in dict.fromkeys(tasks):
        tables = [table for table in wanted if table.downstream == task]
        for other in names[1:]:
            rows = [
                (table, first, second)
                for table in tables
                if (first := _row(table, names[0], layer)) and (second := _row(table, other, layer))
            ]
            if not rows:
                why = _no_pair(tables, names[0], other, layer)
                if downstreams:
                    raise SuperbError(why)
                notes.append(why)
            found += rows
    if not found:
        raise SuperbError(" ".join(notes))
    found.sort(key=lambda entry: board.tables.index(entry[0]))
    return paired(board, runs, found, layer, notes)


def paired(
    board: Board,
    runs: Mapping[str, Run],
    found: Sequence[tuple[Table, Row, Row]],
    layer: str,
    notes: Sequence[str] = (),
) -> Comparisons:
    """The second of two encoders compared with the first, for each task and two of them.

    Args:
        board: that they stand on.
        runs: by run id.
        found: tables, and two rows of each that have finished runs of the layer choice.
        layer: the layer choice.
        notes: what a reader must know already.
    """
    scored: dict[str, Scored] = {}  # each is read once, whomever it is compared with

    def of(row: Row) -> Scored:
        run_id = row.cells[layer].run_id
        return scored.setdefault(run_id, Scored(runs[run_id].path, runs[run_id].result))

    pairs = [Paired(table, layer, a, b, pair(of(a), of(b))) for table, a, b in found]
    used = {row.cells[layer].run_id for _, *rows in found for row in rows}
    return Comparisons(judged(pairs), (*notes, *notes_about(board, used)), board.problems)


class Paired(NamedTuple):
    """Two rows of a table and the paired difference of a layer choice, before it is judged."""

    table: Table
    layer: str
    a: Row
    b: Row
    pair: Pair


def judged(pairs: Sequence[Paired]) -> tuple[Comparison, ...]:
    """All comparisons that are shown together, corrected for their number."""
    tests = [entry.pair.p_value for entry in pairs]
    checks = [None if entry.pair.p_value is None else entry.pair.check_p_value for entry in pairs]
    tested = sum(p_value is not None for p_value in tests)
    return tuple(
        Comparison(
            table=table,
            layer=layer,
            a=a.label,
            b=b.label,
            a_cell=a.cells[layer],
            b_cell=b.cells[layer],
            pair=pair,
            p_value=p_value,
            check_p_value=check_p_value,
            detectable=None
            if p_value is None
            else pair.difference.detectable(LEVEL / tested, POWER),
        )
        for (table, layer, a, b, pair), p_value, check_p_value in zip(
            pairs, adjusted(tests), adjusted(checks), strict=True
        )
    )


def _known(board: Board) -> set[str]:
    """Names and labels of all encoders."""
    rows = [row for table in board.tables for row in table.rows]
    return {row.upstream for row in rows} | {row.label for row in rows}


def _refuse_unknown(
    board: Board, names: Sequence[str], downstreams: Sequence[str], layer: str
) -> None:
    tasks = {table.downstream for table in board.tables}
    rows = [row for table in board.tables for row in table.rows]
    known = _known(board)
    for name in names:
        if name not in known:
            made = ("superb", "run", "--upstream", name, "--downstream")
            raise unknown(
                "upstream in these results",
                name,
                map(printable, known),
                f"Make its results with: {shlex.join(made)} "
                + ",".join(downstreams or sorted(map(printable, tasks))),
            )
    layers = {printable(choice) for row in rows for choice in row.cells}
    if layer not in layers:
        raise unknown("layer choice in these results", layer, layers, "Choose one with --layer.")


def _row(table: Table, name: str, layer: str) -> Row | None:
    """The row of that label or name, if it has a score for the layer choice."""
    rows = [row for row in table.rows if row.label == name] or [
        row for row in table.rows if row.upstream == name
    ]
    if len(rows) > 1:
        labels = " or ".join(repr(row.label) for row in rows)
        raise SuperbError(f"{name} stands for several rows of {table.downstream}; choose {labels}")
    cell = rows[0].cells.get(layer) if rows else None
    return rows[0] if cell is not None and cell.status == "finished" else None


def _no_pair(tables: Sequence[Table], a: str, b: str, layer: str) -> str:
    task = tables[0].downstream
    return (
        f"{a} and {b} have no {layer} results of {task} on the same test set under the same "
        f"protocol. There are, of {a}: {_inventory(tables, a)}; of {b}: {_inventory(tables, b)}."
    )


def _inventory(tables: Sequence[Table], name: str) -> str:
    """Where a name has results, in words."""
    entries = []
    for table in tables:
        for row in table.rows:
            if name in (row.label, row.upstream):
                layers = [
                    layer if cell.status == "finished" else f"{layer} (failed)"
                    for layer, cell in row.cells.items()
                ]
                left_out = f", {len(table.skipped)} utterances left out" if table.skipped else ""
                entries.append(
                    f"{', '.join(layers)} on {table.corpus} ({table.content}) under "
                    f"{table.protocol} v{table.protocol_version}{left_out}"
                )
    return "; ".join(entries) or "none"
