"""What the commands print: the scores of a run, the list of encoders, the outcome of checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from benchmark.conformance import Check
    from benchmark.results import Result


def print_summary(results: Sequence[Result], output: Path, console: Console) -> None:
    """One table per encoder: a row for each task and layer choice, then where the files are."""
    from benchmark.results import result_path
    from leaderboard.difference import paired_difference

    for name in dict.fromkeys(result.upstream["name"] for result in results):
        own = [result for result in results if result.upstream["name"] == name]
        first = own[0]
        table = Table(title=escape(name), title_style="bold")
        table.add_column("task")
        table.add_column("layers")
        table.add_column("test score [95 % interval]", justify="right")
        table.add_column("learning rate", justify="right")
        table.add_column("weighted sum − last", justify="right")
        previous = None
        for result in own:
            task, metric = result.downstream["name"], result.downstream["metrics"][0]
            arrow = "↓" if result.downstream["direction"] == "lower" else "↑"
            if previous not in (None, task):
                table.add_section()
            gain = ""
            if result.layer == "weighted-sum":
                last = next(
                    (r for r in own if r.layer == "last" and r.downstream["name"] == task), None
                )
                if last is not None and "finished" == last.status == result.status:
                    paths = [
                        result_path(output, task, name, item.run_id) for item in (last, result)
                    ]
                    found = paired_difference(*paths)
                    gain = f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
            rate = "–" if result.learning_rate is None else f"{result.learning_rate:g}"
            if result.learning_rate_at_edge:
                rate += " (edge)"
            label = f"{task}  {metric} % {arrow}" if previous != task else ""
            table.add_row(label, result.layer, _score(result), rate, gain)
            previous = task
        console.print(table)
        seeds = len(first.seeds)
        notes = [
            f"{first.corpus['name']} corpus, protocol {first.protocol['name']} "
            f"v{first.protocol['version']}, "
            + (f"{seeds} seeds" if seeds > 1 else "one seed (use --seeds 3 to publish)")
        ]
        if first.upstream.get("note"):
            notes.append(str(first.upstream["note"]))
        for note in notes:
            console.print(f"  {escape(note)}", style="dim", soft_wrap=True)
    console.print(f"  results: {escape(str(output))}/", style="dim", soft_wrap=True)


def _score(result: Result) -> str:
    if result.status == "failed":
        return "failed"
    found = result.metrics[result.downstream["metrics"][0]]
    return f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def upstream_table() -> Table:
    """Every encoder that has a name, without loading any."""
    from upstreams import UPSTREAMS

    table = Table(
        title="Encoders",
        caption="Also: a folder, org/model[@revision] on the Hugging Face hub, file.py:Name, "
        "package.module:Name, and untrained:ANY",
    )
    for column in ("name", "family"):
        table.add_column(column)
    for column in ("layers", "dim", "hop", "parameters"):
        table.add_column(column, justify="right")
    for column in ("weights", "paper"):
        table.add_column(column)
    for name, entry in UPSTREAMS.items():
        table.add_row(
            name,
            entry.family,
            str(entry.layers),
            str(entry.dim),
            str(entry.hop_samples),
            f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "0",
            escape(entry.checkpoint),
            escape(f"{entry.paper}, {entry.year}" if entry.year else entry.paper),
        )
    return table


def check_table(name: str, checks: Sequence[Check]) -> Table:
    """Passed, failed (with what was expected and what came), not run."""
    failed = sum(check.passed is False for check in checks)
    caption = "conforms" if not failed else f"{failed} of {len(checks)} checks failed"
    table = Table(title=f"superb check {escape(name)}", caption=caption)
    for column in ("check", "", "expected", "found"):
        table.add_column(column)
    marks = {True: "[green]passed[/]", False: "[bold red]failed[/]", None: "[dim]not applicable[/]"}
    for check in checks:
        table.add_row(check.name, marks[check.passed], escape(check.expected), escape(check.found))
    return table
