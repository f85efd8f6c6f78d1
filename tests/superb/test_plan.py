"""`superb plan`: what a corpus would cost that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.encoding.cache import free_bytes
from benchmark.errors import SuperbError
from benchmark.progress import Progress
from superb.cli import app
from superb.plan import plan_for

COMMAND = ["plan", "--upstream", "fbank", "--hours", "0.1", "--utterances", "36"]


def plan(cache_dir: Path, **changes):
    options = {
        "hours": 0.1,
        "utterances": 36,
        "protocol": "mini",
        "layers": ["last", "weighted-sum"],
        "storage": "auto",
        "cache_dir": cache_dir,
        "device": "cpu",
        "precision": "float32",
        "random_weights": False,
        "progress": Progress(quiet=True),
    } | changes
    return plan_for("fbank", options.pop("downstream", ["asr"]), **options)


def test_the_same_table_without_the_corpus(tmp_path):
    arguments = [*COMMAND, "--downstream", "asr,ks", "--cache-dir", str(tmp_path)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"}, catch_exceptions=False)
    assert done.exit_code == 0
    assert "fbank: 36 utterances, 0.1 h, 1 layers x 240" in done.output
    # frames for the one, time means for the other
    assert done.output.count("→") == 2
    # 200,000 updates of 16 and of 32 utterances
    assert "asr 88888.9, ks 177777.8" in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def test_crops_are_more_audio_than_the_corpus_has(tmp_path):
    said = "sid hears 4 crops of 8 s of each longer training utterance: up to 4 times the audio"
    notes = plan(tmp_path, downstream=["sid", "ks"], protocol="superb").notes
    assert [note for note in notes if note.startswith(said)]
    whole = plan(tmp_path, downstream=["sid", "ks"], protocol="superb-whole").notes
    assert not [note for note in whole if " crops of " in note]


def test_bytes_follow_from_hours(tmp_path):
    found = {row.storage: row.size for row in plan(tmp_path).rows if "frames" in row.what}
    # 100 frames of 240 numbers a second, and one to spare for each utterance
    assert found["float16"] == 240 * 2 * (360 * 100 + 36)
    assert found["none"] == 0


def test_what_is_asked_for_is_chosen(tmp_path):
    rows = plan(tmp_path, storage="int8").rows
    assert [row.storage for row in rows if row.chosen] == ["int8"]
    (row,) = [row for row in plan(tmp_path, hours=1e8).rows if row.chosen]
    assert row.storage == "none"
    assert free_bytes(tmp_path) < 240 * 360e9 * 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hours": 0.0}, "must be positive, such as 100.6"),
        ({"hours": float("nan")}, "must be positive"),
        ({"utterances": -1}, "must be positive"),
        ({"storage": "int4"}, "unknown value of --storage 'int4'. Did you mean int8"),
        ({"precision": "half"}, "unknown value of --precision"),
        ({"downstream": ["kws"]}, "unknown downstream task 'kws'"),
        ({"downstream": []}, "no task given"),
        ({"protocol": "mni"}, "unknown protocol 'mni'"),
        ({"layers": ["7"]}, "layer 7 does not exist"),
    ],
)
def test_wrong_values_are_explained(tmp_path, changes, message):
    with pytest.raises(SuperbError) as caught:
        plan(tmp_path / "cache", **changes)
    assert message in str(caught.value)
