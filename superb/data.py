"""Is a corpus on disk whole and sound: from what was typed to the outcome of its check, shown."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.core import DownstreamCard, Metric
from benchmark.errors import SuperbError, unknown
from benchmark.registry import load_attribute
from downstreams.corpora import CORPORA, CorpusOptions
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.load import load_downstream

if TYPE_CHECKING:  # at run time these import numpy and soundfile, so they wait until needed
    from benchmark.progress import Progress
    from downstreams.corpora.check import Audit, Finding, Item
    from downstreams.corpora.layout import Layout

# Of the items of one finding; --json has them all.
EXAMPLES: Final = 3
# Characters of a path and its detail that still fit on one line of a terminal.
LINE: Final = 70
# Asks one's own data for nothing but audio and split.
ANY_TASK: Final = DownstreamCard("any", "Any task", 1, (Metric("none", "higher"),), "mean")


def audit_corpus(
    name: str,
    data_root: Path | None,
    downstream: str | None,
    *,
    quick: bool,
    progress: Progress,
    channel: int | None = None,
) -> Audit:
    """From what a user typed to the outcome of the check.

    Raises:
        SuperbError: the corpus is unknown or not where it should be, or options mean nothing to it.
    """
    from downstreams.corpora.check import audit, survey_corpus
    from downstreams.corpora.layout import data_root as require_root

    task = None if downstream is None else load_downstream(downstream)
    card = ANY_TASK if task is None else task.card
    if name in CORPORA:
        layout = layout_of(name)
        if downstream is not None:
            raise SuperbError(
                f"--downstream is for your own data: {name} has a layout of its own, which "
                "is checked as a whole. Leave it out"
            )
        root = require_root(name, CorpusOptions(data_root=data_root), layout.obtain)
        survey = layout.survey(root)
        official = layout.official
        return audit(survey, official, root, quick=quick, progress=progress, channel=channel)
    own = load_corpus(name, card, CorpusOptions(data_root=data_root))
    if task is not None:
        check_fits(task, own)
    survey = survey_corpus(own, speakers_recur=card.label_from == "speaker")
    root = data_root or Path(name.partition(":")[0]).parent
    return audit(survey, {}, root, quick=quick, progress=progress, channel=channel)


def layout_of(name: str) -> Layout:
    """The official layout of a corpus of the table."""
    if name not in CORPORA:
        raise unknown("corpus", name, CORPORA)
    entry = CORPORA[name]
    if not entry.layout:
        raise SuperbError(
            f"corpus {name!r} comes with superb and is verified whenever it is loaded: there is "
            "nothing to check or to download"
        )
    layout: Layout = load_attribute(entry.layout)
    return layout


# Output ----------------------------------------------------------------------------------------


def record(name: str, audit: Audit) -> dict[str, Any]:
    """The outcome of a check for machines: every item of every finding."""
    from downstreams.corpora.check import KINDS

    return {
        "corpus": name,
        "errors": audit.errors,
        "warnings": audit.warnings,
        "splits": {split: asdict(figures) for split, figures in audit.splits.items()},
        "findings": [
            {
                "level": "error" if finding.error else "warning",
                **asdict(finding),
                "means": KINDS[finding.kind].means,
            }
            for finding in audit.findings
        ],
        "notes": list(audit.notes),
    }


def print_audit(name: str, audit: Audit, console: Console) -> None:
    """What is there beside what should be, then every finding with its first items."""
    from downstreams.corpora.check import KINDS

    verdict = f"{_count(audit.errors, 'error')}, {_count(audit.warnings, 'warning')}"
    if not audit.errors and not audit.warnings:
        verdict = "nothing found wrong"
    console.print(f"[bold]superb data check {escape(name)}: {verdict}[/]", soft_wrap=True)
    table = Table("split", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("utterances", "speakers", "hours"):
        table.add_column(column, justify="right", no_wrap=True)
    for split, figures in audit.splits.items():
        official = figures.official
        table.add_row(
            escape(split),
            _of(f"{figures.utterances:,}", official and f"{official.utterances:,}"),
            _of(f"{figures.speakers or '–'}", official and official.speakers),
            _of(f"{figures.hours:.2f}", official and official.hours),
        )
    console.print(table)
    for kind, findings in groupby(audit.findings, key=lambda finding: finding.kind):
        mark = "[bold red]error:[/]" if KINDS[kind].error else "[bold yellow]warning:[/]"
        console.print(f"{mark} {kind} ({KINDS[kind].means})", soft_wrap=True)
        for finding in findings:
            for line in _lines(finding):
                console.print(f"  {escape(line)}", soft_wrap=True)
    for note in audit.notes:
        console.print(f"note: {escape(note)}", style="dim", soft_wrap=True)


def _lines(finding: Finding) -> list[str]:
    """A split with its only item beside it, or with their count and the first few below."""
    items = [_text(item) for item in finding.items[:EXAMPLES]]
    where = finding.split or "of no split"
    if len(finding.items) == 1 and len(items[0]) == 1:
        return [f"{where}: {items[0][0]}"]
    lines = [f"{where}: {len(finding.items):,}"]
    lines += [f"  {line}" for item in items for line in item]
    if (more := len(finding.items) - EXAMPLES) > 0:
        lines.append(f"  … and {more:,} more; --json lists all")
    return lines


def _text(item: Item) -> list[str]:
    """An item on one line, or with its detail on a second one where a path takes the first."""
    if len(item.name) + len(item.detail) <= LINE:
        return [f"{item.name} ({item.detail})" if item.detail else item.name]
    return [item.name, f"  ({item.detail})"] if item.detail else [item.name]


def _count(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def _of(here: str, official: object) -> str:
    return here if official is None else f"{here} of {official}"
