"""Intervals for scores: speakers, not utterances, are what a test set samples.

Utterances of one speaker succeed and fail together, so the variance is taken between speakers
(clusters), never between utterances. `interval_of` and `difference_of` are for any metric of
records, which may belong to two speakers.

How the interval is made, and why it is not a percentile bootstrap:

1. The variance is the delete-one-speaker jackknife (Quenouille 1956; for ratios, Cochran,
   *Sampling Techniques*, 3rd ed. 1977, section 6.17). It is deterministic, takes one pass, and
   stays honest where few speakers of unequal size make a bootstrap too narrow (MacKinnon & Webb
   2017, "Wild bootstrap inference for wildly different cluster sizes").
2. Divided by the variance of independent trials it is the design effect, which enters a score
   interval (Wilson 1927, "Probable inference"; with a design effect for clustered data, Dean &
   Pagano 2015, "Evaluating confidence interval methods for binomial proportions in clustered
   surveys"). A score interval is skewed the right way near 0 % and 100 % and keeps its width
   there, where a bootstrap of a perfect score answers "100 % exactly".
3. The quantile is Student's t with one degree of freedom less than the effective number of
   speakers, which is their number when all have as much to say (Carter, Schnepel & Steigerwald
   2017, "Asymptotic behavior of a t-test robust to cluster heterogeneity"; here in Kish's form).

Measured on 1,000 simulated test sets for each of 36 cases (``python -m
benchmark.scoring.coverage``; 5, 10, 20 and 40 speakers; scores and paired differences of accuracies
and error rates that differ between speakers): 95 % intervals made this way hold the truth in 93 to
99 % of the sets, those of percentile bootstraps over speakers in 57 to 95 %, and those of
bootstraps widened for the number of speakers in 57 to 99 %. Where a few speakers are far worse than
all others (log-normal error rates of sigma 0.8) some 92 % is left, as a test set may not include
one of them; nothing computed from the others can tell.

An interval of one seed says how the score of *this* trained head would move with other speakers;
it does not contain the luck of training. With several seeds, each a whole rerun, it says how their
mean would move with other speakers and other reruns (`_with_reruns`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, stdev

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError
from benchmark.metrics import find_statistic, nothing_to_score

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Up to here the quantile of Student's t is found from its exact distribution; beyond, the
# expansion around the normal quantile is exact to double precision anyway.
_EXACT_DEGREES = 2_000

# Fields of values that say which kind a record is of, where a statistic needs some of every kind.
_KINDS = ("class", "target")


@dataclass(frozen=True)
class Interval:
    """A score, or a difference of two, with its confidence interval.

    Attributes:
        value: in the unit of its metric, percent for most.
        low: lower end, likewise.
        high: upper end, likewise.
        confidence: e.g. 0.95.
        clusters: how many units the variance comes from: speakers, unless `by_utterance`.
        utterances: how many different utterances (or trials) were scored, those that several
            folds share once.
        by_utterance: True if utterances had to stand in for speakers: those without a speaker's
            name, and those of a speaker without whom there would be nothing to score, or no class
            or kind of trial as theirs, such as an only speaker. The interval then says nothing
            about others in their place, and `clusters` is no number of speakers.
    """

    value: float
    low: float
    high: float
    confidence: float
    clusters: int
    utterances: int
    by_utterance: bool = False


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """Score of b minus score of a on the same utterances, in percentage points for most.

    Attributes:
        standard_error: of the difference; 0 only where a mean of values never varies.
        degrees: of freedom of its Student's t distribution.
    """

    standard_error: float
    degrees: int

    @property
    def p_value(self) -> float:
        """Two-sided, by the same t distribution: below 0.05 where a 95 % interval leaves out 0."""
        if self.standard_error == 0:
            return 1.0 if self.value == 0 else 0.0
        return student_p_value(self.value / self.standard_error, self.degrees)

    def detectable(self, level: float = 0.05, power: float = 0.8) -> float:
        """The smallest true difference that a test set like this one would most likely have shown.

        ``(t(1 - level / 2) + t(power)) * standard_error``, the minimum detectable effect (Bloom
        1995, "Minimum detectable effects").

        Args:
            level: of the two-sided test.
            power: the share of such test sets in which the test finds that difference.

        Returns:
            In the unit of the difference.
        """
        quantiles = (student_quantile(share, self.degrees) for share in (1 - level / 2, power))
        return self.standard_error * sum(quantiles)


def interval_of(
    records: Sequence[Record], metric: Metric, *, confidence: float = 0.95, seeds: int = 1
) -> Interval:
    """Any metric over records, with its interval over their clusters.

    The value is the mean of the seeds' and, within each, of the folds' values. The ends are those
    of a score interval where the statistic has bounds: within [0, 100] % where it lies between 0
    and 1, and not below 0 for other ratios. A mean of values has a plain t interval.

    Args:
        records: of one test set; with several seeds one after the other, each with the same ids
            in the same order. The same record under another seed or in another fold is no new
            evidence about speakers: it stays in its clusters. A cluster of the name ``""`` is the
            record's own.
        metric: which of their values.
        confidence: the share of such intervals that hold the true score.
        seeds: how many are stacked.

    Returns:
        The interval, in the unit of the metric.

    Raises:
        SuperbError: when there is nothing to score, the values do not fit the metric or the seeds
            each other, or there is but one record and its value has no bounds.
    """
    sample = _Sample(records, metric, seeds)
    units = _units([sample])
    variance, degrees = _with_reruns(*_variance(units, [sample]), [sample.by_seed])
    quantile = student_quantile((1 + confidence) / 2, degrees)
    if sample.trials is None:
        half = quantile * math.sqrt(variance)
        low, high = sample.value - half, sample.value + half
    else:
        low, high = _score_ends(
            sample.value,
            variance,
            trials=sample.trials,
            quantile=quantile,
            proportion=sample.is_proportion,
        )
    scale = 100.0 if metric.unit == "%" else 1.0
    return Interval(
        scale * sample.value,
        scale * low,
        scale * high,
        confidence,
        units.count,
        sample.utterances,
        units.by_utterance,
    )


def difference_of(
    a_records: Sequence[Record],
    b_records: Sequence[Record],
    metric: Metric,
    *,
    confidence: float = 0.95,
    seeds: int = 1,
) -> Difference:
    """Any metric of b minus that of a, on the same test set.

    Paired: leaving out a speaker leaves it out of both, so what makes a speaker hard for both
    systems cancels. Where the metric has bounds, the standard error is at least one error in the
    whole test set: two systems that never differed in 100 utterances are not known to be equal to
    a tenth of a percent (half an observation in each cell: Agresti & Min 2005, "Simple improved
    confidence intervals for comparing matched proportions").

    Args:
        a_records: of system a, as in `interval_of`.
        b_records: of system b, with the same ids in the same order.
        metric: which of their values.
        confidence: the share of such intervals that hold the true difference.
        seeds: how many are stacked in each. A seed of a and the same seed of b are two reruns that
            have nothing to do with each other.

    Raises:
        SuperbError: as in `interval_of`, and when the records of b are not of those of a.
    """
    a, b = _Sample(a_records, metric, seeds), _Sample(b_records, metric, seeds)
    if a.places != b.places:
        raise SuperbError(
            "a paired difference needs the same records in the same order: "
            f"got {len(a_records)} and {len(b_records)}, or other ids, clusters or folds"
        )
    units = _units([a, b])
    variance, degrees = _with_reruns(*_variance(units, [b, a]), [a.by_seed, b.by_seed])
    error = math.sqrt(variance)
    if a.trials is not None and b.trials is not None:
        error = max(error, 1 / (min(a.trials, b.trials) + 2))
    value = b.value - a.value
    half = error * student_quantile((1 + confidence) / 2, degrees)
    low, high = value - half, value + half
    if a.is_proportion and b.is_proportion:
        low, high = max(low, -1.0), min(high, 1.0)
    scale = 100.0 if metric.unit == "%" else 1.0
    return Difference(
        scale * value,
        scale * low,
        scale * high,
        confidence,
        units.count,
        a.utterances,
        units.by_utterance,
        standard_error=scale * error,
        degrees=degrees,
    )


def mcnemar(a_right: ArrayLike, b_right: ArrayLike) -> float:
    """Exact two-sided p-value of McNemar's test (1947) that a and b are right equally often.

    Of the utterances that one gets right and the other wrong, half should favour each: a binomial,
    which is added up exactly however many there are. It takes utterances for independent, which
    those of one speaker are not, and so is a check beside `difference_of` rather than the test
    that counts.

    Args:
        a_right: 1 for each right answer of system a, and 0 otherwise.
        b_right: those of system b for the same utterances in the same order.
    """
    gained = _paired(a_right, b_right)
    better, worse = int(np.sum(gained > 0)), int(np.sum(gained < 0))
    trials, term, tail = better + worse, 1, 0
    for successes in range(min(better, worse) + 1):
        tail += term
        term = term * (trials - successes) // (successes + 1)
    return min(1.0, float(2 * tail / 2**trials))


def matched_pairs(a_errors: ArrayLike, b_errors: ArrayLike) -> float:
    """Two-sided p-value of the matched-pairs test on error counts of segments.

    Gillick & Cox 1989, "Some statistical issues in the comparison of speech recognition
    algorithms": the mean difference in errors per segment over its standard error, as a standard
    normal variable. Their segments are chosen so that errors in one do not depend on another;
    here each utterance is one. Speakers are left out of account, as in `mcnemar`.

    Args:
        a_errors: errors of system a, one count per utterance, added over seeds if there are more.
        b_errors: those of system b for the same utterances in the same order.

    Returns:
        1 where all utterances differ by the same number of errors: there is no variance to judge
        by.
    """
    gained = _paired(a_errors, b_errors)
    spread = float(gained.std(ddof=1)) if len(gained) > 1 else 0.0
    if spread == 0:
        return 1.0
    normal = float(gained.mean()) / (spread / math.sqrt(len(gained)))
    return math.erfc(abs(normal) / math.sqrt(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the order given (Holm 1979, step-down Bonferroni).

    Calling every adjusted value below 0.05 a difference errs once or more in at most 5 % of all
    families of comparisons, however the comparisons depend on each other.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    for rank, position in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[position])
        adjusted[position] = min(1.0, largest)
    return adjusted


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Spearman's rank correlation (1904), ties at their mean rank; None where one never varies.

    Args:
        x: values, at least two.
        y: as many.
    """
    a, b = (_ranks(np.asarray(values, dtype=np.float64)) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(np.sum(a**2)) * float(np.sum(b**2)))
    return float(np.sum(a * b)) / scale if scale > 0 else None


def seed_std(values: Sequence[float]) -> float | None:
    """Sample standard deviation of a score over seeds, in its own unit; None for one seed.

    A seed is a whole rerun of training, so this is how much a score moves from rerun to rerun on
    one test set: their data order, masks, crops, initial weights and dropout.
    """
    return stdev(values) if len(values) > 1 else None


@lru_cache(maxsize=256)
def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution, to about 12 digits.

    For few degrees of freedom the distribution is a finite sum (Abramowitz & Stegun, 26.7.3 and
    26.7.4), solved by halving; for many, the expansion of 26.7.5 around the normal quantile.

    Args:
        probability: above 0.5 and below 1.
        degrees: degrees of freedom, at least 1.
    """
    if not 0.5 < probability < 1 or degrees < 1:
        raise ValueError(f"no quantile for probability {probability}, {degrees} degrees")
    if degrees > _EXACT_DEGREES:
        return _student_expansion(NormalDist().inv_cdf(probability), degrees)
    target = 2 * probability - 1
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        if _student_central(middle, degrees) < target:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def student_p_value(statistic: float, degrees: int) -> float:
    """Two-sided p-value of Student's t, to about 1e-12; a far smaller one may come out as 0.

    Args:
        statistic: the value of t; its sign does not matter.
        degrees: degrees of freedom, at least 1.
    """
    angle = math.atan(abs(statistic) / math.sqrt(degrees))
    return max(0.0, 1 - _student_central(angle, degrees))


def _student_central(angle: float, degrees: int) -> float:
    """Probability that ``|t| < sqrt(degrees) * tan(angle)``."""
    sine, cosine = math.sin(angle), math.cos(angle)
    if degrees % 2:
        steps = np.arange(2, degrees - 1, 2, dtype=np.float64)
        terms = np.cumprod(steps / (steps + 1) * cosine**2)
        series = cosine * (1 + float(terms.sum())) if degrees > 1 else 0.0
        return 2 / math.pi * (angle + sine * series)
    steps = np.arange(1, degrees - 2, 2, dtype=np.float64)
    terms = np.cumprod(steps / (steps + 1) * cosine**2)
    return sine * (1 + float(terms.sum()))


def _student_expansion(z: float, degrees: int) -> float:
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


class _Sample:
    """The records of a test set, as resampling wants them.

    Attributes:
        value: the mean over seeds of the statistic, itself the mean over folds.
        by_seed: the statistic of each seed.
        places: id, clusters and fold of the records of one seed.
        names: a number for the id of each of them.
        kinds: a number for the kind of each of them, if the statistic needs some of every kind.
        influence: how the value moves with the weight of each of them; see `metrics.Linear`.
        share: likewise.
        utterances: how many different ids there are.
        trials: what one seed is worth in independent answers; None for what has no bounds.
        is_proportion: whether the statistic lies between 0 and 1.
    """

    def __init__(self, records: Sequence[Record], metric: Metric, seeds: int) -> None:
        statistic = find_statistic(metric.statistic)
        if not records:
            raise nothing_to_score(metric)
        if seeds < 1 or len(records) % seeds:
            raise SuperbError(f"{len(records)} records cannot be {seeds} seeds of the same ones")
        length = len(records) // seeds
        places = [(record.id, record.clusters, record.fold) for record in records]
        self.places = places[:length]
        if places != self.places * seeds:
            raise SuperbError("the seeds must hold the same records in the same order")
        values: FloatArray = np.asarray(
            [record.values[metric.name] for record in records], dtype=np.float64
        )
        if values.ndim != 2 or values.shape[1] != len(statistic.fields):
            raise SuperbError(
                f"{metric.name} is {metric.statistic} of {', '.join(statistic.fields)}: every "
                f"record needs {len(statistic.fields)} numbers, got {records[0].values!r:.80}"
            )
        if not np.all(np.isfinite(values)):
            raise SuperbError(f"the values of {metric.name} must be finite numbers")
        if metric.statistic in ("ratio", "f1") and np.any(values < 0):
            raise SuperbError(f"the values of {metric.name} must be counts, which are not negative")
        own_values = values.reshape(seeds, length, -1)
        in_fold = _numbers([fold for _, _, fold in self.places])
        folds = [np.flatnonzero(in_fold == fold) for fold in range(in_fold.max() + 1)]
        self.influence: FloatArray = np.zeros(length)
        self.share: FloatArray = np.zeros(length)
        self.by_seed: FloatArray = np.zeros(seeds)
        for seed, seed_values in enumerate(own_values):
            parts = [statistic.linear(seed_values[rows]) for rows in folds]
            self.by_seed[seed] = mean = np.mean([part.value for part in parts])
            for rows, part in zip(folds, parts, strict=True):
                # Folds differ by their speakers too.
                influence = part.influence + part.share * (part.value - mean)
                self.influence[rows] += influence / len(folds) / seeds
                self.share[rows] += part.share / len(folds) / seeds
        self.value = float(self.by_seed.mean())
        if self.value != self.value:
            raise nothing_to_score(metric)
        self.names = _numbers([name for name, _, _ in self.places])
        self.utterances = int(self.names.max()) + 1
        different = own_values[:, np.unique(self.names, return_index=True)[1]]
        self.kinds = np.zeros(length, np.int64)
        if statistic.fields[-1] in _KINDS:
            self.kinds = np.unique(own_values[0, :, -1], return_inverse=True)[1]
        if metric.statistic == "ratio":
            self.trials: float | None = float(different[..., 1].sum()) / seeds
            self.is_proportion = bool(np.all(values[:, 1] == 1) and np.all(values[:, 0] <= 1))
        else:
            self.is_proportion = statistic.trials is not None
            self.trials = statistic.trials(different[0]) if statistic.trials else None
        if self.trials is None and self.utterances < 2:
            raise SuperbError(
                f"one test record, {self.places[0][0]}, does not tell how sure its {metric.name} "
                "is: that takes two or more"
            )


@dataclass(frozen=True)
class _Units:
    """What is left out at a time.

    Attributes:
        of: the two units of each record ``[record, 2]``, the same twice where it is in one.
        count: how many there are.
        by_utterance: whether some are records.
    """

    of: IntArray
    count: int
    by_utterance: bool


def _units(systems: Sequence[_Sample]) -> _Units:
    """The clusters of records; where one is not known, or cannot be left out, the records.

    Without a cluster that all records of a kind are in, there is nothing to tell how that kind
    would come out for another (in surveys, a stratum with a single sampling unit). The other
    cluster of these records is their unit then, and a record without another stands for itself.

    Args:
        systems: that scored the same records.
    """
    places, names, kinds = systems[0].places, systems[0].names, systems[0].kinds
    of_records = [clusters for _, clusters, _ in places]
    numbers: dict[str, int] = {}
    known = []
    for clusters in dict.fromkeys(of_records):
        if not 1 <= len(clusters) <= 2:
            raise SuperbError(f"a record has one cluster or two, got {clusters!r:.80}")
        own = [numbers.setdefault(name, len(numbers)) if name else -1 for name in clusters]
        known.append((own[0], own[-1]))
    given = np.asarray(known)[_numbers(of_records)]
    itself = (len(numbers) + names)[:, None]
    members = np.where(given < 0, itself, given)
    units = members.copy()
    for kind in range(int(kinds.max()) + 1):
        rows = np.flatnonzero(kinds == kind)
        for counted in (members[rows[system.share[rows] > 0]] for system in systems):
            for cluster in np.unique(counted[:1]):
                if np.all((counted[:, 0] == cluster) | (counted[:, 1] == cluster)):
                    own_units = units[rows]
                    other = np.where(own_units == cluster, own_units[:, ::-1], own_units)
                    units[rows] = np.where(other == cluster, itself[rows], other)
    present = np.bincount(units.ravel()) > 0
    by_utterance = bool(np.any(present[len(numbers) :]))
    return _Units((np.cumsum(present) - 1)[units], int(present.sum()), by_utterance)


def _variance(units: _Units, systems: Sequence[_Sample]) -> tuple[float, int]:
    """What other units would change, and its degrees of freedom; of the first less the second.

    The jackknife that leaves out one unit at a time, with all records that it is in (Arvesen 1969,
    "Jackknifing U-statistics"), of the statistic made linear: where it turns on single scores, as
    the equal error rate does, a plain jackknife measures their gaps as well and comes out at about
    twice the variance.

    A record between two clusters is left out with either, so what is particular to a pair of
    them counts twice; leaving out one pair at a time shows how much that is, and it is taken
    off once (as for regressions: Aronow, Samii & Assenova 2015, "Cluster-robust variance
    estimation for dyadic data"). At least half is kept, which is right where nothing but
    pairs vary.
    """
    first, second = units.of.T
    two = np.flatnonzero(first != second)
    left_out, rows = np.append(first, second[two]), np.append(np.arange(len(first)), two)
    variance = (units.count - 1) / units.count * _moved(left_out, rows, systems)
    if len(two):
        pairs = np.sort(units.of[two], axis=1) @ [units.count, 1]
        twice = _moved(np.unique(pairs, return_inverse=True)[1], two, systems)
        variance = max(variance - twice, variance / 2)
    shares = _sums(left_out, systems[0].share[rows])
    # Halves are rounded alike however the shares were rounded.
    effective = round(float(shares.sum() ** 2 / np.sum(shares**2)), 9)
    return variance, max(round(effective) - 1, 1)


def _moved(units: IntArray, rows: IntArray, systems: Sequence[_Sample]) -> float:
    """Sum over units of the squares of how far the value moves without the records of each.

    Args:
        units: which unit each of `rows` is in.
        rows: records, once for each unit that they are in.
        systems: one, or two whose difference is the value.
    """
    moves = []
    for system in systems:
        influence, share = (_sums(units, own[rows]) for own in (system.influence, system.share))
        # Without what leaves nothing to score, nothing can be said to move.
        moves.append(np.divide(influence, 1 - share, where=share < 1 - 1e-9, out=0 * influence))
    return float(np.sum((moves[0] - (moves[1] if len(moves) > 1 else 0.0)) ** 2))


def _numbers(names: Sequence[Hashable]) -> IntArray:
    """0, 1, …, the same for the same name, in order of their first."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.fromiter(map(numbers.__getitem__, names), np.int64, len(names))


def _sums(units: IntArray, counts: FloatArray) -> FloatArray:
    """Counts per unit."""
    return np.asarray(np.bincount(units, weights=counts), dtype=np.float64)


def _with_reruns(variance: float, degrees: int, systems: Sequence[FloatArray]) -> tuple[float, int]:
    """The variance over speakers, joined by that over reruns; its degrees of freedom.

    A seed is a whole rerun of training. The mean of S of them moves, when all are run anew, by
    1 / S of the variance between reruns, which the S at hand estimate on S - 1 degrees of freedom.
    Degrees of the sum after Satterthwaite (1946). One seed cannot know and adds nothing.

    Args:
        variance: over speakers.
        degrees: its degrees of freedom.
        systems: the scores of the seeds of each system that has a part in the number.
    """
    parts = [(variance, degrees)] + [
        # less the first, so that equal scores differ by 0 exactly
        (float(np.var(scores - scores[0], ddof=1)) / len(scores), len(scores) - 1)
        for scores in systems
        if len(scores) > 1
    ]
    total = sum(part for part, _ in parts)
    if len(parts) == 1 or total == 0:
        return variance, degrees
    satterthwaite = total**2 / sum(part**2 / own for part, own in parts)
    return total, max(round(satterthwaite), 1)


def _score_ends(
    ratio: float, variance: float, *, trials: float, quantile: float, proportion: bool
) -> tuple[float, float]:
    """Every rate that the data do not reject: a score interval with a design effect.

    The ends solve ``(ratio - rate)^2 = quantile^2 * effect * spread(rate) / trials``, where
    spread is ``rate * (1 - rate)`` for answers that are right or wrong, and ``rate`` for error
    counts, which insertions can push above one per word.

    The design effect is at least that of independent trials: speakers who happen to agree to
    the last digit do not make the score certain. Near and above one error per word, where trials
    say nothing, the standard error is at least one error in the whole test set.
    """
    spread = ratio * (1 - ratio) if proportion else ratio
    floor = 1.0 if proportion else max(1 - ratio, 1 / trials)
    effect = max(variance * trials / spread, floor) if spread > 0 else floor
    weight = quantile**2 * effect / trials
    centre = ratio + weight / 2
    half = math.sqrt(weight * (spread + weight / 4))
    shrink = 1 + weight if proportion else 1.0
    low, high = max(0.0, (centre - half) / shrink), (centre + half) / shrink
    # Rounding must not push an end past the value it belongs to, nor past the possible.
    return min(low, ratio), max(ratio, min(high, 1.0) if proportion else high)


def _ranks(values: FloatArray) -> FloatArray:
    """Number of values below each, plus half of those equal to it: ranks up to a constant."""
    below = np.sum(values[:, None] > values[None, :], axis=1)
    equal = np.sum(values[:, None] == values[None, :], axis=1)
    return np.asarray(below + equal / 2, dtype=np.float64)


def _paired(a_counts: ArrayLike, b_counts: ArrayLike) -> FloatArray:
    """b minus a, utterance by utterance."""
    a: FloatArray = np.asarray(a_counts, dtype=np.float64)
    b: FloatArray = np.asarray(b_counts, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise SuperbError(
            "a paired test needs one count per utterance, for the same utterances: "
            f"got {a.size} and {b.size}"
        )
    return b - a
