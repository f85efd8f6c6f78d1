import subprocess
import sys

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import f1_score, recall_score, roc_curve

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError
from benchmark.metrics import STATISTICS, TARGET_PRIOR, find_statistic, score


def value(statistic: str, rows) -> float:
    return find_statistic(statistic).linear(np.asarray(rows, dtype=float)).value


def trials(rng: np.random.Generator) -> np.ndarray:
    """Scores and targets of a few trials of both kinds; half of the sets with many ties."""
    target = np.append(rng.integers(0, 2, rng.integers(1, 40)), [0, 1])
    scores = target * rng.choice([0, 1, 3]) + rng.normal(0, 1, len(target))
    if rng.random() < 0.5:
        scores = np.round(scores)
    return np.column_stack([scores, target])


def test_equal_error_rate_is_where_the_interpolated_roc_crosses():
    rng = np.random.default_rng(0)
    for _ in range(1_000):
        rows = trials(rng)
        alarms, hits, _ = roc_curve(rows[:, 1], rows[:, 0])
        curve = interp1d(alarms, hits)
        expected = brentq(lambda x, curve=curve: 1 - x - curve(x), 0, 1)
        assert value("equal-error-rate", rows) == pytest.approx(expected, abs=1e-9)


def test_detection_cost_is_the_lowest_of_all_thresholds():
    rng = np.random.default_rng(1)
    for _ in range(1_000):
        rows = trials(rng)
        costs = []
        for threshold in [*rows[:, 0], np.inf]:
            accepted = rows[:, 0] >= threshold
            miss = np.mean(~accepted[rows[:, 1] == 1])
            alarm = np.mean(accepted[rows[:, 1] == 0])
            costs.append(miss * TARGET_PRIOR + alarm * (1 - TARGET_PRIOR))
        assert value("detection-cost", rows) == pytest.approx(min(costs) / TARGET_PRIOR)


def term_weighted_value(rows, threshold) -> float:
    """By the definition, with the constants as the evaluation's plan gives them."""
    found = {}
    for place, target, term in rows.tolist():
        misses, alarms = found.setdefault(term, ([], []))
        (misses if target else alarms).append((place < threshold) == bool(target))
    beta = 1 / 100 * (1 / 0.0008 - 1)
    values = [
        1 - sum(misses) / len(misses) - beta * sum(alarms) / max(len(alarms), 1)
        for misses, alarms in found.values()
        if misses
    ]
    return sum(values) / len(values)


def test_maximum_term_weighted_value_is_the_highest_of_all_thresholds():
    rng = np.random.default_rng(6)
    lowest, left_out = 0, 0
    for _ in range(1_000):
        rows = trials(rng)
        rows = np.column_stack([rows, rng.integers(0, rng.integers(1, 6), len(rows))])
        rows[:, 0] += rows[:, 1] * rng.choice([0, 6])
        expected = max(term_weighted_value(rows, place) for place in {*rows[:, 0], np.inf})
        found = value("maximum-term-weighted-value", rows)
        assert found == pytest.approx(expected, abs=1e-12)
        lowest += found == 0
        left_out += len(np.unique(rows[:, 2])) > len(np.unique(rows[rows[:, 1] == 1, 2]))
    assert 50 < lowest < 950
    assert left_out > 100


def test_f1_and_unweighted_accuracy_are_those_of_sklearn():
    rng = np.random.default_rng(2)
    for _ in range(200):
        truth, answer = rng.integers(0, 4, (2, rng.integers(1, 30)))
        expected = recall_score(truth, answer, labels=np.unique(truth), average="macro")
        found = value("unweighted-accuracy", np.column_stack([truth == answer, truth]))
        assert found == pytest.approx(expected)
        there, spotted = rng.random((2, 12, 3)) < 0.5
        kinds = there & spotted, ~there & spotted, there & ~spotted
        found = value("f1", np.column_stack([kind.sum(axis=1) for kind in kinds]))
        assert found == pytest.approx(f1_score(there.ravel(), spotted.ravel()))


def draw(statistic: str, rng: np.random.Generator, records: int) -> np.ndarray:
    first = {
        "ratio": rng.integers(0, 9, records),
        "mean": rng.normal(-3, 4, records),
        "f1": rng.integers(0, 9, records),
        "unweighted-accuracy": rng.integers(0, 2, records),
    }.get(statistic)
    target = np.arange(records) % 2
    if statistic == "maximum-term-weighted-value":
        scores = target * 3 + rng.normal(0, 1, records)
        return np.column_stack([scores, target, np.arange(records) // 2 % 3])
    if first is None:
        return np.column_stack([target * 1.5 + rng.normal(0, 1, records), target])
    rest = [rng.integers(1, 4, records) for _ in find_statistic(statistic).fields[1:]]
    return np.column_stack([first, *rest])


@pytest.mark.parametrize("statistic", STATISTICS)
def test_influence_is_the_derivative_by_the_weight_of_a_record(statistic):
    rng = np.random.default_rng(3)
    rows, copies = draw(statistic, rng, 40), 2_000
    if statistic == "maximum-term-weighted-value":
        rows[:, 2] = 0  # the weight of terms is tested below
    found = find_statistic(statistic).linear(rows)
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)
    assert found.share.sum() == pytest.approx(1)
    assert (found.share > 0).all()
    if statistic == "equal-error-rate":  # that of the smoothed curve: tested by its variance
        return
    many = np.repeat(rows, copies, axis=0)
    for record in range(0, 40, 7):
        more = np.vstack([many, rows[record][None]])
        moved = copies * (value(statistic, more) - found.value)
        assert moved == pytest.approx(found.influence[record], rel=0.01, abs=1e-6)


def test_without_a_term_the_others_are_left_at_the_same_threshold():
    statistic = "maximum-term-weighted-value"
    rows = draw(statistic, np.random.default_rng(7), 60)
    rows[rows[:, 2] == 1, 0] -= 0.5 * rows[rows[:, 2] == 1, 1]  # harder to find
    unheard = np.column_stack([np.linspace(-9, -8, 5), np.zeros(5), np.full(5, 9)])
    found = find_statistic(statistic).linear(np.vstack([rows, unheard]))
    best = max(rows[:, 0], key=lambda threshold: term_weighted_value(rows, threshold))
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)
    assert found.share.sum() == pytest.approx(1)
    for term in range(3):
        out = np.append(rows[:, 2] == term, np.zeros(5, bool))
        left = found.value - found.influence[out].sum() / (1 - found.share[out].sum())
        assert left == pytest.approx(term_weighted_value(rows[~out[:60]], best))
    assert not found.share[60:].any()
    assert not found.influence[60:].any()


@pytest.mark.parametrize("statistic", STATISTICS)
def test_influences_give_the_variance_over_many_test_sets(statistic):
    rng = np.random.default_rng(4)
    linear = find_statistic(statistic).linear
    found = [linear(draw(statistic, rng, 600)) for _ in range(400)]
    expected = np.std([one.value for one in found])
    errors = np.sqrt(np.mean([np.sum(one.influence**2) for one in found]))
    assert errors == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("statistic", ["ratio", "mean"])
def test_shares_say_what_is_left_without_a_record(statistic):
    rows = draw(statistic, np.random.default_rng(5), 12)
    found = find_statistic(statistic).linear(rows)
    for record in range(12):
        expected = value(statistic, np.delete(rows, record, axis=0))
        left = found.value - found.influence[record] / (1 - found.share[record])
        assert left == pytest.approx(expected)


def records(rows, folds=None) -> list[Record]:
    return [
        Record(f"u{place}", ("",), "", "", {"m": row}, folds[place] if folds else "")
        for place, row in enumerate(rows)
    ]


def test_score_of_counts_is_exact_and_in_its_unit():
    rows = [(1, 3), (0, 4)]
    assert score(records(rows), Metric("m", "lower")) == 100 / 7
    assert score(records(rows), Metric("m", "lower", unit="")) == 1 / 7
    trials = [(0.5, 1), (0.1, 0), (-0.2, 1), (-1.5, 0)]
    assert score(records(trials), Metric("m", "lower", "equal-error-rate")) == 50
    assert score(records([(-2.0,), (5.0,)]), Metric("m", "higher", "mean", unit="dB")) == 1.5


def test_score_of_folds_is_the_mean_of_theirs():
    rows = [(1, 1), (0, 1), (1, 1), (1, 1), (0, 1)]
    found = score(records(rows, ["1", "1", "2", "2", "2"]), Metric("m", "higher"))
    assert found == pytest.approx((50 + 200 / 3) / 2)


@pytest.mark.parametrize(
    ("statistic", "rows"),
    [
        ("ratio", []),
        ("ratio", [(0, 0)]),
        ("f1", [(0, 0, 0)]),
        ("equal-error-rate", [(0.5, 1), (0.1, 1)]),
        ("detection-cost", [(0.5, 0)]),
        ("maximum-term-weighted-value", [(0.5, 0, 1), (0.1, 0, 2)]),
    ],
)
def test_nothing_to_score(statistic, rows):
    with pytest.raises(SuperbError, match=f"nothing to score.*{statistic} of"):
        score(records(rows), Metric("m", "lower", statistic))


def test_unknown_statistics_are_named():
    with pytest.raises(SuperbError, match="Did you mean equal-error-rate"):
        find_statistic("equal-error")


def test_tables_are_read_without_numpy():
    code = "import sys, benchmark.metrics; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
