"""VoxCeleb1's identification split: the list decides, whatever the recordings' folders are."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, voxceleb1
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream

SID = load_downstream("sid").card
# Two speakers; as in the real list, splits go by video and lines in no order of splits.
LIST = """3 id10001/1zcIwhmdeo4/00001.wav
1 id10001/7w0IBEWc9Qw/00001.wav
1 id10001/7w0IBEWc9Qw/00002.wav
2 id10001/J9lHsKG98U8/00001.wav
3 id10270/5r0dWxy17C8/00001.wav
1 id10270/5sJomL_D0_g/00001.wav
2 id10270/GWXujl-xAVM/00001.wav
"""


def make(root, folder_of=lambda speaker: "wav", name="iden_split.txt", text=LIST):
    """A tree with every recording of the list, in the folder that its speaker belongs to."""
    root.mkdir(exist_ok=True)
    for index, line in enumerate(LIST.splitlines()):
        path = root / folder_of(line[2:9]) / line[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        soundfile.write(buffer, np.full(800, index / 1e3), 16_000, format="WAV")
        path.write_bytes(buffer.getvalue())
    (root / name).write_text(text)
    return root


def load(root, **splits):
    return load_corpus("voxceleb1", SID, CorpusOptions(root, splits))


def test_the_list_says_which_recording_is_in_which_split(tmp_path):
    corpus = load(make(tmp_path))
    assert {u.id: u.split for u in corpus.utterances} == {
        "id10001/1zcIwhmdeo4/00001.wav": "test",
        "id10001/7w0IBEWc9Qw/00001.wav": "train",
        "id10001/7w0IBEWc9Qw/00002.wav": "train",
        "id10001/J9lHsKG98U8/00001.wav": "valid",
        "id10270/5r0dWxy17C8/00001.wav": "test",
        "id10270/5sJomL_D0_g/00001.wav": "train",
        "id10270/GWXujl-xAVM/00001.wav": "valid",
    }
    assert all(u.label == u.speaker == u.id[:7] for u in corpus.utterances)
    assert all(u.audio == tmp_path / "wav" / u.id for u in corpus.utterances)
    assert corpus.note == (
        "partial copy: train 3 of 138361 utterances, valid 2 of 6904 utterances, "
        "test 2 of 8251 utterances"
    )


def test_the_folders_of_both_archives_give_the_same_corpus(tmp_path):
    one = load(make(tmp_path / "one"))

    def archive(speaker):
        return "test/wav" if speaker == "id10270" else "dev/wav"

    two = load(make(tmp_path / "two", archive, "veri_test_class.txt"))
    assert two.sha256 == one.sha256
    assert {u.id: u.split for u in two.utterances} == {u.id: u.split for u in one.utterances}
    assert tmp_path / "two/test/wav/id10270/5r0dWxy17C8/00001.wav" in {
        u.audio for u in two.utterances
    }


def test_a_survey_names_what_is_missing_and_what_is_not_listed(tmp_path):
    root = make(tmp_path)
    (root / "wav/id10001/7w0IBEWc9Qw/00002.wav").unlink()
    (root / "wav/id10001/7w0IBEWc9Qw/00009.wav").write_bytes(b"")
    survey = voxceleb1.survey(root)
    assert survey.missing == {Path("wav/id10001/7w0IBEWc9Qw/00002.wav"): "train"}
    assert survey.extra == {Path("wav/id10001/7w0IBEWc9Qw/00009.wav"): ""}
    assert Counter(u.split for u in survey.utterances) == {"train": 2, "valid": 2, "test": 2}
    assert survey.disjoint == ()  # the same speakers are to be found again
    corpus = load(root)
    assert len(corpus.utterances) == 6
    assert "train 2 of 138361" in corpus.note


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("4 id10001/a/00001.wav", r"line 8: '4 id10001/a/00001\.wav' is not '1 SPEAKER/VIDEO"),
        ("1 id10001/00001.wav", "line 8"),
        ("id10001/a/00001.wav", "line 8"),
        ("1 id10001/a/00001.wav id10001/b/00001.wav", "line 8"),
        ("2 id10001/7w0IBEWc9Qw/00001.wav", r"line 8: id10001/7w0IBEWc9Qw/00001\.wav is listed"),
    ],
)
def test_lines_that_cannot_be_meant(tmp_path, line, says):
    root = make(tmp_path, text=f"{LIST}{line}\n")
    with pytest.raises(SuperbError, match=says):
        load(root)


def test_windows_line_ends_and_blank_lines_are_nothing(tmp_path):
    text = LIST.replace("\n", "\r\n") + "\r\n"
    assert len(load(make(tmp_path, text=text)).utterances) == 7


def without(path):
    def prepare(root):
        make(root)
        target = root / path
        target.rename(target.with_name("elsewhere"))
        return root

    return prepare


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda root: None, r"add --data-root FOLDER.*may not be downloaded automatically: ask"),
        (without("iden_split.txt"), r"wanted iden_split\.txt or veri_test_class\.txt; it holds"),
        (without("wav"), r"no VoxCeleb1 in .*wanted wav/ or .*it holds elsewhere/, iden_split"),
        (lambda root: make(root) / "wav", "no list of VoxCeleb1 in .*it holds id10001/, id10270/"),
        (without("wav/id10001/1zcIwhmdeo4/00001.wav"), None),
    ],
)
def test_errors_say_what_is_there_and_how_to_get_the_rest(tmp_path, prepare, says):
    root = prepare(tmp_path)
    if says is None:
        assert "test 1 of 8251" in load(root).note
        return
    with pytest.raises(SuperbError, match=says) as caught:
        load(root)
    assert "https://www.robots.ox.ac.uk/~vgg/data/voxceleb" in str(caught.value)


def test_a_copy_without_a_whole_split(tmp_path):
    root = make(tmp_path)
    for line in LIST.splitlines():
        if line.startswith("2"):
            (root / "wav" / line[2:]).unlink()
    with pytest.raises(
        SuperbError, match=r"no recordings of split valid .*; 2 that are listed are missing"
    ):
        load(root)


def test_a_speaker_who_is_not_in_train(tmp_path):
    root = make(tmp_path)
    (root / "wav/id10270/5sJomL_D0_g/00001.wav").unlink()
    with pytest.raises(SuperbError, match=r"labels that train does not have: 'id10270' \(test\)"):
        load(root)


def test_its_splits_and_its_task_are_fixed(tmp_path):
    with pytest.raises(SuperbError, match=r"'voxceleb1' takes no --test-split: iden_split\.txt"):
        load(make(tmp_path), test="dev")
    with pytest.raises(SuperbError, match="does not serve task 'asr', only sid"):
        load_corpus("voxceleb1", load_downstream("asr").card, CorpusOptions(tmp_path))
    with pytest.raises(SuperbError, match="unknown task of corpus 'voxceleb1'"):
        voxceleb1.load("ks", CorpusOptions(tmp_path))


def test_nothing_of_it_is_downloaded():
    assert voxceleb1.ARCHIVES == voxceleb1.LAYOUT.archives == ()
    assert sum(split.utterances for split in voxceleb1.OFFICIAL.values()) == 153_516
