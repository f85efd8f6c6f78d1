"""The bundled corpus: complete, unchanged, and free of leaks between its splits."""

import hashlib
import json
import re
from collections import Counter

import datasets
import pyarrow.parquet as pq
import pytest

from benchmark.arpabet import PHONES
from benchmark.core import SPLITS, DownstreamCard, Metric
from benchmark.encoding.audio import decode, hear
from benchmark.errors import SuperbError
from downstreams.corpora import CORPORA, CorpusOptions, mini
from downstreams.corpora.load import load_corpus

TABLES = ("sentences.parquet", "keywords.parquet", "commands.parquet")
FILES = (*TABLES, "lexicon.txt", "voiced.json")
TASKS = ("asr", "sid", "ks", "pr", "ic", "sf", "asv", "sd", "qbe")
INTENT = ("action", "object", "location")
KEYWORDS = {"yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"}


@pytest.fixture(scope="module")
def corpora():
    return {task: mini.load(task) for task in TASKS}


def commands():
    return pq.read_table(
        mini.FOLDER / "commands.parquet", columns=["text", "tagged", "split"]
    ).to_pylist()


def disjoint(corpus, attribute):
    sets = [{getattr(u, attribute) for u in corpus.split(split)} for split in SPLITS]
    return all(sets) and sum(map(len, sets)) == len(set.union(*sets))


@pytest.mark.parametrize("file", FILES)
def test_files_are_the_ones_published(file):
    published = json.loads((mini.FOLDER / mini.CHECKSUMS).read_text())
    assert set(published) == set(FILES)
    assert hashlib.sha256((mini.FOLDER / file).read_bytes()).hexdigest() == published[file]


def test_the_whole_corpus_is_at_most_16_megabytes():
    assert sum((mini.FOLDER / file).stat().st_size for file in FILES) <= 16_000_000


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        ("asr", {"text"}),
        ("sid", {"label"}),
        ("ks", {"label"}),
        ("pr", {"phones"}),
        ("ic", set(INTENT)),
        ("sf", {"tagged"}),
        ("asv", set()),
        ("sd", {"segments", "parts"}),
        ("qbe", {"role", "term"}),
    ],
)
def test_every_split_has_unique_utterances_with_speaker_and_no_other_answer(corpora, task, answers):
    corpus = corpora[task]
    ids = [utterance.id for utterance in corpus.utterances]
    assert len(set(ids)) == len(ids)
    splits = set(SPLITS) - ({"train"} if task == "qbe" else set())
    assert {utterance.split for utterance in corpus.utterances} == splits
    assert all(utterance.speaker for utterance in corpus.utterances)
    for utterance in corpus.utterances:
        known = {"text": utterance.text, "label": utterance.label, **utterance.columns}
        assert {name for name, value in known.items() if value.strip()} == answers


def test_asr_splits_share_no_speaker_and_no_sentence(corpora):
    assert disjoint(corpora["asr"], "speaker")
    assert disjoint(corpora["asr"], "text")
    assert len({utterance.text for utterance in corpora["asr"].utterances}) >= 500


def test_pr_spells_the_sentences_of_asr(corpora):
    lines = (mini.FOLDER / "lexicon.txt").read_text("utf-8").splitlines()
    assert "Copyright (C) 1993-2015 Carnegie Mellon University" in lines[0]
    entries = [line.split("\t") for line in lines if not line.startswith(";;;")]
    lexicon = dict(entries)
    assert [word for word, _ in entries] == sorted(lexicon)
    assert {phone for phones in lexicon.values() for phone in phones.split(" ")} <= set(PHONES)
    assert {word for command in commands() for word in command["text"].split()} <= set(lexicon)
    for said, spelt in zip(corpora["asr"].utterances, corpora["pr"].utterances, strict=True):
        assert (said.id, said.split, said.audio) == (spelt.id, spelt.split, spelt.audio)
        assert spelt.columns["phones"] == " ".join(lexicon[word] for word in said.text.split())


def test_commands_are_closed_in_intents_and_share_no_speaker(corpora):
    corpus = corpora["ic"]
    assert disjoint(corpus, "speaker")
    role = {utterance.speaker: utterance.split for utterance in corpora["asr"].utterances}
    assert all(role[utterance.speaker] == utterance.split for utterance in corpus.utterances)
    intents = [
        {tuple(map(utterance.value, INTENT)) for utterance in corpus.split(split)}
        for split in SPLITS
    ]
    assert intents[0] >= intents[1] | intents[2]
    assert len(intents[0]) >= 10
    assert [u.audio for u in corpus.utterances] == [u.audio for u in corpora["sf"].utterances]


def test_tags_are_well_formed_and_mark_words_of_the_text():
    slots = {split: set() for split in SPLITS}
    counts = Counter()
    for command in commands():
        tag = re.compile(r"<([a-z_]+)>([a-z']+(?: [a-z']+)*)</\1>")
        found = tag.findall(command["tagged"])
        assert tag.sub(r"\2", command["tagged"]) == command["text"]
        assert re.fullmatch(r"[a-z']+( [a-z']+){2,7}", command["text"])
        slots[command["split"]].update(found)
        counts[len(found)] += 1
    assert set(counts) == {0, 1, 2, 3}
    names = [{name for name, _ in slots[split]} for split in SPLITS]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 6
    # Some values are new, but no room is: it is an intent's value too.
    assert {name for name, _ in slots["test"] - slots["train"]} == {
        "food",
        "person",
        "song",
        "time",
    }


def test_ks_splits_share_no_speaker_and_have_twelve_balanced_labels(corpora):
    assert disjoint(corpora["ks"], "speaker")
    for split in SPLITS:
        labels = Counter(utterance.label for utterance in corpora["ks"].split(split))
        assert set(labels) == KEYWORDS | {"_unknown_", "_silence_"}
        assert len(set(labels.values())) == 1


def test_sid_splits_share_all_speakers_and_no_sentence(corpora):
    corpus = corpora["sid"]
    speakers = [{utterance.label for utterance in corpus.split(split)} for split in SPLITS]
    assert speakers[0] == speakers[1] == speakers[2]
    assert all(utterance.label == utterance.speaker for utterance in corpus.utterances)
    text = {utterance.id: utterance.text for utterance in corpora["asr"].utterances}
    texts = [{text[utterance.id] for utterance in corpus.split(split)} for split in SPLITS]
    assert len(set.union(*texts)) == sum(map(len, texts))


def test_no_recording_is_in_two_splits(corpora):
    for corpus in corpora.values():
        audio = Counter(utterance.audio for utterance in corpus.utterances)
        assert max(audio.values()) == 1


@pytest.mark.parametrize("task", ["asr", "ks", "ic"])
def test_audio_decodes_at_16_khz(corpora, task):
    for utterance in corpora[task].utterances[::50]:
        waveform = decode(utterance.audio, 16_000, name=utterance.id, min_samples=400)
        assert 0.3 < len(waveform) / 16_000 < 20
        assert 1e-4 < float(waveform.abs().max()) <= 1.1


@pytest.mark.parametrize("file", TABLES)
def test_hugging_face_datasets_reads_the_files(file, tmp_path):
    table = datasets.load_dataset(
        "parquet",
        data_files=str(mini.FOLDER / file),
        split="train",
        cache_dir=str(tmp_path),
    )
    if isinstance(table.features["audio"], datasets.Audio):
        table = table.cast_column("audio", datasets.Audio(decode=False))
    first = table[0]
    assert {"utterance", "audio", "speaker", "split"} <= set(first)
    assert len(decode(first["audio"]["bytes"], 16_000, name=first["utterance"])) > 1600


def test_identity_is_stable_and_differs_by_task(corpora):
    assert mini.load("ks").sha256 == corpora["ks"].sha256
    assert len({corpus.sha256 for corpus in corpora.values()}) == len(TASKS)
    # Every result so far carries these: nothing that is added to utterances may change them.
    assert {task: corpus.sha256[:16] for task, corpus in corpora.items()} == {
        "asr": "5bcae7d2acbf3873",
        "sid": "bbfb8697c1fb03f3",
        "ks": "d0f44e9d11d9f0ea",
        "pr": "14caff05d00394a5",
        "ic": "bbd68389b28d2099",
        "sf": "627f950fc8df77d3",
        "asv": "a297217921170c33",
        "sd": "011915e51b2a7439",
        "qbe": "e0f5ed5f9442e9a8",
    }


def test_a_changed_or_missing_file_is_named(monkeypatch, tmp_path):
    folder = tmp_path / "downstreams" / "corpora" / "mini"
    folder.mkdir(parents=True)
    monkeypatch.setattr(mini, "FOLDER", folder)
    with pytest.raises(SuperbError, match=r"checksums\.json is missing.*git checkout"):
        mini.load("ks")
    (folder / mini.CHECKSUMS).write_text(json.dumps({"keywords.parquet": "0" * 64}))
    with pytest.raises(SuperbError, match=r"keywords\.parquet is missing.*git checkout"):
        mini.load("ks")
    (folder / "keywords.parquet").write_bytes(b"something else")
    with pytest.raises(SuperbError, match=r"keywords\.parquet has sha256 .*installing superb"):
        mini.load("ks")


def card(name, needs=("text",)):
    return DownstreamCard(name, name, 1, (Metric("score", "higher"),), "mean", needs)


def test_corpora_are_found_by_name(corpora):
    assert set(CORPORA["mini"].tasks) == set(corpora)
    assert load_corpus("mini", card("ks")).sha256 == corpora["ks"].sha256
    with pytest.raises(SuperbError, match=r"unknown corpus 'minni'. Did you mean mini\?.*\.csv"):
        load_corpus("minni", card("ks"))
    with pytest.raises(
        SuperbError, match=r"'mini' does not serve task 'st', only asr.* qbe and.*split"
    ):
        load_corpus("mini", card("st", ("translation",)))
    with pytest.raises(SuperbError, match="no manifest at"):
        load_corpus("nowhere/mine.csv", card("ks"))
    with pytest.raises(SuperbError, match="must end in"):
        load_corpus("mine.xlsx", card("ks"))
    with pytest.raises(SuperbError, match="unknown task of corpus 'mini'"):
        mini.load("st")


def test_options_mean_nothing_to_it(tmp_path):
    with pytest.raises(SuperbError, match=r"'mini' takes no --data-root or --test-split: it is"):
        load_corpus("mini", card("ks"), CorpusOptions(tmp_path, {"test": "other"}))


def test_what_stands_for_silence_can_be_heard():
    """Backgrounds are a class of KS, not a fault of its recordings."""
    quiet = [u for u in mini.load("ks").utterances if u.label == "_silence_"]
    assert len(quiet) == 185
    assert [u.id for u in quiet if hear(u.audio, 16_000, name=u.id).oddity] == []
