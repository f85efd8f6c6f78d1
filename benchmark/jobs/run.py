"""The driver: a site and an executor → all results, in order."""

from __future__ import annotations

from pathlib import Path

from benchmark.encoding.cache import TRAINING
from benchmark.encoding.features import Encoded, Extraction, Skipped
from benchmark.jobs.claim import claimed
from benchmark.jobs.cost import PREFERRED, WORTH_A_TABLE, amounts, plan_run, plan_table, size
from benchmark.jobs.executors import Executor
from benchmark.jobs.keep import require_heads
from benchmark.jobs.plan import Encode, Job, Plan, Write, make_plan
from benchmark.jobs.site import Cell, Site
from benchmark.jobs.work import Outcome, Written
from benchmark.probing.snapshot import clear
from benchmark.progress import Progress
from benchmark.scoring.results import Result, clear_partial, result_path


def run_site(site: Site, executor: Executor, progress: Progress) -> list[Result]:
    """Make every result of a site that is not there yet.

    Args:
        site: encoders, tasks, layer choices.
        executor: who does the jobs.
        progress: where to report.

    Returns:
        One result per encoder, task and layer choice, in that order.

    Raises:
        SuperbError: for anything wrong with the input; what was finished is kept.
    """
    plan = make_plan(site, progress, executor.workers)
    if site.save_heads:
        require_heads(site, plan.found, progress)
    _show_big(site, plan, progress)
    skipped: dict[tuple[str, float], list[tuple[int, list[Skipped]]]] = {}
    runs = _runs(site, plan)
    with claimed(site.output, runs):
        clear_partial(site.output, runs)
        if any(path.exists() for path in runs.values()):  # another process has just made them
            plan = make_plan(site, progress, executor.workers)
            if site.save_heads:
                require_heads(site, plan.found, progress)
        results: dict[Cell, Result] = dict(plan.found)
        for result in results.values():  # whoever made them may have been killed before this
            clear(site.settings.cache_dir / TRAINING, result.run_id)
        for job, outcome in executor.run(plan.needs, site, progress):
            if isinstance(job, Encode) and isinstance(outcome, Encoded):
                found = skipped.setdefault((job.encoder, job.gain_db), [])
                found.append((job.share, outcome.skipped))
                if len(found) == job.shares and site.settings.on_bad_audio == "skip":
                    _warn_skipped([item for _, items in sorted(found) for item in items], progress)
            _collect(job, outcome, results, progress)
    return [results[cell] for name in site.encoders for cell in site.cells(name)]


def extractions(site: Site, plan: Plan) -> list[tuple[str, Extraction, str]]:
    """What a plan encodes: by which encoder, what, and why it is kept as it is."""
    return [
        (
            job.encoder,
            site.extraction(job.encoder, dict(job.wanted), job.storage, job.gain_db, job.layers),
            plan.reasons[job.encoder],
        )
        for job in plan.needs
        if isinstance(job, Encode) and job.share == 0
    ]


def _show_big(site: Site, plan: Plan, progress: Progress) -> None:
    """Say what features will cost, where that is much."""
    for _, extraction, reason in extractions(site, plan):
        whole, card = amounts(extraction.wanted), extraction.upstream.card
        big = size(card, whole, PREFERRED[0], extraction.layers) >= WORTH_A_TABLE
        if big and not progress.quiet:
            progress.console.print(plan_table(plan_run(extraction, reason)))


def _runs(site: Site, plan: Plan) -> dict[str, Path]:
    """The runs that a plan makes, and the files of their results."""
    runs = {}
    for job in plan.needs:
        if isinstance(job, Write):
            name = site.encoders[job.encoder].card.name
            for choice in job.choices:
                run_id = site.run_id((job.encoder, job.task, choice), job.storage)
                runs[run_id] = result_path(site.output, job.task, name, run_id)
    return runs


def _warn_skipped(skipped: list[Skipped], progress: Progress) -> None:
    if skipped:
        first = skipped[0]
        progress.warn(
            f"{len(skipped)} audio files left out, listed in the results; the first: "
            f"{first.utterance}: {first.reason}"
        )


def _collect(job: Job, outcome: Outcome, results: dict[Cell, Result], progress: Progress) -> None:
    """Keep a new result, and say what its reader must know."""
    if not (isinstance(job, Write) and isinstance(outcome, Written)):
        return
    for layer, result in outcome.results.items():
        results[job.encoder, job.task, layer] = result
        for warning in result.warnings:
            progress.warn(f"{job.encoder}, {job.task}, {layer}: {warning}")
