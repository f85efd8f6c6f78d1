"""What the commands print: the scores of a run, the list of encoders, the outcome of checks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.errors import SuperbError, unknown
from benchmark.scoring.results import card_metrics, result_path
from leaderboard.read.board import BEST, MAIN_LAYERS
from leaderboard.read.fields import (
    identity_of,
    is_trained,
    layer_count,
    learning_rate_of,
    score_of,
    source_of,
)
from leaderboard.read.names import printable, told_apart
from leaderboard.show.numbers import difference_text, score_text

if TYPE_CHECKING:
    from benchmark.conformance import Check
    from benchmark.scoring.results import Result
    from upstreams.catalogue import Entry


def plain_table(title: str) -> Table:
    """A table that fits a narrow terminal."""
    return Table(
        title=title,
        title_style="bold",
        title_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )


def print_summary(results: Sequence[Result], output: Path, console: Console) -> None:
    """One table per encoder: a row for each task and layer choice, then where the files are."""
    sources: dict[str, dict[str, str]] = {}
    for result in results:
        fingerprint = identity_of(result, "upstream", "fingerprint")
        sources.setdefault(result.upstream["name"], {})[fingerprint] = source_of(result)
    for mark in dict.fromkeys(str(result.identity["upstream"]) for result in results):
        own = [result for result in results if str(result.identity["upstream"]) == mark]
        first = own[0]
        name = first.upstream["name"]
        fingerprint = identity_of(first, "upstream", "fingerprint")
        table = plain_table(escape(printable(told_apart(name, sources[name])[fingerprint])))
        table.add_column("task", no_wrap=True)
        table.add_column("layers", no_wrap=True)
        table.add_column("test [95 % interval]", justify="right", no_wrap=True)
        table.add_column("rate", justify="right", no_wrap=True)
        table.add_column("sum − last", justify="right", no_wrap=True)
        tasks = dict.fromkeys(result.downstream["name"] for result in own)
        for task in tasks:
            rows = [result for result in own if result.downstream["name"] == task]
            for position, result in enumerate(rows):
                table.add_row(
                    _task_label(result, position, len(rows)),
                    result.layer,
                    _score(result),
                    _rate(result),
                    _gain(result, rows, output),
                    end_section=position == len(rows) - 1,
                )
        console.print(table)
        trained = [result for result in own if is_trained(result)]
        seeds = len(trained[0].seeds) if trained else 0
        notes = [
            f"{first.corpus['name']} corpus, protocol {first.protocol['name']} "
            f"v{first.protocol['version']}"
            + ("", ", one seed (use --seeds 3 to publish)", f", {seeds} seeds")[min(seeds, 2)]
        ]
        if searching := dict.fromkeys(r.downstream["name"] for r in own if not is_trained(r)):
            notes.append(f"{', '.join(searching)}: no head is trained; best is chosen on valid")
        notes += [note for result in own if (note := _folds(result))]
        if any(result.learning_rate_at_edge for result in own):
            notes.append("* the best learning rate is at an edge of the grid")
        if first.upstream.get("note"):
            notes.append(str(first.upstream["note"]))
        for note in notes:
            console.print(f"  {escape(printable(note))}", style="dim", soft_wrap=True)
    console.print(f"  results: {escape(str(output))}/", style="dim", soft_wrap=True)


def print_heads(results: Sequence[Result], output: Path) -> None:
    """What to type to have recordings answered by the heads of results, a line for each."""
    from benchmark.answering.saved import heads_of

    for result in results:
        path = result_path(
            output, result.downstream["name"], result.upstream["name"], result.run_id
        )
        if heads_of(path):
            print(f"  superb predict {shlex.quote(printable(str(path)))} clip.wav")


def _folds(result: Result) -> str:
    """The score of each fold, of which the score is the mean, and how many people are in all."""
    score = score_of(result)
    if not result.folds or score is None:
        return ""
    metric = card_metrics(result)[0]
    scale = "" if metric.unit == "%" else f" {metric.unit}"
    each = ", ".join(f"{fold['metrics'][metric.name]:.1f}" for fold in result.folds)
    people = "utterances" if score.get("by_utterance") else f"{score['clusters']} speakers"
    return (
        f"{result.downstream['name']}, {result.layer}: mean of {len(result.folds)} folds "
        f"({each}{scale}), interval over {people}"
    )


def _task_label(result: Result, position: int, rows: int) -> str:
    """The task beside its first row, its metric beside the second (or both, if it has but one)."""
    metric = card_metrics(result)[0]
    arrow = "↓" if metric.direction == "lower" else "↑"
    parts = [result.downstream["name"], f"{metric.name} {metric.unit} {arrow}"]
    if rows == 1:
        return " ".join(parts)
    return parts[position] if position < 2 else ""


def _rate(result: Result) -> str:
    return (learning_rate_of(result) or "–") + ("*" if result.learning_rate_at_edge else "")


def _gain(result: Result, rows: Sequence[Result], output: Path) -> str:
    """What the weighted sum adds to the last layer, paired by utterance."""
    from benchmark.scoring.results import result_path
    from leaderboard.compare.difference import pair_results

    last = next((row for row in rows if row.layer == "last"), None)
    if result.layer not in (MAIN_LAYERS[1], BEST) or last is None:
        return ""
    if layer_count(result) == 1:
        return "same: one layer"
    if not "finished" == last.status == result.status:
        return "–"
    name, task = result.upstream["name"], result.downstream["name"]
    found = pair_results(*(result_path(output, task, name, item.run_id) for item in (last, result)))
    return difference_text(found.difference, card_metrics(result)[0].unit)


def _score(result: Result) -> str:
    found = score_of(result)
    return score_text(found, card_metrics(result)[0].unit) if found else "failed"


def upstream_table(wide: bool) -> Table:
    """Every encoder that has a name, without loading any.

    Args:
        wide: with paper, checkpoint, licence and training data, some 230 columns of text.
    """
    from upstreams.catalogue import UPSTREAMS
    from upstreams.loading.load import upstream_names

    table = plain_table("Encoders")
    for column in ("name", "family"):
        table.add_column(column, no_wrap=True)
    for column in ("year", "states", "hop", "weights"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("where", no_wrap=True)
    if wide:
        for column in ("checkpoint", "licence", "trained on", "paper"):
            table.add_column(column, no_wrap=True)
    for name, entry in UPSTREAMS.items():
        facts = upstream_facts(entry)
        row = [
            name,
            entry.family,
            str(entry.year),
            f"{entry.layers}x{entry.dim}",
            str(entry.hop_samples),
            facts["weights"].split(" = ")[0],
            facts["where"].split(":")[0],
        ]
        if wide:
            row += [facts[key] for key in ("checkpoint", "licence", "trained on", "paper")]
        table.add_row(*map(escape, row))
    for name in upstream_names()[len(UPSTREAMS) :]:
        table.add_row(escape(name), "plug-in", "", "", "", "", "installed")
    table.caption = (
        "states: layers x dim; hop: samples at 16 kHz. More: superb upstreams NAME, or --wide. "
        "Also: a checkpoint folder, org/model\\[@revision] on the Hugging Face hub, "
        "file.py:Name, package.module:Name, torchaudio:BUNDLE, and untrained:ANY for the random "
        "twin of any of them"
    )
    table.caption_justify = "left"
    return table


def upstream_details(name: str) -> Table:
    """All that the table knows of one encoder.

    Raises:
        SuperbError: there is none of that name.
    """
    from upstreams.catalogue import UPSTREAMS

    if name not in UPSTREAMS:
        path = Path(name).expanduser()
        if path.is_dir():
            raise SuperbError(
                f"{name} is a folder, which --upstream loads; here, name a training file in it"
            )
        if path.suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
            raise SuperbError(f"there is no file {name}; check the path")
        raise unknown("upstream", name, UPSTREAMS)
    entry = UPSTREAMS[name]
    table = plain_table(f"superb upstreams {escape(name)}")
    table.show_header = False
    table.add_column("", no_wrap=True)
    table.add_column("")
    shape = f"{entry.layers} x {entry.dim}, a frame every {entry.hop_samples} samples at 16 kHz"
    rows = {"family": entry.family, "layers x dim": shape, **upstream_facts(entry)}
    for key, text in rows.items():
        if text:
            table.add_row(key, escape(text))
    return table


def upstream_facts(entry: Entry) -> dict[str, str]:
    """What a row of the table says, in words."""
    corpora = entry.trained_on
    revision = entry.revision or ("not pinned" if "/" in entry.checkpoint else "")
    return {
        "weights": f"{entry.parameters / 1e6:.1f} M = {entry.parameters:,}"
        if entry.parameters
        else "none",
        "where": _where(entry),
        "checkpoint": f"{entry.checkpoint} {revision[:10]}".strip(),
        "licence": entry.licence,
        "trained on": "undisclosed" if corpora is None else ", ".join(sorted(corpora)) or "nothing",
        "paper": f"{entry.paper} ({entry.year})",
        "note": entry.note,
    }


def _where(entry: Entry) -> str:
    """Whether weights are at hand, by a look at the disk alone."""
    if entry.checkpoint in ("bundled", "none"):
        return "here"
    if entry.checkpoint == "local file":
        return "your file: published, but not on the hub"
    if "/" not in entry.checkpoint:
        return "nowhere: nobody published weights that can be read"
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{entry.checkpoint.replace('/', '--')}" / "snapshots"
    if (folder / entry.revision).is_dir():
        return "cached: fetched before, works offline"
    return "hub: fetched at the first use"


def check_table(name: str, checks: Sequence[Check]) -> Table:
    """Passed, failed (with what was expected and what came), not run."""
    failed = sum(check.passed is False for check in checks)
    caption = "conforms" if not failed else f"{failed} of {len(checks)} checks failed"
    table = plain_table(f"superb check {escape(name)}: {caption}")
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found")
    marks = {True: "[green]passed[/]", False: "[bold red]failed[/]", None: "[dim]not applicable[/]"}
    for check in checks:
        found = check.found
        if check.passed is False:
            found = f"expected: {check.expected}\nfound: {check.found}"
        table.add_row(check.name, marks[check.passed], escape(found))
    return table
