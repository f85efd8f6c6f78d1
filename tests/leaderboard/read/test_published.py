import csv
import io
import re

import pytest
from typer.testing import CliRunner

from benchmark.errors import SuperbError
from leaderboard.read.collect import arrange, collect
from leaderboard.read.published import PUBLISHED_CORPORA, load_published, reproduce
from leaderboard.show.render import render
from superb.cli import app
from upstreams.catalogue import UPSTREAMS

LIBRISPEECH = {"corpus": "librispeech", "utterances": 2620}
SPEECH_COMMANDS = {"corpus": "speech-commands-v1", "utterances": 3081}


def figures(kind="score"):
    return [figure for figure in load_published() if figure.figure == kind]


def test_every_figure_has_a_source_and_every_inference_is_marked():
    assert figures()
    assert all(figure.source for figure in load_published())
    assert all(figure.inferred == (figure.layer == "last") for figure in figures())
    assert {figure.layer for figure in figures()} == {"last", "weighted-sum"}
    rows = [(f.row, f.task, f.metric, f.layer) for f in figures()]
    assert len(rows) == len(set(rows))


def test_names_of_ours_exist_and_are_as_large():
    for figure in figures():
        if figure.upstream:
            ours = UPSTREAMS[figure.upstream].parameters / 1e6
            assert ours == pytest.approx(figure.parameters_millions or 0, rel=0.02), figure


def test_corpora_are_those_of_the_data_folder():
    from downstreams.corpora import CORPORA, librispeech, speech_commands, voxceleb1

    assert {corpus.name for corpus in PUBLISHED_CORPORA.values()} <= set(CORPORA)
    assert {task: corpus.test_utterances for task, corpus in PUBLISHED_CORPORA.items()} == {
        "asr": librispeech.OFFICIAL["test-clean"].utterances,
        "sid": voxceleb1.OFFICIAL["test"].utterances,
        "ks": speech_commands.OFFICIAL_V1["test"].utterances,
    }


@pytest.mark.parametrize(
    ("row", "task", "layer", "value"),
    [
        ("hubert_base", "asr", "weighted-sum", 6.42),
        ("hubert_base", "asr", "last", 6.74),
        ("hubert_base", "sid", "weighted-sum", 81.42),
        ("hubert_base", "sid", "last", 64.84),
        ("wavlm_large", "ks", "weighted-sum", 97.86),
        ("fbank with CMVN", "sid", "weighted-sum", 0.085),
    ],
)
def test_spot_checks(row, task, layer, value):
    (found,) = [
        figure
        for figure in figures()
        if (figure.row, figure.task, figure.layer) == (row, task, layer)
        and figure.metric in ("wer", "accuracy")
    ]
    assert found.value == value


@pytest.mark.parametrize("format", ["terminal", "markdown", "latex", "html"])
def test_published_stands_apart_and_ranks_nobody(result, format):
    board = arrange([result("hubert-base", task, "last", 50.0) for task in ("ks", "sid")])
    alone = render(board, format, width=200)
    both = render(board, format, width=200, with_published=True)
    # Nothing that was measured changes; the published table follows all of it.
    measured = alone[: alone.rindex("95")]
    assert both.startswith(measured)
    rest = both[len(measured) :]
    assert "Published by others: not measured here, not ranked" in rest
    assert "last (inferred)" in rest
    assert rest.index("not ranked") < rest.index("64.84")
    assert "81.42" not in alone


def test_every_published_value_carries_the_mark_of_its_source(result):
    board = arrange([result("a", "ks", "last", 50.0)])
    for wide in (False, True):
        text = render(board, "markdown", with_published=True, wide=wide)
        part = text[text.index("## Published") :]
        rows = [line for line in part.splitlines() if line.startswith("| hubert_base ")]
        values = re.findall(r"(\d+\.\d\d)(\\\[[a-z]\\\])?", rows[0].split("M |")[1])
        assert len(values) == (24 if wide else 8)
        assert all(mark for _, mark in values)
        marks = {mark for _, mark in values}
        assert all(f"- {mark} superbbenchmark" in part for mark in marks)


def test_published_in_csv_are_rows_of_their_own_kind(result):
    board = arrange([result("a", "ks", "last", 50.0)])
    rows = list(csv.DictReader(io.StringIO(render(board, "csv", with_published=True))))
    published = [row for row in rows if row["kind"] == "published"]
    assert len(published) == len(figures())
    assert all(row["source"] and not row["low"] and not row["ranks"] for row in published)
    assert {row["kind"] for row in rows} == {"measured", "published"}


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
    assert {item.outcome for item in found.comparisons} == {"missing"}


def test_both_protocols_are_shown(save, tmp_path):
    save("hubert-base", "ks", "last", 95.9, **SPEECH_COMMANDS)
    save("hubert-base", "ks", "last", 95.0, protocol="superb-s3prl", **SPEECH_COMMANDS)
    found = reproduce("hubert-base", tmp_path / "results")
    measured = [item for item in found.comparisons if item.measured is not None]
    assert [item.protocol for item in measured] == [
        "superb version 1",
        "superb-s3prl version 1",
    ]


def test_failed_is_not_missing(save, tmp_path):
    save("hubert-base", "ks", "last", None, **SPEECH_COMMANDS)
    found = reproduce("hubert-base", tmp_path / "results")
    assert [item.outcome for item in found.comparisons if item.task == "ks"] == [
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
        "librispeech",
        "voxceleb1",
        "speech-commands-v1",
    ]
    assert all(command.endswith(f"--output {tmp_path / 'results'}") for command in commands)


def test_commands_can_be_typed(tmp_path):
    import shlex

    from typer.main import get_command

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
    assert {item.outcome for item in found.comparisons} == {"missing"}
    assert [("--lm" in command.split()) for command in found.commands] == [True, False, False]


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
