"""Emotion recognition: the emotion of a whole utterance (Yang et al. 2021, section 3.1)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from benchmark.core import DownstreamCard, Metric, Record, Utterance
from downstreams.classification import Classification


class Er(Classification):
    """The label of an utterance, from the mean over time of a linear map of its frames.

    Both accuracies of the field: of utterances ("weighted") and mean over emotions ("unweighted").
    """

    card = DownstreamCard(
        name="er",
        title="Emotion recognition",
        version=1,
        metrics=(
            Metric("accuracy", "higher"),
            Metric("unweighted_accuracy", "higher", statistic="unweighted-accuracy"),
        ),
        features="mean",
        needs=("emotion",),
        label_from="emotion",
        closed_set=True,
        head="linear, mean over time, linear",
    )

    def records(self, utterances: Sequence[Utterance], answers: Sequence[str]) -> list[Record]:
        """Each answer, right or wrong, and a number that stands for its emotion."""
        return [
            Record(
                u.id,
                (u.speaker,),
                u.label,
                answer,
                {
                    "accuracy": (int(answer == u.label), 1),
                    "unweighted_accuracy": (int(answer == u.label), zlib.crc32(u.label.encode())),
                },
            )
            for u, answer in zip(utterances, answers, strict=True)
        ]
