"""Do the intervals hold the truth as often as they say? Simulated test sets, where it is known.

``python -m benchmark.scoring.coverage`` prints the tables of ``docs/statistics.md``: how often the
95 % interval of a set holds the true score, by the method in use and by bootstraps over speakers.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmark.core import Metric, Record
from benchmark.metrics import SEARCH_MISS_COST, SEARCH_PRIOR, find_statistic
from benchmark.scoring.statistics import difference_of, interval_of, student_quantile

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

FEW_SPEAKERS = (2, 3, 4, 5, 10)
SPEAKERS = (5, 10, 20, 40)
MANY_SPEAKERS = (10, 40, 200)
NOISE = 0.009  # standard deviation of the expected score of a rerun
RATIO = Metric("ratio", "lower")
EER = Metric("eer", "lower", "equal-error-rate")
MTWV = Metric("mtwv", "higher", "maximum-term-weighted-value")
_DRAWS = 1_000  # of a bootstrap
_TRIAL_DRAWS = 100  # of one that ranks scores anew each time


@dataclass(frozen=True)
class Drawn:
    """A simulated test set, scored by one system or by two whose difference is of interest.

    Attributes:
        systems: what each system's records hold ``[record, field]``, seeds stacked.
        speakers: of the records of one seed ``[record, 1 or 2]``, numbers from 0.
        metric: of the records.
        seeds: how many are stacked.
    """

    systems: Sequence[FloatArray]
    speakers: IntArray
    metric: Metric = RATIO
    seeds: int = 1


Ends = tuple[float, float]
"""Of a 95 % interval, in percent."""

_Cases = Mapping[str, tuple[float, Callable[[np.random.Generator, int], Drawn]]]
_Method = Callable[[np.random.Generator, Drawn], Ends]


def draw_answers(
    rng: np.random.Generator,
    speakers: int,
    mean: float,
    intraclass: float = 0.1,
    *,
    unequal: bool = False,
    change: tuple[float, float] | None = None,
) -> Drawn:
    """Right and wrong answers; speakers have their own, beta distributed rates.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        mean: expected share of right answers, which is the truth.
        intraclass: correlation of two answers of one speaker.
        unequal: 2 to 19 utterances a speaker instead of 10.
        change: expected shares of the right answers that a second system loses and of the wrong
            ones that it wins, by speaker; the true difference is
            ``(1 - mean) * won - mean * lost``.
    """
    index = _clusters(rng, speakers, unequal)
    rates = _beta(rng, mean, intraclass, speakers)
    right = rng.random(len(index)) < rates[index]
    systems = [right]
    if change:
        lost, won = (_beta(rng, share, 0.1, speakers)[index] for share in change)
        systems.append(right ^ (rng.random(len(index)) < np.where(right, lost, won)))
    return _counts(systems, np.ones(len(index)), index)


def draw_errors(
    rng: np.random.Generator,
    speakers: int,
    mean: float,
    sigma: float = 0.4,
    *,
    unequal: bool = False,
    change: tuple[float, float] | None = None,
) -> Drawn:
    """Errors in 3 to 30 words; speakers and utterances have their own rates.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        mean: expected errors per word, which is the truth.
        sigma: of the logarithm of the rates of speakers.
        unequal: 2 to 19 utterances a speaker instead of 10.
        change: expected share of the errors that a second system keeps, and errors per word that
            it adds, by speaker; the true difference is ``mean * kept + added - mean``.
    """
    index = _clusters(rng, speakers, unequal)
    words = rng.integers(3, 31, len(index))
    rates = mean * np.exp(rng.normal(0, sigma, speakers) - sigma**2 / 2)
    hardness = rng.gamma(1.5, 1 / 1.5, len(index))
    errors = rng.poisson(rates[index] * hardness * words)
    systems = [errors]
    if change:
        own = rng.gamma(4, change[1] / 4, speakers)[index]
        kept = rng.binomial(errors, _beta(rng, change[0], 0.1, speakers)[index])
        systems.append(kept + rng.poisson(own * words))
    return _counts(systems, words, index)


def draw_trials(
    rng: np.random.Generator,
    speakers: int,
    error_rate: float,
    b_error_rate: float | None = None,
    *,
    unequal: bool = False,
) -> Drawn:
    """Trials of speaker verification: as many between two speakers as of one with itself.

    Scores of one speaker's trials share a shift; those between two share that of either, and one of
    their pair. All are normal with variance 1, so that the equal error rate is known.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        error_rate: expected equal error rate, which is the truth.
        b_error_rate: that of a second system, whose scores are blurred by trial and by speaker.
        unequal: 2 to 19 trials of each kind a speaker instead of 10.
    """
    one = _clusters(rng, speakers, unequal)
    other = (one + rng.integers(1, speakers, len(one))) % speakers
    shift, pair = rng.normal(0, 0.4, speakers), np.triu(rng.normal(0, 0.4, (speakers, speakers)))
    others = shift[one] + shift[other] + (pair + pair.T)[one, other]
    others += rng.normal(0, math.sqrt(1 - 3 * 0.4**2), len(one))
    targets = rng.normal(0, 0.5, speakers)[one] + rng.normal(0, math.sqrt(0.75), len(one))
    place = NormalDist().inv_cdf
    targets -= 2 * place(error_rate)
    clusters = np.column_stack([np.append(one, one), np.append(one, other)])
    target = np.repeat([1, 0], len(one))
    scores = [np.append(targets, others)]
    if b_error_rate is not None:
        own = rng.normal(0, 0.15, speakers)
        blurred = scores[0] + own[clusters].sum(axis=1) * np.where(target == 1, 0.5, 0.5**0.5)
        # of equal spread for both kinds, so that the error rate stays known
        blurred += rng.normal(0, 0.5, len(target))
        spread = math.sqrt(1 + 0.15**2 + 0.5**2)
        scores.append(blurred + target * 2 * (place(error_rate) - spread * place(b_error_rate)))
    return Drawn([np.column_stack([own, target]) for own in scores], clusters, EER)


def draw_searches(
    rng: np.random.Generator, speakers: int, shift: float, *, terms: int = 0
) -> Drawn:
    """Searches of two queries a speaker in three documents a speaker, every third of which is hit.

    Scores share a shift by who asks, by who speaks, by query and by document; all are normal with
    variance 1, so that the best value at any threshold is known.

    Args:
        rng: where all that is random comes from.
        speakers: how many.
        shift: of the scores of targets.
        terms: how many there are to ask for; 0 for one of each query's own.
    """
    asks, says = np.repeat(np.arange(speakers), 2), np.repeat(np.arange(speakers), 3)
    query, document = (own.ravel() for own in np.indices((len(asks), len(says))))
    term = rng.permutation(len(asks)) % (terms or len(asks))
    target = (term[query] + rng.permutation(len(says))[document]) % 3 == 0
    scores = shift * target + rng.normal(0, 0.8, len(query))
    for index in (asks[query], says[document], query, document):
        scores += rng.normal(0, 0.3, int(index.max()) + 1)[index]
    clusters = np.column_stack([asks[query], says[document]])
    return Drawn([np.column_stack([scores, target, term[query]])], clusters, MTWV)


def best_value(shift: float) -> float:
    """The expected value of `draw_searches` at the best threshold, in percent."""
    beta = (1 - SEARCH_PRIOR) / (SEARCH_PRIOR * SEARCH_MISS_COST)
    normal = NormalDist()
    threshold = shift / 2 + math.log(beta) / shift  # where the densities are as 1 to beta
    return 100 * (1 - normal.cdf(threshold - shift) - beta * normal.cdf(-threshold))


def draw_reruns(
    rng: np.random.Generator,
    speakers: int,
    mean: float,
    *,
    seeds: int,
    answers: bool,
    paired: bool = False,
) -> Drawn:
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
    systems = []
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
    return _counts(systems, np.tile(words, seeds), index, seeds)


SCORE_CASES: _Cases = {
    "accuracy 60 %": (60.0, partial(draw_answers, mean=0.6)),
    "accuracy 98 %": (98.0, partial(draw_answers, mean=0.98, intraclass=0.05)),
    "WER 8 %": (8.0, partial(draw_errors, mean=0.08)),
    "WER 30 %": (30.0, partial(draw_errors, mean=0.3)),
    "WER 8 %, few bad speakers": (8.0, partial(draw_errors, mean=0.08, sigma=0.8, unequal=True)),
}
"""Truth in percent, and what draws a test set of so many speakers."""

WIDTH_CASES: _Cases = {
    "WER 8 %": (8.0, partial(draw_errors, mean=0.08)),
    "WER 30 %": (30.0, partial(draw_errors, mean=0.3)),
    "WER 30 %, uneven": (30.0, partial(draw_errors, mean=0.3, unequal=True)),
}
"""Likewise, for `show_widths`."""

_FEWER_ERRORS = partial(draw_errors, mean=0.3, change=(0.7, 0.06))
DIFFERENCE_CASES: _Cases = {
    "accuracy 60 → 62 %": (2.0, partial(draw_answers, mean=0.6, change=(0.1, 0.2))),
    "accuracy 90 → 90 %": (0.0, partial(draw_answers, mean=0.9, change=(0.05, 0.45))),
    "WER 8 → 8 %": (0.0, partial(draw_errors, mean=0.08, change=(0.7, 0.024))),
    "WER 30 → 27 %": (-3.0, _FEWER_ERRORS),
    "WER 30 → 27 %, uneven": (-3.0, partial(_FEWER_ERRORS, unequal=True)),
}
"""Truth in percentage points, and what draws a test set of so many speakers."""

TRIAL_CASES: _Cases = {
    "EER 2 %": (2.0, partial(draw_trials, error_rate=0.02)),
    "EER 6 %, uneven": (6.0, partial(draw_trials, error_rate=0.06, unequal=True)),
    "EER 20 %": (20.0, partial(draw_trials, error_rate=0.2)),
}
"""Likewise, of speaker verification."""

TRIAL_DIFFERENCE_CASES: _Cases = {
    "EER 6 → 6 %": (0.0, partial(draw_trials, error_rate=0.06, b_error_rate=0.06)),
    "EER 20 → 17 %": (-3.0, partial(draw_trials, error_rate=0.2, b_error_rate=0.17)),
}
"""Likewise, in percentage points."""

SEARCH_CASES: _Cases = {
    "MTWV 62 %": (best_value(3), partial(draw_searches, shift=3)),
    "MTWV 86 %": (best_value(4), partial(draw_searches, shift=4)),
    "MTWV 86 %, of 6 terms": (best_value(4), partial(draw_searches, shift=4, terms=6)),
}
"""Likewise, of searches."""


def _rerun_cases(*, paired: bool) -> _Cases:
    kinds = (("accuracy 60", 0.6, True), ("accuracy 98", 0.98, True), ("WER 30", 0.3, False))
    return {
        f"{name}{f' → {100 * mean:g}' * paired} %, {seeds} seed{'s' * (seeds > 1)}": (
            0.0 if paired else 100 * mean,
            partial(draw_reruns, mean=mean, seeds=seeds, answers=answers, paired=paired),
        )
        for name, mean, answers in kinds
        for seeds in (1, 3, 5)
    }


RERUN_CASES = _rerun_cases(paired=False)
"""Truth in percent: the expected score over speakers and reruns of training."""

RERUN_DIFFERENCE_CASES = _rerun_cases(paired=True)
"""Likewise, in percentage points."""


def ends(drawn: Drawn, *, reruns: bool = True) -> Ends:
    """The interval that is used, of a score or of the difference of two.

    Args:
        drawn: the test set.
        reruns: with the variance between seeds; otherwise that over speakers alone, as if all
            records were of one seed.
    """
    seeds = drawn.seeds if reruns else 1
    systems = [records(drawn, values, seeds) for values in drawn.systems]
    if len(systems) == 1:
        found = interval_of(systems[0], drawn.metric, seeds=seeds)
    else:
        found = difference_of(systems[0], systems[1], drawn.metric, seeds=seeds)
    return found.low, found.high


def records(drawn: Drawn, values: FloatArray, seeds: int = 1) -> list[Record]:
    """What one system scored, as records of so many seeds."""
    clusters = [tuple(map(str, own)) for own in drawn.speakers.tolist()] * drawn.seeds
    ids = [str(place) for place in range(len(values) // seeds)] * seeds
    name = drawn.metric.name
    return [
        Record(place, own, "", "", {name: tuple(row)})
        for place, own, row in zip(ids, clusters, values.tolist(), strict=True)
    ]


def bootstrap_ends(rng: np.random.Generator, drawn: Drawn, *, widened: bool = False) -> Ends:
    """The 95 % percentile bootstrap over speakers, of ratios: what is *not* used.

    Args:
        rng: of the resampling.
        drawn: one system, or two of which the difference is taken.
        widened: stretched around the score by ``sqrt(G / (G - 1))`` for the G speakers, and by the
            quantile of t over that of the normal distribution.
    """
    index = drawn.speakers[:, 0]
    groups = int(index.max()) + 1
    columns = np.concatenate(drawn.systems, axis=1).T
    sums = np.stack([np.bincount(index, column) for column in columns], axis=1)  # [speaker, count]
    weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=_DRAWS)

    def scores(totals: FloatArray) -> FloatArray:
        ratios = 100 * totals[:, ::2] / totals[:, 1::2]
        return np.asarray(ratios[:, -1] - (ratios[:, 0] if len(drawn.systems) == 2 else 0))

    low, high = np.quantile(scores((weights @ sums).astype(np.float64)), [0.025, 0.975])
    if not widened:
        return float(low), float(high)
    value = float(scores(sums.sum(axis=0, keepdims=True))[0])
    stretch = math.sqrt(groups / (groups - 1)) * student_quantile(0.975, groups - 1)
    stretch /= NormalDist().inv_cdf(0.975)
    return value + stretch * (float(low) - value), value + stretch * (float(high) - value)


def bootstrap_trial_ends(rng: np.random.Generator, drawn: Drawn) -> Ends:
    """The percentile bootstrap of an equal error rate over speakers: what is *not* used.

    A trial counts by the product of how often its speakers were drawn.
    """
    clusters = drawn.speakers
    speakers = int(clusters.max()) + 1
    linear = find_statistic(EER.statistic).linear
    found = []
    for times in rng.multinomial(speakers, np.full(speakers, 1 / speakers), size=_TRIAL_DRAWS):
        first, second = times[clusters].T
        weights = np.where(clusters[:, 0] == clusters[:, 1], first, first * second)
        found.append(100 * linear(np.repeat(drawn.systems[0], weights, axis=0)).value)
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def _counts(
    systems: Sequence[ArrayLike], out_of: ArrayLike, index: IntArray, seeds: int = 1
) -> Drawn:
    values = [np.column_stack([own, out_of]).astype(np.float64) for own in systems]
    return Drawn(values, index[:, None], seeds=seeds)


def _clusters(rng: np.random.Generator, speakers: int, unequal: bool) -> IntArray:
    sizes = rng.integers(2, 20, speakers) if unequal else np.full(speakers, 10)
    return np.repeat(np.arange(speakers), sizes)


def _beta(rng: np.random.Generator, mean: float, intraclass: float, size: int) -> FloatArray:
    strength = 1 / intraclass - 1
    return rng.beta(mean * strength, (1 - mean) * strength, size)


def show(
    title: str,
    cases: _Cases,
    methods: Mapping[str, _Method],
    columns: Sequence[int],
    *,
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
                for method, found in methods.items():
                    low, high = found(rng, drawn)
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
            found = [ends(draw(rng, speakers)) for _ in range(sets)]
            low, middle, high = np.quantile([b - a for a, b in found], [0.05, 0.5, 0.95])
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
    used: dict[str, _Method] = {"used here": lambda _, drawn: ends(drawn)}
    bootstrap: dict[str, _Method] = {"percentile bootstrap": bootstrap_ends}
    widened: dict[str, _Method] = {"bootstrap widened": partial(bootstrap_ends, widened=True)}
    trial_bootstrap: dict[str, _Method] = {"percentile bootstrap": bootstrap_trial_ends}
    alone: dict[str, _Method] = {"speakers alone": lambda _, drawn: ends(drawn, reruns=False)}
    table("a score", SCORE_CASES, used | bootstrap | widened, SPEAKERS)
    table("a paired difference", DIFFERENCE_CASES, used | bootstrap | widened, SPEAKERS)
    show_widths(arguments.sets, arguments.seed)
    table("an equal error rate", TRIAL_CASES, used | trial_bootstrap, SPEAKERS)
    table("a paired difference of those", TRIAL_DIFFERENCE_CASES, used, SPEAKERS)
    table("a term-weighted value", SEARCH_CASES, used, SPEAKERS)
    table("a score over reruns", RERUN_CASES, used | alone, MANY_SPEAKERS)
    table("a difference over reruns", RERUN_DIFFERENCE_CASES, used | alone, MANY_SPEAKERS)


if __name__ == "__main__":
    main()
