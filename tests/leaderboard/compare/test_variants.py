"""Encoders by head and by amount of labels: columns, agreement, what holds and what flips."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import kendalltau
from typer.testing import CliRunner

from benchmark.errors import SuperbError
from benchmark.scoring.results import write_result
from leaderboard.compare.ranks import summarise
from leaderboard.compare.variants import kendall, study_variants
from leaderboard.read.collect import collect
from superb.cli import app
from tests.leaderboard.conftest import build, records, variant


@pytest.fixture
def folder(tmp_path):
    """Three encoders by two heads and on three amounts of labels; a and b change places."""
    scores = {"a": (10.0, 30.0), "b": (20.0, 20.0), "c": (40.0, 41.0)}
    for name, (ctc, attention) in scores.items():
        whole = build(name, "asr", "weighted-sum", ctc, half=0.5)
        other = variant(build(name, "asr", "weighted-sum", attention, half=0.5), "asr-attention")
        few = [
            variant(
                build(name, "asr", "weighted-sum", ctc + more, half=0.5), f"asr-{text}", text, time
            )
            for text, time, more in (("2min", 120.0, 40.0), ("10min", 600.0, 20.0))
        ]
        for result in (whole, other, *few):
            write_result(tmp_path / "results", result, records(result))
    return tmp_path / "results"


def test_heads_stand_side_by_side(folder):
    (study,) = study_variants(folder, "heads")
    assert study.columns == ("asr", "asr-attention")
    assert study.layer == "weighted-sum"
    assert [label for _, label, _ in study.rows] == ["a", "b", "c"]
    (agreement,) = study.agreements
    assert agreement.tau.value == pytest.approx(1 / 3)
    assert agreement.tau.low <= agreement.tau.value <= agreement.tau.high
    assert study.flips == (("a", "b"),)
    assert study.holds == (("a", "c"), ("b", "c"))
    assert study.open_pairs == 0


def test_labels_stand_from_few_to_all(folder):
    (study,) = study_variants(folder, "labels")
    assert study.columns == ("2min", "10min", "all")
    assert all(agreement.tau.value == 1 for agreement in study.agreements)
    assert len(study.holds) == 3


def test_each_budget_has_a_study_of_heads_and_each_head_one_of_budgets(folder):
    for name, score in (("a", 50.0), ("b", 60.0)):
        made = build(name, "asr", "weighted-sum", score)
        made = variant(made, "asr-attention-2min", "2min", 120.0)
        write_result(folder, made, records(made))
    assert [study.subject for study in study_variants(folder, "heads")] == ["asr", "asr-2min"]
    subjects = [study.subject for study in study_variants(folder, "labels")]
    assert subjects == ["asr", "asr-attention"]


def searched(name, layer, value, **settings):
    """Of a head that trains nothing."""
    made = variant(build(name, "asr", layer, value, half=0.5, **settings), "asr-gmm-hmm")
    return dataclasses.replace(made, learning_rate=None if value is None else 0.0)


def test_the_best_layer_stands_for_the_sum_where_nothing_is_trained(folder):
    for name, best in (("a", 21.0), ("b", 11.0), ("c", 50.0)):
        added = [searched(name, "best", best), searched(name, "last", 60.0)]
        added += [build(name, "asr", "last", 70.0)]
        for result in added:
            write_result(folder, result, records(result))
    failed = searched("a", "best", None, storage="int8")  # of which the name comes last
    write_result(folder, failed, records(failed))
    (study,) = study_variants(folder, "heads")
    assert study.columns == ("asr", "asr-attention", "asr-gmm-hmm")
    assert study.layer == "weighted-sum"
    assert study.searching == ("asr-gmm-hmm",)
    scores = [[row.cell(study.layer).score["value"] for row in rows] for _, _, rows in study.rows]
    assert scores == [[10, 30, 21], [20, 20, 11], [40, 41, 50]]
    assert study.flips == (("a", "b"),)
    said = CliRunner().invoke(app, ["heads", str(folder)], env={"COLUMNS": "200"}).stdout
    assert (
        "asr-gmm-hmm: no head is trained; in place of the weighted sum stands the layer that is "
        "best on valid"
    ) in said
    assert "50.0 [49.5, 50.5]" in said


def test_scores_without_an_interval_settle_nothing(folder):
    for name, score in (("a", 10.0), ("b", 20.0), ("c", 30.0)):
        made = variant(build(name, "asr", "weighted-sum", score, half=0.0), "asr-hmm")
        write_result(folder, made, records(made))
    (study,) = study_variants(folder, "heads")
    # what flips between two others does so still
    assert (study.holds, study.flips, study.open_pairs) == ((), (("a", "b"),), 2)
    for entry in study.agreements:  # what has none is one column's matter
        assert (entry.tau.low is None) == ("asr-hmm" in (entry.one, entry.other))
    assert "tau +1.00 [not known]" in CliRunner().invoke(app, ["heads", str(folder)]).stdout


def test_ranks_are_of_the_encoders_that_both_columns_have(folder):
    for name, score in (("a", 10.0), ("b", 20.0)):
        made = variant(build(name, "asr", "weighted-sum", score, half=0.5), "asr-hmm")
        write_result(folder, made, records(made))
    (study,) = study_variants(folder, "heads")
    found = {(entry.one, entry.other): entry for entry in study.agreements}
    whole = found["asr", "asr-attention"]
    assert (whole.upstreams, whole.tau.value) == (3, pytest.approx(1 / 3))
    assert (found["asr", "asr-hmm"].upstreams, found["asr", "asr-hmm"].tau) == (2, None)
    # a column that two of three have takes no pair from the others
    assert study.flips == (("a", "b"),)
    assert study.holds == (("a", "c"), ("b", "c"))
    alone = build("d", "asr", "weighted-sum", 5.0, half=0.5)  # in no second column: no pair
    write_result(folder, alone, records(alone))
    (study,) = study_variants(folder, "heads")
    assert len(study.holds) + len(study.flips) + study.open_pairs == 3
    said = CliRunner().invoke(app, ["heads", str(folder)], env={"COLUMNS": "200"}).stdout
    assert "(3 upstreams)" in said
    assert "ranks by asr and asr-hmm" not in said


def test_a_column_of_last_layers_alone_does_not_change_what_is_compared(folder):
    made = variant(build("a", "asr", "last", 10.0, half=0.5), "asr-hmm")
    write_result(folder, made, records(made))
    (study,) = study_variants(folder, "heads")
    assert study.layer == "weighted-sum"
    assert study.columns == ("asr", "asr-attention", "asr-hmm")
    assert len(study.holds) == 2


def test_the_commands_say_what_flips(folder, tmp_path):
    done = CliRunner().invoke(app, ["heads", str(folder)])
    assert done.exit_code == 0
    assert "of 3 pairs in two columns or more, 2 hold in all, 1 flip, 0 are open" in done.stdout
    assert "flips: a and b" in done.stdout
    assert "Kendall's tau +0.33" in done.stdout
    done = CliRunner().invoke(app, ["labels", str(folder)])
    assert "2min" in done.stdout
    alone = build("a", "asr", "last", 10.0)
    write_result(tmp_path / "other", alone, records(alone))
    for by in ("heads", "labels"):
        with pytest.raises(SuperbError, match=f"superb run .*--{by.removesuffix('s')}"):
            study_variants(tmp_path / "other", by)


def test_a_task_counts_once_in_the_summary(folder):
    assert summarise(collect(folder)) == ()


def test_kendalls_tau_is_that_of_scipy():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 6, (2, 200, 7)).astype(float)
    expected = [kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
    assert kendall(one, other) == pytest.approx(np.array(expected))
    assert kendall(np.ones((1, 3)), np.arange(3.0)[None]).tolist() == [0]
