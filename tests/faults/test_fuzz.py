"""Some hundred damaged files of each kind: a value or one error, nothing else."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from benchmark.errors import SuperbError
from tests.faults import fuzz

EXAMPLES = {"result": 30, "audio": 100, "checkpoint": 60}
KINDS = {kind.name: kind for kind in fuzz.KINDS}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_whatever_the_bytes(kind):
    outcome = fuzz.Outcome()
    fuzz.fuzz(kind, EXAMPLES.get(kind.name, 150), outcome, derandomize=True)
    # else the files are too sound, or too damaged, to say anything
    assert min(outcome.counts["accepted"], outcome.counts["refused"]) >= 3


# What such runs have found -----------------------------------------------------------------------


def refused(kind: str, given: object, *says: str) -> None:
    """One error that says this, and nothing on the terminal."""
    with fuzz.watched(), pytest.raises(SuperbError) as caught:
        KINDS[kind].read(given)
    assert all(part in str(caught.value) for part in says), caught.value


@pytest.mark.parametrize("line", [b"9" * 5_000, b"[" * 20_000])
def test_json_that_python_does_not_read(line):
    refused("jsonl", (".jsonl", line, 1), "line 1: not JSON")


def test_parquet_that_python_cannot_hold():
    far = pa.array([2**31 - 1] * len(fuzz.ROWS), pa.int32()).view(pa.date32())
    table = pa.Table.from_pylist(fuzz.ROWS).append_column("day", far)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    with pytest.raises(OverflowError):
        table.to_pylist()
    refused("parquet", (".parquet", sink.getvalue(), 1), "not a readable Parquet file")
    refused("parquet", (".parquet", fuzz.many_rows(), 1), "promises 20000000 rows")


def test_a_result_that_somebody_signed():
    name = next(name for name in fuzz.RESULTS if name.startswith("hubert/"))
    table = fuzz.records_of(name)

    def signed(*path: str, value: object, table: bytes = table) -> fuzz.Files:
        document = json.loads(json.dumps(fuzz.document_of(name)))
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        return fuzz.Files(name, fuzz.sign(document, table), table, True, 0)

    for value in ("<huge>", 10**400):
        refused("result", signed("metrics", "accuracy", "value", value=value), "finite numbers")
    refused("result", signed("seeds", value=[0, [], 2]), "seeds holds []")
    refused("result", signed("layer_weights", value=["x"]), "layer_weights holds 'x'")
    for damaged in (
        table.replace(b"reference", b"referens"),
        table.replace(b"accuracy_numerator", b"right"),
        table.replace(b",1,1", b",nan,1"),
        table.replace(b'"s04"', b"a" * 140_000),
        table + b"\xff",
        table + b"0,\n",
    ):
        given = signed("layer", value="last", table=damaged)
        refused("result", given, "no table of the utterances")


def test_protocols_and_settings_that_are_too_much():
    refused("protocol", b"version = " + b"9" * 5_000, "not valid TOML")
    refused("protocol", b"version = " + b"[" * 20_000, "not valid TOML")
    settings, weights, extractor = fuzz.checkpoint()
    for changes in (
        {"num_hidden_layers": 10**9},
        {"hidden_size": 10**20},
        {"conv_dim": [True] + [4] * 6},
        {"conv_dim": [10**400] + [4] * 6},
        {"model_type": []},
    ):
        given = json.dumps(settings | changes), weights, json.dumps(extractor)
        refused("checkpoint", given, "config.json")


def test_headers_cost_nothing_and_make_no_library_talk():
    formats = [form for form, _ in fuzz.FORMATS]
    aiff = fuzz.recordings()[formats.index("AIFF")]
    # the search for the next chunk leads before the start
    refused("audio", (aiff.replace(b"SSND", b"SND"), True, None), "sound")
    mp3 = fuzz.recordings()[formats.index("MP3")]
    refused("audio", (mp3[:2] + b"\0" + mp3[3:], True, None), "sound")
    wav = fuzz.recordings()[formats.index("WAV")]
    rate = (2**31 - 1).to_bytes(4, "little")  # minutes of filtering
    refused("audio", (wav[:24] + rate + wav[28:], True, None), "no rate of speech")
    loud = io.BytesIO()
    samples = np.full((1_600, 2), 3e38, np.float32)
    soundfile.write(loud, samples, 16_000, format="WAV", subtype="FLOAT")
    refused("audio", (loud.getvalue(), True, None), "sound")
