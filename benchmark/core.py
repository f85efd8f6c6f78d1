"""The nouns of the benchmark. Nothing here imports torch, so that listing stays instant.

A frozen encoder turns waveforms into layers (`HiddenStates`); a layer mix turns layers into
frames; a light head turns frames into answers; a statistic of `Record` values turns answers into a
score.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from benchmark.errors import SuperbError

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

Family = Literal[
    "contrastive", "predictive", "generative", "supervised", "signal", "untrained", "other"
]
FeatureKind = Literal["frames", "mean"]
Direction = Literal["lower", "higher"]
SPLITS = ("train", "valid", "test")
# A name is part of a folder's name, of a column's and of what is typed between commas.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class HiddenStates:
    """All hidden layers of a batch of utterances.

    Attributes:
        values: float tensor ``[layer, utterance, frame, dim]``. Layer 0 is the input of the first
            transformer (or recurrent) layer, the last layer is the encoder's output. Frames past
            an utterance's length hold zeros.
        lengths: integer tensor ``[utterance]``, the number of valid frames.

    Raises:
        SuperbError: when the shapes do not fit together.
    """

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        if len(shape) != 4:
            raise SuperbError(
                f"hidden states must be [layer, utterance, frame, dim], got shape {shape}"
            )
        if tuple(self.lengths.shape) != (shape[1],):
            raise SuperbError(
                f"lengths must be [utterance] = ({shape[1]},), got {tuple(self.lengths.shape)}"
            )

    @property
    def layers(self) -> int:
        """Number of hidden layers."""
        return int(self.values.shape[0])

    @property
    def dim(self) -> int:
        """Features per frame."""
        return int(self.values.shape[3])


@dataclass(frozen=True)
class UpstreamCard:
    """What a reader must know of an encoder, and what the engine relies on.

    Attributes:
        name: as typed on the command line and printed in tables.
        layers: number of hidden layers returned, layer 0 included (13 for a Base transformer).
        dim: features per frame.
        hop_samples: samples between two frames, at `sample_rate`.
        sample_rate: Hz the encoder wants; audio is resampled to it.
        family: the pretext school it comes from.
        parameters: number of weights; counted by the engine when None and it is a torch module.
        min_samples: shortest waveform it accepts.
        pad_invariant: True if an utterance gets the same features alone and beside longer ones.
        trained_on: corpora seen in training; None means undisclosed, an empty set none at all.
        licence: licence of the weights.
        paper: where it is described.
        source: where the weights come from: a hub id, a folder, or "" for none.
        revision: the exact version of the weights (a commit hash), or "".
        note: one loud line for the terminal and the results, e.g. that it is untrained.
        training: what a training file says of itself: data, steps, masks; "" for nothing.
    """

    name: str
    layers: int
    dim: int
    hop_samples: int
    sample_rate: int = 16_000
    family: Family = "other"
    parameters: int | None = None
    min_samples: int = 1
    pad_invariant: bool = False
    trained_on: frozenset[str] | None = None
    licence: str = ""
    paper: str = ""
    source: str = ""
    revision: str = ""
    note: str = ""
    training: str = ""

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise SuperbError(
                f"upstream {self.name!r}: family is one of {', '.join(get_args(Family))}; "
                f"got {self.family!r}"
            )
        for name in ("layers", "dim", "hop_samples", "sample_rate", "min_samples"):
            value = getattr(self, name)
            self._require(name, _is_whole(value) and value >= 1, "a positive integer")
        for name in ("name", "licence", "paper", "source", "revision", "note", "training"):
            self._require(name, isinstance(getattr(self, name), str), "text")
        self._require("pad_invariant", isinstance(self.pad_invariant, bool), "True or False")
        self._require(
            "parameters",
            self.parameters is None or (_is_whole(self.parameters) and self.parameters >= 0),
            "None or an integer that is not negative",
        )
        corpora: object = self.trained_on
        self._require(
            "trained_on",
            corpora is None
            or (
                isinstance(corpora, set | frozenset)
                and all(isinstance(corpus, str) for corpus in corpora)
            ),
            "None or a set of names",
        )

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        _require(f"upstream {self.name!r}", name, getattr(self, name), holds, wanted)


def _is_whole(value: object) -> bool:
    """True for an int; True and False are none here."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


_NAME_WANTED = "letters, digits and . _ + -, with a letter or digit first"


def _require(what: str, name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise SuperbError(f"{what}: {name} must be {wanted}, got {value!r}")


@runtime_checkable
class Upstream(Protocol):
    """A frozen encoder. Nothing to inherit: any object with a card that can be called fits.

    An optional attribute ``fingerprint: str`` names everything its output depends on; without it
    the engine hashes weights and source code. ``weights_sha256: str`` names the same but for
    versions of code and libraries, for tables. An optional method ``to(device)`` moves it. An
    optional attribute ``concurrent = True`` says that several threads may call it at once and that
    it draws no random numbers: a processor then encodes an utterance on each core.
    """

    @property
    def card(self) -> UpstreamCard:
        """Its card."""
        ...

    def __call__(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D float waveforms in [-1, 1] at ``card.sample_rate``, one per utterance."""
        ...


@runtime_checkable
class StoredAudio(Protocol):
    """A file inside another one, such as a table, whose bytes stay there until they are needed."""

    @property
    def size(self) -> int:
        """Its size in bytes."""
        ...

    @property
    def origin(self) -> tuple[str, int] | None:
        """What stands for its bytes: a name, and when they last changed (ns, 0 for never).

        What was found out about them is remembered with that. None where nothing can be said.
        """
        ...

    @property
    def far(self) -> bool:
        """Whether it lies across a network, so that it is read for use and not for an estimate."""
        ...

    def read(self) -> bytes:
        """Its bytes, in any format that soundfile reads.

        Raises:
            OSError: when they are gone.
            SuperbError: when no audio can be had at all, as without a network.
        """
        ...


@dataclass(frozen=True)
class Utterance:
    """One recording with what is known of it.

    Attributes:
        id: unique within its corpus.
        audio: a file, the bytes of one, or where to read them, in any format that soundfile reads.
        split: ``train``, ``valid`` or ``test``.
        speaker: who speaks; intervals are clustered by it. "" when unknown.
        text: what is said, for ASR.
        label: the class, for classification tasks.
        span: the part of the recording that is meant, as (first second, seconds); None for all.
        columns: whatever else is known of it, by the name of the column.
    """

    id: str
    audio: Path | bytes | StoredAudio = field(repr=False)
    split: str
    speaker: str = ""
    text: str = ""
    label: str = ""
    span: tuple[float, float] | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)

    def value(self, column: str) -> str:
        """What stands in a column: ``speaker``, ``text``, ``label`` or a further one; "" for none.

        >>> Utterance("a", b"", "train", speaker="s", columns={"action": "open"}).value("action")
        'open'
        """
        if column in ("speaker", "text", "label"):
            return str(getattr(self, column))
        return self.columns.get(column, "")


@dataclass(frozen=True)
class Corpus:
    """Named splits of utterances, as one task sees them.

    Attributes:
        name: as typed on the command line and printed in tables.
        sha256: identity of its content: ids, splits, targets and audio. Whoever writes a plug-in
            leaves it out: it is computed when the corpus is loaded.
        utterances: all of them, in a fixed order.
        licence: of the audio.
        source: where it comes from.
        note: one line for results.
        folds: several partitions instead of one: name of a fold → utterance id → its split there;
            what a fold does not name is not in it. Each fold trains, is chosen on its own valid and
            tested on its own test. Empty for one partition, that of `Utterance.split`.
        subsets: amount of labels, such as ``10min`` → ids of train that are the published part of
            that size, for one rerun after the other. Empty where none are published.
    """

    name: str
    sha256: str = ""
    utterances: tuple[Utterance, ...] = ()
    licence: str = ""
    source: str = ""
    note: str = ""
    folds: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    subsets: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict, hash=False)

    def split(self, name: str) -> list[Utterance]:
        """The utterances of one split, in corpus order."""
        return [utterance for utterance in self.utterances if utterance.split == name]

    def partitions(self) -> dict[str, Corpus]:
        """Name of each fold → the corpus as that fold splits it; ``{"": self}`` without folds."""
        if not self.folds:
            return {"": self}
        return {
            fold: replace(
                self,
                utterances=tuple(
                    replace(utterance, split=splits[utterance.id])
                    for utterance in self.utterances
                    if utterance.id in splits
                ),
                folds={},
            )
            for fold, splits in self.folds.items()
        }


@dataclass(frozen=True)
class Record:
    """One scored thing of a test set: an utterance, a trial of two, a block of frames.

    Attributes:
        id: of the utterance, or of whatever was scored; unique within a test set.
        clusters: who it belongs to, and is not independent of: its speaker, or the two speakers of
            a trial. ``("",)`` where nobody is known.
        reference: the right answer, as text.
        hypothesis: the head's answer, as text.
        values: metric name → what its statistic reads, e.g. ``{"wer": (2, 7)}`` for a ratio.
        fold: the fold whose test set it is in; "" for the only one.
    """

    id: str
    clusters: tuple[str, ...]
    reference: str
    hypothesis: str
    values: Mapping[str, tuple[float, ...]]
    fold: str = ""


@dataclass(frozen=True)
class Metric:
    """What a score is called, and how records become one.

    Attributes:
        name: as printed in tables.
        direction: whether a lower or a higher value is better.
        statistic: one of `benchmark.metrics.STATISTICS`; a ratio of sums unless it says otherwise.
        unit: ``%`` for values that are shown times 100.
    """

    name: str
    direction: Direction
    statistic: str = "ratio"
    unit: str = "%"

    def __post_init__(self) -> None:
        what = f"metric {self.name!r}"
        _require(what, "name", self.name, _is_name(self.name), _NAME_WANTED)
        directions = get_args(Direction)
        _require(
            what, "direction", self.direction, self.direction in directions, " or ".join(directions)
        )
        for name in ("statistic", "unit"):
            value = getattr(self, name)
            _require(what, name, value, isinstance(value, str), "text")


@dataclass(frozen=True)
class DownstreamCard:
    """What a task is.

    Attributes:
        name: as typed on the command line.
        title: for tables.
        version: raised whenever scores of this task change.
        metrics: what is scored, the metric that ranks first.
        features: whether the head needs every frame, or time means give the same result.
        needs: the columns of a manifest that it reads besides ``audio`` and ``split``.
        closed_set: True when a label that train never saw is an error: `Utterance.label`, or where
            that is not needed, what stands in any of `needs`.
        label_from: the column that becomes `Utterance.label`.
        head: its head in words, for the list of tasks.
        trained: False for a task that searches layers as they are (`Searches`): its corpora need no
            train split, and in place of a learned sum stands the layer that is best on valid.
        base: the task that it is a variant of: by another head, or on fewer labels; "" for none.
    """

    name: str
    title: str
    version: int
    metrics: tuple[Metric, ...]
    features: FeatureKind
    needs: tuple[str, ...] = ()
    closed_set: bool = False
    label_from: str = "label"
    head: str = ""
    # what tells plug-ins apart is what a card shows, and stays as it was
    trained: bool = field(default=True, repr=False)
    base: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        def require(name: str, holds: bool, wanted: str) -> None:
            _require(f"task {self.name!r}", name, getattr(self, name), holds, wanted)

        require("name", _is_name(self.name), _NAME_WANTED)
        for name in ("title", "head"):
            require(name, isinstance(getattr(self, name), str), "text")
        require("version", _is_whole(self.version) and self.version >= 1, "a positive integer")
        metrics: object = self.metrics
        require(
            "metrics",
            isinstance(metrics, tuple)
            and len(metrics) > 0
            and all(isinstance(metric, Metric) for metric in metrics),
            "a tuple of one Metric or more",
        )
        names = [metric.name for metric in self.metrics]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise SuperbError(
                f"task {self.name!r} uses the metric name {' and '.join(map(repr, twice))} twice; "
                "give each metric a name of its own"
            )
        kinds = get_args(FeatureKind)
        require("features", self.features in kinds, " or ".join(kinds))
        needs: object = self.needs
        require(
            "needs",
            isinstance(needs, tuple)
            and all(isinstance(column, str) and column.strip() for column in needs)
            and not {"audio", "split"} & set(needs),
            'a tuple of names of columns besides audio and split, such as ("text",)',
        )
        for name in ("closed_set", "trained"):
            require(name, isinstance(getattr(self, name), bool), "True or False")
        label_from: object = self.label_from
        require(
            "label_from",
            isinstance(label_from, str) and bool(label_from.strip()),
            "the name of a column",
        )
        require(
            "label_from",
            self.label_from == "label" or self.labelled,
            f"a column in needs: add {self.label_from!r} there",
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a corpus must have for it: `needs`, a label by where it is from."""
        named = (self.label_from if need == "label" else need for need in self.needs)
        return tuple(dict.fromkeys(named))

    @property
    def closed_columns(self) -> tuple[str, ...]:
        """What train must have all values of: ``label``, or every column; nothing if not closed."""
        if not self.closed_set:
            return ()
        return ("label",) if self.labelled else self.needs

    @property
    def labelled(self) -> bool:
        """Whether it needs `Utterance.label`."""
        return "label" in self.needs or self.label_from in self.needs

    @property
    def metric(self) -> Metric:
        """The metric that ranks."""
        return self.metrics[0]


class Downstream(Protocol):
    """A task: what its head is, what it minimises and how it is scored. Nothing to inherit."""

    @property
    def card(self) -> DownstreamCard:
        """Its card."""
        ...

    @property
    def training(self) -> Mapping[str, Any]:
        """Its own values of training, as a table of a protocol file has them.

        They are laid over what the protocol says of all tasks of its kind, and what the protocol
        says of this task by name is laid over them. The table ``head`` holds the head's settings.
        """
        ...

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The output symbols (classes or characters), from the train split only, sorted."""
        ...

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """A light head: ``(frames [utterance, frame, dim], lengths) -> (logits, lengths)``.

        A head that returns more than a number for each output, such as an embedding after them,
        says how many more in an attribute ``extra_outputs``.

        Args:
            dim: features per frame.
            hop_s: seconds between frames.
            outputs: size of the vocabulary.
            settings: the values for this head.
            generator: for all randomness in training, such as dropout. (Initial weights may use
                the global generator, which is seeded before and restored after this call.)
        """
        ...

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """Mean training loss of a batch, a scalar."""
        ...

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Any]:
        """The answer to each utterance of a batch: a label, a transcript, an embedding."""
        ...

    def records(self, utterances: Sequence[Utterance], answers: Sequence[Any]) -> list[Record]:
        """What the answers to a whole split come to; with values for every metric of the card."""
        ...


@runtime_checkable
class Searches(Protocol):
    """A task that trains nothing: it answers from the states of one layer at a time.

    In place of ``head``, ``loss`` and ``answer`` it has ``search``.
    """

    @property
    def card(self) -> DownstreamCard:
        """Its card, which says that it is not trained."""
        ...

    def records(self, utterances: Sequence[Utterance], answers: Sequence[Any]) -> list[Record]:
        """What the answers to a whole split come to."""
        ...

    def search(self, states: Sequence[Tensor], utterances: Sequence[Utterance]) -> list[Any]:
        """The answer to each utterance of a split.

        Args:
            states: of one layer, ``[frame, dim]`` for each utterance.
            utterances: all of a split.
        """
        ...


@runtime_checkable
class Learns(Searches, Protocol):
    """A task that learns from the states of one layer of train before it searches, at once."""

    def learn(
        self, states: Sequence[Tensor], train: Sequence[Utterance], settings: Mapping[str, Any]
    ) -> Searches:
        """The same task with what it has learnt.

        Args:
            states: of one layer, ``[frame, dim]`` for each utterance.
            train: all that it may be told.
            settings: the protocol's values for its head.
        """
        ...


def hears_train(task: Any) -> bool:  # noqa: ANN401 - a task of either kind
    """Whether a task learns from train, by gradients or at once."""
    return bool(task.card.trained) or isinstance(task, Learns)


@dataclass(frozen=True)
class Material:
    """What a task may look at before its heads learn.

    Attributes:
        train, valid: their utterances, of train as many as may be told.
        keys: utterance id → hash of its audio.
        vocabulary: the output symbols.
        hop_s: seconds between frames.
        settings: the protocol's values for the head.
        channel: the one that is heard, None for the mean of all.
        waveform: utterance and sample rate in Hz → float32 ``[sample]``.
        folder: where what takes long can be kept for the next encoder.
        say: shows a line.
    """

    train: Sequence[Utterance]
    valid: Sequence[Utterance]
    keys: Mapping[str, str]
    vocabulary: Sequence[str]
    hop_s: float
    settings: Mapping[str, Any]
    channel: int | None
    waveform: Callable[[Utterance, int], Tensor]
    folder: Path
    say: Callable[[str], None]


@runtime_checkable
class Prepares(Downstream, Protocol):
    """A task that learns something of train itself before its heads do."""

    def prepared(self, material: Material) -> Downstream:
        """The same task with what it has learnt."""
        ...


@dataclass(frozen=True)
class Attention:
    """Where an answer came from: what each of its symbols looked at.

    Attributes:
        utterance: whose, by id.
        symbols: of the answer, in order.
        weights: of each symbol ``[symbol][frame]``; the frames are all of the utterance.
    """

    utterance: str
    symbols: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]


@runtime_checkable
class Attends(Downstream, Protocol):
    """A task whose head may look at frames for each symbol, which a reader can be shown."""

    def attention(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Attention]:
        """What each answer of a batch came from; nothing of a head that does not attend."""
        ...


@runtime_checkable
class KnowsHop(Downstream, Protocol):
    """A task whose answers have times, so that it must know how long a frame is."""

    def at_hop(self, hop_s: float) -> Downstream:
        """The same task for frames of so many seconds; asked for before anything is trained."""
        ...


def at_hop(downstream: Downstream, hop_s: float) -> Downstream:
    """A task for frames of so many seconds, where that matters to it."""
    return downstream.at_hop(hop_s) if isinstance(downstream, KnowsHop) else downstream


@runtime_checkable
class GivesExamples(Protocol):
    """A task whose columns hold more than a word, so that nobody else can make some up."""

    def example(self, index: int, seconds: float) -> Mapping[str, str]:
        """Columns of a made-up utterance of that length, for prices and for checks."""
        ...


@runtime_checkable
class TunesOnValid(Downstream, Protocol):
    """A task with values of its own that are chosen on valid, such as a threshold."""

    def tuned(self, utterances: Sequence[Utterance], answers: Sequence[Any]) -> Downstream:
        """The same task with what is best on valid, after training; test is answered by it."""
        ...


@runtime_checkable
class ChecksData(Protocol):
    """A task that can tell data on which it would have no right answers."""

    def check_data(self, utterances: Sequence[Utterance]) -> None:
        """Look at all splits, before anything is encoded.

        Raises:
            SuperbError: what is wrong, naming the first few utterances.
        """
        ...


@runtime_checkable
class NotesTraining(Protocol):
    """A task that has something to say of its training data."""

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """What a reader of the score must know of this training data, given frame counts."""
        ...


@runtime_checkable
class NotesTest(Protocol):
    """A task that has something to say of its test data."""

    def test_notes(self, test: Sequence[Utterance], vocabulary: Sequence[str]) -> list[str]:
        """What a reader of the score must know of what is asked, given what can be answered."""
        ...
