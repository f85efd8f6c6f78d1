"""Speaker verification: trials, the x-vector, the margin, and equal error rates."""

import math

import pytest
import torch

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.metrics import score
from downstreams.asv import MARGIN, SCALE, Asv
from downstreams.heads import XVector, lengthened
from downstreams.trials import MOST, pairs_of


def heard(*speakers, split="test", trials=()):
    named = dict(enumerate(trials))
    return [
        Utterance(f"u{i}", b"", split, speaker, columns={"trials": named.get(i, "")})
        for i, speaker in enumerate(speakers)
    ]


def test_all_pairs_are_trials_where_none_is_named():
    found = pairs_of(heard("a", "a", "b"))
    assert found == ((0, 1, True), (0, 2, False), (1, 2, False))
    assert pairs_of(heard("a", "b", "b", trials=["u2", "u2"])) == ((0, 2, False), (1, 2, True))


@pytest.mark.parametrize("people", [12, 700])
def test_of_many_pairs_some_are_drawn_half_of_either_kind(people):
    utterances = heard(*(f"s{i % people}" for i in range(1400)))
    found = pairs_of(utterances)
    assert len(set(found)) == len(found)
    kinds = [pair.target for pair in found]
    assert kinds.count(False) == MOST // 2
    assert kinds.count(True) == min(MOST // 2, people * math.comb(1400 // people, 2))
    assert found == pairs_of(list(utterances))
    for pair in found:
        assert pair.one < pair.other
        one, other = (utterances[place].speaker for place in pair[:2])
        assert (one == other) == pair.target


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        (heard("a", "b", trials=["u7"]), "'u0' with 'u7', which is no utterance of its split"),
        (heard("a", "a", "b", trials=["u1 u2 u1"]), "'u0' with 'u1' that occurs twice"),
        (heard("a", "b", trials=["u0"]), "'u0' with 'u0', which is itself"),
        (heard("a", "b"), "test has 0 trials of one speaker and 1 of two"),
        (heard("a", "a"), "test has 1 trials of one speaker and 0 of two"),
    ],
)
def test_trials_that_are_none_are_refused(utterances, message):
    others = [*heard("x", "y", split="train"), *heard("v", "v", "w", split="valid")]
    with pytest.raises(SuperbError, match=message):
        Asv().check_data([*others, *utterances])


def test_trials_of_recordings_that_cannot_be_used_are_left_out():
    listed = heard("a", "a", "b", "b", trials=["u1 u2 u3", "", "u3"])
    there = listed[:3]
    answers = list(torch.eye(3))
    assert [record.id for record in Asv().records(there, answers)] == ["u0|u1", "u0|u2"]
    assert Asv().records(there[2:], answers[:1]) == []
    (note,) = Asv().test_notes(there, ())
    assert "left out: 2 or more" in note
    assert Asv().test_notes(listed, ()) == Asv().test_notes(heard("a", "b"), ()) == []


def test_one_speaker_alone_teaches_nothing():
    with pytest.raises(SuperbError, match="train has one speaker alone"):
        Asv().check_data(heard("a", "a", split="train"))


def test_loss_is_am_softmax_of_the_speakers_that_train_has():
    train = heard("a", "b", split="train")
    cosines = torch.tensor([[0.9, 0.1], [0.3, 0.2]])
    logits = torch.cat([cosines, torch.randn(2, 5)], dim=1)
    found = float(Asv().loss(logits, torch.ones(2), train, ("a", "b")))
    each = [
        math.log(1 + math.exp(SCALE * (0.1 - 0.9 + MARGIN))),
        math.log(1 + math.exp(SCALE * (0.3 - 0.2 + MARGIN))),
    ]
    assert found == pytest.approx(sum(each) / 2, rel=1e-5)
    assert float(Asv().loss(logits, torch.ones(2), heard("x", "y"), ("a", "b"))) == 0


def test_records_are_trials_with_cosines():
    logits = torch.tensor([[0.0, 3.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    utterances = heard("a", "a", "b")
    answers = Asv().answer(logits, torch.ones(3), utterances, ("x",))
    found = Asv().records(utterances, answers)
    assert [record.id for record in found] == ["u0|u1", "u0|u2", "u1|u2"]
    assert [record.clusters for record in found] == [("a",), ("a", "b"), ("a", "b")]
    assert [record.values["eer"] for record in found] == [(1.0, 1.0), (0.0, 0.0), (0.0, 0.0)]
    assert [(record.reference, record.hypothesis) for record in found][:2] == [
        ("same", "1.0000"),
        ("different", "0.0000"),
    ]
    assert [score(found, metric) for metric in Asv.card.metrics] == [0.0, 0.0]


def test_the_head_has_the_published_size():
    settings = {"projection": 512, "hidden": 512, "pooled": 1500, "embedding": 512}
    head = Asv().head(768, 0.02, 1211, settings, torch.Generator())
    tdnn = 512 * 5 * 512 + 512 + 2 * (512 * 3 * 512 + 512) + 512 * 512 + 512 + 512 * 1500 + 1500
    linear = 768 * 512 + 512 + 3000 * 512 + 512 + 512 * 512 + 512
    assert sum(weights.numel() for weights in head.parameters()) == tdnn + linear + 1211 * 512
    assert head.lost == 14


def test_padding_and_short_utterances():
    torch.manual_seed(0)
    head = XVector(3, 4, projection=5, hidden=5, pooled=6, embedding=7).eval()
    frames = torch.randn(3, 40, 3)
    lengths = torch.tensor([40, 20, 3])
    for index, length in enumerate(lengths):
        frames[index, length:] = 0
    together, _ = head(frames, lengths)
    for index, length in enumerate(lengths):
        alone, _ = head(frames[index : index + 1, :length], lengths[index : index + 1])
        assert torch.allclose(alone[0], together[index], atol=1e-6)
    longer = lengthened(frames[2:, :3], lengths[2:], 15)
    assert longer.shape == (1, 15, 3)
    assert torch.equal(longer[0, 3:], frames[2, 2].expand(12, 3))
