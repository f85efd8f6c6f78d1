"""What the jobs of a run would take on several machines like this one: hours, bytes, assumptions.

Nothing of the corpus need be there: speeds of the encoder, the disk and the heads are measured
here, on noise, and multiplied.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmark.core import (
    Downstream,
    GivesExamples,
    HiddenStates,
    Prepares,
    UpstreamCard,
    Utterance,
    at_hop,
)
from benchmark.encoding.arithmetic import exact, synchronise
from benchmark.encoding.cache import format_bytes
from benchmark.encoding.packing import NONE
from benchmark.jobs.cost import Amount, Speeds, format_time, size
from benchmark.jobs.site import head_device
from benchmark.probing.fit import Batch, ProbeSpec, available_cores, build_probe, train_probe
from benchmark.probing.layers import Mix
from benchmark.protocol import Training

_WRITE_S = 1.0


@dataclass(frozen=True)
class TaskWork:
    """A task as far as its price goes."""

    downstream: Downstream
    training: Training


@dataclass(frozen=True)
class Line:
    """Jobs of one kind.

    Attributes:
        what: in words.
        jobs: how many.
        each_s: seconds that one takes on one machine.
        written: bytes that all of them write.
        read: bytes that all of them read.
        assumes: what the figures rest on.
    """

    what: str
    jobs: int
    each_s: float
    written: int
    read: int
    assumes: str


@dataclass(frozen=True)
class Price:
    """All jobs of a run, and the hours until the last is done.

    Attributes:
        title: what is run.
        nodes: machines.
        lines: by kind of job.
        wall_s: seconds from the first job to the last.
        notes: what holds for all lines.
    """

    title: str
    nodes: int
    lines: tuple[Line, ...]
    wall_s: float
    notes: tuple[str, ...]


def price_run(
    card: UpstreamCard,
    tasks: Sequence[TaskWork],
    mixes: Mapping[str, Mix],
    work: Mapping[str, Amount],
    storage: str,
    speeds: Speeds,
    updates: Mapping[str, float],
    *,
    nodes: int,
    seeds: int,
    layers: Sequence[int] | None = None,
    device: str = "cpu",
) -> Price:
    """The jobs of one encoder on all of its tasks.

    Args:
        card: of the encoder.
        tasks: what it is probed on, each on audio of this amount.
        mixes: layer choices; those that are equal train once, in one job.
        work: kind of feature → how much audio.
        storage: how features are kept.
        speeds: of this machine.
        updates: name of each task that trains → seconds of an update of one probe.
        nodes: machines like this one, one job each at a time.
        seeds: of the heads.
        layers: the only layers that frames are kept of, None for all.
        device: where encoder and heads compute.
    """
    amount = max(work.values(), key=lambda part: part.audio_s)
    stored = size(card, work, storage, layers)
    encoding_s = encoding_seconds(card, work, storage, speeds, layers)
    lines = [
        Line(
            "encode",
            nodes,
            encoding_s / nodes,
            stored,
            0,
            f"encoder {speeds.encoder:.1f} x real time, shares of equal length",
        )
    ]
    fits: list[float] = []
    choices = len(set(mixes.values()))
    mean_s = amount.audio_s / amount.utterances
    unpriced = [task.downstream.card for task in tasks if not learns_alone(task)]
    for task in tasks:
        if not learns_alone(task):
            continue
        update_s = updates[task.downstream.card.name]
        line = price_fit(
            card,
            task,
            storage,
            speeds,
            update_s,
            mean_s,
            choices=choices,
            seeds=seeds,
            layers=layers,
            device=device,
        )
        lines.append(line)
        fits += [line.each_s] * choices
    lines.append(Line("write results", len(tasks) * choices, _WRITE_S, 0, 0, "a second each"))
    return Price(
        f"{card.name}, {_count(len(tasks), 'task')}, {_count(choices, 'layer choice')}, "
        f"{_count(seeds, 'seed')}",
        nodes,
        tuple(lines),
        encoding_s / nodes + makespan(fits, nodes) + _WRITE_S,
        (
            "every machine is like this one and does one job at a time; all share one disk, whose "
            "speed is that of this one for each of them",
            "all audio passes the encoder once; every task trains on audio of this amount and mean "
            f"length, {mean_s:.1f} s; looks at valid and test, and further folds, are not counted",
            *(
                f"{card.name} learns from the corpus before its heads do, and is not priced"
                if card.trained
                else f"{card.name} trains nothing, and its search is not priced"
                for card in unpriced
            ),
            "heads start when all is encoded; a fit is not split, so beyond "
            f"{len(fits)} machines only encoding gets faster",
        ),
    )


def encoding_seconds(
    card: UpstreamCard,
    work: Mapping[str, Amount],
    storage: str,
    speeds: Speeds,
    layers: Sequence[int] | None = None,
) -> float:
    """How long it takes to encode some audio once and to write what is kept of it.

    Args:
        card: of the encoder.
        work: kind of feature → how much audio; of the kinds that share an utterance, it is one.
        storage: how features are kept.
        speeds: of this machine.
        layers: the only layers that frames are kept of, None for all.
    """
    return max(amount.audio_s for amount in work.values()) / speeds.encoder + sum(
        values / speeds.write[way] for way, values in _values(card, work, storage, layers)
    )


def price_fit(
    card: UpstreamCard,
    task: TaskWork,
    storage: str,
    speeds: Speeds,
    update_s: float,
    mean_s: float,
    *,
    choices: int,
    seeds: int,
    layers: Sequence[int] | None,
    device: str,
) -> Line:
    """Training the heads of a task, a job for each layer choice.

    Args:
        card: of the encoder.
        task: one whose heads train on features alone (`learns_alone`).
        storage: how features are kept.
        speeds: of this machine.
        update_s: seconds of an update of one probe.
        mean_s: seconds of the mean utterance of train.
        choices: layer choices that are not equal.
        seeds: of the heads.
        layers: the only layers that frames are kept of, None for all.
        device: where encoder and heads compute.
    """
    training = task.training
    framed = task.downstream.card.features == "frames"
    heard = training.updates * training.batch_utterances * training.accumulate
    probes = len(training.learning_rates) * seeds
    apart = framed and head_device(task.downstream, device) == "cpu"
    at_once = min(available_cores(), probes) if apart else 1
    each_s = update_s * probe_updates(training) * seeds / at_once
    one = {"frames" if framed else "mean": Amount(1, mean_s)}
    read = size(card, one, storage, layers) * heard * seeds
    note = f"{_brief(update_s)} an update and probe, {_count(at_once, 'probe')} at a time"
    if framed and storage == NONE:
        each_s += heard * seeds * mean_s / speeds.encoder
        note += ", frames encoded anew for every batch"
    elif framed:
        way = sum(values for _, values in _values(card, one, storage, layers))
        each_s += heard * seeds * way / speeds.read[storage]
        note += ", frames read from the disk for every batch"
    return Line(f"fit {task.downstream.card.name}", choices, each_s, 0, read * choices, note)


def learns_alone(task: TaskWork) -> bool:
    """Whether its heads train, and on nothing but features and what the utterances say."""
    return task.downstream.card.trained and not isinstance(task.downstream, Prepares)


def probe_updates(training: Training) -> int:
    """Updates of all learning rates of one layer choice and seed, halving counted."""
    total, alive, before = 0, len(training.learning_rates), 0
    for rung in training.halving:
        total += alive * (rung.update - before)
        alive, before = min(alive, rung.keep), rung.update
    return total + alive * (training.updates - before)


def makespan(seconds: Sequence[float], machines: int) -> float:
    """When the last job ends if the longest is begun first (Graham 1969, LPT)."""
    ends = [0.0] * machines
    for length in sorted(seconds, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + length)
    return max(ends)


def update_seconds(
    task: TaskWork, card: UpstreamCard, seconds: float, device: str = "cpu"
) -> float:
    """Time an update of one probe, on noise as long as the mean utterance.

    On a processor on one core; on a card where the task's heads compute there.
    """
    hop_s = card.hop_samples / card.sample_rate
    training, downstream = task.training, at_hop(task.downstream, hop_s)
    framed = downstream.card.features == "frames"
    frames = max(1, round(seconds * card.sample_rate / card.hop_samples)) if framed else 1
    place = head_device(downstream, device)
    utterances = [made_up(downstream, index, seconds) for index in range(training.batch_utterances)]
    vocabulary = downstream.vocabulary(utterances)
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(utterances), frames, card.dim)
    states = HiddenStates(
        torch.randn(shape, generator=generator).to(place),
        torch.full((len(utterances),), frames, device=place),
    )
    probe = build_probe(
        ProbeSpec(Mix(0), training.learning_rates[0], training.first_seed),
        downstream,
        training,
        layers=1,
        dim=card.dim,
        hop_s=hop_s,
        outputs=len(vocabulary),
        device=place,
    )
    update = [Batch(utterances, states, None)] * training.accumulate
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        count = 1 if framed else 20
        with exact():
            train_probe(probe, [update], vocabulary, training)
            synchronise(place)
            started = time.perf_counter()
            train_probe(probe, [update] * count, vocabulary, training)
            synchronise(place)
        return (time.perf_counter() - started) / count
    finally:
        torch.set_num_threads(before)


class _Anything(dict[str, str]):
    """Columns of a made-up utterance, whatever they are called."""

    def __init__(self, value: str, known: Mapping[str, str]) -> None:
        super().__init__(known)
        self.value = value

    def get(self, key: object, default: object = "") -> str:
        """The same for every column that is not known."""
        return super().get(str(key), self.value)


def made_up(downstream: Downstream, index: int, seconds: float) -> Utterance:
    """An utterance with an answer of the usual length: some 14 characters a second."""
    letters = "the quick brown fox jumps over the lazy dog "
    text = (letters * math.ceil(14 * seconds / len(letters) + 1))[: max(1, round(14 * seconds))]
    label = str(index % 12)
    known = downstream.example(index, seconds) if isinstance(downstream, GivesExamples) else {}
    columns = _Anything(label, known)
    return Utterance(str(index), b"", "train", label, text.strip(), label, None, columns)


def _values(
    card: UpstreamCard, work: Mapping[str, Amount], storage: str, layers: Sequence[int] | None
) -> list[tuple[str, float]]:
    """Storage → values that are written in it."""
    kept = card.layers if layers is None else len(layers)
    values = []
    for kind, amount in work.items():
        if kind != "frames":
            way = "float32" if storage == NONE else storage
            values.append((way, float(amount.utterances * card.layers * card.dim)))
        elif storage != NONE:
            frames = amount.audio_s * card.sample_rate / card.hop_samples
            values.append((storage, frames * kept * card.dim))
    return values


def price_table(price: Price) -> Group:
    """A price for the terminal: title, table, and what the figures rest on."""
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("jobs", no_wrap=True)
    for column in ("", "each", "in all", "writes", "reads"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in price.lines:
        table.add_row(
            escape(line.what),
            str(line.jobs),
            format_time(line.each_s),
            format_time(line.jobs * line.each_s),
            format_bytes(line.written) if line.written else "–",
            format_bytes(line.read) if line.read else "–",
        )
    jobs = sum(line.jobs for line in price.lines)
    total = sum(line.jobs * line.each_s for line in price.lines)
    table.add_row("all", str(jobs), "", format_time(total), "", "", style="bold")
    assumed = [f"{line.what}: {line.assumes}" for line in price.lines]
    return Group(
        Text(f"{price.title}, {price.nodes} machines: {format_time(price.wall_s)}", "bold"),
        table,
        *(Text(f"- {text}", "dim") for text in (*assumed, *price.notes)),
    )


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _brief(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
