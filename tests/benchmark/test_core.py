"""The nouns refuse what does not fit together, and say what would."""

import dataclasses

import pytest
import torch

from benchmark.core import (
    Corpus,
    DownstreamCard,
    HiddenStates,
    Metric,
    UpstreamCard,
    Utterance,
)
from benchmark.errors import SuperbError


def test_hidden_states_know_their_size():
    states = HiddenStates(torch.zeros(5, 2, 7, 3), torch.tensor([7, 4]))
    assert (states.layers, states.dim) == (5, 3)


@pytest.mark.parametrize("shape", [(2, 7, 3), (1, 5, 2, 7, 3), ()])
def test_hidden_states_have_four_axes(shape):
    with pytest.raises(SuperbError, match=r"\[layer, utterance, frame, dim\]") as caught:
        HiddenStates(torch.zeros(shape), torch.tensor([7, 4]))
    assert str(tuple(shape)) in str(caught.value)


@pytest.mark.parametrize("lengths", [[7], [7, 4, 2], [[7, 4]]])
def test_one_length_per_utterance(lengths):
    with pytest.raises(SuperbError, match=r"lengths must be \[utterance\] = \(2,\)"):
        HiddenStates(torch.zeros(5, 2, 7, 3), torch.tensor(lengths))


def test_hidden_states_cannot_be_changed():
    states = HiddenStates(torch.zeros(1, 1, 1, 1), torch.tensor([1]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        states.lengths = torch.tensor([2])


@pytest.mark.parametrize("name", ["layers", "dim", "hop_samples", "sample_rate", "min_samples"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "13", True, None])
def test_card_sizes_are_positive_integers(name, value):
    sizes = {"layers": 13, "dim": 768, "hop_samples": 320, name: value}
    with pytest.raises(SuperbError) as caught:
        UpstreamCard(name="toy", **sizes)
    message = str(caught.value)
    assert "'toy'" in message
    assert f"{name} must be a positive integer" in message
    assert repr(value) in message


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *((name, 3, "text") for name in ("name", "licence", "paper", "source", "revision", "note")),
        ("note", None, "text"),
        ("pad_invariant", 1, "True or False"),
        ("pad_invariant", "no", "True or False"),
        ("parameters", -1, "None or an integer that is not negative"),
        ("parameters", True, "None or an integer that is not negative"),
        ("parameters", 1e6, "None or an integer that is not negative"),
        ("trained_on", "librispeech", "None or a set of names"),
        ("trained_on", ["librispeech"], "None or a set of names"),
        ("trained_on", frozenset({"librispeech", 3}), "None or a set of names"),
    ],
)
def test_card_names_the_field_of_the_wrong_type(name, value, wanted):
    fields = {"name": "toy", "layers": 13, "dim": 768, "hop_samples": 320, name: value}
    with pytest.raises(SuperbError) as caught:
        UpstreamCard(**fields)
    message = str(caught.value)
    assert message.startswith(f"upstream {fields['name']!r}: {name} must be {wanted}, got ")
    assert message.endswith(repr(value))


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": 0, "trained_on": frozenset()},
        {"parameters": 94_000_000, "trained_on": {"librispeech"}},
        {"parameters": None, "trained_on": None, "pad_invariant": True},
    ],
)
def test_card_takes_what_it_promises(fields):
    UpstreamCard(name="toy", layers=13, dim=768, hop_samples=320, **fields)


def test_card_lists_the_families():
    with pytest.raises(SuperbError) as caught:
        UpstreamCard(name="toy", layers=1, dim=1, hop_samples=1, family="magic")
    message = str(caught.value)
    assert "'magic'" in message
    assert "contrastive, predictive, generative, supervised, signal, untrained, other" in message


def test_corpus_split_keeps_the_order():
    names = ["c", "a", "d", "b"]
    splits = ["train", "test", "train", "train"]
    corpus = Corpus(
        "toy", "0", tuple(Utterance(n, b"", s) for n, s in zip(names, splits, strict=True))
    )
    assert [utterance.id for utterance in corpus.split("train")] == ["c", "d", "b"]
    assert corpus.split("valid") == []


METRIC = Metric("accuracy", "higher")
TASK = {"name": "toy", "title": "Toy", "version": 1, "metrics": (METRIC,), "features": "mean"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "name must be letters, digits"),
        ({"name": "../toy"}, "name must be letters, digits"),
        ({"name": "a,b"}, "name must be letters, digits"),
        ({"version": 0}, "version must be a positive integer, got 0"),
        ({"version": True}, "version must be a positive integer"),
        ({"metrics": ()}, "metrics must be a tuple of one Metric or more"),
        ({"metrics": ("accuracy",)}, "metrics must be a tuple of one Metric or more"),
        ({"metrics": (METRIC, METRIC)}, "uses the metric name 'accuracy' twice"),
        ({"features": "all"}, "features must be frames or mean, got 'all'"),
        ({"needs": "text"}, "needs must be a tuple of names of columns"),
        ({"needs": ("audio",)}, "needs must be a tuple of names of columns besides audio"),
        ({"closed_set": 1}, "closed_set must be True or False"),
        ({"label_from": ""}, "label_from must be the name of a column"),
    ],
)
def test_a_task_card_names_the_field_that_is_wrong(changes, says):
    with pytest.raises(SuperbError, match="task ") as caught:
        DownstreamCard(**TASK | changes)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (("a b", "higher"), "metric 'a b': name must be"),
        (("a", "up"), "direction must be lower or higher, got 'up'"),
        (("a", "higher", None), "statistic must be text, got None"),
    ],
)
def test_a_metric_names_the_field_that_is_wrong(fields, says):
    with pytest.raises(SuperbError) as caught:
        Metric(*fields)
    assert says in str(caught.value)


def test_a_task_reads_its_label_where_its_card_says():
    card = DownstreamCard(**TASK, needs=("label", "text"), label_from="emotion")
    assert card.columns == ("emotion", "text")
    assert card.labelled
    assert not DownstreamCard(**TASK, needs=("text",)).labelled
