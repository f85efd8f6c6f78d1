"""From records to a value: the statistics that a metric may name.

No torch, and numpy only where there is something to compute, so that whoever reads result files
can tell at once what their columns mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError, unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

Rows = Sequence[tuple[float, ...]]

TARGET_PRIOR: Final = 0.05
"""Prior of a target trial in ``detection-cost``, as in the VoxCeleb speaker recognition challenges.

NIST's evaluations and the first VoxCeleb paper have 0.01; a miss and a false alarm cost 1 in all.
"""


@dataclass(frozen=True)
class Statistic:
    """A number that the values of records come to.

    Attributes:
        fields: what a record's value holds, in order; the columns of a table of records end so.
        weighted: the number for each of several weightings of the same records: values
            ``[record, field]`` and weights ``[draw, record]``, not negative, to ``[draw]``; NaN
            where a weighting leaves nothing to score.
        trials: how many independent right or wrong answers would tell as much as values
            ``[record, field]`` would if they were independent; None for a number that is not
            bound to lie between 0 and 1.
    """

    fields: tuple[str, ...]
    weighted: Callable[[FloatArray, FloatArray], FloatArray]
    trials: Callable[[FloatArray], float] | None = None

    def value(self, rows: Rows) -> float:
        """The number, from the values of all records; NaN where there is nothing to score."""
        import numpy as np

        if not len(rows):
            return float("nan")
        values: FloatArray = np.asarray(rows, dtype=np.float64)
        return float(self.weighted(values, np.ones((1, len(values))))[0])


def _ratio(values: FloatArray, weights: FloatArray) -> FloatArray:
    return _quotient(weights @ values[:, 0], weights @ values[:, 1])


def _mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    return _quotient(weights @ values[:, 0], weights.sum(axis=1))


def _f1(values: FloatArray, weights: FloatArray) -> FloatArray:
    """``2 tp / (2 tp + fp + fn)`` of the sums (micro-averaged; van Rijsbergen 1979, chapter 7)."""
    sums = weights @ values  # [draw, field]
    return _quotient(2 * sums[:, 0], 2 * sums[:, 0] + sums[:, 1] + sums[:, 2])


def _f1_trials(values: FloatArray) -> float:
    return float(values.sum() + values[:, 0].sum())


def _unweighted_accuracy(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean over classes of the share that was right: macro-averaged recall (Schuller et al. 2009).

    A class without weight is left out of the mean.
    """
    import numpy as np

    _, index = np.unique(values[:, 1], return_inverse=True)
    members = (index[:, None] == np.arange(index.max() + 1)).astype(np.float64)  # [record, class]
    counts = weights @ members
    recalls = _quotient(weights @ (members * values[:, :1]), counts)
    present = counts > 0
    return _quotient(np.where(present, recalls, 0.0).sum(axis=1), present.sum(axis=1))


def _unweighted_accuracy_trials(values: FloatArray) -> float:
    import numpy as np

    counts = np.unique(values[:, 1], return_counts=True)[1]
    return float(len(counts) ** 2 / np.sum(1 / counts))


def _equal_error_rate(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Where misses and false alarms are equally frequent.

    On the straight lines that join the points of the ROC, one point per different score, as
    ``brentq`` finds it on an interpolated ``sklearn.metrics.roc_curve``. (The convex hull of the
    ROC, which BOSARIS takes, gives a slightly lower rate: Brümmer & de Villiers 2013.)
    """
    import numpy as np

    order, ends = _thresholds(values[:, 0])
    target = values[order, 1] > 0
    sorted_weights = np.take(weights, order, axis=1)
    # First which stretch of thresholds it lies in, then where in that: a pass over sums is quick.
    stretch = math.isqrt(len(ends))
    starts = np.append(0, ends[stretch - 1 : -1 : stretch] + 1)
    accepted = np.cumsum(np.add.reduceat(sorted_weights, starts, axis=1), axis=1)
    hits = np.cumsum(np.add.reduceat(sorted_weights * target, starts, axis=1), axis=1)
    rates: FloatArray = np.full(len(weights), np.nan)
    for draw, row in enumerate(sorted_weights):
        targets, others = hits[draw, -1], accepted[draw, -1] - hits[draw, -1]
        if not (targets > 0 and others > 0):
            continue
        # False alarms less misses, after accepting so many: from -1 up to 1.
        excess = (accepted[draw] - hits[draw]) / others + hits[draw] / targets - 1
        place = min(int(np.searchsorted(excess, 0)), len(starts) - 1)
        begin, end = starts[place], starts[place + 1] if place + 1 < len(starts) else len(row)
        inner = ends[(ends >= begin) & (ends < end)] - begin
        own, own_target = row[begin:end], target[begin:end]
        before = accepted[draw, place] - own.sum(), hits[draw, place] - own[own_target].sum()
        found_hits = np.append(before[1], before[1] + np.cumsum(own * own_target)[inner])
        found = np.append(before[0], before[0] + np.cumsum(own)[inner])
        alarms = (found - found_hits) / others
        excess = alarms + found_hits / targets - 1
        after = min(max(int(np.searchsorted(excess, 0)), 1), len(excess) - 1)
        step = excess[after] - excess[after - 1]
        part = -excess[after - 1] / step if step > 0 else 1.0
        rates[draw] = alarms[after - 1] + part * (alarms[after] - alarms[after - 1])
    return rates


def _detection_cost(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The lowest detection cost at any threshold, over that of the better constant answer.

    ``min (P(miss) * prior + P(false alarm) * (1 - prior)) / min(prior, 1 - prior)`` with both
    costs 1 and `TARGET_PRIOR` (Martin & Przybocki 2000, "The NIST 1999 speaker recognition
    evaluation"; normalised as in NIST's later plans).
    """
    import numpy as np

    order, ends = _thresholds(values[:, 0])
    target = values[order, 1] > 0
    alarm_cost = (1 - TARGET_PRIOR) / TARGET_PRIOR
    costs: FloatArray = np.full(len(weights), np.nan)
    for draw, row in enumerate(np.take(weights, order, axis=1)):
        targets, others = row[target].sum(), row[~target].sum()
        if targets > 0 and others > 0:
            steps = row * np.where(target, -1 / targets, alarm_cost / others)
            costs[draw] = 1 + min(0.0, float(np.cumsum(steps)[ends].min()))
    return np.clip(costs, 0.0, 1.0)


def _equal_error_rate_trials(values: FloatArray) -> float:
    """The rate is near the mean of misses and of false alarms, whose variances add up."""
    targets, others = _trial_counts(values)
    return 4 / (1 / targets + 1 / others)


def _detection_cost_trials(values: FloatArray) -> float:
    """Half the cost are misses, half are false alarms, each of which costs the more."""
    targets, others = _trial_counts(values)
    return 2 / (1 / targets + (1 - TARGET_PRIOR) / TARGET_PRIOR / others)


def _trial_counts(values: FloatArray) -> tuple[int, int]:
    targets = int((values[:, 1] > 0).sum())
    return targets, len(values) - targets


def _thresholds(scores: FloatArray) -> tuple[IntArray, IntArray]:
    """The order from the highest score down, and where in it each different score ends."""
    import numpy as np

    order: IntArray = np.argsort(-scores, kind="stable")
    ends: IntArray = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return order, ends


def _quotient(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """Element by element; NaN where there is nothing to divide by."""
    import numpy as np

    result: FloatArray = np.full(np.shape(top), np.nan)
    np.divide(top, bottom, out=result, where=np.asarray(bottom) > 0)
    return result


STATISTICS: Final[Mapping[str, Statistic]] = {
    "ratio": Statistic(("numerator", "denominator"), _ratio),
    "mean": Statistic(("value",), _mean),
    "f1": Statistic(("true_positives", "false_positives", "false_negatives"), _f1, _f1_trials),
    "unweighted-accuracy": Statistic(
        ("right", "class"), _unweighted_accuracy, _unweighted_accuracy_trials
    ),
    "equal-error-rate": Statistic(("score", "target"), _equal_error_rate, _equal_error_rate_trials),
    "detection-cost": Statistic(("score", "target"), _detection_cost, _detection_cost_trials),
}


def find_statistic(name: str) -> Statistic:
    """A statistic by name.

    Raises:
        SuperbError: there is none of that name.
    """
    if name not in STATISTICS:
        raise unknown("statistic", name, STATISTICS)
    return STATISTICS[name]


def by_fold(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by fold, in their order; the key of records of the only partition is ""."""
    folds: dict[str, list[Record]] = {}
    for record in records:
        folds.setdefault(record.fold, []).append(record)
    return folds


def score(records: Sequence[Record], metric: Metric) -> float:
    """A metric over the records of one test set, in its unit; with folds, the mean of theirs.

    Raises:
        SuperbError: there is nothing to score.
    """
    folds = by_fold(records)
    if len(folds) > 1:
        return sum(score(fold, metric) for fold in folds.values()) / len(folds)
    rows = [record.values[metric.name] for record in records]
    if metric.statistic == "ratio" and sum(row[1] for row in rows) > 0:
        # of whole numbers, exact to the last bit
        top, bottom = (sum(row[place] for row in rows) for place in (0, 1))
        return 100.0 * top / bottom if metric.unit == "%" else top / bottom
    value = find_statistic(metric.statistic).value(rows)
    if value != value:
        raise nothing_to_score(metric)
    return 100.0 * value if metric.unit == "%" else value


def nothing_to_score(metric: Metric) -> SuperbError:
    """The error of a test set that a metric cannot be had of."""
    fields = ", ".join(find_statistic(metric.statistic).fields)
    return SuperbError(
        f"there is nothing to score: the test records give no {metric.name} ({metric.statistic} "
        f"of {fields}). Check that the test split has what the metric counts, e.g. references, or "
        "trials of both kinds."
    )
