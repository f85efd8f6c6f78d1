"""Fluent Speech Commands: three lists name recordings and the three parts of their intents."""

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, fluent_speech_commands
from downstreams.corpora.check import audit
from downstreams.corpora.fluent_speech_commands import FOLDER, LAYOUT
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.load import load_downstream

IC = load_downstream("ic")
HEADER = ["", "path", "speakerId", "transcription", "action", "object", "location"]
COMMANDS = (
    ("Turn on the lights in the kitchen, please", "activate", "lights", "kitchen"),
    ("Bring me my shoes", "bring", "shoes", "none"),
)
SPEAKERS = {"train": ("2BqVo8kVB2Skwgyb", "4BrX8aDqK2cLZRYl"), "valid": ("p1",), "test": ("q1",)}


def wav(number):
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.random.default_rng(number).uniform(-0.1, 0.1, 800), 16_000, format="WAV"
    )
    return buffer.getvalue()


def rows(speakers):
    return [
        [str(index), f"wavs/speakers/{speaker}/{speaker}-{take}.wav", speaker, *command]
        for index, speaker in enumerate(speakers)
        for take, command in enumerate(COMMANDS)
    ]


def write_list(root, split, lines):
    path = root / "data" / f"{split}_data.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)


def make(root):
    """Two commands of every speaker, under the names of the archive."""
    root.mkdir(parents=True, exist_ok=True)
    count = 0
    for split, speakers in SPEAKERS.items():
        write_list(root, split, [HEADER, *rows(speakers)])
        for row in rows(speakers):
            path = root / row[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wav(count))
            count += 1
    return root


def load(root, **splits):
    corpus = load_corpus("fluent-speech-commands", IC.card, CorpusOptions(root, splits))
    check_fits(IC, corpus)
    return corpus


def test_the_lists_say_who_says_what_in_which_split(tmp_path):
    corpus = load(make(tmp_path))
    assert Counter(u.split for u in corpus.utterances) == {"train": 4, "valid": 2, "test": 2}
    first = corpus.utterances[0]
    name = "wavs/speakers/2BqVo8kVB2Skwgyb/2BqVo8kVB2Skwgyb-0.wav"
    assert (first.id, first.audio) == (name, tmp_path / name)
    assert (first.speaker, first.text, first.label) == ("2BqVo8kVB2Skwgyb", "", "")
    assert first.columns == {"action": "activate", "object": "lights", "location": "kitchen"}
    assert corpus.utterances[1].value("location") == "none"  # a value like any other
    assert corpus.note == (
        "partial copy: train 4 of 23132 utterances, valid 2 of 3118 utterances, "
        "test 2 of 3793 utterances"
    )


def test_the_folder_of_the_archive_is_found_and_gives_the_same_corpus(tmp_path):
    inside = load(make(tmp_path / FOLDER))
    assert load(tmp_path) == inside


def test_identity_depends_on_intents(tmp_path):
    before = load(make(tmp_path)).sha256
    path = tmp_path / "data/test_data.csv"
    path.write_text(path.read_text().replace("kitchen\n", "none\n"))
    assert load(tmp_path).sha256 != before


def test_a_check_finds_what_is_missing_not_listed_or_said_by_somebody_of_train(tmp_path):
    make(tmp_path)
    (tmp_path / "wavs/speakers/p1/p1-0.wav").unlink()
    (tmp_path / "wavs/speakers/p1/p1-9.wav").write_bytes(wav(99))
    path = tmp_path / "data/test_data.csv"
    path.write_text(path.read_text().replace(",q1,", ",2BqVo8kVB2Skwgyb,"))
    outcome = audit(LAYOUT.survey(tmp_path), LAYOUT.official, tmp_path)
    assert {split: found.utterances for split, found in outcome.splits.items()} == {
        "train": 4,
        "valid": 1,
        "test": 2,
    }
    found = {
        (each.kind, each.split): [item.name for item in each.items] for each in outcome.findings
    }
    assert found.pop(("missing", "valid")) == ["wavs/speakers/p1/p1-0.wav"]
    assert found.pop(("extra", "")) == ["wavs/speakers/p1/p1-9.wav"]
    assert found.pop(("shared speaker", "train + test")) == ["2BqVo8kVB2Skwgyb"]
    assert {kind for kind, _ in found} == {"partial"}
    assert "valid 1 of 3118" in load(tmp_path).note


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (["9", "wavs/speakers/q1/q1-0.wav", "q1"], r"test_data\.csv, line 4: 3 cells, the header"),
        (["9", "wavs/speakers/q1/q1-0.wav", "q1", "", "", "lights", "none"], "nothing in column a"),
        (["9", "wavs/speakers/q1/q1-0.wav", "", "", "a", "o", "l"], "nothing in column speakerId"),
        (["9", "wavs/speakers/q1/q1-0.wav", "q1", "", "a", "o", "l"], "line 4: .*is listed twice"),
        (["9", "wavs/speakers/p1/p1-0.wav", "p1", "", "a", "o", "l"], "line 4: .*is listed twice"),
        (["9", "/etc/passwd", "q1", "", "a", "o", "l"], "line 4: '/etc/passwd' is not wavs/speak"),
        (["9", "wavs/speakers/../../x.wav", "q1", "", "a", "o", "l"], "is not wavs/speakers/SPEAK"),
        (["9", "wavs/speakers/../x.wav", "q1", "", "a", "o", "l"], "is not wavs/speakers/SPEAKER"),
    ],
)
def test_rows_that_cannot_be_meant(tmp_path, row, says):
    write_list(make(tmp_path), "test", [HEADER, *rows(["q1"]), row])
    with pytest.raises(SuperbError, match=says):
        load(tmp_path)


def without(path):
    def prepare(root):
        target = make(root) / path
        target.rename(target.with_name("elsewhere"))

    return prepare


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda root: None, r"wanted data/train_data\.csv and wavs/, there or in fluent.*nothing"),
        (without("data/valid_data.csv"), r"wanted valid_data\.csv; it holds elsewhere, test_data"),
        (without("wavs/speakers/q1"), "no recordings of split test of fluent.*; 2 that are listed"),
        (without("wavs"), "no recordings of split train and valid and test"),
    ],
)
def test_what_is_not_there_and_how_to_get_it(tmp_path, prepare, says):
    prepare(tmp_path)
    with pytest.raises(SuperbError, match=f"{says}.*https://fluent.ai/"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([HEADER], "has no rows"),
        ([HEADER[:4], ["0", "wavs/speakers/q1/q1-0.wav", "q1", "so"]], "line 2: nothing in column"),
    ],
)
def test_a_list_without_rows_or_columns(tmp_path, lines, says):
    write_list(make(tmp_path), "valid", lines)
    with pytest.raises(SuperbError, match=rf"valid_data\.csv.*{says}"):
        load(tmp_path)


def test_its_splits_and_its_task_are_fixed(tmp_path):
    with pytest.raises(SuperbError, match="takes no --test-split: its three lists say"):
        load(make(tmp_path), test="valid")
    with pytest.raises(SuperbError, match="unknown task of corpus 'fluent-speech-commands'"):
        fluent_speech_commands.load("sid", CorpusOptions(tmp_path))
    with pytest.raises(SuperbError, match=r"add --data-root FOLDER.*may not be downloaded"):
        fluent_speech_commands.load("ic", CorpusOptions())


def test_official_figures_add_up():
    figures = LAYOUT.official.values()
    assert sum(split.utterances for split in figures) == 30_043
    assert sum(split.speakers for split in figures) == 97
    assert sum(split.hours for split in figures) == pytest.approx(19.0)


def test_paths_are_relative_to_the_root_that_was_given(tmp_path):
    make(tmp_path / FOLDER)
    (tmp_path / FOLDER / "wavs/speakers/p1/p1-0.wav").unlink()
    missing = LAYOUT.survey(tmp_path).missing
    assert missing == {Path(FOLDER, "wavs/speakers/p1/p1-0.wav"): "valid"}
