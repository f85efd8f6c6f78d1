"""From a saved head to answers: those of the result's table, to the letter; and what is refused."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import superb
from benchmark.answering.saved import head_path, weights_path
from benchmark.answers import Answer
from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.progress import Messages, Progress
from benchmark.scoring.files import signed
from benchmark.scoring.results import read_records, result_path
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream
from superb import demo
from superb.answers import shown_text
from superb.cli import app
from superb.predict import answer_all, load_head
from superb.running import run
from tests.made import RATE, tone
from upstreams.loading.load import load_upstream

TASKS = ("asr", "pr", "sf", "ks", "sid", "ic", "er", "asv", "sd")
QUICK = """
updates = {updates}
batch_utterances = 12
warmup = 2
evaluate_every = {updates}
learning_rates = [1e-2, 1e-1]
halving = []
[{kind}.head]
{head}
"""
LSTM = "frame_s = 0.02\nprojection = 12\nhidden = 8"
HEADS = {
    "mean": "projection = 16",
    "asr": LSTM,
    "asr-attention": f"{LSTM}\nspeller = 8\nattention = 8\nwindow = 1\nbeam = 2",
    "asr-transducer": f"{LSTM}\njoint = 8\nprediction = 8\nbeam = 2",
    "sf": LSTM,
    "pr": "projection = 16",
    "asv": "projection = 8\nhidden = 8\npooled = 16\nembedding = 8",
    "sd": "hidden = 8",
    "word-count": "",
}
UPDATES = {"mean": 60, "asr": 40, "sf": 40}
TINY = "base = 'mini'\nname = 'tiny'\nversion = 1\n" + "".join(
    f"[{kind}]" + QUICK.format(kind=kind, head=head, updates=UPDATES.get(kind, 6))
    for kind, head in HEADS.items()
)
ONE_BY_ONE = ("asr", "asr-attention", "asr-transducer", "pr", "sf", "ks", "sid", "ic", "er")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, tones):
    """The tones with the columns of every task."""
    rows = list(csv.DictReader(tones.read_text().splitlines(), delimiter="\t"))
    for row in rows:
        word = row["text"]
        row |= {"phones": " ".join(word), "tagged": f"say <word>{word}</word>", "emotion": word}
        row |= {"action": word, "object": row["speaker"], "location": row["speaker"][0]}
        row |= {"segments": f"{row['speaker']} 0.00 0.20; other 0.10 0.29"}
    manifest = tones.with_name("spoken.tsv")
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory, spoken, bands_file):
    """Results of every kind of task with their heads: folder, file of each by the task's name."""
    folder = tmp_path_factory.mktemp("heads")
    protocol = folder / "tiny.toml"
    protocol.write_text(TINY)
    options = {
        "corpus": str(spoken),
        "protocol": str(protocol),
        "output": folder / "results",
        "cache_dir": folder / "cache",
        "progress": Progress(quiet=True),
        "save_heads": True,
    }
    encoder = f"{bands_file}:Bands"
    found = run(encoder, TASKS, layers="weighted-sum-norm", **options)
    found += run(encoder, "asr", head=("attention", "transducer"), layers="0", **options)
    found += run(encoder, "ks", layers="last", seeds=2, storage="int8", **options)
    files = {}
    for result in found:
        name, upstream = result.downstream["name"], result.upstream["name"]
        key = name if result.layer != "last" else f"{name}-seeds"
        files[key] = result_path(folder / "results", name, upstream, result.run_id)
    return files, encoder, options


def heard(made, name, **options):
    return load_head(made[0][name], upstream=made[1], **options)


def of_test(spoken, task):
    corpus = load_corpus(str(spoken), load_downstream(task.partition("-")[0]).card)
    return corpus.split("test")


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_answers_are_those_of_the_table(made, spoken, name):
    head = heard(made, name)
    wanted = {record.id: record.hypothesis for record in read_records(made[0][name])[0]}
    found, bad = answer_all(head, of_test(spoken, name))
    assert not bad
    assert {own.answer.utterance: own.answer.text for own in found} == wanted
    assert len(set(wanted.values())) > 1 or name.startswith("asr-")
    for own in found:
        answer = own.answer
        assert answer.confidence is None or 0 < answer.confidence <= 1
        for values in answer.probabilities.values():
            assert sum(values.values()) == pytest.approx(1, abs=1e-5)
        times = [time for span in answer.spans for time in (span.start_s, span.end_s)]
        assert times == sorted(times)
        if name in ("asr", "pr"):
            assert " ".join(span.text for span in answer.spans) == answer.text
        if name in ("ks", "sid", "er"):
            (values,) = answer.probabilities.values()
            assert max(values, key=values.get) == answer.text


def test_each_seed_has_a_head_of_its_own(made, spoken):
    records = read_records(made[0]["ks-seeds"])
    texts = []
    for seed in (0, 1):
        found, _ = answer_all(heard(made, "ks-seeds", seed=seed), of_test(spoken, "ks"))
        texts.append([own.answer.text for own in found])
        assert texts[-1] == [record.hypothesis for record in records[seed]]
    weights = [heard(made, "ks-seeds", seed=seed).head.state_dict() for seed in (None, 0, 1)]
    assert torch.equal(weights[0]["classify.weight"], weights[1]["classify.weight"])
    assert not torch.equal(weights[1]["classify.weight"], weights[2]["classify.weight"])
    with pytest.raises(SuperbError, match="no head of seed 7; it has those of 0, 1"):
        heard(made, "ks-seeds", seed=7)


def test_each_fold_has_a_head_of_its_own(made, folded, tmp_path):
    options = made[2] | {"corpus": folded, "output": tmp_path}
    (result,) = run(made[1], "ks", layers="last", **options)
    path = result_path(tmp_path, "ks", result.upstream["name"], result.run_id)
    records = read_records(path)[0]
    answers = set()
    for fold, part in folded.partitions().items():
        head = load_head(path, fold=fold, upstream=made[1])
        found, bad = answer_all(head, part.split("test"))
        own = {record.id: record.hypothesis for record in records if record.fold == fold}
        assert {one.answer.utterance: one.answer.text for one in found} == own
        assert not bad
        answers |= {(fold, *found[0].answer.probabilities["label"])}
    assert ("c", "no", "yes") in {(fold, *sorted(words)) for fold, *words in answers}
    first = load_head(path, upstream=made[1]).head.state_dict()
    assert torch.equal(
        first["classify.weight"],
        load_head(path, fold="a", upstream=made[1]).head.state_dict()["classify.weight"],
    )
    with pytest.raises(SuperbError, match="no fold 'd'; it has a, b, c"):
        load_head(path, fold="d", upstream=made[1])
    with pytest.raises(SuperbError, match="is of fold 'a', not of 'b'"):
        load_head(head_path(path, "a"), fold="b", upstream=made[1])


def test_two_recordings_are_compared(made, spoken):
    wanted = {record.id: record.hypothesis for record in read_records(made[0]["asv"])[0]}
    head = heard(made, "asv")
    found, _ = answer_all(head, of_test(spoken, "asv"))
    assert {own.answer.utterance: own.answer.text for own in found} == wanted
    audio = [u.audio for u in of_test(spoken, "asv")[:4]]
    told = [Utterance(*pair, "test") for pair in zip(("a", "b|c", "a|b", "c"), audio, strict=True)]
    assert len(answer_all(head, told)[0]) == 6  # though two of the pairs are called a|b|c
    with pytest.raises(SuperbError, match="give two"):
        answer_all(head, of_test(spoken, "asv")[:1])
    with pytest.raises(SuperbError, match="give two"):
        head(tone("yes", "ada", 4))
    same = head.compare_waveforms(tone("yes", "ada", 4), tone("yes", "ada", 4))
    assert float(same.text) == pytest.approx(1, abs=1e-3)


def test_who_speaks_when_is_that_of_the_table(made, spoken):
    """But for names, which come from the right answer there."""
    records = {record.id: record for record in read_records(made[0]["sd"])[0]}
    found, _ = answer_all(heard(made, "sd"), of_test(spoken, "sd"))
    assert len(found) == len(records)
    spans = 0
    for own in found:
        record, text = records[own.answer.utterance], own.answer.text
        spans += len(own.answer.spans)
        tables = []
        for names in (record.clusters, record.clusters[::-1]):
            told = text.replace("first", names[0]).replace("second", names[-1]).split(" ")
            pairs = sorted(zip(told[::2], told[1::2], strict=True))
            tables.append(pairs)
        words = record.hypothesis.split(" ")
        assert sorted(zip(words[::2], words[1::2], strict=True)) in tables
    assert spans


def test_heads_change_no_run_and_no_score(made, tmp_path):
    """And lie beside it; without them they are missed, and told how to be had."""
    files, encoder, options = made
    options = {**options, "output": tmp_path / "plain", "save_heads": False}
    (plain,) = run(encoder, "ks", layers="weighted-sum-norm", **options)
    path = result_path(tmp_path / "plain", "ks", "bands", plain.run_id)
    assert path.name == files["ks"].name
    assert read_records(path) == read_records(files["ks"])
    assert len(superb.load_results(tmp_path / "plain")) == 1
    assert len(superb.load_results(files["ks"].parent)) == 2  # cards of heads are no results
    with pytest.raises(SuperbError, match="has no saved head: it was made without --save-heads"):
        load_head(path)
    best = tmp_path / "best.json"
    best.write_bytes(path.read_bytes())
    with pytest.raises(SuperbError, match=f"was renamed.*name it {plain.run_id}.json again"):
        load_head(best)
    options["save_heads"] = True
    for dry in (True, False):
        with pytest.raises(SuperbError, match=rf"before without it.*{path}.*Delete these files"):
            run(encoder, "ks", layers="weighted-sum-norm", dry_run=dry, **options)
    path.unlink()
    run(encoder, "ks", layers="weighted-sum-norm", **options)
    weights = [weights_path(head_path(result)).read_bytes() for result in (path, files["ks"])]
    assert weights[0] == weights[1]


def test_a_waveform_is_answered_at_any_rate(made):
    head = heard(made, "ks")
    wave = tone("stop", "ben", 4)
    assert head(wave).text == head(torch.from_numpy(wave)).text == "stop"
    double = np.repeat(wave, 2)
    assert head(double, sample_rate=2 * RATE).probabilities.keys() == {"label"}
    assert len(head.layer_weights) == 2
    assert heard(made, "asr-attention")(wave, attention=True).attention is not None
    for wrong in (wave[None], (wave * 32768).astype(np.int16)):
        with pytest.raises(SuperbError, match="one row of floats"):
            head(wrong)
    with pytest.raises(superb.AudioError, match="NaN or infinite"):
        head(np.full(4000, np.nan, np.float32))


@pytest.fixture
def copied(made, tmp_path):
    """A result of ks and the files of its head, to be spoilt."""
    for file in made[0]["ks"].parent.glob(f"{made[0]['ks'].stem}*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / made[0]["ks"].name


def altered(card: Path, **changes):
    document = json.loads(card.read_text()) | changes
    del document["checksum"]
    card.write_bytes(signed(document))


def test_a_head_that_was_changed_is_refused(made, copied):
    card, encoder = head_path(copied), made[1]
    weights = weights_path(card)
    whole, text = weights.read_bytes(), card.read_text()
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(SuperbError, match=r"head\.safetensors does not match its checksum"):
        load_head(copied, upstream=encoder)
    weights.unlink()
    with pytest.raises(SuperbError, match=r"weights of the head are gone"):
        load_head(copied, upstream=encoder)
    weights.write_bytes(whole)
    card.write_text(text.replace('"weighted-sum-norm"', '"last"'))
    with pytest.raises(SuperbError, match=r"head\.json does not match its checksum"):
        load_head(copied, upstream=encoder)
    for wrong in ({"vocabulary": ["a"]}, {"protocol": {}}, {"mix": {}}, {"seeds": []}):
        card.write_text(text)
        altered(card, **wrong)
        with pytest.raises(SuperbError, match="no head that this version can build"):
            load_head(copied, upstream=encoder)
    card.write_text(text)
    altered(card, format=9)
    with pytest.raises(SuperbError, match="newer version of superb"):
        load_head(copied, upstream=encoder)


@pytest.mark.parametrize("kind", ["upstream", "downstream"])
def test_a_name_in_a_card_never_runs_code(made, copied, tmp_path, monkeypatch, kind):
    """However it is written: what a loader would take for code is none to follow."""
    (tmp_path / "theirs.py").write_text(
        "from pathlib import Path\n\n\ndef Own():\n    Path('ran').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    card = head_path(copied)
    typed = json.loads(card.read_text())["typed"]
    plain = ("theirs:Own", "theirs:Own ", " theirs:Own", "theirs.py:Own\t")
    for name in (*plain, *(f"untrained: {name}" for name in plain)):
        entry = {"settings": {}, "remote": False, "head": "", "slots": []} | (typed[kind] or {})
        altered(card, typed=typed | {kind: entry | {"name": name}})
        stated = {} if kind == "upstream" else {"upstream": made[1]}
        with pytest.raises(SuperbError):
            load_head(copied, **stated)
    assert not (tmp_path / "ran").exists()


def test_an_encoder_that_is_gone_or_changed_is_refused(made, bands, copied):
    with pytest.raises(SuperbError, match=r"is code, .*Bands, which is run only if you name it"):
        load_head(copied)
    other = bands()
    other.fingerprint = "bands 2"
    with pytest.raises(SuperbError, match=r"not the one that .* was trained on: its weights"):
        load_head(copied, upstream=other)
    # the same weights by other code or libraries answer, and it is said
    other = load_upstream(made[1])
    other.weights_sha256, other.fingerprint = other.fingerprint, "bands 2"
    messages = Messages()
    head = load_head(copied, upstream=other, progress=messages)
    (told,) = (text for text in messages.warnings if "answers may differ" in text)
    assert "computed by other code" in told
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert head(noise) == load_head(copied, upstream=made[1])(noise)
    card = head_path(copied)
    typed = json.loads(card.read_text())["typed"]
    altered(card, typed=typed | {"upstream": {**typed["upstream"], "name": "./gone"}})
    with pytest.raises(SuperbError, match=r"cannot be loaded: there is no folder \./gone.*elsew"):
        load_head(copied)
    altered(card, typed=typed | {"upstream": {**typed["upstream"], "remote": True}})
    with pytest.raises(SuperbError, match="add --trust-remote-code"):
        load_head(copied, upstream=made[1])


def test_the_command_answers_files_folders_manifests_and_standard_input(made, spoken, tmp_path):
    files, encoder, _ = made
    clip, slow = tmp_path / "clip.wav", tmp_path / "more" / "slow.flac"
    slow.parent.mkdir()
    soundfile.write(clip, tone("stop", "ben", 4), RATE)
    soundfile.write(slow, tone("stop", "ben", 4)[::2], RATE // 2)

    def typed(*words, stdin=None, name="ks"):
        told = ["predict", str(files[name]), *map(str, words), "--upstream", encoder, "--quiet"]
        return CliRunner().invoke(app, told, input=stdin)

    one = typed(clip)
    assert one.exit_code == 0, one.output
    assert "stop" in one.output
    assert max(map(len, one.output.splitlines())) <= 80
    assert "label: stop" in one.output
    both = typed(clip, slow.parent, "-", stdin=clip.read_bytes())
    assert both.exit_code == 0, both.output
    assert both.output.count("stop") == 3
    assert "resampled, was 8000 Hz" in both.output
    table, values = tmp_path / "out.csv", tmp_path / "out.json"
    assert typed(spoken, "--output", values, name="asr").exit_code == 0
    assert len(json.loads(values.read_text())) == 72
    assert typed(clip, slow, "--output", table).exit_code == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["answer"] for row in rows] == ["stop", "stop"]
    assert rows[1]["resampled"] == f"{slow} 8000 Hz"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gone.wav"], "no file or folder gone.wav"),
        (["EMPTY"], "no recording in the folder"),
        (["-"], "standard input holds nothing"),
        (["CLIP", "CLIP"], "given twice"),
        (["CLIP", "BROKEN"], "1 of 2 recordings cannot be used: cannot decode"),
        (["CLIP", "--output", "out.txt"], "must end in .csv or .json"),
        (["TABLE"], "lacks the column audio"),
    ],
)
def test_bad_input_is_one_message(made, tmp_path, words, says):
    (tmp_path / "EMPTY").mkdir()
    soundfile.write(tmp_path / "CLIP.wav", tone("yes", "ada", 4), RATE)
    (tmp_path / "BROKEN.wav").write_bytes(b"RIFF of nothing at all")
    (tmp_path / "TABLE.csv").write_text("path\nCLIP.wav\n")
    places = {
        "EMPTY": tmp_path / "EMPTY",
        "CLIP": tmp_path / "CLIP.wav",
        "BROKEN": tmp_path / "BROKEN.wav",
        "TABLE": tmp_path / "TABLE.csv",
    }
    told = [str(places.get(word, word)) for word in words]
    done = CliRunner().invoke(
        app, ["predict", str(made[0]["ks"]), *told, "--upstream", made[1], "--quiet"]
    )
    assert isinstance(done.exception, SuperbError)
    assert says in str(done.exception)
    assert ("yes" in done.output) == ("BROKEN" in words)  # the others are answered all the same


def test_a_task_of_ones_own_needs_nothing_new(made, tmp_path):
    """Its answers are those of its records; it is code, and run if it is named."""
    plugin = Path(__file__).parents[1] / "plugin" / "word_count.py"
    _, encoder, options = made
    (result,) = run(encoder, f"{plugin}:WordCount", layers="last", **options)
    path = result_path(options["output"], "word-count", "bands", result.run_id)
    with pytest.raises(SuperbError, match="WordCount, which is run only if you name it"):
        load_head(path, upstream=encoder)
    head = load_head(path, upstream=encoder, downstream=f"{plugin}:WordCount")
    wanted = {record.id: record.hypothesis for record in read_records(path)[0]}
    recordings = superb.load_corpus(options["corpus"], head.downstream.card).split("test")
    found, _ = answer_all(head, recordings)
    assert {own.answer.utterance: own.answer.text for own in found} == wanted
    with pytest.raises(SuperbError, match="is of the task word-count; got ks"):
        load_head(path, upstream=encoder, downstream="ks")


def test_what_trains_nothing_has_no_head(made, tmp_path, bands_file):
    files, _, _ = made
    document = json.loads(files["ks"].read_text())
    document["downstream"]["trained"] = False
    del document["checksum"]
    path = tmp_path / "untrained.json"
    path.write_bytes(signed(document))
    with pytest.raises(SuperbError, match="ks trains no head, so there is none"):
        load_head(path)
    with pytest.raises(SuperbError, match="is a folder; give the JSON file of one result"):
        load_head(tmp_path)


def test_the_page_shows_what_the_head_answers(made, tmp_path, monkeypatch):
    clips = [tmp_path / "one.wav", tmp_path / "two.wav"]
    for clip in clips:
        soundfile.write(clip, tone("stop", "ben", 4), RATE)
    text, shares, rows = demo._values(heard(made, "ks"), [str(clips[0])])
    assert text == max(shares, key=shares.get) == "stop"
    assert rows == []
    text, shares, rows, _ = demo._values(heard(made, "asr"), [str(clips[0])])
    assert text == shown_text(Answer("one", " ".join(row[2] for row in rows)))
    assert shares is None
    assert shown_text(Answer("one", " ")) == "(empty: nothing was recognised)"
    assert demo._values(heard(made, "asr-attention"), [str(clips[0])])[3] is not None
    assert demo._values(heard(made, "asv"), list(map(str, clips))) == ["1.0000"]
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SuperbError, match=r"pip install 'superb\[demo\]'"):
        demo.build_page(heard(made, "ks"))
