"""`superb plan`: what a corpus would cost that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.encoding.cache import free_bytes
from benchmark.errors import SuperbError
from benchmark.jobs.price import makespan, probe_updates
from benchmark.progress import Progress
from benchmark.protocol import load_protocol
from downstreams import DOWNSTREAMS, PROTOCOLS
from superb.cli import app
from superb.plan import Question, plan_for

COMMAND = ["plan", "--upstream", "fbank", "--hours", "0.1", "--utterances", "36"]


def ask(cache_dir: Path, **changes):
    question = {
        "upstream": "fbank",
        "downstream": ["asr"],
        "hours": 0.1,
        "utterances": 36,
        "protocol": "mini",
        "cache_dir": cache_dir,
        "device": "cpu",
    } | changes
    return plan_for(Question(**question), Progress(quiet=True))


def plan(cache_dir: Path, **changes):
    return ask(cache_dir, **changes)[0]


def test_jobs_are_priced_on_machines(tmp_path):
    asked = {"downstream": ["sid", "ks"], "hours": 10.0, "utterances": 3600, "seeds": 2}
    one, many = (ask(tmp_path, nodes=nodes, **asked)[1] for nodes in (1, 8))
    # the only layer of FBANK is one choice, which two tasks train
    assert [(line.what, line.jobs) for line in many.lines] == [
        ("encode", 8),
        ("fit sid", 1),
        ("fit ks", 1),
        ("write results", 2),
    ]
    encode, fit = many.lines[:2]
    assert encode.written == 3600 * 240 * 2
    # 2000 updates of 32 utterances for each of two seeds
    assert fit.read == 2 * 2000 * 32 * 240 * 2
    # however long a job was measured to take, several machines share them
    for price in (one, many):
        encode, *rest = price.lines
        alone = sum(line.jobs * line.each_s for line in rest)
        assert encode.each_s < price.wall_s <= encode.jobs / price.nodes * encode.each_s + alone
    assert ask(tmp_path)[1] is None


def test_every_task_has_a_price(tmp_path):
    """Also those whose columns hold phones, slots or segments."""
    price = ask(tmp_path, downstream=["all"], hours=0.02, utterances=36, nodes=2)[1]
    fits = {line.what.removeprefix("fit ") for line in price.lines if line.what.startswith("fit")}
    assert fits == set(DOWNSTREAMS) - {"qbe"}
    assert any("qbe trains nothing" in line for line in price.notes)


def test_a_head_is_priced_by_its_own_rules(tmp_path):
    asked = {"hours": 0.02, "nodes": 1, "heads": ["ctc", "attention", "hmm"]}
    found, price = ask(tmp_path, **asked)
    fits = [line.what for line in price.lines if line.what.startswith("fit")]
    assert fits == ["fit asr", "fit asr-attention"]
    assert any("asr-hmm learns from the corpus before its heads do" in note for note in price.notes)
    assert any("asr-attention 666.7" in note for note in found.notes)
    with pytest.raises(SuperbError, match="--head is for tasks that several heads can do"):
        ask(tmp_path, downstream=["ks"], heads=["ctc"])


def test_updates_and_ends_of_jobs():
    training = load_protocol("mini", PROTOCOLS).training("ks", "mean", {"head": {"projection": 2}})
    # six rates to update 500, three to 1000, two to 2000
    assert probe_updates(training) == 6 * 500 + 3 * 500 + 2 * 1000
    assert makespan([3, 1, 2, 2], 2) == 4
    assert makespan([5, 1], 9) == 5


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
        ({"nodes": 0}, "--nodes must be at least 1"),
    ],
)
def test_wrong_values_are_explained(tmp_path, changes, message):
    with pytest.raises(SuperbError) as caught:
        plan(tmp_path / "cache", **changes)
    assert message in str(caught.value)
