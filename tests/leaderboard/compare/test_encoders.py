"""Comparisons of encoders: the numbers, and what cannot be compared."""

import numpy as np
import pytest

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError
from benchmark.scoring.results import utterances_path, write_result
from benchmark.scoring.statistics import difference_of, holm
from leaderboard.compare.encoders import LEVEL, compare
from leaderboard.show.comparison import in_words


def test_a_clear_difference(tmp_path, write_counts, counts):
    worse, better = counts(0.5), counts(0.9)
    write_counts("hubert", "ks", better)
    write_counts("apc", "ks", worse)
    (found,) = compare(tmp_path / "results", ["hubert", "apc"], ["ks"]).pairs
    a, b = (
        [
            Record(f"u{place}", (f"s{place // 5}",), "", "", {"accuracy": (right, 1)})
            for place, right in enumerate(own.tolist())
        ]
        for own in (better, worse)
    )
    expected = difference_of(a, b, Metric("accuracy", "higher"))
    assert found.pair.difference == expected
    assert found.p_value == expected.p_value < LEVEL
    assert found.pair.check == "McNemar"
    assert found.better == "hubert"
    points = 100 * (better.mean() - worse.mean())
    words = in_words(found)
    assert words.startswith(f"hubert is better than apc in ks by {points:.1f} points: accuracy ")
    assert f"{expected.low:.1f}, {expected.high:.1f}], p < 0.001" in words
    (turned,) = compare(tmp_path / "results", ["apc", "hubert"]).pairs
    assert turned.better == "hubert"
    assert turned.pair.difference.value == pytest.approx(-found.pair.difference.value)


def test_fewer_errors_are_better(tmp_path, write_counts, counts):
    write_counts("hubert", "asr", counts(0.1, words=10))
    write_counts("apc", "asr", counts(0.4, words=10))
    (found,) = compare(tmp_path / "results", ["apc", "hubert"]).pairs
    assert found.pair.difference.value < 0
    assert found.better == "hubert"
    assert found.pair.check == "matched pairs"
    assert "wer hubert − apc = -" in in_words(found)


def test_what_cannot_be_told_apart_has_a_size_that_would_be_seen(tmp_path, write_counts, counts):
    write_counts("hubert", "ks", counts(0.7, seed=1))
    write_counts("apc", "ks", counts(0.7, seed=2))
    (found,) = compare(tmp_path / "results", ["hubert", "apc"]).pairs
    assert found.better is None
    assert found.detectable == found.pair.difference.detectable(0.05, 0.8) > 0
    words = in_words(found)
    assert words.startswith("hubert and apc cannot be told apart in ks: accuracy apc − hubert = ")
    assert f"{found.detectable:.1f} points or more to be seen with 80 % power" in words


@pytest.mark.parametrize("speakers", [3, 4])
def test_a_test_set_that_can_show_nothing_says_so(tmp_path, result, speakers):
    for name, wrong in (("hubert", 0), ("apc", 3)):
        made = result(name, "ks", "weighted-sum", 50.0, seeds=(0,))
        records = [
            Record(
                f"u{place}",
                (f"s{place % speakers}",),
                "on",
                "on",
                {"accuracy": (int(place != wrong), 1)},
            )
            for place in range(4)
        ]
        write_result(tmp_path / "results", made, {0: records})
    (found,) = compare(tmp_path / "results", ["hubert", "apc"]).pairs
    if speakers == 4:
        assert found.detectable > 100
        assert "no difference of less than 100 points would have been seen" in in_words(found)
    else:
        assert (found.p_value, found.check_p_value, found.detectable, found.better) == (None,) * 4
        assert "[3 speakers], too few for an interval or a test" in in_words(found)


def test_identical_answers(tmp_path, write_counts, counts):
    for name in ("hubert", "apc"):
        write_counts(name, "ks", counts(0.7))
    (found,) = compare(tmp_path / "results", ["hubert", "apc"]).pairs
    same = found.pair.difference
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert (found.p_value, found.check_p_value, found.better) == (1, 1, None)
    assert found.detectable > 0
    assert "gave the same answer to each of 60 utterances of ks" in in_words(found)


def test_equal_counts_of_different_answers_are_not_certain(tmp_path, write_counts, counts, result):
    path = write_counts("hubert", "ks", counts(0.7))
    write_counts("apc", "ks", counts(0.7))
    made = result("apc", "ks", "weighted-sum", 50.0, seeds=(0,))
    rows = [
        Record(f"u{position:03}", (f"s{position // 5}",), "on", "other",
              {"accuracy": (int(value), 1)})
        for position, value in enumerate(counts(0.7))
    ]  # fmt: skip
    write_result(path.parents[2], made, {0: rows})
    (found,) = compare(tmp_path / "results", ["hubert", "apc"]).pairs
    assert not found.pair.identical
    assert found.pair.difference.low < 0 < found.pair.difference.high


def test_p_values_are_adjusted_for_all_comparisons_of_the_command(tmp_path, write_counts, counts):
    for task, words in (("ks", 1), ("asr", 10)):
        write_counts("hubert", task, counts(0.70, words=words))
        write_counts("apc", task, counts(0.60, words=words, seed=3))
        write_counts("cpc", task, counts(0.72, words=words, seed=4))
    names = ["hubert", "apc", "cpc"]
    found = compare(tmp_path / "results", names, ["ks", "asr"]).pairs
    assert [(pair.table.downstream, pair.b) for pair in found] == [
        ("asr", "apc"), ("asr", "cpc"), ("ks", "apc"), ("ks", "cpc"),
    ]  # fmt: skip
    raw = [pair.pair.difference.p_value for pair in found]
    assert [pair.p_value for pair in found] == holm(raw)
    checks = [pair.pair.check_p_value for pair in found]
    assert [pair.check_p_value for pair in found] == holm(checks)
    for pair in found:
        assert pair.detectable == pair.pair.difference.detectable(0.05 / 4, 0.8)
    alone = compare(tmp_path / "results", names[:2], ["ks"]).pairs[0]
    assert alone.p_value == raw[2] <= found[2].p_value
    assert "adjusted for 4 comparisons" in in_words(found[0], 4)


def test_several_seeds_are_no_further_evidence(tmp_path, write_counts, counts):
    for name, share in (("hubert", 0.9), ("apc", 0.5)):
        write_counts(name, "ks", counts(share), seeds=(0,))
        write_counts(name, "sid", counts(share), seeds=(0, 1, 2))
    one, three = compare(tmp_path / "results", ["hubert", "apc"], ["ks", "sid"]).pairs
    assert three.pair.difference.low == pytest.approx(one.pair.difference.low)
    # McNemar's test is for one answer an utterance.
    assert (one.pair.check, three.pair.check) == ("McNemar", "matched pairs")


def test_a_check_that_disagrees_is_spoken_of(tmp_path, write_counts):
    # All that a wins it wins with two of twelve speakers.
    a, b = np.zeros(60, int), np.zeros(60, int)
    a[:10] = 1
    write_counts("hubert", "ks", a)
    write_counts("apc", "ks", b)
    (found,) = compare(tmp_path / "results", ["hubert", "apc"]).pairs
    assert found.better is None
    assert "McNemar, blind to speakers, disagrees with p = 0.002" in in_words(found)


def test_layer_choice(tmp_path, write_counts, counts):
    for name, share in (("hubert", 0.9), ("apc", 0.5)):
        write_counts(name, "ks", counts(share), layer="last")
    folder = tmp_path / "results"
    (found,) = compare(folder, ["hubert", "apc"], layer="last").pairs
    assert found.layer == "last"
    with pytest.raises(SuperbError, match=r"unknown layer choice .*'lst'.*Did you mean last.*--la"):
        compare(folder, ["hubert", "apc"], layer="lst")


def test_tasks_that_were_not_named_may_lack_one(tmp_path, write_counts, counts):
    for name, share in (("hubert", 0.9), ("apc", 0.5)):
        write_counts(name, "ks", counts(share))
    write_counts("hubert", "sid", counts(0.5))
    found = compare(tmp_path / "results", ["hubert", "apc"])
    assert [pair.table.downstream for pair in found.pairs] == ["ks"]
    assert "of sid" in found.notes[0]
    assert "of apc: none" in found.notes[0]
    with pytest.raises(SuperbError, match="no weighted-sum results of sid"):
        compare(tmp_path / "results", ["hubert", "apc"], ["sid"])


def test_names_that_are_not_there(tmp_path, write_counts, counts):
    for name, share in (("hubert", 0.9), ("apc", 0.5)):
        write_counts(name, "ks", counts(share))
    folder = tmp_path / "results"
    with pytest.raises(SuperbError, match=r"'hubrt'. Did you mean hubert\?.*superb run --upstream"):
        compare(folder, ["hubrt", "apc"])
    with pytest.raises(SuperbError, match=r"unknown task .*'asr'. Known: ks"):
        compare(folder, ["hubert", "apc"], ["asr"])
    for names in (["hubert"], ["hubert", "hubert"], []):
        with pytest.raises(
            SuperbError, match=r"two or more different upstreams.*Type for instance"
        ):
            compare(folder, names)
    with pytest.raises(SuperbError, match="does not exist"):
        compare(tmp_path / "nowhere", ["hubert", "apc"])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"corpus_sha256": "d1" * 32}, r"on mini \(d1d1d1d1\)"),
        ({"protocol_version": 2}, "under superb v2"),
        ({"skipped": ("x.wav",)}, "1 utterances left out"),
    ],
)
def test_different_test_sets(tmp_path, write_counts, counts, changes, word):
    write_counts("hubert", "ks", counts(0.9))
    write_counts("apc", "ks", counts(0.5), **changes)
    with pytest.raises(SuperbError, match=f"same test set.*of hubert: weighted-sum on.*{word}"):
        compare(tmp_path / "results", ["hubert", "apc"])


def test_different_seeds(tmp_path, write_counts, counts):
    write_counts("hubert", "ks", counts(0.9), seeds=(0,))
    write_counts("apc", "ks", counts(0.5), seeds=(0, 1, 2))
    with pytest.raises(SuperbError, match=r"hubert, weighted-sum .*differ in seeds.*--seeds"):
        compare(tmp_path / "results", ["hubert", "apc"])


def test_missing_utterances(tmp_path, write_counts, counts):
    path = write_counts("hubert", "ks", counts(0.9))
    write_counts("apc", "ks", counts(0.5))
    utterances_path(path).unlink()
    with pytest.raises(SuperbError, match=r"utterances.csv.* cannot be read.*superb run"):
        compare(tmp_path / "results", ["hubert", "apc"])


def test_other_utterances_of_a_corpus_of_the_same_name(tmp_path, write_counts, counts):
    write_counts("hubert", "ks", counts(0.9))
    write_counts("apc", "ks", counts(0.5)[:50])
    with pytest.raises(SuperbError, match="same test utterances: 10 differ"):
        compare(tmp_path / "results", ["hubert", "apc"])


def test_two_encoders_of_one_name(tmp_path, write_counts, counts):
    for mark in ("1" * 64, "2" * 64):
        write_counts("hubert", "ks", counts(0.9), fingerprint=mark)
    write_counts("apc", "ks", counts(0.5))
    with pytest.raises(SuperbError, match="choose 'hubert @11111111' or 'hubert @22222222'"):
        compare(tmp_path / "results", ["hubert", "apc"])
    (found,) = compare(tmp_path / "results", ["hubert @22222222", "apc"]).pairs
    assert found.better == "hubert @22222222"


def test_failed_runs(tmp_path, write_counts, counts, save):
    write_counts("hubert", "ks", counts(0.9))
    save("apc", "ks", "weighted-sum", None, seeds=(0,))
    with pytest.raises(SuperbError, match=r"of apc: weighted-sum \(failed\) on mini"):
        compare(tmp_path / "results", ["hubert", "apc"])


def test_damaged_files_are_named_and_the_others_used(tmp_path, write_counts, counts):
    write_counts("hubert", "ks", counts(0.9))
    write_counts("apc", "ks", counts(0.5))
    (tmp_path / "results" / "odd.json").write_text("{")
    found = compare(tmp_path / "results", ["hubert", "apc"])
    assert len(found.pairs) == 1
    assert any("odd.json is not valid JSON" in note for note in found.notes)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "odd.json").write_text("{")
    with pytest.raises(SuperbError, match=r"no result in .*bad can be read.*not valid JSON"):
        compare(tmp_path / "bad", ["hubert", "apc"])
