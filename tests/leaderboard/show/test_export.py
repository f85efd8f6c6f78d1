import csv
import dataclasses
import io

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

import superb
from benchmark.errors import SuperbError
from benchmark.scoring.results import write_result
from leaderboard.show.export import model_card, tidy_csv
from superb.cli import app


@pytest.fixture
def folder(save, tmp_path):
    save("hubert", "asr", "last", 20.0)
    save("hubert", "asr", "weighted-sum", 12.5)
    save("hubert", "asr", "3", 18.0)
    save("hubert", "ks", "weighted-sum", 95.0, seeds=(0,), by_utterance=True)
    save("hubert", "sid", "last", None)
    save("wavlm", "asr", "last", 23.0)
    return tmp_path / "results"


def test_a_model_card_gives_back_what_was_measured(folder):
    card = ModelCard(model_card(folder, "hubert")).data
    assert card.model_name == "hubert"
    found = {(e.task_name, e.metric_type, e.metric_args["layers"]): e for e in card.eval_results}
    assert set(found) == {
        ("ASR", "wer", "last"),
        ("ASR", "cer", "last"),
        ("ASR", "wer", "weighted-sum"),
        ("ASR", "cer", "weighted-sum"),
        ("KS", "accuracy", "weighted-sum"),
    }
    wer = found["ASR", "wer", "weighted-sum"]
    assert wer.task_type == "automatic-speech-recognition"
    assert (wer.dataset_type, wer.dataset_name, wer.dataset_split) == ("mini", "mini", "test")
    assert wer.dataset_revision == "c0" * 32
    assert wer.metric_value == 12.5
    assert wer.metric_name == (
        "asr test WER in %, frozen encoder, layers weighted-sum, 95 % interval [10.5, 14.5], "
        "protocol superb"
    )
    assert (wer.metric_args["low"], wer.metric_args["high"]) == (10.5, 14.5)
    assert wer.metric_args["seeds"] == [0, 1, 2]
    assert wer.metric_args["interval_over"] == "speakers"
    assert found["KS", "accuracy", "weighted-sum"].metric_args["interval_over"] == "utterances"


def test_the_metadata_stands_at_the_start_of_a_card(folder):
    text = model_card(folder, "hubert")
    assert text.startswith("---\nmodel-index:\n")
    assert text.endswith("\n---\n")
    assert ModelCard(text + "\n# My encoder\n").text.strip() == "# My encoder"


def test_a_dataset_of_the_hub_is_named_as_there(result, tmp_path):
    made = result("hubert", "asr", "last", 20.0)
    commit = "0123456789abcdef0123456789abcdef01234567"
    source = f"https://huggingface.co/datasets/org/speech/tree/{commit}"
    corpus = {**made.corpus, "name": "hf:org/speech:clean", "source": source}
    write_result(tmp_path, dataclasses.replace(made, corpus=corpus), {0: []})
    entry = ModelCard(model_card(tmp_path, "hubert")).data.eval_results[0]
    assert (entry.dataset_type, entry.dataset_config) == ("org/speech", "clean")
    assert entry.dataset_revision == commit


def test_a_name_with_yaml_in_it_stays_a_name(save, tmp_path):
    name = "a: [b]\n---\n'\"#"
    save(name, "ks", "last", 90.0)
    assert ModelCard(model_card(tmp_path / "results", name)).data.model_name == name


def test_two_encoders_of_one_name_are_not_mixed(save, tmp_path):
    save("hubert", "ks", "last", 90.0, fingerprint="aaaaaaaa1")
    save("hubert", "ks", "last", 80.0, fingerprint="bbbbbbbb2")
    with pytest.raises(SuperbError, match="about one: hubert @aaaaaaaa, hubert @bbbbbbbb"):
        model_card(tmp_path / "results", "hubert")
    card = ModelCard(model_card(tmp_path / "results", "hubert @bbbbbbbb")).data
    assert [entry.metric_value for entry in card.eval_results] == [80.0]


def test_what_has_no_score_has_no_card(folder, save):
    with pytest.raises(SuperbError, match=r"unknown upstream 'huber'.*Did you mean hubert"):
        model_card(folder, "huber")
    save("lost", "ks", "last", None)
    with pytest.raises(SuperbError, match=r"superb run .*--upstream lost"):
        model_card(folder, "lost")


def test_csv_is_the_table_of_load_results(folder):
    rows = list(csv.DictReader(io.StringIO(tidy_csv(folder))))
    frame = superb.load_results(folder)
    assert list(rows[0]) == list(frame.columns)
    assert [row["run_id"] for row in rows] == list(frame["run_id"])
    scores = {(row["upstream"], row["layer"], row["metric"]): row["value"] for row in rows}
    assert float(scores["hubert", "weighted-sum", "wer"]) == 12.5
    assert scores["hubert", "last", ""] == ""  # the failed one
    assert tidy_csv(folder) == tidy_csv(folder)


def test_a_spreadsheet_runs_no_name(save, tmp_path):
    save("=1+1", "ks", "last", 90.0)
    (row,) = csv.DictReader(io.StringIO(tidy_csv(tmp_path / "results")))
    assert row["upstream"] == "'=1+1"
    assert float(row["value"]) == 90.0


def test_commands_print_or_write(folder, tmp_path):
    runner = CliRunner()
    printed = runner.invoke(app, ["export", "csv", str(folder)])
    assert printed.stdout == tidy_csv(folder)
    path = tmp_path / "new" / "README.md"
    words = ["export", "model-card", str(folder), "--upstream", "hubert", "--output", str(path)]
    done = runner.invoke(app, words)
    assert (done.exit_code, done.stdout) == (0, "")
    assert path.read_text() == model_card(folder, "hubert")
    failed = runner.invoke(app, ["export", "csv", str(folder), "-o", str(folder)])
    assert isinstance(failed.exception, SuperbError)
    assert "cannot be written" in str(failed.exception)
