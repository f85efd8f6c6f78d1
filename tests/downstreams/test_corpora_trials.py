"""Lists of trials, and the verification split of VoxCeleb1."""

import pytest

from benchmark.core import SPLITS, Utterance
from benchmark.errors import SuperbError
from downstreams.asv import Asv
from downstreams.corpora import CorpusOptions
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.corpora.trials import read_trials, with_trials
from downstreams.trials import pairs_of


@pytest.fixture
def listed(tmp_path):
    def write(text):
        path = tmp_path / "trials.txt"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    "text", ["1 a b\n0 a c\n", "a b target\n\na c nontarget\n", "1 a b\r\n0 a c"]
)
def test_both_kinds_of_list(listed, text):
    found = read_trials(listed(text))
    assert [trial[1:] for trial in found] == [("a", "b", True), ("a", "c", False)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a b\n2 a c\n", "line 2: '2 a c' is no trial"),
        ("1 a\n", "line 1: '1 a' is no trial"),
        ("1 a b\n0 a c\n1 a b\n", "line 3: a and b are compared in line 1 already"),
        ("1 a b\n", "has 1 trials, all of one person"),
        ("0 a b\n", "has 1 trials, all of two persons"),
        ("", "has 0 trials"),
    ],
)
def test_lists_that_are_none(listed, text, message):
    with pytest.raises(SuperbError, match=message):
        read_trials(listed(text))


def test_trials_are_of_test_and_agree_with_the_speakers(listed):
    people = {"a": "x", "b": "x", "c": "y"}
    test = [Utterance(name, b"", "test", speaker) for name, speaker in people.items()]
    path = listed("1 a b\n0 c a\n")
    assert pairs_of(with_trials(path, read_trials(path), test)) == ((0, 1, True), (2, 0, False))
    for text, message in (
        ("1 a b\n0 a d\n", "line 2: no utterance of test is called 'd'; such as a, b"),
        ("1 a c\n0 a b\n", "line 1: a is of 'x' and c of 'y', and the list says that they are one"),
    ):
        path = listed(text)
        with pytest.raises(SuperbError, match=message):
            with_trials(path, read_trials(path), test)


@pytest.fixture
def voxceleb(tmp_path):
    """Twenty speakers to learn from and two to test, two recordings each."""
    people = [f"id{number:05d}" for number in range(10001, 10023)]
    for speaker in people:
        part = "test" if speaker >= "id10021" else "dev"
        for take in (1, 2):
            path = tmp_path / part / "wav" / speaker / "video" / f"{take:05d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"RIFF")
    a, b = "id10021/video", "id10022/video"
    (tmp_path / "veri_test2.txt").write_text(
        f"1 {a}/00001.wav {a}/00002.wav\n0 {a}/00001.wav {b}/00001.wav\n"
        f"1 {b}/00001.wav {b}/00003.wav\n"
    )
    return tmp_path


def test_voxceleb1_is_tested_on_its_list_and_chosen_on_other_speakers(voxceleb):
    corpus = load_corpus("voxceleb1-verification", Asv.card, CorpusOptions(voxceleb))
    check_fits(Asv(), corpus)
    people = {
        split: {u.speaker for u in corpus.split(split)} for split in ("train", "valid", "test")
    }
    assert [len(own) for own in people.values()] == [18, 2, 2]
    assert not people["train"] & people["valid"]
    assert [pair.target for pair in pairs_of(corpus.split("test"))] == [True, False]
    assert "1 of 3 trials without a recording" in corpus.note
    assert "dev 40 of 148642" in corpus.note


def test_the_list_that_published_values_are_on_comes_first(voxceleb):
    lines = (voxceleb / "veri_test2.txt").read_text().splitlines()
    (voxceleb / "voxceleb1_test_v2.txt").write_text("\n".join(lines[:2]))
    corpus = load_corpus("voxceleb1-verification", Asv.card, CorpusOptions(voxceleb))
    assert "trials without a recording" not in corpus.note


def test_what_voxceleb1_needs(voxceleb, tmp_path):
    (voxceleb / "veri_test2.txt").write_text("1 a b\n0 a c\n")
    with pytest.raises(SuperbError, match=r"line 1: a and b are not SPEAKER/VIDEO/NUMBER.wav"):
        load_corpus("voxceleb1-verification", Asv.card, CorpusOptions(voxceleb))
    (voxceleb / "veri_test2.txt").unlink()
    with pytest.raises(SuperbError, match="no list of trials of VoxCeleb1"):
        load_corpus("voxceleb1-verification", Asv.card, CorpusOptions(voxceleb))


def test_a_list_of_ones_own(tmp_path):
    rows = ["audio,split,speaker"]
    for place, (split, speaker) in enumerate(
        (split, f"{split}{number}") for split in SPLITS for number in (0, 0, 1)
    ):
        (tmp_path / f"{place}.wav").write_bytes(b"RIFF")
        rows.append(f"{place}.wav,{split},{speaker}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    (tmp_path / "trials.txt").write_text("1 6.wav 7.wav\n0 6.wav 8.wav\n")
    where = str(tmp_path / "own.csv")
    plain = load_corpus(where, Asv.card)
    found = load_corpus(where, Asv.card, CorpusOptions(trials=tmp_path / "trials.txt"))
    assert len(pairs_of(plain.split("test"))) == 3
    assert len(pairs_of(found.split("test"))) == 2
    assert plain.sha256 != found.sha256
