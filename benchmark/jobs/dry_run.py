"""What runs would do: their jobs, what is done of them, and what the rest takes here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmark.core import Utterance
from benchmark.encoding.cache import format_bytes, free_bytes
from benchmark.encoding.features import Extraction, left_to_encode
from benchmark.encoding.recordings import estimate_s
from benchmark.jobs.cost import (
    PREFERRED,
    WORTH_A_TABLE,
    Amount,
    Speeds,
    amounts,
    disk_speed,
    encoder_speed,
    format_time,
    left_bytes,
    plan_run,
    plan_table,
    size,
    some,
)
from benchmark.jobs.keep import require_heads
from benchmark.jobs.plan import Fit, Plan, make_plan
from benchmark.jobs.price import TaskWork, encoding_seconds, learns_alone, price_fit, update_seconds
from benchmark.jobs.run import extractions
from benchmark.jobs.site import Site, Task
from benchmark.progress import Progress
from benchmark.scoring.results import result_path

_WIDTH = 18


@dataclass(frozen=True)
class TaskRow:
    """One task of one encoder.

    Attributes:
        encoder: its name on the site.
        task: likewise.
        choices: layer choices that no earlier run has.
        seeds: of the heads.
        done: how many results are there.
        seconds: that the others take to train; None where that is not known.
    """

    encoder: str
    task: str
    choices: tuple[str, ...]
    seeds: int
    done: int
    seconds: float | None


@dataclass(frozen=True)
class FeatureRow:
    """Features of one encoder that some of its jobs read.

    Attributes:
        encoder: its name on the site.
        storage: how they are kept.
        size: bytes on disk, in the end.
        left: those of them that are still to be written.
        seconds: that this takes.
    """

    encoder: str
    storage: str
    size: int
    left: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """All of it.

    Attributes:
        tasks: of all encoders.
        features: of those whose jobs need some.
        notes: what the figures rest on.
        tables: the ways to keep features, where there are many.
    """

    tasks: tuple[TaskRow, ...]
    features: tuple[FeatureRow, ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]

    @cached_property
    def seconds(self) -> float:
        """Of all that is left, as far as it is known."""
        known = [row.seconds or 0.0 for row in self.tasks]
        return sum(known) + sum(row.seconds for row in self.features)


def forecast(sites: Sequence[Site], progress: Progress) -> Forecast:
    """Look at what is there, and time here what the rest is made of.

    Trains nothing and writes no result; hashes and lengths of audio that it reads are remembered
    in the cache.

    Args:
        sites: runs, one after another.
        progress: where to warn.

    Raises:
        SuperbError: as for `make_plan` and `require_heads`, or because the encoder or the disk
            cannot be timed.
    """
    quiet = Progress(quiet=True, console=progress.console)
    plans = [make_plan(site, quiet) for site in sites]
    for site, plan in zip(sites, plans, strict=True):
        if site.save_heads:
            require_heads(site, plan.found, quiet)
    clock = _Clock(progress)
    wanted: dict[str, tuple[str, str, list[Extraction]]] = {}
    for site, plan in zip(sites, plans, strict=True):
        for encoder, extraction, reason in extractions(site, plan):
            key = json.dumps([extraction.about("frames"), str(extraction.settings.cache_dir)])
            wanted.setdefault(key, (encoder, reason, []))[2].append(extraction)
    features, tables = [], []
    for encoder, reason, parts in wanted.values():
        whole = _together(parts)
        card, storage, amount = whole.upstream.card, whole.settings.storage, amounts(whole.wanted)
        speeds = clock.speeds(whole)
        full = size(card, amount, storage, whole.layers)
        if size(card, amount, PREFERRED[0], whole.layers) >= WORTH_A_TABLE:
            tables.append(plan_table(plan_run(whole, reason, speeds)))
        counts = left_to_encode(whole)
        left = {
            kind: Amount(counts[kind], own.audio_s * counts[kind] / max(own.utterances, 1))
            for kind, own in amount.items()
        }
        seconds = encoding_seconds(card, left, storage, speeds, whole.layers)
        features.append(FeatureRow(encoder, storage, full, left_bytes(whole), seconds))
    tasks: list[TaskRow] = []
    seen: set[Path] = set()
    for site, plan in zip(sites, plans, strict=True):
        for encoder in site.encoders:
            for task in site.tasks:
                # what an earlier run makes is found by a later one
                paths = _paths(site, plan, encoder, task)
                choices = [choice for choice, path in paths.items() if path not in seen]
                seen.update(paths.values())
                if choices:
                    tasks.append(_task_row(site, plan, encoder, task, choices, clock))
    return Forecast(
        tuple(tasks), tuple(features), tuple(_notes(sites, features, tasks)), tuple(tables)
    )


class _Clock:
    """Speeds of this machine, each measured once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._disks: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
        self._encoders: dict[str, float] = {}
        self._updates: dict[str, float] = {}

    def speeds(self, extraction: Extraction) -> Speeds:
        """Of an encoder, on a few utterances, and of the disk that its features go to."""
        settings, mark = extraction.settings, extraction.fingerprint
        place = str(settings.cache_dir)
        if place not in self._disks:
            self._disks[place] = disk_speed(settings.cache_dir)
        if mark not in self._encoders:
            self._progress.note(f"timing {extraction.upstream.card.name}")
            self._encoders[mark] = encoder_speed(extraction.upstream, some(extraction), settings)
        return Speeds(self._encoders[mark], *self._disks[place])

    def update(self, site: Site, encoder: str, task: Task, mean_s: float) -> float:
        """Seconds of an update of one probe; the same for encoders of one shape."""
        card, device = site.encoders[encoder].card, site.settings.device
        shape = (card.dim, card.hop_samples, card.sample_rate, round(mean_s, 1), device)
        key = repr((task.downstream.card.name, task.source, task.training, shape))
        if key not in self._updates:
            self._progress.note(f"timing an update of {task.name}")
            work = TaskWork(task.downstream, task.training)
            self._updates[key] = update_seconds(work, card, mean_s, device)
        return self._updates[key]


def _together(parts: Sequence[Extraction]) -> Extraction:
    """What several runs need of one encoder; a recording that two of them hear counts once."""
    kinds = dict.fromkeys(kind for part in parts for kind in part.wanted)
    numbers: dict[object, str] = {}

    def once(kind: str) -> list[Utterance]:
        heard = [u for part in parts for u in part.wanted.get(kind, ())]
        return [
            replace(u, id=numbers.setdefault(key, str(len(numbers))))
            for key, u in {(u.audio, u.span): u for u in heard}.items()
        ]

    return replace(parts[0], wanted={kind: once(kind) for kind in kinds})


def _paths(site: Site, plan: Plan, encoder: str, task: str) -> dict[str, Path]:
    """The files of the results of a task, by layer choice."""
    card, storage = site.encoders[encoder].card, plan.storage[encoder]
    return {
        choice: result_path(
            site.output, task, card.name, site.run_id((encoder, task, choice), storage)
        ).resolve()
        for choice in site.mixes(encoder, task)
    }


def _task_row(
    site: Site, plan: Plan, encoder: str, name: str, choices: Sequence[str], clock: _Clock
) -> TaskRow:
    task, mixes = site.tasks[name], site.mixes(encoder, name)
    seeds = len(site.seeds_of(name))
    left = [choice for choice in choices if (encoder, name, choice) not in plan.found]
    row = TaskRow(encoder, name, tuple(choices), seeds, len(choices) - len(left), 0.0)
    if not left:
        return row
    work = TaskWork(task.downstream, task.training)
    if not learns_alone(work):
        return replace(row, seconds=None)
    fit = next(
        job
        for job in plan.needs
        if isinstance(job, Fit) and (job.encoder, job.task) == (encoder, name)
    )
    extraction = site.extraction(
        encoder, {name: fit.choices}, fit.storage, task.training.gain_db, fit.kept
    )
    train = [u for u in task.heard if u.split == "train" or len(task.partitions) > 1]
    mean_s = estimate_s(train) / len(train)
    line = price_fit(
        site.encoders[encoder].card,
        work,
        fit.storage,
        clock.speeds(extraction),
        clock.update(site, encoder, task, mean_s),
        mean_s,
        choices=len({mixes[choice] for choice in left}) * len(task.partitions),
        seeds=seeds,
        layers=fit.kept,
        device=site.settings.device,
    )
    return replace(row, seconds=line.each_s * line.jobs)


def _notes(
    sites: Sequence[Site], features: Sequence[FeatureRow], tasks: Sequence[TaskRow]
) -> Iterable[str]:
    """What the figures rest on."""
    if all(row.done == len(row.choices) for row in tasks):
        return
    yield (
        "times are of this machine, one job after another, measured now on a few utterances and "
        "updates; looks at valid and test are not counted, nor what an interrupted training has "
        "done already"
    )
    left = sum(row.left for row in features)
    for folder in dict.fromkeys(site.settings.cache_dir for site in sites):
        free = format_bytes(free_bytes(folder))
        yield f"features: {format_bytes(left)} to write; {free} free in {folder}"
    if unknown := dict.fromkeys(row.task for row in tasks if row.seconds is None):
        yield f"{', '.join(unknown)}: not priced, since more than heads is learnt, or nothing is"


def forecast_table(found: Forecast) -> Group:
    """A forecast for the terminal: a block for each encoder, then what it rests on."""
    results = sum(len(row.choices) for row in found.tasks)
    done = sum(row.done for row in found.tasks)
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("", overflow="fold")
    table.add_column("layers", no_wrap=True)
    for column in ("seeds", "done", "on disk", "time left"):
        table.add_column(column, justify="right", no_wrap=True)
    for encoder in dict.fromkeys(row.encoder for row in found.tasks):
        table.add_row(escape(encoder), style="bold")
        for task in (row for row in found.tasks if row.encoder == encoder):
            layers = ", ".join(task.choices)
            table.add_row(
                f"  {escape(task.task)}",
                layers if len(layers) <= _WIDTH else f"{len(task.choices)} choices",
                str(task.seeds),
                f"{task.done} of {len(task.choices)}",
                "",
                _time(task.seconds),
            )
        for own in (row for row in found.features if row.encoder == encoder):
            kept = format_bytes(own.size - own.left)
            table.add_row(
                "  features",
                own.storage,
                "",
                f"{kept} there" if own.left < own.size else "",
                format_bytes(own.size),
                _time(own.seconds),
            )
    table.add_section()
    table.add_row("all", "", "", f"{done} of {results}", "", _time(found.seconds), style="bold")
    left = "nothing is left" if done == results else f"{results - done} left"
    return Group(
        Text(f"{results} results: {done} done, {left}", "bold"),
        table,
        *(Text(f"- {text}", "dim") for text in found.notes),
        *found.tables,
    )


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else format_time(seconds) if seconds else "–"
