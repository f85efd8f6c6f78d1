"""Keyword spotting and speaker identification: labels, loss and counts."""

import math

import pytest
import torch

from benchmark.core import Utterance
from downstreams.load import load_downstream

VOCABULARY = ("down", "no", "yes")


@pytest.fixture(params=["ks", "sid"])
def task(request):
    return load_downstream(request.param)


@pytest.fixture
def one_thread():
    """Work this small is slower on more, above all beside other jobs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def labelled(*labels, split="train"):
    return [Utterance(f"u{i}", b"", split, f"s{i % 2}", label=x) for i, x in enumerate(labels)]


def test_vocabulary_is_sorted_and_has_no_repeats(task):
    assert task.vocabulary(labelled("yes", "no", "yes", "down")) == VOCABULARY
    assert task.vocabulary(labelled("10", "9", "é", "Z")) == ("10", "9", "Z", "é")


def test_loss_is_the_mean_cross_entropy(task):
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]])
    found = task.loss(logits, torch.tensor([5, 7]), labelled("no", "down"), VOCABULARY)
    expected = [
        -math.log(math.exp(2.0) / (math.exp(1) + math.exp(2) + math.exp(0.5))),
        -math.log(1 / (2 + math.exp(3))),
    ]
    assert float(found) == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_a_label_is_its_place_in_the_vocabulary(task):
    """Not its place in the batch: the order of utterances says nothing."""
    logits = torch.eye(3) * 20
    for labels, low in [(VOCABULARY, True), (("yes", "no", "down"), False)]:
        loss = float(task.loss(logits, torch.ones(3), labelled(*labels), VOCABULARY))
        assert (loss < 1e-6) == low
        # the middle one is right either way
        assert loss < 1e-6 or loss == pytest.approx(2 * 20 / 3, rel=1e-3)


def records(task, logits, lengths, utterances):
    answers = task.answer(logits, lengths, utterances, VOCABULARY)
    return task.records(utterances, answers)


def test_records(task):
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.1, 0.2]])
    found = records(task, logits, torch.ones(3), labelled("no", "no", "yes", split="test"))
    assert [(r.id, r.clusters, r.reference, r.hypothesis) for r in found] == [
        ("u0", ("s0",), "no", "no"),
        ("u1", ("s1",), "no", "down"),
        ("u2", ("s0",), "yes", "yes"),
    ]
    assert [r.values for r in found] == [
        {"accuracy": (1, 1)},
        {"accuracy": (0, 1)},
        {"accuracy": (1, 1)},
    ]


def test_label_that_train_never_had_counts_as_wrong(task):
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    (record,) = records(task, logits, torch.ones(1), labelled("up", split="test"))
    assert (record.reference, record.hypothesis, record.values["accuracy"]) == ("up", "no", (0, 1))


def test_learns_what_the_mean_tells(task, one_thread):
    """Classes that differ in their mean frame, utterances of any length."""
    generator = torch.Generator().manual_seed(0)
    labels = [VOCABULARY[i % 3] for i in range(12)]
    lengths = torch.randint(3, 20, (12,), generator=generator)
    frames = torch.randn(12, 20, 6, generator=generator)
    for i, label in enumerate(labels):
        frames[i, :, VOCABULARY.index(label)] += 2
        frames[i, lengths[i] :] = 0
    torch.manual_seed(0)
    head = task.head(6, 0.02, 3, {"projection": 8}, generator)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(*head(frames, lengths), labelled(*labels), VOCABULARY).backward()
        optimizer.step()
    found = records(task, *head(frames, lengths), labelled(*labels))
    assert sum(r.values["accuracy"][0] for r in found) == 12
