"""Who does the jobs of a plan: this process, workers on this machine, or a cluster.

An executor takes a plan and yields each job with its outcome, as they are done. All come to the
same results: jobs are the same wherever they are done.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from benchmark.encoding.store import VISIBLE_S
from benchmark.errors import SuperbError
from benchmark.jobs.plan import Job
from benchmark.jobs.site import Site
from benchmark.jobs.work import Outcome, do
from benchmark.probing.fit import available_cores
from benchmark.progress import Messages, Progress

Needs = Mapping[Job, tuple[Job, ...]]
Build: TypeAlias = Callable[[], Site]
"""Builds the site again, elsewhere; it must be possible to pickle it."""

# A job that takes its worker down this often will do so again.
TRIES: Final = 3


class Executor(Protocol):
    """Does the jobs of a plan."""

    @property
    def workers(self) -> int:
        """How many jobs are done at a time, for whoever makes the plan."""
        ...

    def run(self, needs: Needs, site: Site, progress: Progress) -> Iterator[tuple[Job, Outcome]]:
        """Each job with its outcome, as they are done.

        Raises:
            SuperbError: what a job raises; those that were done have had their effect.
        """
        ...


@dataclass(frozen=True)
class InProcess:
    """Jobs one after another, here; what they have to say is said as it comes."""

    workers: int = 1

    def run(self, needs: Needs, site: Site, progress: Progress) -> Iterator[tuple[Job, Outcome]]:
        """Do every job in the plan's order."""
        outcomes: dict[Job, Outcome] = {}
        for job, inputs in needs.items():
            outcomes[job] = do(job, [outcomes[needed] for needed in inputs], site, progress)
            yield job, outcomes[job]


@dataclass(frozen=True)
class Order:
    """What a worker elsewhere is told.

    Attributes:
        build: makes the site where the worker is.
        token: tells one run from another, so that a worker builds each site once.
        digest: what its site must be equal to (`Site.digest`).
        threads: of the encoder's arithmetic, the same everywhere, so that bits are.
        cores: of the processor, for the heads of one job.
        folder: where the run was started, which relative paths start from.
        marks: files that tell a folder that all machines share from one of the same name.
    """

    build: Build
    token: str
    digest: Mapping[str, str]
    threads: int
    cores: int
    folder: Path
    marks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a worker sends back: the outcome of a job, and what there is to say of it."""

    outcome: Outcome
    warnings: tuple[str, ...]


def work_on(order: Order, job: Job, inputs: list[Any]) -> Report:
    """Do a job where this is called, on a site of its own.

    Raises:
        SuperbError: what the job raises, or because the site here is another one.
    """
    import torch

    site = _site(order)
    torch.set_num_threads(order.threads)
    messages = Messages()
    outcome = do(job, inputs, replace(site, cores=order.cores), messages)
    return Report(outcome, tuple(messages.warnings))


# The site of the run that this process last worked for.
_sites: dict[str, Site] = {}


def _site(order: Order) -> Site:
    if order.token not in _sites:
        _require_visible([order.folder, *order.marks])
        os.chdir(order.folder)
        site = order.build()
        differ = sorted(
            name
            for name in order.digest.keys() | site.digest.keys()
            if order.digest.get(name) != site.digest.get(name)
        )
        if differ:
            raise SuperbError(
                f"a worker sees another {' and another '.join(differ)} than the process that "
                "started the run. Corpora, checkpoints and versions must be the same on all "
                "machines, and so must the kind of device; an upstream of your own whose weights "
                "cannot be hashed needs an attribute `fingerprint`"
            )
        _sites.clear()
        _sites[order.token] = site
    return _sites[order.token]


def _require_visible(places: Sequence[Path]) -> None:
    """Wait for what a network file system may take a while to show.

    Raises:
        SuperbError: this machine does not see what the run needs.
    """
    until = time.monotonic() + VISIBLE_S
    for place in places:
        while not place.exists():
            if time.monotonic() > until:
                folder = place.parent if place.name.startswith(".") else place
                raise SuperbError(
                    f"a worker on {socket.gethostname()} does not see {folder}: all machines must "
                    "share it under one path. Choose others with --output DIR and --cache-dir DIR, "
                    "and start the run in a folder that is shared too"
                )
            time.sleep(0.5)


def make_order(
    build: Build, site: Site, cores: int, what: str, marks: Sequence[Path] = ()
) -> Order:
    """What workers are told, once it is sure that it can be sent.

    Raises:
        SuperbError: when the site is made of objects that cannot be sent.
    """
    import torch

    try:
        sent = pickle.dumps(build)
    except Exception as error:
        raise SuperbError(
            f"what was given as an object cannot be sent to workers ({type(error).__name__}: "
            f"{error}). Name it instead (my_file.py:Name), or leave out {what}"
        ) from error
    token = hashlib.sha256(sent).hexdigest()
    threads, here = torch.get_num_threads(), Path.cwd()
    resolved = tuple(mark.resolve() for mark in marks)
    return Order(build, token, site.digest, threads, cores, here, resolved)


@dataclass(frozen=True)
class LocalWorkers:
    """Processes on this machine, each with a site of its own.

    Attributes:
        build: makes the site in each of them.
        workers: how many.
    """

    build: Build
    workers: int

    def run(self, needs: Needs, site: Site, progress: Progress) -> Iterator[tuple[Job, Outcome]]:
        """Do jobs as soon as what they need is done; those of a worker that dies, again."""
        cores = max(1, available_cores() // self.workers)
        order = make_order(self.build, site, cores, "--workers")
        outcomes: dict[Job, Outcome] = {}
        tries: Counter[Job] = Counter()
        # a pool of one process each: when one breaks, it is known whose job took it down
        pools = [_worker(place, site) for place in range(self.workers)]
        under_way: dict[Future[Report], tuple[Job, int]] = {}
        try:
            with progress.bar(f"jobs of {self.workers} workers", len(needs)) as bar:
                while len(outcomes) < len(needs):
                    busy = dict(under_way.values())
                    free = [place for place in range(self.workers) if place not in busy.values()]
                    for job, place in zip(ready(needs, outcomes, busy), free, strict=False):
                        inputs = [outcomes[needed] for needed in needs[job]]
                        tries[job] += 1
                        with _without_interrupts():  # this is where workers are started
                            future = pools[place].submit(work_on, order, job, inputs)
                        under_way[future] = job, place
                    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        job, place = under_way.pop(future)
                        try:
                            report = future.result()
                        except BrokenProcessPool as error:
                            if tries[job] >= TRIES:
                                raise hopeless(job, tries[job]) from error
                            progress.warn("a worker died; what it was doing is done again")
                            pools[place] = _worker(place, site)
                            continue
                        for text in report.warnings:
                            progress.warn(text)
                        outcomes[job] = report.outcome
                        bar.advance()
                        yield job, report.outcome
        finally:
            for pool in pools:
                _end(pool)


def _worker(place: int, site: Site) -> ProcessPoolExecutor:
    """One process, with a GPU of its own where there are some."""
    gpus = _gpus(site)
    context = multiprocessing.get_context("spawn")
    gpu = place % gpus if gpus else None
    return ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(gpu,))


def ready(needs: Needs, done: Mapping[Job, Outcome], under_way: Collection[Job]) -> list[Job]:
    """The jobs that can be begun: all they need is done, and nobody does them."""
    return [
        job
        for job, inputs in needs.items()
        if job not in done and job not in under_way and all(needed in done for needed in inputs)
    ]


def hopeless(job: Job, tries: int) -> SuperbError:
    """The error for a job whose worker has died too often."""
    return SuperbError(
        f"the worker of job '{job}' died {tries} times. Is there enough memory? Try fewer workers; "
        "the same command again goes on with what is left"
    )


def _gpus(site: Site) -> int:
    import torch

    return torch.cuda.device_count() if site.settings.device == "cuda" else 0


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back: here until the end, and for good in processes that are started meanwhile.

    A terminal sends it to all of them, also to a worker that is still being imported, or has not
    been told all yet.
    """
    held: list[int] = []
    here = threading.current_thread() is threading.main_thread()  # nobody else is interrupted
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if here else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # started ones inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is not None:
            signal.signal(signal.SIGINT, before)
    for number in held:
        signal.raise_signal(number)


def _start(gpu: int | None) -> None:
    """A worker's first acts: end with its driver, even a killed one; see no GPU but its own."""
    threading.Thread(target=_end_with_driver, daemon=True).start()
    if gpu is not None:  # before anything asks for them
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)


def _end_with_driver() -> None:
    """Nobody wants what a worker does any more, and it would wait for more for ever."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _end(pool: ProcessPoolExecutor) -> None:
    """End workers at once: nobody wants what they are doing any more.

    Then wait for the pool, which has no more to do: left alone, it may still be closing its pipes
    when Python exits, and complain.
    """
    for worker in list((getattr(pool, "_processes", None) or {}).values()):
        with suppress(OSError):
            worker.terminate()
    pool.shutdown(cancel_futures=True)
