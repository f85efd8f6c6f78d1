"""From names to result files: what is skipped, what resumes, what repeats, what is refused."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import superb
from benchmark.answering.saved import head_path, weights_path
from benchmark.errors import SuperbError
from benchmark.probing import fit
from benchmark.probing import snapshot as resume
from benchmark.progress import Progress
from benchmark.scoring.results import find_result, read_records, read_result, result_path
from downstreams.ks import Ks
from downstreams.load import load_downstream
from superb.predict import answer_all
from superb.running import run
from tests.made import RATE, SPEAKERS, WORDS, tone


def records_of(output: Path, result):
    downstream, upstream = result.downstream["name"], result.upstream["name"]
    return read_records(result_path(output, downstream, upstream, result.run_id))


def test_one_forward_serves_every_task_layer_choice_rate_and_seed(places, bands):
    encoder = bands()
    layers = ("last", "weighted-sum", "weighted-sum-norm", "each")
    results = run(encoder, "all", layers=layers, seeds=2, **places)
    assert len(encoder.heard) == 72
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


def test_a_layer_index_is_the_same_probe_as_last(places, bands):
    results = run(bands(), "ks", layers=("last", "1", "-1"), **places)
    assert [result.layer for result in results] == ["last", "1"]
    assert results[0].metrics == results[1].metrics


def test_the_same_command_again_runs_nothing_and_says_so(places, bands, capsys):
    first = run(bands(), "ks", **places)
    encoder = bands()
    again = run(encoder, "ks", **{**places, "progress": Progress()})
    assert encoder.heard == []
    assert again == first
    told = "bands, ks: finished before, not run again: "
    assert f"{told}last, weighted-sum\n" in capsys.readouterr().err
    # of a run that is finished in part, the rest is made
    run(encoder, "ks", layers=("last", "0"), **{**places, "progress": Progress()})
    assert f"{told}last\n" in capsys.readouterr().err
    assert encoder.heard == []


def test_what_is_returned_is_what_was_written(places, bands):
    (result,) = run(bands(), "ks", layers="last", **places)
    assert result.checksum
    path = result_path(places["output"], "ks", "bands", result.run_id)
    assert result == read_result(path)
    # and nothing else is left in the folder
    assert sorted(places["output"].rglob("*.*")) == [path, path.with_suffix(".utterances.csv")]


def test_two_runs_from_scratch_give_identical_scores(places, bands, tmp_path):
    records = []
    for attempt in ("one", "two"):
        places |= {"output": tmp_path / attempt, "cache_dir": tmp_path / f"cache-{attempt}"}
        (result,) = run(bands(), "asr", layers="weighted-sum", **places)
        records.append(records_of(tmp_path / attempt, result))
    assert records[0] == records[1]


def test_what_was_asked_for_beside_it_does_not_change_a_score(places, bands, tmp_path):
    """Neither other tasks, nor other layer choices, nor having been cut off in the middle."""
    alone = run(bands(), "asr", layers="last", **places)[0]

    places |= {"output": tmp_path / "other", "cache_dir": tmp_path / "other-cache"}
    with pytest.raises(KeyboardInterrupt):
        run(bands(patience=40), "all", **places)
    resumed = bands()
    results = run(resumed, "all", layers=("weighted-sum", "last"), **places)
    assert len(resumed.heard) == 32
    beside = next(r for r in results if (r.downstream["name"], r.layer) == ("asr", "last"))
    assert beside.metrics == alone.metrics
    assert beside.history == alone.history


def test_the_first_of_several_seeds_is_the_run_of_one(places, bands, quick, tmp_path):
    """Where no rate is dropped for what other seeds show; the others are runs of their own."""
    path = tmp_path / "no halving.toml"
    path.write_text(re.sub(r"(?m)^halving = .*$", "halving = []", quick.read_text()))
    places |= {"protocol": str(path), "layers": "last"}
    (one,), (several,) = (run(bands(), "ks", seeds=seeds, **places) for seeds in (1, 3))
    courses = [
        [{**point, "seed": 0} for point in several.history if point["seed"] == seed]
        for seed in range(3)
    ]
    assert courses[0] == one.history
    assert courses[1] != courses[0] != courses[2] != courses[1]
    scores = [score["metrics"]["accuracy"] for score in several.per_seed]
    assert several.metrics["accuracy"]["value"] == pytest.approx(sum(scores) / 3)


def test_the_identity_covers_what_a_score_depends_on(places, bands):
    base = run(bands(), "ks", layers="last", **places)[0]
    changed = bands()
    changed.fingerprint = "bands 2"
    seeds = run(bands(), "ks", layers="last", seeds=2, **places)[0]
    variants = [
        seeds,
        run(changed, "ks", layers="last", **places)[0],
        run(bands(), "ks", layers="0", **places)[0],
        run(bands(), "ks", layers="last", storage="float32", **places)[0],
        run(bands(), "ks", layers="last", precision="bfloat16", **places)[0],
    ]
    ids = [base.run_id, *(variant.run_id for variant in variants)]
    assert len(set(ids)) == len(ids)
    # seeds once shared the order of the data: results of those days are of other runs
    assert seeds.identity == {**base.identity, "seeds": [0, 1], "reruns": "whole"}


def test_audio_that_changed_in_place_is_not_taken_for_what_was_scored(
    places, bands, tones, tmp_path
):
    """A file as large as before leaves the corpus's identity as it was."""
    shutil.copytree(tones.parent, tmp_path / "own")
    manifest = tmp_path / "own" / tones.name
    for path in manifest.parent.glob("*.wav"):
        os.utime(path, (1e9, 1e9))
    places |= {"corpus": str(manifest)}
    (first,) = run(bands(), "ks", layers="last", **places)
    assert run(bands(), "ks", layers="last", **places) == [first]
    audio = manifest.parent / "ada-yes-5.wav"
    data = bytearray(audio.read_bytes())
    data[-1] ^= 1
    audio.write_bytes(data)
    os.utime(audio, (1e9, 1e9 + 1))
    with pytest.raises(SuperbError, match=rf"have changed since .*{first.run_id}\.json was"):
        run(bands(), "ks", layers="last", **places)
    places |= {"output": tmp_path / "other"}
    (second,) = run(bands(), "ks", layers="last", **places)
    assert second.corpus["audio_sha256"] != first.corpus["audio_sha256"]
    # where nothing is known of the files, their sizes have to do
    places |= {"cache_dir": tmp_path / "new"}
    assert run(bands(), "ks", layers="last", **places) == [second]


@pytest.mark.parametrize("task", ["asr", "ks"])
def test_an_interrupted_run_goes_on_to_the_same_result(places, bands, monkeypatch, tmp_path, task):
    """And to the same head."""
    monkeypatch.setattr(resume.Snapshot, "due", True)
    places |= {"seeds": 2, "save_heads": True}
    before = places["output"]
    whole = run(bands(), task, **places)
    states = tmp_path / "cut" / "training"
    assert list((places["cache_dir"] / "training").iterdir()) == []

    places |= {"output": tmp_path / "cut results", "cache_dir": tmp_path / "cut"}
    look = fit._look

    def second_look(alive, *rest):
        if alive[0].updates > 20:
            raise KeyboardInterrupt
        look(alive, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_look", second_look)
        with pytest.raises(KeyboardInterrupt):
            run(bands(), task, **places)
    assert len(list(states.iterdir())) == 1
    encoder = bands()
    resumed = run(encoder, task, **places)
    assert encoder.heard == []
    assert list(states.iterdir()) == []
    for one, other in zip(whole, resumed, strict=True):
        assert one.run_id == other.run_id
        assert (one.metrics, one.history) == (other.metrics, other.history)
        assert one.per_seed == other.per_seed
        assert one.utterances_sha256 == other.utterances_sha256
        assert find_result(places["output"], task, "bands", one.run_id) is not None
        heads = [
            weights_path(head_path(result_path(folder, task, "bands", one.run_id))).read_bytes()
            for folder in (before, places["output"])
        ]
        assert heads[0] == heads[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"downstream": "kws"}, "unknown downstream task 'kws'. Did you mean ks"),
        ({"downstream": []}, "no task given; choose from asr, sid, ks, pr"),
        ({"upstream": "hubrt"}, "Did you mean hubert"),
        ({"upstream": []}, "no upstream given"),
        ({"upstream": object()}, "object is not an upstream"),
        ({"layers": "middle"}, "unknown layer choice 'middle'"),
        ({"layers": "7"}, "layer 7 does not exist: this encoder has 2 hidden layers"),
        ({"corpus": "minni"}, "Did you mean mini"),
        ({"protocol": "super"}, "Did you mean superb"),
        ({"precision": "float8"}, "value of --precision"),
        ({"storage": "int4"}, "value of --storage"),
        ({"on_bad_audio": "ignore"}, "value of --on-bad-audio"),
        ({"seeds": 0}, "seeds must be from 1 to 1000"),
        ({"device": "quantum"}, "--device cpu, cuda or auto"),
        ({"workers": 0}, "--workers must be at least 1, got 0"),
        ({"workers": 2, "cluster": "auto"}, "--workers is for this machine, --cluster for others"),
        ({"lexicon": "words"}, "give one with --lm FILE"),
    ],
)
def test_wrong_input_is_explained_before_any_work(places, bands, options, message):
    given = {"upstream": bands(), "downstream": "ks", **places, **options}
    with pytest.raises(SuperbError) as error:
        run(given.pop("upstream"), given.pop("downstream"), **given)
    assert message in str(error.value)
    assert not (places["output"]).exists()


@pytest.mark.parametrize(("option", "what"), [("output", "results"), ("log_dir", "logs")])
def test_a_folder_that_cannot_be_written_is_found_out_first(places, bands, tmp_path, option, what):
    blocked = tmp_path / "file"
    blocked.write_text("")
    encoder = bands()
    told = f"{what} cannot be written to .*is not a folder.*--{option.replace('_', '-')} DIR"
    with pytest.raises(SuperbError, match=told):
        run(encoder, "ks", **{**places, option: blocked / "folder"})
    assert encoder.heard == []


def test_a_mixed_up_plug_in_is_named(places, bands):
    class Liar(bands):
        card = replace(bands.card, dim=9)

    with pytest.raises(superb.UpstreamError, match=r"card says 2 layers x 9.*\[2, 1, \d+, 8\]"):
        run(Liar(), "ks", **places)


def test_a_module_left_in_training_mode_is_frozen(places, bands):
    class Noisy(bands):
        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def __call__(self, waveforms):
            states = super().__call__(waveforms)
            return superb.HiddenStates(self.drop(states.values), states.lengths)

    noisy = Noisy()
    run(noisy, "ks", layers="last", **places)
    assert not noisy.drop.training


def test_the_same_encoder_twice_is_run_once_and_another_of_its_name_is_not(places, bands):
    assert len(run([bands(), bands()], "ks", layers="last", **places)) == 1
    other = bands()
    other.fingerprint = "bands 2"
    results = run([bands(), other], "ks", layers="last", **places)
    assert [result.upstream["name"] for result in results] == ["bands", "bands"]
    assert len({result.identity["upstream"]["fingerprint"] for result in results}) == 2


def test_a_task_of_ours_that_was_changed_is_another(places, bands):
    """By its card as by its methods; as it stands, its name and version say it all."""
    as_it_is = run(bands(), "ks", layers="last", **places)
    task = load_downstream("ks")
    (same,) = run(bands(), task, layers="last", **places)
    assert same.run_id == as_it_is[0].run_id
    assert "source" not in same.identity["downstream"]
    task.answer = lambda logits, lengths, utterances, vocabulary: ["yes"] * len(utterances)
    (patched,) = run(bands(), task, layers="last", **places)
    assert patched.run_id != same.run_id
    assert patched.metrics["accuracy"]["value"] < 40


def test_two_tasks_of_one_name_are_refused(places, bands, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(
            "from dataclasses import replace\n"
            "from downstreams.ks import Ks\n"
            f"class Mine(Ks):\n    '''{name}'''\n    one = {name == 'one'}\n"
            "    card = replace(Ks.card, name='mine')\n"
            "    training = {'head': {'projection': 8}}\n"
        )
    places |= {"protocol": "mini", "layers": "last"}
    tasks = [f"{tmp_path / name}.py:Mine" for name in ("one", "two")]
    with pytest.raises(SuperbError, match="two tasks are called 'mine'; rename one"):
        run(bands(), tasks, **places)


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """A manifest without a train split: words as queries, two words as documents."""
    folder = tmp_path_factory.mktemp("searches")
    rows = ["audio,split,speaker,role,term"]
    for split, takes in (("valid", (3, 4)), ("test", (4, 5))):
        for speaker, after in zip(SPEAKERS, (*SPEAKERS[1:], SPEAKERS[0]), strict=True):
            for word, second in zip(WORDS, (*WORDS[1:], WORDS[0]), strict=True):
                query = f"{split}-{speaker}-{word}.wav"
                soundfile.write(folder / query, tone(word, speaker, takes[0]), RATE)
                rows.append(f"{query},{split},{speaker},query,{word}")
                said = np.concatenate([tone(own, after, takes[1]) for own in (word, second)])
                document = f"{split}-{speaker}-{word}-{second}.wav"
                soundfile.write(folder / document, said, RATE)
                rows.append(f"{document},{split},{after},document,{word};{second}")
    manifest = folder / "searches.csv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return manifest


def test_a_search_trains_nothing_and_chooses_its_layer_on_valid(places, bands, searches):
    """A layer each on valid, the best on test; there is no sum, and no seed but one."""
    places |= {"corpus": str(searches), "protocol": "mini"}
    layers = ("last", "weighted-sum", "weighted-sum-norm", "each")
    encoder = bands()
    found = {r.layer: r for r in run(encoder, "qbe", layers=layers, seeds=3, **places)}
    assert list(found) == ["last", "best", "0", "1"]
    best, last, first = found["best"], found["last"], found["0"]
    assert best.seeds == [0]
    assert best.learning_rate == 0
    assert not best.learning_rate_curve
    assert best.layer_weights is None
    assert best.corpus["splits"]["train"]["utterances"] == 0
    assert best.layer_scores == [first.per_seed[0]["valid"], last.per_seed[0]["valid"]]
    assert best.per_seed[0]["valid"] == max(best.layer_scores)
    chosen = (first, last)[best.layer_scores.index(max(best.layer_scores))]
    assert records_of(places["output"], best) == records_of(places["output"], chosen)
    assert best.metrics == chosen.metrics
    assert best.metrics["mtwv"]["value"] > 50
    assert last.layer_scores is None
    again = bands()
    run(again, "qbe", layers=layers, seeds=3, **places)
    assert again.heard == []
    with pytest.raises(SuperbError, match="nothing in split train"):
        run(bands(), "sid", **places)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([], "task qbe fails on valid: ValueError"),
        ([[float("nan")] * 12, None] * 12, "mtwv of .* not finite numbers"),
    ],
)
def test_a_search_that_fails_is_told(places, bands, searches, monkeypatch, answers, says):
    task = load_downstream("qbe")
    monkeypatch.setattr(type(task), "search", lambda *_: answers)
    places |= {"corpus": str(searches), "protocol": "mini"}
    with pytest.raises(SuperbError, match=says):
        run(bands(), "qbe", layers="last", **places)


def test_fewer_labels_are_a_task_of_their_own(places, bands):
    """Each seed trains on utterances of its own; all labels are what they were without a budget."""
    encoder = bands()
    options = {**places, "layers": "last", "seeds": 2}
    results = run(encoder, "ks", labels=("10s", "all"), **options)
    few, whole = results
    assert [r.downstream["name"] for r in results] == ["ks-10s", "ks"]
    assert few.downstream["base"] == "ks"
    assert few.identity["labels"] == {"seconds": 10}
    first, second = few.corpus["labels"]["utterances"][""]
    assert first != second
    assert len(first) < whole.corpus["splits"]["train"]["utterances"]
    assert "labels" not in whole.corpus
    assert len(encoder.heard) == 72
    (alone,) = run(encoder, "ks", **{**options, "output": places["output"] / "alone"})
    assert (alone.run_id, alone.metrics) == (whole.run_id, whole.metrics)
    with pytest.raises(SuperbError, match="asks for more than there is"):
        run(bands(), "ks", labels="1h", **options)


def test_each_rerun_on_a_budget_says_what_it_heard(places, bands, monkeypatch):
    def told(self, train, lengths, hop_s, settings):
        return ["of all", f"heard {sorted(utterance.id for utterance in train)}"]

    monkeypatch.setattr(Ks, "notes", told, raising=False)
    (found,) = run(bands(), "ks", labels="10s", layers="last", seeds=2, **places)
    parts = found.corpus["labels"]["utterances"][""]
    assert sorted(parts[0]) != sorted(parts[1])
    assert [warning for warning in found.warnings if "of all" in warning] == ["of all"]
    assert [warning for warning in found.warnings if "heard" in warning] == [
        f"seed {seed}: heard {sorted(part)}" for seed, part in enumerate(parts)
    ]


def test_heads_of_recognition_are_tasks_of_their_own(places, bands):
    found = run(bands(), "asr", head=("ctc", "attention", "transducer"), layers="last", **places)
    assert [r.downstream["name"] for r in found] == ["asr", "asr-attention", "asr-transducer"]
    assert {r.status for r in found} == {"finished"}
    assert [len(r.attention) for r in found] == [0, 3, 0]
    attended = found[1]
    path = result_path(places["output"], "asr-attention", "bands", attended.run_id)
    for looked in read_result(path).attention:
        assert len(looked["weights"]) == len(looked["symbols"])
        assert all(sum(own) == pytest.approx(1, abs=0.2) for own in looked["weights"])
    with pytest.raises(SuperbError, match="Known: attention, ctc, gmm-hmm, hmm, transducer"):
        run(bands(), "asr", head="rnn", **places)
    with pytest.raises(SuperbError, match="--head is for tasks that several heads can do"):
        run(bands(), "ks", head="ctc", **places)


def test_hidden_markov_models_are_heads_too(places, bands, tmp_path, monkeypatch):
    pytest.importorskip("kaldi_hmm_gmm", reason="needs the extra hmm")
    options = {**places, "pronunciations": "letters", "save_heads": True}
    found = run(bands(), "asr", head=("hmm", "gmm-hmm"), **options)
    assert [(r.downstream["name"], r.layer) for r in found] == [
        ("asr-hmm", "last"),
        ("asr-hmm", "weighted-sum"),
        ("asr-gmm-hmm", "last"),
        ("asr-gmm-hmm", "best"),
    ]
    assert {r.status for r in found} == {"finished"}
    assert all("letters in place of phones" in r.warnings for r in found)
    path = result_path(places["output"], "asr-hmm", "bands", found[0].run_id)
    head = superb.load_head(path, upstream=bands())
    test = superb.load_corpus(places["corpus"], head.downstream.card).split("test")
    answered, _ = answer_all(head, test)
    heard = {record.id: record.hypothesis for record in records_of(places["output"], found[0])[0]}
    assert {own.answer.utterance: own.answer.text for own in answered} == heard
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters").write_text("yes Y EH1 S\n")
    with pytest.raises(SuperbError, match="takes letters for phones, and there is a file of that"):
        run(bands(), "asr", head="hmm", **options)
    (tmp_path / "letters").unlink()
    monkeypatch.setitem(sys.modules, "kaldi_hmm_gmm", None)
    with pytest.raises(SuperbError, match=r"pip install 'superb\[hmm\]', or choose --head ctc"):
        run(bands(), "asr", head="hmm", **options)
