"""Intent classification: outputs by slot, loss, answers right in all slots or wrong."""

from dataclasses import replace

import pytest
import torch

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from downstreams.corpora.utterances import checked
from downstreams.ic import Ic

VOCABULARY = ("action=off", "action=on", "object=heat", "object=lights", "object=music")


def asked(*intents, split="train", slots=("action", "object")):
    return [
        Utterance(f"{split}{i}", b"", split, "s", columns=dict(zip(slots, own, strict=True)))
        for i, own in enumerate(intents)
    ]


@pytest.fixture
def task():
    return Ic(("action", "object"))


TRAIN = asked(("on", "lights"), ("off", "music"), ("on", "heat"))


def test_outputs_are_the_values_of_train_slot_by_slot(task):
    assert task.vocabulary(TRAIN) == VOCABULARY
    assert Ic().card.needs == ("action", "object", "location")
    one = Ic(("intent",)).vocabulary(asked(("a=b",), ("a",), slots=("intent",)))
    assert one == ("intent=a", "intent=a=b")


def test_loss_is_the_sum_of_each_slots_cross_entropy(task):
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    own = [
        torch.nn.functional.cross_entropy(logits[:, :2], torch.tensor([1, 0, 1])),
        torch.nn.functional.cross_entropy(logits[:, 2:], torch.tensor([1, 2, 0])),
    ]
    found = task.loss(logits, torch.ones(3), TRAIN, VOCABULARY)
    assert float(found) == pytest.approx(float(sum(own)), rel=1e-6)


def test_an_intent_is_right_if_all_slots_are(task):
    logits = torch.tensor(
        [[0.0, 1, 0, 1, 0], [0, 1, 0, 0, 1], [0, 1, 0, 1, 0]]
    )  # on lights, on music, on lights
    answers = task.answer(logits, torch.ones(3), TRAIN, VOCABULARY)
    assert answers == [("on", "lights"), ("on", "music"), ("on", "lights")]
    records = task.records(TRAIN, answers)
    assert [record.values["accuracy"] for record in records] == [(1, 1), (0, 1), (0, 1)]
    assert (records[1].reference, records[1].hypothesis) == ("off, music", "on, music")


def test_values_that_train_lacks_are_refused_and_new_combinations_are_not(task):
    def loaded(*utterances):
        return checked("here", list(utterances), task.card, name="c")

    valid = asked(("on", "lights"), split="valid")
    loaded(*TRAIN, *valid, *asked(("off", "heat"), split="test"))
    with pytest.raises(SuperbError, match="values of 'object' that train does not have: 'door'"):
        loaded(*TRAIN, *valid, *asked(("on", "door"), split="test"))
    with pytest.raises(SuperbError, match="every utterance of train has the value of 'action'"):
        loaded(
            *asked(("on", "lights"), ("on", "heat")), *valid, *asked(("on", "heat"), split="test")
        )


def test_a_valid_split_taken_from_train_leaves_every_value_there(task):
    train = asked(*[("on", "lights"), ("off", "music")] * 10, ("on", "heat"))
    test = asked(("on", "heat"), split="test")
    for salt in "abcdefgh":
        named = [replace(u, id=f"{salt}{u.id}") for u in train]
        corpus = checked("here", [*named, *test], task.card, name="c")
        assert len(corpus.split("valid")) == 2


def test_the_order_of_slots_is_none():
    assert Ic(("b", "a")).card == Ic(("a", "b")).card
    assert Ic(("location", "action", "object")).card == Ic().card
    assert Ic(("b", "a")).card.title == "Intent classification: a, b"


@pytest.mark.parametrize("slots", [(), ("",), ("a=b",)])
def test_slots_are_names_of_columns(slots):
    with pytest.raises(SuperbError, match="names of columns without '='"):
        Ic(slots)
