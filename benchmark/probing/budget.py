"""Label budgets: so many minutes of train. Smaller ones are parts of larger ones.

How few labels a head needs is what self-supervision is about (Baevski et al. 2020, section 5.1,
whose subsets of 10 minutes, 1 hour and 10 hours are by Kahn et al. 2020).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.core import Utterance
from benchmark.errors import SuperbError

_SEED = 20200420  # any constant; the date of the Libri-light paper
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """At least so many seconds of train, in whole utterances.

    Attributes:
        text: as typed, such as ``10min``.
        seconds: how many.
    """

    text: str
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Budget | None:
        """What a user typed: ``90s``, ``10min``, ``1h``, or ``all``, which is None.

        Raises:
            SuperbError: for anything else.
        """
        if text == "all":
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", text)
        if not found or not float(found[1]):
            raise SuperbError(
                f"--labels is a number of s, min or h, such as 10min, or all; got {text!r}"
            )
        return cls(text, float(found[1]) * _SECONDS[found[2]])

    def published(self, utterances: Sequence[Utterance], ids: Sequence[str]) -> list[Utterance]:
        """The utterances of a published part of train, in their order.

        Raises:
            SuperbError: train lacks some.
        """
        wanted = set(ids)
        found = [utterance for utterance in utterances if utterance.id in wanted]
        if len(found) < len(wanted):
            lacking = sorted(wanted - {utterance.id for utterance in found})
            raise SuperbError(
                f"--labels {self.text}: of the {len(wanted)} utterances of the published part, "
                f"train lacks {len(lacking)}, such as {lacking[0]}. Take more of the corpus for "
                "train (--train-split), or another amount of labels, which is drawn"
            )
        return found

    def subset(
        self, utterances: Sequence[Utterance], seconds: Mapping[str, float], rerun: int
    ) -> list[int]:
        """Which utterances are within it, as places, in their order.

        All labels, or where there are none all speakers, have a turn before one has its next, in an
        order that each rerun draws anew. A larger budget of the same rerun holds all of a smaller.

        Args:
            utterances: all of train.
            seconds: how long each is, by id.
            rerun: another draw for each, from 0.

        Raises:
            SuperbError: train is shorter.
        """
        total = sum(seconds[utterance.id] for utterance in utterances)
        if total < self.seconds:
            raise SuperbError(
                f"--labels {self.text} asks for more than there is: train has {total / 60:.1f} "
                "min. Ask for less, or for all"
            )
        random = np.random.default_rng([_SEED, rerun])
        groups: dict[str, list[int]] = {}
        for place in random.permutation(len(utterances)):
            own = utterances[place]
            groups.setdefault(own.label or own.speaker, []).append(int(place))
        chosen: list[int] = []
        heard = 0.0
        for turn in range(max(map(len, groups.values()))):
            for group in groups.values():
                if turn < len(group):
                    if heard >= self.seconds:
                        return sorted(chosen)
                    chosen.append(group[turn])
                    heard += seconds[utterances[group[turn]].id]
        return sorted(chosen)
