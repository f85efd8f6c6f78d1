"""LibriSpeech's layout: which folders, what is in them, and what is said of what is not."""

import io
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, librispeech
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream

ASR = load_downstream("asr").card
USUAL = ("train-clean-100", "dev-clean", "test-clean")
REAL = Path(__file__).parents[2].joinpath("../shared/data/LibriSpeech").resolve()


def encoded(value: int, format: str = "FLAC") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(1600, value / 1e3), 16_000, format=format)
    return buffer.getvalue()


def make(root, splits=USUAL, speakers=2, chapters=2, utterances=3):
    """A tree as the archives unpack: speakers are numbered through all splits."""
    for index, split in enumerate(splits):
        for number in range(speakers):
            speaker = 100 * (index + 1) + number
            for chapter in range(1000, 1000 + chapters):
                folder = root / split / str(speaker) / str(chapter)
                folder.mkdir(parents=True)
                lines = []
                for utterance in range(utterances):
                    name = f"{speaker}-{chapter}-{utterance:04d}"
                    (folder / f"{name}.flac").write_bytes(encoded(utterance))
                    lines.append(f"{name} SPEAKER {speaker} SAYS {utterance}\n")
                (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    return root


def load(root, **splits):
    return load_corpus("librispeech", ASR, CorpusOptions(root, splits))


def sizes(corpus):
    return dict(Counter(utterance.split for utterance in corpus.utterances))


def test_the_official_splits_are_the_default(tmp_path):
    corpus = load(make(tmp_path))
    assert corpus.name == "librispeech"
    assert sizes(corpus) == {"train": 12, "valid": 12, "test": 12}
    first = corpus.utterances[0]
    assert (first.id, first.speaker, first.text) == (
        "100-1000-0000",
        "100",
        "SPEAKER 100 SAYS 0",
    )
    assert first.audio == tmp_path / "train-clean-100/100/1000/100-1000-0000.flac"
    assert {u.speaker for u in corpus.split("test")} == {"300", "301"}
    assert corpus.note == (
        "partial copy: train-clean-100 12 of 28539 utterances, dev-clean 12 of 2703 utterances, "
        "test-clean 12 of 2620 utterances"
    )


def test_the_folder_above_does_as_well_and_gives_the_same_corpus(tmp_path):
    inside = load(make(tmp_path / "LibriSpeech"))
    above = load(tmp_path)
    assert above == inside


def test_a_whole_copy_has_no_note(tmp_path, monkeypatch):
    whole = dict.fromkeys(USUAL, librispeech.Official(12))
    monkeypatch.setattr(librispeech, "OFFICIAL", whole)
    assert load(make(tmp_path)).note == ""


def test_other_splits_and_several_at_once(tmp_path):
    root = make(tmp_path, (*USUAL, "train-clean-360", "test-other"))
    corpus = load(root, train="train-clean-100+train-clean-360", test="test-other")
    assert sizes(corpus) == {"train": 24, "valid": 12, "test": 12}
    assert {u.speaker for u in corpus.split("test")} == {"500", "501"}
    assert corpus.note.startswith(
        "train: train-clean-100+train-clean-360, valid: dev-clean, test: test-other; partial"
    )
    assert corpus.sha256 != load(root).sha256


def test_splits_of_the_mini_release_in_the_same_layout(tmp_path):
    folder = make(tmp_path / "LibriSpeech", ("train-clean-5", "dev-clean-2"))
    corpus = load(tmp_path, train="train-clean-5", test="dev-clean-2")
    assert corpus.sha256 == load(folder, train="train-clean-5", test="dev-clean-2").sha256
    assert sizes(corpus).keys() == {"train", "valid", "test"}
    with pytest.raises(SuperbError, match=r"no LibriSpeech in .*train-clean-5"):
        load(folder)


@pytest.mark.parametrize("splits", [("dev-clean", "test-clean"), ("dev-other", "test-clean")])
def test_without_a_split_to_choose_on_train_gives_a_part(tmp_path, splits):
    train, test = splits
    root = make(tmp_path, splits, speakers=5, chapters=1, utterances=4)
    corpus = load(root, train=train, test=test)
    assert sizes(corpus) == {"train": 18, "valid": 2, "test": 20}
    assert "no valid split given: 2 of 20 train utterances" in corpus.note
    assert load(root, train=train, test=test).sha256 == corpus.sha256


def test_many_speakers_give_whole_ones(tmp_path):
    root = make(tmp_path, ("dev-clean", "test-clean"), speakers=12, chapters=1, utterances=2)
    corpus = load(root, train="dev-clean", test="test-clean")
    valid = {u.speaker for u in corpus.split("valid")}
    assert valid
    assert not valid & {u.speaker for u in corpus.split("train")}


@pytest.mark.parametrize(
    ("format", "suffix"), [("WAV", ".wav"), ("OGG", ".ogg"), ("OGG", ".opus"), ("MP3", ".mp3")]
)
def test_any_container_will_do(tmp_path, format, suffix):
    for path in make(tmp_path).rglob("*.flac"):
        path.with_suffix(suffix).write_bytes(encoded(1, format))
        path.unlink()
    corpus = load(tmp_path)
    assert sizes(corpus) == {"train": 12, "valid": 12, "test": 12}
    assert {Path(u.audio).suffix for u in corpus.utterances} == {suffix}


def test_what_is_listed_but_absent_or_there_but_not_listed(tmp_path):
    chapter = make(tmp_path) / "dev-clean/200/1000"
    (chapter / "200-1000-0001.flac").unlink()
    (chapter / "200-1000-0002.wav").write_bytes(encoded(2, "WAV"))  # there as .flac too
    (chapter / "200-1000-0009.flac").write_bytes(encoded(9))
    (tmp_path / "dev-clean/201/1001/201-1001.trans.txt").unlink()
    survey = librispeech.survey(tmp_path)
    here = Path("dev-clean/200/1000")
    assert survey.missing == {here / "200-1000-0001.flac": "dev-clean"}
    assert set(survey.extra) == {
        here / "200-1000-0002.wav",
        here / "200-1000-0009.flac",
        *(Path(f"dev-clean/201/1001/201-1001-{number:04d}.flac") for number in range(3)),
    }
    assert set(survey.extra.values()) == {"dev-clean"}
    assert survey.notes == ("4 recordings without a transcript left out",)
    corpus = load(tmp_path)
    assert sizes(corpus) == {"train": 12, "valid": 8, "test": 12}
    assert "dev-clean 8 of 2703 utterances" in corpus.note
    assert "4 recordings without a transcript left out" in corpus.note


def test_a_survey_opens_no_audio_and_keeps_the_corpus_own_split_names(tmp_path):
    for path in make(tmp_path).rglob("*.flac"):
        path.write_bytes(b"")
    survey = librispeech.survey(tmp_path)
    assert {u.split for u in survey.utterances} == set(USUAL)
    assert len(survey.utterances) == 36
    assert survey.rate == 16_000
    assert ("train-clean-100", "test-clean") in survey.disjoint
    assert not survey.missing
    assert not survey.extra


def test_a_survey_of_no_folder_is_one_clear_error(tmp_path):
    with pytest.raises(SuperbError, match=r"nowhere: there is no such folder\. .*openslr"):
        librispeech.survey(tmp_path / "nowhere")


def test_what_a_run_needs_is_what_is_downloaded():
    assert librispeech.LAYOUT.defaults == USUAL


def test_identity_depends_on_transcripts_and_sizes(tmp_path):
    before = load(make(tmp_path)).sha256
    audio = tmp_path / "test-clean/300/1000/300-1000-0000.flac"
    data = audio.read_bytes()
    audio.write_bytes(data + b"\0")
    assert load(tmp_path).sha256 != before
    audio.write_bytes(data)
    assert load(tmp_path).sha256 == before
    text = tmp_path / "test-clean/300/1000/300-1000.trans.txt"
    text.write_text(text.read_text().replace("SAYS 0", "SAYS O"))
    assert load(tmp_path).sha256 != before


def fill(folder):
    (folder / "readme.txt").write_text("")
    return folder


@pytest.mark.parametrize(
    ("prepare", "splits", "says"),
    [
        (lambda root: None, {}, r"not bundled: add --data-root FOLDER.*data download librispeech"),
        (lambda root: root / "nowhere", {}, r"nowhere is no folder.*openslr"),
        (fill, {}, r"no LibriSpeech in .*it holds readme\.txt\. .*openslr"),
        (lambda root: root, {}, "it holds nothing"),
        (lambda root: make(root) / "dev-clean", {}, "is one split; give the folder above"),
        (make, {"train": "train-clean-10"}, r"no split 'train-clean-10' \(train\).*has dev-clean"),
        (make, {"valid": "dev-other"}, "Choose among them with --valid-split"),
        (make, {"train": "train-clean-100+"}, r"no split '' \(train\)"),
        (make, {"train": "dev-clean"}, "wanted for train and again for valid.*--valid-split"),
        (make, {"test": "train-clean-100"}, "wanted for train and again for test"),
        (lambda root: make(root, USUAL[:2]), {}, r"no split 'test-clean' \(test\)"),
        (lambda root: make(root, USUAL[:1]), {"train": USUAL[0]}, r"'dev-clean' \(valid\)"),
        (lambda root: make(root, utterances=0), {}, "no transcribed recordings in .*train-clean"),
    ],
)
def test_errors_say_what_is_there_and_what_to_type(tmp_path, prepare, splits, says):
    root = prepare(tmp_path)
    with pytest.raises(SuperbError, match=says):
        load(root, **splits)


def test_transcripts_that_cannot_be_read_or_are_empty(tmp_path):
    path = make(tmp_path) / "dev-clean/200/1000/200-1000.trans.txt"
    text = path.read_text()
    path.write_text(text.replace("200-1000-0001 SPEAKER 200 SAYS 1", "200-1000-0001"))
    with pytest.raises(SuperbError, match=r"empty transcripts in .*200-1000-0001 \(1 in all\)"):
        load(tmp_path)
    path.write_bytes(b"200-1000-0001 caf\xe9\n")
    with pytest.raises(SuperbError, match=r"cannot read .*200-1000\.trans\.txt"):
        load(tmp_path)


def test_other_tasks_are_refused(tmp_path):
    with pytest.raises(SuperbError, match="does not serve task 'sid', only asr"):
        load_corpus("librispeech", load_downstream("sid").card, CorpusOptions(tmp_path))
    with pytest.raises(SuperbError, match="unknown task of corpus 'librispeech'"):
        librispeech.load("ks", CorpusOptions(tmp_path))


def test_official_figures_and_archives_are_of_the_same_splits():
    assert sum(split.utterances for split in librispeech.OFFICIAL.values()) == 292_367
    assert sum(split.speakers for split in librispeech.OFFICIAL.values()) == 2_484
    archives = librispeech.ARCHIVES
    assert [archive.splits for archive in archives] == [(split,) for split in librispeech.OFFICIAL]
    for archive in archives:
        assert archive.url == f"https://www.openslr.org/resources/12/{archive.splits[0]}.tar.gz"
        assert len(bytes.fromhex(archive.sha256)) == 32


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data/LibriSpeech")
def test_a_real_copy(tmp_path):
    corpus = load(REAL, train="dev-clean", test="test-clean")
    assert sizes(corpus) == {"train": 366, "valid": 41, "test": 171}
    assert all(utterance.text.isupper() for utterance in corpus.utterances)
    assert not librispeech.survey(REAL).missing


def test_the_parts_of_libri_light_are_those_of_its_folder(tmp_path):
    root = make(tmp_path / "one")
    few = root / librispeech.FEW_LABELS
    for folder, name in (
        ("1h/0/clean", "100-1000-0000"),
        *((f"1h/{part}/other", f"101-100{part % 2}-000{part // 2}") for part in range(1, 6)),
        ("9h/clean", "100-1001-0002"),
    ):
        place = few / folder / "100" / "1000"
        place.mkdir(parents=True)
        (place / f"{name}.flac").write_bytes(encoded(1))
    found = load(root).subsets
    assert found["10min"][:2] == [["100-1000-0000"], ["101-1001-0000"]]
    assert [len(part) for part in found["10min"]] == [1] * 6
    (hour,), (ten,) = found["1h"], found["10h"]
    assert hour == [name for part in found["10min"] for name in part]
    assert ten == [*hour, "100-1001-0002"]
    shutil.rmtree(few / "1h" / "3")
    with pytest.raises(SuperbError, match="no recordings in 1h/3, so its parts are not those of"):
        load(root)
    assert not load(make(tmp_path / "two" / "plain")).subsets
