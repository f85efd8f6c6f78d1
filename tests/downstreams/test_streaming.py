"""Datasets that stay on the hub: the same corpus as when downloaded, and what is fetched when."""

import io
import json
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from typer.testing import CliRunner

from benchmark.encoding.audio import audio_sha256
from benchmark.errors import AudioError, SuperbError
from benchmark.progress import Progress
from downstreams.corpora import CorpusOptions, huggingface, streaming
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream
from superb.cli import app
from superb.data import audit_corpus

ASR, KS, SID = (load_downstream(name).card for name in ("asr", "ks", "sid"))
# Far more audio than Parquet reads of a file to find out what is in it.
SAMPLES = 40_000
GROUP = 4


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


def clip(value: int, samples: int = SAMPLES) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(value).integers(-3000, 3000, samples + value).astype(np.int16)
    soundfile.write(buffer, noise, 16_000, format="WAV")
    return buffer.getvalue()


def shard(audio, speakers=2, **columns) -> bytes:
    """A Parquet file as push_to_hub makes it, a row group every GROUP rows."""
    rows = {
        "audio": [
            {"bytes": data, "path": f"{row}.wav"} if isinstance(data, bytes) else data
            for row, data in enumerate(audio)
        ],
        "text": [f"sentence {row}" for row in range(len(audio))],
        "speaker": [row % speakers for row in range(len(audio))],
        "label": [row % 2 for row in range(len(audio))],
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
    table = datasets.Dataset.from_dict(rows, features=features)
    buffer = io.BytesIO()
    table.cast_column("audio", datasets.Audio()).to_parquet(buffer, batch_size=GROUP)
    return buffer.getvalue()


def push(hub, name="org/name", **extra) -> str:
    """Train in two files of ten and six rows, valid and test in one of two."""
    files = {
        "data/train-00000-of-00002.parquet": shard([clip(row) for row in range(10)]),
        "data/train-00001-of-00002.parquet": shard([clip(20 + row) for row in range(6)]),
        "data/validation-00000-of-00001.parquet": shard([clip(40), clip(41)]),
        "data/test-00000-of-00001.parquet": shard([clip(50), clip(51)]),
    }
    return hub.push(name, files | extra)


def load(name, card=KS, **splits):
    return load_corpus(name, card, CorpusOptions(None, splits))


def described(corpus):
    return [(u.id, u.split, u.speaker, u.text, u.label) for u in corpus.utterances]


@pytest.mark.parametrize("card", [ASR, KS, SID], ids=lambda card: card.name)
def test_streamed_and_downloaded_are_the_same_corpus(hub, card):
    commit = push(hub)
    streamed = load("hf-stream:org/name", card)
    downloaded = load("hf:org/name", card)
    assert described(streamed) == described(downloaded)
    assert [u.audio.read() for u in streamed.utterances] == [
        u.audio.read() for u in downloaded.utterances
    ]
    assert streamed.sha256 == downloaded.sha256
    assert streamed.name == downloaded.name == "hf:org/name"
    assert streamed.source == downloaded.source
    assert [u.audio.origin for u in streamed.utterances] == [
        u.audio.origin for u in downloaded.utterances
    ]
    assert commit in streamed.source
    assert (streamed.note, downloaded.note) == ("streamed from the hub", "")


def test_no_audio_is_fetched_to_load_a_corpus(hub):
    push(hub)
    corpus = load("hf-stream:org/name", ASR)
    assert len(corpus.utterances) == 20
    whole = sum(len(data) for data in next(iter(hub.commits.values())).values())
    assert 0 < sum(hub.bytes_of(".parquet")) < whole / 4
    # Small as these files are, most of what was fetched is the look at their ends.
    assert not any(audio_is_in(hub, size) for size in hub.bytes_of(".parquet"))


def audio_is_in(hub, size: int) -> bool:
    """Whether so many bytes can hold a row group of audio."""
    return size >= 2 * len(clip(0))


def test_each_row_group_is_fetched_once_in_the_order_of_the_corpus(hub):
    push(hub)
    corpus = load("hf-stream:org/name")
    hub.served.clear()
    for utterance in corpus.utterances:
        assert utterance.audio.read()
    # 10 and 6 rows of train are 3 and 2 row groups.
    fetched = [path.split("-")[0].removeprefix("data/") for _, path, _ in hub.served]
    assert fetched == [*["train"] * 5, "validation", "test"]


def test_a_look_back_over_the_edge_of_a_row_group_fetches_nothing(hub):
    push(hub)
    train = load("hf-stream:org/name").split("train")
    hub.served.clear()
    for row in (0, 5, 1, 6, 2, 7):
        assert train[row].audio.read() == clip(row)
    assert len(hub.served) == 2
    assert train[8].audio.read() == clip(8)
    assert train[4].audio.read() == clip(4)
    assert len(hub.served) == 3
    assert train[0].audio.read() == clip(0)  # went when the third came
    assert len(hub.served) == 4


def test_sizes_are_those_of_the_row_group(hub):
    push(hub)
    for utterance in load("hf-stream:org/name").utterances:
        assert isinstance(utterance.audio, streaming.StreamedAudio)
        assert utterance.audio.size == pytest.approx(len(utterance.audio.read()), rel=0.01)


def test_splits_by_name_and_several_at_once(hub):
    push(hub)
    corpus = load("hf-stream:org/name", train="train+validation")
    downloaded = load("hf:org/name", train="train+validation")
    assert described(corpus) == described(downloaded)
    assert corpus.sha256 == downloaded.sha256
    assert {u.id.split("/")[0] for u in corpus.utterances} == {"train", "validation", "test"}
    note = "train: train+validation, test: test; no valid split given: "
    assert corpus.note.startswith(f"streamed from the hub; {note}")
    assert downloaded.note.startswith(note)


def test_splits_that_are_not_wanted_are_not_looked_at(hub):
    push(hub, **{"data/other-00000-of-00001.parquet": shard([clip(60)])})
    load("hf-stream:org/name")
    assert not hub.bytes_of("other-00000-of-00001.parquet")


def test_types_of_the_card_count(hub):
    """Strings in the files, classes on the card."""
    card = """---
dataset_info:
  features:
  - {name: audio, dtype: audio}
  - {name: label, dtype: {class_label: {names: {'0': down, '1': up}}}}
  splits:
  - {name: train, num_examples: 4}
  - {name: test, num_examples: 2}
---
"""

    def bare(count: int, first: int) -> bytes:
        table = datasets.Dataset.from_dict(
            {
                "audio": [{"bytes": clip(first + row), "path": ""} for row in range(count)],
                "label": [row % 2 for row in range(count)],
            }
        )
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        return buffer.getvalue()

    files = {"data/train-0.parquet": bare(4, 0), "data/test-0.parquet": bare(2, 10)}
    hub.push("org/name", {"README.md": card.encode(), **files})
    streamed, downloaded = load("hf-stream:org/name"), load("hf:org/name")
    assert {u.label for u in streamed.utterances} == {"down", "up"}
    assert described(streamed) == described(downloaded)
    assert streamed.sha256 == downloaded.sha256


# Disk ------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch):
    monkeypatch.setattr(huggingface, "free_bytes", lambda folder: (folder.mkdir(), 1000)[1])


def test_what_does_not_fit_on_the_disk_is_streamed_and_says_so(hub, full_disk, capsys):
    push(hub)
    corpus = load("hf:org/name")
    whole = sum(len(data) for data in next(iter(hub.commits.values())).values())
    says = "on a disk with 1.0 kB free"
    assert says in corpus.note
    assert corpus.note.startswith("streamed from the hub: it takes ")
    assert "hf:org/name is streamed from the hub: it takes" in capsys.readouterr().err
    assert isinstance(corpus.utterances[0].audio, streaming.StreamedAudio)
    assert sum(hub.bytes_of(".parquet")) < whole / 4


def test_what_is_downloaded_already_is_not_streamed_on_a_full_disk(hub, monkeypatch):
    push(hub)
    first = load("hf:org/name")
    monkeypatch.setattr(huggingface, "free_bytes", lambda folder: 0)
    hub.served.clear()
    again = load("hf:org/name")
    assert isinstance(again.utterances[0].audio, huggingface.TableAudio)
    assert (again.sha256, again.note) == (first.sha256, "")
    assert not hub.bytes_of(".parquet")


def test_files_that_are_there_already_take_no_room(hub, monkeypatch):
    commit = push(hub)
    files = hub.commits["org/name", commit]
    whole = sum(map(len, files.values()))
    monkeypatch.setattr(
        huggingface, "free_bytes", lambda folder: (folder.mkdir(exist_ok=True), 1.5 * whole)[1]
    )
    assert load("hf:org/name").note.startswith("streamed from the hub: it takes")
    for path in files:
        huggingface_hub.hf_hub_download("org/name", path, repo_type="dataset", revision=commit)
    assert load("hf:org/name").note == ""


def test_a_quick_check_does_not_fetch_all_audio(hub):
    push(hub)
    with pytest.raises(SuperbError, match="leave --quick out"):
        audit_corpus("hf-stream:org/name", None, None, quick=True, progress=Progress(quiet=True))


def json_lines(hub):
    rows = [json.dumps({"audio": "a.wav", "label": "no"})]
    hub.push("org/name", {"train.jsonl": rows[0].encode(), "test.jsonl": rows[0].encode()})


def test_files_other_than_parquet_can_only_be_downloaded(hub):
    json_lines(hub)
    with pytest.raises(SuperbError, match=r"cannot be streamed: it .* not .* Parquet .* but as Js"):
        load("hf-stream:org/name")


def test_neither_room_nor_parquet_is_one_clear_error(hub, full_disk):
    json_lines(hub)
    hub.commits[next(iter(hub.commits))]["train.jsonl"] *= 1000
    with pytest.raises(
        SuperbError, match=r"cannot be downloaded: it takes .* Nor can it be streamed.*HF_HOME"
    ):
        load("hf:org/name")


# Errors ----------------------------------------------------------------------------------------


def test_a_connection_that_breaks_is_one_clear_error(hub):
    push(hub)
    train = load("hf-stream:org/name").split("train")
    assert train[0].audio.read()
    hub.broken = ".parquet"
    assert train[3].audio.read()  # of the row group that is there
    with pytest.raises(
        SuperbError, match=r"cannot stream .*train-00000.*: HfHubHTTPError: .*Run the same"
    ) as caught:
        train[4].audio.read()
    assert not isinstance(caught.value, AudioError)  # never taken for a bad recording
    hub.served.clear()
    with pytest.raises(SuperbError, match="Run the same command again"):
        train[8].audio.read()
    assert not hub.served  # the client's patience was tried once
    hub.broken = ""
    again = load("hf-stream:org/name").split("train")
    assert again[4].audio.read() == clip(4)


def test_a_connection_that_breaks_at_the_start(hub):
    push(hub)
    hub.broken = ".parquet"
    with pytest.raises(SuperbError, match=r"cannot stream .*HfHubHTTPError"):
        load("hf-stream:org/name")


@pytest.mark.parametrize("prefix", ["hf", "hf-stream"])
@pytest.mark.parametrize("empty", [{"bytes": None, "path": "3.wav"}, None])
def test_a_row_without_audio_is_an_audio_error(hub, empty, prefix, tmp_path, monkeypatch):
    """Also where the working folder has a file of that name: it is not the dataset's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "3.wav").write_bytes(clip(3))
    name = "data/train-00000-of-00002.parquet"
    push(hub, **{name: shard([clip(0), clip(1), empty, clip(3)])})
    train = load(f"{prefix}:org/name").split("train")
    assert train[1].audio.read() == clip(1)
    with pytest.raises(AudioError, match=r"row 2 .*holds no audio"):
        audio_sha256(train[2].audio)


def test_files_of_several_makes_are_read_as_one_table(hub):
    """Columns in another order, a row group without rows."""
    table = pq.read_table(io.BytesIO(shard([clip(row) for row in range(6)])))
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.select(table.column_names[::-1]).schema) as writer:
        writer.write_table(table.select(table.column_names[::-1]).slice(0, 2))
        writer.write_table(table.select(table.column_names[::-1]).slice(0, 0))
        writer.write_table(table.select(table.column_names[::-1]).slice(2))
    push(hub, **{"data/train-00001-of-00002.parquet": buffer.getvalue()})
    streamed, downloaded = load("hf-stream:org/name"), load("hf:org/name")
    assert described(streamed) == described(downloaded)
    assert [u.audio.read() for u in streamed.utterances] == [
        u.audio.read() for u in downloaded.utterances
    ]


@pytest.mark.parametrize("prefix", ["hf", "hf-stream"])
def test_a_file_that_is_not_as_the_card_says(hub, prefix):
    card = """---
dataset_info:
  features:
  - {name: audio, dtype: audio}
  - {name: label, dtype: {class_label: {names: {'0': down, '1': up}}}}
---
"""
    rows = {"audio": [{"bytes": clip(0), "path": ""}] * 2, "label": ["down", "sideways"]}
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows).to_parquet(buffer)
    files = {f"data/{split}-0.parquet": buffer.getvalue() for split in ("train", "test")}
    hub.push("org/name", {"README.md": card.encode(), **files})
    with pytest.raises(SuperbError, match="sideways"):
        load(f"{prefix}:org/name")


def test_a_column_that_is_no_audio(hub):
    table = datasets.Dataset.from_dict({"audio": ["a.wav"] * 2, "label": ["no", "yes"]})
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    files = {f"data/{split}-0.parquet": buffer.getvalue() for split in ("train", "test")}
    hub.push("org/name", files)
    with pytest.raises(
        SuperbError, match=r"split train: cannot stream .* 'audio' does not hold the bytes"
    ):
        load("hf-stream:org/name")


def test_a_column_that_is_missing(hub):
    push(hub)
    with pytest.raises(SuperbError, match="lacks the column keyword; it has audio, text"):
        load_corpus("hf-stream:org/name", replace(KS, label_from="keyword"))


# End to end ------------------------------------------------------------------------------------


def tones_on_the_hub(hub, tones: Path) -> None:
    """The tones of the other tests as a dataset, two takes for train."""
    rows = [line.split("\t") for line in tones.read_text().splitlines()[1:]]
    words = ["no", "stop", "yes"]
    files = {}
    for split, takes in {"train": "01", "validation": "3", "test": "4"}.items():
        own = [row for row in rows if row[0].split("-")[2][0] in takes]
        files[f"data/{split}-0.parquet"] = shard(
            [(tones.parent / row[0]).read_bytes() for row in own],
            label=[words.index(row[4]) % 2 for row in own],
        )
    hub.push("org/tones", files)


@pytest.fixture
def run(hub, tones, quick, tmp_path):
    """Score FBANK on the tones; returns the result files."""
    tones_on_the_hub(hub, tones)

    def run(corpus, layers="last"):
        arguments = ["run", "-u", "fbank", "-d", "ks", "--corpus", corpus, "--protocol", str(quick)]
        places = ["--output", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache")]
        arguments += [*places, "--layers", layers, "--device", "cpu"]
        done = CliRunner().invoke(app, arguments)
        if isinstance(done.exception, SuperbError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return list((tmp_path / "results/ks/fbank").glob("*.json"))

    return run


def test_a_run_on_a_streamed_dataset_counts_for_the_downloaded_one(hub, run):
    load("hf-stream:org/tones")
    to_load = len(hub.bytes_of(".parquet"))
    hub.served.clear()

    (first,) = run("hf-stream:org/tones")
    result = json.loads(first.read_text())
    assert result["corpus"]["name"] == "hf:org/tones"
    assert result["corpus"]["note"] == "streamed from the hub"
    assert result["corpus"]["audio_sha256"]
    assert result["corpus"]["splits"]["train"]["utterances"] == 24
    assert result["metrics"]["accuracy"]["value"] > 50
    # 24, 12 and 12 rows are 12 row groups: each was fetched once, for estimates and features.
    assert len(hub.bytes_of(".parquet")) == to_load + 12
    assert run("hf:org/tones") == [first]
    assert json.loads(first.read_text()) == result  # read, not run again

    hub.served.clear()
    assert len(run("hf-stream:org/tones", "0")) == 2
    # Features are found without their audio; only an estimate looks at two row groups.
    assert len(hub.bytes_of(".parquet")) == to_load + 2


def test_what_is_encoded_before_a_connection_breaks_is_kept(hub, run):
    load("hf-stream:org/tones")
    to_load = len(hub.bytes_of(".parquet"))
    hub.patience = to_load + 7
    with pytest.raises(SuperbError, match=r"cannot stream .* what is encoded is kept"):
        run("hf-stream:org/tones")
    hub.patience = None
    hub.served.clear()
    assert len(run("hf-stream:org/tones")) == 1
    # Row groups that were under way are fetched again, not all that came before.
    assert to_load < len(hub.bytes_of(".parquet")) < to_load + 12
