import re
import shlex

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from benchmark.errors import SuperbError
from leaderboard.compare.reproduction import reproduce
from leaderboard.read.collect import collect
from leaderboard.read.published import PUBLISHED_CORPORA
from superb.cli import app

LIBRISPEECH = {"corpus": "librispeech", "utterances": 2620}
SPEECH_COMMANDS = {"corpus": "speech-commands-v1", "utterances": 3081}


@pytest.mark.parametrize(
    ("value", "half", "outcome"),
    [
        (6.52, 0.05, "within the tolerance"),
        (6.80, 0.5, "within the interval"),
        (6.80, 0.2, "outside"),
    ],
)
def test_outcomes(save, tmp_path, value, half, outcome):
    save("hubert-base", "asr", "weighted-sum", value, half=half, **LIBRISPEECH)
    found = reproduce("hubert-base", tmp_path / "results")
    (comparison,) = [item for item in found.comparisons if item.measured is not None]
    assert comparison.outcome == outcome
    assert comparison.published.value == 6.42
    assert comparison.tolerance.value == 0.1


@pytest.mark.parametrize(
    "changes",
    [{"corpus": "mini"}, {"utterances": 2939}, {"protocol": "mini"}, {"skipped": ("x.wav",)}],
)
def test_other_corpora_and_protocols_do_not_count(save, tmp_path, changes):
    save("hubert-base", "asr", "weighted-sum", 6.42, **{**LIBRISPEECH, **changes})
    found = reproduce("hubert-base", tmp_path / "results")
    assert {item.outcome for item in found.comparisons} == {"missing", "not comparable"}


def test_both_protocols_are_shown(save, tmp_path):
    save("hubert-base", "ks", "last", 95.9, **SPEECH_COMMANDS)
    save("hubert-base", "ks", "last", 95.0, protocol="superb-s3prl", **SPEECH_COMMANDS)
    found = reproduce("hubert-base", tmp_path / "results")
    measured = [item for item in found.comparisons if item.measured is not None]
    assert [item.protocol for item in measured] == ["superb version 1", "superb-s3prl version 1"]


def test_failed_is_not_missing(save, tmp_path):
    save("hubert-base", "ks", "last", None, **SPEECH_COMMANDS)
    found = reproduce("hubert-base", tmp_path / "results")
    assert [item.outcome for item in found.comparisons if item.published.task == "ks"] == [
        "failed",
        "missing",
    ]


def test_the_command_shows_what_is_missing_and_what_to_type(save, tmp_path):
    save("hubert-base", "sid", "last", 60.0, corpus="voxceleb1", utterances=8251)
    done = CliRunner().invoke(app, ["reproduce", "hubert-base", str(tmp_path / "results")])
    assert done.exit_code == 0
    assert "64.84" in done.stdout
    assert "60.00 [58.00, 62.00]" in done.stdout
    assert "default learning rate" in " ".join(done.stdout.split())
    commands = [line.strip() for line in done.stdout.splitlines() if "superb run" in line]
    assert [re.search(r"--corpus (\S+)", command)[1] for command in commands] == [
        corpus.name for corpus in PUBLISHED_CORPORA.values() if not corpus.why_not
    ]
    assert "not comparable" in done.stdout
    assert "queries in other languages" in " ".join(done.stdout.split())
    assert all(command.endswith(f"--output {tmp_path / 'results'}") for command in commands)


def test_commands_can_be_typed(tmp_path):
    run = get_command(app).commands["run"]
    for command in reproduce("wavlm-large", tmp_path / "my results").commands:
        program, name, *words = shlex.split(command)
        assert (program, name) == ("superb", "run")
        context = run.make_context("superb run", words)
        assert str(context.params["output"]) == str(tmp_path / "my results")


@pytest.mark.parametrize("empty", [True, False])
def test_no_results_yet_means_that_all_is_missing(tmp_path, empty):
    folder = tmp_path / "results"
    if empty:
        folder.mkdir()
    found = reproduce("hubert-base", folder)
    assert {item.outcome for item in found.comparisons} == {"missing", "not comparable"}
    assert [("--lm" in command.split()) for command in found.commands] == [
        task == "asr" for task, corpus in PUBLISHED_CORPORA.items() if not corpus.why_not
    ]


def test_unknown_upstream_and_no_folder(tmp_path):
    with pytest.raises(SuperbError, match=r"'hubert'. Did you mean hubert-base"):
        reproduce("hubert", tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SuperbError, match="is a file, not a folder"):
        reproduce("hubert-base", file)


def test_damaged_files_are_named(save, tmp_path):
    path = save("hubert-base", "asr", "last", 6.7, **LIBRISPEECH)
    path.write_text(path.read_text().replace("6.7", "6.0"))
    found = reproduce("hubert-base", tmp_path / "results")
    assert path.name in found.notes[0]
    assert len(collect(tmp_path / "results").problems) == 1
