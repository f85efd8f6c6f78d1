"""Do the intervals hold the truth as often as they say? Simulated test sets, where it is known.

``python -m benchmark.scoring.coverage`` prints the tables of ``docs/statistics.md``: how often the
95 % interval of a set holds the true score, by the method in use and by bootstraps over speakers.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmark.core import Metric, Record
from benchmark.metrics import find_statistic
from benchmark.scoring.statistics import (
    difference,
    difference_of,
    interval,
    interval_of,
    student_quantile,
)

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

Scores = tuple[IntArray, IntArray, list[str]]
"""Numerators, denominators and speakers of the utterances of one system."""

Pairs = tuple[IntArray, IntArray, IntArray, IntArray, list[str]]
"""Numerators and denominators of two systems, and the speakers of the utterances of both."""

Trials = tuple[FloatArray, IntArray, IntArray]
"""Scores ``[trial, system]``, which trials are targets, and their speakers ``[trial, 2]``."""

Reruns = tuple[list[IntArray], IntArray, list[str]]
"""Numerators of each system, denominators, and speakers; the seeds stacked one after the other."""

_Drawn = TypeVar("_Drawn")
_Draw = Callable[[np.random.Generator, int], _Drawn]
_Cases = Mapping[str, tuple[float, _Draw[_Drawn]]]
_Ends = Callable[[np.random.Generator, _Drawn], tuple[float, float]]

FEW_SPEAKERS = (2, 3, 4, 5, 10)
SPEAKERS = (5, 10, 20, 40)
MANY_SPEAKERS = (10, 40, 200)
NOISE = 0.009  # standard deviation of the expected score of a rerun
EER = Metric("eer", "lower", "equal-error-rate")
_DRAWS = 1_000  # of a bootstrap
_TRIAL_DRAWS = 100  # of one that ranks scores anew each time


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


def draw_trials(
    rng: np.random.Generator, speakers: int, error_rate: float, unequal: bool = False
) -> Trials:
    """Trials of speaker verification: as many between two speakers as of one with itself.

    Scores of one speaker's trials share a shift; those between two share that of either, and one of
    their pair. All are normal with variance 1, so that the equal error rate is known.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        error_rate: expected equal error rate, which is the truth.
        unequal: as in `draw_answers`.
    """
    one = _clusters(rng, speakers, unequal)
    other = (one + rng.integers(1, speakers, len(one))) % speakers
    trials = len(one)
    shift, pair = rng.normal(0, 0.4, speakers), np.triu(rng.normal(0, 0.4, (speakers, speakers)))
    others = shift[one] + shift[other] + (pair + pair.T)[one, other]
    others += rng.normal(0, math.sqrt(1 - 3 * 0.4**2), trials)
    targets = rng.normal(0, 0.5, speakers)[one] + rng.normal(0, math.sqrt(0.75), trials)
    targets -= 2 * NormalDist().inv_cdf(error_rate)
    clusters = np.column_stack([np.append(one, one), np.append(one, other)])
    return np.append(targets, others)[:, None], np.repeat([1, 0], trials), clusters


def draw_trial_pairs(
    rng: np.random.Generator, speakers: int, error_rate: float, b_error_rate: float
) -> Trials:
    """Trials as two systems score them: b's scores are a's, blurred by trial and by speaker.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        error_rate: expected equal error rate of a.
        b_error_rate: expected equal error rate of b.
    """
    scores, target, clusters = draw_trials(rng, speakers, error_rate)
    own = rng.normal(0, 0.15, speakers)
    blurred = scores[:, 0] + own[clusters].sum(axis=1) * np.where(target == 1, 0.5, 0.5**0.5)
    # of equal spread for both kinds, so that the error rate stays known
    blurred += rng.normal(0, 0.5, len(target))
    spread = math.sqrt(1 + 0.15**2 + 0.5**2)
    normal = NormalDist()
    blurred += target * 2 * (normal.inv_cdf(error_rate) - spread * normal.inv_cdf(b_error_rate))
    return np.column_stack([scores[:, 0], blurred]), target, clusters


def draw_reruns(
    rng: np.random.Generator,
    speakers: int,
    mean: float,
    *,
    seeds: int,
    answers: bool,
    paired: bool = False,
) -> Reruns:
    """Reruns of training: each has an expected score of its own, 0.9 points around the mean.

    Speakers and utterances are the same for all reruns, and so is, for answers, what decides on two
    thirds of them. A paired system has as many reruns, and speakers that are harder or easier for
    it.

    Args:
        rng: where all that is random comes from.
        speakers: how many, with 10 utterances each.
        mean: expected score over speakers and reruns, which is the truth.
        seeds: reruns of each system.
        answers: right and wrong answers with speakers as in `draw_answers`; otherwise errors as in
            `draw_errors`.
        paired: two systems of the same mean, and so a true difference of 0.
    """
    index = _clusters(rng, speakers, unequal=False)
    count = len(index)
    words = np.ones(count, np.int64) if answers else rng.integers(3, 31, count)
    if answers:
        rates = _beta(rng, mean, 0.1 if mean < 0.9 else 0.05, speakers)
    else:
        rates = mean * np.exp(rng.normal(0, 0.4, speakers) - 0.4**2 / 2)
    decided, hardness = rng.random(count), rng.gamma(1.5, 1 / 1.5, count)
    systems: list[IntArray] = []
    for _ in range(1 + paired):
        own = rates
        if paired and answers:  # as many are lost as won
            won, lost = (_beta(rng, share, 0.1, speakers) for share in (0.3, 0.3 * (1 / mean - 1)))
            own = rates * (1 - lost) + (1 - rates) * won
        elif paired:
            own = rates * rng.gamma(100, 1 / 100, speakers)
        reruns = []
        for _ in range(seeds):
            if answers:
                rerun = _beta(rng, mean, NOISE**2 / (mean * (1 - mean)), 1)
                better = 1 - (1 - own) * (1 - rerun) / (1 - mean)
                moved = np.where(rerun > mean, better, own * rerun / mean)
                luck = np.where(rng.random(count) < 2 / 3, decided, rng.random(count))
                reruns.append((luck < moved[index]).astype(np.int64))
            else:
                moved = own * rng.normal(mean, NOISE) / mean
                reruns.append(rng.poisson(moved[index] * hardness * words))
        systems.append(np.concatenate(reruns))
    return systems, np.tile(words, seeds), _names(index) * seeds


SCORE_CASES: _Cases[Scores] = {
    "accuracy 60 %": (60.0, partial(draw_answers, mean=0.6)),
    "accuracy 98 %": (98.0, partial(draw_answers, mean=0.98, intraclass=0.05)),
    "WER 8 %": (8.0, partial(draw_errors, mean=0.08)),
    "WER 30 %": (30.0, partial(draw_errors, mean=0.3)),
    "WER 8 %, few bad speakers": (8.0, partial(draw_errors, mean=0.08, sigma=0.8, unequal=True)),
}
"""Truth in percent, and what draws a test set of so many speakers."""

WIDTH_CASES: _Cases[Scores] = {
    "WER 8 %": (8.0, partial(draw_errors, mean=0.08)),
    "WER 30 %": (30.0, partial(draw_errors, mean=0.3)),
    "WER 30 %, uneven": (30.0, partial(draw_errors, mean=0.3, unequal=True)),
}
"""Likewise, for `show_widths`."""

DIFFERENCE_CASES: _Cases[Pairs] = {
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


TRIAL_CASES: _Cases[Trials] = {
    "EER 2 %": (2.0, partial(draw_trials, error_rate=0.02)),
    "EER 6 %, uneven": (6.0, partial(draw_trials, error_rate=0.06, unequal=True)),
    "EER 20 %": (20.0, partial(draw_trials, error_rate=0.2)),
}
"""Likewise, of speaker verification."""

TRIAL_DIFFERENCE_CASES: _Cases[Trials] = {
    "EER 6 → 6 %": (0.0, partial(draw_trial_pairs, error_rate=0.06, b_error_rate=0.06)),
    "EER 20 → 17 %": (-3.0, partial(draw_trial_pairs, error_rate=0.2, b_error_rate=0.17)),
}
"""Likewise, in percentage points."""

_RERUNS = {
    "accuracy 60 %": (60.0, 0.6, True),
    "accuracy 98 %": (98.0, 0.98, True),
    "WER 30 %": (30.0, 0.3, False),
}
RERUN_CASES: _Cases[Reruns] = {
    f"{name}, {seeds} seed{'s' * (seeds > 1)}": (
        truth,
        partial(draw_reruns, mean=mean, seeds=seeds, answers=answers),
    )
    for name, (truth, mean, answers) in _RERUNS.items()
    for seeds in (1, 3, 5)
}
"""Truth in percent: the expected score over speakers and reruns of training."""

RERUN_DIFFERENCE_CASES: _Cases[Reruns] = {
    f"{name.replace(' %', f' → {truth:g} %')}, {seeds} seed{'s' * (seeds > 1)}": (
        0.0,
        partial(draw_reruns, mean=mean, seeds=seeds, answers=answers, paired=True),
    )
    for name, (truth, mean, answers) in _RERUNS.items()
    for seeds in (1, 3, 5)
}
"""Likewise, in percentage points."""


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


def trial_ends(drawn: Trials) -> tuple[float, float]:
    """The 95 % interval of an equal error rate, or of the difference of two, that is used."""
    scores, target, clusters = drawn
    systems = [
        [
            Record(str(place), (f"{one}", f"{other}"), "", "", {EER.name: (score, kind)})
            for place, (score, kind, (one, other)) in enumerate(
                zip(own.tolist(), target.tolist(), clusters.tolist(), strict=True)
            )
        ]
        for own in scores.T
    ]
    if len(systems) == 1:
        found = interval_of(systems[0], EER)
    else:
        found = difference_of(systems[0], systems[1], EER)
    return found.low, found.high


def bootstrap_trial_ends(rng: np.random.Generator, drawn: Trials) -> tuple[float, float]:
    """The percentile bootstrap of an equal error rate over speakers: what is *not* used.

    A trial counts by the product of how often its speakers were drawn.
    """
    scores, target, clusters = drawn
    speakers = int(clusters.max()) + 1
    values = np.column_stack([scores[:, 0], target])
    linear = find_statistic(EER.statistic).linear
    found = []
    for times in rng.multinomial(speakers, np.full(speakers, 1 / speakers), size=_TRIAL_DRAWS):
        first, second = times[clusters].T
        weights = np.where(clusters[:, 0] == clusters[:, 1], first, first * second)
        found.append(100 * linear(np.repeat(values, weights, axis=0)).value)
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def rerun_ends(drawn: Reruns, *, reruns: bool) -> tuple[float, float]:
    """The 95 % interval of several seeds.

    Args:
        drawn: one system, or two of which the difference is taken.
        reruns: with the variance between reruns; otherwise that over speakers alone, as if all
            answers were of one rerun.
    """
    systems, words, names = drawn
    seeds = len(names) // (len(set(names)) * 10) if reruns else 1
    if len(systems) == 1:
        found = interval(systems[0], words, names, seeds=seeds)
    else:
        found = difference(systems[0], words, systems[1], words, names, seeds=seeds)
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


def show(
    title: str,
    cases: _Cases[_Drawn],
    methods: Mapping[str, _Ends[_Drawn]],
    columns: Sequence[int],
    sets: int,
    seed: int,
) -> None:
    """Print a table of shares in percent: cases and methods down, numbers of speakers across."""
    print(f"| {title} | method | {' | '.join(f'{count} speakers' for count in columns)} |")
    print("|---|---|" + "---|" * len(columns))
    for number, (name, (truth, draw)) in enumerate(cases.items()):
        # Every case has its own random numbers, so that a new one leaves the others alone.
        rng = np.random.default_rng([seed, len(title), number])
        held = {method: [0] * len(columns) for method in methods}
        for column, speakers in enumerate(columns):
            for _ in range(sets):
                drawn = draw(rng, speakers)
                for method, ends in methods.items():
                    low, high = ends(rng, drawn)
                    held[method][column] += low <= truth <= high
        for row, (method, counts) in enumerate(held.items()):
            shares = " | ".join(f"{100 * count / sets:.1f}" for count in counts)
            print(f"| {'' if row else name} | {method} | {shares} |", flush=True)
    print(flush=True)


def show_widths(sets: int, seed: int) -> None:
    """Print what intervals over few speakers say: their width and how much it varies by luck."""
    print(f"| an error rate | {' | '.join(f'{count} speakers' for count in FEW_SPEAKERS)} |")
    print("|---|" + "---|" * len(FEW_SPEAKERS))
    for number, (name, (truth, draw)) in enumerate(WIDTH_CASES.items()):
        rng = np.random.default_rng([seed, number])
        cells = []
        for speakers in FEW_SPEAKERS:
            ends = [interval_ends(draw(rng, speakers)) for _ in range(sets)]
            low, middle, high = np.quantile([b - a for a, b in ends], [0.05, 0.5, 0.95])
            cells.append(f"{middle / truth:.1f} ({high / low:.0f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(flush=True)


def main() -> None:
    """Print all tables as Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.scoring.coverage", description=__doc__
    )
    parser.add_argument("--sets", type=int, default=1_000, help="simulated test sets a figure")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table = partial(show, sets=arguments.sets, seed=arguments.seed)
    ratios: dict[str, _Ends[Scores | Pairs]] = {
        "used here": lambda _, drawn: interval_ends(drawn),
        "percentile bootstrap": partial(bootstrap_ends, widened=False),
        "bootstrap widened": partial(bootstrap_ends, widened=True),
    }
    table("a score", SCORE_CASES, ratios, SPEAKERS)
    table("a paired difference", DIFFERENCE_CASES, ratios, SPEAKERS)
    show_widths(arguments.sets, arguments.seed)
    trials: dict[str, _Ends[Trials]] = {"used here": lambda _, drawn: trial_ends(drawn)}
    bootstrap = {"percentile bootstrap": bootstrap_trial_ends}
    table("an equal error rate", TRIAL_CASES, trials | bootstrap, SPEAKERS)
    table("a paired difference of those", TRIAL_DIFFERENCE_CASES, trials, SPEAKERS)
    reruns: dict[str, _Ends[Reruns]] = {
        "used here": lambda _, drawn: rerun_ends(drawn, reruns=True),
        "speakers alone": lambda _, drawn: rerun_ends(drawn, reruns=False),
    }
    table("a score over reruns", RERUN_CASES, reruns, MANY_SPEAKERS)
    table("a difference over reruns", RERUN_DIFFERENCE_CASES, reruns, MANY_SPEAKERS)


if __name__ == "__main__":
    main()
