"""One label for a whole utterance: speaker identification and keyword spotting.

The two differ in what the label is, which the corpus says; head, loss and metric are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core import DownstreamCard, Tally, Utterance
from downstreams.heads import PooledClassifier


class Classification:
    """Softmax over the labels of train, cross-entropy, accuracy."""

    def __init__(self, card: DownstreamCard) -> None:
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
        generator: torch.Generator,
    ) -> nn.Module:
        """Linear, mean over time, linear; setting: ``projection``."""
        return PooledClassifier(dim, settings["projection"], outputs)

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Nothing to add."""
        return []

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """Mean cross-entropy."""
        index = {label: position for position, label in enumerate(vocabulary)}
        targets = torch.tensor([index[u.label] for u in utterances], device=logits.device)
        return nn.functional.cross_entropy(logits, targets)

    def tally(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[Tally]:
        """The most probable label of each utterance, right or wrong."""
        answers = [vocabulary[index] for index in logits.argmax(dim=-1).tolist()]
        return [
            Tally(u.id, u.speaker, u.label, answer, {"accuracy": (int(answer == u.label), 1)})
            for u, answer in zip(utterances, answers, strict=True)
        ]
