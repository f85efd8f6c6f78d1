"""What a trained head answers to a recording, for a reader: text, times, probabilities.

A score needs none of this: it is of `Downstream.answer` and `Downstream.records`. A task that has
no method for it is asked by these two (`benchmark.answering.restored`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from benchmark.core import Attention, Downstream, Utterance

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Span:
    """A part of an answer that has a place in time: a word, a phone, a turn of a speaker.

    Attributes:
        text: what is heard there, or who.
        start_s: seconds from the start of the recording.
        end_s: likewise.
        label: what it is part of, such as a slot; "" for nothing.
        confidence: from 0 to 1, or None where the head has none to give.
    """

    text: str
    start_s: float
    end_s: float
    label: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a head answers to one recording.

    Attributes:
        utterance: the id of the recording, or ``ONE|OTHER`` of two that were compared.
        text: as the table of a result's utterances has it: a transcript, a label, a score.
        confidence: from 0 to 1, or None where the head has none to give.
        spans: its parts in time, in order; empty where the head does not know when.
        probabilities: what is told apart (such as ``label``) → its values → their probability.
        attention: what each symbol was answered from, of a head that attends.
    """

    utterance: str
    text: str
    confidence: float | None = None
    spans: tuple[Span, ...] = ()
    probabilities: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    attention: Attention | None = None


@dataclass(frozen=True)
class Reply:
    """What a head gives for one recording, before anybody explains it.

    Attributes:
        utterance: the recording.
        answer: of the task, as `Downstream.answer` has it.
        logits: of the head, ``[1, …]``.
        lengths: likewise, ``[1]``.
        vocabulary: the output symbols.
        hop_s: seconds between frames of the encoder.
        settings: the head's, as `Downstream.head` got them.
    """

    utterance: Utterance
    answer: Any
    logits: Any
    lengths: Tensor
    vocabulary: Sequence[str]
    hop_s: float
    settings: Mapping[str, Any]


@runtime_checkable
class Explains(Downstream, Protocol):
    """A task that can say more of an answer than its text."""

    def explain(self, reply: Reply) -> Answer:
        """The answer to one recording, of whose columns nothing is known."""
        ...


@runtime_checkable
class Compares(Downstream, Protocol):
    """A task whose answer is of two recordings."""

    def compare(self, one: Any, other: Any) -> str:  # noqa: ANN401 - as `Downstream.answer` has it
        """The score of two, as the table of a result's utterances has it.

        Args:
            one: the answer to one recording.
            other: that to the other.
        """
        ...


@runtime_checkable
class Keeps(Protocol):
    """A task that has learnt something beside its head, as by `prepared` or `tuned`."""

    def kept(self) -> Mapping[str, Any]:
        """What it has learnt, as values of JSON."""
        ...

    def with_kept(self, kept: Mapping[str, Any]) -> Downstream:
        """The same task with what another had learnt.

        Raises:
            KeyError, TypeError, ValueError: it is nothing of the kind.
        """
        ...
