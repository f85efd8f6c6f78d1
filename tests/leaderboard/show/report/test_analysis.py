import pytest

from benchmark.core import Metric, Record
from leaderboard.show.report.analysis import (
    Aligned,
    Slot,
    align,
    by_length,
    by_slot,
    by_speaker,
    confusions,
    error_tradeoff,
    phone_confusions,
    score_shares,
    turns,
    worst,
)

WER = Metric("wer", "lower")
SENTENCES = [
    Record("u1", ("ann",), "the cat sat", "the cat sat", {"wer": (0, 3)}),
    Record("u2", ("ann",), "a dog barked loudly", "a frog barked", {"wer": (2, 4)}),
    Record("u3", ("bob",), "go", "go on now", {"wer": (2, 1)}),
]


def test_words_are_aligned_one_by_one():
    assert align("a dog barked loudly", "a frog barked") == (
        Aligned("equal", "a", "a"),
        Aligned("substitute", "dog", "frog"),
        Aligned("equal", "barked", "barked"),
        Aligned("delete", "loudly", ""),
    )
    assert align("", "oh no") == (Aligned("insert", "", "oh"), Aligned("insert", "", "no"))
    assert align("oh", "") == (Aligned("delete", "oh", ""),)


def test_parts_of_the_test_set_add_up():
    records = {0: SENTENCES, 1: SENTENCES}
    speakers = {share.name: (share.value, share.utterances)
                for share in by_speaker(records, WER)}  # fmt: skip
    assert speakers == {"ann": (pytest.approx(100 * 2 / 7), 2), "bob": (200.0, 1)}
    assert [share.name for share in by_length(records, WER)] == ["1", "3", "4"]
    two = by_length(records, WER, most=2)
    assert [(share.name, share.utterances) for share in two] == [("1", 1), ("3–4", 2)]
    bad = worst(records, WER, most=5)
    assert [(mistake.utterance, mistake.score) for mistake in bad] == [("u3", 200.0), ("u2", 50.0)]


def test_confusions_count_all_seeds():
    def answer(reference, hypothesis):
        return Record("u", ("s",), reference, hypothesis, {"accuracy": (0, 1)})

    found = confusions({0: [answer("on", "off"), answer("up", "up")], 1: [answer("on", "off")]})
    assert found.names == ("off", "on", "up")
    assert found.counts == {(1, 0): 2, (2, 2): 1}
    assert found.worst(3) == [("on", "off", 2)]


def answered(*pairs):
    return {0: [Record(f"u{i}", ("s",), said, heard, {}) for i, (said, heard) in enumerate(pairs)]}


def test_phones_are_confused_without_stress_and_by_manner():
    phones, manners = phone_confusions(answered(("K AE1 T", "G AE0 T S"), ("AE2 N", "N")))
    assert phones.worst(5) == [("AE", "–", 1), ("K", "G", 1), ("–", "S", 1)]
    assert manners.names == ("vowel", "stop", "fricative", "nasal", "–")
    place = {name: index for index, name in enumerate(manners.names)}
    assert manners.counts == {
        (place["vowel"], place["vowel"]): 1,
        (place["vowel"], place["–"]): 1,
        (place["stop"], place["stop"]): 2,
        (place["–"], place["fricative"]): 1,
        (place["nasal"], place["nasal"]): 1,
    }
    # words are none, and neither are phones of another inventory
    assert phone_confusions(answered(("THE CAT", "A CAT"))) is None
    assert phone_confusions(answered(("k a t", "k a"))) is None


def test_slots_by_kind():
    found = by_slot(
        answered(
            ("PLAY <song>HEY</song> AT <time>TEN</time>", "PLAY <song>HI</song>"),
            ("STOP", "<time>STOP</time> <food>TEA</food>"),
            ("AT <time>TEN</time>", "AT <time>TEN</time>"),
        )
    )
    assert found == [
        Slot("song", said=1, heard=1, both=1, f1=100.0, value_errors=pytest.approx(200 / 3)),
        Slot("time", said=2, heard=2, both=1, f1=50.0, value_errors=50.0),
    ]
    assert by_slot(answered(("PLAY", "PLAY"))) == []


def test_who_speaks_when_is_told_from_other_texts():
    assert turns("ann lee 0.00-1.25 B 12.90-13.00") == (("ann lee", 0, 1.25), ("B", 12.9, 13))
    assert turns("7 0.00-1.25") == (("7", 0, 1.25),)
    assert turns("") == ()
    assert turns("a 0.00-1.00 " * 40_000 + "b") is None  # at once
    for text in ("from 1 to 2", "ann 0.00-1.25 so she said", "0.00-1.25", "ann 0-1.25"):
        assert turns(text) is None
    spoken = Record("m", ("a", "b"), "a 0.00-1.00 b 0.50-2.00", "", {"der": (3, 2)})
    (mistake,) = worst({0: [spoken]}, Metric("der", "lower"), 1)
    assert mistake.turns == ((("a", 0, 1), ("b", 0.5, 2)), ())
    assert mistake.speaker == "a and b"
    assert all(mistake.turns is None for mistake in worst({0: SENTENCES}, WER, 3))


def test_trials_by_score():
    scores = [(0.9, 1), (0.7, 1), (0.4, 1), (0.6, 0), (0.2, 0), (-0.1, 0), (0.0, 0)]
    records = {0: [Record(str(i), ("s",), "", "", {"eer": own}) for i, own in enumerate(scores)]}
    same, different = score_shares(records, "eer", bins=2)
    assert same == [
        (pytest.approx(0.15), 0.0),
        (pytest.approx(0.65), 100.0),
    ]
    assert [share for _, share in different] == [75.0, 25.0]
    # every threshold: what lies at it is accepted
    assert error_tradeoff(records, "eer") == [
        (1.0, 0.0), (0.75, 0.0), (0.5, 0.0), (0.25, 0.0), (0.25, pytest.approx(1 / 3)),
        (0.0, pytest.approx(1 / 3)), (0.0, pytest.approx(2 / 3)),
    ]  # fmt: skip


def test_a_mixture_counts_for_both_of_its_speakers():
    metric = Metric("der", "lower")
    mixtures = [
        Record("m1", ("ann", "bob"), "", "", {"der": (1, 10)}),
        Record("m2", ("ann", "cy"), "", "", {"der": (5, 10)}),
    ]
    shares = {
        share.name: (share.value, share.utterances) for share in by_speaker({0: mixtures}, metric)
    }
    assert shares == {"ann": (30.0, 2), "bob": (10.0, 1), "cy": (50.0, 1)}


def test_a_search_in_which_every_document_is_a_target_can_be_drawn():
    found = {0: [Record("q|d", ("a",), "yes", "", {"mtwv": (score, 1, 0)}) for score in (0.5, 1)]}
    held, others = score_shares(found, "mtwv", bins=2)
    assert sum(share for _, share in held) == 100
    assert not any(share for _, share in others)
    assert {alarms for alarms, _ in error_tradeoff(found, "mtwv")} == {0}
