"""Is one encoder better than another? Paired on the same utterances, corrected, and in words."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import SuperbError, unknown
from leaderboard.compare.difference import Pair, notes_about, pair_results, read_board
from leaderboard.read.collect import Board, Cell, Row, Table
from leaderboard.show.grid import headline
from leaderboard.show.render import printable

if TYPE_CHECKING:
    from rich.console import Console

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
        p_value: of `pair`, adjusted for the number of comparisons (Holm 1979).
        check_p_value: of the check, adjusted likewise.
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
    p_value: float
    check_p_value: float
    detectable: float

    @property
    def better(self) -> str | None:
        """Label of the better one; None when they cannot be told apart."""
        if self.p_value >= LEVEL:
            return None
        return self.b if (self.pair.difference.value < 0) == self.table.lower_is_better else self.a


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of one command.

    Attributes:
        pairs: by task, then in the order the encoders were named.
        notes: what a reader must know besides.
    """

    pairs: tuple[Comparison, ...]
    notes: tuple[str, ...]


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
    names = list(dict.fromkeys(upstreams))
    if len(names) < 2:
        raise SuperbError(
            f"compare takes two or more different upstreams and then the folder of results; got "
            f"{', '.join(names) or 'no upstream'} and {folder}. "
            "Type for instance: superb compare hubert wav2vec2 results"
        )
    board, files = read_board(folder)
    _refuse_unknown(board, names, downstreams, layer)
    tasks = list(downstreams) or list(dict.fromkeys(table.downstream for table in board.tables))
    notes: list[str] = []
    found: list[tuple[Table, Row, Row]] = []
    for task in dict.fromkeys(tasks):
        tables = [table for table in board.tables if table.downstream == task]
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
    pairs = [
        pair_results(*(files[row.cells[layer].run_id][0] for row in rows)) for _, *rows in found
    ]
    from benchmark.scoring.statistics import holm

    used = {row.cells[layer].run_id for _, *rows in found for row in rows}
    notes += notes_about(board, used)
    return Comparisons(
        tuple(
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
                detectable=pair.difference.detectable(LEVEL / len(found), POWER),
            )
            for (table, a, b), pair, p_value, check_p_value in zip(
                found,
                pairs,
                holm([pair.difference.p_value for pair in pairs]),
                holm([pair.check_p_value for pair in pairs]),
                strict=True,
            )
        ),
        tuple(notes),
    )


def in_words(comparison: Comparison, comparisons: int = 1) -> str:
    """One sentence: which is better and by how much, or what could not have been seen.

    Args:
        comparison: to put into words.
        comparisons: how many the p-value was adjusted for.
    """
    task, found = comparison.table.downstream, comparison.pair.difference
    metric = comparison.table.metric
    evidence = (
        f"{metric} {comparison.b} − {comparison.a} = {signed(found.value)} points "
        f"[{signed(found.low)}, {signed(found.high)}], p {_equals(comparison.p_value)}"
        + (f" adjusted for {comparisons} comparisons" if comparisons > 1 else "")
    )
    if (comparison.check_p_value < LEVEL) != (comparison.p_value < LEVEL):
        evidence += (
            f"; {comparison.pair.check}, blind to speakers, disagrees with p "
            f"{_equals(comparison.check_p_value)}"
        )
    unseen = (
        f"a true difference would have to be {comparison.detectable:.1f} points or more to be seen "
        f"with {100 * POWER:.0f} % power"
        if comparison.detectable < 100
        else f"no difference of less than 100 points would have been seen with {100 * POWER:.0f} % "
        "power: the test set has too few speakers"
    )
    if comparison.pair.identical:
        return (
            f"{comparison.a} and {comparison.b} gave the same answer to each of "
            f"{found.utterances} utterances of {task}: the difference is 0; {unseen}."
        )
    if comparison.better is None:
        return f"{comparison.a} and {comparison.b} cannot be told apart in {task}: {evidence}; " + (
            f"{unseen}."
        )
    worse = comparison.a if comparison.better == comparison.b else comparison.b
    return (
        f"{comparison.better} is better than {worse} in {task} by {abs(found.value):.1f} points: "
        f"{evidence}."
    )


def as_json(comparisons: Comparisons) -> dict[str, Any]:
    """What `show` prints, in full precision, for `json.dumps`."""
    entries = []
    for found in comparisons.pairs:
        table, difference = found.table, found.pair.difference
        sides = {
            side: {"upstream": label, "run_id": cell.run_id, **cell.metrics[table.metric]}
            for side, label, cell in (
                ("a", found.a, found.a_cell),
                ("b", found.b, found.b_cell),
            )
        }
        entries.append(
            {
                "downstream": table.downstream,
                "metric": table.metric,
                "lower_is_better": table.lower_is_better,
                "corpus": table.corpus,
                "corpus_sha256": table.corpus_sha256,
                "audio_sha256": table.audio_sha256,
                "protocol": table.protocol,
                "protocol_version": table.protocol_version,
                "layer": found.layer,
                "seeds": found.a_cell.seeds,
                **sides,
                "difference": dataclasses.asdict(difference),
                "identical": found.pair.identical,
                "p_value": difference.p_value,
                "p_value_holm": found.p_value,
                "check": found.pair.check,
                "check_p_value": found.pair.check_p_value,
                "check_p_value_holm": found.check_p_value,
                "detectable": found.detectable,
                "better": found.better,
                "words": in_words(found, len(comparisons.pairs)),
            }
        )
    return {
        "level": LEVEL,
        "power": POWER,
        "comparisons": entries,
        "notes": list(comparisons.notes),
    }


def show(comparisons: Comparisons, console: Console) -> None:
    """Print a table for each task, then a sentence for each comparison."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    count = len(comparisons.pairs)
    for _, group in itertools.groupby(comparisons.pairs, key=lambda found: id(found.table)):
        own = list(group)
        first, table = own[0], own[0].table
        heading = f"{headline(table)}, {first.layer}; differences from {first.a}"
        console.print(Text(printable(heading), style="bold"))
        grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        grid.add_column("upstream", overflow="fold", min_width=12)
        check = first.pair.check.replace(" ", "\n")
        for column in ("score", "difference [95 %]", "p", check, "detectable"):
            grid.add_column(column, justify="right", no_wrap=True)
        grid.add_row(Text(printable(first.a)), _score(first.a_cell, table))
        for found in own:
            difference = found.pair.difference
            interval = (
                f"{signed(difference.value)} [{signed(difference.low)}, {signed(difference.high)}]"
            )
            grid.add_row(
                Text(printable(found.b)),
                _score(found.b_cell, table),
                Text(interval, style="bold" if found.better else ""),
                short_p(found.p_value),
                short_p(found.check_p_value),
                f"{found.detectable:.1f}",
            )
        console.print(grid)
    for found in comparisons.pairs:
        console.print(Text(printable(in_words(found, count))), soft_wrap=True)
    for line in (*_footnotes(comparisons), *(f"note: {note}" for note in comparisons.notes)):
        console.print(Text(printable(line), style="dim"), soft_wrap=True)


def signed(value: float) -> str:
    """A difference as tables show it; no sign for what rounds to 0."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def short_p(p_value: float) -> str:
    """A p-value as tables show it."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _equals(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"


def _score(cell: Cell, table: Table) -> str:
    return f"{cell.metrics[table.metric]['value']:.1f}"


def _footnotes(comparisons: Comparisons) -> list[str]:
    count = len(comparisons.pairs)
    differences = [found.pair.difference for found in comparisons.pairs]
    over = "utterances" if all(found.by_utterance for found in differences) else "speakers"
    checks = " and ".join(sorted({found.pair.check for found in comparisons.pairs}))
    lines = [
        f"Paired by utterance; interval and p over {over}; {checks}: p of a check that takes "
        "utterances for independent."
    ]
    if count > 1:
        lines.append(f"All p are adjusted for {count} comparisons (Holm); intervals are not.")
    if any(found.by_utterance for found in differences) and over == "speakers":
        lines.append("Where speakers are not known, utterances stand in for them.")
    if any(found.a_cell.seeds == 1 for found in comparisons.pairs):
        tasks = {found.table.downstream for found in comparisons.pairs if found.a_cell.seeds == 1}
        lines.append(
            f"One seed in {', '.join(sorted(tasks))}: the luck of training is in no interval; "
            "--seeds 3 to publish."
        )
    return lines


def _refuse_unknown(
    board: Board, names: Sequence[str], downstreams: Sequence[str], layer: str
) -> None:
    tasks = {table.downstream for table in board.tables}
    for task in downstreams:
        if task not in tasks:
            raise unknown("task in these results", task, map(printable, tasks))
    rows = [row for table in board.tables for row in table.rows]
    known = {row.upstream for row in rows} | {row.label for row in rows}
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
