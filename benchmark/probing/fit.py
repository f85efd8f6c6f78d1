"""Many light heads in one pass over stored features.

A probe is a layer mix and a head with one learning rate and one seed. A seed draws all that is
random: initial weights and dropout, the order of the data, masks, which crop comes first. Probes of
one seed share its batches and nothing else: each has its own optimiser, its own gradient clipping
and its own random generator, so training it beside others gives, bit for bit, what training it
alone gives. (The idea of fitting a grid of linear heads in one pass is that of Oquab et al. 2023,
"DINOv2".)
"""

from __future__ import annotations

import copy
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core import Downstream, HiddenStates, Metric, Record, Utterance
from benchmark.encoding.forward import normalise
from benchmark.encoding.store import FeatureStore
from benchmark.metrics import score
from benchmark.probing.augment import spec_augment
from benchmark.probing.batching import evaluation_batches, training_batches
from benchmark.probing.layers import LayerMix, Mix
from benchmark.probing.snapshot import Snapshot
from benchmark.progress import Progress
from benchmark.protocol import Training

_BLOCK_BYTES = 256 * 2**20
KEEP_BYTES = 512 * 2**20
# Utterances that are read at a time where no batch of training says how many.
_READ_AT_ONCE = 16
_AUGMENT_SEED = 20190418  # any constant

Each = Callable[[Callable[["Probe"], None], Sequence["Probe"]], None]
Status = Literal["training", "finished", "dropped", "failed"]


@dataclass(frozen=True)
class Batch:
    """Hidden states of some utterances, as they are and layer-normalised (when a probe asks)."""

    utterances: list[Utterance]
    plain: HiddenStates
    normalised: HiddenStates | None


class SplitData:
    """The stored features of one split, read batch by batch.

    Time means are served as sequences of one frame, so that one head serves both. A fixed budget of
    memory keeps what was read first; the rest is read again every time.

    Args:
        utterances: the split, in corpus order.
        keys: utterance id → hash of its audio.
        stores: kind of feature → store; ``frames``, or ``mean`` and perhaps ``mean-normalised``.
        device: where batches go.
        keep_bytes: the budget; `KEEP_BYTES` if None.
        anew: makes frames of some keys, where none are stored: tensors wherever it computes, of
            which nothing is copied to the processor on the way to a head on the same device.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        keys: Mapping[str, str],
        stores: Mapping[str, FeatureStore],
        device: str = "cpu",
        keep_bytes: int | None = None,
        anew: Callable[[Sequence[str]], list[Tensor]] | None = None,
    ) -> None:
        self.utterances = list(utterances)
        self.keys = [keys[utterance.id] for utterance in utterances]
        self._stores, self._anew = stores, anew
        self.device = device
        self._kind = "frames" if "frames" in stores else "mean"
        self._kept: dict[tuple[str, str], Tensor] = {}
        self._room = KEEP_BYTES if keep_bytes is None else keep_bytes
        store = stores[self._kind]
        shapes = store.shapes(self.keys)
        framed = self._kind == "frames"
        self.lengths = [shapes[key][1] if framed else 1 for key in self.keys]
        self.layers, self.dim = shapes[self.keys[0]][0], shapes[self.keys[0]][-1]
        self._norms = store.layer_norms(self.keys)
        self._kept_layers: list[int] | None = store.about.get("layers")

    def placed(self, mix: Mix) -> Mix:
        """The mix by the layers that are stored, which may be some only."""
        if self._kept_layers is None or mix.layer is None:
            return mix
        return replace(mix, layer=self._kept_layers.index(mix.layer))

    def frame_size(self, mix: Mix) -> float:
        """Root mean square of a frame's values in the layers of a mix."""
        if mix.normalised:
            return 1.0
        norms = self._norms if mix.layer is None else [self._norms[mix.layer]]
        return float(sum(norms) / len(norms) / self.dim**0.5)

    def batch(self, indices: Sequence[int], normalised: bool) -> Batch:
        """Read one batch; `normalised` asks for the layer-normalised states too."""
        plain = self._states(indices, self._kind)
        extra = None
        if normalised and self._kind == "frames":
            extra = HiddenStates(normalise(plain.values), plain.lengths)
        elif normalised:
            extra = self._states(indices, "mean-normalised")
        return Batch([self.utterances[index] for index in indices], plain, extra)

    def layer(self, index: int) -> list[Tensor]:
        """The frames ``[frame, dim]`` of each utterance in one layer, by the layers stored."""
        found: dict[int, Tensor] = {}
        for places in evaluation_batches(self.lengths, _READ_AT_ONCE):
            own = self._read([self.keys[place] for place in places], self._kind)
            for place, values in zip(places, own, strict=True):
                found[place] = values[index].to(self.device, copy=True)
        return [found[place] for place in range(len(self.keys))]

    def _states(self, indices: Sequence[int], kind: str) -> HiddenStates:
        arrays = self._read([self.keys[index] for index in indices], kind)
        if kind != "frames":
            values = torch.stack(arrays, dim=1).unsqueeze(2)
        else:
            longest = max(array.shape[1] for array in arrays)
            values = arrays[0].new_zeros(self.layers, len(arrays), longest, self.dim)
            for place, array in enumerate(arrays):
                values[:, place, : array.shape[1]] = array
        lengths = torch.tensor([self.lengths[index] for index in indices])
        return HiddenStates(values.to(self.device), lengths.to(self.device))

    def _read(self, keys: Sequence[str], kind: str) -> list[Tensor]:
        lacking = [key for key in dict.fromkeys(keys) if (key, kind) not in self._kept]
        anew = self._anew if kind == "frames" else None
        if anew is None:
            found = list(map(torch.from_numpy, self._stores[kind].read_all(lacking)))
        else:
            found = anew(lacking)
        read = dict(zip(lacking, found, strict=True))
        for key, tensor in read.items():
            size = tensor.numel() * tensor.element_size()
            if size <= self._room:
                self._room -= size
                # a view would keep all that was encoded with it
                self._kept[key, kind] = tensor if anew is None else tensor.clone()
        return [read[key] if key in read else self._kept[key, kind] for key in keys]


@dataclass(frozen=True)
class ProbeSpec:
    """What tells one probe from another."""

    mix: Mix
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Look:
    """What a probe showed when valid was looked at.

    Attributes:
        update: updates so far.
        train_loss: mean training loss since the last look.
        valid: the task's first metric on valid, in percent.
        valid_loss: mean loss on valid.
    """

    update: int
    train_loss: float
    valid: float
    valid_loss: float


@dataclass
class Probe:
    """A layer mix and a head in training.

    Attributes:
        spec: mix, learning rate and seed.
        downstream: what it learns.
        mix: the layer mix.
        head: the head.
        status: ``training`` until it is finished, dropped (behind) or failed (not finite).
        reason: why it was dropped or failed.
        updates: updates made.
        looks: its history on valid.
        best: the look whose weights are kept.
        generator: of its dropout.
        half: whether the head computes in bfloat16 where that is safe (autocast).
    """

    spec: ProbeSpec
    downstream: Downstream
    mix: LayerMix
    head: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator = field(default_factory=torch.Generator)
    half: bool = False
    status: Status = "training"
    reason: str = ""
    updates: int = 0
    looks: list[Look] = field(default_factory=list)
    best: Look | None = None
    _losses: list[float] = field(default_factory=list)
    _best_state: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def modules(self) -> tuple[LayerMix, nn.Module]:
        """Everything that learns."""
        return self.mix, self.head

    def parameters(self) -> list[nn.Parameter]:
        """All weights of this probe."""
        return [parameter for module in self.modules for parameter in module.parameters()]

    def answer(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and their lengths."""
        states = batch.normalised if self.spec.mix.normalised else batch.plain
        assert states is not None
        return logits_of(self.mix, self.head, states, self.half)

    def keep(self, look: Look) -> None:
        """Remember these weights as the best so far."""
        self.best = look
        self._best_state = [
            {name: value.detach().clone() for name, value in module.state_dict().items()}
            for module in self.modules
        ]

    def restore(self) -> None:
        """Go back to the best weights."""
        for module, state in zip(self.modules, self._best_state, strict=True):
            module.load_state_dict(state)

    def fail(self, reason: str) -> None:
        """Mark as failed; the others go on."""
        self.status, self.reason = "failed", reason

    def state(self) -> dict[str, Any]:
        """All that it takes to go on from here: tensors, numbers and text."""
        return {
            "spec": asdict(self.spec),
            "modules": [module.state_dict() for module in self.modules],
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "status": self.status,
            "reason": self.reason,
            "updates": self.updates,
            "looks": [asdict(look) for look in self.looks],
            "best": None if self.best is None else asdict(self.best),
            "losses": list(self._losses),
            "best_state": self._best_state,
        }

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Take a state over.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: it is not a state of this probe.
        """
        if state["spec"] != asdict(self.spec):
            raise ValueError("the state of another probe")
        for module, values in zip(self.modules, state["modules"], strict=True):
            module.load_state_dict(values)
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.status, self.reason = state["status"], state["reason"]
        self.updates = state["updates"]
        self.looks = [Look(**look) for look in state["looks"]]
        self.best = None if state["best"] is None else Look(**state["best"])
        self._losses = list(state["losses"])
        self._best_state = state["best_state"]


def logits_of(
    mix: LayerMix, head: nn.Module, states: HiddenStates, half: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits and their lengths, of states that are normalised already if the mix wants that.

    `half` has the head compute in bfloat16 where that is safe (autocast).
    """
    frames = mix(states)
    halved = torch.autocast(frames.device.type, torch.bfloat16) if half else nullcontext()
    with halved:
        logits, lengths = head(frames, states.lengths)
    # a head may give more than logits, if its task knows what to do with it
    return logits.float() if isinstance(logits, Tensor) else logits, lengths


def build_head(
    downstream: Downstream,
    settings: Mapping[str, Any],
    seed: int,
    *,
    dim: int,
    hop_s: float,
    outputs: int,
    device: str = "cpu",
) -> tuple[nn.Module, torch.Generator]:
    """A fresh head, and the generator of its dropout. Its weights depend on its seed alone."""
    generator = torch.Generator(device).manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = downstream.head(dim, hop_s, outputs, settings, generator).to(device)
    return head, generator


def build_probe(
    spec: ProbeSpec,
    downstream: Downstream,
    training: Training,
    *,
    layers: int,
    dim: int,
    hop_s: float,
    outputs: int,
    scaling: tuple[Tensor, Tensor] | None = None,
    device: str = "cpu",
    placed: Mix | None = None,
) -> Probe:
    """A fresh probe. Its initial weights depend on its seed alone, never on its neighbours.

    `placed` is its mix by the layers that are stored, where those are not all (`SplitData.placed`).
    """
    head, generator = build_head(
        downstream, training.head, spec.seed, dim=dim, hop_s=hop_s, outputs=outputs, device=device
    )
    mix = LayerMix(placed or spec.mix, layers, scaling).to(device)
    parameters = [*mix.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=spec.learning_rate, fused=True)
    half = training.head_precision == "bfloat16"
    return Probe(spec, downstream, mix, head, optimizer, generator, half)


def standardisation(
    data: SplitData, mix: Mix, sample: int = 512, told: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Shift and scale that give the mix, as it starts out, mean 0 and mean variance 1.

    One scale serves all dimensions: scaling each by itself would make the head learn as fast from
    dimensions that hardly vary as from those that do, which measurably overfits.

    Args:
        data: the train split; `sample` utterances, evenly spread over it, are looked at.
        mix: the mix, with its initial weights.
        told: the utterances that may be looked at; all if None.

    Returns:
        ``(shift [dim], scale [])``. What varies less than a thousandth of the size of a frame is
        taken for rounding, and is not scaled up to signal.
    """
    places = range(len(data.utterances)) if told is None else told
    step = -(-len(places) // sample)
    looked = places[::step]
    start = LayerMix(data.placed(mix), data.layers).to(data.device)
    count, total = 0, torch.zeros(data.dim, dtype=torch.float64, device=data.device)
    squares = torch.zeros_like(total)
    with torch.no_grad():
        for first in range(0, len(looked), _READ_AT_ONCE):
            batch = data.batch(looked[first : first + _READ_AT_ONCE], mix.normalised)
            states = batch.normalised if mix.normalised else batch.plain
            assert states is not None
            for row, length in enumerate(states.lengths.tolist()):
                alone = HiddenStates(
                    states.values[:, [row], :length], states.lengths[row : row + 1]
                )
                frames = start(alone)[0].double()
                count += length
                total, squares = total + frames.sum(0), squares + (frames**2).sum(0)
    mean = total / count
    spread = (squares / count - mean**2).clamp(min=0).mean().sqrt()
    scale = 1 / spread.clamp(min=max(1e-3 * data.frame_size(mix), 1e-12))
    return mean.float().to(data.device), scale.float().to(data.device)


def fit(
    probes: Sequence[Probe],
    train: SplitData,
    valid: SplitData,
    vocabulary: Sequence[str],
    training: Training,
    progress: Progress,
    title: str = "training",
    *,
    takes: Callable[[int], Sequence[Sequence[int]]] | None = None,
    snapshot: Snapshot | None = None,
    listen: Callable[[Probe, Look], None] | None = None,
    cores: int | None = None,
) -> None:
    """Train all probes in one pass over the batches; afterwards each holds its best weights.

    Selection looks at valid only: after every `training.evaluate_every` updates the task's first
    metric is taken there, and the best weights are kept (`training.select_by` says what is best).

    Args:
        probes: fresh ones, of one task.
        train: what they learn from.
        valid: what they are chosen on.
        vocabulary: the task's output symbols.
        training: the protocol's values.
        progress: where to report.
        title: of the progress bar.
        takes: for each rerun, from 0, the utterances that it trains on, each as the indices of its
            takes in `train` (crops, say): an epoch visits one of them, the next epoch the next.
            None: all, with one take each.
        snapshot: where to save the state now and then, and to go on from.
        listen: called with every look at valid.
        cores: of the processor, to train probes side by side on; all of them if None.
    """
    card = probes[0].downstream.card
    metric = card.metric
    normalised = any(probe.spec.mix.normalised for probe in probes)
    streams = {
        seed: Stream(seed, train, training, takes, normalised)
        for seed in sorted({probe.spec.seed for probe in probes})
    }
    update = 0 if snapshot is None else _go_on(probes, streams, snapshot)

    def step(blocks: Mapping[int, list[list[Batch]]], probe: Probe) -> None:
        train_probe(probe, blocks[probe.spec.seed], vocabulary, training)

    def save() -> None:
        if snapshot is not None and snapshot.due:
            snapshot.save(
                {
                    "update": update,
                    "masks": {seed: stream.masks.get_state() for seed, stream in streams.items()},
                    "probes": [probe.state() for probe in probes],
                }
            )

    parallel = card.features == "frames" and train.device == "cpu"
    with _in_parallel(parallel, cores) as each, progress.bar(title, training.updates) as bar:
        if update:
            progress.note(f"{title}: goes on after update {update} of {training.updates}")
            bar.advance(update)
        while update < training.updates:
            alive = [probe for probe in probes if probe.status == "training"]
            if not alive:
                break
            needed = [streams[seed] for seed in sorted({probe.spec.seed for probe in alive})]
            looks = update // training.evaluate_every + 1
            target = min(looks * training.evaluate_every, training.updates)
            while update < target:
                blocks = _blocks(needed, target - update)
                each(partial(step, blocks), alive)
                done = len(next(iter(blocks.values())))
                update += done
                bar.advance(done)
                if update < target:  # else the look comes first, and belongs to this update
                    save()
            alive = [probe for probe in alive if probe.status == "training"]
            _look(alive, valid, vocabulary, training, each)
            if listen is not None:
                for probe in alive:
                    if probe.status == "training":
                        listen(probe, probe.looks[-1])
            _halve(probes, alive, training, update, metric.direction)
            _lose_patience(alive, training.patience)
            save()
            shown = [probe.best.valid for probe in probes if probe.best is not None]
            if shown:
                top = min(shown) if metric.direction == "lower" else max(shown)
                left = sum(probe.status == "training" for probe in alive)
                bar.rate(f"valid {metric.name} {top:.1f} {metric.unit}, {left} probes")
    for probe in probes:
        if probe.status == "training":
            probe.status = "finished"
        if probe.best is not None:
            probe.restore()
        elif probe.status == "finished":
            worst = f"{_worst(metric):.0f} {metric.unit}"
            probe.fail(f"valid {metric.name} was never better than {worst}")


class Stream:
    """The batches of one seed, drawn and masked once for all its probes.

    Args:
        seed: which one.
        train: where they are read from.
        training: the protocol's values.
        takes: as for `fit`.
        normalised: whether layer-normalised states are wanted too.
    """

    def __init__(
        self,
        seed: int,
        train: SplitData,
        training: Training,
        takes: Callable[[int], Sequence[Sequence[int]]] | None,
        normalised: bool,
    ) -> None:
        self.seed = seed
        rerun = seed - training.first_seed
        self.masks = torch.Generator().manual_seed(_AUGMENT_SEED + rerun)
        self._train, self._training, self._normalised = train, training, normalised
        self._indices = _training_indices(train, training, takes, rerun)

    def skip(self, updates: int) -> None:
        """Leave out what was drawn before training was cut off."""
        deque(islice(self._indices, updates * self._training.accumulate), maxlen=0)

    def load(self) -> list[Batch]:
        """The batches of one update."""
        part = [
            self._train.batch(next(self._indices), self._normalised)
            for _ in range(self._training.accumulate)
        ]
        if self._training.spec_augment is None:
            return part
        return [_augment(batch, self._training, self.masks) for batch in part]


def _go_on(probes: Sequence[Probe], streams: Mapping[int, Stream], snapshot: Snapshot) -> int:
    """Take over what was saved, all of it or nothing; how many updates that was."""
    state = snapshot.read()
    if state is None:
        return 0
    fresh = [copy.deepcopy(probe.state()) for probe in probes]
    masks = {seed: stream.masks.get_state() for seed, stream in streams.items()}
    try:
        for probe, own in zip(probes, state["probes"], strict=True):
            probe.go_on_from(own)
        for seed, stream in streams.items():
            stream.masks.set_state(state["masks"][seed])
        update = int(state["update"])
    except (KeyError, RuntimeError, TypeError, ValueError):
        for probe, own in zip(probes, fresh, strict=True):
            probe.go_on_from(own)
        for seed, stream in streams.items():
            stream.masks.set_state(masks[seed])
        snapshot.damaged()
        return 0
    for stream in streams.values():
        stream.skip(update)
    return update


def _training_indices(
    train: SplitData,
    training: Training,
    takes: Callable[[int], Sequence[Sequence[int]]] | None,
    rerun: int,
) -> Iterator[list[int]]:
    """Batches of indices into `train`; takes of one utterance come in turn, epoch by epoch."""
    groups = takes(rerun) if takes else [[index] for index in range(len(train.utterances))]
    visits = [0] * len(groups)
    if rerun:  # another take comes first
        first = np.random.default_rng([_AUGMENT_SEED, rerun])
        visits = [int(first.integers(len(group))) for group in groups]
    for batch in training_batches(
        [train.lengths[group[0]] for group in groups],
        [train.utterances[group[0]].label for group in groups],
        training.batch_utterances,
        training.sampling,
        rerun,
    ):
        chosen = []
        for utterance in batch:
            group = groups[utterance]
            chosen.append(group[visits[utterance] % len(group)])
            visits[utterance] += 1
        yield chosen


def _valid_batches(valid: SplitData, training: Training, rerun: int) -> list[list[int]]:
    """Which of valid is looked at; the same at every look."""
    size = training.batch_utterances
    if training.valid_sampling == "all":
        return evaluation_batches(valid.lengths, size)
    labels = [utterance.label for utterance in valid.utterances]
    epoch = -(-len(labels) // size)
    return list(islice(training_batches(valid.lengths, labels, size, "balanced", rerun), epoch))


def evaluate(
    probe: Probe, data: SplitData, downstream: Downstream, vocabulary: Sequence[str], size: int
) -> list[Record]:
    """The records of one probe over a split."""
    answers = answers_of(probe, data, downstream, vocabulary, size)
    return downstream.records(data.utterances, answers)


def answers_of(
    probe: Probe, data: SplitData, downstream: Downstream, vocabulary: Sequence[str], size: int
) -> list[Any]:
    """The answers of one probe to a split, in its order."""
    probe.head.eval()
    answers: dict[str, Any] = {}
    with one_thread(), torch.inference_mode():
        for indices in evaluation_batches(data.lengths, size):
            batch = data.batch(indices, probe.spec.mix.normalised)
            logits, lengths = probe.answer(batch)
            own = downstream.answer(logits, lengths, batch.utterances, vocabulary)
            for utterance, answer in zip(batch.utterances, own, strict=True):
                answers[utterance.id] = answer
    return [answers[utterance.id] for utterance in data.utterances]


def _augment(batch: Batch, training: Training, masks: torch.Generator) -> Batch:
    """Mask a batch; what is masked in the plain states is masked in the normalised ones."""
    assert training.spec_augment is not None
    views = [batch.plain] if batch.normalised is None else [batch.plain, batch.normalised]
    joint = HiddenStates(torch.cat([view.values for view in views]), batch.plain.lengths)
    masked = spec_augment(joint, training.spec_augment, masks)
    plain, *rest = (
        HiddenStates(values, masked.lengths) for values in masked.values.chunk(len(views))
    )
    return Batch(batch.utterances, plain, rest[0] if rest else None)


def _blocks(streams: Sequence[Stream], most: int) -> dict[int, list[list[Batch]]]:
    """A few updates of each seed at a time, within a memory budget, so that threads seldom wait."""
    blocks = {stream.seed: [stream.load()] for stream in streams}
    states = [batch for block in blocks.values() for batch in block[0]]
    size = sum(
        batch.plain.values.numel()
        * batch.plain.values.element_size()
        * (1 if batch.normalised is None else 2)
        for batch in states
    )
    for _ in range(min(most, max(1, _BLOCK_BYTES // size), 16) - 1):
        for stream in streams:
            blocks[stream.seed].append(stream.load())
    return blocks


def train_probe(
    probe: Probe,
    block: Sequence[Sequence[Batch]],
    vocabulary: Sequence[str],
    training: Training,
) -> None:
    """Some updates, each on the mean loss over the utterances of all its batches."""
    probe.head.train()
    parameters = probe.parameters()
    for batches in block:
        if probe.status != "training":
            return
        for group in probe.optimizer.param_groups:
            group["lr"] = probe.spec.learning_rate * training.factor(probe.updates)
        probe.optimizer.zero_grad(set_to_none=True)
        utterances = sum(len(batch.utterances) for batch in batches)
        value = 0.0
        for batch in batches:
            logits, lengths = probe.answer(batch)
            loss = probe.downstream.loss(logits, lengths, batch.utterances, vocabulary)
            if len(batches) > 1:
                loss = loss * (len(batch.utterances) / utterances)
            loss.backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
        norm = nn.utils.clip_grad_norm_(parameters, training.clip_norm)
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            what = "loss" if not math.isfinite(value) else "gradient"
            probe.fail(f"{what} was not finite at update {probe.updates + 1}")
            return
        probe.optimizer.step()
        probe.updates += 1
        probe._losses.append(value)


def _look(
    alive: Sequence[Probe],
    valid: SplitData,
    vocabulary: Sequence[str],
    training: Training,
    each: Each,
) -> None:
    answers: dict[int, list[Any]] = {id(probe): [] for probe in alive}
    losses = {id(probe): 0.0 for probe in alive}
    normalised = any(probe.spec.mix.normalised for probe in alive)
    for group in _sharing_valid(alive, training):
        rerun = group[0].spec.seed - training.first_seed
        heard: list[Utterance] = []
        for indices in _valid_batches(valid, training, rerun):
            batch = valid.batch(indices, normalised)
            heard += batch.utterances

            def listen(probe: Probe, batch: Batch = batch) -> None:
                probe.head.eval()
                with torch.inference_mode():
                    logits, lengths = probe.answer(batch)
                    loss = probe.downstream.loss(logits, lengths, batch.utterances, vocabulary)
                    losses[id(probe)] += float(loss) * len(batch.utterances)
                    answers[id(probe)] += probe.downstream.answer(
                        logits, lengths, batch.utterances, vocabulary
                    )

            each(listen, group)
        for probe in group:
            valid_loss = losses[id(probe)] / len(valid.utterances)
            if not math.isfinite(valid_loss):
                probe.fail(f"valid loss was not finite at update {probe.updates}")
                continue
            metric = probe.downstream.card.metric
            value = score(probe.downstream.records(heard, answers[id(probe)]), metric)
            _note(probe, value, valid_loss, metric, training)


def _sharing_valid(alive: Sequence[Probe], training: Training) -> list[list[Probe]]:
    """Probes that look at the same of valid: all, or those of a seed that draws from it."""
    if training.valid_sampling == "all" or not alive:
        return [list(alive)] if alive else []
    return [
        [probe for probe in alive if probe.spec.seed == seed]
        for seed in sorted({probe.spec.seed for probe in alive})
    ]


def _note(
    probe: Probe, value: float, valid_loss: float, metric: Metric, training: Training
) -> None:
    """Add a look to a probe's history, and keep its weights if it is the best."""
    train_loss = sum(probe._losses) / max(len(probe._losses), 1)
    look = Look(probe.updates, train_loss, value, valid_loss)
    probe._losses.clear()
    probe.looks.append(look)
    if _is_best(look, probe.best, metric, training.select_by):
        probe.keep(look)


def _is_best(look: Look, best: Look | None, metric: Metric, select_by: str) -> bool:
    if select_by == "score":
        bar = _worst(metric) if best is None else best.valid
        return look.valid < bar if metric.direction == "lower" else look.valid > bar
    return best is None or _rank(look, metric.direction) < _rank(best, metric.direction)


def _worst(metric: Metric) -> float:
    """The score that says nothing."""
    if metric.unit != "%":
        return math.inf if metric.direction == "lower" else -math.inf
    return 100.0 if metric.direction == "lower" else 0.0


def _lose_patience(probes: Sequence[Probe], patience: int) -> None:
    """Stop the probes whose best look is `patience` looks ago."""
    for probe in probes:
        since = len(probe.looks) - (probe.looks.index(probe.best) + 1 if probe.best else 0)
        if patience and probe.status == "training" and since >= patience:
            probe.status = "finished"
            probe.reason = f"no better on valid for {since} looks"


def _rank(look: Look, direction: str) -> tuple[float, float]:
    return (look.valid if direction == "lower" else -look.valid, look.valid_loss)


def _halve(
    probes: Sequence[Probe],
    alive: Sequence[Probe],
    training: Training,
    update: int,
    direction: str,
) -> None:
    """Successive halving: each layer choice drops the learning rates that are behind."""
    rung = next((rung for rung in training.halving if rung.update == update), None)
    if rung is None:
        return
    for mix in dict.fromkeys(probe.spec.mix for probe in alive):
        # failed seeds are there too: a rate that lost one cannot be chosen, so it keeps no place
        everyone = [probe for probe in probes if probe.spec.mix == mix]
        rivals = [probe for probe in everyone if probe.status == "training"]
        contest = [probe for probe in everyone if probe.status != "dropped"]
        order = ranked_rates(contest, direction, rung.by)
        for probe in rivals:
            if probe.spec.learning_rate not in order[: rung.keep]:
                probe.status = "dropped"
                probe.reason = f"not among the best {rung.keep} learning rates at update {update}"


def ranked_rates(probes: Sequence[Probe], direction: str, by: str = "score") -> list[float]:
    """Learning rates of one layer choice, best first on valid, averaged over seeds.

    Only rates none of whose seeds failed count. With ``score``, each probe's best look counts and
    equal scores are settled by its loss, and a seed that kept nothing has failed; with ``loss``,
    the loss of its latest look. What is still equal goes to the smaller rate.
    """
    scores: dict[float, list[tuple[float, float]]] = {}
    spoilt = {probe.spec.learning_rate for probe in probes if probe.status == "failed"}
    for probe in probes:
        if by == "score" and probe.best is not None:
            rank = _rank(probe.best, direction)
        elif by == "loss" and probe.looks:
            rank = (probe.looks[-1].valid_loss, 0.0)
        else:
            spoilt.add(probe.spec.learning_rate)
            continue
        scores.setdefault(probe.spec.learning_rate, []).append(rank)

    def mean(rate: float) -> tuple[float, float, float]:
        ranks = scores[rate]
        first = math.fsum(rank[0] for rank in ranks) / len(ranks)
        second = math.fsum(rank[1] for rank in ranks) / len(ranks)
        return first, second, rate

    return sorted(scores.keys() - spoilt, key=mean)


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_thread() -> AbstractContextManager[object]:
    """Have heads compute on one thread, as they do wherever a score comes from."""
    return _in_parallel(False)


def _one_after_another(work: Callable[[Probe], None], probes: Sequence[Probe]) -> None:
    for probe in probes:
        work(probe)


@contextmanager
def _in_parallel(parallel: bool, cores: int | None = None) -> Iterator[Each]:
    """Run a function over probes, one core a probe; arithmetic inside uses one thread.

    One thread inside keeps results independent of the number of cores. Heads over pooled features
    are too small for threads to pay.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if not parallel:
            yield _one_after_another
            return
        workers = cores or available_cores()
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def side_by_side(work: Callable[[Probe], None], probes: Sequence[Probe]) -> None:
                for _ in pool.map(work, probes):
                    pass  # asking for each result raises what went wrong in a thread

            yield side_by_side
    finally:
        torch.set_num_threads(before)
