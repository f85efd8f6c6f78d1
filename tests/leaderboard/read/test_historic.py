"""Result files of the past must load for ever: never change or delete the files in ``data``."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.errors import SuperbError
from benchmark.scoring.results import read_records, read_result
from leaderboard.read.collect import collect
from leaderboard.show.render import render

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.rglob("*.json"))


def test_there_are_some():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_historic_file_loads(path):
    result = read_result(path)
    assert result.status == "finished"
    assert result.run_id == path.stem
    records = read_records(path)
    assert sorted(records) == sorted(result.seeds)
    assert all(set(record.values) == set(result.metrics) for record in records[0])
    text = render(collect(path.parents[2]), "markdown")
    assert result.upstream["name"] in text


def test_schema_1_means_what_it_meant():
    result = read_result(next((DATA / "schema1").rglob("*.json")))
    assert result.schema == 1
    assert result.metrics["wer"]["value"] == 12.5
    assert result.layer_weights == [0.25, 0.75]
    assert result.learning_rate_curve[2]["valid"] is None
    assert result.warnings == ["an old warning, kept: ä, “quoted”"]


def test_schemas_say_the_same():
    first, *later = (next((DATA / f"schema{number}").rglob("*.json")) for number in (1, 2, 3))
    for schema, path in enumerate(later, start=2):
        result = read_result(path)
        assert result.schema == schema
        assert replace(read_result(first), schema=schema, checksum=result.checksum) == result
        assert read_records(first) == read_records(path)


@pytest.mark.parametrize("history", [True, False])
def test_files_of_the_first_schema_load_in_any_layout(tmp_path, history):
    (path,) = (DATA / "schema1").rglob("*.json")
    whole = read_result(path)
    assert whole.schema == 1
    assert whole.history
    copy = tmp_path / path.name
    copy.write_text(json.dumps(json.loads(path.read_text())))
    read = read_result(copy, history=history)
    assert read == (whole if history else replace(whole, history=[]))
    copy.write_text(copy.read_text().replace('"seed": 0', '"seed": 7', 1))
    with pytest.raises(SuperbError, match="does not match its checksum"):
        read_result(copy, history=history)
