"""One label for a whole utterance: what speaker identification and keyword spotting share.

Such tasks differ in what the label is, which their cards say; head, loss and metric are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmark.core import DownstreamCard, Record, Utterance

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn


class Classification:
    """Softmax over the labels of train, cross-entropy, accuracy.

    Args:
        card: what the task is; its first metric is a share of right answers. A subclass may have
            one of its own instead.
    """

    card: DownstreamCard
    training: Mapping[str, Any] = {"head": {"projection": 256}}

    def __init__(self, card: DownstreamCard | None = None) -> None:
        if card is not None:
            self.card = card

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The labels of train, sorted."""
        return tuple(sorted({utterance.label for utterance in train}))

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

    def records(self, utterances: Sequence[Utterance], answers: Sequence[str]) -> list[Record]:
        """Each answer, right or wrong."""
        metric = self.card.metric.name
        return [
            Record(u.id, (u.speaker,), u.label, answer, {metric: (int(answer == u.label), 1)})
            for u, answer in zip(utterances, answers, strict=True)
        ]
