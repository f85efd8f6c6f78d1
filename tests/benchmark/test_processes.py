"""Several processes share a run: to the same scores, with one voice, and with one end."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed import HashStore

import benchmark.encoding.features
import benchmark.run
import superb
from benchmark import processes as module
from benchmark.core import Utterance
from benchmark.encoding.features import ExtractionSettings, extract
from benchmark.errors import AudioError, SuperbError
from benchmark.prepare import find_device
from benchmark.probing.layers import Mix
from benchmark.processes import ALONE, OtherProcessError, Processes, find_processes
from benchmark.progress import Progress
from benchmark.run import _require_same_work, run
from benchmark.scoring.results import read_tallies, result_path

PLUGIN = f"{Path(__file__).resolve().parents[1] / 'plugin' / 'my_encoder.py'}:MyEncoder"
# What says when and where, and not what came out.
CIRCUMSTANCES = ("created", "timings", "encoder", "provenance", "checksum")


def launch(*words: object) -> subprocess.CompletedProcess[str]:
    """``superb`` in two processes."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", "-m", "superb", *map(str, words)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=False,
    )


def several(work, count=2):
    """What some processes, each a thread here, return or raise."""
    store = HashStore()

    def one(rank):
        try:
            return work(Processes(rank, count, rank, store))
        except SuperbError as error:
            return error
        except BaseException:  # or the others would wait for it
            store.add("failed", 1)
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.fixture
def one_thread():
    """Of arithmetic, as launchers have it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def spoilt(tones, tmp_path) -> Path:
    """The tones, and two files that are not audio, the first and the last."""
    header, *rows = tones.read_text().splitlines()
    rows = [f"{tones.parent}/{row}" for row in rows]
    for name in ("first.wav", "last.wav"):
        (tmp_path / name).write_bytes(b"not audio")
    bad = [f"{name}.wav\ttrain\tada\tyes\tyes" for name in ("first", "last")]
    manifest = tmp_path / "spoilt.tsv"
    manifest.write_text("\n".join([header, bad[0], *rows, bad[1]]) + "\n")
    return manifest


def test_two_processes_give_what_one_gives(spoilt, quick, tmp_path, one_thread, capsys):
    given = {"layers": ["last", "weighted-sum", "weighted-sum-norm"], "protocol": str(quick)}
    given |= {"corpus": str(spoilt), "on_bad_audio": "skip", "device": "cpu"}
    done = launch(
        *("run", "-u", PLUGIN, "-d", "ks,asr", "--layers", ",".join(given["layers"])),
        *("--corpus", spoilt, "--protocol", quick, "--on-bad-audio", "skip", "--device", "cpu"),
        *("--output", tmp_path / "two", "--cache-dir", tmp_path / "cache-two"),
    )
    assert done.returncode == 0, done.stderr
    alone = run(
        *(PLUGIN, ["ks", "asr"]), **given,
        output=tmp_path / "one", cache_dir=tmp_path / "cache-one", progress=Progress(quiet=True),
    )  # fmt: skip
    capsys.readouterr()
    together = run(
        *(PLUGIN, ["ks", "asr"]), **given,
        output=tmp_path / "two", cache_dir=tmp_path / "cache-two",
    )  # fmt: skip
    again = capsys.readouterr().err
    for task in ("ks", "asr"):
        assert f"{task}: finished before, not run again: last, weighted-sum, weig" in again
    for mine, ours in zip(alone, together, strict=True):
        one, two = asdict(mine), asdict(ours)
        for name in one.keys() - set(CIRCUMSTANCES):
            assert one[name] == two[name], name
        assert mine.encoder["rounding_error"] == ours.encoder["rounding_error"]
        assert mine.timings["extraction_audio_s"] == pytest.approx(
            ours.timings["extraction_audio_s"]
        )
        assert (mine.provenance["processes"], ours.provenance["processes"]) == (1, 2)
        assert [item["utterance"] for item in ours.skipped_audio] == ["first.wav", "last.wav"]
        tallies = [
            read_tallies(
                result_path(tmp_path / folder, r.downstream["name"], "my-encoder", r.run_id)
            )
            for folder, r in (("one", mine), ("two", ours))
        ]
        assert tallies[0] == tallies[1]
    # both wrote features, and one spoke
    for store in (tmp_path / "cache-two" / "features").iterdir():
        assert len(list(store.glob("*.bin"))) == 2
    assert done.stdout.count("sum − last") == 1
    assert done.stderr.count("encoding 74 utterances") == 1
    assert done.stderr.count("2 audio files left out") == 1
    for result in together:
        for warning in result.warnings:
            task = result.downstream["name"]
            assert done.stderr.count(f"{task}, {result.layer}: {warning}") == 1


def test_an_error_is_said_once_and_ends_all(tones, tmp_path):
    done = launch("run", "-u", "hubrt", "-d", "ks", "--corpus", tones, "-o", tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("unknown upstream 'hubrt'. Did you mean hubert") == 1
    # the launcher has a traceback of its own
    assert "superb/cli.py" not in done.stderr


def test_one_process_is_alone_and_imports_nothing(monkeypatch):
    code = (
        "import sys; from benchmark.processes import find_processes, ALONE;"
        "assert find_processes() is ALONE; assert not {'torch', 'accelerate'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {name: text for name, text in os.environ.items() if name != "WORLD_SIZE"}
    for size in ({}, {"WORLD_SIZE": "1", "RANK": "0"}):
        subprocess.run([sys.executable, "-c", code], cwd=root, env=environment | size, check=True)
    assert ALONE.main
    assert ALONE.share([1, 2, 3]) == [1, 2, 3]
    assert ALONE.gather("word") == ["word"]
    assert ALONE.agree(lambda: "word") == "word"
    ALONE.announce("word")
    assert not ALONE.announced("word")
    with ALONE.together():
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    module._rendezvous.cache_clear()
    with pytest.raises(SuperbError, match=r"WORLD_SIZE=2 says .* RANK expected.*torchrun"):
        find_processes()


def test_everyone_learns_what_everyone_says():
    long = "x" * (2 * module._PART_BYTES + 1)

    def work(processes):
        said = processes.gather([processes.rank, long])
        first = processes.agree(lambda: {"decided by": processes.rank})
        return said == [[rank, long] for rank in range(3)], first, processes.share(range(7))

    assert several(work, 3) == [
        (True, {"decided by": 0}, [0, 3, 6]),
        (True, {"decided by": 0}, [1, 4]),
        (True, {"decided by": 0}, [2, 5]),
    ]


def test_a_failure_reaches_those_who_wait_and_is_told_once(monkeypatch):
    monkeypatch.setattr(module, "_SPEAK_S", 0.0)

    def work(processes):
        with processes.together():
            if processes.rank == 1:
                raise SuperbError("the disk of process 1 is full")
            processes.gather(None)

    began = time.monotonic()
    ended = several(work, 3)
    assert time.monotonic() - began < 5
    assert [type(error) for error in ended] == [OtherProcessError, SuperbError, OtherProcessError]


def test_the_same_mistake_is_told_once(monkeypatch):
    monkeypatch.setattr(module, "_SPEAK_S", 0.0)

    def work(processes):
        with processes.together():
            raise SuperbError("no such corpus")

    assert sorted(type(error).__name__ for error in several(work, 3)) == [
        *("OtherProcessError", "OtherProcessError", "SuperbError")
    ]


def test_a_process_that_never_comes_is_not_waited_for_forever(monkeypatch):
    monkeypatch.setattr(module, "_START_S", 0.3)

    def work(processes):
        if processes.rank == 0:
            with processes.together():
                pytest.fail("it went on without the other")

    waited, _ = several(work)
    assert "waited 0 s for another one in vain" in str(waited)
    assert "take WORLD_SIZE out of its environment" in str(waited)


def test_nobody_leaves_before_the_last_has_read():
    """The store may live in process 0."""
    ended = []

    def work(processes):
        with processes.together():
            processes.gather(None)
            if processes.rank == 1:
                time.sleep(0.5)
        ended.append(processes.rank)

    several(work)
    assert ended == [1, 0]


class Toy:
    """Two layers of hops of the waveform."""

    def __init__(self):
        self.card = superb.UpstreamCard("toy", 2, 160, 160)
        self.heard = []

    def __call__(self, waveforms):
        (waveform,) = waveforms
        self.heard.append(waveform.numel())
        frames = waveform[: len(waveform) // 160 * 160].view(-1, 160)
        return superb.HiddenStates(
            torch.stack([frames, frames.exp()])[:, None], torch.tensor([len(frames)])
        )


def features(upstream, utterances, folder, processes=ALONE, **settings):
    """Extract frames and time means; everything that is known of them afterwards."""
    wanted = {"frames": utterances, "mean": utterances}
    with ExitStack() as resources:
        found = extract(
            *(upstream, "mark", wanted),
            ExtractionSettings(folder, processes=processes, **settings),
            Progress(quiet=True),
            resources,
        )
        arrays = {
            kind: {name: store.read(key) for name, key in found.keys.items()}
            for kind, store in found.stores.items()
        }
        return found, arrays


def utterances_of(manifest: Path, *more: Utterance) -> list[Utterance]:
    paths = sorted(manifest.parent.glob("*-[0-5].wav"))
    return [*(Utterance(path.name, path, "train") for path in paths), *more]


def test_features_are_shared_by_recording_and_are_the_same_bits(tones, tmp_path):
    path = utterances_of(tones)[3].audio
    spans = [Utterance(f"part {at}", path, "train", span=(at, 0.1)) for at in (0.0, 0.1, 0.2)]
    utterances = utterances_of(tones, *spans)
    toys = [Toy(), Toy()]

    def work(processes):
        return features(toys[processes.rank], utterances, tmp_path / "two", processes)

    expected, exact = features(Toy(), utterances, tmp_path / "one")
    for found, arrays in several(work):
        assert found.keys == expected.keys
        assert found.audio_s == pytest.approx(expected.audio_s)
        for kind, own in exact.items():
            for name, array in own.items():
                assert np.array_equal(arrays[kind][name], array)
    assert [len(toy.heard) for toy in toys] == [36, 39]  # spans go with their recording
    # nothing is left, for any number of processes
    toys = [Toy(), Toy(), Toy()]
    several(work, 3)
    assert [toy.heard for toy in toys] == [[], [], []]


def test_what_one_process_left_undone_is_shared(tones, tmp_path):
    utterances = utterances_of(tones)
    features(Toy(), utterances[:30], tmp_path)
    toys = [Toy(), Toy()]
    several(lambda processes: features(toys[processes.rank], utterances, tmp_path, processes))
    assert [len(toy.heard) for toy in toys] == [21, 21]


def test_a_process_that_comes_late_leaves_nothing_out(tones, tmp_path, monkeypatch):
    """What the first has stored by then does not change what is the other's."""
    monkeypatch.setattr("benchmark.encoding.store._COMMIT_S", 0.0)
    audio = {u.id: u.audio.read_bytes() for u in utterances_of(tones)}
    utterances = [Utterance(name, data, "train") for name, data in audio.items()]
    begun = threading.Event()

    class First(Toy):
        def __call__(self, waveforms):
            if len(self.heard) == 5:
                begun.set()
            return super().__call__(waveforms)

    toys = [First(), Toy()]

    def work(processes):
        if processes.rank == 1:
            assert begun.wait(10)
        return features(toys[processes.rank], utterances, tmp_path, processes)

    for found, arrays in several(work):
        assert len(found.keys) == len(arrays["mean"]) == 72
    assert [len(toy.heard) for toy in toys] == [36, 36]


def test_what_another_run_stores_meanwhile_is_not_lost(tones, tmp_path, monkeypatch):
    """One process has looked at what is stored before that, the other looks after it."""
    monkeypatch.setattr("benchmark.encoding.store._COMMIT_S", 0.0)
    utterances = utterances_of(tones)
    begun, here = threading.Event(), threading.local()
    look = benchmark.encoding.features._known_keys

    def late(*given):
        if here.rank == 0:
            assert begun.wait(10)
            here.rank = None
            features(Toy(), utterances[:30], tmp_path)
        return look(*given)

    monkeypatch.setattr("benchmark.encoding.features._known_keys", late)

    class First(Toy):
        def __call__(self, waveforms):
            begun.set()
            return super().__call__(waveforms)

    def work(processes):
        here.rank = processes.rank
        return features((Toy(), First())[processes.rank], utterances, tmp_path, processes)

    for found, arrays in several(work):
        assert list(found.keys) == list(arrays["mean"])
        assert found.keys.keys() == {utterance.id for utterance in utterances}


@pytest.mark.parametrize("choice", ["fail", "skip"])
def test_bad_audio_of_all_processes_is_listed_in_order(tones, tmp_path, choice):
    bad = [Utterance(name, b"no audio", "train") for name in ("bad 1",)]
    bad += [Utterance(name, tmp_path / name, "train") for name in ("bad 2", "bad 3", "bad 4")]
    utterances = [*bad[:2], *utterances_of(tones), *bad[2:]]

    def work(processes):
        return features(Toy(), utterances, tmp_path / "cache", processes, on_bad_audio=choice)

    for ended in several(work):
        if choice == "fail":
            assert isinstance(ended, AudioError)
            said = str(ended)
            assert said.startswith("4 of 76 audio files cannot be used")
            assert sorted(said.index(u.id) for u in bad) == [said.index(u.id) for u in bad]
        else:
            found, _ = ended
            assert [item.utterance for item in found.skipped] == [u.id for u in bad]
            assert len(found.keys) == 72


def test_a_process_that_need_not_hear_more_stops_when_another_finds_bad_audio(tones, tmp_path):
    """The other files are still looked at, but nothing more is encoded."""
    utterances = [Utterance("bad", b"no audio", "train"), *utterances_of(tones)]
    heard = []

    class Slow(Toy):
        def __call__(self, waveforms):
            time.sleep(0.1)
            heard.append(1)
            return super().__call__(waveforms)

    several(lambda processes: features(Slow(), utterances, tmp_path, processes))
    assert len(heard) < 20


def test_features_that_another_process_stored_elsewhere_are_missed(tones, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.encoding.features.VISIBLE_S", 0.0)

    def work(processes):
        return features(Toy(), utterances_of(tones), tmp_path / str(processes.rank), processes)

    for ended in several(work):
        assert isinstance(ended, SuperbError)
        assert "that all machines share with --cache-dir DIR" in str(ended)


@pytest.fixture
def runs(tones, quick, tmp_path, monkeypatch):
    """`run` in some processes, each a thread here."""
    here = threading.local()
    monkeypatch.setattr("benchmark.run.find_processes", lambda: here.processes)
    monkeypatch.setattr(module, "_SPEAK_S", 0.0)

    def go(*upstreams, **options):
        def work(processes):
            here.processes = processes
            given = {"output": tmp_path / "results", "progress": Progress(quiet=True), **options}
            return run(
                *(upstreams[processes.rank], "ks"),
                corpus=str(tones), protocol=str(quick), cache_dir=tmp_path / "cache", **given,
            )  # fmt: skip

        return several(work)

    return go


class Marked(Toy):
    def __init__(self, mark):
        super().__init__()
        self.fingerprint = mark


def test_everyone_returns_everything_with_the_storage_that_one_chose(runs, monkeypatch):
    answers = iter([("int8", "it was full"), ("float16", "it was not")])
    monkeypatch.setattr("benchmark.run.settle", lambda *given: next(answers))
    first, second = runs(Marked("a"), Marked("a"))
    assert [result.layer for result in first] == ["last", "weighted-sum"]
    assert first == second
    assert {result.identity["storage"] for result in first} == {"int8"}


def test_processes_that_see_different_things_do_not_share(runs):
    ended = runs(Marked("a"), Marked("b"))
    assert sorted(type(error).__name__ for error in ended) == ["OtherProcessError", "SuperbError"]
    (said,) = (str(error) for error in ended if not isinstance(error, OtherProcessError))
    assert "do not see the same upstream" in said


def test_processes_that_want_different_amounts_of_work_do_not_share():
    def work(processes):
        _require_same_work([{"layer": "last"}] * (1 + processes.rank), processes)

    assert ["same layer choices and tasks" in str(error) for error in several(work)] == [True, True]

    def other(processes):
        _require_same_work([{"lm": {}} if processes.rank else {}], processes)

    assert ["the same lm" in str(error) for error in several(other)] == [True, True]


def test_what_is_finished_does_not_change_who_trains_what(runs, monkeypatch):
    """Training that was cut off is found again by what one process trains together."""
    trained = []
    fit = benchmark.run.fit

    def recorded(probes, *given, **named):
        trained.append({str(probe.spec.mix) for probe in probes})
        fit(probes, *given, **named)

    monkeypatch.setattr("benchmark.run.fit", recorded)
    runs(Marked("a"), Marked("a"), layers=["weighted-sum"])
    assert trained == [{str(Mix(None))}]
    trained.clear()
    runs(Marked("a"), Marked("a"), layers=["last", "weighted-sum", "0"])
    assert trained == [{str(Mix(1)), str(Mix(0))}]  # by one, though the other has nothing to do


def test_a_launcher_that_starts_again_starts_with_nothing_said(monkeypatch):
    store = HashStore()
    monkeypatch.setattr(module, "_rendezvous", lambda: (store, 0, 2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = []
    for attempt in ("0", "1"):
        monkeypatch.setattr(module, "_runs", itertools.count())
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        processes = find_processes()
        seen.append(processes.announced("failed"))
        processes.announce("failed")
        with pytest.raises(OtherProcessError):
            processes.require_others()
    assert seen == [False, False]


def test_a_plan_is_made_by_one(runs, monkeypatch):
    planned = []
    monkeypatch.setattr("benchmark.run.plan_run", lambda *given: planned.append(given))
    monkeypatch.setattr("benchmark.run.plan_table", lambda plan: "a table")
    assert runs(Marked("a"), Marked("a"), plan_only=True) == [[], []]
    assert len(planned) == 1


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    second = Processes(5, 8, local_rank=1)
    with pytest.raises(SuperbError, match=r"'cuda:1' is one GPU, but 8 processes .*--device cuda"):
        find_device("cuda:1", second)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("auto", "cuda"):
        with pytest.raises(SuperbError, match=r"shows 1 GPUs, too few for process 1"):
            find_device(name, second)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked, current = [], []
    monkeypatch.setattr(torch, "empty", lambda size, device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert find_device("auto", second) == "cuda:1"
    assert find_device("cuda", second) == "cuda:1"
    assert find_device("cpu", second) == "cpu"
    assert asked == ["cuda:1", "cuda:1", "cpu"]
    assert current == ["cuda:1", "cuda:1"]
