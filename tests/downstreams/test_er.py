"""Emotion recognition: both accuracies, by fold."""

from benchmark.core import Metric, Utterance
from benchmark.metrics import score
from downstreams.er import Er


def felt(*labels):
    return [Utterance(f"u{i}", b"", "test", "s", label=label) for i, label in enumerate(labels)]


def test_both_accuracies():
    task = Er()
    records = task.records(felt("neu", "neu", "neu", "ang"), ["neu", "neu", "ang", "neu"])
    weighted, unweighted = task.card.metrics
    assert score(records, weighted) == 50.0
    assert round(score(records, unweighted), 6) == round(100 * (2 / 3 + 0) / 2, 6)


def test_a_class_is_the_same_number_in_whatever_company():
    whole = Er().records(felt("neu", "ang"), ["neu", "neu"])
    (alone,) = Er().records(felt("ang"), ["neu"])
    assert alone.values == whole[1].values


def test_the_metric_that_ranks_is_accuracy():
    assert Er.card.metric == Metric("accuracy", "higher")
