"""Intent classification: several labels of a whole utterance (Yang et al. 2021, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from benchmark.answers import Answer, Reply
from benchmark.core import DownstreamCard, Metric, Record, Utterance
from benchmark.errors import SuperbError

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn

_CARD: Final = DownstreamCard(
    name="ic",
    title="Intent classification",
    version=1,
    metrics=(Metric("accuracy", "higher"),),
    features="mean",
    needs=("action", "object", "location"),
    closed_set=True,
    head="linear, mean over time, linear; softmax of each slot",
)


class Ic:
    """A value for every slot of an utterance's intent; right only if all are.

    Args:
        slots: the columns that hold them, in any order.

    Raises:
        SuperbError: there is no slot, or one has no name.
    """

    training: Mapping[str, Any] = {"head": {"projection": 256}}

    def __init__(self, slots: Sequence[str] = _CARD.needs) -> None:
        if not slots or any(not slot.strip() or "=" in slot for slot in slots):
            raise SuperbError(
                f"the slots of an intent are names of columns without '='; got {list(slots)!r}"
            )
        if set(slots) == set(_CARD.needs):
            self.card = _CARD
        else:
            own = tuple(sorted(set(slots)))
            self.card = replace(_CARD, title=f"{_CARD.title}: {', '.join(own)}", needs=own)

    def with_slots(self, slots: Sequence[str]) -> Ic:
        """The same task for other columns."""
        return Ic(slots)

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """``slot=value`` for the values of train, sorted within each slot."""
        return tuple(
            f"{slot}={value}"
            for slot in self.card.needs
            for value in sorted({utterance.value(slot) for utterance in train})
        )

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """Linear, mean over time, linear; setting: ``projection``."""
        from downstreams.heads import PooledClassifier

        return PooledClassifier(dim, settings["projection"], outputs)

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """Sum over slots of the mean cross-entropy."""
        import torch

        total = logits.new_zeros(())
        for slot, part in _parts(vocabulary):
            index = {name: place for place, name in enumerate(vocabulary[part])}
            targets = torch.tensor(
                [index[f"{slot}={utterance.value(slot)}"] for utterance in utterances],
                device=logits.device,
            )
            total = total + torch.nn.functional.cross_entropy(logits[:, part], targets)
        return total

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[tuple[str, ...]]:
        """The most probable value of each slot."""
        columns = [
            [vocabulary[part][place] for place in logits[:, part].argmax(dim=-1).tolist()]
            for _, part in _parts(vocabulary)
        ]
        return [
            tuple(name.partition("=")[2] for name in names) for names in zip(*columns, strict=True)
        ]

    def explain(self, reply: Reply) -> Answer:
        """The value of every slot, and the probability of every value.

        The confidence is that of all slots being right, were they independent.
        """
        slots: dict[str, dict[str, float]] = {}
        for slot, part in _parts(reply.vocabulary):
            names = [name.partition("=")[2] for name in reply.vocabulary[part]]
            (shares,) = reply.logits[:, part].softmax(dim=-1).tolist()
            slots[slot] = dict(zip(names, shares, strict=True))
        return Answer(
            reply.utterance.id,
            ", ".join(reply.answer),
            math.prod(max(values.values()) for values in slots.values()),
            probabilities=slots,
        )

    def records(
        self, utterances: Sequence[Utterance], answers: Sequence[Sequence[str]]
    ) -> list[Record]:
        """Each intent, right or wrong."""
        records = []
        for utterance, answer in zip(utterances, answers, strict=True):
            said = tuple(utterance.value(slot) for slot in self.card.needs)
            right = int(said == tuple(answer))
            records.append(
                Record(
                    utterance.id,
                    (utterance.speaker,),
                    ", ".join(said),
                    ", ".join(answer),
                    {"accuracy": (right, 1)},
                )
            )
        return records


def _parts(vocabulary: Sequence[str]) -> Iterator[tuple[str, slice]]:
    """Each slot and where its values stand in the vocabulary."""
    start = 0
    for slot, names in groupby(vocabulary, key=lambda name: name.partition("=")[0]):
        end = start + len(list(names))
        yield slot, slice(start, end)
        start = end
