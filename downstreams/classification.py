"""One label for a whole utterance: what speaker identification and keyword spotting share.

Such tasks differ in what the label is, which their cards say; head, loss and metric are the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from benchmark.answers import Answer, Reply
from benchmark.core import DownstreamCard, Record, Utterance
from benchmark.errors import SuperbError

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn


# 1, 01 and 1.0 alike
_WHOLE: Final = re.compile(r"([+-]?\d{1,18})(?:\.0*)?")


class Classification:
    """Softmax over the labels of train, cross-entropy, accuracy.

    Args:
        card: what the task is; its first metric is a share of right answers. A subclass may have
            one of its own instead. A label that train does not have is an error, as none of these
            heads can answer it.

    Raises:
        SuperbError: the card needs no label.
    """

    card: DownstreamCard
    training: Mapping[str, Any] = {"head": {"projection": 256}}

    def __init__(self, card: DownstreamCard | None = None) -> None:
        card = getattr(self, "card", None) if card is None else card
        if card is None:
            return  # which is told to whoever loads it
        if not card.labelled:
            raise SuperbError(
                f"task {card.name!r} tells labels apart, and its card needs none: name a column "
                'with label_from="COLUMN", needs=("COLUMN",), or needs=("label",)'
            )
        self.card = replace(card, closed_set=True)

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The labels of train, sorted."""
        return tuple(sorted({utterance.label for utterance in train}))

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Labels that may be meant to be one: they differ in case, or in how a number is written.

        They are two classes all the same: ``a`` and ``A`` may be two speakers.
        """
        alike: dict[str, list[str]] = defaultdict(list)
        for label in self.vocabulary(train):
            number = _WHOLE.fullmatch(label)
            alike[str(int(number[1])) if number else label.casefold()].append(label)
        pairs = [" and ".join(map(repr, own)) for own in alike.values() if len(own) > 1]
        if not pairs:
            return []
        return [
            f"labels that differ only in case or in how a number is written count as different: "
            f"{'; '.join(pairs[:3])}{f' … ({len(pairs)} in all)' if len(pairs) > 3 else ''}"
        ]

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
        """Mean cross-entropy."""
        import torch

        index = {label: position for position, label in enumerate(vocabulary)}
        targets = torch.tensor([index[u.label] for u in utterances], device=logits.device)
        return torch.nn.functional.cross_entropy(logits, targets)

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[str]:
        """The most probable label of each utterance."""
        return [vocabulary[index] for index in logits.argmax(dim=-1).tolist()]

    def explain(self, reply: Reply) -> Answer:
        """The label, and the probability of every label."""
        (shares,) = reply.logits.softmax(dim=-1).tolist()
        row = dict(zip(reply.vocabulary, shares, strict=True))
        # an answer of a subclass may be none of the labels
        return Answer(
            reply.utterance.id,
            str(reply.answer),
            row.get(reply.answer),
            probabilities={self.card.label_from: row},
        )

    def records(self, utterances: Sequence[Utterance], answers: Sequence[str]) -> list[Record]:
        """Each answer, right or wrong."""
        metric = self.card.metric.name
        return [
            Record(u.id, (u.speaker,), u.label, answer, {metric: (int(answer == u.label), 1)})
            for u, answer in zip(utterances, answers, strict=True)
        ]
