"""`superb bench --what extract,probe,run`: what is measured and that it adds up, never how fast."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from benchmark.core import Utterance
from benchmark.encoding import arithmetic
from benchmark.encoding.forward import FrozenEncoder
from benchmark.errors import SuperbError
from benchmark.jobs.site import prepare_encoder
from benchmark.probing import fit
from benchmark.progress import Progress
from downstreams.load import load_downstream
from superb.bench import encoder, extract, probe, run, show, timing
from superb.bench.measure import WHAT, Asked, measure
from superb.bench.probe import PARTS, Watch, recurrent_layers
from superb.cli import app
from upstreams.loading.load import load_upstream
from upstreams.models import transformer

QUIET = Progress(quiet=True)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(arithmetic, "_PEAK_SIZE", {"cpu": 64})
    monkeypatch.setattr(probe, "_LEAST_S", 0.01)


def asked(tones, tmp_path, **changes):
    return Asked(
        **{
            "upstreams": ["fbank"],
            "what": ["extract"],
            "precisions": ["float32"],
            "rounds": 2,
            "corpus": str(tones),
            "cache_dir": tmp_path / "cache",
        }
        | changes
    )


def lines_of(report):
    output = io.StringIO()
    Console(file=output, width=80).print(report.table)
    return output.getvalue().splitlines()


def test_extraction_has_a_row_for_each_encoder_and_precision(make_folder, tones, tmp_path):
    folder, _ = make_folder()
    names, precisions = ["fbank", str(folder)], ["float32", "bfloat16"]
    (report,) = measure(asked(tones, tmp_path, upstreams=names, precisions=precisions), QUIET)
    found = [(row["upstream"], row["precision"]) for row in report.records]
    assert found == [(name, way) for name in ("fbank", "model") for way in precisions]
    audio_s = 72 * 0.3 + 12 * 0.02 * 15
    for row in report.records:
        # transformers has one of both
        ways = [
            "one at a time",
            "engine",
            *(["transformers"] if row["upstream"] == "model" else []),
        ]
        assert list(row["seconds"]) == list(row["audio_s_per_s"]) == ways
        assert row["audio_s"] == pytest.approx(audio_s, abs=0.01)
        for way, times in row["seconds"].items():
            assert len(times) == 2
            assert sum(times) / 2 * row["audio_s_per_s"][way] == pytest.approx(row["audio_s"])
        assert all(
            0 < alone < whole
            for alone, whole in zip(row["encoder_s"], row["seconds"]["engine"], strict=True)
        )
        work = 2 * row["macs_per_audio_s"] * row["audio_s_per_s"]["engine"]
        assert row["peak_share"] == pytest.approx(work / row["peak_flop_per_s"])
    lines = lines_of(report)
    assert sum("±" in line and "%" in line for line in lines) == 4
    assert max(map(len, lines)) <= 80
    assert list((tmp_path / "cache").iterdir()) == []


def test_one_at_a_time_is_what_it_says(bands):
    both = bands()
    both.concurrent = True
    alone = extract._OneByOne(both)
    assert [FrozenEncoder(one).concurrent for one in (both, alone)] == [True, False]
    assert [FrozenEncoder(one, "cuda").batching for one in (both, alone)] == ["packed", "one"]


def test_a_card_gets_more_audio(monkeypatch):
    monkeypatch.setattr(extract, "estimate_s", lambda some: 3.0 * len(some))
    every = [Utterance(str(at), str(at).encode(), "train") for at in range(4000)]
    assert [len(extract.sample(every, None, device)) for device in ("cpu", "cuda")] == [80, 800]
    assert extract.sample(every, 1e6, "cpu") == every
    # a recording that two tasks have is encoded once
    assert len(extract.sample([*every, *every], 1e6, "cpu")) == 4000


@pytest.mark.parametrize(("task", "framed"), [("asr", True), ("ks", False)])
def test_the_parts_of_an_update_add_up(tones, quick, tmp_path, task, framed):
    request = asked(
        tones, tmp_path, what=["probe"], upstreams=["hubert", "fbank"], downstream=task,
        protocols=[str(quick)],
    )  # fmt: skip
    (report,) = measure(request, QUIET)
    deep, shallow = report.records
    for record in (deep, shallow):
        assert list(record["shares"]) == list(PARTS)
        assert sum(record["shares"].values()) == pytest.approx(1)
        assert record["updates"] / sorted(record["seconds"])[0] >= record["updates_per_s"]
        always = {probe.PADDING, probe.HEAD, f"{probe.HEAD}, gradient", probe.LOSS, probe.OPTIMISER}
        always |= {probe.READING, f"{probe.LOSS}, gradient", probe.REST, probe.MIX}
        assert all(record["shares"][part] > 0 for part in always)
        for part in (probe.RECURRENT, f"{probe.RECURRENT}, gradient"):
            assert (record["shares"][part] > 0) == framed
    # one layer has no weights to learn
    assert (
        deep["shares"][f"{probe.MIX}, gradient"] > 0 == shallow["shares"][f"{probe.MIX}, gradient"]
    )
    lines = lines_of(report)
    assert any(line.strip().startswith("updates per second") for line in lines)
    assert any(line.strip().startswith("recurrent layers, gradient") for line in lines) == framed
    assert max(map(len, lines)) <= 80


def test_other_rules_learn_from_as_much_as_superb_does(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "_BATCHES", 1)
    request = asked("", tmp_path, what=["probe"], corpus=None, protocols=[str(quick)], rounds=1)
    (record,) = measure(request, QUIET)[0].records
    assert record["material"] == "made up, as LibriSpeech's"
    made_up = probe.made_up_material(load_downstream("asr"))
    assert made_up.all_s == 100.6 * 3600
    assert sum(made_up.seconds) / len(made_up.seconds) == pytest.approx(12, abs=0.1)
    # some 14 characters a second
    assert all(
        12 <= len(utterance.text) / seconds <= 14.5
        for utterance, seconds in zip(made_up.utterances, made_up.seconds, strict=True)
    )


def test_watching_changes_nothing_that_is_learnt(tones, quick, tmp_path, monkeypatch):
    trainees = []

    class Kept(probe._Trainee):
        def __init__(self, *given):
            super().__init__(*given)
            trainees.append(self)

    monkeypatch.setattr(probe, "_Trainee", Kept)
    request = asked(tones, tmp_path, what=["probe"], upstreams=["hubert"], protocols=[str(quick)])
    measure(request, QUIET)
    plain, seen = (trainee.probe for trainee in trainees)
    assert plain.updates == seen.updates > 1
    for one, other in zip(plain.parameters(), seen.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_moment_belongs_to_one_part(monkeypatch):
    """On a card too, which is waited for wherever a part ends."""
    clock, waits = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0]), []
    monkeypatch.setattr(probe.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    watch = Watch("cuda")
    watch.start()
    with watch.within(probe.PADDING), watch.within(probe.READING):
        pass
    found = watch.stop()
    assert {part: seconds for part, seconds in found.items() if seconds} == {
        probe.PADDING: 2.0 + 4.0,
        probe.READING: 3.0,
        probe.REST: 1.0 + 5.0,
    }
    assert sum(found.values()) == 15.0
    assert len(waits) == 6


def test_recurrent_layers_are_found_whole():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = torch.nn.LSTM(2, 2), torch.nn.LSTM(2, 2)

    layers = torch.nn.ModuleList([Both(), Both()])
    head = torch.nn.ModuleDict({"in": torch.nn.Linear(2, 2), "layers": layers})
    assert recurrent_layers(head) == list(layers)


def test_memory_holds_the_same_share_as_in_a_run(tones, quick, tmp_path, monkeypatch):
    kept = []

    class Kept(probe._WatchedData):
        def __init__(self, *given):
            super().__init__(*given)
            kept.append(given[-1])

    monkeypatch.setattr(probe, "_WatchedData", Kept)
    monkeypatch.setattr(probe, "_BATCHES", 1)
    request = asked(tones, tmp_path, what=["probe"], protocols=[str(quick)], rounds=1)
    measure(request, QUIET)
    # 8 of 36 utterances
    assert {round(size / fit.KEEP_BYTES * 36) for size in kept} == {8}


def test_a_run_is_projected_from_what_was_measured(tmp_path):
    fbank = prepare_encoder(load_upstream("fbank"), "cpu", QUIET)
    (tmp_path / "cache").mkdir()
    runs = [("ks", "speech-commands-v1", "mini"), ("asr", "mini", "mini")]
    found = run.project_runs(
        fbank, "fbank", "float32", tmp_path / "cache", runs=runs, rounds=1, progress=QUIET
    )
    words, main = found
    assert (words.hours, words.utterances) == (17, 51_088 + 6_798 + 3_081)
    for one in found:
        # reading and writing come on top of what the encoder takes
        assert one.seconds("encode") > one.hours * 3600 * one.encoder.median
        assert one.price.wall_s >= one.seconds("encode") + max(one.seconds("fit"), 0)
    # 3 of 6 rates until update 500, then until 1000, two until 2000; one layer is one choice
    assert words.seconds("fit") >= (6 * 500 + 3 * 500 + 2 * 1000) * words.update.median
    assert main.utterances > 1000
    output = io.StringIO()
    Console(file=output, width=80).print(show.run_table(found, "cpu"))
    text = output.getvalue()
    assert "measured:" in text
    assert "projected from them: encode, fit, all" in text
    assert max(map(len, text.splitlines())) <= 80
    assert json.dumps([show.run_record(one) for one in found])
    assert run.corpus_size("librispeech", "asr") == (111, 28_539 + 2_703 + 2_620)
    assert {task for task, *_ in run.RUNS} == {"asr", "sid", "ks"}
    assert list((tmp_path / "cache").iterdir()) == []


def test_works_take_turns():
    order = []

    def work(name, taken):
        order.append(name)
        return next(taken)

    times = {"a": iter([9.0, 1.0, 3.0]), "b": iter([9.0, 2.0, 2.0])}
    works = {name: lambda name=name: work(name, times[name]) for name in times}
    found = timing.take_turns(works, 2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert {name: timed.seconds for name, timed in found.items()} == {"a": (1, 3), "b": (2, 2)}
    assert found["a"].median == 2
    assert timing.rounded((9.0, 10.0, 12.0)) == "10.0 ±1.5"
    assert timing.rounded((100.0, 140.0)) == "120 ±20"


def test_records_are_printed_for_programs(tones, tmp_path):
    arguments = ["bench", "-u", "fbank", "--what", "extract", "--rounds", "1", "--json"]
    arguments += ["--corpus", str(tones), "--precision", "float32", "--cache-dir", str(tmp_path)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    (record,) = json.loads(done.stdout)
    assert (record["what"], record["device"], record["upstream"]) == ("extract", "cpu", "fbank")


def test_the_encoder_is_what_is_measured_if_nothing_is_said(monkeypatch):
    monkeypatch.setattr(encoder, "AT_LEAST_S", 0.1)
    tiny = transformer.EncoderConfig(
        conv_dims=(12,) * 7, dim=32, layers=2, heads=4, feed_forward_dim=48, position_kernel=8,
        position_groups=4,
    )  # fmt: skip
    entry = replace(
        encoder.UPSTREAMS["hubert-base"], architecture="upstreams.models.transformer:TINY_BENCH"
    )
    monkeypatch.setattr(transformer, "TINY_BENCH", tiny, raising=False)
    monkeypatch.setitem(
        encoder.UPSTREAMS, "hubert-base", replace(entry, layers=3, dim=32, parameters=1)
    )
    arguments = ["bench", "-u", "hubert-base", "--random-weights", "--rounds", "1"]
    arguments += ["--seconds", "0.2", "--precision", "float32", "--threads", "1"]
    before = torch.get_num_threads()
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"}, catch_exceptions=False)
    assert torch.get_num_threads() == before
    assert "superb bench untrained:hubert-base: seconds of audio per second" in done.stdout
    assert ", 1 thread, median of 1" in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"what": ["extrct"]}, "unknown value of --what 'extrct'. Did you mean extract"),
        ({"what": []}, "at least one upstream, measurement"),
        ({"upstreams": []}, "at least one upstream"),
        ({"precisions": ["float61"]}, "unknown value of --precision"),
        ({"rounds": 0}, "at least 1"),
        ({"cores": 0}, "at least 1"),
        ({"minutes": math.nan}, "--minutes must be positive"),
        ({"corpus": "minni"}, "minni"),
        ({"upstreams": ["fbnk"]}, "unknown upstream 'fbnk'"),
        ({"what": ["probe"], "protocols": ["mni"]}, "unknown protocol 'mni'"),
        ({"what": ["probe"], "downstream": "ars"}, "unknown downstream task 'ars'"),
    ],
)
def test_what_is_refused(tones, tmp_path, changes, message):
    with pytest.raises(SuperbError) as caught:
        measure(asked(tones, tmp_path, **changes), QUIET)
    assert message in str(caught.value)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there_is_refused(tones, tmp_path, what):
    with pytest.raises(SuperbError, match=r"device 'cuda' cannot be used: .*Use --device cpu"):
        measure(asked(tones, tmp_path, what=[what], device="cuda"), QUIET)
