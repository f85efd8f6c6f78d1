"""Do the intervals hold the truth as often as they say? Simulated test sets, where it is known.

``python -m benchmark.scoring.coverage`` prints the tables of ``docs/statistics.md``: how often the
95 % interval of a set holds the true score, by the method in use and by bootstraps over speakers.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmark.scoring.statistics import difference, interval, student_quantile

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

Scores = tuple[IntArray, IntArray, list[str]]
"""Numerators, denominators and speakers of the utterances of one system."""

Pairs = tuple[IntArray, IntArray, IntArray, IntArray, list[str]]
"""Numerators and denominators of two systems, and the speakers of the utterances of both."""

_Cases = Mapping[str, tuple[float, Callable[[np.random.Generator, int], Scores | Pairs]]]

SPEAKERS = (5, 10, 20, 40)
_DRAWS = 1_000  # of a bootstrap


def draw_answers(
    rng: np.random.Generator,
    speakers: int,
    mean: float,
    intraclass: float = 0.1,
    unequal: bool = False,
) -> Scores:
    """Right and wrong answers; speakers have their own, beta distributed rates.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        mean: expected share of right answers, which is the truth.
        intraclass: correlation of two answers of one speaker.
        unequal: 2 to 19 utterances a speaker instead of 10.
    """
    clusters = _clusters(rng, speakers, unequal)
    rates = _beta(rng, mean, intraclass, speakers)
    right = (rng.random(len(clusters)) < rates[clusters]).astype(np.int64)
    return right, np.ones_like(right), _names(clusters)


def draw_errors(
    rng: np.random.Generator,
    speakers: int,
    mean: float,
    sigma: float = 0.4,
    unequal: bool = False,
) -> Scores:
    """Errors in 3 to 30 words; speakers and utterances have their own rates.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        mean: expected errors per word, which is the truth.
        sigma: of the logarithm of the rates of speakers.
        unequal: 2 to 19 utterances a speaker instead of 10.
    """
    clusters = _clusters(rng, speakers, unequal)
    words = rng.integers(3, 31, len(clusters))
    rates = mean * np.exp(rng.normal(0, sigma, speakers) - sigma**2 / 2)
    hardness = rng.gamma(1.5, 1 / 1.5, len(clusters))
    return rng.poisson(rates[clusters] * hardness * words), words, _names(clusters)


def draw_answer_pairs(
    rng: np.random.Generator,
    speakers: int,
    mean: float,
    lost: float,
    won: float,
    unequal: bool = False,
) -> Pairs:
    """Answers of two systems: b loses some right ones of a and wins others, by speaker.

    The truth is ``(1 - mean) * won - mean * lost``.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        mean: expected share of right answers of a.
        lost: expected share of those that b gets wrong.
        won: expected share of wrong answers of a that b gets right.
        unequal: as in `draw_answers`.
    """
    right, ones, names = draw_answers(rng, speakers, mean, unequal=unequal)
    index = _index(names)
    change = np.where(
        right == 1,
        _beta(rng, lost, 0.1, speakers)[index],
        _beta(rng, won, 0.1, speakers)[index],
    )
    changed = (rng.random(len(right)) < change).astype(np.int64)
    return right, ones, right ^ changed, ones, names


def draw_error_pairs(
    rng: np.random.Generator,
    speakers: int,
    mean: float,
    kept: float,
    added: float,
    unequal: bool = False,
) -> Pairs:
    """Errors of two systems: b keeps some of those of a and adds its own, by speaker.

    The truth is ``mean * kept + added - mean``.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        mean: expected errors per word of a.
        kept: expected share of those that b makes too.
        added: expected errors per word that b alone makes.
        unequal: as in `draw_errors`.
    """
    errors, words, names = draw_errors(rng, speakers, mean, unequal=unequal)
    index = _index(names)
    own = rng.gamma(4, added / 4, speakers)[index]
    b_errors = rng.binomial(errors, _beta(rng, kept, 0.1, speakers)[index])
    return errors, words, b_errors + rng.poisson(own * words), words, names


SCORE_CASES: _Cases = {
    "accuracy 60 %": (60.0, partial(draw_answers, mean=0.6)),
    "accuracy 98 %": (98.0, partial(draw_answers, mean=0.98, intraclass=0.05)),
    "WER 8 %": (8.0, partial(draw_errors, mean=0.08)),
    "WER 30 %": (30.0, partial(draw_errors, mean=0.3)),
    "WER 8 %, few bad speakers": (8.0, partial(draw_errors, mean=0.08, sigma=0.8, unequal=True)),
}
"""Truth in percent, and what draws a test set of so many speakers."""

DIFFERENCE_CASES: _Cases = {
    "accuracy 60 → 62 %": (2.0, partial(draw_answer_pairs, mean=0.6, lost=0.1, won=0.2)),
    "accuracy 90 → 90 %": (0.0, partial(draw_answer_pairs, mean=0.9, lost=0.05, won=0.45)),
    "WER 8 → 8 %": (0.0, partial(draw_error_pairs, mean=0.08, kept=0.7, added=0.024)),
    "WER 30 → 27 %": (-3.0, partial(draw_error_pairs, mean=0.3, kept=0.7, added=0.06)),
    "WER 30 → 27 %, uneven": (
        -3.0,
        partial(draw_error_pairs, mean=0.3, kept=0.7, added=0.06, unequal=True),
    ),
}
"""Truth in percentage points, and what draws a test set of so many speakers."""


def bootstrap_ends(
    rng: np.random.Generator, drawn: Scores | Pairs, *, widened: bool
) -> tuple[float, float]:
    """The 95 % percentile bootstrap over speakers, in percent: what is *not* used.

    Args:
        rng: of the resampling.
        drawn: one system, or two of which the difference is taken.
        widened: stretched around the score by ``sqrt(G / (G - 1))`` for the G speakers, and by the
            quantile of t over that of the normal distribution.
    """
    index = _index(drawn[-1])
    groups = int(index.max()) + 1
    counts = [column for column in drawn if not isinstance(column, list)]
    sums = np.stack([np.bincount(index, column) for column in counts], axis=1)  # [speaker, count]
    weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=_DRAWS)

    def scores(totals: FloatArray) -> FloatArray:
        ratios = 100 * totals[:, ::2] / totals[:, 1::2]
        return np.asarray(ratios[:, -1] - (ratios[:, 0] if len(counts) == 4 else 0))

    low, high = np.quantile(scores((weights @ sums).astype(np.float64)), [0.025, 0.975])
    if not widened:
        return float(low), float(high)
    value = float(scores(sums.sum(axis=0, keepdims=True))[0])
    stretch = math.sqrt(groups / (groups - 1)) * student_quantile(0.975, groups - 1)
    stretch /= NormalDist().inv_cdf(0.975)
    return value + stretch * (float(low) - value), value + stretch * (float(high) - value)


def interval_ends(drawn: Scores | Pairs) -> tuple[float, float]:
    """The 95 % interval that is used, in percent: of a score, or of a difference of two."""
    found = interval(*drawn) if len(drawn) == 3 else difference(*drawn)
    return found.low, found.high


def _clusters(rng: np.random.Generator, speakers: int, unequal: bool) -> IntArray:
    sizes = rng.integers(2, 20, speakers) if unequal else np.full(speakers, 10)
    return np.repeat(np.arange(speakers), sizes)


def _beta(rng: np.random.Generator, mean: float, intraclass: float, size: int) -> FloatArray:
    strength = 1 / intraclass - 1
    return rng.beta(mean * strength, (1 - mean) * strength, size)


def _names(clusters: IntArray) -> list[str]:
    return [f"speaker {cluster}" for cluster in clusters]


def _index(names: list[str]) -> IntArray:
    return np.asarray([int(name.split()[1]) for name in names])


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.scoring.coverage", description=__doc__
    )
    parser.add_argument("--sets", type=int, default=1_000, help="simulated test sets a figure")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    methods: dict[str, Callable[[np.random.Generator, Scores | Pairs], tuple[float, float]]] = {
        "used here": lambda _, drawn: interval_ends(drawn),
        "percentile bootstrap": partial(bootstrap_ends, widened=False),
        "bootstrap widened": partial(bootstrap_ends, widened=True),
    }
    for title, cases in (("a score", SCORE_CASES), ("a paired difference", DIFFERENCE_CASES)):
        print(f"| {title} | method | {' | '.join(f'{count} speakers' for count in SPEAKERS)} |")
        print("|---|---|" + "---|" * len(SPEAKERS))
        for number, (name, (truth, draw)) in enumerate(cases.items()):
            # Every case has its own random numbers, so that a new one leaves the others alone.
            rng = np.random.default_rng([arguments.seed, len(title), number])
            held = {method: [0] * len(SPEAKERS) for method in methods}
            for column, speakers in enumerate(SPEAKERS):
                for _ in range(arguments.sets):
                    drawn = draw(rng, speakers)
                    for method, ends in methods.items():
                        low, high = ends(rng, drawn)
                        held[method][column] += low <= truth <= high
            for row, (method, counts) in enumerate(held.items()):
                shares = " | ".join(f"{100 * count / arguments.sets:.1f}" for count in counts)
                print(f"| {'' if row else name} | {method} | {shares} |")
        print(flush=True)


if __name__ == "__main__":
    main()
