"""Budgets of labels: nested, balanced, drawn anew for each rerun."""

from collections import Counter
from itertools import pairwise

import pytest

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.probing.budget import Budget

TRAIN = [
    Utterance(f"u{place}", b"", "train", speaker=f"s{place % 5}", text="a") for place in range(60)
]
SECONDS = {utterance.id: 2.0 + place % 3 for place, utterance in enumerate(TRAIN)}


def drawn(text, rerun=0, train=TRAIN):
    return Budget.parse(text).subset(train, SECONDS, rerun)


@pytest.mark.parametrize("rerun", [0, 1, 7])
def test_a_larger_budget_holds_all_of_a_smaller(rerun):
    parts = [set(drawn(text, rerun)) for text in ("10s", "30s", "1min", "2.5min", "180s")]
    assert all(small < large for small, large in pairwise(parts))
    assert parts[-1] == set(range(60))
    for part, least in zip(parts, (10, 30, 60, 150, 180), strict=True):
        heard = sum(SECONDS[TRAIN[place].id] for place in part)
        assert least <= heard < least + 4


def test_speakers_have_equal_shares_or_labels_where_there_are_some():
    counts = Counter(TRAIN[place].speaker for place in drawn("1min"))
    assert len(counts) == 5
    assert max(counts.values()) - min(counts.values()) <= 1
    labelled = [
        Utterance(u.id, b"", "train", "s", label="rare" if place < 6 else "common")
        for place, u in enumerate(TRAIN)
    ]
    labels = Counter(labelled[place].label for place in drawn("30s", train=labelled))
    assert abs(labels["rare"] - labels["common"]) <= 1


def test_each_rerun_has_other_utterances_and_the_same_ones_again():
    assert drawn("30s", 1) == drawn("30s", 1)
    assert len({tuple(drawn("30s", rerun)) for rerun in range(5)}) == 5


def test_all_is_no_budget_and_what_is_none_is_named():
    assert Budget.parse("all") is None
    assert Budget.parse("1h").seconds == 3600
    for text in ("", "10", "10 min", "-1min", "0min", "1d", "min"):
        with pytest.raises(SuperbError, match="number of s, min or h, such as 10min, or all; got"):
            Budget.parse(text)
    with pytest.raises(SuperbError, match=r"--labels 1h asks for more.*train has 3.0 min"):
        drawn("1h")


def test_a_published_part_is_taken_as_it_is_or_not_at_all():
    budget = Budget.parse("10min")
    assert [u.id for u in budget.published(TRAIN, ["u3", "u1"])] == ["u1", "u3"]
    with pytest.raises(SuperbError, match=r"of the 2 utterances .* train lacks 1, such as other"):
        budget.published(TRAIN, ["u1", "other"])
