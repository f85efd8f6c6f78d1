"""A Ray cluster does the jobs of a plan (extra ``superb[cluster]``).

Every machine must see the feature store and the result folder under the same paths, as a shared
disk gives them. Ray places jobs and sends reports.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from benchmark.errors import SuperbError
from benchmark.jobs.executors import Build, Needs, make_order, share, work_on
from benchmark.jobs.plan import Encode, Fit, Job
from benchmark.jobs.site import Site
from benchmark.jobs.work import Outcome
from benchmark.progress import Progress

if TYPE_CHECKING:
    from types import ModuleType

# Heads over time means and the writing of results leave most of a core to others.
_LIGHT_CORES: Final = 0.5
# No two encoders or trainings over frames share a GPU. What is light need only be where one is.
_HEAVY_GPUS, _LIGHT_GPUS = 0.9, 0.05
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
        except SuperbError:
            raise
        except Exception as error:  # Ray raises all kinds, also bare ones
            raise SuperbError(
                f"no Ray cluster at {address}: {_said(error)[0]}. Start one with "
                "`ray start --head`, and give its address (ray://HOST:10001), or --cluster auto. "
                "If it asks for a token (~/.ray/auth_token of its head node), set "
                "RAY_AUTH_MODE=token"
            ) from error
        found = ray.cluster_resources()
        gpus, cores = int(found.get("GPU", 0)), int(found.get("CPU", 1))
        progress.note(f"cluster: {len(ray.nodes())} machines, {cores} cores, {gpus} GPUs")
        return cls(build, gpus or cores, gpus)

    def run(self, needs: Needs, site: Site, progress: Progress) -> Iterator[tuple[Job, Outcome]]:
        """Do jobs as soon as what they need is done; those of a worker that dies, again."""
        ray = _ray()
        if site.settings.device != "cpu" and not self.gpus:
            raise SuperbError(
                f"--device is {site.settings.device} here, and the cluster has no GPU. Give "
                "--device cpu"
            )
        token = uuid.uuid4().hex
        marks = [folder / f".seen-{token}" for folder in (site.output, site.settings.cache_dir)]
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        order = ray.put(make_order(self.build, site, marks=marks))
        # Ray would do again without end what it killed for want of memory
        sender = ray.remote(max_retries=0)(work_on)
        waiting: dict[Any, Job] = {}
        # last bits depend on threads: as many everywhere, and a core for each where there are
        cores = (int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
        threads = min(torch.get_num_threads(), *cores)

        def begin(job: Job, inputs: list[Any]) -> Any:  # noqa: ANN401 - Ray's own
            resources = _resources(job, site, threads)
            reference = sender.options(**resources).remote(order, job, *inputs)
            waiting[reference] = job
            return reference

        def ended(references: list[Any]) -> Iterator[tuple[Any, bytes | None]]:
            for reference in ray.wait(references, num_returns=1)[0]:
                yield reference, _received(ray, reference, waiting.pop(reference))

        try:
            yield from share(needs, progress, len(needs), begin, ended, ray.put)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            for mark in marks:
                mark.unlink(missing_ok=True)
            ray.shutdown()


def _resources(job: Job, site: Site, threads: int) -> dict[str, float]:
    """What a job takes of its machine: all of them are done where the site's kind of device is."""
    framed = isinstance(job, Fit) and site.tasks[job.task].downstream.card.features == "frames"
    heavy = isinstance(job, Encode) or framed
    cores = {"num_cpus": threads if isinstance(job, Encode) else 1 if heavy else _LIGHT_CORES}
    if site.settings.device == "cpu":
        return cores
    return {**cores, "num_gpus": _HEAVY_GPUS if heavy else _LIGHT_GPUS}


def _received(ray: ModuleType, reference: Any, job: Job) -> bytes | None:  # noqa: ANN401 - Ray's own
    """What a worker sent back; None when it, or its machine, died.

    Raises:
        SuperbError: when the cluster cannot do the job.
    """
    died = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.LocalRayletDiedError,
        ray.exceptions.ObjectLostError,
    )
    try:
        report: bytes = ray.get(reference)
    except died:
        return None
    except ray.exceptions.RayError as error:
        # of an error in a worker the last line says what it was
        what = _said(error)[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0]
        raise SuperbError(f"the cluster could not do job '{job}': {what}") from error
    return report


def _said(error: Exception) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]


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
