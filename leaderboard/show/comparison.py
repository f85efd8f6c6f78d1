"""What `superb compare` prints: tables of paired differences, sentences, or records."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from rich.console import Console
from rich.text import Text

from benchmark.scoring.results import FEWEST_CLUSTERS, MetricValue, no_interval, shown_score
from leaderboard.compare.encoders import LEVEL, POWER, Comparison, Comparisons
from leaderboard.read.board import Cell, Table
from leaderboard.read.names import printable
from leaderboard.show.board import arrow, headline
from leaderboard.show.grid import MISSING, Grid, GridRow, Item
from leaderboard.show.numbers import difference_text, p_text, step_of
from leaderboard.show.terminal import difference_table, show_grid, show_lines


def show_comparisons(comparisons: Comparisons, console: Console) -> None:
    """Print a table for each task, then a sentence for each comparison."""
    for _, group in itertools.groupby(comparisons.pairs, key=lambda found: id(found.table)):
        own = list(group)
        first, table = own[0], own[0].table
        heading = f"{headline(table)}, {first.layer}; differences from {first.a}"
        console.print(Text(printable(heading), style="bold"))
        check = (first.pair.check or "check").replace(" ", "\n")
        grid = difference_table("score", "difference [95 %]", "p", check, "detectable")
        grid.add_row(Text(printable(first.a)), f"{_score(first.a_cell)['value']:.1f}")
        for found in own:
            grid.add_row(
                Text(printable(found.b)),
                f"{_score(found.b_cell)['value']:.1f}",
                Text(
                    difference_text(found.pair.difference, table.unit),
                    style="bold" if found.better else "",
                ),
                p_text(found.p_value),
                p_text(found.check_p_value),
                MISSING if found.detectable is None else f"{found.detectable:.1f}",
            )
        console.print(grid)
    count = _tested(comparisons)
    show_lines((in_words(found, count) for found in comparisons.pairs), console)
    notes = (f"note: {note}" for note in comparisons.notes)
    show_lines((*footnotes(comparisons), *notes), console, "dim")


def show_twins(comparisons: Comparisons, console: Console) -> None:
    """Print encoders beside their untrained twins."""
    show_grid(twin_grid(comparisons), console)
    notes = (f"note: {note}" for note in comparisons.notes)
    show_lines((*footnotes(comparisons, checks=False), *notes), console, "dim")


def twin_grid(comparisons: Comparisons) -> Grid:
    """Encoders beside their untrained twins, task by task."""
    tables = list({id(found.table): found.table for found in comparisons.pairs}.values())
    tasks = [table.downstream for table in tables]

    first = comparisons.pairs[0].layer

    def task(table: Table, layer: str) -> str:
        recurs = f" on {table.corpus}" if tasks.count(table.downstream) > 1 else ""
        other = f", {layer}" if layer != first else ""  # where no sum is trained
        return f"{table.downstream}{recurs}{other} {arrow(table)}"

    return Grid(
        title=f"encoders beside their untrained twins, {first}",
        details=tuple(map(headline, tables)),
        labels=("task", "upstream"),
        columns=("score", "twin", "score − twin [95 %]", "p"),
        groups=("",) * 4,
        rows=tuple(
            GridRow(
                (task(found.table, found.layer), printable(found.b)),
                (
                    Item(f"{_score(found.b_cell)['value']:.1f}"),
                    Item(f"{_score(found.a_cell)['value']:.1f}"),
                    Item(
                        difference_text(found.pair.difference, found.table.unit),
                        bold=found.better is not None,
                    ),
                    Item(p_text(found.p_value)),
                ),
            )
            for found in comparisons.pairs
        ),
        bold=f"told apart from its twin, at a level of {LEVEL:g}",
        footnotes=(),
    )


def in_words(comparison: Comparison, comparisons: int = 1) -> str:
    """One sentence: which is better and by how much, or what could not have been seen.

    Args:
        comparison: to put into words.
        comparisons: how many the p-value was adjusted for.
    """
    task, found = comparison.table.downstream, comparison.pair.difference
    metric, step = comparison.table.metric, step_of(comparison.table.unit)
    evidence = (
        f"{metric} {comparison.b} − {comparison.a} = "
        f"{difference_text(found, comparison.table.unit, step)}"
    )
    if comparison.p_value is None or comparison.detectable is None:
        return (
            f"{comparison.a} and {comparison.b} cannot be told apart in {task}: {evidence}, too "
            f"few for an interval or a test, which take {FEWEST_CLUSTERS} speakers."
        )
    evidence += f", p {_equals(comparison.p_value)}" + (
        f" adjusted for {comparisons} comparisons" if comparisons > 1 else ""
    )
    check = comparison.check_p_value
    if check is not None and (check < LEVEL) != (comparison.p_value < LEVEL):
        evidence += (
            f"; {comparison.pair.check}, blind to speakers, disagrees with p {_equals(check)}"
        )
    unseen = (
        f"a true difference would have to be {comparison.detectable:.1f} {step} or more to be seen "
        f"with {100 * POWER:.0f} % power"
        if comparison.detectable < 100 or step != step_of("%")
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
        f"{comparison.better} is better than {worse} in {task} by {abs(found.value):.1f} {step}: "
        f"{evidence}."
    )


def as_json(comparisons: Comparisons) -> dict[str, Any]:
    """What `show_comparisons` prints, in full precision, for `json.dumps`."""
    entries = []
    for found in comparisons.pairs:
        table, difference = found.table, found.pair.difference
        ends = dict.fromkeys(("low", "high")) if no_interval(difference, table.unit) else {}
        sides = {
            side: {
                "upstream": label,
                "run_id": cell.run_id,
                **shown_score(_score(cell), table.unit),
            }
            for side, label, cell in (("a", found.a, found.a_cell), ("b", found.b, found.b_cell))
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
                "difference": {**dataclasses.asdict(difference), **ends},
                "identical": found.pair.identical,
                "p_value": found.pair.p_value,
                "p_value_holm": found.p_value,
                "check": found.pair.check,
                "check_p_value": found.pair.check_p_value,
                "check_p_value_holm": found.check_p_value,
                "detectable": found.detectable,
                "better": found.better,
                "words": in_words(found, _tested(comparisons)),
            }
        )
    return {
        "level": LEVEL,
        "power": POWER,
        "comparisons": entries,
        "notes": list(comparisons.notes),
    }


def _tested(comparisons: Comparisons) -> int:
    """Comparisons that there is a p-value of: it is adjusted for their number."""
    return sum(found.p_value is not None for found in comparisons.pairs)


def _equals(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"


def _score(cell: Cell) -> MetricValue:
    assert cell.score is not None  # only finished runs are compared
    return cell.score


def footnotes(comparisons: Comparisons, *, checks: bool = True) -> list[str]:
    """What the numbers of a comparison are over, and what they leave out."""
    count = _tested(comparisons)
    differences = [found.pair.difference for found in comparisons.pairs]
    over = "utterances" if all(found.by_utterance for found in differences) else "speakers"
    names = sorted({found.pair.check for found in comparisons.pairs if checks} - {""})
    why = f"; {' and '.join(names)}: p of a check that takes utterances for independent"
    why = why if names else ""
    lines = [f"Paired by utterance; interval and p over {over}{why}."]
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
