"""What `superb diff` prints: what two results do not share, and the utterances that changed."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.scoring.results import Result
from leaderboard.compare.causes import Apart, Causes, Changed
from leaderboard.read.fields import find_metric, score_of
from leaderboard.read.names import printable
from leaderboard.show.numbers import difference_text, score_text, step_of
from leaderboard.show.terminal import show_lines

_LONGEST: Final = 40  # characters of a value in a table
_MEANS: Final = {
    "yes": "can change the score",
    "rounding": "can change it by rounding, which training may amplify",
    "maybe": "can change it where the code that was used differs",
    "no": "cannot change it",
}


def show_causes(found: Causes, console: Console, most: int) -> None:
    """Print what differs, then the difference, then the utterances that changed most.

    Args:
        found: what to show.
        console: to print to.
        most: how many utterances.
    """
    show_lines([_headline("A", found.a), _headline("B", found.b)], console)
    if not found.apart:
        show_lines(["", "They share everything that their files tell."], console)
    else:
        console.print(_table(found.apart))
        used = dict.fromkeys(one.effect for one in found.apart)
        show_lines([f"{effect}: {_MEANS[effect]}" for effect in used], console, "dim")
    show_lines(["", *_in_words(found)], console)
    for changed in found.changed[:most]:
        show_lines(_lines(changed), console)
    rest = len(found.changed) - most
    if rest > 0:
        show_lines(["", f"{rest} more changed; show them with --utterances"], console, "dim")


def as_json(found: Causes) -> dict[str, Any]:
    """The same in full, for `json.dumps`."""
    return {
        "metric": found.metric,
        **{
            side: {"run_id": result.run_id, "upstream": result.upstream["name"], **_told(result)}
            for side, result in (("a", found.a), ("b", found.b))
        },
        "apart": [dataclasses.asdict(one) for one in found.apart],
        "difference": None if found.pair is None else dataclasses.asdict(found.pair.difference),
        "unpaired": found.unpaired,
        "utterances": found.shared,
        "changed": [dataclasses.asdict(one) for one in found.changed],
    }


def _told(result: Result) -> dict[str, Any]:
    return {"layer": result.layer, "metrics": dict(result.metrics)}


def _headline(side: str, result: Result) -> str:
    score = score_of(result)
    metric = find_metric(result, result.downstream["metrics"][0]["name"])
    told = f"{score_text(score, metric.unit)} {metric.name} {metric.unit}" if score else "failed"
    return (
        f"{side}  {result.upstream['name']}, {result.downstream['name']}, {result.layer}: {told} "
        f"(run {result.run_id})"
    )


def _table(apart: tuple[Apart, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("what differs", overflow="fold", max_width=28)
    for side in ("A", "B"):
        table.add_column(side, overflow="fold")
    table.add_column("changes", no_wrap=True)
    for one in apart:
        cells = (one.name, _short(one.a), _short(one.b), one.effect)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _short(value: str) -> str:
    """A long value by its start; a hash by its first characters, as elsewhere."""
    if len(value) >= 40 and all(char in "0123456789abcdef" for char in value):
        return value[:12]
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"


def _in_words(found: Causes) -> list[str]:
    metric = find_metric(found.a, found.metric)
    changed = len(found.changed)
    lines = []
    if found.pair is not None:
        difference = found.pair.difference
        told = difference_text(difference, metric.unit)
        over = "utterances" if difference.by_utterance else "speakers"
        lines.append(
            f"B − A: {told} {step_of(metric.unit)} of {metric.name}, paired interval over {over}."
        )
    else:
        lines.append(f"Not paired: {found.unpaired}")
    counts = f"{changed} of {found.shared} shared test utterances came out otherwise"
    lower = metric.direction == "lower"
    better = sum((one.b < one.a) == lower for one in found.changed if one.a != one.b)
    even = sum(one.a == one.b for one in found.changed)
    if metric.statistic in ("ratio", "mean", "f1"):
        counts += f": B is better in {better}, worse in {changed - better - even}, even in {even}"
    lines.append(f"{counts}.")
    if changed:
        what = {"ratio": "errors" if lower else "right answers"}.get(metric.statistic, metric.name)
        lines.append(f"Of each: {what}, mean over seeds; what the first seed heard.")
    return lines


def _lines(one: Changed) -> list[str]:
    speaker = f" ({one.speaker})" if one.speaker and one.speaker not in one.utterance else ""
    texts = [("said", one.reference), ("A", one.a_hypothesis), ("B", one.b_hypothesis)]
    return [
        "",
        f"{one.utterance}{speaker}: A {one.a:.3g}, B {one.b:.3g}",
        *(f"  {name:<4}  {text}" for name, text in texts if text),
    ]
