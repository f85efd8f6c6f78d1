"""Tasks by name, file, module, entry point and object; one clear message for each mistake."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace

import pytest

from benchmark.core import DownstreamCard, Metric
from benchmark.errors import SuperbError
from downstreams.classification import Classification
from downstreams.ks import Ks
from downstreams.load import downstream_names, load_downstream

SOURCE = """
from superb import Classification, DownstreamCard, Metric

class Emotion(Classification):
    card = DownstreamCard(
        "emotion", "Emotions", 1, (Metric("accuracy", "higher"),), "mean",
        needs=("emotion",), label_from="emotion",
    )

def make():
    return Emotion()

class Needy(Emotion):
    def __init__(self, size):
        pass

class Cardless:
    training = {}

class Untrained(Emotion):
    training = None

class Halfway:
    card, training = Emotion.card, {}
    def loss(self): ...

class Ks(Emotion):
    card = DownstreamCard("ks", "Mine", 1, (Metric("accuracy", "higher"),), "mean", ("label",))

class Mean(Emotion):
    card = DownstreamCard("mean", "Mine", 1, (Metric("accuracy", "higher"),), "mean", ("label",))

class Odd(Emotion):
    odd = Metric("a", "higher", statistic="ration")
    card = DownstreamCard("odd", "Mine", 1, (odd,), "mean", ("label",))

def twice():
    metric = Metric("accuracy", "higher")
    return Classification(DownstreamCard("t", "T", 1, (metric, metric), "mean"))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_task.py"
    path.write_text(SOURCE)
    return path


def test_names_of_the_table():
    assert downstream_names() == ["asr", "sid", "ks", "pr", "ic", "sf", "er", "asv", "sd", "qbe"]
    assert [load_downstream(name).card.name for name in downstream_names()] == downstream_names()


@pytest.mark.parametrize("name", ["Emotion", "make"])
def test_a_file_and_a_module(file, tmp_path, monkeypatch, name):
    assert load_downstream(f"{file}:{name}").card.name == "emotion"
    monkeypatch.syspath_prepend(tmp_path)
    assert load_downstream(f"my_task:{name}").card.name == "emotion"


def test_an_object_is_taken_as_it_is():
    accuracy = (Metric("accuracy", "higher"),)
    task = Classification(
        DownstreamCard("mine", "Mine", 1, accuracy, "mean", needs=("sex",), label_from="sex")
    )
    assert load_downstream(task) is task
    assert task.card.closed_set  # no head of this kind answers what train lacks
    with pytest.raises(SuperbError, match="'mine' tells labels apart, and its card needs none"):
        Classification(DownstreamCard("mine", "Mine", 1, accuracy, "mean", needs=("sex",)))
    with pytest.raises(SuperbError, match=r"label_from .*a column in needs: add 'sex' there"):
        DownstreamCard("mine", "Mine", 1, accuracy, "mean", label_from="sex")
    assert load_downstream(Ks()).card.name == "ks"  # ours, so it may have its name


def test_an_entry_point(file, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    point = importlib.metadata.EntryPoint("feelings", "my_task:Emotion", "superb.downstreams")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    assert downstream_names()[-1] == "feelings"
    assert load_downstream("feelings").card.name == "emotion"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Needy", r"without arguments.*'size'.*returns the task"),
        ("Cardless", r"gives Cardless without a card: a task has .*vocabulary, head, loss"),
        ("Untrained", r"without training: a mapping"),
        ("Halfway", r"without the methods vocabulary, head, answer, records"),
        ("Ks", "'ks', which is built in; choose another name"),
        ("Mean", "'mean', which is built in"),
        ("Odd", r"metric a: unknown statistic 'ration'.*Did you mean ratio"),
        ("twice", r"task 't' uses the metric name 'accuracy' twice"),
    ],
)
def test_what_can_be_wrong_in_a_file(file, name, says):
    with pytest.raises(SuperbError, match=says):
        load_downstream(f"{file}:{name}")


def test_what_cannot_be_found(file):
    with pytest.raises(SuperbError, match=r"unknown downstream task 'kss'.*Did you mean ks.*my_ta"):
        load_downstream("kss")
    with pytest.raises(SuperbError, match="there is no file"):
        load_downstream("nowhere.py:Mine")
    with pytest.raises(SuperbError, match=r"nowhere\.py is a file; name the task in it, such as"):
        load_downstream("nowhere.py")
    file.write_text("1 / 0")
    with pytest.raises(SuperbError, match=r"ZeroDivisionError: .*my_task\.py:1"):
        load_downstream(f"{file}:Emotion")
    with pytest.raises(SuperbError, match=r"Ks is a class; pass an object, Ks\(\)"):
        load_downstream(Ks)
    with pytest.raises(SuperbError, match="SimpleNamespace without a card"):
        load_downstream(SimpleNamespace())
