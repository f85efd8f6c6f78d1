"""IEMOCAP: emotions from the files of the dialogs, and a fold for every session."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, iemocap
from downstreams.corpora.check import audit
from downstreams.corpora.iemocap import FOLDER, LAYOUT
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.load import load_downstream

ER = load_downstream("er")
# Who speaks, in which dialog, and how; each dialog is named after one of the two actors.
TURNS = (
    ("F_impro01", "F000", "neu"),
    ("F_impro01", "M000", "exc"),
    ("F_impro01", "M001", "xxx"),
    ("M_script01_1b", "F000", "ang"),
    ("M_script01_1b", "M012", "sad"),
    ("M_script01_1b", "M013", "hap"),
    ("M_script01_1b", "M014", "fru"),
)
EVALUATION = "Session3/dialog/EmoEvaluation/Ses03F_impro01.txt"


def wav(number):
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.random.default_rng(number).uniform(-0.1, 0.1, 800), 16_000, format="WAV"
    )
    return buffer.getvalue()


def line(name, emotion):
    return f"[6.2901 - 8.2357]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n"


def make(root):
    """Five sessions of two dialogs, with what the listeners wrote between the lines that count."""
    for session in range(1, 6):
        folder = root / f"Session{session}"
        (folder / "dialog/EmoEvaluation/Categorical").mkdir(parents=True)
        (folder / "dialog/EmoEvaluation/Categorical/Ses_e1_cat.txt").write_text("other lines")
        for number, (dialog, turn, emotion) in enumerate(TURNS):
            path = folder / f"dialog/EmoEvaluation/Ses0{session}{dialog}.txt"
            before = (
                path.read_bytes()
                if path.exists()
                else (b"% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n")
            )
            name = f"Ses0{session}{dialog}_{turn}"
            remark = b"C-E2:\tNeutral;\t(so caf\xe9)\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
            path.write_bytes(before + line(name, emotion).encode() + remark)
            recording = folder / f"sentences/wav/Ses0{session}{dialog}/{name}.wav"
            recording.parent.mkdir(parents=True, exist_ok=True)
            recording.write_bytes(wav(10 * session + number))
    return root


def load(root, **splits):
    corpus = load_corpus("iemocap", ER.card, CorpusOptions(root, splits))
    check_fits(ER, corpus)
    return corpus


def test_four_emotions_by_who_speaks(tmp_path):
    corpus = load(make(tmp_path))
    first = {u.id: (u.speaker, u.label) for u in corpus.utterances[:5]}
    assert first == {
        "Ses01F_impro01_F000": ("Ses01F", "neu"),
        "Ses01F_impro01_M000": ("Ses01M", "hap"),
        "Ses01M_script01_1b_F000": ("Ses01F", "ang"),
        "Ses01M_script01_1b_M012": ("Ses01M", "sad"),
        "Ses01M_script01_1b_M013": ("Ses01M", "hap"),
    }
    wavs = tmp_path / "Session1/sentences/wav"
    assert corpus.utterances[0].audio == wavs / "Ses01F_impro01/Ses01F_impro01_F000.wav"
    assert {u.split for u in corpus.utterances} == {"test"}  # each in the fold of its session
    assert corpus.note == (
        "partial copy: Session1 5 of 1085 utterances, Session2 5 of 1023 utterances, "
        "Session3 5 of 1151 utterances, Session4 5 of 1031 utterances, "
        "Session5 5 of 1241 utterances; 10 utterances of other emotions left out: xxx 5, fru 5"
    )


def test_each_session_is_tested_once_by_speakers_whom_train_has_not_heard(tmp_path):
    folds = load(make(tmp_path)).partitions()
    assert list(folds) == [f"Session{number}" for number in range(1, 6)]
    for number, (fold, corpus) in enumerate(folds.items(), start=1):
        assert Counter(u.split for u in corpus.utterances) == {"train": 15, "valid": 5, "test": 5}
        speakers = {
            split: {u.speaker[:5] for u in corpus.split(split)} for split in ("test", "valid")
        }
        assert speakers == {"test": {f"Ses0{number}"}, "valid": {f"Ses0{number % 5 + 1}"}}, fold


def test_the_folder_of_the_release_is_found_and_gives_the_same_corpus(tmp_path):
    inside = load(make(tmp_path / FOLDER))
    assert load(tmp_path) == inside


def test_a_check_shows_sessions_and_finds_what_is_missing_or_not_listed(tmp_path):
    make(tmp_path)
    wavs = Path("Session3/sentences/wav/Ses03F_impro01")
    (tmp_path / wavs / "Ses03F_impro01_F000.wav").unlink()
    (tmp_path / wavs / "Ses03F_impro01_M001.wav").unlink()  # no emotion that counts
    (tmp_path / wavs / "Ses03F_impro01_F009.wav").write_bytes(wav(99))
    outcome = audit(LAYOUT.survey(tmp_path), LAYOUT.official, tmp_path)
    assert {split: (own.utterances, own.speakers) for split, own in outcome.splits.items()} == {
        **{f"Session{number}": (5, 2) for number in (1, 2, 4, 5)},
        "Session3": (4, 2),
    }
    found = {
        (each.kind, each.split): [item.name for item in each.items] for each in outcome.findings
    }
    assert found.pop(("missing", "Session3")) == [f"{wavs}/Ses03F_impro01_F000.wav"]
    assert found.pop(("extra", "Session3")) == [f"{wavs}/Ses03F_impro01_F009.wav"]
    assert {kind for kind, _ in found} == {"partial"}
    assert outcome.notes == ("10 utterances of other emotions left out: xxx 5, fru 5",)
    assert len(LAYOUT.survey(tmp_path).disjoint) == 10
    assert "Session3 4 of 1151" in load(tmp_path).note


def rewritten(old, new, path=EVALUATION):
    def prepare(root):
        text = (make(root) / path).read_bytes()
        assert old.encode() in text
        (root / path).write_bytes(text.replace(old.encode(), new.encode()))

    return prepare


def without(path):
    def prepare(root):
        target = make(root) / path
        target.rename(target.with_name("elsewhere"))

    return prepare


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (rewritten("\tneu\t", "\tjoy\t"), r"impro01\.txt, line 3: unknown emotion 'joy'; known ar"),
        (rewritten("\tneu\t", "\t"), r"impro01\.txt, line 3: .* is not '\[start - end\] NAME EMOT"),
        (rewritten("[2.5000, 2.5000, 2.5000]", ""), r"line 3: .* is not '\[start - end\]"),
        (
            rewritten("Ses03F_impro01_F000", "Ses02F_impro01_F000"),
            "line 3: .*utterance of Session3",
        ),
        (rewritten("Ses03F_impro01_F000", "../../x_F000"), r"line 3: .* is not '\[start"),
        (rewritten("_F000", "_M000"), "line 7: Ses03F_impro01_M000 is listed twice"),
        (rewritten("[", "("), r"impro01\.txt names no utterance and its emotion; known are neu"),
        (without("Session2"), "no recordings of split Session2 of iemocap .*five folds take all"),
        (without("Session4/sentences"), "split Session4 of iemocap .*; 5 that are listed are miss"),
        (
            without("Session4/dialog"),
            "no emotion files of IEMOCAP in .*Session4: wanted dialog/Emo",
        ),
        (lambda root: None, "no IEMOCAP in .*: wanted Session1/ to Session5/, or IEMOCAP_full_re"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, prepare, says):
    prepare(tmp_path)
    with pytest.raises(SuperbError, match=f"{says}.*https://sail.usc.edu/iemocap/"):
        load(tmp_path)


def test_one_session_is_not_the_corpus(tmp_path):
    with pytest.raises(SuperbError, match=f"one session; give .*--data-root {tmp_path}"):
        load(make(tmp_path) / "Session1")


def test_an_emotion_that_the_train_of_a_fold_lacks(tmp_path):
    make(tmp_path)
    for session in (1, 2, 3, 4):
        path = tmp_path / f"Session{session}/dialog/EmoEvaluation/Ses0{session}M_script01_1b.txt"
        path.write_bytes(path.read_bytes().replace(b"\tsad\t", b"\tang\t"))
    with pytest.raises(SuperbError, match=r"fold Session4: labels that train does not .*'sad' \(v"):
        load(tmp_path)


def test_its_splits_and_its_task_are_fixed(tmp_path):
    with pytest.raises(SuperbError, match="takes no --valid-split: its sessions are five folds"):
        load(tmp_path, valid="Session2")
    with pytest.raises(SuperbError, match="unknown task of corpus 'iemocap'"):
        iemocap.load("ks", CorpusOptions(tmp_path))


def test_official_figures_add_up():
    assert sum(split.utterances for split in LAYOUT.official.values()) == 5_531
    assert sum(split.speakers for split in LAYOUT.official.values()) == 10
