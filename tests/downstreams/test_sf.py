"""Slot filling: tags as symbols, what is refused, F1 of slots and errors of their values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.scoring.slots import type_f1, value_errors, values
from downstreams.ctc import BLANK
from downstreams.sf import Sf
from downstreams.slots import symbols
from downstreams.text import joined

TAGGED = "play <song>Hey, you</song> at <time>seven</time>"


def said(*tagged, split="train"):
    return [
        Utterance(f"{split}{i}", b"", split, f"s{i % 2}", columns={"tagged": own})
        for i, own in enumerate(tagged)
    ]


def test_a_tag_is_one_symbol():
    found = symbols(TAGGED)
    assert found[:8] == [*"PLAY ", "<song>", "H", "E"]
    assert joined(found) == "PLAY <song>HEY YOU</song> AT <time>SEVEN</time>"
    assert joined(symbols("rock &  roll -- <a>x</a>!")) == "ROCK AND ROLL <a>X</a>"
    assert joined(symbols("<a>x</a><b>y</b>")) == "<a>X</a> <b>Y</b>"
    assert symbols("") == []


@pytest.mark.parametrize(
    ("tagged", "message"),
    [
        ("play <song>you", "slot <song> is not closed"),
        ("play you</song>", "</song> closes nothing"),
        ("<a>x <b>y</b></a>", "slot <b> within <a>"),
        ("<a>x</b>", "slot <a> is closed by </b>"),
        ("<a> </a>", "slot <a> without a value"),
        ("<a>?!</a>", "slot <a> without a value"),
        ("1 < 2", "'<' that is of no tag"),
        ("<a b>x</a b>", "'<' that is of no tag"),
    ],
)
def test_slots_that_cannot_be_read_are_named(tagged, message):
    with pytest.raises(ValueError, match=message):
        symbols(tagged)
    utterances = said(TAGGED, tagged)
    with pytest.raises(SuperbError, match=f"train1: .*{message}"):
        Sf().check_data(utterances)


def test_data_without_slots_is_refused():
    both = said(TAGGED) + said(TAGGED, split="valid")
    with pytest.raises(SuperbError, match="no utterance of test has a slot"):
        Sf().check_data(both + said("play it", split="test"))
    with pytest.raises(SuperbError, match="no utterance of valid has a slot"):
        Sf().check_data(said(TAGGED) + said("play it", split="valid"))
    Sf().check_data(both + said(TAGGED, "play it", split="test"))


def test_vocabulary_holds_characters_and_tags():
    found = Sf().vocabulary(said("a <t>b</t>", "c"))
    assert found == (BLANK, " ", "</t>", "<t>", "A", "B", "C")


WORDS = st.lists(st.sampled_from(["A", "BE", "SEE"]), min_size=1, max_size=3).map(" ".join)
SEGMENTS = st.lists(st.tuples(st.sampled_from(["", "x", "y"]), WORDS), max_size=4)


@given(SEGMENTS)
def test_decoding_undoes_encoding(segments):
    tagged = " ".join(f"<{slot}>{text}</{slot}>" if slot else text for slot, text in segments)
    vocabulary = Sf().vocabulary(said(tagged))
    path = [0]
    for symbol in symbols(tagged):
        path += [vocabulary.index(symbol), 0]
    logits = torch.nn.functional.one_hot(torch.tensor([path]), len(vocabulary)).float()
    (heard,) = Sf().answer(logits, torch.tensor([len(path)]), said(tagged), vocabulary)
    assert heard == tagged
    expected = {}
    for slot, text in segments:
        if slot:
            expected.setdefault(slot, []).append(text)
    assert values(heard) == expected


@pytest.mark.parametrize(
    ("heard", "found"),
    [
        ("A <x>B</x> <x>C</x>", {"x": ["B", "C"]}),
        ("A <x>B <y>C</y></x>", {"x": ["B C"]}),  # as the published scoring reads it
        ("<x>A</y> B</x>", {"x": ["A B"]}),
        ("<x></x> <y> </y>", {}),
        ("<x>A", {}),
        ("</x>A<x>", {}),
    ],
)
def test_slots_of_what_a_head_writes(heard, found):
    assert values(heard) == found


def test_scores_by_hand():
    said_, heard = {"x": ["AB", "CD"], "y": ["E"]}, {"x": ["AC"], "z": ["Q"]}
    assert type_f1(said_, heard) == pytest.approx(2 * 0.5 * 0.5 / (0.5 + 0.5))
    assert type_f1({}, {}) == 1.0
    assert type_f1({"x": ["A"]}, {}) == type_f1({}, {"x": ["A"]}) == 0.0
    # AB to AC is one, CD to AC two, E to nothing one; Q counts nowhere
    assert value_errors(said_, heard) == (4, 5)
    # the nearest of several
    assert value_errors({"x": ["AB"]}, {"x": ["QQQQ", "AB"]}) == (0, 2)


def test_records_and_notes():
    test = said(TAGGED, "stop", split="test")
    first, second = Sf().records(test, ["PLAY <song>HEY</song> AT SEVEN", "STOP"])
    assert first.values == {"slot_f1": (pytest.approx(2 / 3),), "slot_cer": (9, 12)}
    assert second.values == {"slot_f1": (1.0,), "slot_cer": (0, 0)}
    assert first.reference == "PLAY <song>HEY YOU</song> AT <time>SEVEN</time>"
    (note,) = Sf().test_notes(test, ("<song>", "</song>"))
    assert note.endswith("cannot be right: time (1)")
    assert Sf().test_notes(test, ("<song>", "<time>")) == []
