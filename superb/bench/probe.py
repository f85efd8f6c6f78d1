"""Where an update of a head spends its time: the engine's own training, watched part by part.

Features are made up, as many layers and as wide as an encoder's, for utterances as long as those
of a corpus, and lie in a store on the disk. What trains on them is what trains in a run: its
stream of batches, its probe, its update. A watch stands beside it: at the borders of a part it is
told which part begins, so that every moment belongs to one part and the parts add up to the whole.
The whole is timed without it too.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core import Downstream, UpstreamCard, Utterance, at_hop
from benchmark.encoding.arithmetic import exact, synchronise
from benchmark.encoding.cache import require_room
from benchmark.encoding.recordings import durations
from benchmark.encoding.store import FeatureStore
from benchmark.errors import SuperbError
from benchmark.jobs.price import TaskWork, made_up
from benchmark.jobs.site import head_device
from benchmark.probing.fit import (
    KEEP_BYTES,
    Batch,
    Probe,
    ProbeSpec,
    SplitData,
    Stream,
    build_probe,
    standardisation,
    train_probe,
)
from benchmark.probing.layers import expand
from benchmark.protocol import Training
from downstreams.corpora import CorpusOptions
from downstreams.corpora.load import load_corpus
from superb.bench.encoder import LIBRISPEECH_LIKE
from superb.bench.timing import Timing, take_turns, threads
from superb.data import layout_of

READING: Final = "reading frames"
PADDING: Final = "padding a batch"
MASKS: Final = "masks"
MIX: Final = "layer mix"
RECURRENT: Final = "recurrent layers"
HEAD: Final = "other layers of the head"
LOSS: Final = "loss"
OPTIMISER: Final = "optimiser"
REST: Final = "clipping and the rest"
_GRADIENT: Final = ", gradient"
PARTS: Final = (
    READING,
    PADDING,
    MASKS,
    *(f"{part}{half}" for part in (MIX, RECURRENT, HEAD, LOSS) for half in ("", _GRADIENT)),
    OPTIMISER,
    REST,
)
# Batches that are timed: as many as are sorted by length together.
_BATCHES: Final = 8
# Utterances that are looked at.
_MOST: Final = 512
# Seconds that a timing takes, unless so many batches take less.
_LEAST_S: Final = 2.0


@dataclass(frozen=True)
class Material:
    """What a head trains on, but for the features.

    Attributes:
        what: it is, in words.
        utterances: with what they say.
        seconds: how long each is.
        all_s: seconds of all of the corpus's train split, of which these are some.
    """

    what: str
    utterances: Sequence[Utterance]
    seconds: Sequence[float]
    all_s: float


@dataclass(frozen=True)
class Profile:
    """An update of one probe.

    Attributes:
        upstream: whose shape the features have.
        task: what is learnt.
        protocol: the rules.
        what: it learns from, in words.
        device: where.
        updates: how many each timing has.
        whole: of so many updates, not watched.
        parts: part → what is its of so many updates, watched.
    """

    upstream: str
    task: str
    protocol: str
    what: str
    device: str
    updates: int
    whole: Timing
    parts: dict[str, Timing]

    @property
    def rates(self) -> tuple[float, ...]:
        """Updates per second of each time, not watched."""
        return tuple(self.updates / seconds for seconds in self.whole.seconds)

    @property
    def shares(self) -> dict[str, float]:
        """Part → its share of all watched time."""
        sums = {part: sum(timing.seconds) for part, timing in self.parts.items()}
        return {part: seconds / sum(sums.values()) for part, seconds in sums.items()}

    def update_ms(self, part: str) -> float:
        """Milliseconds of an update that are a part's: its share of an update not watched."""
        return 1000 * self.shares[part] * self.whole.median / self.updates


def material_of(task: Downstream, corpus: str, options: CorpusOptions, cache_dir: Path) -> Material:
    """Utterances of a corpus's train split, at most 512, with their real lengths."""
    train = load_corpus(corpus, task.card, options).split("train")
    some = train[:: -(-len(train) // _MOST)]
    seconds = durations(some, cache_dir)
    lengths = [seconds[utterance.id] for utterance in some]
    return Material(corpus, some, lengths, sum(lengths) / len(some) * len(train))


def made_up_material(task: Downstream) -> Material:
    """Utterances as long as LibriSpeech's, of as many hours as SUPERB trains on."""
    lengths = [LIBRISPEECH_LIKE[at % len(LIBRISPEECH_LIKE)] for at in range(_MOST)]
    hours = layout_of("librispeech").official["train-clean-100"].hours
    assert hours is not None
    utterances = [made_up(task, at, seconds) for at, seconds in enumerate(lengths)]
    return Material("made up, as LibriSpeech's", utterances, lengths, 3600 * hours)


class Watch:
    """Charges every moment between `start` and `stop` to the part that is under way."""

    def __init__(self, device: str = "cpu") -> None:
        self.wait = partial(synchronise, device)
        self.seconds: dict[str, float] = {}
        self._part, self._since = REST, 0.0

    def start(self) -> None:
        """Begin anew."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.wait()
        self._part, self._since = REST, time.perf_counter()

    def switch(self, part: str) -> str:
        """Another part begins; which one ends."""
        self.wait()
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        before, self._part, self._since = self._part, part, now
        return before

    def stop(self) -> dict[str, float]:
        """Seconds of every part."""
        self.switch(REST)
        return self.seconds

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """A part that begins here, and ends where this does."""
        before = self.switch(part)
        yield
        self.switch(before)


class _WatchedData(SplitData):
    """A split whose batches are watched, if they are to be."""

    watch: Watch | None = None

    def batch(self, indices: Sequence[int], normalised: bool) -> Batch:
        if self.watch is None:
            return super().batch(indices, normalised)
        with self.watch.within(PADDING):
            return super().batch(indices, normalised)

    def _read(self, keys: Sequence[str], kind: str) -> list[Tensor]:
        if self.watch is None:
            return super()._read(keys, kind)
        with self.watch.within(READING):
            return super()._read(keys, kind)


class _WatchedTask:
    """A task whose loss is watched, and after it the gradients, which begin with the loss's."""

    def __init__(self, downstream: Downstream, watch: Watch) -> None:
        self._downstream, self._watch = downstream, watch

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a task has
        return getattr(self._downstream, name)

    def loss(self, *given: Any) -> Tensor:  # noqa: ANN401 - as a task's
        with self._watch.within(LOSS):
            loss = self._downstream.loss(*given)

        def begins(_: Tensor) -> None:
            self._watch.switch(f"{LOSS}{_GRADIENT}")
            engine = torch.autograd.Variable._execution_engine
            engine.queue_callback(ends)

        def ends() -> None:
            self._watch.switch(REST)

        _with_gradient(loss, begins)
        return loss


def _with_gradient(values: Tensor, hook: Callable[[Tensor], None]) -> None:
    """Have something called as soon as the gradient of some values is there."""
    values.register_hook(hook)  # type: ignore[no-untyped-call]


def watch_probe(probe: Probe, watch: Watch) -> None:
    """Tell a watch of the parts of an update, forward and in its gradients.

    Gradients come in the order in which torch has them: that of a module begins when the gradient
    of what it gave is there, and ends when that of what it was given is.
    """

    def begins(part: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            watch.switch(part)

        return hook

    def watched(module: nn.Module, part: str, around: str) -> None:
        def after(module: nn.Module, given: tuple[Any, ...], gave: Any) -> None:  # noqa: ANN401
            watch.switch(around)
            result = gave[0] if isinstance(gave, tuple) else gave
            if isinstance(result, Tensor) and result.requires_grad:
                _with_gradient(result, begins(f"{part}{_GRADIENT}"))
            if around != REST and isinstance(given[0], Tensor) and given[0].requires_grad:
                _with_gradient(given[0], begins(f"{around}{_GRADIENT}"))

        module.register_forward_pre_hook(begins(part))
        module.register_forward_hook(after)

    watched(probe.mix, MIX, REST)
    watched(probe.head, HEAD, REST)
    for layer in recurrent_layers(probe.head):
        watched(layer, RECURRENT, HEAD)
    probe.downstream = _WatchedTask(probe.downstream, watch)
    probe.optimizer.register_step_pre_hook(begins(OPTIMISER))
    probe.optimizer.register_step_post_hook(begins(REST))


def recurrent_layers(module: nn.Module) -> list[nn.Module]:
    """The largest modules within a head all of whose weights are those of recurrent layers."""
    found: list[nn.Module] = []
    for child in module.children():
        own = [inner for inner in child.modules() if [*inner.parameters(recurse=False)]]
        whole = own and all(isinstance(inner, nn.RNNBase) for inner in own)
        if whole and not isinstance(child, nn.ModuleList | nn.Sequential):
            found.append(child)
        else:
            found += recurrent_layers(child)
    return found


class _Trainee:
    """A probe in training, watched or not."""

    def __init__(
        self,
        data: _WatchedData,
        build: Callable[[], Probe],
        training: Training,
        vocabulary: Sequence[str],
        watch: Watch | None = None,
    ) -> None:
        self.data, self.training, self.vocabulary, self.watch = data, training, vocabulary, watch
        self.probe = build()
        self.stream = Stream(training.first_seed, data, training, None, normalised=False)
        self.watched: list[dict[str, float]] = []
        if watch is not None:
            data.watch = watch
            watch_probe(self.probe, watch)

    def train(self, updates: int) -> float:
        """Make some updates, as `benchmark.probing.fit.fit` does; the seconds they took."""
        synchronise(self.data.device)
        started = time.perf_counter()
        if self.watch is not None:
            self.watch.start()
        for _ in range(updates):
            with nullcontext() if self.watch is None else self.watch.within(MASKS):
                batches = self.stream.load()
            train_probe(self.probe, [batches], self.vocabulary, self.training)
        if self.watch is not None:
            self.watched.append(self.watch.stop())
        synchronise(self.data.device)
        if self.probe.status != "training":
            raise SuperbError(f"made-up features cannot be learnt from: {self.probe.reason}")
        return time.perf_counter() - started


def measure_updates(
    card: UpstreamCard,
    task: TaskWork,
    protocol: str,
    material: Material,
    cache_dir: Path,
    *,
    device: str,
    rounds: int,
) -> Profile:
    """Time updates of one probe that learns from a weighted sum of all layers.

    Args:
        card: of the encoder whose features these might be.
        task: what is learnt, and by which values.
        protocol: its name.
        material: what from.
        cache_dir: the disk of this folder is read from.
        device: where heads over frames compute; those over time means do on the processor.
        rounds: timings.

    Raises:
        SuperbError: the disk has no room.
    """
    hop_s = card.hop_samples / card.sample_rate
    downstream, training = at_hop(task.downstream, hop_s), task.training
    place = head_device(downstream, device)
    wanted = _BATCHES * training.batch_utterances * training.accumulate
    step = max(1, len(material.utterances) // wanted)
    utterances = material.utterances[::step][:wanted]
    seconds = material.seconds[::step][:wanted]
    keys = {utterance.id: str(at) for at, utterance in enumerate(utterances)}
    vocabulary = downstream.vocabulary(material.utterances)
    # memory holds as much of these as it would of all
    kept = round(KEEP_BYTES * min(1.0, sum(seconds) / material.all_s))
    (mix,) = expand(["weighted-sum"], card.layers).values()
    with (
        tempfile.TemporaryDirectory(dir=cache_dir) as folder,
        exact(),
        threads(1),  # as a probe has it
        ExitStack() as resources,
    ):
        kind = downstream.card.features
        store = resources.enter_context(FeatureStore(Path(folder), {"storage": "float16"}))
        _fill(store, card, kind, seconds)

        def data() -> _WatchedData:
            own = _WatchedData(utterances, keys, {kind: store}, place, kept)
            for at in range(len(utterances)):  # memory fills up in the first epoch of a run
                own.batch([at], normalised=False)
            return own

        scaling = standardisation(data(), mix) if training.standardise else None
        build = partial(
            build_probe,
            ProbeSpec(mix, training.learning_rates[0], training.first_seed),
            downstream,
            training,
            layers=card.layers,
            dim=card.dim,
            hop_s=hop_s,
            outputs=len(vocabulary),
            scaling=scaling,
            device=place,
        )
        plain = _Trainee(data(), build, training, vocabulary)
        seen = _Trainee(data(), build, training, vocabulary, Watch(place))
        seen.train(1)
        updates = min(_BATCHES, math.ceil(_LEAST_S / plain.train(1)))
        works = {"plain": partial(plain.train, updates), "seen": partial(seen.train, updates)}
        timings = take_turns(works, rounds)
    return Profile(
        upstream=card.name,
        task=downstream.card.name,
        protocol=protocol,
        what=material.what,
        device=place,
        updates=updates,
        whole=timings["plain"],
        parts={
            part: Timing(tuple(found[part] for found in seen.watched[-rounds:])) for part in PARTS
        },
    )


def _fill(store: FeatureStore, card: UpstreamCard, kind: str, seconds: Sequence[float]) -> None:
    """Store made-up features of some utterances."""
    frames = [
        max(1, round(each * card.sample_rate / card.hop_samples)) if kind == "frames" else 1
        for each in seconds
    ]
    random = np.random.default_rng(0)
    shape = (card.layers, max(frames), card.dim)
    values = random.standard_normal(shape, dtype=np.float32)
    norms = np.linalg.norm(values, axis=-1).mean(axis=1)
    # the audio of an utterance is as long as it is; its values are those of any other
    needed = sum(frames) * card.layers * card.dim * 2
    require_room(store.folder.parent, needed)
    for at, count in enumerate(frames):
        own = values[:, :count] if kind == "frames" else values[:, 0]
        store.append(str(at), own, norms, seconds[at])
    store.commit()
