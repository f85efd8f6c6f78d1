import dataclasses
import errno
import gzip
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError
from benchmark.scoring import results as module
from benchmark.scoring.results import (
    SCHEMA,
    DamagedResultError,
    NewerResultError,
    Result,
    canonical_json,
    card_metrics,
    find_result,
    read_records,
    read_result,
    read_results,
    result_path,
    run_id,
    safe_name,
    to_frame,
    utterances_path,
    write_result,
)
from benchmark.scoring.statistics import difference_of, interval_of

IDENTITY = {
    "upstream": {"name": "fbank", "fingerprint": "f0"},
    "downstream": {"name": "ks", "version": 1},
    "corpus": {"name": "mini", "sha256": "c0"},
    "protocol": {"name": "superb", "version": 1, "sha256": "a0"},
    "layer": "last",
    "seeds": [0, 1],
    "precision": "float32",
    "storage": "float16",
    "skipped_audio": "refuse",
}

METRIC = {"name": "accuracy", "direction": "higher", "statistic": "ratio", "unit": "%"}

SCORE = {
    "value": 90.0,
    "low": 80.0,
    "high": 95.5,
    "confidence": 0.95,
    "clusters": 2,
    "utterances": 2,
    "seed_std": 1.5,
}


def make(**changes) -> Result:
    result = Result(
        run_id=run_id(IDENTITY),
        status="finished",
        created="2026-01-02T03:04:05+00:00",
        identity=IDENTITY,
        upstream={"name": "fbank", "note": ""},
        downstream={
            "name": "ks",
            "version": 1,
            "metrics": [METRIC],
        },
        corpus={"name": "mini", "sha256": "c0"},
        protocol={"name": "superb", "version": 1},
        layer="last",
        seeds=[0, 1],
        metrics={"accuracy": SCORE},
        learning_rate=0.1,
        learning_rate_at_edge=False,
        learning_rate_curve=[],
        per_seed=[],
        history=[
            {"learning_rate": 0.1, "seed": 0, "update": 5, "train_loss": 1.0, "valid": None},
        ],
        layer_weights=None,
        layer_norms=[1.0, 2.0],
        skipped_audio=[],
        warnings=[],
        timings={"train": 0.1 + 0.2},
        encoder={"parameters": 0, "throughput": None},
        provenance={"commit": None},
    )
    return dataclasses.replace(result, **changes)


HOSTILE = 'he said "no", then\r\nleft;\ttab \x00 | <b>'


def counted(hypothesis: str = HOSTILE) -> dict[int, list[Record]]:
    return {
        seed: [
            Record("a,1", ("",), "on", hypothesis, {"accuracy": (1, 1)}),
            Record("b", ("speaker\n2",), "", "", {"accuracy": (0, 1)}),
        ]
        for seed in (0, 1)
    }


def test_run_ids_of_the_past():
    # These values must NOT be changed: results are found by them.
    assert run_id({}) == "e5b669e1c6c10888"
    assert run_id(IDENTITY) == "f280ff59b94ef644"
    assert run_id({"name": "ä/日", "rates": [1, 1.0, 1e-5], "x": None}) == "7b91f6f358a873bc"


def test_run_id_sees_content_only():
    assert run_id(dict(reversed(IDENTITY.items()))) == run_id(IDENTITY)
    assert run_id({**IDENTITY, "seeds": (0, 1)}) == run_id(IDENTITY)
    assert run_id({**IDENTITY, "seeds": [1, 0]}) != run_id(IDENTITY)
    with pytest.raises(ValueError, match="Out of range"):
        run_id({"rate": float("nan")})


def test_round_trip(tmp_path):
    result = make()
    path = write_result(tmp_path, result, counted())
    assert path == tmp_path / "ks" / "fbank" / f"{result.run_id}.json"
    back = read_result(path)
    stored = {"checksum": back.checksum, "utterances_sha256": back.utterances_sha256}
    assert back == dataclasses.replace(result, **stored)
    assert read_records(path) == counted()
    assert next(iter(json.loads(path.read_text()))) == "schema"
    names = {field.name for field in dataclasses.fields(Result)}
    # which old versions can read, too
    assert set(json.loads(path.read_text())) == names - {"layer_scores", "attention"}
    searched = dataclasses.replace(result, layer_scores=[0.5, 1.5])
    assert read_result(write_result(tmp_path / "searched", searched, counted())).layer_scores == [
        0.5,
        1.5,
    ]
    looked = [{"utterance": "a", "symbols": ["A"], "weights": [[0.5, 0.5]]}]
    attended = dataclasses.replace(result, attention=looked)
    assert read_result(write_result(tmp_path / "attended", attended, counted())).attention == looked
    assert find_result(tmp_path, "ks", "fbank", result.run_id) == back
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        path.name,
        utterances_path(path).name,
    ]


def test_same_result_same_bytes(tmp_path):
    one = write_result(tmp_path / "a", make(), counted())
    two = write_result(tmp_path / "b", read_result(one), counted())
    assert one.read_bytes() == two.read_bytes()
    assert utterances_path(one).read_bytes() == utterances_path(two).read_bytes()


def test_csv_columns_are_readable_elsewhere(tmp_path):
    import pandas

    path = write_result(tmp_path, make(), counted("two\nlines"))
    frame = pandas.read_csv(utterances_path(path), keep_default_na=False)
    assert list(frame.columns) == [
        "seed",
        "utterance",
        "speaker",
        "reference",
        "hypothesis",
        "accuracy_numerator",
        "accuracy_denominator",
    ]
    assert frame["accuracy_numerator"].tolist() == [1, 0, 1, 0]
    assert frame["hypothesis"][0] == "two\nlines"


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_safe_names(one, two):
    name = safe_name(one)
    assert name == Path(name).name
    assert name not in (".", "..")
    assert len(name.encode()) < 200
    assert (safe_name(two) == name) == (one == two)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("hubert-base_ls960.v2", "hubert-base_ls960.v2"),
        ("hf:org/model", "hf%3Aorg%2Fmodel"),
        ("hf%3Aorg%2Fmodel", "hf%253Aorg%252Fmodel"),
        ("..", "%2E."),
        ("", "%"),
        ("a\nb|c", "a%0Ab%7Cc"),
    ],
)
def test_safe_name(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_no_nan_enters_a_file(tmp_path, bad):
    history = [{"learning_rate": 0.1, "seed": 0, "update": 1, "train_loss": bad, "valid": None}]
    with pytest.raises(ValueError, match=r"result\.history\[0\]\.train_loss is"):
        write_result(tmp_path, make(history=history), counted())
    assert not list(tmp_path.rglob("*"))


def test_counts_are_whole(tmp_path):
    half = {0: [Record("a", ("s",), "", "", {"accuracy": (0.5, 1)})]}
    with pytest.raises(ValueError, match="whole numbers"):
        write_result(tmp_path, make(), half)


@pytest.mark.parametrize("failing", [1, 2])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, failing):
    before = write_result(tmp_path, make(), counted())
    content = {path: path.read_bytes() for path in before.parent.iterdir()}
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SuperbError, match=r"disk is full.*--output"):
        write_result(tmp_path, make(warnings=["new"]), counted("new"))
    assert {path: path.read_bytes() for path in before.parent.iterdir()} == content


def test_output_that_is_a_file(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(SuperbError, match=r"cannot be written.*--output"):
        write_result(tmp_path / "results", make(), counted())


def test_missing_is_none(tmp_path):
    assert find_result(tmp_path, "ks", "fbank", "0" * 16) is None


def damage_number(path: Path) -> None:
    path.write_text(path.read_text().replace("90.0", "99.0"))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def a_list(path: Path) -> None:
    path.write_text("[]")


def no_number(path: Path) -> None:
    path.write_text(path.read_text().replace("90.0", "NaN"))


def resigned(path: Path, **changes) -> None:
    """Change a file and make its checksum right again."""
    document = json.loads(path.read_text())
    document.pop("checksum")
    document.update(changes)
    path.write_bytes(module.signed(document))


def card(metric) -> dict:
    return {"name": "ks", "version": 1, "metrics": [metric]}


@pytest.mark.parametrize(
    "damage",
    [
        damage_number,
        cut_short,
        empty,
        not_text,
        a_list,
        no_number,
        lambda path: resigned(path, metrics={"accuracy": {"value": "high"}}),
        lambda path: resigned(path, metrics={"accuracy": 3}),
        lambda path: resigned(path, status="perfect"),
        lambda path: resigned(path, surprise=1),
        lambda path: resigned(path, upstream={}),
        lambda path: resigned(path, schema="1"),
        lambda path: resigned(path, history=[{"learning_rate": 0.1}]),
        lambda path: resigned(path, history=[3]),
        lambda path: resigned(path, learning_rate_curve=[{"learning_rate": 0.1}]),
        lambda path: resigned(path, per_seed=["0"]),
        lambda path: resigned(path, skipped_audio=[{"utterance": 1}]),
        lambda path: resigned(path, downstream={"name": "ks", "version": 1, "metrics": []}),
        lambda path: resigned(path, downstream=card(METRIC | {"direction": "up"})),
        lambda path: resigned(path, downstream=card({"name": "accuracy"})),
        lambda path: resigned(path, downstream=card("accuracy")),
        lambda path: resigned(path, folds=[{"fold": 1}]),
        lambda path: path.write_text(path.read_text().replace("90.0", "1e999")),
    ],
)
def test_damaged_file_is_named_and_not_used(tmp_path, damage, caplog):
    path = write_result(tmp_path, make(), counted())
    damage(path)
    with pytest.raises(DamagedResultError) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    with caplog.at_level(logging.WARNING):
        assert find_result(tmp_path, "ks", "fbank", path.stem) is None
    assert str(path) in caplog.text
    found, problems = read_results(tmp_path)
    assert found == []
    assert len(problems) == 1
    assert str(path) in problems[0]
    write_result(tmp_path, make(), counted())
    assert find_result(tmp_path, "ks", "fbank", path.stem) is not None


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("seed\n")])
def test_utterances_gone_or_changed(tmp_path, change, caplog):
    path = write_result(tmp_path, make(), counted())
    change(utterances_path(path))
    assert read_result(path).status == "finished"
    with pytest.raises(DamagedResultError, match="utterances"):
        read_records(path)
    assert find_result(tmp_path, "ks", "fbank", path.stem) is None
    assert "done again" in caplog.text


POINT = {"learning_rate": 1e-05, "seed": 0, "update": 5, "train_loss": None, "valid": 81.25}


@pytest.mark.parametrize("history", [[], [POINT], [POINT, {**POINT, "valid_loss": 0.1 + 0.2}] * 3])
def test_history_can_be_left_out(tmp_path, history):
    path = write_result(tmp_path, make(history=history), counted())
    whole = read_result(path)
    assert whole.history == history
    assert read_result(path, history=False) == dataclasses.replace(whole, history=[])


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        *[("81.25", "81.5"), ('"update": 5', '"update": 6'), ("90.0", "91.0"), ('"seed": 0,', "")],
        *[('"checksum": "', '"checksum": "0'), ("\n}\n", ',\n "status": "failed"\n}\n')],
        *[(' "layer_weights"', '  "layer_weights"')],
    ],
)
def test_a_changed_file_is_found_however_it_is_read(tmp_path, old, new, history):
    path = write_result(tmp_path, make(history=[POINT, POINT]), counted())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DamagedResultError, match="checksum"):
        read_result(path, history=history)


def test_line_ends_of_another_system_change_nothing(tmp_path):
    path = write_result(tmp_path, make(history=[POINT]), counted())
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_result(path).history == [POINT]


def test_renamed_file_is_not_that_run(tmp_path):
    path = write_result(tmp_path, make(), counted())
    other = result_path(tmp_path, "ks", "fbank", "0" * 16)
    path.rename(other)
    assert find_result(tmp_path, "ks", "fbank", "0" * 16) is None


def test_newer_schema_is_refused_not_replaced(tmp_path):
    path = write_result(tmp_path, make(), counted())
    path.write_text(json.dumps({"schema": SCHEMA + 1, "all": "different"}))
    with pytest.raises(NewerResultError, match=r"written by a newer version.*[Uu]pgrade"):
        read_result(path)
    with pytest.raises(NewerResultError):
        find_result(tmp_path, "ks", "fbank", path.stem)
    assert "newer version" in read_results(tmp_path)[1][0]


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(SuperbError, match="superb run"):
        read_results(tmp_path)
    with pytest.raises(SuperbError, match="does not exist"):
        read_results(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(SuperbError, match="not a folder"):
        read_results(tmp_path / "file")


def test_frame():
    failed = make(status="failed", metrics={}, learning_rate=None)
    frame = to_frame([make(), failed])
    assert frame["value"].tolist()[0] == 90.0
    assert frame["status"].tolist() == ["finished", "failed"]
    assert frame["upstream"].tolist() == ["fbank", "fbank"]
    assert frame["value"].isna().tolist() == [False, True]
    assert to_frame([]).empty


def test_canonical_json():
    assert canonical_json({"b": (1, None), "a": "ä"}) == '{"a":"\\u00e4","b":[1,null]}'


def test_imports_nothing_heavy():
    code = (
        "import sys, benchmark.scoring.results, benchmark.provenance; "
        "print([name for name in ('torch', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


TRIALS = {
    "name": "eer", "direction": "lower", "statistic": "equal-error-rate", "unit": "%",
}  # fmt: skip


def test_records_of_two_speakers_and_of_folds(tmp_path):
    made = make(downstream=card(METRIC) | {"metrics": [TRIALS, METRIC]})
    records = {
        seed: [
            Record("a b", ("ann", "bob"), "", "", {"eer": (0.1 + 0.2, 0), "accuracy": (1, 1)}, "1"),
            Record("a a", ("ann",), "", "", {"eer": (-1e-30, 1), "accuracy": (0, 1)}, "2"),
            Record("a ?", ("", "ann"), "", "", {"eer": (2.0, 1), "accuracy": (0, 1)}, "2"),
        ]
        for seed in (0, 1)
    }
    path = write_result(tmp_path, made, records)
    head = utterances_path(path).read_text().splitlines()[0].replace('"', "")
    assert head == (
        "seed,utterance,speaker,other_speaker,fold,reference,hypothesis,"
        "eer_score,eer_target,accuracy_numerator,accuracy_denominator"
    )
    back = read_records(path)
    assert back == records
    assert [type(number) for number in back[0][0].values["eer"]] == [float, int]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record("a", (), "", "", {"accuracy": (1, 1)}), "belongs to one or two"),
        (Record("a", ("x", "y", "z"), "", "", {"accuracy": (1, 1)}), "belongs to one or two"),
        (Record("a", ("x",), "", "", {"wer": (1, 1), "accuracy": (1, 1)}), "wer: scored, but no"),
        (Record("a", ("x",), "", "", {"accuracy": (1,)}), "not a tuple .numerator, denominator."),
        (Record("a", ("x",), "", "", {"accuracy": (float("nan"), 1)}), "not finite numbers"),
    ],
)
def test_records_that_no_file_holds(tmp_path, record, message):
    with pytest.raises(ValueError, match=message):
        write_result(tmp_path, make(), {0: [record]})


def test_folds_are_kept(tmp_path):
    fold = {"fold": "1", "learning_rate": None, "metrics": {"accuracy": 50.0}, "valid": None,
            "utterances": 2}  # fmt: skip
    assert read_result(write_result(tmp_path, make(folds=[fold]), counted())).folds == [fold]


def test_cards_of_older_files_are_read_in_todays_form(tmp_path):
    path = write_result(tmp_path, make(), counted())
    document = json.loads(path.read_text())
    for name in ("checksum", "folds"):
        del document[name]
    document |= {"schema": 2}
    document["downstream"] |= {"metrics": ["accuracy", "top5"], "direction": "higher"}
    path.write_bytes(module.signed(document))
    read = read_result(path)
    assert (read.schema, read.folds) == (2, [])
    assert "direction" not in read.downstream
    assert card_metrics(read) == (Metric("accuracy", "higher"), Metric("top5", "higher"))
    assert read_records(path) == counted()


def test_an_interval_of_no_width_is_none():
    """Every utterance has the same mean: that is not to be sure of others."""
    metric = Metric("length", "higher", statistic="mean", unit="words")
    same = [Record(str(i), (f"s{i}",), "", "", {"length": (3.0,)}) for i in range(12)]
    assert module.no_interval(interval_of(same, metric), "words") == "nothing varies"
    assert not module.no_interval(difference_of(same, same, metric), "words")


def test_a_search_that_finds_everything_is_not_sure_of_the_next():
    metric = Metric("mtwv", "higher", statistic="maximum-term-weighted-value")
    trials = [
        Record(f"{query}|{document}", (f"q{query}", f"d{document}"), "", "",
               {"mtwv": (found := float(query == document), found, query)})
        for query in range(12) for document in range(12)
    ]  # fmt: skip
    found = interval_of(trials, metric)
    assert (found.value, found.high) == (100, 100)
    assert 50 < found.low < 95
    assert not module.no_interval(difference_of(trials, trials, metric), "%")


def test_a_table_may_be_compressed(tmp_path):
    path = write_result(tmp_path, make(), counted())
    table = utterances_path(path)
    packed = table.with_name(f"{table.name}.gz")
    packed.write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    assert read_records(path) == counted()
    assert find_result(tmp_path, "ks", "fbank", path.stem) is not None
    for damaged in (packed.read_bytes()[:-9], b"no gzip", gzip.compress(b"other")):
        packed.write_bytes(damaged)
        with pytest.raises(DamagedResultError, match=table.name):
            read_records(path)
