"""Phone recognition: inventory, data that is refused, loss, errors with and without stress."""

import pytest
import torch

from benchmark.arpabet import CLASSES, PHONES, class_of, without_stress
from benchmark.core import Utterance
from benchmark.errors import SuperbError
from downstreams.ctc import BLANK
from downstreams.pr import Pr


def said(*phones, split="train"):
    return [
        Utterance(f"{split}{i}", b"", split, f"s{i % 2}", columns={"phones": own})
        for i, own in enumerate(phones)
    ]


def test_arpabet_has_71_phones():
    assert len(PHONES) == len(set(PHONES)) == 71
    assert len({without_stress(phone) for phone in PHONES}) == 41
    assert {class_of(phone) for phone in PHONES} == set(CLASSES)
    assert class_of("AH0") == class_of("AH") == "vowel"
    assert class_of("ɪ") is None
    # digits of other inventories are no stress
    assert [without_stress(phone) for phone in ("ER2", "R", "ma3", "5", "")] == [
        "ER", "R", "ma3", "5", ""
    ]  # fmt: skip


def test_english_with_stress_has_all_71_outputs_whatever_train_has():
    assert Pr().vocabulary(said("K AE1 T")) == (BLANK, *PHONES)
    assert Pr().vocabulary(said("k a t", "a")) == (BLANK, "a", "k", "t")
    assert Pr().vocabulary(said("K AE T")) == (BLANK, "AE", "K", "T")  # stress was left out


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("K AE1 T", "K AE3 T", r"of ARPAbet with stress: 'AE3' \(1 in test; AE"),
        ("K AE1 T Q", "K", "'Q' (1 in train"),
        ("k a t", "k o t", r"of train: 'o' \(1 in test"),
    ],
)
def test_phones_outside_the_inventory_are_refused(train, test, message):
    with pytest.raises(SuperbError, match=message.replace("(1 in train", r"\(1 in train")):
        Pr().check_data(said(train) + said(test, split="test"))
    Pr().check_data(said(train.replace(" Q", "")) + said("", split="test"))


def test_loss_and_answer_know_the_phones():
    task, utterances = Pr(), said("K AE1 T")
    vocabulary = task.vocabulary(utterances)
    path = torch.zeros(1, 7, len(vocabulary))
    for frame, phone in enumerate([BLANK, "K", "K", "AE1", BLANK, "T", "K"]):
        path[0, frame, vocabulary.index(phone)] = 30.0
    lengths = torch.tensor([6])
    assert float(task.loss(path, lengths, utterances, vocabulary)) < 1e-3
    assert task.answer(path, lengths, utterances, vocabulary) == [["K", "AE1", "T"]]


def test_records_count_errors_with_and_without_stress():
    utterances = said("K AE1 T", "HH AH0 L OW1", split="test")
    found = Pr().records(utterances, [["K", "AE0", "T", "S"], []])
    assert [record.values for record in found] == [
        {"per": (2, 3), "per_no_stress": (1, 3)},
        {"per": (4, 4), "per_no_stress": (4, 4)},
    ]
    assert (found[0].reference, found[0].hypothesis) == ("K AE1 T", "K AE0 T S")


def test_notes_count_what_has_too_few_frames():
    """A frame each, and a blank between two that are the same."""
    train = said("K AE1 T", "K K")
    assert Pr().notes(train, [3, 3], 0.02, {}) == []
    (note,) = Pr().notes(train, [2, 3], 0.02, {})
    assert note.startswith("1 of 2 training transcripts have more phones than the head has frames")


def test_the_head_has_the_published_size():
    """74 outputs on 768 dimensions: linear 256, linear."""
    head = Pr().head(768, 0.02, 74, {"projection": 256}, torch.Generator())
    assert sum(weights.numel() for weights in head.parameters()) == 215_882
