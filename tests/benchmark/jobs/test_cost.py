"""What features cost is foretold by arithmetic, and no way to keep them changes a score more than
it says."""

from __future__ import annotations

import io
import shutil
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from benchmark.core import UpstreamCard, Utterance
from benchmark.encoding.cache import list_stores
from benchmark.encoding.features import Extraction, ExtractionSettings, extract
from benchmark.encoding.forward import FrozenEncoder
from benchmark.jobs import run as driver
from benchmark.jobs.cost import (
    Amount,
    Speeds,
    amounts,
    choose,
    disk_speed,
    draw_plan,
    encoder_speed,
    enough,
    format_time,
    left_bytes,
    plan_run,
    plan_table,
    size,
)
from benchmark.progress import Progress
from superb.running import run

BASE = UpstreamCard("base", layers=13, dim=768, hop_samples=320)
LIBRISPEECH = {"frames": Amount(28_539, 100.6 * 3600)}
VOXCELEB = {"mean": Amount(153_516, 352 * 3600)}
SPEEDS = Speeds(
    50.0,
    {"float16": 1e8, "float32": 5e7, "int8": 1e8},
    dict.fromkeys(("float16", "float32", "int8"), 2e8),
)


def test_bytes_of_librispeech():
    values = 13 * 768
    frames = 100.6 * 3600 * 50
    assert size(BASE, LIBRISPEECH, "float16") == pytest.approx(values * 2 * (frames + 28_539))
    assert size(BASE, LIBRISPEECH, "float16") == pytest.approx(359e9, rel=0.01)
    assert size(BASE, LIBRISPEECH, "float32") == 2 * size(BASE, LIBRISPEECH, "float16")
    steps = 13 * 768 * 4 * 28_539
    assert size(BASE, LIBRISPEECH, "int8") == size(BASE, LIBRISPEECH, "float16") // 2 + steps
    assert size(BASE, LIBRISPEECH, "none") == 0
    assert size(BASE, LIBRISPEECH, "float16", [12]) * 13 == size(BASE, LIBRISPEECH, "float16")


def test_bytes_of_time_means():
    assert size(BASE, VOXCELEB, "float16") == 153_516 * 13 * 768 * 2
    assert size(BASE, VOXCELEB, "int8") == 153_516 * 13 * (768 + 4)
    # not storing frames does not mean not storing their means
    assert size(BASE, VOXCELEB, "none") == size(BASE, VOXCELEB, "float32")
    # and all layers of them are kept
    assert size(BASE, VOXCELEB, "float16", [12]) == size(BASE, VOXCELEB, "float16")


SIZES = {"float16": 1000, "int8": 510, "none": 20}


@pytest.mark.parametrize(
    ("free", "storage", "words"),
    [
        (1000, "float16", ["it fits", "1.0 kB may be written"]),
        (999, "int8", ["float16 would take 1.0 kB", "but 999 B may"]),
        (510, "int8", []),
        (509, "none", ["float16 would take 1.0 kB and int8 would take 510 B", "509 B"]),
        (0, "none", []),
    ],
)
def test_the_first_that_fits_is_chosen(free, storage, words):
    chosen, reason = choose(SIZES, free)
    assert chosen == storage
    assert reason.startswith(storage)
    assert all(word in reason for word in words)


def test_rows_are_priced():
    plan = draw_plan(BASE, LIBRISPEECH, "int8", SPEEDS)
    rows = {(row.what, row.storage): row for row in plan.rows}
    assert len(rows) == len(plan.rows) == 6
    assert [row.storage for row in plan.rows if row.chosen] == ["int8"]
    values = 100.6 * 3600 * 50 * 13 * 768
    encoding = 100.6 * 3600 / 50
    half = rows["frames, all layers", "float16"]
    assert half.size == size(BASE, LIBRISPEECH, "float16")
    assert half.extraction_s == pytest.approx(encoding + values / 1e8)
    assert half.epoch_s == pytest.approx(values / 2e8)
    one = rows["frames, one layer", "float16"]
    assert one.size * 13 == half.size
    assert one.epoch_s * 13 == pytest.approx(half.epoch_s)
    anew = rows["frames, encoded anew", "none"]
    assert (anew.size, anew.extraction_s, anew.epoch_s) == (0, encoding, encoding)
    assert rows["time means", "int8"].note == "not enough"


def test_pooling_heads_need_means_alone():
    plan = draw_plan(BASE, VOXCELEB, "float16", SPEEDS)
    (chosen,) = [row for row in plan.rows if row.chosen]
    assert chosen.what == "time means"
    assert chosen.size == size(BASE, VOXCELEB, "float16")
    assert all(row.note == "not needed" for row in plan.rows if row.what.startswith("frames"))


def test_a_plan_is_shown(tmp_path):
    output = io.StringIO()
    plan = draw_plan(BASE, LIBRISPEECH, "float16", SPEEDS, notes=["chosen: since it fits"])
    Console(file=output, width=140).print(plan_table(plan))
    text = output.getvalue()
    for word in ("28539 utterances, 100.6 h", "362.2 GB", "--storage NAME", "50.0 x real time"):
        assert word in text
    assert "chosen: since it fits" in text
    (line,) = [line for line in text.splitlines() if "→" in line]
    assert "float16" in line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (89, "89.0 s"), (90, "1.5 min"), (7200, "2.0 h"), (1e6, "11.6 d")],
)
def test_times_in_words(seconds, words):
    assert format_time(seconds) == words


def test_the_disk_is_timed_and_left_as_it_was(tmp_path):
    write, read = disk_speed(tmp_path / "cache")
    assert set(write) == set(read) == {"float16", "float32", "int8"}
    assert min(*write.values(), *read.values()) > 1e5
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_encoder_is_timed_as_extraction_has_it_compute(tmp_path, bands):
    class Concurrent(bands):
        """The same for several threads, each in which it hears something."""

        concurrent = True

        def __call__(self, waveforms):
            self.threads = {*getattr(self, "threads", ()), threading.get_ident()}
            time.sleep(0.02)
            return super().__call__(waveforms)

    waveforms = [0.1 * torch.randn(16_000 + count) for count in range(8)]
    before, used = torch.get_num_threads(), {}
    torch.set_num_threads(2)
    try:
        for kind in (bands, Concurrent):
            encoder = kind()
            assert encoder_speed(encoder, waveforms, ExtractionSettings(tmp_path)) > 0
            assert len(encoder.heard) == 9  # one of them warms it up
            used[kind] = len(getattr(encoder, "threads", {0}))
    finally:
        torch.set_num_threads(before)
    assert used == {bands: 1, Concurrent: 3}
    assert list(tmp_path.iterdir()) == []


def test_enough_is_timed(bands, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    encoder = bands()
    assert enough(FrozenEncoder(encoder), 1.0) == 4
    encoder.concurrent = True
    assert enough(FrozenEncoder(encoder), 1.0) == 12
    assert enough(FrozenEncoder(encoder, "cuda"), 2.0) == 160  # a pack
    assert enough(FrozenEncoder(encoder, "cuda"), 1e4) == 11


def utterances(tones):
    return [Utterance(path.stem, path, "train") for path in sorted(tones.parent.glob("*.wav"))]


def test_an_utterance_of_two_tasks_counts_once(tones):
    group = utterances(tones)
    (amount,) = amounts({"mean": [*group, *group]}).values()
    assert amount.utterances == 72
    # takes 0 to 5 of each word and speaker
    assert amount.audio_s == pytest.approx(72 * 0.3 + 12 * 0.02 * 15, abs=0.01)


def free(monkeypatch, size):
    usage = SimpleNamespace(free=size + 256 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_a_plan_of_a_run_counts_what_is_left_to_write(tones, places, bands):
    # files that are as new as these would be read again
    group = [replace(u, audio=u.audio.read_bytes()) for u in utterances(tones)]
    settings = ExtractionSettings(places["cache_dir"])

    def asked(storage):
        return Extraction(
            bands(), "bands 1", {"frames": group, "mean": group}, replace(settings, storage=storage)
        )

    whole = {"frames": amounts({"frames": group})["frames"]}
    whole["mean"] = whole["frames"]
    for storage in ("float16", "int8", "none"):
        assert left_bytes(asked(storage)) == size(bands.card, whole, storage)
    extract(replace(asked("int8"), wanted={"frames": group[:18]}), places["progress"])
    part = {"frames": Amount(54, whole["frames"].audio_s * 54 / 72), "mean": whole["mean"]}
    assert left_bytes(asked("int8")) == pytest.approx(size(bands.card, part, "int8"), rel=0.01)
    plan = plan_run(asked("int8"), "because")
    assert any("stored already: 18 of 72 frames, 0 of 72 mean" in note for note in plan.notes)
    assert "chosen: because" in plan.notes


def scores(results):
    return [(r.downstream["name"], r.layer, r.metrics, r.history) for r in results]


@pytest.fixture(scope="module")
def exact(tmp_path_factory, tones, quick, bands):
    """Scores from frames and means that are stored exactly."""
    folder = tmp_path_factory.mktemp("exact")
    return run(
        bands(),
        ["asr", "ks"],
        corpus=str(tones),
        protocol=str(quick),
        output=folder / "results",
        cache_dir=folder / "cache",
        storage="float32",
        progress=Progress(quiet=True),
    )


def test_encoding_anew_gives_the_scores_of_exact_storage(places, bands, exact):
    encoder = bands()
    assert scores(run(encoder, ["asr", "ks"], **{**places, "storage": "none"})) == scores(exact)
    assert len(encoder.heard) >= 2 * 72


def test_encoding_anew_keeps_no_more_than_its_budget(places, bands, exact, monkeypatch):
    monkeypatch.setattr("benchmark.probing.fit.KEEP_BYTES", 10_000)
    encoder = bands()
    assert scores(run(encoder, ["asr", "ks"], **{**places, "storage": "none"})) == scores(exact)
    assert len(encoder.heard) > 4 * 72


def test_one_layer_stored_alone_gives_the_same_score(places, bands, tmp_path, exact):
    places |= {"cache_dir": tmp_path / "another", "output": tmp_path / "other"}
    results = run(bands(), "asr", layers="last", **{**places, "storage": "float32"})
    assert scores(results) == scores(exact)[:1]
    assert len(results[0].layer_norms) == 2
    (store,) = list_stores(tmp_path / "another")
    (file,) = (tmp_path / "another" / "features" / store.key).glob("*.bin")
    # 10 ms apart, 8 numbers of 4 bytes, and no more than one layer of them
    assert file.stat().st_size < 100 * 26 * 8 * 4 * 1.1


def test_eight_bits_are_said_and_measured(places, bands, exact):
    (result,) = run(bands(), "ks", layers="last", **{**places, "storage": "int8"})
    assert result.identity["storage"] == "int8"
    assert 1e-4 < result.encoder["rounding_error"] < 1e-2
    assert result.metrics["accuracy"]["value"] == pytest.approx(
        scores(exact)[2][2]["accuracy"]["value"], abs=10
    )


def test_a_full_disk_changes_the_storage_aloud_and_for_good(places, bands, monkeypatch, capsys):
    places |= {"progress": Progress()}
    with monkeypatch.context() as patched:
        free(patched, 30_000)
        (result,) = run(bands(), "asr", layers="last", **places)
    assert result.identity["storage"] == "int8"
    said = capsys.readouterr().err
    assert "features are kept as int8, since float16 would take" in said
    # by now there is room; the same command again finds its result
    encoder = bands()
    (again,) = run(encoder, "asr", layers="last", **places)
    assert again.run_id == result.run_id
    assert encoder.heard == []


def test_a_big_run_shows_its_plan_first(places, bands, monkeypatch, capsys):
    monkeypatch.setattr(driver, "WORTH_A_TABLE", 1)
    run(bands(), "ks", layers="last", **{**places, "progress": Progress()})
    said = capsys.readouterr().err
    assert said.index("an epoch") < said.index("encoding 72 utterances")
    run(bands(), "ks", layers="0", **{**places, "progress": Progress(quiet=True)})
    assert "an epoch" not in capsys.readouterr().err
