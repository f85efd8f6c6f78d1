"""Who does the jobs of a plan: this process, workers on this machine, or a cluster.

An executor takes a plan and yields each job with its outcome, as they are done. All come to the
same results: jobs are the same wherever they are done.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

import torch

from benchmark.encoding.store import VISIBLE_S
from benchmark.errors import SuperbError
from benchmark.jobs.plan import Job
from benchmark.jobs.site import Site
from benchmark.jobs.work import Outcome, do
from benchmark.probing.fit import available_cores
from benchmark.progress import Messages, Progress

T = TypeVar("T")
U = TypeVar("U")

Needs = Mapping[Job, tuple[Job, ...]]


class Build(Protocol):
    """Builds the site again, elsewhere; it must be possible to pickle it."""

    def __call__(self, *, places: Mapping[str, int]) -> Site:
        """The same site, whose encoders are loaded when jobs ask for them; see `Encoder.place`."""
        ...


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
        try:
            for job, inputs in needs.items():
                outcomes[job] = do(job, [outcomes[needed] for needed in inputs], site, progress)
                yield job, outcomes[job]
        finally:
            site.courses.close(progress)


@dataclass(frozen=True)
class Order:
    """What a worker elsewhere is told.

    Attributes:
        build: pickled, makes the site where the worker is, given `places`.
        places: encoder → its place among the upstreams that were asked for.
        token: tells one run from another, so that a worker builds each site once.
        digests: encoder → what the site of it alone must be equal to (`Site.digest`).
        threads: of the encoder's arithmetic, the same everywhere, as last bits depend on them.
        cores: of the processor, for the heads of one job.
        folder: where the run was started, which relative paths start from.
        marks: files that tell a folder that all machines share from one of the same name.
    """

    build: bytes
    places: Mapping[str, int]
    token: str
    digests: Mapping[str, Mapping[str, str]]
    threads: int
    cores: int
    folder: Path
    marks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a worker sends back: what came of a job, and what there is to say of it."""

    outcome: Outcome | Exception
    warnings: tuple[str, ...]


def work_on(order: Order, job: Job, *inputs: bytes) -> bytes:
    """Do a job where this is called, on a site of its own.

    What travels is pickled here and not by those who carry it: what they cannot read takes a whole
    worker down, and classes of a file of one's own can be read only once that is loaded.

    Args:
        order: of the run.
        job: what to do.
        inputs: reports on the jobs that it needs, in the plan's order.

    Returns:
        A pickled `Report`, also of an error; of one that is no `SuperbError`, as text.
    """
    messages = Messages()
    torch.set_num_threads(order.threads)
    try:
        site = _site(order, job.encoder)
        found = [pickle.loads(report).outcome for report in inputs]
        try:
            outcome = do(job, found, replace(site, cores=order.cores), messages)
        finally:  # the next job of a result may be another worker's, and this one is just ended
            site.courses.close(messages)
        return pickle.dumps(Report(outcome, tuple(messages.warnings)))
    except SuperbError as error:
        failure: Exception = error
    except Exception:
        failure = RuntimeError(f"job '{job}' failed in a worker:\n{traceback.format_exc()}")
    return pickle.dumps(Report(failure, tuple(messages.warnings)))


# Of the run that this process last worked for: its site under "", and the sites of encoders.
_sites: dict[str, dict[str, Site]] = {}


def _site(order: Order, encoder: str) -> Site:
    """The site as far as jobs of one encoder need it, made sure to be the driver's."""
    if order.token not in _sites:
        _require_visible([order.folder, *order.marks])
        os.chdir(order.folder)
        try:
            build = pickle.loads(order.build)
        except Exception as error:
            raise _not_sent(error) from error
        _sites.clear()
        _sites[order.token] = {"": build(places=order.places)}
    found = _sites[order.token]
    if encoder not in found:
        site = replace(found[""], encoders={encoder: found[""].encoders[encoder]})
        here, there = site.digest, order.digests[encoder]
        differ = sorted(name for name in here.keys() | there if here.get(name) != there.get(name))
        if differ:
            raise SuperbError(
                f"a worker sees another {' and another '.join(differ)} than the process that "
                "started the run. Corpora, checkpoints and versions must be the same on all "
                "machines, and so must the kind of device; an upstream of your own whose weights "
                "cannot be hashed needs an attribute `fingerprint`"
            )
        found[encoder] = site
    return found[encoder]


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


def make_order(build: Build, site: Site, cores: int = 1, marks: Sequence[Path] = ()) -> Order:
    """What workers are told, once it is sure that it can be sent.

    Raises:
        SuperbError: when the site is made of objects that cannot be sent.
    """
    try:
        sent = pickle.dumps(build)
    except Exception as error:
        raise _not_sent(error) from error
    return Order(
        build=sent,
        places={name: encoder.place for name, encoder in site.encoders.items()},
        token=uuid.uuid4().hex,
        digests={
            name: replace(site, encoders={name: encoder}).digest
            for name, encoder in site.encoders.items()
        },
        threads=torch.get_num_threads(),
        cores=cores,
        folder=Path.cwd(),
        marks=tuple(mark.resolve() for mark in marks),
    )


def _not_sent(error: Exception) -> SuperbError:
    return SuperbError(
        f"what was given as an object cannot be sent to workers ({type(error).__name__}: {error}). "
        "Name it instead (my_file.py:Name), or leave out --workers or --cluster"
    )


def share(
    needs: Needs,
    progress: Progress,
    most: int,
    begin: Callable[[Job, list[T]], U],
    ended: Callable[[list[U]], Iterator[tuple[U, bytes | None]]],
    keep: Callable[[bytes], T],
) -> Iterator[tuple[Job, Outcome]]:
    """Have jobs done as soon as what they need is done; those of a worker that dies, again.

    Args:
        needs: the jobs.
        progress: where to report.
        most: how many may be under way.
        begin: has a job begun that needs some reports, and gives a ticket.
        ended: waits for one or more of some tickets, and gives their reports; None of a worker
            that died.
        keep: what `begin` is to be given of a report.

    Raises:
        SuperbError: what a job raises, or because it has taken its worker down too often.
    """
    reports: dict[Job, T] = {}
    tries: Counter[Job] = Counter()
    under_way: dict[U, Job] = {}
    with progress.bar("jobs of workers", len(needs)) as bar:
        while len(reports) < len(needs):
            for job in ready(needs, reports, under_way.values())[: most - len(under_way)]:
                tries[job] += 1
                under_way[begin(job, [reports[needed] for needed in needs[job]])] = job
            for ticket, sent in ended(list(under_way)):
                job = under_way.pop(ticket)
                if sent is None:
                    if tries[job] >= TRIES:
                        raise SuperbError(
                            f"the worker of job '{job}' died {TRIES} times. Is there enough "
                            "memory? Try fewer workers; the same command again goes on with what "
                            "is left"
                        )
                    progress.warn("a worker died; what it was doing is done again")
                    continue
                report: Report = pickle.loads(sent)
                for text in report.warnings:
                    progress.warn(text)
                if isinstance(report.outcome, Exception):
                    raise report.outcome
                reports[job] = keep(sent)
                bar.advance()
                yield job, report.outcome


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
        order = make_order(self.build, site, max(1, available_cores() // self.workers))
        # a pool of one process each: when one breaks, it is known whose job took it down
        pools = [_worker(place, site) for place in range(self.workers)]
        busy: dict[Future[bytes], int] = {}

        def begin(job: Job, inputs: list[bytes]) -> Future[bytes]:
            place = min(set(range(self.workers)) - set(busy.values()))
            with _without_interrupts():  # this is where workers are started
                try:
                    future = pools[place].submit(work_on, order, job, *inputs)
                except BrokenProcessPool:  # it died when it had nothing to do
                    pools[place] = _worker(place, site)
                    future = pools[place].submit(work_on, order, job, *inputs)
            busy[future] = place
            return future

        def ended(futures: list[Future[bytes]]) -> Iterator[tuple[Future[bytes], bytes | None]]:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                place, sent = busy.pop(future), None
                try:
                    sent = future.result()
                except BrokenProcessPool:
                    pools[place] = _worker(place, site)
                yield future, sent

        try:
            yield from share(needs, progress, self.workers, begin, ended, lambda report: report)
        finally:
            for pool in pools:
                _end(pool)


def _worker(place: int, site: Site) -> ProcessPoolExecutor:
    """One process, with a GPU of its own where there are some."""
    gpus = _gpus(site)
    context = multiprocessing.get_context("spawn")
    gpu = place % gpus if gpus else None
    return ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(gpu,))


def ready(needs: Needs, done: Collection[Job], under_way: Collection[Job]) -> list[Job]:
    """The jobs that can be begun: all they need is done, and nobody does them."""
    return [
        job
        for job, inputs in needs.items()
        if job not in done and job not in under_way and all(needed in done for needed in inputs)
    ]


def _gpus(site: Site) -> int:
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
    """A worker's first acts: end with its driver, even a killed one; see no GPU but its own.

    Args:
        gpu: its place among those that the run may use, which may be some of the machine's.
    """
    threading.Thread(target=_end_with_driver, daemon=True).start()
    if gpu is not None:  # before anything asks for them
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = given.split(",")[gpu].strip() if given else str(gpu)


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
