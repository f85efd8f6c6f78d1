"""A Ray cluster does the jobs of a plan (extra ``superb[cluster]``).

Every machine must see the feature store and the result folder under the same paths, as a shared
disk gives them. Ray places jobs, sends outcomes, and does those of dead workers again.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmark.errors import SuperbError
from benchmark.jobs.executors import (
    TRIES,
    Build,
    Needs,
    Report,
    hopeless,
    make_order,
    ready,
    work_on,
)
from benchmark.jobs.plan import Encode, Fit, Job
from benchmark.jobs.site import Site
from benchmark.jobs.work import Outcome
from benchmark.progress import Progress

if TYPE_CHECKING:
    from types import ModuleType

# Heads over time means and the writing of results leave most of a core to others.
_LIGHT_CORES: Final = 0.5
_CONNECT_S: Final = 10


@dataclass(frozen=True)
class Cluster:
    """Jobs as Ray tasks.

    Attributes:
        build: makes the site where a worker is.
        workers: jobs at a time: GPUs, or cores where there are none.
        gpus: of all machines.
    """

    build: Build
    workers: int
    gpus: int

    @classmethod
    def connect(cls, address: str, build: Build, progress: Progress) -> Cluster:
        """Join a cluster.

        Args:
            address: ``auto`` for the one that this machine belongs to, or a new one of this machine
                alone; ``ray://host:10001`` or ``host:6379`` for another.
            build: makes the site where a worker is.
            progress: where to say what was found.

        Raises:
            SuperbError: Ray is not installed, or nobody answers.
        """
        ray = _ray()
        options = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address == "auto":
                try:
                    ray.init(address="auto", **options)
                except ConnectionError:
                    ray.init(**options, include_dashboard=False)
                    progress.note("no Ray cluster runs here; one was started on this machine alone")
            else:
                _require_listening(address)
                ray.init(address=address, **options)
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            raise SuperbError(
                f"no Ray cluster at {address}: {str(error).splitlines()[0]}. Start one with "
                "`ray start --head`, and give its address (ray://HOST:10001), or --cluster auto"
            ) from error
        found = ray.cluster_resources()
        gpus, cores = int(found.get("GPU", 0)), int(found.get("CPU", 1))
        progress.note(f"cluster: {len(ray.nodes())} machines, {cores} cores, {gpus} GPUs")
        return cls(build, gpus or cores, gpus)

    def run(self, needs: Needs, site: Site, progress: Progress) -> Iterator[tuple[Job, Outcome]]:
        """Do jobs as soon as what they need is done."""
        ray = _ray()
        token = uuid.uuid4().hex
        marks = [folder / f".seen-{token}" for folder in (site.output, site.settings.cache_dir)]
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        order = ray.put(make_order(self.build, site, 1, "--cluster", marks))
        sender = ray.remote(_work_on)
        references: dict[Job, Any] = {}
        waiting: dict[Any, Job] = {}
        outcomes: dict[Job, Outcome] = {}
        try:
            with progress.bar("jobs of the cluster", len(needs)) as bar:
                while len(outcomes) < len(needs):
                    for job in ready(needs, outcomes, waiting.values()):
                        inputs = [references[needed] for needed in needs[job]]
                        # outcomes travel from worker to worker; what is said comes here
                        reference = sender.options(
                            max_retries=TRIES, **self._resources(job, site)
                        ).remote(order, job, *inputs)
                        references[job] = reference
                        waiting[reference] = job
                    done, _ = ray.wait(list(waiting), num_returns=1)
                    for reference in done:
                        job = waiting.pop(reference)
                        report = _received(ray, reference, job)
                        for text in report.warnings:
                            progress.warn(text)
                        outcomes[job] = report.outcome
                        bar.advance()
                        yield job, report.outcome
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            for mark in marks:
                mark.unlink(missing_ok=True)
            ray.shutdown()

    def _resources(self, job: Job, site: Site) -> dict[str, float]:
        """What a job takes of its machine: a GPU or a core, and little for heads on time means."""
        if isinstance(job, Encode):
            return {"num_gpus": 1} if self.gpus else {"num_cpus": 1}
        framed = site.tasks[job.task].downstream.card.features == "frames"
        return {"num_cpus": 1 if isinstance(job, Fit) and framed else _LIGHT_CORES}


def _work_on(order: Any, job: Job, *inputs: Report) -> Report:  # noqa: ANN401 - Ray resolves it
    return work_on(order, job, [report.outcome for report in inputs])


def _received(ray: ModuleType, reference: Any, job: Job) -> Report:  # noqa: ANN401 - Ray's own
    """What a worker sent back.

    Raises:
        SuperbError: what its job raised; or that it has died too often.
    """
    try:
        report: Report = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SuperbError):
            raise error.cause from None
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise hopeless(job, TRIES + 1) from error
    except ray.exceptions.RaySystemError as error:
        raise SuperbError(
            f"the cluster could not do job '{job}': {str(error).splitlines()[0]}"
        ) from error
    return report


def _ray() -> ModuleType:
    # a driver under `uv run` would have every worker build an environment of its own
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise SuperbError(
            "--cluster needs Ray; type: pip install 'superb[cluster]' (in a clone: uv sync --extra "
            "cluster)"
        ) from error
    found: ModuleType = ray
    return found


def _require_listening(address: str) -> None:
    """Find out within seconds that nobody answers; Ray itself asks for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_S):
            return
    except ValueError as error:
        raise SuperbError(
            f"--cluster takes auto, ray://HOST:10001 or HOST:6379; got {address!r}"
        ) from error
    except OSError as error:
        raise ConnectionError(f"nobody answers ({error.strerror or error})") from error
