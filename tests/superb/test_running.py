"""From names to result files: what is skipped, what resumes, what repeats."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import superb
from benchmark.core import Corpus
from benchmark.encoding import features
from benchmark.errors import AudioError, SuperbError
from benchmark.progress import Progress
from benchmark.run import run
from benchmark.scoring.results import read_result, read_tallies, result_path
from downstreams.corpora import load_corpus


class Bands:
    """Energies of a spectrum in 8 bands, a toy encoder of two layers, 10 ms apart."""

    card = superb.UpstreamCard(
        name="bands", layers=2, dim=8, hop_samples=160, min_samples=320, pad_invariant=True
    )

    def __init__(self, patience: int = 10_000) -> None:
        self.calls: list[int] = []
        self.patience = patience
        self.fingerprint = "bands 1"

    def __call__(self, waveforms):
        if len(self.calls) == self.patience:
            raise KeyboardInterrupt
        self.calls += [waveform.numel() for waveform in waveforms]
        rows = []
        for waveform in waveforms:
            windows = waveform.unfold(0, 320, 160)
            spectrum = torch.fft.rfft(windows * torch.hann_window(320)).abs()
            rows.append(spectrum[:, :160].reshape(-1, 8, 20).mean(-1).log1p())
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return superb.HiddenStates(torch.stack([padded, padded.square()]), lengths)


@pytest.fixture
def places(tmp_path: Path, tones: Path, quick: Path) -> dict[str, object]:
    return {
        "corpus": str(tones),
        "protocol": str(quick),
        "output": tmp_path / "results",
        "cache_dir": tmp_path / "cache",
        "progress": Progress(quiet=True),
    }


def test_one_forward_serves_every_task_layer_choice_rate_and_seed(places):
    encoder = Bands()
    layers = ("last", "weighted-sum", "weighted-sum-norm", "each")
    results = run(encoder, "all", layers=layers, seeds=2, **places)
    assert len(encoder.calls) == 72 + 1  # and noise, to count its arithmetic
    assert len(results) == 3 * 5
    assert {result.status for result in results} == {"finished"}
    by_cell = {(r.downstream["name"], r.layer): r for r in results}
    assert by_cell["ks", "last"].metrics["accuracy"]["value"] > 90
    assert by_cell["sid", "weighted-sum"].metrics["accuracy"]["value"] > 60
    weights = by_cell["sid", "weighted-sum"].layer_weights
    assert len(weights) == 2
    assert sum(weights) == pytest.approx(1)
    assert by_cell["sid", "last"].layer_weights is None
    assert [score["seed"] for score in by_cell["asr", "last"].per_seed] == [0, 1]


def test_a_layer_index_is_the_same_probe_as_last(places):
    results = run(Bands(), "ks", layers=("last", "1", "-1"), **places)
    assert [result.layer for result in results] == ["last", "1"]
    assert results[0].metrics == results[1].metrics


def test_the_same_command_again_runs_nothing_and_says_so(places, capsys):
    first = run(Bands(), "ks", **places)
    encoder = Bands()
    again = run(encoder, "ks", **{**places, "progress": Progress()})
    assert encoder.calls == []
    assert [r.checksum for r in again] == [
        read_result(result_path(places["output"], "ks", "bands", r.run_id)).checksum for r in first
    ]
    assert "finished before, not run again: last, weighted-sum" in capsys.readouterr().err


def test_two_runs_from_scratch_give_identical_scores(places, tmp_path):
    tallies = []
    for attempt in ("one", "two"):
        places |= {"output": tmp_path / attempt, "cache_dir": tmp_path / f"cache-{attempt}"}
        (result,) = run(Bands(), "asr", layers="weighted-sum", **places)
        tallies.append(read_tallies(result_path(tmp_path / attempt, "asr", "bands", result.run_id)))
    assert tallies[0] == tallies[1]


def test_what_was_asked_for_beside_it_does_not_change_a_score(places, tmp_path):
    """Neither other tasks, nor other layer choices, nor having been cut off in the middle."""
    alone = run(Bands(), "asr", layers="last", **places)[0]

    places |= {"output": tmp_path / "other", "cache_dir": tmp_path / "other-cache"}
    with pytest.raises(KeyboardInterrupt):
        run(Bands(patience=40), "all", **places)
    resumed = Bands()
    results = run(resumed, "all", layers=("weighted-sum", "last"), **places)
    assert len(resumed.calls) == 32 + 1  # and noise, to count its arithmetic
    beside = next(r for r in results if (r.downstream["name"], r.layer) == ("asr", "last"))
    assert beside.metrics == alone.metrics
    assert beside.history == alone.history


def test_the_identity_covers_what_a_score_depends_on(places, tmp_path):
    base = run(Bands(), "ks", layers="last", **places)[0]
    changed = Bands()
    changed.fingerprint = "bands 2"
    variants = [
        run(changed, "ks", layers="last", **places)[0],
        run(Bands(), "ks", layers="0", **places)[0],
        run(Bands(), "ks", layers="last", seeds=2, **places)[0],
        run(Bands(), "ks", layers="last", storage="float32", **places)[0],
        run(Bands(), "ks", layers="last", precision="bfloat16", **places)[0],
    ]
    ids = [base.run_id, *(variant.run_id for variant in variants)]
    assert len(set(ids)) == len(ids)


def test_audio_that_changed_in_place_is_not_taken_for_what_was_scored(places, tones, tmp_path):
    """A file as large as before leaves the corpus's identity as it was."""
    shutil.copytree(tones.parent, tmp_path / "own")
    manifest = tmp_path / "own" / tones.name
    for path in manifest.parent.glob("*.wav"):
        os.utime(path, (1e9, 1e9))
    places |= {"corpus": str(manifest)}
    (first,) = run(Bands(), "ks", layers="last", **places)
    assert run(Bands(), "ks", layers="last", **places) == [first]
    audio = manifest.parent / "ada-yes-5.wav"
    data = bytearray(audio.read_bytes())
    data[-1] ^= 1
    audio.write_bytes(data)
    os.utime(audio, (1e9, 1e9 + 1))
    with pytest.raises(SuperbError, match=rf"have changed since .*{first.run_id}\.json was"):
        run(Bands(), "ks", layers="last", **places)
    places |= {"output": tmp_path / "other"}
    (second,) = run(Bands(), "ks", layers="last", **places)
    assert second.corpus["audio_sha256"] != first.corpus["audio_sha256"]
    # where nothing is known of the files, their sizes have to do
    places |= {"cache_dir": tmp_path / "new"}
    assert run(Bands(), "ks", layers="last", **places) == [second]


@pytest.mark.parametrize(
    ("speakers", "says"),
    [
        ({"ada": "ada", "ben": ""}, r"speakers of 6 of 12 test utterances are not known: in the"),
        ({"ada": "", "ben": ""}, r"over utterances: no test speaker is known"),
        ({"ada": "ada", "ben": "ada"}, r"over utterances: test has one speaker, ada"),
    ],
)
def test_an_interval_without_speakers_says_why(places, tones, monkeypatch, speakers, says):
    def known(corpus: Corpus) -> Corpus:
        kept = [u for u in corpus.utterances if u.speaker in speakers]
        return replace(
            corpus, utterances=tuple(replace(u, speaker=speakers[u.speaker]) for u in kept)
        )

    monkeypatch.setattr("benchmark.prepare.load_corpus", lambda *given: known(load_corpus(*given)))
    (result,) = run(Bands(), "ks", layers="last", **places)
    assert [w for w in result.warnings if re.search(says, w)]


def test_a_result_says_how_it_came_about(places):
    (result,) = run(Bands(), "ks", layers="weighted-sum", **places)
    path = result_path(places["output"], "ks", "bands", result.run_id)
    record = json.loads(path.read_text())
    assert record["schema"] == 2
    assert record["protocol"]["updates"] == 60
    assert record["protocol"]["head"] == {"projection": 16}
    assert [point["learning_rate"] for point in record["learning_rate_curve"]] == [1e-3, 1e-2, 1e-1]
    assert record["corpus"]["splits"]["train"]["utterances"] == 36
    assert record["corpus"]["splits"]["test"]["speakers"] == 4
    assert record["encoder"]["throughput"] > 0
    assert record["encoder"]["macs"] > 0
    assert 0 < record["encoder"]["rounding_error"] < 1e-3
    assert len(record["layer_norms"]) == 2
    assert record["provenance"]["packages"]["torch"] == torch.__version__.split("+")[0]
    interval = record["metrics"]["accuracy"]
    assert interval["low"] <= interval["value"] <= interval["high"]
    assert any("4 test speakers only" in warning for warning in record["warnings"])


def test_an_edge_of_the_grid_is_marked(places, quick, tmp_path):
    narrow = tmp_path / "narrow.toml"
    text = quick.read_text().replace("[1e-3, 1e-2, 1e-1]", "[1e-7, 1e-6, 1e-2]")
    narrow.write_text(text)
    (result,) = run(Bands(), "ks", layers="last", **{**places, "protocol": str(narrow)})
    assert result.learning_rate == 1e-2
    assert result.learning_rate_at_edge
    assert any("edge of the grid" in warning for warning in result.warnings)


def test_bad_audio_fails_with_its_name_or_is_left_out_and_listed(places, tones, tmp_path):
    rows = tones.read_text().splitlines()
    broken = tmp_path / "broken.tsv"
    lines = [rows[0]] + [f"{tones.parent}/{row}" for row in rows[1:]]
    (tmp_path / "noise.wav").write_bytes(b"not audio")
    lines.append("noise.wav\ttrain\tada\tyes\tyes")
    broken.write_text("\n".join(lines))
    with pytest.raises(AudioError, match=r"1 of 73 audio files.*noise\.wav.*--on-bad-audio skip"):
        run(Bands(), "ks", layers="last", **{**places, "corpus": str(broken)})
    (result,) = run(
        Bands(), "ks", layers="last", on_bad_audio="skip", **{**places, "corpus": str(broken)}
    )
    assert [item["utterance"] for item in result.skipped_audio] == ["noise.wav"]
    assert result.corpus["splits"]["train"]["utterances"] == 36


def test_features_that_say_nothing_are_called_out(places):
    class Centred(Bands):
        def __call__(self, waveforms):
            states = super().__call__(waveforms)
            values = states.values - states.values.mean(dim=2, keepdim=True)
            return superb.HiddenStates(values, states.lengths)

    (result,) = run(Centred(), "ks", layers="last", **places)
    assert any("can only guess" in warning for warning in result.warnings)


def test_every_rate_failing_is_a_failed_result_and_not_a_score(places, quick, tmp_path):
    wild = tmp_path / "wild.toml"
    wild.write_text(quick.read_text().replace("[1e-3, 1e-2, 1e-1]", "[1e36, 1e37, 1e38]"))
    (result,) = run(Bands(), "ks", layers="last", **{**places, "protocol": str(wild)})
    assert result.status == "failed"
    assert result.metrics == {}
    assert {point["status"] for point in result.learning_rate_curve} == {"failed"}
    assert any("every learning rate failed" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"downstream": "kws"}, "unknown downstream task 'kws'. Did you mean ks"),
        ({"upstream": "hubrt"}, "Did you mean hubert"),
        ({"layers": "middle"}, "unknown layer choice 'middle'"),
        ({"layers": "7"}, "layer 7 does not exist: this encoder has 2 hidden layers"),
        ({"corpus": "minni"}, "Did you mean mini"),
        ({"protocol": "super"}, "Did you mean superb"),
        ({"precision": "float8"}, "value of --precision"),
        ({"storage": "int4"}, "value of --storage"),
        ({"on_bad_audio": "ignore"}, "value of --on-bad-audio"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"device": "quantum"}, "--device cpu, cuda or auto"),
        ({"upstream": object()}, "object is not an upstream"),
    ],
)
def test_wrong_input_is_explained_before_any_work(places, options, message):
    given = {"upstream": Bands(), "downstream": "ks", **places, **options}
    with pytest.raises(SuperbError) as error:
        run(given.pop("upstream"), given.pop("downstream"), **given)
    assert message in str(error.value)
    assert not (places["output"]).exists()


def test_a_mixed_up_plug_in_is_named(places):
    class Liar(Bands):
        card = replace(Bands.card, dim=9)

    with pytest.raises(superb.UpstreamError, match=r"card says 2 layers x 9.*\[2, 1, \d+, 8\]"):
        run(Liar(), "ks", **places)
    assert features.BATCHING == "one"


def test_an_output_that_cannot_be_written_is_found_out_first(places, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    encoder = Bands()
    with pytest.raises(SuperbError, match="is not a folder"):
        run(encoder, "ks", **{**places, "output": blocked / "results"})
    assert encoder.calls == []


def test_a_test_recording_that_was_trained_on_is_called_out(places, tones, tmp_path):
    folder = tmp_path / "tones"
    shutil.copytree(tones.parent, folder)
    rows = tones.read_text().splitlines()
    shutil.copy(folder / rows[1].split("\t")[0], folder / "again.wav")
    leaky = folder / "leaky.tsv"
    leaky.write_text("\n".join([*rows, "again.wav\ttest\tada\tyes\tyes"]))
    (result,) = run(Bands(), "ks", layers="last", **{**places, "corpus": str(leaky)})
    assert any("again.wav" in warning and "too good" in warning for warning in result.warnings)


def test_a_module_left_in_training_mode_is_frozen(places):
    class Noisy(Bands):
        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def __call__(self, waveforms):
            states = super().__call__(waveforms)
            return superb.HiddenStates(self.drop(states.values), states.lengths)

    noisy = Noisy()
    run(noisy, "ks", layers="last", **places)
    assert not noisy.drop.training


def test_the_same_encoder_twice_is_run_once(places):
    assert len(run([Bands(), Bands()], "ks", layers="last", **places)) == 1
    with pytest.raises(SuperbError, match="no upstream given"):
        run([], "ks", **places)


def test_what_is_returned_is_what_was_written(places):
    (result,) = run(Bands(), "ks", layers="last", **places)
    path = result_path(places["output"], "ks", "bands", result.run_id)
    assert result.checksum
    assert result == read_result(path)
