"""Whatever the bytes of a file: a value or one `SuperbError`, soon, in little memory, in silence.

``python -m tests.faults.fuzz --examples 10000`` prints a table of all kinds of files. Inputs are
sound files with a few changes, so that many get past the first check. What is accepted after all
must keep what its reader promises.
"""

from __future__ import annotations

import argparse
import atexit
import copy
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from benchmark.core import SPLITS
from benchmark.errors import SuperbError

ROOT = Path(__file__).parents[2]
SECONDS = 5.0
MEMORY = 1 << 30


# Changes ---------------------------------------------------------------------------------------

DEEP = 20_000
# Written as they are, as no encoder writes them.
RAW = {
    "<huge>": "1e400",
    "<long>": "9" * 5_000,
    "<deep>": "[" * DEEP + "]" * DEEP,
    "<nested>": '{"a":' * DEEP + "1" + "}" * DEEP,
    "<half>": '"\\ud800"',
    "<nan>": "NaN",
    "<twice>": '{"a": 1, "a": []}',
}
WORDS = [
    b"", b'"', b'""', b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b",", b"[", b"{",
    b"}", b"]", b"NaN", b"1e400", b"-1", b"0", b"null", b"true", b"\\ud800", b"\xed\xa0\x80",
    b"\xc3", "\u2028\u202e\u0301".encode(), b"../", b"/", b"'", b"=", b"#", b"\\", b"9" * 5_000,
    b"a" * 140_000, b"[" * DEEP, b'{"a":' * DEEP, b"a" * 300, b"train", b"valid", b"test", b"inf",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 40, 2**63 - 1]


@st.composite
def damaged(draw: DrawFn, sound: SearchStrategy[bytes], lines: bool = False) -> bytes:
    """Bytes with up to four changes; near the start more often than not, where headers are."""
    data = draw(sound)
    for _ in range(draw(st.integers(0, 4))):
        change = draw(st.sampled_from(_LINES if lines else _BYTES))
        data = change(draw, data)
    return data


def _place(draw: DrawFn, data: bytes) -> int:
    end = len(data) if draw(st.booleans()) else min(len(data), 200)
    return draw(st.integers(0, end))


def _flip(draw: DrawFn, data: bytes) -> bytes:
    place = _place(draw, data)
    return data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place + 1 :]


def _insert(draw: DrawFn, data: bytes) -> bytes:
    place = _place(draw, data)
    return data[:place] + draw(st.sampled_from(WORDS)) + data[place:]


def _cut(draw: DrawFn, data: bytes) -> bytes:
    place = _place(draw, data)
    return data[:place] + data[place + draw(st.sampled_from((1, 4, 100, len(data)))) :]


def _repeat(draw: DrawFn, data: bytes) -> bytes:
    place = _place(draw, data)
    part = data[place : place + draw(st.sampled_from((1, 8, 100, 1_000)))]
    return data[:place] + part + data[place:]


def _number(draw: DrawFn, data: bytes) -> bytes:
    """Overwrite a field of a header, in any width and order of bytes."""
    form = draw(st.sampled_from(("B", "<H", ">H", "<I", ">I", "<Q", ">Q")))
    size = struct.calcsize(form)
    place = _place(draw, data)
    number = draw(st.sampled_from(NUMBERS)) & ((1 << 8 * size) - 1)
    return data[:place] + struct.pack(form, number) + data[place + size :]


def _encode(draw: DrawFn, data: bytes) -> bytes:
    """Another encoding of a text, or other ends of its lines."""
    text = data.decode(errors="replace")
    form = draw(st.sampled_from(("utf-16", "utf-8-sig", "cp1252", "\r\n", "\r")))
    if "\r" in form:
        return text.replace("\n", form).encode(errors="replace")
    return text.encode(form, errors="replace")


def _swap_lines(draw: DrawFn, data: bytes) -> bytes:
    rows = data.split(b"\n")
    one, other = (draw(st.integers(0, len(rows) - 1)) for _ in "ab")
    rows[one], rows[other] = rows[other], rows[one]
    return b"\n".join(rows)


def _double_line(draw: DrawFn, data: bytes) -> bytes:
    rows = data.split(b"\n")
    one, other = (draw(st.integers(0, len(rows) - 1)) for _ in "ab")
    return b"\n".join([*rows[:one], rows[other], *rows[one:]])


def _cell(draw: DrawFn, data: bytes) -> bytes:
    """Another cell, taken from elsewhere or made up."""
    mark = b"\t" if b"\t" in data else b","
    rows = [row.split(mark) for row in data.split(b"\n")]
    one, other = (draw(st.integers(0, len(rows) - 1)) for _ in "ab")
    word = draw(st.sampled_from(WORDS) | st.text(max_size=5).map(lambda text: text.encode()))
    cells = [word, *rows[other]]
    rows[one][draw(st.integers(0, len(rows[one]) - 1))] = draw(st.sampled_from(cells))
    return b"\n".join(mark.join(row) for row in rows)


_BYTES = [_flip, _insert, _cut, _repeat, _number]
_LINES = [_flip, _insert, _cut, _repeat, _encode, *[_swap_lines, _double_line, _cell] * 2]

FIGURES = st.sampled_from(
    [0, -1, 1, 2, 10**400, 1e308, -1e308, 5e-324, 2**63, 0.5, 1.0, True, "<huge>", "<nan>"]
)
# A str with half of a pair is what JSON can hold and UTF-8 cannot.
VALUES = st.sampled_from(
    [None, True, False, 0, -1, 1, 3, 0.5, 1e308, -1e308, 10**400, 2**63, "", " ", "x", "\x00", "\n",
     "\u202e", "\x1b[2J", "last", "0", "-1", "²", "9" * 5_000, "a" * 70_000, [], {}, [None], [[]],
     [0, "x"], {"": None}, {"name": 1}, *RAW]
).map(copy.deepcopy)  # fmt: skip


@st.composite
def changed(draw: DrawFn, document: Any) -> Any:
    """JSON-like data with a few values replaced, dropped, doubled or added."""
    root: Any = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(0, 3))):
        holder, key = root, 0
        while isinstance(below := holder[key], dict | list) and below and draw(st.integers(0, 5)):
            keys: Sequence[Any] = list(below) if isinstance(below, dict) else range(len(below))
            holder, key = below, draw(st.sampled_from(keys))
        how = draw(st.sampled_from(("replace", "replace", "drop", "add")))
        if how == "replace":
            number = type(below) in (int, float) and draw(st.booleans())
            holder[key] = draw(FIGURES if number else VALUES)
        elif how == "drop" and holder is not root:
            del holder[key]
        elif isinstance(below, dict):
            below[draw(st.sampled_from(("x", "", "\ud800", "name")))] = draw(VALUES)
        elif isinstance(below, list):
            below.append(below[0] if below and draw(st.booleans()) else draw(VALUES))
    return root[0]


def as_json(document: Any, indent: int | None = None) -> str:
    """JSON, with what `RAW` stands for."""
    text = json.dumps(document, indent=indent)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text


# Kinds of files --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        inputs: what is read.
        read: reads it in an empty folder and holds what was read to its promises; raises
            `SuperbError` for what is refused.
    """

    name: str
    inputs: SearchStrategy[Any]
    read: Callable[[Any], None]


@cache
def place() -> Path:
    """A folder for all files, with the audio that manifests name."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in AUDIO:
        (folder / name).touch()
    return folder


# Manifests

AUDIO = [f"{number}.wav" for number in range(12)]
ROWS: list[dict[str, Any]] = [
    {
        "audio": name,
        "split": ("train", "train", "train", "test")[number % 4],
        "speaker": f"s{number % 3}",
        "text": ("yes", "no, thank you", "Größe", 'a "b"')[number % 3],
        "label": ("yes", "no")[number % 2],
        "id": f"u{number}",
    }
    for number, name in enumerate(AUDIO)
]


def _table(mark: str) -> bytes:
    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if set(text) & {'"', mark} else text

    rows = [list(ROWS[0]), *(row.values() for row in ROWS)]
    return "".join(mark.join(map(quoted, row)) + "\n" for row in rows).encode()


def _json_lines(rows: Any) -> bytes:
    own = rows if isinstance(rows, list) else [rows]
    return "\n".join(map(as_json, own)).encode(errors="surrogatepass") + b"\n"


_TYPES = st.sampled_from(
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.int64(), pa.float64(),
     pa.bool_(), pa.timestamp("s"), pa.date32(), pa.null(), pa.list_(pa.string()),
     pa.dictionary(pa.int32(), pa.string()), pa.struct([("bytes", pa.binary()),
     ("path", pa.string())]), pa.map_(pa.string(), pa.int64()), pa.duration("s"),
     pa.decimal128(5, 2), pa.time64("ns"), pa.float16()]
)  # fmt: skip
_CELLS = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
)


def _column(draw: DrawFn, kind: pa.DataType, count: int) -> pa.Array:
    """Values of a type, the same bytes whatever the type: also such as no value of it has."""
    try:
        if pa.types.is_string(kind):  # bytes that are no UTF-8
            cells = [draw(st.binary(max_size=3)) for _ in range(2)] * count
            return pa.array(cells[:count], pa.binary()).view(pa.string())
        plain = kind.num_buffers == 2 and kind.bit_width % 8 == 0
        if plain and not isinstance(kind, pa.DictionaryType):
            data = draw(st.binary(min_size=16, max_size=16)) * count
            return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(data)])
        return pa.array([draw(_CELLS)] * count, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.nulls(count, kind)


@st.composite
def parquet(draw: DrawFn) -> bytes:
    """A Parquet file, some of whose columns are of other types, doubled or left out."""
    columns = {name: pa.array([row[name] for row in ROWS]) for name in ROWS[0]}
    if draw(st.booleans()):
        cells = [{"bytes": b"RIFF", "path": row["audio"]} for row in ROWS]
        columns["audio"] = pa.array(cells)
    names, arrays = list(columns), list(columns.values())
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(names) - 1))
        how = draw(st.sampled_from(("type", "type", "drop", "name")))
        if how == "type":
            arrays[place] = _column(draw, draw(_TYPES), len(ROWS))
        elif how == "name":
            names[place] = draw(st.sampled_from((*names, "", "\x00", "audio.bytes", "id")))
        elif len(names) > 1:
            del names[place], arrays[place]
    sink = io.BytesIO()
    table = pa.Table.from_arrays(arrays, names=names)
    try:
        pq.write_table(table, sink, compression=draw(st.sampled_from(("none", "snappy", "zstd"))))
    except pa.ArrowException:
        pq.write_table(pa.Table.from_pylist(ROWS), sink)
    data = sink.getvalue()
    return draw(damaged(st.just(data))) if draw(st.integers(0, 2)) == 0 else data


@cache
def many_rows() -> bytes:
    """A few kilobytes that say nothing, twenty million times."""
    sink = io.BytesIO()
    pq.write_table(pa.table(dict.fromkeys(ROWS[0], pa.nulls(20_000_000, pa.string()))), sink)
    return sink.getvalue()


@cache
def _cards() -> list[Any]:
    from downstreams.load import load_downstream

    return [load_downstream(name).card for name in ("asr", "ks", "sid")]


def _manifest(given: tuple[str, bytes, int]) -> None:
    from downstreams.corpora import manifest

    suffix, data, task = given
    path = place() / f"own{suffix}"
    path.write_bytes(data)
    card = _cards()[task]
    corpus = manifest.load(path, card)
    ids = [utterance.id for utterance in corpus.utterances]
    assert len(set(ids)) == len(ids)
    for utterance in corpus.utterances:
        texts = [utterance.id, utterance.text, utterance.label, utterance.speaker]
        for text in texts:
            assert type(text) is str, text
            text.encode()
        assert utterance.id.strip()
        assert utterance.split in SPLITS
        assert all(utterance.value(column) for column in card.columns)
        audio = utterance.audio
        assert isinstance(audio, bytes) or (isinstance(audio, Path) and audio.is_file())


def _of(suffix: str, inputs: SearchStrategy[bytes]) -> Kind:
    tasks = st.integers(0, 2)
    return Kind(suffix[1:], st.tuples(st.just(suffix), inputs, tasks), _manifest)


_JSONL = st.one_of(damaged(st.just(_json_lines(ROWS)), lines=True), changed(ROWS).map(_json_lines))

# Results

RESULTS = {
    f"{path.parent.name}/{path.stem}": path.with_suffix("")
    for name in ("fbank", "hubert")
    for path in sorted((ROOT / "docs/results/ks" / name).glob("*.json"))
}


@dataclass(frozen=True)
class Files:
    """The two files of a result; whether what stands in them was signed; what is made of them."""

    name: str
    document: bytes
    table: bytes
    signed: bool
    view: int

    def __repr__(self) -> str:
        """What was changed, in a few words."""
        kept = _intact(self.name).splitlines() + records_of(self.name).splitlines()
        lines = self.document.splitlines() + self.table.splitlines()
        new = [line[:200] for line in lines if line not in kept]
        return f"Files({self.name}, signed={self.signed}, {self.view}, new={new!r:.600})"


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@cache
def document_of(name: str) -> dict[str, Any]:
    """As it would be written today, with less of its history."""
    from benchmark.scoring.results import SCHEMA, read_result

    document = dataclasses.asdict(read_result(_with_suffix(RESULTS[name], ".json")))
    return {**document, "schema": SCHEMA, "history": document["history"][:3]}


@cache
def records_of(name: str) -> bytes:
    """The first few utterances of each seed."""
    lines = _with_suffix(RESULTS[name], ".utterances.csv").read_bytes().splitlines(keepends=True)
    counts: Counter[bytes] = Counter()
    kept = [lines[0]]
    for line in lines[1:]:
        seed = line.split(b",")[0]
        counts[seed] += 1
        kept += [line] * (counts[seed] <= 8)
    return b"".join(kept)


def sign(document: Any, table: bytes) -> bytes:
    if isinstance(document, dict):
        document = {key: value for key, value in document.items() if key != "checksum"}
        document["utterances_sha256"] = hashlib.sha256(table).hexdigest()
    text = as_json(document, indent=1).removesuffix("\n}").encode()
    return text + f',\n "checksum": "{hashlib.sha256(text).hexdigest()}"\n}}\n'.encode()


@st.composite
def results(draw: DrawFn) -> Files:
    """Files of a result, edited without or with a new signature."""
    name = draw(st.sampled_from(list(RESULTS)))
    table, how, view = records_of(name), draw(st.integers(0, 5)), draw(st.integers(0, 6))
    if how == 0:
        document = draw(damaged(st.just(_intact(name)), lines=True))
        return Files(name, document, table, False, view)
    if how == 1:
        table = draw(damaged(st.just(table), lines=True))
        return Files(name, sign(document_of(name), table), table, True, view)
    return Files(name, sign(draw(changed(document_of(name))), table), table, True, view)


def _result(given: Files) -> None:
    from rich.console import Console

    from benchmark.scoring.results import read_records, read_result, to_frame
    from leaderboard.compare.encoders import compare
    from leaderboard.compare.layers import study_layers
    from leaderboard.read.collect import collect
    from leaderboard.show.comparison import as_json as as_records
    from leaderboard.show.comparison import show_comparisons
    from leaderboard.show.export import tidy_csv
    from leaderboard.show.layers import show_layers
    from leaderboard.show.render import FORMATS, render

    folder = place() / "results"
    for name in RESULTS:
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = given if name == given.name else Files(name, _intact(name), records_of(name), True, 0)
        path.write_bytes(own.document)
        path.with_suffix(".utterances.csv").write_bytes(own.table)
    path = folder / f"{given.name}.json"
    refused: SuperbError | None = None
    try:
        result = read_result(path)
        if not given.signed:
            as_written = given.document.replace(b"\r\n", b"\n")
            assert as_written == _intact(given.name), "an edit that the checksum lets pass"
        _finite(result.metrics, result.layer_weights, result.per_seed, result.folds)
        to_frame([result])
        for records in read_records(path).values():
            for record in records:
                _finite(record.values)
                json.dumps(record.id).encode()
    except SuperbError as error:
        refused = error
    out = io.StringIO()
    console = Console(file=out, width=100, emoji=False)
    try:
        if given.view < len(FORMATS):
            print(render(collect(folder), FORMATS[given.view], with_published=True), file=out)
            print(tidy_csv(folder), file=out)
        elif given.view == len(FORMATS):
            found = compare(folder, ["fbank", "hubert"])
            show_comparisons(found, console)
            json.dumps(as_records(found), allow_nan=False)
        else:
            show_layers(study_layers(folder), console)
    except SuperbError as error:
        refused = error
    out.getvalue().encode()
    if refused:
        raise refused


@cache
def _intact(name: str) -> bytes:
    return sign(document_of(name), records_of(name))


def _finite(*values: Any) -> None:
    for value in values:
        if isinstance(value, float | int):
            assert math.isfinite(value), value
        elif isinstance(value, dict):
            _finite(*value.values())
        elif isinstance(value, list | tuple):
            _finite(*value)


# Audio

FORMATS = [
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_24"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"), ("AU", "ULAW"), ("W64", "PCM_16"), ("RF64", "PCM_16"), ("CAF", "PCM_16"),
]  # fmt: skip


@cache
def recordings() -> list[bytes]:
    """A tenth of a second in many formats, at the rate of the encoder or at another, in stereo."""
    made = []
    for position, (form, subtype) in enumerate(FORMATS):
        rate, channels = ((16_000, 1), (48_000, 2))[position % 2]
        time = np.arange(rate // 10) / rate
        wave = 0.3 * np.sin(2 * np.pi * 300 * time)[:, None].repeat(channels, axis=1)
        file = io.BytesIO()
        soundfile.write(file, wave, rate, format=form, subtype=subtype)
        made.append(file.getvalue())
    return made


def _audio(given: tuple[bytes, bool, tuple[float, float] | None]) -> None:
    import torch

    from benchmark.encoding.audio import decode

    data, stored, span = given
    path = place() / "sound"
    path.write_bytes(data)
    waveform = decode(data if stored else path, 16_000, name="sound", span=span)
    assert waveform.dtype == torch.float32
    assert waveform.ndim == 1
    assert torch.isfinite(waveform).all()
    # No format packs more than this many samples into a byte, and no rate is below 1 kHz.
    assert 1 <= waveform.numel() <= len(data) * 10_000 * 16


SPANS = st.sampled_from([None, None, (0.0, 0.05), (0.05, 0.05), (0.0, 1e12)])

# Protocols

PROTOCOL = ROOT / "downstreams/protocols/superb.toml"


def _as_toml(table: Any, name: str = "") -> str:
    """TOML of JSON-like data; what it has no word for is written in JSON."""
    if not isinstance(table, dict):
        return as_json(table)
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"[{name}]"] * bool(name)
    lines += [f"{json.dumps(key)} = {_inline(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines.append(_as_toml(value, f"{name}.{json.dumps(key)}".removeprefix(".")))
    return "\n".join(lines)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(key)} = {_inline(own)}" for key, own in value.items())
        return "{" + inside + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return as_json(value)


@cache
def _protocol_text() -> bytes:
    from tests.made import QUICK

    return QUICK.encode()


def _protocol(data: bytes) -> None:
    from benchmark.protocol import load_protocol

    path = place() / "own.toml"
    path.write_bytes(data)
    protocol = load_protocol(str(path), PROTOCOL.parent)
    for task in ("asr", "ks", "sid"):
        training = protocol.training(task, own=None)
        assert all(0 < rate < math.inf for rate in training.learning_rates)
        json.dumps(protocol.record(training), allow_nan=False)
        assert math.isfinite(training.factor(training.updates - 1))


# Checkpoints


@cache
def checkpoint() -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    """Settings, weights and preprocessor of a tiny wav2vec 2.0, as transformers writes them."""
    import torch
    from safetensors.torch import save

    from tests.conftest import TINY
    from upstreams.loading.checkpoint import encoder_config, their_names, their_shapes
    from upstreams.models.transformer import TransformerEncoder

    sizes = {**TINY, "conv_dim": [4] * 7, "num_hidden_layers": 1, "hidden_size": 16}
    settings = {"model_type": "wav2vec2", **sizes}
    config = encoder_config(settings)
    encoder = TransformerEncoder(config)
    names = their_names(config)
    weights = {}
    for ours, parameter in encoder.state_dict().items():
        shapes = their_shapes(ours, names[ours], tuple(parameter.shape))
        weights.update({name: torch.ones(shape) for name, shape in shapes.items()})
    return settings, save(weights), {"do_normalize": True, "sampling_rate": 16_000}


@st.composite
def checkpoints(draw: DrawFn) -> tuple[str, bytes, str]:
    """Three files, one of them changed."""
    settings, weights, extractor = checkpoint()
    which = draw(st.integers(0, 3))
    if which == 0:
        weights = draw(damaged(st.just(weights)))
    elif which == 1:
        size = int.from_bytes(weights[:8], "little")
        header = draw(changed(json.loads(weights[8 : 8 + size])))
        text = as_json(header).encode()
        weights = len(text).to_bytes(8, "little") + text + weights[8 + size :]
    elif which == 2:
        settings = draw(changed(settings))
    else:
        extractor = draw(changed(extractor))
    return as_json(settings), weights, as_json(extractor)


def _checkpoint(given: tuple[str, bytes, str]) -> None:
    import torch

    from upstreams.loading.checkpoint import load_transformer
    from upstreams.loading.files import Origin

    folder = place() / "checkpoint"
    folder.mkdir(exist_ok=True)
    settings, weights, extractor = given
    (folder / "config.json").write_text(settings, encoding="utf-8")
    (folder / "model.safetensors").unlink(missing_ok=True)  # what is mapped must not change
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "preprocessor_config.json").write_text(extractor, encoding="utf-8")
    upstream = load_transformer(folder, Origin("own", str(folder)))
    assert upstream.card.sample_rate > 0
    assert all(value.dtype == torch.float32 for value in upstream.encoder.state_dict().values())


KINDS = [
    _of(".csv", damaged(st.just(_table(",")), lines=True)),
    _of(".tsv", damaged(st.just(_table("\t")), lines=True)),
    _of(".jsonl", _JSONL),
    _of(
        ".parquet", st.one_of(*[parquet()] * 5, damaged(st.deferred(lambda: st.just(many_rows()))))
    ),
    Kind("result", results(), _result),
    Kind(
        "audio",
        st.tuples(
            damaged(st.deferred(lambda: st.sampled_from(recordings()))), st.booleans(), SPANS
        ),
        _audio,
    ),
    Kind(
        "protocol",
        st.one_of(
            damaged(st.deferred(lambda: st.just(_protocol_text())), lines=True),
            st.deferred(lambda: changed(tomllib.loads(_protocol_text().decode()))).map(
                lambda data: _as_toml(data).encode(errors="surrogatepass")
            ),
        ),
        _protocol,
    ),
    Kind("checkpoint", checkpoints(), _checkpoint),
]


# Running ---------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of one kind.

    Attributes:
        counts: examples that were accepted and refused.
        messages: of refusals, without what differs from file to file.
    """

    counts: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)


class TooSlowError(BaseException):
    """A reader took more than `SECONDS` of a processor; no reader catches this."""


def fuzz(kind: Kind, examples: int, outcome: Outcome, *, derandomize: bool = False) -> None:
    """Read that many files of a kind, and count what came of them.

    Raises:
        Exception: whatever a reader raised that is no `SuperbError`, for the smallest file.
    """

    @settings(
        max_examples=examples, derandomize=derandomize, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(kind.inputs)
    def read(given: Any) -> None:
        try:
            with watched():
                kind.read(given)
        except SuperbError as error:
            if isinstance(error.__cause__, MemoryError):  # refused, but only after trying
                raise MemoryError(str(error)) from error
            outcome.counts["refused"] += 1
            outcome.messages["".join(c for c in str(error)[-60:] if c.isalpha())] += 1
        else:
            outcome.counts["accepted"] += 1

    _prepare(kind)
    with _bounded_memory():
        read()


def _prepare(kind: Kind) -> None:
    """Import and cache what the readers need, before time and memory count."""
    import torchaudio  # noqa: F401

    @settings(max_examples=5, derandomize=True, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(kind.inputs)
    def warm(given: Any) -> None:
        try:
            kind.read(given)
        except Exception:  # found again below
            return

    warm()


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """No more address space than there is now, and `MEMORY`."""
    logging.disable()  # what is logged is said on purpose
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        logging.disable(logging.NOTSET)


@contextmanager
def watched() -> Iterator[None]:
    """Neither slow nor loud, C libraries included."""

    def stop(*_: object) -> None:
        raise TooSlowError(f"more than {SECONDS} s")

    handler = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    saved = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as said:
        try:
            for number in (1, 2):
                os.dup2(said.fileno(), number)
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, handler)
            for number, kept in enumerate(saved, start=1):
                os.dup2(kept, number)
                os.close(kept)
            said.seek(0)
            text = said.read()
            assert not text, f"printed: {text!r:.200}"


def _shown(name: str, error: BaseException) -> str:
    """Each thing that went wrong: where, and the smallest file."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(_shown(name, one) for one in error.exceptions)
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "hypothesis" not in frame.filename
    ]
    note = " ".join(" ".join(getattr(error, "__notes__", ())).split())
    given = re.sub(r"(.{1,5}?)\1{50,}", r"\1…\1", note)
    short = given if len(given) < 1_000 else f"{given[:500]} … {given[-500:]}"
    what = f"{type(error).__name__}: {error!s:.300}"
    return f"## {name}: {what}\n{' > '.join(frames[-6:])}\n{short}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a Markdown table; the exit code is the number of kinds that fail."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000)
    parser.add_argument("--kinds", default=",".join(kind.name for kind in KINDS))
    parser.add_argument("--messages", action="store_true", help="print how often each was said")
    chosen = parser.parse_args(arguments)
    failed = 0
    print("| file | examples | seconds | accepted | refused | messages | |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for kind in KINDS:
        if kind.name not in chosen.kinds.split(","):
            continue
        began, outcome, verdict = time.perf_counter(), Outcome(), "right"
        try:
            fuzz(kind, chosen.examples, outcome)
        except BaseException as error:
            failed += 1
            verdict = "**wrong**"
            print(_shown(kind.name, error), file=sys.stderr)
        counts = outcome.counts
        print(
            f"| {kind.name} | {counts.total()} | {time.perf_counter() - began:.0f} | "
            f"{counts['accepted']} | {counts['refused']} | {len(outcome.messages)} | {verdict} |",
            flush=True,
        )
        if chosen.messages:
            for message, count in outcome.messages.most_common(30):
                print(count, message, file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
