"""What a protocol asks of a whole run: crops, gain, seeds, a language model."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from benchmark.encoding import recordings
from benchmark.errors import SuperbError
from superb.running import run


@pytest.fixture
def places(places):
    """Without the protocol, which each test brings."""
    return {name: place for name, place in places.items() if name != "protocol"}


@pytest.fixture
def protocol(tmp_path: Path, quick: Path):
    """The quick protocol with some lines changed, in all of its tables that have them."""

    def make(task: str | None = None, **changes: str) -> str:
        text = quick.read_text()
        start = text.index(f"[{task}]") if task else 0
        end = text.find("\n[", start) if task else len(text)
        part = text[start:end]
        for name, value in changes.items():
            part, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", part)
            assert count
        path = tmp_path / "changed.toml"
        path.write_text(text[:start] + part + text[end:])
        return str(path)

    return make


def seconds(encoder) -> list[float]:
    return sorted(waveform.numel() / 16_000 for waveform in encoder.heard)


def test_speakers_are_learned_from_crops_and_tested_on_whole_utterances(places, bands, protocol):
    """Of 72 tones of 0.30 to 0.40 s, the 36 of train have 0.30, 0.32 and 0.34 s."""
    encoder, path = bands(), protocol("sid", crop_s="0.2", crops="2")
    (result,) = run(encoder, "sid", layers="last", protocol=path, **places)
    lengths = seconds(encoder)
    assert lengths == [0.2] * 2 * 36 + [0.36] * 12 + [0.38] * 12 + [0.4] * 12
    assert result.corpus["splits"]["train"]["utterances"] == 36
    assert result.corpus["splits"]["train"]["hours"] == pytest.approx(36 * 0.32 / 3600, abs=1e-4)
    assert result.metrics["accuracy"]["value"] > 60
    assert result.protocol["crop_s"] == 0.2


def test_crops_of_one_task_stand_beside_whole_utterances_of_another(places, bands, protocol):
    encoder, path = bands(), protocol("sid", crop_s="0.31", crops="1")
    both = run(encoder, ["ks", "sid"], layers="last", protocol=path, **places)
    assert len(encoder.heard) == 72 + 24  # what is whole is encoded once for both
    alone = {**places, "output": places["output"] / "alone", "cache_dir": places["output"]}
    for name, beside in zip(("ks", "sid"), both, strict=True):
        (result,) = run(bands(), name, layers="last", protocol=path, **alone)
        assert result.run_id == beside.run_id
        assert result.metrics == beside.metrics
        assert result.history == beside.history


def test_lengths_for_crops_are_looked_up_once(
    places, bands, protocol, tones, tmp_path, monkeypatch
):
    shutil.copytree(tones.parent, tmp_path / "own")
    for audio in (tmp_path / "own").glob("*.wav"):
        os.utime(audio, (1e9, 1e9))
    places |= {"corpus": str(tmp_path / "own" / tones.name)}
    read, opened = recordings.duration_s, []

    def watched(utterance):
        if utterance.split == "train" and utterance.span is None:  # else for an estimate
            opened.append(utterance)
        return read(utterance)

    monkeypatch.setattr(recordings, "duration_s", watched)
    path = protocol("sid", crop_s="0.2", crops="2")
    (first,) = run(bands(), "sid", layers="last", protocol=path, **places)
    assert len(opened) == 36
    places |= {"output": tmp_path / "again"}
    (again,) = run(bands(), "sid", layers="last", protocol=path, **places)
    assert len(opened) == 36
    assert again.metrics == first.metrics


def test_a_test_recording_of_which_crops_were_trained_on_is_called_out(
    places, bands, protocol, tones, tmp_path
):
    shutil.copytree(tones.parent, tmp_path / "own")
    (tmp_path / "own" / "ada-yes-4.wav").write_bytes(
        (tmp_path / "own" / "ada-yes-0.wav").read_bytes()
    )
    places |= {"corpus": str(tmp_path / "own" / tones.name)}
    path = protocol("sid", crop_s="0.2", crops="2")
    (result,) = run(bands(), "sid", layers="last", protocol=path, **places)
    (warning,) = [text for text in result.warnings if "too good" in text]
    assert warning.startswith("1 of 24 test recordings are in train or valid too (ada-yes-4.wav)")


@pytest.mark.parametrize("task", ["pr", "sf", "sd"])
def test_what_is_of_a_whole_utterance_is_not_of_a_crop(places, bands, tmp_path, task):
    path = tmp_path / "crops.toml"
    path.write_text(f'name = "crops"\nversion = 1\nbase = "mini"\n[{task}]\ncrop_s = 2.0\n')
    with pytest.raises(SuperbError, match=rf"\[{task}\]: crop_s must be 0.*got 2"):
        run(bands(), task, protocol=str(path), **{**places, "corpus": "mini"})


def test_a_crop_has_no_transcript(places, bands, protocol):
    path = protocol("asr", crop_s="8.0")
    with pytest.raises(SuperbError, match=r"\[asr\]: crop_s must be 0.*got 8"):
        run(bands(), "asr", protocol=path, **places)


def test_gain_is_heard_by_its_task_alone(places, bands, protocol):
    plain, quiet = bands(), bands()
    path = protocol("ks", gain_db="-6.0")
    (loud,) = run(plain, "sid", layers="last", protocol=path, **places)
    _, soft = run(quiet, ["sid", "ks"], layers="last", protocol=path, **places)
    assert len(plain.heard) == len(quiet.heard) == 72  # sid's features were there
    for one, other in zip(plain.heard, quiet.heard, strict=True):
        assert torch.allclose(one * 10 ** (-6 / 20), other)
    again = bands()
    run(again, ["ks"], layers="last", protocol=path, **{**places, "output": places["cache_dir"]})
    assert again.heard == []
    assert loud.identity["upstream"] == soft.identity["upstream"]


def test_seeds_count_up_from_the_first(places, bands, protocol):
    path = protocol("ks", first_seed="1337")
    (result,) = run(bands(), "ks", layers="last", seeds=2, protocol=path, **places)
    assert result.seeds == result.identity["seeds"] == [1337, 1338]
    assert [score["seed"] for score in result.per_seed] == [1337, 1338]


def test_superb_s3prl_runs_on_every_task(places, bands, tmp_path):
    """With few updates and a small ASR head, all else as shipped."""
    few = "updates = 2\nevaluate_every = 1\n"
    path = tmp_path / "few.toml"
    path.write_text(
        f'name = "few"\nversion = 1\nbase = "superb-s3prl"\n[sid]\n{few}[ks]\n{few}[asr]\n{few}'
        f"[asr.head]\nprojection = 8\nhidden = 8\n[asv]\n{few}"
        "[asv.head]\nprojection = 8\nhidden = 8\npooled = 8\nembedding = 8\n"
    )
    encoder = bands()
    tasks = ["asr", "sid", "ks", "asv"]
    results = run(encoder, tasks, layers="weighted-sum", protocol=str(path), **places)
    assert len(encoder.heard) == 2 * 72  # as recorded, and 3 dB down for KS and ASV
    assert [result.downstream["name"] for result in results] == tasks
    assert {result.learning_rate for result in results} <= {1e-4, None}
    assert {len(result.history) for result in results} == {2}
    assert {tuple(result.seeds) for result in results} == {(1337,)}


def test_nothing_kept_is_a_failed_result(places, bands, protocol):
    changes = {"learning_rates": "[1e-9]", "select_by": '"score"', "updates": "20"}
    (result,) = run(bands(), "asr", layers="last", protocol=protocol("asr", **changes), **places)
    assert min(point["valid"] for point in result.history) >= 100
    assert (result.status, result.metrics) == ("failed", {})
    assert any("never better than 100 %" in warning for warning in result.warnings)


ARPA = """
\\data\\
ngram 1=6
ngram 2=1

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.3
-1.0\t</s>
-0.5\tYES\t-0.3
-0.5\tNO\t-0.3
-0.5\tSTOP\t-0.3

\\2-grams:
-0.1\tYES YES

\\end\\
"""


@pytest.fixture
def sentences(tmp_path: Path, tones: Path) -> str:
    """The tones, with a second word in every transcript."""
    rows = [row.split("\t") for row in tones.read_text().splitlines()]
    for row in rows[1:]:
        row[0], row[3] = str(tones.parent / row[0]), f"{row[3]} {row[3]}"
    path = tmp_path / "sentences.tsv"
    path.write_text("\n".join("\t".join(row) for row in rows))
    return str(path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "words.arpa"
    path.write_text(ARPA)
    return path


def with_lm(path: str) -> str:
    text = (
        Path(path)
        .read_text()
        .replace(
            "\n[asr.spec_augment]",
            "\n[asr.lm]\nbeam = 5\nbeam_threshold = 25.0\nlm_weight = 2.0\nword_score = -1.0\n"
            "[asr.spec_augment]",
        )
    )
    Path(path).write_text(text)
    return path


def test_a_language_model_adds_a_metric_and_changes_no_other(
    places, bands, protocol, sentences, model
):
    pytest.importorskip("flashlight.lib.text.decoder", reason="superb[lm] is not installed")
    places |= {"corpus": sentences, "layers": "last", "protocol": with_lm(protocol())}
    (plain,) = run(bands(), "asr", **places)
    (result,) = run(bands(), "asr", lm=model, **places)
    assert list(plain.metrics) == ["wer", "cer"]
    assert list(result.metrics) == ["wer", "cer", "wer_lm"]
    assert {name: result.metrics[name] for name in ("wer", "cer")} == plain.metrics
    assert result.history == plain.history
    assert result.run_id != plain.run_id
    assert set(result.identity) - set(plain.identity) == {"lm"}
    assert 0 < result.metrics["wer_lm"]["value"] <= 100


@pytest.mark.parametrize(
    ("task", "change", "options", "message"),
    [
        ("ks", with_lm, {}, "--lm is for tasks with transcripts, such as asr; got ks"),
        ("asr", str, {}, r"protocol quick does not say how to decode with --lm.*\[asr\.lm\]"),
        ("asr", with_lm, {"lm": "none.arpa"}, "--lm none.arpa cannot be read: No such file"),
        ("asr", with_lm, {"lexicon": "none"}, "--lexicon none cannot be read: No such file"),
        ("asr", with_lm, {"lm": None, "lexicon": "words"}, "give one with --lm FILE"),
    ],
)
def test_a_language_model_that_cannot_be_used(
    places, bands, protocol, model, task, change, options, message
):
    encoder = bands()
    given = {"lm": model, "protocol": change(protocol()), **places, **options}
    with pytest.raises(SuperbError, match=message):
        run(encoder, task, **given)
    assert encoder.heard == []
