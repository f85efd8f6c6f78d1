"""Faults of manifests, transcripts and labels."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.core import SPLITS, Corpus, Utterance
from benchmark.errors import SuperbError
from benchmark.scoring.results import read_results
from downstreams.asr import Asr
from downstreams.corpora import (
    CorpusOptions,
    audio_snips,
    fluent_speech_commands,
    iemocap,
    librispeech,
    quesst14,
    speech_commands,
    voxceleb1,
)
from downstreams.corpora.load import load_corpus
from downstreams.ks import Ks
from downstreams.load import load_downstream
from tests.faults.case import fault, manifest, record, refused, rows, run
from tests.made import QUICK

Rows = list[dict[str, str]]


def load(corpus: Path | Callable[[], Any], task: str = "ks") -> Corpus:
    given = str(corpus) if isinstance(corpus, Path) else corpus
    return load_corpus(given, load_downstream(task).card)


def says(corpus: Path | Callable[[], Any], *parts: str, task: str = "ks") -> None:
    """It is refused with one message that says these parts."""
    try:
        found = load(corpus, task)
    except SuperbError as error:
        message = str(error)
        message.encode()  # it can be printed
        for part in parts:
            assert part in message, (part, message)
    else:
        raise AssertionError(f"accepted: {found.utterances[:3]}")


def recorded(folder: Path) -> Rows:
    own = rows()
    record(folder, own)
    return own


def changed(own: Rows, where: Callable[[dict[str, str]], object], **cells: Any) -> Rows:
    """Rows of which some have other cells; a function of the old cell or a new one."""
    return [
        row | {k: new(row[k]) if callable(new) else new for k, new in cells.items()}
        if where(row)
        else row
        for row in own
    ]


def tested(row: Mapping[str, str]) -> bool:
    return row["split"] == "test"


def written(folder: Path, text: str, name: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding, "surrogatepass"))
    return path


def json_lines(folder: Path, own: Sequence[Mapping[str, Any]]) -> Path:
    return written(folder, "".join(json.dumps(row) + "\n" for row in own), "own.jsonl")


def as_text(own: Rows, delimiter: str, newline: str = "\n") -> str:
    return "".join(delimiter.join(line) + newline for line in (own[0], *(r.values() for r in own)))


def warnings(folder: Path) -> str:
    (result,), _ = read_results(folder / "results")
    return " ".join(result.warnings)


# Tables ----------------------------------------------------------------------------------------


@fault("TSV: a transcript starts with a quotation mark, another ends with one", "read as written")
def loose_quotes(folder: Path) -> None:
    own = recorded(folder)
    own[3]["text"], own[9]["text"] = '"oh, he said', 'said she"'
    found = load(manifest(folder, own), "asr").utterances
    assert [u.text for u in found] == [row["text"] for row in own]


@fault("TSV of a program that quotes cells", "quotation marks that it added are taken off")
def quoted_tsv(folder: Path) -> None:
    own = recorded(folder)
    own[0]["text"], own[1]["text"] = '"a ""b"" c"', '"a\tb"'
    own[2]["text"], own[3]["text"] = '"whole"', '"'
    found = [u.text for u in load(manifest(folder, own), "asr").utterances]
    assert found[:4] == ['a "b" c', "a b", '"whole"', '"'], found[:4]
    everything = [{f'"{k}"': f'"{v}"' for k, v in row.items()} for row in recorded(folder)]
    every = load(manifest(folder, everything, "all.tsv"), "asr")
    assert every.sha256 == load(manifest(folder, recorded(folder)), "asr").sha256


@fault("CSV: a quotation mark is never closed, or closed rows later", "refused, naming the line")
def open_quote(folder: Path) -> None:
    own = recorded(folder)
    own[3]["text"] = '"oh'
    says(written(folder, as_text(own, ","), "own.csv"), "line 5", task="asr")
    for last in (4, 9):
        own = recorded(folder)
        own[3]["text"], own[last]["text"] = '"oh', 'oh"'
        says(written(folder, as_text(own, ","), "own.csv"), "line 5", "whole rows", task="asr")


@fault("a .csv with semicolons or tabs, a .tsv with commas", "refused, naming what separates")
def delimiters(folder: Path) -> None:
    own = recorded(folder)
    kinds = {(";", ".csv"): "semicolons", ("\t", ".csv"): "tabs", (",", ".tsv"): "commas"}
    for (delimiter, suffix), name in kinds.items():
        says(written(folder, as_text(own, delimiter), f"own{suffix}"), f"separated by {name}")


@fault("tables in UTF-16 or Latin-1", "refused: save it as UTF-8")
def encodings(folder: Path) -> None:
    own = changed(recorded(folder), tested, speaker="Zoë")
    for encoding in ("utf-16", "utf-16-le", "latin-1"):
        for name, text in (("a.tsv", as_text(own, "\t")), ("a.csv", as_text(own, ","))):
            says(written(folder, text, name, encoding), "UTF-8")
        line = json.dumps(own[-1], ensure_ascii=False)
        says(written(folder, line, "a.jsonl", encoding), "UTF-8")


@fault("Latin-1 text that was read as another encoding", "refused, naming line and character")
def wrong_encoding(folder: Path) -> None:
    own = recorded(folder)
    own[4]["text"] = "don’t".encode("cp1252").decode("latin-1")
    says(manifest(folder, own), "line 6", "'text' holds U+0092", task="asr")


@fault("line ends of old Macs or Windows, blank lines, no last line end", "the same corpus")
def line_ends(folder: Path) -> None:
    own = recorded(folder)
    expected = load(manifest(folder, own)).sha256
    for end in ("\r", "\r\n", "\n\n", "\n\t\t\t\t\n"):
        for suffix, delimiter in ((".tsv", "\t"), (".csv", ",")):
            text = as_text(own, delimiter, end.replace("\t", delimiter)).rstrip()
            assert load(written(folder, text, f"own{suffix}")).sha256 == expected, (end, suffix)


@fault("a header with byte order mark, spaces or invisible characters", "the same corpus")
def header(folder: Path) -> None:
    own = recorded(folder)
    expected = load(manifest(folder, own)).sha256
    odd = [{f" {name}\u200b\u00a0": cell for name, cell in row.items()} for row in own]
    assert load(written(folder, "\ufeff" + as_text(odd, "\t"), "own.tsv")).sha256 == expected


@fault("a row with a cell too many or too few", "refused, naming the line")
def cells(folder: Path) -> None:
    for spoil in ("{}\tmore", "{}\t"):
        lines = as_text(recorded(folder), "\t").splitlines()
        lines[7] = spoil.format(lines[7])
        says(written(folder, "\n".join(lines), "own.tsv"), "line 8", "6 cells", "header has 5")
    lines[7] = "only\tthese"
    says(written(folder, "\n".join(lines), "own.tsv"), "line 8", "2 cells")


@fault("a column, or a key of a JSON line, twice", "refused, naming it")
def twice(folder: Path) -> None:
    own = recorded(folder)
    lines = as_text(own, "\t").splitlines()
    text = "\n".join(f"{line}\t{line.split(chr(9))[-1]}" for line in lines)
    says(written(folder, text, "own.tsv"), "twice: label")
    text = "".join(json.dumps(row)[:-1] + ', "label": "x"}\n' for row in own)
    says(written(folder, text, "own.jsonl"), "line 1", "twice: label")
    table = pa.Table.from_pylist(own)
    pq.write_table(table.append_column("label", table["label"]), folder / "own.parquet")
    says(folder / "own.parquet", "twice: label")


@fault("a transcript of 200,000 characters", "read whole, or refused with its line")
def long_cell(folder: Path) -> None:
    own = recorded(folder)
    own[5]["text"] = "very " * 40_000 + "long"
    assert load(manifest(folder, own), "asr").utterances[5].text == own[5]["text"]
    says(written(folder, as_text(own, ","), "own.csv"), "line 7", task="asr")


@fault("a label or transcript that is a list, an object, true or bytes", "refused: line and type")
def types(folder: Path) -> None:
    own: list[dict[str, Any]] = [dict(row) for row in recorded(folder)]
    for value in (["yes"], {"yes": 1}, True, False):
        for column, task in (("label", "ks"), ("text", "asr"), ("speaker", "sid"), ("audio", "ks")):
            own[6] = own[0] | {column: value}
            kind = type(value).__name__
            says(json_lines(folder, own), "line 7", f"{column!r}", f"{kind} {value}", task=task)
    of_lists = [row | {"label": [row["label"]]} for row in rows()]
    for column in (of_lists, [row | {"label": b"yes"} for row in rows()]):
        pq.write_table(pa.Table.from_pylist(column), folder / "own.parquet")
        says(folder / "own.parquet", "line 1", "'label'", type(column[0]["label"]).__name__)


@fault("half a surrogate pair in a text, label, id or path", "refused, naming the line")
def surrogates(folder: Path) -> None:
    for column, task in (("label", "ks"), ("text", "asr"), ("speaker", "asr"), ("audio", "ks")):
        own = recorded(folder)
        own[4][column] += "\ud835"
        says(json_lines(folder, own), "line 5", "ud835", task=task)
    clip = (folder / rows()[0]["audio"]).read_bytes()
    says(lambda: [Utterance("a\udcff", clip, "train", label="yes")], "a\\udcff", "U+DCFF")


@fault("a path that is none: a transcript, a URL, a folder, ~, \\", "refused: row, column and why")
def paths(folder: Path) -> None:
    for path, why in (
        ("so it went on " * 30, "characters: is this a path?"),
        ("a\0.wav", "cannot be seen"),
        ("a.wav\u200b", "\\u200b"),
        (".", "a folder"),
        ("~/a.wav", "home folder"),
        ("clips\\a.wav", "write / for"),
        ("file:///data/a.wav", "a URL"),
        ("https://host/a.wav", "a URL"),
    ):
        own = recorded(folder)
        own[3]["audio"] = path
        says(manifest(folder, own), "line 5", "'audio'", why)
    own = recorded(folder)
    spaced = changed(own, tested, audio=lambda path: f" {path}  ")
    assert load(manifest(folder, spaced)).sha256 == load(manifest(folder, own)).sha256


# Characters ------------------------------------------------------------------------------------


def spoken(folder: Path) -> Path:
    """A manifest of which every test transcript is accented: é in one code point."""
    return manifest(folder, changed(recorded(folder), tested, text="café né"))


@fault("train in Unicode form NFC, test in NFD, wherever they come from", "the same corpus")
def forms(folder: Path) -> None:
    expected = load(spoken(folder), "asr")
    plug_in = [
        replace(u, text=unicodedata.normalize("NFD", u.text) + " ") for u in expected.utterances
    ]
    assert load(lambda: plug_in, "asr").sha256 == expected.sha256
    decomposed = changed(recorded(folder), tested, text=unicodedata.normalize("NFD", "café né"))
    for path in (manifest(folder, decomposed), json_lines(folder, decomposed)):
        assert load(path, "asr").sha256 == expected.sha256
    shelf(folder, "cafe\u0301")
    found = librispeech.load("asr", CorpusOptions(folder)).utterances
    assert {u.text for u in found} == {"café"}


@fault(
    "invisible characters in transcripts, labels or splits", "left out; the corpus's note counts"
)
def invisible(folder: Path) -> None:
    own = recorded(folder)
    expected = load(manifest(folder, own))
    assert expected.note == ""
    for hidden in "\u200b\ufeff\u00ad\u200e\u200f\u2060\u202a\x07":

        def strewn(text: str, c: str = hidden) -> str:
            return f"{c}{text[0]}{c}{text[1:]}"

        odd = changed(own, tested, label=strewn, split=strewn)
        found = load(manifest(folder, odd))
        assert found.sha256 == expected.sha256
        assert found.note.startswith("96 invisible characters left out: 96 U+"), found.note
    says(manifest(folder, changed(own, tested, text="\u200b")), "empty 'text'", task="asr")


@fault("joiners that tell words apart, in Persian or Hindi", "kept there, left out elsewhere")
def joiners(folder: Path) -> None:
    kept = "می\u200cخواهم क्\u200dष र\u200d्य"
    own = changed(recorded(folder), tested, text=f"\u200cab\u200dc {kept}\u200c")
    found = load(manifest(folder, own), "asr")
    assert found.split("test")[0].text == f"abc {kept}"


@fault("right-to-left text with marks of direction", "marks left out, letters as written")
def right_to_left(folder: Path) -> None:
    own = recorded(folder)
    hebrew = changed(own, lambda row: True, text="שלום עולם")
    marked = changed(own, lambda row: True, text="\u202bשלום\u200f עולם\u202c")
    expected = load(manifest(folder, hebrew), "asr").sha256
    assert load(manifest(folder, marked), "asr").sha256 == expected


@fault("typographic apostrophes; characters of full or half width", "plain ones; the note counts")
def apostrophes(folder: Path) -> None:
    own = changed(recorded(folder), tested, text="don't stop ガ")
    expected = load(manifest(folder, own), "asr")
    odd = changed(own, tested, text="don’t ｓｔｏｐ　ｶﾞ")
    found = load(manifest(folder, odd), "asr")
    assert found.sha256 == expected.sha256
    assert "in 24 transcripts, read as plain" in found.note
    says(manifest(folder, changed(own, tested, label="yes’")), "'yes’'")  # labels are names


@fault("test transcripts with characters that train lacks", "a warning in the result counts words")
def beyond_train(folder: Path) -> None:
    own = [row for row in recorded(folder) if row["speaker"] == "ada"]
    short = QUICK.replace("updates = 40", "updates = 2").replace("warmup = 5", "warmup = 0")
    protocol = written(folder, short.replace("evaluate_every = 20", "evaluate_every = 2"), "p.toml")
    path = manifest(folder, changed(own, tested, text="so."))
    answer = run(folder, path, "asr", "--protocol", protocol)
    assert answer.code == 0, answer
    expected = "6 of 6 test words cannot be right: train lacks characters of theirs: . (6)"
    assert expected in warnings(folder)
    assert expected in answer.words
    task = Asr()
    test = [Utterance("a", b"", "test", text="so i\u0301t goes")]
    train = [Utterance("b", b"", "train", text="soitge")]
    (note,) = task.test_notes(test, task.vocabulary(train))
    assert "3 of 3 test words" in note
    assert "U+0020 SPACE (2)" in note
    assert "Í (1)" in note


@fault("transcripts in a script without spaces", "a warning: wer counts whole transcripts")
def no_spaces(folder: Path) -> None:
    task = Asr()
    for text in ("今日はいい天気です", "สวัสดีครับ", "你好，世界。"):
        train = [Utterance("a", b"", "train", text=text)]
        (note,) = task.test_notes(train, task.vocabulary(train))
        assert "1 of 1 test transcripts are in a script without spaces" in note
    for text in ("안녕하세요", "hello", "你好 世界"):
        train = [Utterance("a", b"", "train", text=text)]
        assert task.test_notes(train, task.vocabulary(train)) == []


# Labels and files ------------------------------------------------------------------------------


@fault("one class in all of train", "refused: nothing to tell apart")
def one_class(folder: Path) -> None:
    own = [row | {"label": "yes"} for row in rows()]
    record(folder, own)
    refused(run(folder, manifest(folder, own)), "'yes'", "nothing to tell apart")


@fault("words that look like missing values: nan, NA, null", "labels like any other")
def missing_values(folder: Path) -> None:
    names = {"yes": "nan", "no": "NA", "stop": "null"}
    own = changed(recorded(folder), lambda row: True, label=names.get, text=names.get)
    for path in (manifest(folder, own), json_lines(folder, own)):
        found = load(path).utterances
        assert [u.label for u in found] == [row["label"] for row in own]
    pq.write_table(pa.Table.from_pylist(own), folder / "own.parquet")
    assert load(folder / "own.parquet").utterances == found
    says(json_lines(folder, changed(own, tested, label=float("nan"))), "empty 'label'")


@fault("labels that are numbers: 1 and 1.0 in JSON or Parquet", "one label")
def numbers(folder: Path) -> None:
    numbered = {"yes": 1, "no": 2, "stop": 10}
    own = changed(recorded(folder), lambda row: True, label=numbered.get)
    expected = load(json_lines(folder, own)).sha256
    assert load(json_lines(folder, changed(own, tested, label=float))).sha256 == expected
    text = changed(own, lambda row: True, label=str)
    assert load(manifest(folder, text)).sha256 == expected


@fault("labels that differ in case, or as 1, 01 and 1.0 do", "two labels, and a warning says so")
def alike(folder: Path) -> None:
    def notes(*labels: str) -> list[str]:
        train = [Utterance(str(i), b"", "train", label=x) for i, x in enumerate(labels)]
        return Ks().notes(train, [1] * len(train), 0.02, {})

    assert notes("yes", "no", "2", "3", "2a") == []
    (note,) = notes("yes", "Yes", "1", "01", "1.0", "no")
    assert "'Yes' and 'yes'" in note
    assert "'01' and '1' and '1.0'" in note


@fault("spaces around labels, of any kind", "the same corpus")
def spaces(folder: Path) -> None:
    own = recorded(folder)
    odd = changed(own, tested, label=lambda x: f" {x}\u00a0", split="test ")
    expected = load(manifest(folder, own)).sha256
    assert load(manifest(folder, odd)).sha256 == expected
    plug_in = [replace(u, label=f"{u.label} ") for u in load(manifest(folder, own)).utterances]
    assert load(lambda: plug_in).sha256 == expected


@fault("--on-bad-audio skip, and no recording of test can be used", "refused: nothing is left")
def all_bad(folder: Path) -> None:
    own = recorded(folder)
    for row in filter(tested, own):
        (folder / row["audio"]).write_bytes(b"no audio")
    answer = run(folder, manifest(folder, own), "ks", "--on-bad-audio", "skip")
    refused(answer, "nothing is left in test", "24 recordings")


@fault("--on-bad-audio skip, and a class loses all of train", "a warning in the result counts")
def class_lost(folder: Path) -> None:
    own = recorded(folder)
    for row in own:
        if (row["split"], row["label"]) == ("train", "no"):
            (folder / row["audio"]).write_bytes(b"no audio")
    assert run(folder, manifest(folder, own), "ks", "--on-bad-audio", "skip").code == 0
    expected = "no usable audio is left in train of 'no': 8 test utterances cannot be answered"
    assert expected in warnings(folder)


@fault("the same recording in train and test, under two names", "a warning in the result")
def shared(folder: Path) -> None:
    own = recorded(folder)
    shutil.copyfile(folder / own[0]["audio"], folder / own[3]["audio"])
    assert run(folder, manifest(folder, own)).code == 0
    assert "1 of 24 test recordings are in train or valid too" in warnings(folder)


# Layouts ---------------------------------------------------------------------------------------


def shelf(root: Path, text: str = "WELL") -> Path:
    """A LibriSpeech of one utterance a split; returns one chapter."""
    for split in librispeech.DEFAULTS.values():
        chapter = root / split / "1" / "2"
        chapter.mkdir(parents=True)
        (chapter / "1-2-0000.flac").write_bytes(b"sound")
        (chapter / "1-2.trans.txt").write_text(f"1-2-0000 {text}\n", encoding="utf-8")
    return chapter


@fault("hidden files that a Mac left beside recordings", "no part of a corpus")
def hidden_files(folder: Path) -> None:
    def litter(place: Path) -> None:
        for path in [place, *place.rglob("*")]:
            if path.is_dir():
                (path / ".DS_Store").write_bytes(b"no audio")
                (path / ".hidden").mkdir()
                (path / ".hidden" / "0_nohash_1.wav").write_bytes(b"no audio")
            else:
                path.with_name(f"._{path.name}").write_bytes(b"no audio")

    words = folder / speech_commands.FOLDER_V2
    test = folder / speech_commands.TEST_FOLDER_V1
    names = ("yes/0_nohash_0.wav", "_background_noise_/pink_noise.wav")
    for path in (
        *(place / name for place in (words, folder / speech_commands.FOLDER_V1) for name in names),
        *(words / name for name in speech_commands.LISTS_V2),
        test / "yes/1_nohash_0.wav",
        folder / "wav/id1/video/1.wav",
        folder / "wavs/speakers/s/1.wav",
        folder / "train/Ivy-snips-train-0.wav",
        folder / "Audio/quesst14_1.wav",
        *(folder / name for name, _ in quesst14.PARTS.values()),
        folder / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        folder / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt",
        *(folder / f"data/{split}_data.csv" for split in SPLITS),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / voxceleb1.LISTS[0]).write_text("1 id1/video/1.wav\n")
    (folder / audio_snips.LIST).write_text("Ivy-snips-train-0 BOS GO EOS\tO O Play\n")
    (folder / "scoring/language_key_utterances.lst").write_text(
        "x/Audio/quesst14_1.wav nnenglish\n"
    )
    emotions = folder / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    emotions.write_text("[0.5 - 1.5]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]\n")
    for split in SPLITS:
        name = f"wavs/speakers/s/{'1' if split == 'train' else split}.wav"
        (folder / f"data/{split}_data.csv").write_text(
            f"path,speakerId,action,object,location\n{name},s,go,none,none\n"
        )
    shelf(folder)
    surveys = (
        speech_commands.survey_v1,
        speech_commands.survey_v2,
        voxceleb1.survey,
        librispeech.survey,
        fluent_speech_commands.survey,
        audio_snips.survey,
        iemocap.survey,
        quesst14.survey,
    )
    before = [survey(folder) for survey in surveys]
    litter(folder)
    assert [survey(folder) for survey in surveys] == before


@fault("LibriSpeech: transcripts with a byte order mark or line separators", "read whole")
def odd_transcripts(folder: Path) -> None:
    chapter = shelf(folder, "oh\u2028so\x85it goes")
    path = chapter / "1-2.trans.txt"
    path.write_text(f"\ufeff{path.read_text(encoding='utf-8')}", encoding="utf-8")
    found = librispeech.load("asr", CorpusOptions(folder)).utterances
    assert [u.text for u in found] == ["oh so it goes"] * 3
    path.write_text("1-2-0000 OH\n1-2-0000 WELL\n")
    says(lambda: librispeech.load("asr", CorpusOptions(folder)), "two lines of 1-2-0000")
