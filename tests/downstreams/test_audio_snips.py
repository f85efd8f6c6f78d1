"""Audio SNIPS: voices decide the split, and values of slots stand between tags."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.core import SPLITS
from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, audio_snips
from downstreams.corpora.audio_snips import LAYOUT, LIST, VOICES, tagged
from downstreams.corpora.check import audit
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.load import load_downstream

SF = load_downstream("sf")
SENTENCES = (
    ("BOOK THE FAT DUCK FOR FOUR", "O restaurant_name restaurant_name restaurant_name O party"),
    ("PLAY IT", "O O"),
)


def sound(number, format="WAV"):
    buffer = io.BytesIO()
    rate = 16_000 if format == "WAV" else 22_050  # as Amazon's MP3 files have
    samples = np.random.default_rng(number).uniform(-0.1, 0.1, rate // 20)
    soundfile.write(buffer, samples, rate, format=format)
    return buffer.getvalue()


def make(root, suffix=".wav"):
    """As published: every sentence in every voice; the list names them test first."""
    lines = []
    count = 0
    for split in reversed(SPLITS):
        folder = root / split
        folder.mkdir(parents=True)
        for voice in sorted(sum(VOICES.values(), ())):
            for number, (words, tags) in enumerate(SENTENCES):
                name = f"{voice}-snips-{split}-{number}"
                lines.append(f"{name} BOS {words} EOS\tO {tags} Book\n")
                (folder / f"{name}{suffix}").write_bytes(sound(count, suffix[1:].upper()))
                count += 1
    (root / LIST).write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole"))


def load(root, **splits):
    corpus = load_corpus("audio-snips", SF.card, CorpusOptions(root, splits))
    check_fits(SF, corpus)
    return corpus


def test_every_split_has_its_sentences_in_its_voices(whole):
    corpus = load(whole)
    assert Counter(u.split for u in corpus.utterances) == {"train": 16, "valid": 8, "test": 8}
    for split, voices in VOICES.items():
        own = corpus.split(split)
        assert {u.speaker for u in own} == set(voices)
        assert {u.id.split("-")[2] for u in own} == {split}
    first = corpus.split("test")[0]
    assert (first.id, first.text, first.label) == ("Brian-snips-test-0", "", "")
    assert first.audio == whole / "test/Brian-snips-test-0.wav"
    assert first.columns == {
        "tagged": "BOOK <restaurant_name>THE FAT DUCK</restaurant_name> FOR <party>FOUR</party>"
    }
    assert corpus.note == (
        "partial copy: train 16 of 104672 utterances, valid 8 of 2800 utterances, "
        "test 8 of 2800 utterances"
    )


def test_the_folder_above_and_other_containers_do_as_well(tmp_path, whole):
    below = make(tmp_path / "SNIPS", ".mp3")
    assert load(tmp_path) == load(below)
    texts = {u.id: u.columns for u in load(below).utterances}
    assert texts == {u.id: u.columns for u in load(whole).utterances}


def test_a_check_finds_what_is_missing_and_not_listed(tmp_path):
    make(tmp_path)
    (tmp_path / "train/Ivy-snips-train-0.wav").unlink()
    (tmp_path / "train/Ivy-snips-train-7.wav").write_bytes(sound(999))
    (tmp_path / "test/Emma-snips-test-1.mp3").write_bytes(sound(1, "MP3"))  # there as .wav too
    (tmp_path / "train/Amy-snips-train-0.wav").unlink()  # in no split
    outcome = audit(LAYOUT.survey(tmp_path), LAYOUT.official, tmp_path)
    assert {split: found.speakers for split, found in outcome.splits.items()} == {
        "train": 8,
        "valid": 4,
        "test": 4,
    }
    found = {
        (each.kind, each.split): [item.name for item in each.items] for each in outcome.findings
    }
    assert found.pop(("missing", "train")) == ["train/Ivy-snips-train-0.wav"]
    assert found.pop(("extra", "train")) == ["train/Ivy-snips-train-7.wav"]
    assert found.pop(("extra", "test")) == ["test/Emma-snips-test-1.mp3"]
    assert {kind for kind, _ in found} == {"partial"}
    assert outcome.notes == ("63 recordings in voices of another split left out",)
    assert len(LAYOUT.survey(tmp_path).disjoint) == 3


@pytest.mark.parametrize(
    ("words", "tags", "expected"),
    [
        ("RAIN IN SAN MARTIN", "O O city city", "RAIN IN <city>SAN MARTIN</city>"),
        ("SALEM OREGON", "city state", "<city>SALEM</city> <state>OREGON</state>"),
        ("ROME PARIS NOW", "B-city B-city O", "<city>ROME</city> <city>PARIS</city> NOW"),
        ("SAN MARTIN", "B-city I-city", "<city>SAN MARTIN</city>"),
        ("a <b> > R&B ?", "O O x x O", "a b <x>R&B</x>"),
        ("</city> < HI", "O city O", "/city HI"),
        ("AT 7", "O time-range.2", "AT <time-range.2>7</time-range.2>"),
    ],
)
def test_words_and_tags_become_one_text(words, tags, expected):
    assert tagged("here", words.split(), tags.split()) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Ivy-snips-train-7 BOS A B EOS\tO O I-city X", "I-city for 'B', but no value of city goe"),
        ("Ivy-snips-train-7 BOS A B EOS\tO B-a I-city X", "it begins with B-city"),
        ("Ivy-snips-train-7 BOS A B EOS\tO O <city> X", "'<city>' is no name of a slot"),
        ("Ivy-snips-train-7 BOS A B EOS\tO O Weather/city X", "is no name of a slot"),
        ("Ivy-snips-train-7 BOS A B EOS\tO O X", "with a tag for each word"),
        ("Ivy-snips-train-7 BOS EOS\tO X", "with a tag for each word"),
        ("Ivy-snips-train-7 A B\tO O X", "is not 'VOICE-snips-SPLIT-NUMBER BOS word … EOS'"),
        ("Ivy-snips-train-7 BOS A B EOS O O O X", "with a tag for each word"),
        ("Ivy-snips-dev-7 BOS A EOS\tO O X", "is not 'VOICE-snips-SPLIT-NUMBER"),
        ("../../x BOS A EOS\tO O X", "is not 'VOICE-snips-SPLIT-NUMBER"),
        ("\t", None),
        ("Ivy-snips-train-0 BOS A EOS\tO O X", "Ivy-snips-train-0 is listed twice"),
    ],
)
def test_lines_that_cannot_be_meant(tmp_path, line, says):
    make(tmp_path)
    with (tmp_path / LIST).open("a") as file:
        file.write(f"\n{line}\r\n")
    (tmp_path / "train/Ivy-snips-train-7.wav").write_bytes(sound(1))
    if says is None:
        assert len(load(tmp_path).utterances) == 32
        return
    with pytest.raises(SuperbError, match=rf"{LIST}, line 98: .*{says}"):
        load(tmp_path)


def without(path):
    def prepare(root):
        target = make(root) / path
        target.rename(target.with_name("elsewhere"))

    return prepare


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda root: None, r"no Audio SNIPS in .*wanted all\.iob\.snips\.txt, .*holds nothing"),
        (without(LIST), r"wanted all\.iob\.snips\.txt, there or in a folder; it holds elsewhere"),
        (without("valid"), "no recordings of split valid of audio-snips .*; 8 that are listed"),
        (lambda root: (make(root) / LIST).write_bytes(b"\xff"), "cannot read .*utf-8"),
        (lambda root: (make(root) / LIST).write_bytes(b""), "no recordings of split train and val"),
    ],
)
def test_what_is_not_there_and_how_to_get_it(tmp_path, prepare, says):
    prepare(tmp_path)
    with pytest.raises(SuperbError, match=f"{says}.*superb data download audio-snips"):
        load(tmp_path)


def test_its_splits_and_its_task_are_fixed(tmp_path):
    with pytest.raises(SuperbError, match="takes no --train-split: voices decide"):
        load(tmp_path, train="valid")
    with pytest.raises(SuperbError, match="unknown task of corpus 'audio-snips'"):
        audio_snips.load("asr", CorpusOptions(tmp_path))


def test_official_figures():
    assert [split.utterances for split in LAYOUT.official.values()] == [104_672, 2_800, 2_800]
    assert sum(split.speakers for split in LAYOUT.official.values()) == 16


def test_paths_are_relative_to_the_root_that_was_given(tmp_path):
    make(tmp_path / "SNIPS")
    (tmp_path / "SNIPS/train/Ivy-snips-train-0.wav").unlink()
    missing = LAYOUT.survey(tmp_path).missing
    assert missing == {Path("SNIPS/train/Ivy-snips-train-0.wav"): "train"}
