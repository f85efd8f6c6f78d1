import csv
import io
import os
import re
import shutil
from dataclasses import replace

import pytest

from benchmark.errors import SuperbError
from leaderboard.compare.ranks import summarise
from leaderboard.read.collect import arrange, collect, read_board
from leaderboard.show.render import render


def test_protocols_corpora_and_versions_never_mix(save, tmp_path):
    save("hubert", "ks", "last", 90.0)
    save("wavlm", "ks", "last", 91.0, protocol_version=2)
    save("cpc", "ks", "last", 92.0, corpus_sha256="d1" * 32)
    save("fbank", "ks", "last", 93.0, version=2)
    tables = collect(tmp_path / "results").tables
    assert [[row.upstream for row in table.rows] for table in tables] == [
        ["hubert"],
        ["wavlm"],
        ["cpc"],
        ["fbank"],
    ]
    text = render(collect(tmp_path / "results"))
    for word in ("superb version 2", "d1d1d1d1", "ks version 2"):
        assert word in text


def test_other_audio_of_the_same_sizes_is_another_table(save, tmp_path):
    save("hubert", "ks", "last", 90.0)  # from before results said so
    save("apc", "ks", "last", 94.0, audio_sha256="a1" * 32)
    (table,) = collect(tmp_path / "results").tables
    assert {row.upstream for row in table.rows} == {"hubert", "apc"}
    assert table.audio_sha256 == "a1" * 32
    save("npc", "ks", "last", 95.0, audio_sha256="b2" * 32)
    board = collect(tmp_path / "results")
    assert [[row.upstream for row in table.rows] for table in board.tables] == [
        ["hubert"],
        ["apc"],
        ["npc"],
    ]
    text = render(board)
    assert "audio a1a1a1a1" in text
    assert "audio b2b2b2b2" in text


def test_another_engine_is_another_table(result):
    first, second = result("a", "ks", "last", 90.0), result("b", "ks", "last", 80.0)
    first = replace(first, identity={**first.identity, "engine": 1})
    second = replace(second, identity={**second.identity, "engine": 2})
    board = arrange([first, second])
    assert [[row.upstream for row in table.rows] for table in board.tables] == [["a"], ["b"]]
    assert render(board).count("engine version 2") == 2  # in the summary and on its own table
    rows = csv.DictReader(io.StringIO(render(board, "csv")))
    assert [row["engine"] for row in rows if row["kind"] == "measured"] == ["1", "2"]


def test_newest_wins_and_says_so(save, tmp_path):
    save("hubert", "ks", "last", 95.0, seeds=(3, 4, 5), created="2026-01-03T00:00:00+00:00")
    save("hubert", "ks", "last", 70.0, created="2026-01-02T00:00:00+00:00")
    board = collect(tmp_path / "results")
    cell = board.tables[0].rows[0].cells["last"]
    assert cell.metrics["accuracy"]["value"] == 95.0
    assert len(board.notes) == 1
    assert "ks, hubert, last" in board.notes[0]
    assert "left out for the newer" in render(board, "markdown")


def test_two_encoders_of_one_name_are_two_rows(save, tmp_path):
    save("hubert", "ks", "last", 95.0, fingerprint="aaaaaaaabbbb")
    save("hubert", "ks", "last", 70.0, fingerprint="ccccccccdddd")
    board = collect(tmp_path / "results")
    assert [row.label for row in board.tables[0].rows] == ["hubert @aaaaaaaa", "hubert @cccccccc"]
    assert not board.notes


def test_an_encoder_is_one_row_whatever_version_of_code_computed_it(result):
    old = result("hubert", "ks", "last", 70.0, fingerprint="a" * 16)  # does not tell its weights
    again = result("hubert", "asr", "last", 9.0, fingerprint="a" * 16, weights="1" * 64)
    newer = result(
        "hubert",
        "ks",
        "weighted-sum",
        80.0,
        fingerprint="b" * 16,
        weights="1" * 64,
        created="2026-02-02T00:00:00+00:00",
    )
    named = result("other", "ks", "last", 71.0, fingerprint="c" * 16, weights="1" * 64)
    tuned = result("hubert", "ks", "last", 90.0, fingerprint="d" * 16, weights="2" * 64)
    board = arrange([newer, tuned, named, again, old])
    rows = {row.label: row for row in board.tables[-1].rows}
    assert set(rows) == {"hubert @11111111", "hubert @22222222", "other"}
    cells = rows["hubert @11111111"].cells
    assert {layer: cell.fingerprint[0] for layer, cell in cells.items()} == {
        "last": "a",
        "weighted-sum": "b",
    }
    assert [note for note in board.notes if "11111111" in note] == [
        "ks, hubert @11111111: one encoder, by different code or libraries: "
        f"last (run {old.run_id}, fingerprint aaaaaaaa), "
        f"weighted-sum (run {newer.run_id}, fingerprint bbbbbbbb)"
    ]
    (summary,) = summarise(board)
    assert [row.label for row in summary.rows if all(row.rows)] == ["hubert @11111111"]
    # without the result that tells what the old one scored, they stand apart
    apart = {row.label for table in arrange([newer, old]).tables for row in table.rows}
    assert apart == {"hubert @aaaaaaaa", "hubert @11111111"}
    # one that tells something else of a fingerprint takes nothing from those that tell their own
    forged = result("hubert", "ks", "1", 1.0, fingerprint="b" * 16, weights="3" * 64)
    mixed = {row.label: row for row in arrange([newer, again, forged, old]).tables[-1].rows}
    assert set(mixed["hubert @11111111"].cells) == {"last", "weighted-sum"}
    assert set(mixed["hubert @33333333"].cells) == {"1"}


def test_more_seeds_win_over_newer(result):
    few = result("hubert", "ks", "last", 95.0, seeds=(0,), created="2026-01-03T00:00:00+00:00")
    many = result("hubert", "ks", "last", 70.0, created="2026-01-02T00:00:00+00:00")
    for runs in ([few, many], [many, few]):
        board = arrange(runs)
        assert board.tables[0].rows[0].cells["last"].run_id == many.run_id
        assert len(board.notes) == 1
        assert f"run {few.run_id}" in board.notes[0]
        assert f"left out for that of 3 instead of 1 seeds, {many.run_id}" in board.notes[0]


def test_a_language_model_is_not_lost_to_a_newer_run_without(result):
    plain = result("a", "asr", "last", 20.0, created="2026-02-02T00:00:00+00:00")
    score = plain.metrics["wer"]
    decoded = replace(
        result("a", "asr", "last", 20.0, created="2026-01-01T00:00:00+00:00"),
        run_id="decoded",
        metrics={**plain.metrics, "wer_lm": score},
    )
    board = arrange([plain, decoded])
    assert board.tables[0].rows[0].cells["last"].run_id == "decoded"
    assert "left out for that with more metrics, decoded" in board.notes[0]


def test_finished_wins_over_failed(result):
    failed = result("hubert", "ks", "last", None, created="2026-01-03T00:00:00+00:00")
    finished = result("hubert", "ks", "last", 70.0, seeds=(0,))
    board = arrange([failed, finished])
    assert board.tables[0].rows[0].cells["last"].run_id == finished.run_id
    assert f"left out for the finished {finished.run_id}" in board.notes[0]


def test_one_note_for_each_run_left_out(result):
    runs = [result("hubert", "ks", "last", 70.0, seeds=(seed,)) for seed in range(3)]
    board = arrange(runs)
    shown = board.tables[0].rows[0].cells["last"].run_id
    assert len(board.notes) == 2
    assert all(shown in note for note in board.notes)


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ({}, {"precision": "bfloat16"}, ["hubert", "hubert (bfloat16)"]),
        ({}, {"storage": "float32"}, ["hubert", "hubert (stored as float32)"]),
        ({"device": "cpu"}, {"device": "cuda"}, ["hubert (cpu)", "hubert (cuda)"]),
        (
            {"device": "cpu"},
            {"device": "cuda", "precision": "bfloat16"},
            ["hubert", "hubert (bfloat16)"],
        ),
        (
            {"fingerprint": "a" * 16},
            {"fingerprint": "b" * 16, "precision": "bfloat16"},
            ["hubert @aaaaaaaa", "hubert @bbbbbbbb (bfloat16)"],
        ),
    ],
)
def test_other_features_are_another_row(result, one, other, labels):
    board = arrange(
        [
            result("hubert", "ks", "last", 90.0, **one),
            result("hubert", "ks", "last", 80.0, **other),
            result("wavlm", "ks", "last", 70.0, precision="bfloat16"),
        ]
    )
    assert [row.label for row in board.tables[0].rows] == [*labels, "wavlm"]
    assert not board.notes
    rows = list(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert [row["precision"] for row in rows] == [
        one.get("precision", "float32"),
        other.get("precision", "float32"),
        "bfloat16",
    ]


def test_different_utterances_left_out_never_mix(result):
    board = arrange(
        [
            result("a", "ks", "last", 90.0),
            result("b", "ks", "last", 91.0, skipped=("x.wav",)),
            result("c", "ks", "last", 92.0, skipped=("y.wav", "1|2", "z.wav", "w.wav")),
            result("d", "ks", "last", 93.0, skipped=("w.wav", "z.wav", "1|2", "y.wav")),
        ]
    )
    assert [[row.upstream for row in table.rows] for table in board.tables] == [
        ["a"],
        ["b"],
        ["d", "c"],
    ]
    text = render(board)
    assert text.count("left out for bad audio") == 2
    assert "1 utterance left out for bad audio: x.wav" in text
    assert "4 utterances left out for bad audio: 1|2, w.wav, y.wav and 1 more" in text
    assert r"1\|2, w.wav" in render(board, "markdown")
    rows = list(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert [row["utterances_left_out"] for row in rows] == ["0", "1", "4", "4"]
    assert len({row["left_out_sha256"] for row in rows}) == 3


def test_bold_is_all_that_overlap_the_best(result):
    board = arrange(
        [
            result("a", "ks", "last", 90.0, half=5),
            result("b", "ks", "last", 81.0, half=4),  # up to 85, where a begins
            result("c", "ks", "last", 80.0, half=4),  # overlaps b, but not a
        ]
    )
    marks = {row.upstream: row.cells["last"].not_separated for row in board.tables[0].rows}
    assert marks == {"a": True, "b": True, "c": False}


def test_not_a_number_is_named_and_left_out(save, tmp_path):
    save("hubert", "ks", "last", 90.0)
    for name, number in (("cpc", "NaN"), ("apc", "Infinity")):
        path = save(name, "ks", "last", 50.0)
        path.write_text(path.read_text().replace('"value": 50.0', f'"value": {number}'))
    board = collect(tmp_path / "results")
    assert [row.upstream for row in board.tables[0].rows] == ["hubert"]
    assert [re.search(r"(\w+) is not a JSON number", text)[1] for text in board.problems] == [
        "Infinity",
        "NaN",
    ]


def test_its_own_time_stamp_decides_not_that_of_the_file(save, tmp_path):
    newer = save("hubert", "ks", "last", 95.0, seeds=(3,), created="2026-01-03T00:00:00+00:00")
    older = save("hubert", "ks", "last", 70.0, seeds=(4,), created="2026-01-02T00:00:00+00:00")
    os.utime(newer, (0, 0))
    board = collect(tmp_path / "results")
    assert board.tables[0].rows[0].cells["last"].run_id == newer.stem
    assert older.stem in board.notes[0]


def test_an_edited_file_gives_its_place_to_the_run_before(save, tmp_path):
    older = save("hubert", "ks", "last", 70.0, seeds=(4,), created="2026-01-02T00:00:00+00:00")
    edited = save("hubert", "ks", "last", 71.0, seeds=(3,), created="2026-01-03T00:00:00+00:00")
    edited.write_text(edited.read_text().replace("71.0", "99.0"))
    board = collect(tmp_path / "results")
    assert board.tables[0].rows[0].cells["last"].run_id == older.stem
    assert edited.name in board.problems[0]
    assert not board.notes


def test_an_edited_history_is_found_too(save, tmp_path):
    path = save("hubert", "ks", "last", 70.0)
    path.write_text(path.read_text().replace('"history": []', '"history": [{"seed": 0}]'))
    assert "does not match its checksum" in collect(tmp_path / "results").problems[0]


def test_empty_folder(tmp_path):
    with pytest.raises(SuperbError, match=r"holds no results yet.*superb run"):
        collect(tmp_path)
    with pytest.raises(SuperbError, match="does not exist"):
        collect(tmp_path / "nowhere")


def test_files_behind_a_board(save, tmp_path):
    last = save("hubert", "ks", "last", 50.0)
    mixed = save("hubert", "ks", "weighted-sum", 60.0)
    renamed = mixed.with_name("renamed.json")
    mixed.rename(renamed)
    shutil.copytree(last.parent, tmp_path / "results" / "zz_copy", ignore=lambda *_: [renamed.name])
    board, runs = read_board(tmp_path / "results")
    (row,) = board.tables[0].rows
    assert runs[row.cells["last"].run_id].path == last
    assert runs[row.cells["weighted-sum"].run_id].path == renamed
    (problem,) = board.problems
    assert "zz_copy" in problem
    assert str(last) in problem
