"""Which utterances train together: deterministic, the same for every probe of a seed.

A seed is a whole rerun, so it draws the order of the data too. Probes of one seed see the same
batches: they share one pass over the stored features and still come out as if trained alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

_ORDER_SEED = 20210503  # any constant; the date of the SUPERB paper
_BUCKET = 8


def training_batches(
    lengths: Sequence[int], labels: Sequence[str], size: int, sampling: str, rerun: int = 0
) -> Iterator[list[int]]:
    """Endless batches of indices.

    Utterances of like length train together, so that little of a batch is padding: each epoch is
    shuffled, cut into stretches of eight batches, sorted by length within a stretch, and the
    batches are shuffled again. The last, smaller batch of an epoch is kept.

    Args:
        lengths: frames of each utterance.
        labels: class of each utterance, for balanced sampling.
        size: utterances in a batch.
        sampling: ``shuffle`` or ``balanced``.
        rerun: another order for each, from 0.
    """
    random = np.random.default_rng([_ORDER_SEED, rerun] if rerun else _ORDER_SEED)
    count = len(lengths)
    weights = None
    if sampling == "balanced":
        frequency = Counter(labels)
        weights = np.array([1.0 / frequency[label] for label in labels])
        weights /= weights.sum()
    while True:
        if weights is None:
            order = random.permutation(count)
        else:
            order = random.choice(count, size=count, p=weights)
        batches = []
        for start in range(0, count, size * _BUCKET):
            stretch = sorted(order[start : start + size * _BUCKET], key=lambda i: lengths[i])
            batches += [stretch[i : i + size] for i in range(0, len(stretch), size)]
        for index in random.permutation(len(batches)):
            yield [int(i) for i in batches[index]]


def evaluation_batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Every utterance once, those of like length together."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    return [order[start : start + size] for start in range(0, len(order), size)]
