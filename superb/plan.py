"""What a run would cost on data that need not be there: the plan from hours and a count alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    from benchmark.encoding.features import ExtractionSettings
    from benchmark.jobs.cost import Amount, Plan, Speeds
    from benchmark.jobs.price import Price, TaskWork
    from benchmark.jobs.site import Encoder
    from benchmark.probing.layers import Mix
    from benchmark.progress import Progress
    from benchmark.protocol import Protocol

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
        heads: of tasks that several can do, as `superb.run` has them; the usual one if empty.
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
    heads: Sequence[str] = ()

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


@dataclass(frozen=True)
class Case:
    """A question whose names have become objects.

    Attributes:
        question: as it was asked.
        encoder: on its device.
        rules: the protocol.
        tasks: those of it, with their values of training.
        mixes: layer choice → mix.
        work: kind of feature → how much audio.
        settings: of features, their storage settled.
        layers: the only layers that frames are kept of, None for all.
        reason: of the storage, in words.
    """

    question: Question
    encoder: Encoder
    rules: Protocol
    tasks: Sequence[TaskWork]
    mixes: Mapping[str, Mix]
    work: Mapping[str, Amount]
    settings: ExtractionSettings
    layers: Sequence[int] | None
    reason: str

    @property
    def mean_s(self) -> float:
        """Seconds of the mean utterance."""
        return self.question.hours * 3600 / self.question.utterances

    def noise(self) -> list[Tensor]:
        """Waveforms as long as that, up to 30 s, and as many as show the encoder's speed."""
        from benchmark.jobs.cost import enough

        count = enough(self.settings.frozen(self.encoder.upstream), self.mean_s)
        return _noise(self.mean_s, self.encoder.card, count)

    def updates(self) -> dict[str, float]:
        """Seconds of an update of one probe of each task whose heads train on features alone."""
        from benchmark.jobs.price import learns_alone, update_seconds

        return {
            task.downstream.card.name: update_seconds(
                task, self.encoder.card, self.mean_s, self.settings.device
            )
            for task in self.tasks
            if learns_alone(task)
        }

    def price(self, speeds: Speeds, updates: Mapping[str, float], nodes: int) -> Price:
        """What all jobs take on some machines."""
        from benchmark.jobs.price import price_run

        return price_run(
            self.encoder.card,
            self.tasks,
            self.mixes,
            self.work,
            self.settings.storage,
            speeds,
            updates,
            nodes=nodes,
            seeds=self.question.seeds,
            layers=self.layers,
            device=self.settings.device,
        )


def load_encoder(name: str, random_weights: bool, device: str, progress: Progress) -> Encoder:
    """An encoder on a device.

    Args:
        name: a name, a folder, or a hub id.
        random_weights: take the architecture alone.
        device: as found by `benchmark.jobs.site.find_device`.
        progress: where notes on it go.
    """
    from benchmark.jobs.site import prepare_encoder
    from upstreams.loading.load import UNTRAINED, load_upstream

    bare = name.removeprefix(UNTRAINED)
    return prepare_encoder(
        load_upstream(UNTRAINED + bare if random_weights else name), device, progress
    )


def resolve(question: Question, progress: Progress, encoder: Encoder | None = None) -> Case:
    """Make objects of the names of a question.

    Args:
        question: what is to be priced.
        progress: where notes on the encoder go.
        encoder: that of the question, where it is loaded already.

    Raises:
        SuperbError: a name is unknown or a value is out of range.
    """
    from benchmark.encoding.cache import cache_folder, free_bytes
    from benchmark.encoding.features import ExtractionSettings
    from benchmark.encoding.packing import STORAGES
    from benchmark.jobs.cost import AUTO, Amount, choose, preferred, size
    from benchmark.jobs.price import TaskWork
    from benchmark.jobs.site import find_device
    from benchmark.probing.layers import expand
    from benchmark.protocol import load_protocol
    from superb.compose import by_heads

    if question.storage not in (AUTO, *STORAGES):
        raise unknown("value of --storage", question.storage, (AUTO, *STORAGES))
    given = list(DOWNSTREAMS) if "all" in question.downstream else list(question.downstream)
    if not given:
        raise SuperbError(f"no task given; choose from {', '.join(DOWNSTREAMS)}, or all")
    rules = load_protocol(question.protocol, PROTOCOLS)
    tasks = {}
    for _, _, task in by_heads(map(load_downstream, given), question.heads):
        card = task.card
        training = rules.training(card.name, card.features, task.training, card.base)
        tasks[card.name] = TaskWork(task, training)
    cache_dir, device = question.cache_dir or cache_folder(), find_device(question.device)
    encoder = encoder or load_encoder(question.upstream, question.random_weights, device, progress)
    layers = encoder.card.layers
    mixes = expand(question.layers, layers)
    amount = Amount(question.utterances, question.hours * 3600)
    work: dict[str, Amount] = {task.downstream.card.features: amount for task in tasks.values()}
    if "mean" in work and any(mix.normalised for mix in mixes.values()):
        work["mean-normalised"] = amount
    chosen = sorted({mix.layer for mix in mixes.values() if mix.layer is not None})
    everything = len(chosen) == layers or any(mix.layer is None for mix in mixes.values())
    kept = None if everything else chosen
    storage, reason = question.storage, f"{question.storage}, as --storage says"
    if storage == AUTO:
        sizes = {way: size(encoder.card, work, way, kept) for way in preferred(device)}
        storage, reason = choose(sizes, free_bytes(cache_dir))
    settings = ExtractionSettings(cache_dir, device, question.precision, storage)
    return Case(question, encoder, rules, list(tasks.values()), mixes, work, settings, kept, reason)


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
    from benchmark.encoding.cache import format_bytes, free_bytes
    from benchmark.jobs.cost import draw_plan, measure

    case = resolve(question, progress)
    settings = case.settings
    passes, cropped = [], []
    for task in case.tasks:
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
    speeds = measure(case.encoder.upstream, case.noise(), settings)
    plan = draw_plan(
        case.encoder.card,
        case.work,
        settings.storage,
        speeds,
        layers=case.layers,
        notes=(
            f"epochs of training by protocol {case.rules.name}, if all of this is train: "
            f"{', '.join(passes)}",
            *cropped,
            f"free: {format_bytes(free_bytes(settings.cache_dir))} in {settings.cache_dir}",
            f"chosen: {case.reason}",
        ),
    )
    if question.nodes is None:
        return plan, None
    progress.note("timing an update of each task's head")
    return plan, case.price(speeds, case.updates(), question.nodes)


def _noise(seconds: float, card: UpstreamCard, count: int) -> list[Tensor]:
    """A few waveforms of that length, which are as much work for an encoder as speech is."""
    import torch

    samples = max(round(min(seconds, _LONGEST_S) * card.sample_rate), card.min_samples)
    generator = torch.Generator().manual_seed(0)
    return list(0.1 * torch.randn(count, samples, generator=generator))
