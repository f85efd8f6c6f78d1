"""Encoders beside their untrained twins: who is paired with whom, and what is shown."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmark.errors import SuperbError
from leaderboard.compare.encoders import compare
from leaderboard.compare.twins import compare_twins
from leaderboard.show.comparison import show_twins
from leaderboard.show.report import build_report
from superb.cli import app


@pytest.fixture
def write(write_counts, counts):
    def made(upstream, share, seed, **more):
        family = "untrained" if upstream.startswith("untrained:") else "predictive"
        write_counts(upstream, "ks", counts(share, seed=seed), family=family, **more)

    return made


@pytest.fixture
def folder(write, tmp_path):
    """hubert learned, apc did not, cpc has no twin; fbank has nothing to learn."""
    write("hubert", 0.95, 1)
    write("untrained:hubert", 0.5, 2)
    write("apc", 0.7, 3)
    write("untrained:apc", 0.7, 4)
    write("cpc", 0.6, 5)
    write("fbank", 0.4, 6, parameters=0)
    return tmp_path / "results"


def test_each_is_compared_with_its_own_twin_as_by_name(folder):
    found = compare_twins(folder)
    pairs = {(pair.a, pair.b): pair for pair in found.pairs}
    assert set(pairs) == {("untrained:hubert", "hubert"), ("untrained:apc", "apc")}
    learned = pairs["untrained:hubert", "hubert"]
    (alone,) = compare(folder, ["untrained:hubert", "hubert"]).pairs
    assert learned.pair == alone.pair
    assert learned.better == "hubert"
    assert learned.p_value == pytest.approx(2 * alone.p_value)  # the smaller of two tests
    assert pairs["untrained:apc", "apc"].better is None
    assert [note for note in found.notes if "twin" in note] == ["without a twin in some task: cpc"]


def test_the_table_has_both_scores_and_fits_80_columns(folder):
    text = io.StringIO()
    show_twins(compare_twins(folder), Console(file=text, width=80, emoji=False))
    lines = text.getvalue().splitlines()
    row = next(line.split() for line in lines if " hubert " in line)
    found = next(pair for pair in compare_twins(folder).pairs if pair.b == "hubert")
    assert row[:5] == ["ks", "↑", "hubert", "50.0", "50.0"]
    assert row[5] == f"{found.pair.difference.value:+.1f}"
    assert max(map(len, lines[:8])) <= 80


def test_a_twin_that_cannot_be_paired_is_a_note(folder, write, tmp_path):
    """One result with other seeds must not hide the rest, nor end a report."""
    write("cpc", 0.6, 5)
    write("untrained:cpc", 0.5, 7, seeds=(0, 1))
    found = compare_twins(folder)
    assert {pair.b for pair in found.pairs} == {"hubert", "apc"}
    assert any("cpc" in note and "seeds" in note for note in found.notes)
    assert 'id="twins"' in build_report(folder)


def test_a_network_of_another_shape_is_no_twin(folder, write):
    write("untrained:hubert", 0.9, 8, fingerprint="of another", macs=5.0)
    assert [pair.b for pair in compare_twins(folder).pairs].count("hubert") == 1


def test_one_twin_of_a_body_serves_every_encoder_of_it(write_counts, counts, tmp_path):
    def write(upstream, task, fingerprint, seed):
        family = "untrained" if upstream.startswith("untrained:") else "predictive"
        write_counts(upstream, task, counts(0.7, seed=seed), family=family, fingerprint=fingerprint)

    for task in ("ks", "sid"):
        write("hubert", task, "h", 1)
        write("wav2vec2", task, "w", 2)
        write("apc", task, "a", 3)
        write("untrained:hubert", task, "drawn for the body", 4)
    for name in ("untrained:wav2vec2", "untrained:data2vec"):
        write(name, "ks", "drawn for the body", 4)
    write("untrained:apc", "ks", "drawn for another", 5)
    found = compare_twins(tmp_path / "results")
    assert {(pair.table.downstream, pair.a, pair.b) for pair in found.pairs} == {
        ("ks", "untrained:hubert", "hubert"),
        ("ks", "untrained:wav2vec2", "wav2vec2"),
        ("ks", "untrained:apc", "apc"),
        ("sid", "untrained:hubert", "hubert"),
        ("sid", "untrained:hubert", "wav2vec2"),
    }
    assert "one body, so one twin: untrained:hubert for wav2vec2 in sid" in found.notes


def test_twins_computed_in_another_way_are_none(write, tmp_path):
    write("hubert", 0.9, 1)
    write("untrained:hubert", 0.5, 2, precision="bfloat16")
    write("untrained:wav2vec2", 0.5, 3)
    with pytest.raises(SuperbError, match=r"run --upstream untrained:hubert --downstream TASK"):
        compare_twins(tmp_path / "results")
    assert 'id="twins"' not in build_report(tmp_path / "results")


def test_the_command_and_the_report_show_them(folder):
    records = json.loads(
        CliRunner().invoke(app, ["compare", "--twins", "--json", str(folder)]).stdout
    )
    assert {entry["better"] for entry in records["comparisons"]} == {"hubert", None}
    both = CliRunner().invoke(app, ["compare", "--twins", "hubert", str(folder)])
    assert "--twins compares every encoder" in str(both.exception)
    report = build_report(folder)
    section = report.partition('id="twins"')[2].partition("</section>")[0]
    assert section.count("<tr data-name") == 2
    for entry in records["comparisons"]:
        assert f'data-value="{entry["difference"]["value"]:.1f}"' in section
