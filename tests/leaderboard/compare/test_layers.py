"""The study of layers: what is paired, which layer is best, how weights and scores correlate."""

import dataclasses

import pytest

from benchmark.core import Record
from benchmark.errors import SuperbError
from benchmark.scoring.results import utterances_path, write_result
from benchmark.scoring.statistics import holm
from leaderboard.compare.layers import study_layers


@pytest.fixture
def write(tmp_path, result):
    """Write a result of an encoder with four layers and this many right answers of 40."""

    def write_right(upstream, layer, right, *, task="ks", layers=4, valid=None, weights=None,
                    norms=(1.0, 2.0, 4.0, 8.0), **settings):  # fmt: skip
        settings = {"seeds": (0,), **settings}
        made = result(upstream, task, layer, 2.5 * right, **settings)
        made = dataclasses.replace(
            made,
            upstream={**made.upstream, "layers": layers},
            layer_weights=weights,
            layer_norms=list(norms),
            per_seed=[
                {"seed": seed, "metrics": {}, "valid": valid, "best_update": 1, "updates": 1,
                 "layer_weights": weights}
                for seed in made.seeds
            ],
        )  # fmt: skip
        rows = [
            Record(f"u{position:02}", (f"s{position % 8}",), "on", str(position < right),
                  dict.fromkeys(made.metrics, (int(position < right), 1)))
            for position in range(40)
        ]  # fmt: skip
        return write_result(tmp_path / "results", made, dict.fromkeys(made.seeds, rows))

    return write_right


def only_row(folder, tasks=()):
    ((row,),) = [table.rows for table in study_layers(folder, tasks).tables]
    return row


def test_difference_of_the_two_layer_choices(tmp_path, write):
    write("hubert", "last", 20)
    write("hubert", "weighted-sum", 38, weights=[0.1, 0.2, 0.3, 0.4])
    row = only_row(tmp_path / "results")
    assert (row.last, row.weighted_sum) == (50, 95)
    assert row.pair.difference.value == pytest.approx(45)
    assert row.pair.difference.low > 0
    assert row.p_value == row.pair.difference.p_value
    assert row.best is None


def test_p_values_are_adjusted_over_encoders_and_tasks(tmp_path, write):
    for upstream, task, last, mixed in (
        ("hubert", "ks", 20, 30), ("apc", "ks", 20, 22), ("hubert", "sid", 10, 25),
    ):  # fmt: skip
        write(upstream, "last", last, task=task)
        write(upstream, "weighted-sum", mixed, task=task)
    study = study_layers(tmp_path / "results")
    rows = [row for table in study.tables for row in table.rows]
    assert study.comparisons == 3
    assert [row.p_value for row in rows] == holm([row.pair.difference.p_value for row in rows])
    assert study_layers(tmp_path / "results", ["sid"]).comparisons == 1


def test_best_layer_is_chosen_on_valid_and_scored_on_test(tmp_path, write):
    for layer, right, valid in (("0", 12, 30.0), ("1", 36, 80.0), ("2", 32, 85.0)):
        write("hubert", layer, right, valid=valid)
    write("hubert", "last", 20, valid=50.0)
    write("hubert", "weighted-sum", 34, weights=[0.1, 0.4, 0.3, 0.2])
    row = only_row(tmp_path / "results")
    assert row.scores == (30, 90, 80, 50)  # the last one is the run called last
    assert row.best == 2
    # Ranks of weights 1 4 3 2 and of scores 1 4 3 2; of weight times norm 1 2 3 4: 1 - 6 * 8 / 60.
    assert row.weight_correlation == pytest.approx(1)
    assert row.product_correlation == pytest.approx(0.2)
    assert row.products == pytest.approx([0.1 / 3.7, 0.8 / 3.7, 1.2 / 3.7, 1.6 / 3.7])


def test_error_rates_are_turned_so_that_more_is_better(tmp_path, write):
    for layer, errors, valid in (("0", 36, 90.0), ("1", 12, 30.0), ("2", 16, 25.0)):
        write("hubert", layer, errors, task="asr", valid=valid)
    write("hubert", "last", 20, task="asr", valid=50.0)
    write("hubert", "weighted-sum", 14, task="asr", weights=[0.1, 0.4, 0.3, 0.2])
    row = only_row(tmp_path / "results")
    assert row.best == 2
    assert row.weight_correlation == pytest.approx(1)


def test_without_every_layer_none_is_best(tmp_path, write):
    write("hubert", "1", 36, valid=80.0)
    write("hubert", "last", 20, valid=50.0)
    write("hubert", "weighted-sum", 34, weights=[0.1, 0.4, 0.3, 0.2])
    row = only_row(tmp_path / "results")
    assert row.scores == (None, 90, None, 50)
    assert row.best is row.weight_correlation is row.product_correlation is None


def test_equal_weights_have_no_correlation(tmp_path, write):
    for layer in ("0", "1", "2", "3", "last"):
        write("hubert", layer, 20 + int("0123".find(layer)), valid=50.0)
    write("hubert", "weighted-sum", 30, weights=[0.25] * 4)
    row = only_row(tmp_path / "results")
    assert row.weight_correlation is None
    assert row.product_correlation == pytest.approx(1)


def test_one_layer_is_the_same_twice(tmp_path, write):
    for layer in ("last", "weighted-sum"):
        write("fbank", layer, 20, layers=1, norms=(1.0,))
        write("hubert", layer, 20)
    study = study_layers(tmp_path / "results")
    assert study.comparisons == 1
    row = next(row for row in study.tables[0].rows if row.upstream == "fbank")
    assert row.pair is None


def test_what_cannot_be_paired_is_said_and_the_others_are_shown(tmp_path, write):
    for layer in ("last", "weighted-sum"):
        write("hubert", layer, 20)
        lost = write("apc", layer, 20)
        write("cpc", layer, 20, seeds=(0,) if layer == "last" else (0, 1))
    write("tera", "last", 20)
    utterances_path(lost).unlink()
    study = study_layers(tmp_path / "results")
    whys = {row.upstream: row.why_not for row in study.tables[0].rows}
    assert whys["hubert"] == ""
    assert "cannot be read" in whys["apc"]
    assert "differ in seeds" in whys["cpc"]
    assert whys["tera"] == "tera has no weighted-sum."


def test_nothing_to_pair(tmp_path, write):
    write("hubert", "last", 20)
    with pytest.raises(SuperbError, match=r"hubert has no weighted-sum\. .*superb run"):
        study_layers(tmp_path / "results")
    with pytest.raises(SuperbError, match=r"unknown task .*'sid'. Known: ks"):
        study_layers(tmp_path / "results", ["sid"])
    with pytest.raises(SuperbError, match="does not exist"):
        study_layers(tmp_path / "nowhere")
