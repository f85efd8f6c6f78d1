"""Hugging Face datasets: folders for real, the hub as far as it can be had without a network."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pytest
import soundfile

from benchmark.audio import audio_sha256, decode
from benchmark.errors import AudioError, SuperbError
from downstreams import DOWNSTREAMS
from downstreams.corpora import CorpusOptions, huggingface, load_corpus

ASR, KS, SID = (DOWNSTREAMS[name].card for name in ("asr", "ks", "sid"))
COUNTS = {"train": 6, "validation": 2, "test": 3}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _no_network_and_a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def wav(value: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(400 + value, value / 1e3), 16_000, format="WAV")
    return buffer.getvalue()


def dataset(counts=COUNTS, **columns):
    """Splits with audio in the table; a column is a function of split and row."""
    columns = {
        "text": lambda split, row: f"sentence {row}",
        "speaker": lambda split, row: row % 2,
        "label": lambda split, row: row % 2,
        **columns,
    }
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "text": datasets.Value("string"),
            "speaker": datasets.Value("int32"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    splits = {}
    for offset, (split, count) in enumerate(counts.items()):
        rows = {name: [make(split, row) for row in range(count)] for name, make in columns.items()}
        # The same name in every split, as real ones have it.
        rows["audio"] = [
            {"bytes": wav(100 * offset + row), "path": f"{row}.wav"} for row in range(count)
        ]
        table = datasets.Dataset.from_dict(rows, features=features)
        splits[split] = table.cast_column("audio", datasets.Audio())
    return datasets.DatasetDict(splits)


def saved(folder, table=None):
    (table or dataset()).save_to_disk(str(folder))
    return f"hf:{folder}"


def load(name, card=KS, **splits):
    label_from = "speaker" if card is SID else "label"
    return load_corpus(name, card, label_from, CorpusOptions(None, splits))


def sizes(corpus):
    return {split: len(corpus.split(split)) for split in ("train", "valid", "test")}


def test_a_folder_that_datasets_saved(tmp_path):
    corpus = load(saved(tmp_path / "my words"))
    assert corpus.name == "my words"
    assert corpus.source == str(tmp_path / "my words")
    assert sizes(corpus) == {"train": 6, "valid": 2, "test": 3}
    second = corpus.utterances[1]
    assert (second.id, second.split, second.speaker, second.label) == (
        "train/1",
        "train",
        "1",
        "yes",
    )
    assert second.text == ""  # KS does not need it
    assert corpus.note == ""


def test_needs_decide_what_is_read(tmp_path):
    name = saved(tmp_path / "data")
    assert load(name, ASR).utterances[1].text == "sentence 1"
    assert load(name, SID).utterances[1].label == "1"


def test_audio_stays_in_the_table_until_it_is_read(tmp_path):
    utterance = load(saved(tmp_path / "data")).split("valid")[1]
    assert isinstance(utterance.audio, huggingface.TableAudio)
    assert utterance.audio.size == len(wav(101))
    assert utterance.audio.read() == wav(101)
    assert audio_sha256(utterance.audio) == audio_sha256(wav(101))
    assert len(decode(utterance.audio, 16_000, name=utterance.id)) == 501


def test_no_audio_is_read_to_load_a_corpus(tmp_path, monkeypatch):
    name = saved(tmp_path / "data")
    monkeypatch.setattr(huggingface.TableAudio, "read", lambda self: pytest.fail("audio was read"))
    assert load(name).sha256 == load(name).sha256


def test_bytes_that_cannot_be_read_are_an_audio_error():
    class Gone:
        size = 3

        def read(self):
            raise FileNotFoundError("moved away")

    with pytest.raises(AudioError, match="cannot read the audio of x: moved away"):
        decode(Gone(), 16_000, name="x")
    with pytest.raises(AudioError, match="moved away"):
        audio_sha256(Gone())


def test_identity_follows_content(tmp_path):
    one = load(saved(tmp_path / "one"))
    assert load(saved(tmp_path / "two")).sha256 == one.sha256
    other = dataset(label=lambda split, row: int(row > 2))
    assert load(saved(tmp_path / "other", other)).sha256 != one.sha256


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_folder_of_files_that_datasets_reads(tmp_path, suffix):
    folder = tmp_path / "data"
    folder.mkdir()
    for index, (split, table) in enumerate(dataset().items()):
        if suffix == "parquet":
            table.to_parquet(str(folder / f"{split}.parquet"))
            continue
        lines = []
        for row, cells in enumerate(table.remove_columns("audio")):
            path = f"../{split}-{row}.wav"
            (folder / path).write_bytes(wav(100 * index + row))
            lines.append(json.dumps({**cells, "audio": path}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    corpus = load(f"hf:{folder}", ASR)
    assert sizes(corpus) == {"train": 6, "valid": 2, "test": 3}
    first = corpus.utterances[0]
    assert first.text == "sentence 0"
    assert audio_sha256(first.audio) == audio_sha256(wav(0))
    if suffix == "jsonl":
        assert first.audio.resolve() == tmp_path / "train-0.wav"


def test_slices_and_shuffles_keep_rows_with_their_audio(tmp_path):
    table = dataset()
    shuffled = datasets.DatasetDict(
        {split: part.shuffle(seed=1).select(range(2)) for split, part in table.items()}
    )
    for utterance in load(saved(tmp_path / "data", shuffled), ASR).split("train"):
        row = int(utterance.text.removeprefix("sentence "))
        assert utterance.audio.read() == wav(row)


def test_splits_by_name_and_several_at_once(tmp_path):
    name = saved(tmp_path / "data", dataset({"train.a": 4, "train.b": 3, "dev": 2, "test": 2}))
    corpus = load(name, train="train.a+train.b", valid="dev")
    assert sizes(corpus) == {"train": 7, "valid": 2, "test": 2}
    assert corpus.note == "train: train.a+train.b, valid: dev, test: test"
    assert {u.id.split("/")[0] for u in corpus.split("train")} == {"train.a", "train.b"}


def test_without_a_validation_split_train_gives_a_part(tmp_path):
    corpus = load(saved(tmp_path / "data", dataset({"train": 20, "test": 2})))
    assert sizes(corpus) == {"train": 18, "valid": 2, "test": 2}
    assert corpus.note.startswith("no valid split given: 2 of 20 train utterances")


def test_classes_that_are_not_known_are_empty_cells(tmp_path):
    table = dataset(label=lambda split, row: -1 if row == 1 else 0)
    with pytest.raises(SuperbError, match="empty 'label' cells: line 1: train/1; line 1: valid"):
        load(saved(tmp_path / "data", table))


def rename(**names):
    return lambda table: table.rename_columns(names)


def hide_audio(table):
    paths = {split: [f"{row}.wav" for row in range(len(part))] for split, part in table.items()}
    return datasets.DatasetDict(
        {
            split: part.remove_columns("audio").add_column("audio", paths[split])
            for split, part in table.items()
        }
    )


def numbers_for_audio(table):
    return datasets.DatasetDict(
        {
            split: part.remove_columns("audio").add_column("audio", list(range(len(part))))
            for split, part in table.items()
        }
    )


@pytest.mark.parametrize(
    ("edit", "splits", "says"),
    [
        (rename(label="command"), {}, r"lacks the column label; it has .*command.*save_to_disk"),
        (rename(label="x", audio="y"), {}, "lacks the columns audio, label"),
        (hide_audio, {}, r"row 0 has no audio: '0\.wav' is no file"),
        (numbers_for_audio, {}, "column 'audio' holds .*int64.*, not audio"),
        (None, {"test": "eval"}, r"no split 'eval' \(test\).*has test, train, validation"),
        (None, {"valid": "dev"}, r"'dev' \(valid\) in .*--valid-split"),
        (None, {"train": "test"}, "wanted for train and again for test"),
    ],
)
def test_errors_say_what_is_there(tmp_path, edit, splits, says):
    table = dataset() if edit is None else edit(dataset())
    with pytest.raises(SuperbError, match=says) as caught:
        load(saved(tmp_path / "data", table), **splits)
    assert str(tmp_path / "data") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:name", "'hf:name' names no dataset; give one as hf:org/name, "),
        ("hf:", "names no dataset"),
        ("hf:a/b/c", "names no dataset"),
        ("hf:/nowhere/at/all", "no folder at /nowhere/at/all"),
    ],
)
def test_names_that_are_none(name, says):
    with pytest.raises(SuperbError, match=says):
        load(name)


def test_a_data_root_is_refused(tmp_path):
    with pytest.raises(SuperbError, match="takes no --data-root: the name says where it is"):
        load_corpus("hf:org/name", KS, "label", CorpusOptions(tmp_path))


def test_a_folder_of_recordings_says_what_is_missing(tmp_path):
    """The library encodes audio for such folders, which takes a package of its own."""
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/train/a.wav").write_bytes(wav(1))
    with pytest.raises(SuperbError, match=r"cannot load hf:.*torchcodec|lacks the column"):
        load(f"hf:{tmp_path / 'data'}")


def test_code_of_a_dataset_is_never_run(tmp_path):
    folder = tmp_path / "evil"
    folder.mkdir()
    trace = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w')\n")
    with pytest.raises(SuperbError, match="cannot load hf:"):
        load(f"hf:{folder}")
    assert not trace.exists()


class Hub:
    """What would have been asked of the hub."""

    def __init__(self, monkeypatch):
        self.looked_up, self.loaded = [], []
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", self._info)
        monkeypatch.setattr(datasets.load, "load_dataset", self._load)

    def _info(self, name, revision=None, timeout=None):
        self.looked_up.append((name, revision))
        return SimpleNamespace(sha=COMMIT)

    def _load(self, name, config=None, revision=None):
        self.loaded.append((name, config, revision))
        return dataset()


@pytest.mark.parametrize(
    ("name", "asked", "config"),
    [
        ("hf:org/na.me", [("org/na.me", None)], None),
        ("hf:org/name:clean", [("org/name", None)], "clean"),
        ("hf:org/name:v1:x@refs/pr/2", [("org/name", "refs/pr/2")], "v1:x"),
        (f"hf:org/name@{COMMIT}", [], None),  # as exact as can be, so that it works offline
    ],
)
def test_a_dataset_of_the_hub_is_pinned_to_a_commit(monkeypatch, name, asked, config):
    hub = Hub(monkeypatch)
    corpus = load(name)
    repository = "org/na.me" if "." in name else "org/name"
    assert hub.looked_up == asked
    assert hub.loaded == [(repository, config, COMMIT)]
    assert corpus.name == name.partition("@")[0]
    assert corpus.source == f"https://huggingface.co/datasets/{repository}/tree/{COMMIT}"


def test_a_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch):
    def unreachable(self, name, revision=None, timeout=None):
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(
        SuperbError, match="cannot load hf:org/name: ConnectionError: no route to h"
    ):
        load("hf:org/name")


def test_many_rows_take_no_memory_for_their_audio(tmp_path):
    folder = tmp_path / "data"
    name = saved(folder, dataset({"train": 2500, "test": 3}))
    corpus = load(name, ASR)
    assert sizes(corpus) == {"train": 2250, "valid": 250, "test": 3}
    by_id = {utterance.id: utterance for utterance in corpus.utterances}
    for row in (0, 999, 1000, 2499):  # either side of a batch of rows
        assert by_id[f"train/{row}"].audio.read() == wav(row)
        assert by_id[f"train/{row}"].audio.size == len(wav(row))
    assert Path(folder).is_dir()
