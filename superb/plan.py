"""What a run would cost on data that need not be there: the plan from hours and a count alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core import UpstreamCard
from benchmark.encoding.arithmetic import PRECISIONS
from benchmark.errors import SuperbError, unknown
from downstreams import DOWNSTREAMS, PROTOCOLS
from downstreams.load import load_downstream

if TYPE_CHECKING:  # at run time these modules import torch, so they wait until one is needed
    from torch import Tensor

    from benchmark.jobs.cost import Plan
    from benchmark.jobs.price import Price
    from benchmark.progress import Progress

_TIMED = 4
_LONGEST_S = 30.0


@dataclass(frozen=True)
class Question:
    """What is to be priced.

    Attributes:
        upstream: a name, a folder, or a hub id.
        downstream: names of tasks, or whatever else `superb.load_downstream` takes.
        hours: of audio, all splits together.
        utterances: how many.
        protocol: a name, or a TOML file; says how often the training data are gone through.
        layers: layer choices.
        storage: one of `benchmark.encoding.packing.STORAGES`, or ``auto``.
        cache_dir: the folder of features, whose disk is timed; the usual one if None.
        device: where the encoder runs.
        precision: its arithmetic.
        random_weights: take the architecture alone, no checkpoint is needed.
        nodes: machines that share the jobs; None for the ways to keep features alone.
        seeds: of the heads.
    """

    upstream: str
    downstream: Sequence[str]
    hours: float
    utterances: int
    protocol: str = "superb"
    layers: Sequence[str] = ("last", "weighted-sum")
    storage: str = "auto"
    cache_dir: Path | None = None
    device: str = "auto"
    precision: str = "float32"
    random_weights: bool = False
    nodes: int | None = None
    seeds: int = 1

    def __post_init__(self) -> None:
        if not (self.hours > 0 and self.utterances > 0 and self.hours < float("inf")):
            raise SuperbError(
                "--hours and --utterances must be positive, such as 100.6 and 28539; got "
                f"{self.hours:g} and {self.utterances}"
            )
        if self.precision not in PRECISIONS:
            raise unknown("value of --precision", self.precision, PRECISIONS)
        for name, value in (("nodes", self.nodes), ("seeds", self.seeds)):
            if value is not None and value < 1:
                raise SuperbError(f"--{name} must be at least 1, got {value}")


def plan_for(question: Question, progress: Progress) -> tuple[Plan, Price | None]:
    """The ways to keep the features of a corpus, and what all jobs take on several machines.

    Everything is timed here, on noise as long as the corpus's mean utterance, up to 30 s. Nothing
    is stored.

    Args:
        question: what is to be priced.
        progress: where to report.

    Returns:
        The plan of features, and the price of all jobs where `Question.nodes` asks for it.

    Raises:
        SuperbError: a name is unknown or a value is out of range.
    """
    from benchmark.encoding.cache import cache_folder, format_bytes, free_bytes
    from benchmark.encoding.features import ExtractionSettings
    from benchmark.encoding.packing import STORAGES
    from benchmark.jobs.cost import AUTO, PREFERRED, Amount, choose, draw_plan, measure, size
    from benchmark.jobs.price import TaskWork, price_run
    from benchmark.jobs.site import find_device, prepare_encoder
    from benchmark.probing.layers import expand
    from benchmark.protocol import load_protocol
    from upstreams.loading.load import UNTRAINED, load_upstream

    if question.storage not in (AUTO, *STORAGES):
        raise unknown("value of --storage", question.storage, (AUTO, *STORAGES))
    given = list(DOWNSTREAMS) if "all" in question.downstream else list(question.downstream)
    if not given:
        raise SuperbError(f"no task given; choose from {', '.join(DOWNSTREAMS)}, or all")
    rules = load_protocol(question.protocol, PROTOCOLS)
    tasks = [
        TaskWork(task, rules.training(task.card.name, task.card.features, task.training))
        for task in {task.card.name: task for task in map(load_downstream, given)}.values()
    ]
    settings = ExtractionSettings(
        question.cache_dir or cache_folder(),
        find_device(question.device),
        question.precision,
        question.storage,
    )
    bare = question.upstream.removeprefix(UNTRAINED)
    name = UNTRAINED + bare if question.random_weights else question.upstream
    encoder = prepare_encoder(load_upstream(name), settings.device, progress)
    card = encoder.card
    mixes = expand(question.layers, card.layers)
    amount = Amount(question.utterances, question.hours * 3600)
    kinds = dict.fromkeys(task.downstream.card.features for task in tasks)
    work: dict[str, Amount] = dict.fromkeys(kinds, amount)
    if "mean" in work and any(mix.normalised for mix in mixes.values()):
        work["mean-normalised"] = amount
    chosen = sorted({mix.layer for mix in mixes.values() if mix.layer is not None})
    everything = len(chosen) == card.layers or any(mix.layer is None for mix in mixes.values())
    kept = None if everything else chosen
    free = free_bytes(settings.cache_dir)
    storage, reason = question.storage, f"{question.storage}, as --storage says"
    if storage == AUTO:
        storage, reason = choose({way: size(card, work, way, kept) for way in PREFERRED}, free)
    passes, cropped = [], []
    for task in tasks:
        label, training = task.downstream.card.name, task.training
        if training.crop_s:
            cropped.append(
                f"{label} hears {training.crops} crops of {training.crop_s:g} s of each longer "
                f"training utterance: up to {training.crops} times the audio counted here"
            )
        if not task.downstream.card.trained:
            continue
        heard = training.updates * training.batch_utterances * training.accumulate
        passes.append(f"{label} {heard / question.utterances:.1f}")
    noise = _noise(amount.audio_s / question.utterances, card)
    speeds = measure(encoder.upstream, noise, settings)
    plan = draw_plan(
        card,
        work,
        storage,
        speeds,
        layers=kept,
        notes=(
            f"epochs of training by protocol {rules.name}, if all of this is train: "
            f"{', '.join(passes)}",
            *cropped,
            f"free: {format_bytes(free)} in {settings.cache_dir}",
            f"chosen: {reason}",
        ),
    )
    if question.nodes is None:
        return plan, None
    progress.note("timing an update of each task's head")
    return plan, price_run(
        card,
        tasks,
        mixes,
        work,
        storage,
        speeds,
        nodes=question.nodes,
        seeds=question.seeds,
        layers=kept,
    )


def _noise(seconds: float, card: UpstreamCard) -> list[Tensor]:
    """A few waveforms of that length, which are as much work for an encoder as speech is."""
    import torch

    samples = max(round(min(seconds, _LONGEST_S) * card.sample_rate), card.min_samples)
    generator = torch.Generator().manual_seed(0)
    return list(0.1 * torch.randn(_TIMED, samples, generator=generator))
