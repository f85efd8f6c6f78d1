"""One's own data: formats, every error, and the valid split that is taken from train."""

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from benchmark.core import DownstreamCard, Metric
from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, Manifest, manifest
from downstreams.corpora.load import load_corpus

KS = DownstreamCard("ks", "Keywords", 1, (Metric("accuracy", "higher"),), "mean", ("label",), True)
SID = replace(KS, name="sid", needs=("speaker",), label_from="speaker")
ASR = replace(KS, name="asr", needs=("text",), closed_set=False, features="frames")


def wav(value: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(160, value / 1e4), 16_000, format="WAV")
    return buffer.getvalue()


def make_rows(folder, train=20, speakers=4, labels=2, valid=2, test=2):
    """Rows with audio files in `folder`; speakers and labels go round."""
    rows = []
    for split, count in (("train", train), ("valid", valid), ("test", test)):
        for index in range(count):
            name = f"{split}-{index}.wav"
            (folder / name).write_bytes(wav(len(rows)))
            rows.append(
                {
                    "audio": name,
                    "split": split,
                    "speaker": f"s{index % speakers}",
                    "label": f"l{index // speakers % labels}",
                    "text": f"sentence {index}",
                }
            )
    return rows


def write(folder, rows, name="mine.csv", newline="\n", encoding="utf-8"):
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + newline for row in rows), encoding=encoding)
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        lines = [delimiter.join(rows[0]), *(delimiter.join(row.values()) for row in rows)]
        path.write_bytes(newline.join([*lines, ""]).encode(encoding))
    return path


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.jsonl", "mine.parquet"])
def test_every_format_gives_the_same_corpus(tmp_path, name):
    rows = make_rows(tmp_path)
    expected = manifest.load(write(tmp_path, rows, "other.csv"), KS)
    corpus = load_corpus(str(write(tmp_path, rows, name)), KS)
    assert corpus.name == "mine"
    assert corpus.sha256 == expected.sha256
    assert corpus.utterances == expected.utterances
    first = corpus.utterances[0]
    assert (first.id, first.split, first.speaker, first.label) == (
        "train-0.wav",
        "train",
        "s0",
        "l0",
    )
    assert first.text == ""  # KS does not need it
    assert first.audio == tmp_path / "train-0.wav"
    assert corpus.note == ""


def test_needs_decide_what_is_read(tmp_path):
    path = write(tmp_path, make_rows(tmp_path))
    asr = manifest.load(path, ASR).utterances[1]
    assert (asr.text, asr.label, asr.speaker) == ("sentence 1", "", "s1")
    sid = manifest.load(path, SID).utterances[1]
    assert (sid.text, sid.label, sid.speaker) == ("", "s1", "s1")


def test_the_label_may_come_from_any_column(tmp_path):
    path = write(tmp_path, make_rows(tmp_path, test=1, valid=1, labels=1))
    corpus = manifest.load(path, replace(KS, closed_set=False, label_from="text"))
    assert corpus.utterances[3].label == "sentence 3"


def test_a_manifest_called_manifest_is_named_after_its_folder(tmp_path):
    folder = tmp_path / "my words"
    folder.mkdir()
    assert manifest.load(write(folder, make_rows(folder), "manifest.tsv"), KS).name == "my words"


def test_unicode_windows_line_ends_and_byte_order_mark(tmp_path):
    rows = make_rows(tmp_path)
    for index, row in enumerate(rows):
        row["label"] = "cafe\u0301  noir " if index != 1 else "no"  # decomposed, two spaces
        row["speaker"] = "Zoë"
    path = write(tmp_path, rows, newline="\r\n", encoding="utf-8-sig")
    utterance = manifest.load(path, KS).utterances[0]
    assert utterance.label == "caf\u00e9 noir"
    assert utterance.speaker == "Zoë"
    lines = write(tmp_path, rows, "mine.jsonl", newline="\r\n", encoding="utf-8-sig")
    assert manifest.load(lines, KS).utterances[0].label == "caf\u00e9 noir"


def test_quoted_cells_numbers_and_absolute_paths(tmp_path):
    rows = make_rows(tmp_path)
    rows[0]["text"] = '"a, ""quoted""\nline"'
    assert manifest.load(write(tmp_path, rows), ASR).utterances[0].text == 'a, "quoted" line'
    for index, row in enumerate(rows):
        row.update(label=index % 2, speaker=7, audio=str(tmp_path / row["audio"]))
    utterance = manifest.load(write(tmp_path, rows, "mine.jsonl"), KS).utterances[1]
    assert (utterance.label, utterance.speaker) == ("1", "7")
    assert utterance.audio == tmp_path / "train-1.wav"


def test_parquet_may_hold_the_audio(tmp_path):
    rows = make_rows(tmp_path)
    for row in rows:
        row["audio"] = {"bytes": (tmp_path / row["audio"]).read_bytes(), "path": row["audio"]}
    embedded = manifest.load(write(tmp_path, rows, "mine.parquet"), KS)
    assert isinstance(embedded.utterances[0].audio, bytes)
    assert embedded.utterances[0].audio == (tmp_path / "train-0.wav").read_bytes()
    rows[0]["audio"]["bytes"] = wav(999)
    changed = manifest.load(write(tmp_path, rows, "mine.parquet"), KS)
    assert changed.sha256 != embedded.sha256


def test_identity_depends_on_content_not_on_place(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    one = manifest.load(write(first, make_rows(first)), KS)
    rows = make_rows(second)
    assert manifest.load(write(second, rows), KS).sha256 == one.sha256
    (second / "test-0.wav").write_bytes(wav(999) + b"\0")
    assert manifest.load(write(second, rows), KS).sha256 != one.sha256
    second_rows = make_rows(second)
    second_rows[0]["label"] = "l1"
    assert manifest.load(write(second, second_rows), KS).sha256 != one.sha256


def test_a_manifest_is_loaded_without_opening_audio(tmp_path, monkeypatch):
    path = write(tmp_path, make_rows(tmp_path))
    opened = []
    original = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: opened.append(self) or original(self, *a, **k)
    )
    manifest.load(path, KS)
    assert opened == [path]


def test_a_manifest_says_where_its_audio_is(tmp_path):
    path = str(write(tmp_path, make_rows(tmp_path)))
    with pytest.raises(SuperbError, match=r"takes no --data-root: its column audio says"):
        load_corpus(path, KS, CorpusOptions(tmp_path))


def test_splits_of_a_manifest_may_be_called_otherwise(tmp_path):
    rows = make_rows(tmp_path)
    usual = load_corpus(Manifest(write(tmp_path, rows), "mine"), KS)
    others = {"train": ("a", "b"), "valid": ("dev",), "test": ("eval",)}
    for index, row in enumerate(rows):
        names = others[row["split"]]
        row["split"] = names[index % len(names)]
    left_out = [{**rows[-1], "split": "unused", "audio": "none.wav"}]
    path = write(tmp_path, [*rows, *left_out], "own.tsv")
    given = {"train": "a+b", "valid": "dev", "test": "eval"}
    own = load_corpus(Manifest(path, "mine"), KS, CorpusOptions(None, given))
    assert (own.name, own.sha256, own.utterances) == ("mine", usual.sha256, usual.utterances)
    assert "train: a+b" in own.note
    with pytest.raises(SuperbError, match=r"no split 'none' .* which has a, b, dev, eval, unused"):
        load_corpus(str(path), KS, CorpusOptions(None, given | {"test": "none"}))
    with pytest.raises(SuperbError, match="is called 'mini', which is built in"):
        load_corpus(Manifest(path, "mini"), KS)


def change(column, value, rows=(0,)):
    def apply(table):
        for row in rows:
            table[row][column] = value

    return apply


def drop(column):
    return lambda table: [row.pop(column) for row in table]


def rename(old, new):
    return lambda table: [row.update({new: row.pop(old)}) for row in table]


@pytest.mark.parametrize(
    ("edit", "task", "says"),
    [
        (rename("audio", "path"), KS, r"lacks the column audio\. It has: .*path.*path to audio"),
        (rename("label", "Keyword"), KS, r"lacks the column label.*Rename Keyword to label"),
        (drop("label"), KS, r"lacks the column label.*Rename text to label"),
        (rename("split", "x"), ASR, "lacks the column split.*the column that holds it to split"),
        (drop("speaker"), SID, "lacks the column speaker"),
        (change("audio", "gone.wav", [3]), KS, r"missing audio files: line 5: .*gone\.wav"),
        (change("audio", ""), KS, "line 2: the 'audio' cell is empty"),
        (change("audio", "train-1.wav"), KS, "duplicate ids: line 2: train-1.wav; line 3"),
        (change("label", " ", range(5)), KS, r"empty 'label': line 2.*\(5 in all\)"),
        (change("text", ""), ASR, "empty 'text': line 2: train-0.wav"),
        (change("speaker", ""), SID, "empty 'speaker': line 2"),
        (change("speaker", ""), KS, "empty 'speaker': line 2.*leave all of them empty"),
        (change("split", "dev", range(4)), KS, r"line 2: 'dev'.*\(4 in all\).*write valid for dev"),
        (change("split", "Train"), KS, "Allowed: train, valid, test; write train for Train"),
        (change("split", "test", range(22)), KS, "nothing in split train; found test: 24"),
        (change("split", "train", [22, 23]), KS, "nothing in split test"),
        (change("label", "new", [20, 23]), KS, r"train does not have: 'new' \(valid\); 'new' \(te"),
        (change("speaker", "s9", [23]), SID, r"labels that train does not have: 's9' \(test\)"),
    ],
)
def test_errors_name_rows_and_remedy(tmp_path, edit, task, says):
    rows = make_rows(tmp_path)
    edit(rows)
    path = write(tmp_path, rows)
    with pytest.raises(SuperbError, match=says) as caught:
        manifest.load(path, task)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"", r"must end in \.csv, \.tsv, \.jsonl, \.parquet"),
        ("a.csv", b"", "has no rows"),
        ("a.csv", b"audio,split,label\n", "has no rows"),
        ("a.csv", b"audio,split,label\na.wav,train\n", "line 2: 2 cells, the header has 3"),
        ("a.csv", b'audio,split,label\n"a"b,train,x\n', "line 2: .*twice"),
        ("a.csv", b"audio,audio\na,b\n", "column names occur twice: audio"),
        ("a.csv", "audio\nä".encode("latin-1"), "not UTF-8"),
        ("a.jsonl", b'{"audio": \n', "line 1: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: not a JSON object"),
        ("a.parquet", b"not this", "not a readable Parquet file"),
    ],
)
def test_files_that_are_not_what_they_say(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SuperbError, match=says):
        manifest.load(tmp_path / name, KS)


def test_a_missing_manifest_says_what_is_wanted(tmp_path):
    with pytest.raises(SuperbError, match=r"no manifest at .*columns audio, split"):
        manifest.load(tmp_path / "none.csv", KS)


def test_an_open_set_may_have_new_answers(tmp_path):
    rows = make_rows(tmp_path)
    rows[-1]["label"] = "new"
    assert manifest.load(write(tmp_path, rows), replace(KS, closed_set=False))


# The valid split taken from train.


def carve(folder, task=KS, **shape):
    rows = make_rows(folder, valid=0, **shape)
    return manifest.load(write(folder, rows), task)


def test_whole_speakers_move_when_there_are_enough(tmp_path):
    corpus = carve(tmp_path, train=240, speakers=12, labels=3)
    train, valid = corpus.split("train"), corpus.split("valid")
    assert {u.speaker for u in train}.isdisjoint({u.speaker for u in valid})
    assert 12 <= len(valid) <= 36
    assert {u.label for u in train} == {"l0", "l1", "l2"}
    assert f"{len(valid)} of 240 train utterances, whole speakers" in corpus.note
    assert len(corpus.split("test")) == 2


def test_few_speakers_lose_utterances_of_every_label(tmp_path):
    corpus = carve(tmp_path, train=120, speakers=4, labels=3)
    valid = Counter(u.label for u in corpus.split("valid"))
    assert valid == {"l0": 4, "l1": 4, "l2": 4}
    assert "12 of 120 train utterances, some of every label" in corpus.note


def test_speaker_labels_are_split_within_each_speaker(tmp_path):
    corpus = carve(tmp_path, SID, train=240, speakers=12)
    speakers = Counter(u.label for u in corpus.split("valid"))
    assert set(speakers.values()) == {2}
    assert {u.label for u in corpus.split("train")} == set(speakers)


def test_a_label_that_one_speaker_says_alone_stays_in_train(tmp_path):
    rows = make_rows(tmp_path, train=120, speakers=12, valid=0)
    for row in rows[:120]:
        row["label"] = f"own-{row['speaker']}"
    rows[-1]["label"] = rows[-2]["label"] = "own-s0"
    corpus = manifest.load(write(tmp_path, rows), KS)
    assert "some of every label" in corpus.note
    assert len({u.label for u in corpus.split("train")}) == 12


def test_one_big_speaker_is_not_given_away(tmp_path):
    rows = make_rows(tmp_path, train=200, speakers=20, valid=0)
    for row in rows[:100]:
        row["speaker"] = "everywhere"
    valid = manifest.load(write(tmp_path, rows), ASR).split("valid")
    assert 10 <= len(valid) <= 30
    assert "everywhere" not in {u.speaker for u in valid}


def test_the_choice_is_fixed_and_does_not_depend_on_row_order(tmp_path):
    rows = make_rows(tmp_path, train=120, speakers=12, valid=0)
    ids = [
        {u.id for u in manifest.load(write(tmp_path, table), KS).split("valid")}
        for table in (rows, rows, rows[::-1])
    ]
    assert ids[0] == ids[1] == ids[2]


def test_without_speakers_or_labels_utterances_move(tmp_path):
    rows = make_rows(tmp_path, train=50, valid=0)
    for row in rows:
        del row["speaker"], row["label"]
    corpus = manifest.load(write(tmp_path, rows), ASR)
    assert "5 of 50 train utterances, drawn one by one, moved" in corpus.note


def test_a_train_split_of_one_cannot_be_divided(tmp_path):
    with pytest.raises(SuperbError, match=r"train split \(of 1\) is too small"):
        carve(tmp_path, train=1, test=1)
