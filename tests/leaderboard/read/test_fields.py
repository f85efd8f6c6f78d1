from dataclasses import replace

import pytest

from benchmark.core import Record
from benchmark.errors import SuperbError
from leaderboard.read.fields import counts_of, learning_rate_of, score_of, valid_of


def test_a_learning_rate_is_said_in_words(result):
    assert learning_rate_of(result("a", "ks", "last", 90.0)) == "0.001"
    assert learning_rate_of(result("a", "ks", "last", None)) == ""
    folds = replace(result("a", "ks", "last", 90.0), learning_rate=None)
    assert learning_rate_of(folds) == "by fold"


def test_only_what_finished_has_a_score(result):
    assert score_of(result("a", "asr", "last", 20.0))["value"] == 20.0
    assert score_of(result("a", "asr", "last", None)) is None


@pytest.mark.parametrize(("scores", "mean"), [((1.0, 2.0), 1.5), ((1.0, None), None), ((), None)])
def test_valid_is_the_mean_where_every_seed_has_one(result, scores, mean):
    seeds = [{"seed": seed, "metrics": {}, "valid": valid} for seed, valid in enumerate(scores)]
    assert valid_of(replace(result("a", "ks", "last", 90.0), per_seed=seeds)) == mean


def test_a_metric_that_no_utterance_counts_for_is_named():
    record = Record("u1", ("ann",), "yes", "no", {"accuracy": (0, 1)})
    assert counts_of(record, "accuracy") == (0, 1)
    with pytest.raises(SuperbError, match="eer has no counts of utterance u1"):
        counts_of(record, "eer")
