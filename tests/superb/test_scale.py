"""The measurement of scale measures what it says, in small."""

from __future__ import annotations

import csv

from superb.scale import (
    add_rows,
    draw,
    make_audio,
    make_manifest,
    measure_extraction,
    measure_start,
)


def test_every_file_passes_the_encoder(tmp_path):
    make_audio(tmp_path, 30 / 3600)
    found = measure_extraction(tmp_path)
    assert found["files"] == 3
    assert found["hours"] == round(30 / 3600, 2)
    assert found["peak_mb"] >= found["start_mb"] > 50


def test_the_start_is_timed_when_all_is_new_and_when_all_is_known(tmp_path):
    manifest = make_manifest(tmp_path, 120)
    first = measure_start(manifest)
    assert first["rows"] == 120
    # from the first utterance in the encoder there is work left, of which the second run has none
    assert 0 <= first["ready_s"] < first["all_s"]
    second = measure_start(manifest)
    assert second["ready_s"] == second["all_s"]


def test_rows_of_other_sizes_stay(tmp_path):
    def row(hours, seconds):
        return {"hours": hours, "files": 1, "seconds": seconds, "start_mb": 5, "peak_mb": 6}

    file = tmp_path / "scale.csv"
    add_rows(file, [row(10.0, 7), row(1.0, 2)])
    rows = add_rows(file, [row(100.0, 70), row(10.0, 8)])
    assert [(float(r["hours"]), r["seconds"]) for r in rows] == [
        (1.0, "2"),
        (10.0, "8"),
        (100.0, "70"),
    ]
    with file.open() as table:
        assert list(csv.DictReader(table)) == rows
    draw(rows, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
