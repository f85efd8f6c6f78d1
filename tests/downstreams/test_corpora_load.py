"""Corpora of a user's own: functions, objects and entry points; one clear message for a mistake."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.core import Corpus, DownstreamCard, Metric, Utterance
from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, content_sha256, manifest
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream

KS, SID, ASR = (load_downstream(name).card for name in ("ks", "sid", "asr"))
EMOTION = replace(KS, name="emotion", needs=("emotion",), label_from="emotion")
INTENT = DownstreamCard(
    "intent", "Intents", 1, (Metric("accuracy", "higher"),), "mean", needs=("action", "object")
)


def utterances(train=4, valid=2, test=2):
    return [
        Utterance(
            f"{split}-{i}",
            f"{split} {i}".encode(),
            split,
            speaker=f"s{i % 2}",
            text=f"words {i}",
            label=f"l{i % 2}",
            columns={"emotion": f"e{i % 2}", "action": "open"},
        )
        for split, count in (("train", train), ("valid", valid), ("test", test))
        for i in range(count)
    ]


def test_a_function_without_arguments():
    def chats():
        yield from utterances()

    corpus = load_corpus(chats, KS)
    assert corpus.name == corpus.source == "chats"
    assert [u.label for u in corpus.split("test")] == ["l0", "l1"]
    assert corpus.sha256 == load_corpus(chats, KS).sha256


def test_the_arguments_that_it_names(tmp_path):
    seen = {}

    def load(task, data_root=None):
        seen.update(task=task, data_root=data_root)
        return utterances()

    load_corpus(load, KS, CorpusOptions(tmp_path))
    assert seen == {"task": KS, "data_root": tmp_path}
    load_corpus(load, ASR)
    assert seen == {"task": ASR, "data_root": None}


def test_the_label_is_what_the_task_means_by_it():
    assert [u.label for u in load_corpus(utterances, SID).split("test")] == ["s0", "s1"]
    assert [u.label for u in load_corpus(utterances, EMOTION).split("test")] == ["e0", "e1"]


def test_a_corpus_keeps_what_it_says_of_itself_but_not_its_hash():
    given = Corpus("mine", "made up", tuple(utterances()), "CC0", "https://here", "a note")
    for thing in (given, lambda: given):
        corpus = load_corpus(thing, KS)
        assert (corpus.name, corpus.licence, corpus.source, corpus.note) == (
            *("mine", "CC0", "https://here", "a note"),
        )
        assert corpus.sha256 == content_sha256(corpus.utterances)


def test_a_missing_valid_split_is_taken_from_train():
    corpus = load_corpus(lambda: utterances(train=40, valid=0), KS)
    assert len(corpus.split("valid")) == 4
    assert "4 of 40 train utterances" in corpus.note


FOLDS = {
    "1": {"train-0": "train", "train-1": "train", "valid-0": "valid", "test-1": "test"},
    "2": {"test-0": "train", "test-1": "train", "valid-0": "valid", "train-0": "test"},
}


def folded(folds):
    return lambda: Corpus("folded", utterances=tuple(utterances()), folds=folds)


def test_folds_are_part_of_what_it_is():
    corpus = load_corpus(folded(FOLDS), KS)
    assert [u.id for u in corpus.partitions()["2"].split("test")] == ["train-0"]
    assert len({load_corpus(folded(f), KS).sha256 for f in (FOLDS, {"1": FOLDS["1"]}, {})}) == 3


def test_columns_are_part_of_what_it_is_where_there_are_some():
    plain = [replace(u, columns={}) for u in utterances()]
    other = [replace(u, columns={"emotion": "none"}) for u in utterances()]
    assert len({content_sha256(own) for own in (plain, other, utterances())}) == 3


@pytest.mark.parametrize(
    ("folds", "says"),
    [
        ({"a": FOLDS["1"] | {"gone": "train"}}, "fold a: there is no utterance 'gone'"),
        ({"a": {"train-0": "train", "test-0": "test"}}, "fold a has the splits train: 1, test: 1"),
        ({"a": {**FOLDS["1"], "train-1": "valid"}}, r"fold a: labels that train.*'l1' \(valid\)"),
    ],
)
def test_what_can_be_wrong_with_folds(folds, says):
    with pytest.raises(SuperbError, match=says):
        load_corpus(folded(folds), KS)


def changed(index=0, **changes):
    own = utterances()
    own[index] = replace(own[index], **changes)
    return own


@pytest.mark.parametrize(
    ("load", "card", "says"),
    [
        (lambda: utterances(test=0), KS, "nothing in split test; found train: 4, valid: 2"),
        (lambda: [], KS, "has no utterances"),
        (lambda: changed(-1, id="train-0"), KS, r"two splits: 'train-0' \(train and test\)"),
        (lambda: changed(1, id="train-0"), KS, "duplicate ids: train-0"),
        (lambda: changed(id=" "), KS, "empty ids"),
        (lambda: changed(split="dev"), KS, "train-0: 'dev'.*write valid for dev"),
        (lambda: changed(label=""), KS, "empty 'label': train-0. Task 'ks' needs it"),
        (lambda: changed(columns={}), EMOTION, "empty 'emotion': train-0"),
        (utterances, INTENT, "no utterance has 'object', which task 'intent' needs. They have "),
        (lambda: changed(speaker=""), KS, "empty 'speaker': train-0"),
        (lambda: changed(-1, label="new"), KS, r"train does not have: 'new' \(test\)"),
        (lambda: changed(audio=Path("gone.wav")), KS, "missing audio files: train-0: gone.wav"),
        (lambda: changed(audio="gone.wav"), KS, "'train-0': audio must be a pathlib.Path or"),
        (lambda: changed(label=3), KS, "'train-0': label must be text, got 3"),
        (lambda: [1], KS, "gives int 1 among its utterances; each is a superb.Utterance"),
        (lambda: 5, KS, "gives int: a corpus is a function"),
        (lambda size: utterances(), KS, "'size'; a corpus is a function"),
        (lambda data_root: utterances(), KS, "needs --data-root FOLDER"),
        (lambda: 1 / 0, KS, r"ZeroDivisionError: .*test_corpora_load\.py"),
        (lambda: Corpus("mini", utterances=tuple(utterances())), KS, "'mini', which is built in"),
    ],
)
def test_what_can_be_wrong(load, card, says):
    with pytest.raises(SuperbError, match=says):
        load_corpus(load, card)


def test_options_that_mean_nothing(tmp_path):
    with pytest.raises(
        SuperbError, match="no --data-root: its function would have to name an argument data_root"
    ):
        load_corpus(utterances_of_all, KS, CorpusOptions(tmp_path))
    with pytest.raises(SuperbError, match="no --test-split: its utterances say"):
        load_corpus(utterances_of_all, KS, CorpusOptions(None, {"test": "other"}))


def utterances_of_all():
    return utterances()


FILE = """
from superb import Utterance

def load():
    for split in ("train", "train", "valid", "test"):
        yield Utterance(f"{split}{len(names)}", b"audio", split, label="xyx"[len(names) % 3])
        names.append(split)

names = []

class Emotions:
    def __call__(self, task):
        return load()
"""


def test_a_file_and_a_module_and_an_entry_point(tmp_path, monkeypatch):
    path = tmp_path / "my_corpus.py"
    path.write_text(FILE)
    assert load_corpus(f"{path}:load", KS).name == "my_corpus"
    assert load_corpus(f"{path}:Emotions", KS).name == "Emotions"
    monkeypatch.syspath_prepend(tmp_path)
    assert load_corpus("my_corpus:load", KS).name == "my_corpus"
    point = importlib.metadata.EntryPoint("mine", "my_corpus:load", "superb.corpora")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    assert load_corpus("mine", KS).name == "mine"
    with pytest.raises(SuperbError, match=r"unknown corpus 'mime'\. Did you mean mine"):
        load_corpus("mime", KS)
    with pytest.raises(SuperbError, match=r"my_corpus\.py:load"):
        load_corpus(str(path), KS)


def test_further_columns_of_a_manifest(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"audio")
    rows = ["id,audio,split,action,object,other"]
    rows += [f"{i},a.wav,{s},open,door,x" for i, s in enumerate(("train", "valid", "test"))]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(rows))
    corpus = manifest.load(path, INTENT)
    assert corpus.utterances[0].columns == {"action": "open", "object": "door"}
    path.write_text(path.read_text().replace("door", "", 1))
    with pytest.raises(SuperbError, match="empty 'object': line 2: 0"):
        manifest.load(path, INTENT)
    path.write_text(path.read_text().replace("object", "objekt"))
    with pytest.raises(SuperbError, match="lacks the column object"):
        manifest.load(path, INTENT)


def test_a_task_of_ones_own_on_the_bundled_corpus():
    """Whatever part of it has what the task needs."""
    words = replace(ASR, name="words")
    assert load_corpus("mini", words).sha256 == load_corpus("mini", ASR).sha256
    assert load_corpus("mini", replace(SID, name="who")) == load_corpus("mini", SID)
    found = load_corpus("mini", INTENT)
    assert {"action", "object"} <= set(found.utterances[0].columns)
    says = r"not serve task 'er'.* -d er --corpus iemocap -u ENCODER --data-"
    with pytest.raises(SuperbError, match=says):
        load_corpus("mini", load_downstream("er").card)
