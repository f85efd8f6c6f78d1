"""The course of training as TensorBoard reads it: a run per probe, a point per look at valid."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from benchmark.probing.fit import Look, Probe
    from benchmark.probing.layers import Mix


class Logs:
    """Writes the looks of probes; to be passed to `benchmark.probing.fit.fit` as its listener.

    Args:
        folder: ``<folder>/<task>/<upstream>/<mix>, <rate>, seed <n>`` holds what one probe showed.
        task: name of the task.
        upstream: name of the encoder.
        metric: what the task's valid score is called.
        resources: closes the files when its owner is done.
    """

    def __init__(
        self, folder: Path, task: str, upstream: str, metric: str, resources: ExitStack
    ) -> None:
        self._folder = folder / task / quote(upstream, safe=" @:+-_")
        self._metric = metric
        self._resources = resources
        self._writers: dict[int, SummaryWriter] = {}

    def __call__(self, probe: Probe, look: Look) -> None:
        """Write one look."""
        writer = self._writers.get(id(probe)) or self._open(probe)
        writer.add_scalar("train/loss", look.train_loss, look.update)
        writer.add_scalar("valid/loss", look.valid_loss, look.update)
        writer.add_scalar(f"valid/{self._metric}", look.valid, look.update)

    def _open(self, probe: Probe) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        spec = probe.spec
        name = f"{_name(spec.mix)}, {spec.learning_rate:g}, seed {spec.seed}"
        # what a run that was cut off wrote after its state was saved comes again
        writer = SummaryWriter(str(self._folder / name), purge_step=probe.updates)
        self._writers[id(probe)] = writer
        self._resources.callback(writer.close)
        return writer


def _name(mix: Mix) -> str:
    what = "weighted-sum" if mix.layer is None else f"layer {mix.layer}"
    return f"{what}-norm" if mix.normalised else what
