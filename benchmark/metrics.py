"""From records to a value: the statistics that a metric may name.

No torch, and numpy only where there is something to compute, so that whoever reads result files
can tell at once what their columns mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError, unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

TARGET_PRIOR: Final = 0.05
"""Prior of a target trial in ``detection-cost``, as in the VoxCeleb speaker recognition challenges.

NIST's evaluations and the first VoxCeleb paper have 0.01; a miss and a false alarm cost 1 in all.
"""

SEARCH_PRIOR: Final = 0.0008
"""Prior of a target trial in ``maximum-term-weighted-value``, as in MediaEval's QUESST 2014."""
SEARCH_MISS_COST: Final = 100
"""What a miss costs there; a false alarm costs 1."""


@dataclass(frozen=True)
class Linear:
    """A statistic, and how it moves with the weight of each record: all that an interval needs.

    Attributes:
        value: the statistic; NaN where there is nothing to score.
        influence: its derivative by the weight of each record ``[record]``; the sum is 0.
        share: how much of what it divides by each record has ``[record]``; the sum is 1. Without
            records whose influences add up to i and shares to s, it is ``value - i / (1 - s)``:
            exactly so for a ratio, and to first order for the others.
    """

    value: float
    influence: FloatArray
    share: FloatArray


@dataclass(frozen=True)
class Statistic:
    """A number that the values of records come to.

    Attributes:
        fields: what a record's value holds, in order; the columns of a table of records end so.
        linear: the number, from values ``[record, field]`` of one record or more.
        trials: how many independent right or wrong answers would tell as much as such values
            would if they were independent; None for a number that is not bound to lie between 0
            and 1.
    """

    fields: tuple[str, ...]
    linear: Callable[[FloatArray], Linear]
    trials: Callable[[FloatArray], float] | None = None


def _ratio(values: FloatArray) -> Linear:
    return _quotient(values[:, 0], values[:, 1])


def _mean(values: FloatArray) -> Linear:
    return _quotient(values[:, 0], values[:, 0] * 0 + 1)


def _f1(values: FloatArray) -> Linear:
    """``2 tp / (2 tp + fp + fn)`` of the sums (micro-averaged; van Rijsbergen 1979, chapter 7)."""
    return _quotient(2 * values[:, 0], values.sum(axis=1) + values[:, 0])


def _f1_trials(values: FloatArray) -> float:
    return float(values.sum() + values[:, 0].sum())


def _unweighted_accuracy(values: FloatArray) -> Linear:
    """Mean over classes of the share that was right: macro-averaged recall (Schuller et al. 2009).

    The classes are those that have a record.
    """
    import numpy as np

    right = values[:, 0]
    _, index, counts = np.unique(values[:, 1], return_inverse=True, return_counts=True)
    recalls = np.bincount(index, right) / counts
    share = 1 / (len(counts) * counts[index])
    return Linear(float(recalls.mean()), share * (right - recalls[index]), share)


def _unweighted_accuracy_trials(values: FloatArray) -> float:
    import numpy as np

    counts = np.unique(values[:, 1], return_counts=True)[1]
    return float(len(counts) ** 2 / np.sum(1 / counts))


def _equal_error_rate(values: FloatArray) -> Linear:
    """Where misses and false alarms are equally frequent.

    On the straight lines that join the points of the ROC, one point per different score, as
    ``brentq`` finds it on an interpolated ``sklearn.metrics.roc_curve``. (The convex hull of the
    ROC, which BOSARIS takes, gives a slightly lower rate: Brümmer & de Villiers 2013.)

    A miss more and a false alarm more move it by the slopes of both rates at the threshold. Those
    are taken between the thresholds with half as many false alarms and with half as many misses:
    the nearest few scores alone would say little (Bahadur 1966, on quantiles).
    """
    import numpy as np

    roc = _Roc(values)
    if roc.empty:
        return roc.nothing
    misses, alarms = roc.misses, roc.alarms
    excess = alarms - misses  # from -1 up to 1
    after = int(np.argmax(excess >= 0))
    part = -excess[after - 1] / (excess[after] - excess[after - 1])
    rate = float(alarms[after - 1] + part * (alarms[after] - alarms[after - 1]))
    misses_gained = float(np.interp(rate / 2, alarms, misses)) - rate / 2
    alarms_gained = float(np.interp(-rate / 2, -misses, alarms)) - rate / 2
    gained = misses_gained + alarms_gained
    weight = misses_gained / gained if gained > 0 else 0.5  # of false alarms
    wrong = np.abs(roc.accepted(after - 1 + float(part)) - roc.target)
    share = np.where(roc.target, (1 - weight) / roc.targets, weight / roc.others)
    return Linear(rate, share * (wrong - rate), share)


def _equal_error_rate_trials(values: FloatArray) -> float:
    """The rate is near the mean of misses and of false alarms, whose variances add up."""
    roc = _Roc(values)
    return 4 / (1 / roc.targets + 1 / roc.others)


def _detection_cost(values: FloatArray) -> Linear:
    """The lowest detection cost at any threshold, over that of the better constant answer.

    ``min (P(miss) * prior + P(false alarm) * (1 - prior)) / min(prior, 1 - prior)`` with both
    costs 1 and `TARGET_PRIOR` (Martin & Przybocki 2000, "The NIST 1999 speaker recognition
    evaluation"; normalised as in NIST's later plans). At the minimum, to first order, it does not
    move with the threshold.
    """
    import numpy as np

    roc = _Roc(values)
    if roc.empty:
        return roc.nothing
    least = min(TARGET_PRIOR, 1 - TARGET_PRIOR)
    miss, alarm = TARGET_PRIOR / least, (1 - TARGET_PRIOR) / least
    place = int(np.argmin(miss * roc.misses + alarm * roc.alarms))
    rates = roc.misses[place], roc.alarms[place]
    accepted = roc.accepted(place)
    influence = np.where(
        roc.target,
        miss * (1 - accepted - rates[0]) / roc.targets,
        alarm * (accepted - rates[1]) / roc.others,
    )
    share = np.where(roc.target, 0.5 / roc.targets, 0.5 / roc.others)
    return Linear(float(miss * rates[0] + alarm * rates[1]), influence, share)


def _detection_cost_trials(values: FloatArray) -> float:
    """Half the cost are misses, half are false alarms, each of which costs the more."""
    roc = _Roc(values)
    return 2 / (1 / roc.targets + (1 - TARGET_PRIOR) / TARGET_PRIOR / roc.others)


def _maximum_term_weighted_value(values: FloatArray) -> Linear:
    """1 less misses and false alarms of a search, at the threshold that is best for all terms.

    ``max (1 - mean over terms of (P(miss) + beta * P(false alarm)))`` with ``beta = (1 - prior) /
    (prior * cost of a miss)``, which is 12.49 (Fiscus et al. 2007, "Results of the 2006 spoken term
    detection evaluation"; over trials in place of seconds, with `SEARCH_PRIOR`, as in Anguera et
    al. 2014, "Query by example search on speech at MediaEval 2014"). Terms without a target are
    left out; one without another trial has no false alarms. At the maximum, to first order, it
    does not move with the threshold; above all scores it is 0, so that no value is lower.

    Terms are sampled, as documents are: one counts by the weight of its records, as if by 1 where
    all of them weigh the same.
    """
    import numpy as np

    beta = (1 - SEARCH_PRIOR) / (SEARCH_PRIOR * SEARCH_MISS_COST)
    target = values[:, 1] > 0
    term = np.unique(values[:, 2], return_inverse=True)[1]
    kind = 2 * term + target
    counts = np.bincount(kind, minlength=2 * (int(term.max()) + 1)).reshape(-1, 2)
    scored = counts[:, 1] > 0
    if not scored.any():
        return Linear(float("nan"), 0 * values[:, 0], 0 * values[:, 0])
    part = scored[term] / counts.ravel()[kind] / scored.sum()  # of the mean, by kind
    index = np.unique(-values[:, 0], return_inverse=True)[1]
    gains = np.bincount(index, np.where(target, part, -beta * part)).cumsum()
    place = int(np.argmax(gains))
    accepted = (index <= place) & (gains[place] > 0)
    lost = np.where(target, ~accepted, beta * accepted)
    means = np.bincount(kind, lost, counts.size) / np.maximum(counts.ravel(), 1)
    of_terms = 1 - means.reshape(-1, 2).sum(axis=1)
    value = float(of_terms[scored].mean())
    share = part / (counts > 0).sum(axis=1)[term]
    influence = part * (means[kind] - lost) + share * (of_terms[term] - value)
    return Linear(value, influence, share)


def _maximum_term_weighted_value_trials(values: FloatArray) -> float:
    """As for the detection cost, where a false alarm costs so many times a miss."""
    import numpy as np

    target = values[:, 1] > 0
    hit = np.isin(values[:, 2], values[target, 2])
    targets, others = int(target.sum()), int((hit & ~target).sum())
    beta = (1 - SEARCH_PRIOR) / (SEARCH_PRIOR * SEARCH_MISS_COST)
    return 2 / (1 / max(targets, 1) + beta / max(others, 1))


class _Roc:
    """Misses and false alarms at every threshold, for values of score and target.

    Attributes:
        target: whether each record is a target.
        targets: how many are.
        others: how many are not.
        empty: whether one kind is missing.
        misses: their rate, from a threshold above all scores down to the lowest.
        alarms: likewise.
    """

    def __init__(self, values: FloatArray) -> None:
        import numpy as np

        self.target = values[:, 1] > 0
        self.targets = int(self.target.sum())
        self.others = len(values) - self.targets
        self.empty = not (self.targets and self.others)
        if self.empty:
            return
        scores, self._index = np.unique(-values[:, 0], return_inverse=True)
        found = np.bincount(self._index, self.target, len(scores)).cumsum()
        accepted = np.bincount(self._index, minlength=len(scores)).cumsum()
        self.misses = np.append(1.0, 1 - found / self.targets)
        self.alarms = np.append(0.0, (accepted - found) / self.others)

    def accepted(self, place: float) -> FloatArray:
        """Which records are accepted ``[record]``; in part at a threshold between two."""
        import numpy as np

        return np.clip(place - self._index, 0.0, 1.0)

    @property
    def nothing(self) -> Linear:
        """What there is to say without targets, or with nothing else."""
        import numpy as np

        none = np.zeros(len(self.target))
        return Linear(float("nan"), none, none)


def _quotient(top: FloatArray, bottom: FloatArray) -> Linear:
    """The ratio of two sums."""
    total = float(bottom.sum())
    if total <= 0:
        return Linear(float("nan"), 0 * top, 0 * top)
    value = float(top.sum()) / total
    return Linear(value, (top - value * bottom) / total, bottom / total)


STATISTICS: Final[Mapping[str, Statistic]] = {
    "ratio": Statistic(("numerator", "denominator"), _ratio),
    "mean": Statistic(("value",), _mean),
    "f1": Statistic(("true_positives", "false_positives", "false_negatives"), _f1, _f1_trials),
    "unweighted-accuracy": Statistic(
        ("right", "class"), _unweighted_accuracy, _unweighted_accuracy_trials
    ),
    "equal-error-rate": Statistic(("score", "target"), _equal_error_rate, _equal_error_rate_trials),
    "detection-cost": Statistic(("score", "target"), _detection_cost, _detection_cost_trials),
    "maximum-term-weighted-value": Statistic(
        ("score", "target", "term"),
        _maximum_term_weighted_value,
        _maximum_term_weighted_value_trials,
    ),
}


def find_statistic(name: str) -> Statistic:
    """A statistic by name.

    Raises:
        SuperbError: there is none of that name.
    """
    if name not in STATISTICS:
        raise unknown("statistic", name, STATISTICS)
    return STATISTICS[name]


def check_record(record: Record, metrics: Sequence[Metric]) -> None:
    """Raise for a record that a statistic, or the table of records, could not take.

    Raises:
        ValueError: saying what of it is wrong.
    """
    if not isinstance(record, Record):
        raise ValueError(f"{type(record).__name__}, not a Record")
    if not isinstance(record.id, str) or not record.id:
        raise ValueError(f"record id {record.id!r}")
    clusters = record.clusters
    if not isinstance(clusters, tuple) or not all(isinstance(name, str) for name in clusters):
        raise ValueError(f"clusters {clusters!r:.80} of {record.id}, not a tuple of texts")
    if not 1 <= len(clusters) <= 2:
        raise ValueError(
            f"{len(clusters)} clusters of {record.id}: a record belongs to one or two, "
            '("",) where nobody is known'
        )
    for name in ("reference", "hypothesis"):
        if not isinstance(getattr(record, name), str):
            raise ValueError(f"{name} {getattr(record, name)!r:.40} of {record.id}, not text")
    if set(record.values) != {metric.name for metric in metrics}:
        raise ValueError(
            f"{record.id} has values for {', '.join(record.values) or 'nothing'}; the card's "
            f"metrics are {', '.join(metric.name for metric in metrics)}"
        )
    for metric in metrics:
        values = record.values[metric.name]
        fields = find_statistic(metric.statistic).fields
        if not isinstance(values, tuple) or len(values) != len(fields):
            raise ValueError(
                f"{metric.name} of {record.id} is {values!r:.60}, not a tuple "
                f"({', '.join(fields)}{',' * (len(fields) == 1)})"
            )
        for value in map(float, values):
            if value - value != 0:
                raise ValueError(
                    f"{metric.name} of {record.id} is {values!r:.60}, not finite numbers"
                )
            if metric.statistic == "ratio" and value != int(value):
                raise ValueError(
                    f"{metric.name} of {record.id} is {values!r:.60}: counts are whole numbers"
                )


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
    if not rows:
        raise nothing_to_score(metric)
    if metric.statistic == "ratio" and sum(row[1] for row in rows) > 0:
        # of whole numbers, exact to the last bit
        top, bottom = (sum(row[place] for row in rows) for place in (0, 1))
        return 100.0 * top / bottom if metric.unit == "%" else top / bottom
    import numpy as np

    value = find_statistic(metric.statistic).linear(np.asarray(rows, dtype=np.float64)).value
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
