"""The nouns of the benchmark. Nothing here imports torch, so that listing stays instant.

A frozen encoder turns waveforms into layers (`HiddenStates`); a layer mix turns layers into
frames; a light head turns frames into answers; `Tally` counts turn answers into a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise SuperbError(
                f"upstream {self.name!r}: family is one of {', '.join(get_args(Family))}; "
                f"got {self.family!r}"
            )
        for name in ("layers", "dim", "hop_samples", "sample_rate", "min_samples"):
            value = getattr(self, name)
            self._require(name, _is_whole(value) and value >= 1, "a positive integer")
        for name in ("name", "licence", "paper", "source", "revision", "note"):
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
        if not holds:
            raise SuperbError(
                f"upstream {self.name!r}: {name} must be {wanted}, got {getattr(self, name)!r}"
            )


def _is_whole(value: object) -> bool:
    """True for an int; True and False are none here."""
    return isinstance(value, int) and not isinstance(value, bool)


@runtime_checkable
class Upstream(Protocol):
    """A frozen encoder. Nothing to inherit: any object with a card that can be called fits.

    An optional attribute ``fingerprint: str`` names everything its output depends on; without it
    the engine hashes weights and source code. An optional method ``to(device)`` moves it.
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
    """

    id: str
    audio: Path | bytes | StoredAudio = field(repr=False)
    split: str
    speaker: str = ""
    text: str = ""
    label: str = ""
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Corpus:
    """Named splits of utterances, as one task sees them.

    Attributes:
        name: as typed on the command line and printed in tables.
        sha256: identity of its content: ids, splits, targets and audio.
        utterances: all of them, in a fixed order.
        licence: of the audio.
        source: where it comes from.
        note: one line for results.
    """

    name: str
    sha256: str
    utterances: tuple[Utterance, ...]
    licence: str = ""
    source: str = ""
    note: str = ""

    def split(self, name: str) -> list[Utterance]:
        """The utterances of one split, in corpus order."""
        return [utterance for utterance in self.utterances if utterance.split == name]


@dataclass(frozen=True)
class Tally:
    """The counts of one test utterance; every metric is a ratio of sums of them.

    Attributes:
        utterance: its id.
        speaker: its speaker; intervals are clustered by it.
        reference: the right answer, as text.
        hypothesis: the head's answer, as text.
        counts: metric name → (numerator, denominator), e.g. ``{"wer": (2, 7)}``.
    """

    utterance: str
    speaker: str
    reference: str
    hypothesis: str
    counts: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class DownstreamCard:
    """What a task is.

    Attributes:
        name: as typed on the command line.
        title: for tables.
        version: raised whenever scores of this task change.
        metrics: metric names, the one that ranks first; values are percentages.
        direction: whether a lower or a higher value of the first metric is better.
        features: whether the head needs every frame, or time means give the same result.
        needs: the columns of a manifest that it reads besides ``audio`` and ``split``.
        closed_set: True when a test label that train never saw is an error.
    """

    name: str
    title: str
    version: int
    metrics: tuple[str, ...]
    direction: Direction
    features: FeatureKind
    needs: tuple[str, ...]
    closed_set: bool

    @property
    def metric(self) -> str:
        """The metric that ranks."""
        return self.metrics[0]


class Downstream(Protocol):
    """A task: what its head is, what it minimises and what it counts."""

    @property
    def card(self) -> DownstreamCard:
        """Its card."""
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

        Args:
            dim: features per frame.
            hop_s: seconds between frames.
            outputs: size of the vocabulary.
            settings: the protocol's values for this head.
            generator: for all randomness in training, such as dropout. (Initial weights may use
                the global generator, which is seeded before and restored after this call.)
        """
        ...

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """What a reader of the score must know of this training data, given frame counts."""
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

    def tally(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Tally]:
        """Answers and counts of a batch."""
        ...
