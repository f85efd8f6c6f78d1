import pytest

from benchmark.core import Metric, Record
from leaderboard.show.report.analysis import (
    Aligned,
    align,
    by_length,
    by_speaker,
    confusions,
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
