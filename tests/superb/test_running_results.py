"""What results say: how they came about, and what their reader must know."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

import superb
from benchmark.core import Corpus
from benchmark.errors import AudioError
from benchmark.scoring.results import SCHEMA, result_path
from downstreams.corpora.load import load_corpus
from superb.running import run


@pytest.mark.parametrize(
    ("speakers", "says"),
    [
        ({"ada": "ada", "ben": ""}, r"speakers of 6 of 12 test utterances are not known: in the"),
        ({"ada": "", "ben": ""}, r"over utterances: no test speaker is known"),
        ({"ada": "ada", "ben": "ada"}, r"over utterances: test has one speaker, ada"),
    ],
)
def test_an_interval_without_speakers_says_why(places, bands, monkeypatch, speakers, says):
    def known(corpus: Corpus) -> Corpus:
        kept = [u for u in corpus.utterances if u.speaker in speakers]
        return replace(
            corpus, utterances=tuple(replace(u, speaker=speakers[u.speaker]) for u in kept)
        )

    monkeypatch.setattr("superb.compose.load_corpus", lambda *given: known(load_corpus(*given)))
    (result,) = run(bands(), "ks", layers="last", **places)
    assert [w for w in result.warnings if re.search(says, w)]


def test_a_result_says_how_it_came_about(places, bands):
    (result,) = run(bands(), "ks", layers="weighted-sum", **places)
    path = result_path(places["output"], "ks", "bands", result.run_id)
    record = json.loads(path.read_text())
    assert record["schema"] == SCHEMA
    assert record["protocol"]["updates"] == 60
    assert record["protocol"]["head"] == {"projection": 16}
    assert [point["learning_rate"] for point in record["learning_rate_curve"]] == [1e-3, 1e-2, 1e-1]
    assert record["corpus"]["splits"]["train"]["utterances"] == 36
    assert record["corpus"]["splits"]["test"]["speakers"] == 4
    assert record["encoder"]["throughput"] > 0
    assert record["encoder"]["macs"] > 0
    assert 0 < record["encoder"]["rounding_error"] < 1e-3
    assert len(record["layer_norms"]) == 2
    assert record["folds"] == []
    assert record["provenance"]["packages"]["torch"] == torch.__version__.split("+")[0]
    interval = record["metrics"]["accuracy"]
    assert interval["low"] <= interval["value"] <= interval["high"]
    assert any("4 test speakers only" in warning for warning in record["warnings"])


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ("[1e-7, 1e-6, 1e-2]", "edge of the grid"),
        ("[1e-2]", "one learning rate was tried, 0.01"),
    ],
)
def test_an_edge_of_the_grid_is_marked(places, bands, quick, tmp_path, rates, says):
    narrow = tmp_path / "narrow.toml"
    text = quick.read_text().replace("[1e-3, 1e-2, 1e-1]", rates)
    narrow.write_text(text)
    (result,) = run(bands(), "ks", layers="last", **{**places, "protocol": str(narrow)})
    assert result.learning_rate == 1e-2
    assert result.learning_rate_at_edge
    about_rates = [text for text in result.warnings if "rate" in text]
    assert len(about_rates) == 1
    assert says in about_rates[0]


def test_bad_audio_fails_with_its_name_or_is_left_out_and_listed(
    places, bands, tones, tmp_path, capsys
):
    rows = tones.read_text().splitlines()
    broken = tmp_path / "broken.tsv"
    lines = [rows[0]] + [f"{tones.parent}/{row}" for row in rows[1:]]
    (tmp_path / "noise.wav").write_bytes(b"not audio")
    lines.append("noise.wav\ttrain\tada\tyes\tyes")
    broken.write_text("\n".join(lines))
    places |= {"corpus": str(broken), "layers": "last"}
    with pytest.raises(AudioError, match=r"1 of 73 audio files.*noise\.wav.*--on-bad-audio skip"):
        run(bands(), "ks", **places)
    capsys.readouterr()
    (result,) = run(bands(), "ks", on_bad_audio="skip", **places)
    assert "1 audio files left out, listed in the results; the first: noise.wav" in (
        capsys.readouterr().err
    )
    assert [item["utterance"] for item in result.skipped_audio] == ["noise.wav"]
    assert result.corpus["splits"]["train"]["utterances"] == 36


def test_features_that_say_nothing_are_called_out(places, bands):
    class Centred(bands):
        def __call__(self, waveforms):
            states = super().__call__(waveforms)
            values = states.values - states.values.mean(dim=2, keepdim=True)
            return superb.HiddenStates(values, states.lengths)

    (result,) = run(Centred(), "ks", layers="last", **places)
    assert any("can only guess" in warning for warning in result.warnings)


def test_a_test_recording_that_was_trained_on_is_called_out(places, bands, tones, tmp_path):
    folder = tmp_path / "tones"
    shutil.copytree(tones.parent, folder)
    rows = tones.read_text().splitlines()
    shutil.copy(folder / rows[1].split("\t")[0], folder / "again.wav")
    leaky = folder / "leaky.tsv"
    leaky.write_text("\n".join([*rows, "again.wav\ttest\tada\tyes\tyes"]))
    (result,) = run(bands(), "ks", layers="last", **{**places, "corpus": str(leaky)})
    assert any("again.wav" in warning and "too good" in warning for warning in result.warnings)


def test_every_rate_failing_is_a_failed_result_and_not_a_score(places, bands, quick, tmp_path):
    wild = tmp_path / "wild.toml"
    wild.write_text(quick.read_text().replace("[1e-3, 1e-2, 1e-1]", "[1e36, 1e37, 1e38]"))
    (result,) = run(bands(), "ks", layers="last", **{**places, "protocol": str(wild)})
    assert (result.status, result.learning_rate) == ("failed", None)
    assert (result.metrics, result.per_seed) == ({}, [])
    assert {point["status"] for point in result.learning_rate_curve} == {"failed"}
    assert any("every learning rate failed" in warning for warning in result.warnings)
    # it is found by the same command, as any result
    assert run(bands(), "ks", layers="last", **{**places, "protocol": str(wild)}) == [result]


def test_logs_are_written_where_asked(places, bands, tmp_path):
    (result,) = run(bands(), "ks", layers="last", log_dir=tmp_path / "logs", **places)
    of_run = tmp_path / "logs" / "ks" / "bands" / result.run_id
    runs = {folder.name for folder in of_run.iterdir()}
    assert runs == {"last", *(f"last, {rate}, seed 0" for rate in ("0.001", "0.01", "0.1"))}
