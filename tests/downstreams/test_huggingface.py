"""Hugging Face datasets: folders, and what a hub on this machine serves."""

import io
import json
import os
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
import soundfile

import superb
from benchmark.encoding.audio import audio_sha256, decode
from benchmark.errors import AudioError, SuperbError
from benchmark.progress import Progress
from downstreams.corpora import CorpusOptions, huggingface
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream

ASR, KS, SID = (load_downstream(name).card for name in ("asr", "ks", "sid"))
COUNTS = {"train": 6, "validation": 2, "test": 3}


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
        plain = [{"bytes": wav(100 * offset + row), "path": f"{row}.wav"} for row in range(count)]
        rows.setdefault("audio", plain)
        table = datasets.Dataset.from_dict(rows, features=features)
        splits[split] = table.cast_column("audio", datasets.Audio())
    return datasets.DatasetDict(splits)


def saved(folder, table=None):
    (table or dataset()).save_to_disk(str(folder))
    return f"hf:{folder}"


def load(name, card=KS, **splits):
    return load_corpus(name, card, CorpusOptions(None, splits))


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
    with pytest.raises(SuperbError, match="empty 'label': train/1; validation/1; test/1"):
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
        ("hf-stream:name", "names no dataset"),
        ("hf-stream:/some/folder", "on the disk already: give it as hf:/some/folder"),
    ],
)
def test_names_that_are_none(name, says):
    with pytest.raises(SuperbError, match=says):
        load(name)


def test_a_data_root_is_refused(tmp_path):
    with pytest.raises(SuperbError, match="takes no --data-root: the name says where it is"):
        load_corpus("hf:org/name", KS, CorpusOptions(tmp_path))


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


def push(hub, name="org/name", table=None, folder="data", readme=None):
    """A commit with one Parquet file a split, as DatasetDict.push_to_hub makes it."""
    files = {} if readme is None else {"README.md": readme.encode()}
    for split, part in (table or dataset()).items():
        buffer = io.BytesIO()
        part.to_parquet(buffer)
        files[f"{folder}/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    return hub.push(name, files)


@pytest.mark.parametrize("revision", ["", "@main", "@COMMIT"])
def test_a_dataset_of_the_hub_is_pinned_to_a_commit(hub, revision):
    commit = push(hub, "org/na.me")
    corpus = load("hf:org/na.me" + revision.replace("COMMIT", commit))
    assert corpus.name == "hf:org/na.me"
    assert corpus.source == f"https://huggingface.co/datasets/org/na.me/tree/{commit}"
    assert sizes(corpus) == {"train": 6, "valid": 2, "test": 3}
    assert corpus.utterances[1].audio.read() == wav(1)
    assert corpus.note == ""


def test_the_commit_is_part_of_the_identity(hub):
    """Also where ids, labels and sizes of audio are what they were."""

    def louder(row):
        return {"audio": {**row["audio"], "bytes": row["audio"]["bytes"][:-2] + b"\0\1"}}

    first = push(hub)
    undecoded = dataset().cast_column("audio", datasets.Audio(decode=False))
    second = push(hub, table=undecoded.map(louder).cast_column("audio", datasets.Audio()))
    old, new = load(f"hf:org/name@{first}"), load("hf:org/name")
    assert new.source.endswith(second)
    assert [u.audio.size for u in old.utterances] == [u.audio.size for u in new.utterances]
    assert old.sha256 != new.sha256
    assert load(f"hf:org/name@{second}").sha256 == new.sha256


def test_the_configuration_is_part_of_the_identity(hub):
    configs = """---
configs:
- config_name: one
  data_files: [{split: train, path: data/train-*}, {split: test, path: data/test-*}]
- config_name: two
  data_files: [{split: train, path: data/train-*}, {split: test, path: data/test-*}]
---
"""
    push(hub, table=dataset({"train": 6, "test": 2}), readme=configs)
    one, two = load("hf:org/name:one"), load("hf:org/name:two")
    assert (one.name, two.name) == ("hf:org/name:one", "hf:org/name:two")
    assert one.sha256 != two.sha256


def test_what_was_downloaded_works_offline_at_its_commit_only(hub, monkeypatch):
    first = push(hub)
    online = load("hf:org/name")
    second = push(hub, table=dataset({"train": 7, "validation": 2, "test": 3}))
    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    assert load(f"hf:org/name@{first}").sha256 == online.sha256
    with pytest.raises(SuperbError, match=f"holds commit {first}, not {second}"):
        load(f"hf:org/name@{second}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:org/other", "cannot load hf:org/other: RepositoryNotFoundError: "),
        ("hf:org/name@v9", "cannot load hf:org/name@v9: RevisionNotFoundError: "),
        ("hf:org/name:clean", "cannot load hf:org/name:clean: .*'clean' not found"),
    ],
)
def test_datasets_that_are_not_there(hub, name, says):
    push(hub)
    with pytest.raises(SuperbError, match=says):
        load(name)


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


def test_audio_of_a_folder_is_remembered_until_the_folder_changes(tmp_path):
    name = saved(tmp_path / "data")
    first, again = load(name), load(name)
    origins = [utterance.audio.origin for utterance in first.utterances]
    assert [utterance.audio.origin for utterance in again.utterances] == origins
    assert len(set(origins)) == len(origins)
    for file in (tmp_path / "data").rglob("*.arrow"):
        os.utime(file, ns=(10**18, 10**18))
    changed = [utterance.audio.origin for utterance in load(name).utterances]
    assert [place for place, _ in changed] == [place for place, _ in origins]
    assert {when for _, when in changed} == {10**18}


def test_a_test_recording_of_which_crops_were_trained_on_is_called_out(tmp_path, quick):
    protocol = tmp_path / "crops.toml"
    protocol.write_text(quick.read_text().replace("crop_s = 0.0", "crop_s = 0.1"))
    asr, _, rest = protocol.read_text().partition("[sid]")
    protocol.write_text(asr.replace("crop_s = 0.1", "crop_s = 0.0") + "[sid]" + rest)

    def sound(split, row):
        """Noise of 0.5 s, the same in the last row of test as in the first of train."""
        seed = 0 if (split, row) in (("train", 0), ("test", 2)) else [len(split), row, 1]
        noise = np.random.default_rng(seed).normal(0, 0.1, 8000)
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, 16_000, format="WAV")
        return {"bytes": buffer.getvalue(), "path": f"{row}.wav"}

    table = dataset(audio=sound)
    (result,) = superb.run(
        "fbank",
        "ks",
        corpus=saved(tmp_path / "data", table),
        protocol=str(protocol),
        layers="last",
        output=tmp_path / "results",
        cache_dir=tmp_path / "features",
        device="cpu",
        progress=Progress(quiet=True),
    )
    assert result.corpus["audio_sha256"]
    assert any("test/2" in warning and "too good" in warning for warning in result.warnings)
