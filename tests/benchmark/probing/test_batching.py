"""The order of the data: complete, deterministic, mostly free of padding."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from benchmark.probing.batching import evaluation_batches, training_batches


def lengths_of(count):
    return np.random.default_rng(7).integers(10, 1000, count).tolist()


def epochs(lengths, size, number):
    """The first epochs, each as a list of batches."""
    per_epoch = -(-len(lengths) // size)
    batches = list(
        islice(training_batches(lengths, [""] * len(lengths), size, "shuffle"), number * per_epoch)
    )
    return [batches[i : i + per_epoch] for i in range(0, len(batches), per_epoch)]


@pytest.mark.parametrize(("count", "size"), [(1, 4), (5, 5), (100, 8), (101, 8), (37, 1)])
def test_an_epoch_visits_everything_once(count, size):
    for epoch in epochs(lengths_of(count), size, 3):
        assert sorted(index for batch in epoch for index in batch) == list(range(count))
        assert all(1 <= len(batch) <= size for batch in epoch)


def test_epochs_differ():
    first, second = epochs(lengths_of(64), 8, 2)
    assert first != second


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_deterministic(sampling):
    lengths, labels = lengths_of(50), ["a", "b"] * 25
    draws = [list(islice(training_batches(lengths, labels, 4, sampling), 30)) for _ in range(2)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    ("sampling", "batches"),
    [
        ("shuffle", [[17, 11, 5, 18], [12, 6, 19, 13], [0, 7, 1, 14], [8, 2, 15, 9]]),
        ("balanced", [[15, 15, 15, 15], [10, 10, 4, 17], [11, 5, 5, 13], [9, 3, 10, 10]]),
    ],
)
def test_the_first_run_keeps_the_order_of_earlier_results(sampling, batches):
    lengths = [10 * (index % 7) + index for index in range(20)]
    labels = ["a" if index % 5 else "b" for index in range(20)]
    assert list(islice(training_batches(lengths, labels, 4, sampling), 4)) == batches
    others = [
        list(islice(training_batches(lengths, labels, 4, sampling, rerun), 4))
        for rerun in (0, 1, 2)
    ]
    assert others[0] == batches
    assert others[1] != batches != others[2] != others[1]


def test_global_random_state_does_not_matter():
    lengths, labels = lengths_of(50), ["a", "b"] * 25
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    first = list(islice(training_batches(lengths, labels, 4, "shuffle"), 30))
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    assert list(islice(training_batches(lengths, labels, 4, "shuffle"), 30)) == first


def padding(batches, lengths):
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / padded


def test_like_lengths_train_together():
    lengths = lengths_of(512)
    (epoch,) = epochs(lengths, 8, 1)
    order = np.random.default_rng(0).permutation(512)
    careless = [order[i : i + 8] for i in range(0, 512, 8)]
    assert padding(epoch, lengths) < 0.5 * padding(careless, lengths)
    # but not the short ones first
    means = [np.mean([lengths[i] for i in batch]) for batch in epoch]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5


def test_balanced_draws_classes_equally_often():
    labels = ["rare"] * 20 + ["common"] * 380 + ["usual"] * 100
    batches = islice(training_batches(lengths_of(500), labels, 10, "balanced"), 600)
    drawn = [index for batch in batches for index in batch]
    shares = {
        label: n / len(drawn) for label, n in Counter(labels[index] for index in drawn).items()
    }
    # 6000 draws: a share of 1/3 has a standard error of 0.006
    assert shares == pytest.approx({"rare": 1 / 3, "common": 1 / 3, "usual": 1 / 3}, abs=0.03)
    assert set(range(20)) <= set(drawn)


@pytest.mark.parametrize(("count", "size"), [(0, 4), (1, 4), (8, 8), (101, 8)])
def test_evaluation_covers_everything_once(count, size):
    lengths = lengths_of(count)
    batches = evaluation_batches(lengths, size)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert all(1 <= len(batch) <= size for batch in batches)


def test_evaluation_pads_as_little_as_it_can():
    lengths = [5, 1, 4, 2, 3, 1]
    assert evaluation_batches(lengths, 2) == [[1, 5], [3, 4], [2, 0]]
