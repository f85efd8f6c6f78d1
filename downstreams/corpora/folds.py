"""Cross-validation: several partitions of one corpus, in each of which another part is tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmark.errors import SuperbError

# One is tested, one is chosen on, and something must be left to train on.
FEWEST: Final = 3


def rotated(where: str, fold_of: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Each fold is tested once, with the next one as valid and all others as train.

    Choosing on a whole fold keeps its speakers out of train, as a random part of train would not.

    >>> rotated("here", {"a": "1", "b": "2", "c": "3"})["3"]
    {'a': 'valid', 'b': 'train', 'c': 'test'}

    Args:
        where: what messages name first.
        fold_of: utterance id → the fold in which it is tested.

    Returns:
        As `Corpus.folds` has it, folds sorted by name.

    Raises:
        SuperbError: there are too few folds.
    """
    names = sorted(set(fold_of.values()))
    if len(names) < FEWEST:
        raise SuperbError(
            f"{where} has {len(names)} fold{'s' * (len(names) != 1)} ({', '.join(names)}); one is "
            f"tested, the next one chosen on and the rest trained on, so there must be {FEWEST} or "
            "more. With fewer, write a column split instead"
        )
    folds = {}
    for place, test in enumerate(names):
        roles = dict.fromkeys(names, "train")
        roles |= {test: "test", names[(place + 1) % len(names)]: "valid"}
        folds[test] = {utterance: roles[own] for utterance, own in fold_of.items()}
    return folds
