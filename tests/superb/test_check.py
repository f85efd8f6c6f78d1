"""`superb check`: which kind a target is, and that all that is built in conforms."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import superb.check
from benchmark.conformance import check_downstream as check_loaded
from benchmark.conformance import raise_for_failures
from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.protocol import load_protocol
from downstreams import PROTOCOLS
from downstreams.corpora import CORPORA
from downstreams.load import downstream_names, load_downstream
from superb.check import check_downstream, check_target, find_kind
from superb.cli import app

PLUGIN = Path(__file__).resolve().parents[1] / "plugin"

SOURCE = """
from superb import DownstreamCard, Metric, UpstreamCard, Utterance

def utterances():
    return [Utterance("a", b"", "train")]

def encoder():
    return Encoder()

class Encoder:
    card = UpstreamCard("mine", layers=1, dim=1, hop_samples=1)

class Task:
    card = DownstreamCard("mine", "Mine", 1, (Metric("a", "higher"),), "mean")

class Corpora:
    def __call__(self, task, size=3): ...

def by_task(task): ...

def by_folder(data_root): ...

number = 5
"""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("utterances", "corpus"),
        ("by_task", "corpus"),
        ("by_folder", "corpus"),
        ("Corpora", "corpus"),
        ("encoder", "upstream"),
        ("Encoder", "upstream"),
        ("Task", "downstream"),
    ],
)
def test_the_kind_of_a_target_is_found_out(tmp_path, name, kind):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    assert find_kind(f"{path}:{name}") == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [("asr", "downstream"), ("mini", "corpus"), ("fbank", "upstream"), ("a/b.csv", "corpus")]
    + [(name, "upstream") for name in ("untrained:hubert", "org/model", "torchaudio:WAVLM_BASE")],
)
def test_the_kind_of_a_name(name, kind):
    assert find_kind(name) == kind


def test_what_is_none_or_several(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    with pytest.raises(SuperbError, match=r"gives int: an upstream has a card.*--kind"):
        find_kind(f"{path}:number")
    with pytest.raises(
        SuperbError, match=r"unknown upstream, task, corpus or head 'minni'.*mini\?"
    ):
        find_kind("minni")
    monkeypatch.setattr(superb.check, "corpus_names", lambda: ["asr"])
    with pytest.raises(SuperbError, match=r"several things: downstream, corpus. Say which"):
        find_kind("asr")


def test_options_belong_to_kinds():
    with pytest.raises(SuperbError, match="mini is checked as corpus, which takes no --corpus"):
        check_target("mini", corpus="mini")
    with pytest.raises(SuperbError, match="ks is checked as downstream, which takes no --down"):
        check_target("ks", downstream="ks")
    with pytest.raises(
        SuperbError, match="--kind is upstream, downstream, corpus, head; got 'task'"
    ):
        check_target("ks", kind="task")


@pytest.mark.parametrize("name", downstream_names())
def test_the_tasks_conform(name):
    checks = check_downstream(name)
    raise_for_failures(checks)
    skipped = [check.name for check in checks if check.passed is None]
    framed = ["time-mean"] if name in ("asr", "pr", "sf", "asv", "sd") else []
    if name == "qbe":
        asked = {"card", "training", "answer", "records", "random-state"}
        assert {check.name for check in checks if check.passed} == asked
    else:
        assert skipped == [*framed, *(["records-add"] if name == "asv" else [])]


def test_a_task_is_tried_on_a_corpus():
    vocabulary = next(c for c in check_downstream("ks", "mini") if c.name == "vocabulary")
    assert vocabulary.found == "12 outputs from 1320 utterances"
    searched = check_downstream("qbe", "mini")  # which has no train split
    raise_for_failures(searched)


def test_a_search_is_tried_on_documents_that_hold_what_is_asked_for():
    """As in QUESST: queries follow documents, few of which hold any."""
    rows = [("document", f"t{number}" if number < 5 else "-") for number in range(100)]
    rows += [("query", f"t{number}") for number in range(5)]
    utterances = [
        Utterance(f"u{place}", b"", "test", columns={"role": role, "term": term})
        for place, (role, term) in enumerate(rows)
    ]
    protocols = [load_protocol("mini", PROTOCOLS)]
    task = load_downstream("qbe")
    raise_for_failures(check_loaded(task, protocols=protocols, utterances=utterances))


def test_the_bundled_corpus_conforms():
    outcome = check_target("mini")
    assert list(outcome) == [f"mini for {task}" for task in CORPORA["mini"].tasks]
    for checks in outcome.values():
        raise_for_failures(checks)


def test_exit_codes(tmp_path):
    file = PLUGIN / "word_count.py"
    broken = tmp_path / "broken.py"
    broken.write_text(file.read_text().replace("return rates.sum(1)", "return rates.sum((1, 2))"))
    done = CliRunner().invoke(app, ["check", f"{broken}:WordCount"])
    assert done.exit_code == 1
    assert "logits (10,) for 10 utterances" in done.stdout
    assert "failed" in done.stdout
    broken.write_text("import nonexistent_thing")
    done = CliRunner().invoke(app, ["check", f"{broken}:WordCount"])
    assert isinstance(done.exception, SuperbError)  # one line and exit code 2, by `main`
