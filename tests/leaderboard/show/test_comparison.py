"""Comparisons of encoders in tables, in words and as records."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmark.errors import SuperbError
from leaderboard.compare.encoders import compare
from leaderboard.read.names import printable
from leaderboard.show.comparison import as_json, in_words, show_comparisons
from superb.cli import app


def shown(comparisons):
    text = io.StringIO()
    show_comparisons(comparisons, Console(file=text, width=120, emoji=False))
    return text.getvalue()


def test_the_table_and_the_sentences(tmp_path, write_counts, counts):
    for name, share in (("hubert", 0.9), ("apc", 0.5), ("cpc", 0.9)):
        write_counts(name, "ks", counts(share, seed=len(name)))
    found = compare(tmp_path / "results", ["hubert", "apc", "cpc"])
    text = shown(found)
    row = next(line for line in text.splitlines() if line.strip().startswith("apc"))
    difference_shown = found.pairs[0].pair.difference
    assert f"{difference_shown.value:+.1f} [{difference_shown.low:+.1f}," in row
    assert "<0.001" in row
    assert f"{found.pairs[0].detectable:.1f}" in row
    for pair in found.pairs:
        assert in_words(pair, 2) in text
    assert "All p are adjusted for 2 comparisons (Holm)" in text
    assert "One seed in ks" in text


@pytest.mark.parametrize("name", ["a[/b]", "[red]x", "x\x1b[31m"])
def test_names_are_text_in_every_place(tmp_path, write_counts, counts, name):
    for upstream in (name, "hubert"):
        write_counts(upstream, "ks", counts(0.5))
    text = shown(compare(tmp_path / "results", [name, "hubert"]))
    assert "\x1b" not in text
    assert f"differences from {printable(name)}" in text
    with pytest.raises(SuperbError, match="unknown upstream") as caught:
        compare(tmp_path / "results", ["hubert", "nosuch"])
    assert "\x1b" not in str(caught.value)


def test_names_have_room_at_80_columns(tmp_path, write_counts, counts):
    for name, share in (("untrained:hubert", 0.9), ("hubert", 0.2)):
        write_counts(name, "asr", counts(share, words=10))
    text = io.StringIO()
    found = compare(tmp_path / "results", ["untrained:hubert", "hubert"])
    show_comparisons(found, Console(file=text, width=80, emoji=False))
    rows = [line.split() for line in text.getvalue().splitlines()]
    assert [row[0] for row in rows if row[:1] and row[1:2] == ["50.0"]] == [
        "untrained:hubert",
        "hubert",
    ]


def test_the_command(tmp_path, write_counts, counts):
    for name, share in (("hubert", 0.9), ("apc", 0.5)):
        write_counts(name, "ks", counts(share))
    folder = str(tmp_path / "results")
    words = ["compare", "hubert", "apc", "--downstream", "ks", folder]
    printed = CliRunner().invoke(app, words)
    assert printed.exit_code == 0
    assert "hubert is better than apc in ks" in printed.stdout.replace("\n", " ")
    records = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert records == json.loads(json.dumps(as_json(compare(folder, ["hubert", "apc"]))))
    (record,) = records["comparisons"]
    assert record["better"] == "hubert"
    assert record["difference"]["low"] < record["difference"]["value"] < 0
    bad = CliRunner().invoke(app, ["compare", "hubert", folder])
    assert isinstance(bad.exception, SuperbError)


def test_a_metric_without_a_check_is_shown_without_one(tmp_path, write_counts, counts):
    for name, share in (("hubert", 0.9), ("apc", 0.5)):
        write_counts(name, "ks", counts(share))
    found = compare(tmp_path / "results", ["hubert", "apc"])
    (pair,) = found.pairs
    bare = replace(pair.pair, check="", check_p_value=None)
    text = shown(replace(found, pairs=(replace(pair, pair=bare, check_p_value=None),)))
    assert "McNemar" not in text
    assert "independent" not in text
    assert "apc is better" in text or "hubert is better" in text
