"""A run as a plan of frozen jobs: encode a share, fit layer choices, write results.

A job names what it is about and holds no object, so it may be done anywhere that the same site can
be built. Each reads and writes nothing but the content-addressed store and the result folder, and
doing one twice does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from benchmark.encoding.cache import free_bytes
from benchmark.encoding.features import kept_layers
from benchmark.encoding.recordings import any_known, file_hashes, joint_sha256
from benchmark.errors import SuperbError
from benchmark.jobs.cost import AUTO, PREFERRED, choose, left_bytes, preferred
from benchmark.jobs.site import Cell, Site, Task
from benchmark.probing.layers import Mix
from benchmark.progress import Progress
from benchmark.scoring.results import Result, find_result, result_path


@dataclass(frozen=True)
class Encode:
    """Encode a share of what some layer choices of some tasks need.

    Attributes:
        encoder: its name on the site.
        wanted: tasks with their layer choices; all share one gain.
        storage: how features are kept.
        gain_db: what the audio is amplified by.
        layers: the only layers that frames are kept of, None for all.
        share: which share of the recordings, from 0.
        shares: how many there are.
    """

    encoder: str
    wanted: tuple[tuple[str, tuple[str, ...]], ...]
    storage: str
    gain_db: float
    layers: tuple[int, ...] | None
    share: int = 0
    shares: int = 1

    def __str__(self) -> str:
        part = f", share {self.share + 1} of {self.shares}" if self.shares > 1 else ""
        return f"{self.encoder}: features{part}"


@dataclass(frozen=True)
class Fit:
    """Train heads of some layer choices of a task on one fold, and score them on its test.

    Attributes:
        encoder: its name on the site.
        task: likewise.
        fold: name of the fold, "" for the only one.
        choices: layer choices that train side by side.
        storage: how features are kept.
        kept: the only layers that frames are kept of, None for all.
    """

    encoder: str
    task: str
    fold: str
    choices: tuple[str, ...]
    storage: str
    kept: tuple[int, ...] | None

    def __str__(self) -> str:
        fold = f", fold {self.fold}" if self.fold else ""
        return f"{self.encoder}, {self.task}{fold}: {', '.join(self.choices)}"


@dataclass(frozen=True)
class Write:
    """Write the results of some layer choices of a task, all of its folds."""

    encoder: str
    task: str
    choices: tuple[str, ...]
    storage: str

    def __str__(self) -> str:
        return f"{self.encoder}, {self.task}: results of {', '.join(self.choices)}"


Job: TypeAlias = Encode | Fit | Write


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what is there already.

    Attributes:
        needs: job → the jobs whose outcomes it takes, in an order in which they can be done.
        storage: encoder → how its features are kept.
        reasons: encoder → why, in words.
        found: results that are there, failed ones too.
    """

    needs: Mapping[Job, tuple[Job, ...]]
    storage: Mapping[str, str]
    reasons: Mapping[str, str]
    found: Mapping[Cell, Result]


def make_plan(site: Site, progress: Progress, workers: int = 1) -> Plan:
    """The jobs of a run that are not done yet.

    Args:
        site: what there is to work with.
        progress: where to say what is finished already.
        workers: how many will share the jobs. One trains all layer choices of a task side by side;
            for several, each is a job of its own.

    Raises:
        SuperbError: when results that are there belong to audio that has changed since.
    """
    needs: dict[Job, tuple[Job, ...]] = {}
    storages, reasons, found = {}, {}, {}
    reserved = 0
    for name in site.encoders:
        storage, reason, size = _settled(site, name, reserved)
        storages[name], reasons[name] = storage, reason
        reserved += size
        if site.settings.storage == AUTO and storage != PREFERRED[0]:
            progress.warn(f"{name}: features are kept as {reason}")
        done = _finished(site, name, storage)
        found.update(done)
        for task in site.tasks:
            choices = site.mixes(name, task)
            before = {m: done[name, task, m] for m in choices if (name, task, m) in done}
            _require_same_audio(site, task, list(before.values()))
            finished = [m for m, result in before.items() if result.status == "finished"]
            if finished:
                progress.note(
                    f"{name}, {task}: finished before, not run again: {', '.join(finished)}"
                )
            for layer in sorted(before.keys() - finished):
                path = _path(site.output, before[layer])
                progress.warn(
                    f"{name}, {task}, {layer}: failed before, as it would again, and is not run. "
                    f"{path} says why; to have it run all the same, delete that file"
                )
        needs.update(_jobs(site, name, storage, done, workers))
    return Plan(needs, storages, reasons, found)


def _finished(site: Site, encoder: str, storage: str) -> dict[Cell, Result]:
    """The results of an encoder that are there."""
    card = site.encoders[encoder].card
    found = {
        cell: find_result(site.output, cell[1], card.name, site.run_id(cell, storage))
        for cell in site.cells(encoder)
    }
    return {cell: result for cell, result in found.items() if result is not None}


def _jobs(
    site: Site, encoder: str, storage: str, done: Iterable[Cell], workers: int
) -> dict[Job, tuple[Job, ...]]:
    """The jobs of one encoder."""
    finished = set(done)
    open_choices = {
        task: choices
        for task in site.tasks
        if (
            choices := tuple(
                m for m in site.mixes(encoder, task) if (encoder, task, m) not in finished
            )
        )
    }
    jobs: dict[Job, tuple[Job, ...]] = {}
    for gain_db in dict.fromkeys(site.tasks[task].training.gain_db for task in open_choices):
        alike = {
            task: choices
            for task, choices in open_choices.items()
            if site.tasks[task].training.gain_db == gain_db
        }
        extraction = site.extraction(
            encoder, alike, storage, gain_db, _frame_layers(site, encoder, alike)
        )
        kept = kept_layers(extraction)
        recordings = len({u.audio for u in extraction.utterances.values()})
        shares = max(1, min(workers, recordings // 2))
        encodes = [
            Encode(encoder, tuple(alike.items()), storage, gain_db, kept, share, shares)
            for share in range(shares)
        ]
        jobs.update(dict.fromkeys(encodes, ()))
        for task, choices in alike.items():
            for group in _together(choices, site.mixes(encoder, task), workers):
                fits = [
                    Fit(encoder, task, fold, group, storage, kept)
                    for fold in site.tasks[task].partitions
                ]
                jobs.update({fit: tuple(encodes) for fit in fits})
                jobs[Write(encoder, task, group, storage)] = tuple(fits)
    return jobs


def _together(
    choices: Sequence[str], mixes: Mapping[str, Mix], workers: int
) -> list[tuple[str, ...]]:
    """Which layer choices train in one job: those that are the same probe always do."""
    if workers == 1:
        return [tuple(choices)]
    groups: dict[Mix, list[str]] = {}
    for choice in choices:
        groups.setdefault(mixes[choice], []).append(choice)
    return [tuple(group) for group in groups.values()]


def _frame_layers(
    site: Site, encoder: str, wanted: Mapping[str, Sequence[str]]
) -> tuple[int, ...] | None:
    """The only layers that frames are needed of, None for all."""
    layers = {
        site.mixes(encoder, task)[choice].layer
        for task, choices in wanted.items()
        if site.tasks[task].downstream.card.features == "frames"
        for choice in choices
    }
    chosen = sorted(layer for layer in layers if layer is not None)
    everything = None in layers or len(chosen) == site.encoders[encoder].card.layers
    return None if everything else tuple(chosen) or None


def _settled(site: Site, encoder: str, reserved: int) -> tuple[str, str, int]:
    """Storage instead of ``auto``, the reason for it in words, and the bytes it still takes.

    What results of this command are there already were made with is not changed under way, so that
    the same command again finds them whatever the disk looks like by then.
    """
    asked = site.settings.storage
    if asked != AUTO:
        return asked, f"{asked}, as --storage says", 0
    for storage in PREFERRED:
        if _finished(site, encoder, storage):
            return storage, f"{storage}, as in earlier results", 0
    sizes = dict.fromkeys(preferred(site.settings.device), 0)
    for gain_db in dict.fromkeys(task.training.gain_db for task in site.tasks.values()):
        alike = {
            name: tuple(site.mixes(encoder, name))
            for name, task in site.tasks.items()
            if task.training.gain_db == gain_db
        }
        extraction = site.extraction(
            encoder, alike, PREFERRED[0], gain_db, _frame_layers(site, encoder, alike)
        )
        for storage in sizes:
            settings = replace(extraction.settings, storage=storage)
            sizes[storage] += left_bytes(replace(extraction, settings=settings))
    free = max(0, free_bytes(site.settings.cache_dir) - reserved)
    storage, reason = choose(sizes, free)
    return storage, reason, sizes[storage]


def _require_same_audio(site: Site, task_name: str, found: Sequence[Result]) -> None:
    """Refuse to take results for those of a corpus whose files have changed in place since.

    Where nothing is known of the files any more, as after clearing the cache folder, names and
    sizes have to do.
    """
    task: Task = site.tasks[task_name]
    checkable = [result for result in found if result.corpus.get("audio_sha256")]
    utterances = task.corpus.utterances
    if not checkable or not any_known(utterances, task.cache_dir):
        return
    now = joint_sha256(file_hashes(utterances, task.cache_dir))
    for result in checkable:
        if result.corpus["audio_sha256"] != now:
            path = _path(site.output, result)
            raise SuperbError(
                f"audio files of {task.corpus.name} have changed since {path} was written, though "
                "their sizes have not: it is the score of other audio. Choose another folder with "
                "--output DIR, or delete that file to have it run again"
            )


def _path(output: Path, result: Result) -> Path:
    return result_path(output, result.downstream["name"], result.upstream["name"], result.run_id)
