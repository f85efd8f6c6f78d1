"""Workers here and of a cluster: to the same results, through deaths, with one voice, one end."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import soundfile

from benchmark.errors import AudioError, SuperbError, UpstreamError
from benchmark.jobs import executors as module
from benchmark.jobs import site as sites
from benchmark.jobs.cluster import Cluster, _resources
from benchmark.jobs.executors import InProcess, LocalWorkers, make_order, ready, work_on
from benchmark.jobs.plan import make_plan
from benchmark.jobs.run import run_site
from benchmark.progress import Messages
from superb.compose import build_site
from superb.running import run
from upstreams.loading.load import load_upstream

# What says when and how fast, and not what came out.
CIRCUMSTANCES = ("created", "timings", "provenance", "checksum")


@pytest.fixture
def plugin(tmp_path, bands_file):
    """A file of an encoder that is the toy one, but for what it does before it hears."""

    def make(before: str) -> str:
        path = tmp_path / "own.py"
        path.write_text(
            f"{bands_file.read_text()}\n\nimport os, signal, time\nfrom pathlib import Path\n\n\n"
            f"class Own(Bands):\n    def __call__(self, waveforms):\n"
            f"        mark = Path({str(tmp_path / 'mark')!r})\n        {before}\n"
            "        return super().__call__(waveforms)\n"
        )
        return f"{path}:Own"

    return make


def with_bad_audio(tones: Path, folder: Path) -> str:
    """The tones, and two files that are not audio, the first and the last."""
    header, *rows = tones.read_text().splitlines()
    rows = [f"{tones.parent}/{row}" for row in rows]
    for name in ("first", "last"):
        (folder / f"{name}.wav").write_bytes(b"not audio")
    bad = [f"{name}.wav\ttrain\tada\tyes\tyes" for name in ("first", "last")]
    manifest = folder / "spoilt.tsv"
    manifest.write_text("\n".join([header, bad[0], *rows, bad[1]]) + "\n")
    return str(manifest)


def told(output: Path) -> dict[Path, object]:
    """All that result files of a folder say but for their circumstances."""
    found: dict[Path, object] = {}
    for path in output.rglob("*.*"):
        if path.suffix != ".json":
            found[path.relative_to(output)] = path.read_bytes()
            continue
        document = json.loads(path.read_text())
        document.get("encoder", {}).pop("throughput", None)  # a head's card has none
        found[path.relative_to(output)] = {
            name: value for name, value in document.items() if name not in CIRCUMSTANCES
        }
    return found


@pytest.mark.parametrize("how", [{"workers": 2}, {"cluster": "auto"}], ids=["workers", "Ray"])
def test_workers_write_what_one_process_writes(how, places, bands_file, tones, tmp_path):
    """Also of bad audio that is left out, which is said once."""
    if "cluster" in how:
        pytest.importorskip("ray", reason="superb[cluster] is not installed")
    given = {
        "upstream": f"{bands_file}:Bands",
        "downstream": ["ks", "asr"],
        "corpus": with_bad_audio(tones, tmp_path),
        "protocol": places["protocol"],
        "layers": ["last", "weighted-sum-norm", "1"],
        "on_bad_audio": "skip",
        "device": "cpu",
        "save_heads": True,
    }
    said, results = [], []
    for name, executor in (("1", {}), ("2", how)):
        messages = Messages()
        folder = tmp_path / name
        results.append(
            run(
                **given,
                **executor,
                output=folder,
                cache_dir=tmp_path / f"cache {name}",
                progress=messages,
            )
        )
        said.append(messages.warnings)
    one, two = told(tmp_path / "1"), told(tmp_path / "2")
    assert len(one) == 2 * 3 * 4  # tasks, layer choices, files: those of heads too
    assert one == two
    assert [(r.downstream["name"], r.layer) for r in results[0]] == [
        (r.downstream["name"], r.layer) for r in results[1]
    ]
    assert sorted(said[0]) == sorted(said[1])
    assert len([text for text in said[1] if "2 audio files left out" in text]) == 1
    # both wrote features
    for store in (tmp_path / "cache 2" / "features").iterdir():
        assert len(list(store.glob("*.bin"))) == 2


def test_what_a_dead_worker_was_doing_is_done_again(spec_of, plugin, tmp_path):
    """In the middle of its share, some of which is stored by then."""
    name = plugin(
        "if len(self.heard) == 20 and not mark.exists():\n"
        "            mark.touch()\n            os.kill(os.getpid(), signal.SIGKILL)"
    )
    spec = spec_of(name, layers=("last",))
    messages = Messages()
    (result,) = run_site(build_site(spec), LocalWorkers(partial(build_site, spec), 2), messages)
    assert (tmp_path / "mark").exists()
    assert messages.warnings[0] == "a worker died; what it was doing is done again"
    other = replace(spec, output=tmp_path / "one", cache_dir=tmp_path / "one cache")
    (alone,) = run_site(build_site(other), InProcess(), messages)
    assert result.run_id == alone.run_id
    assert told(spec.output) == told(other.output)


def test_a_job_that_always_kills_its_worker_is_given_up_and_no_other_blamed(spec_of, plugin, tones):
    """The worker that hears the very first utterance, which is in the first share."""
    first = float(soundfile.read(tones.parent / "ada-yes-0.wav")[0][0])
    name = plugin(f"if abs(float(waveforms[0][0]) - {first}) < 1e-6: os.kill(os.getpid(), 9)")
    spec = spec_of(name)
    workers = LocalWorkers(partial(build_site, spec), 2)
    with pytest.raises(SuperbError, match=r"share 1 of 2' died 3 times.*Try fewer"):
        run_site(build_site(spec), workers, Messages())
    assert list(spec.output.iterdir()) == []


def workers_of(process) -> list[int]:
    """Process ids of the workers that another process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
@pytest.mark.parametrize("when", ["while they start", "while they work"])
def test_ctrl_c_ends_the_workers_too(when, places, plugin, tones, quick, tmp_path):
    name = plugin("mark.touch()\n        time.sleep(0.2)")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "superb", "run", "-u", name, "-d", "ks", "--workers", "2"),
            *("--corpus", tones, "--protocol", quick, "--device", "cpu"),
            *("--output", places["output"], "--cache-dir", places["cache_dir"]),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    begun = (tmp_path / "mark").exists if when == "while they work" else lambda: workers_of(process)
    while not begun():
        assert time.monotonic() < until
        time.sleep(0.02)
    workers = workers_of(process)
    assert workers
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert list(places["output"].iterdir()) == []


def through_pickle(spec) -> None:
    """All jobs as a worker does them, in this process."""
    site, sent = build_site(spec), {}
    order = make_order(partial(build_site, spec), site)
    for job, inputs in make_plan(site, Messages(), 2).needs.items():
        sent[job] = work_on(order, job, *(sent[needed] for needed in inputs))
        done_by(sent[job])


def done_by(sent: bytes) -> object:
    """The outcome of a report, or its error raised."""
    outcome = pickle.loads(sent).outcome
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def first_job(site):
    return next(iter(make_plan(site, Messages()).needs))


@pytest.mark.parametrize("kind", ["bad audio", "not finite"])
def test_an_error_in_a_job_is_the_error_of_one_process(
    kind, spec_of, tones, tmp_path, bands_file, plugin
):
    """As a worker raises it, through the pickle that brings it here."""
    if kind == "bad audio":
        spec = spec_of(f"{bands_file}:Bands", corpus=with_bad_audio(tones, tmp_path))
        expected = AudioError
    else:
        spec = spec_of(plugin("waveforms = [waveforms[0] * float('nan')]"))
        expected = UpstreamError
    with pytest.raises(expected) as alone:
        run_site(build_site(spec), InProcess(), Messages())
    with pytest.raises(expected) as there:
        through_pickle(spec)
    assert (type(there.value), str(there.value)) == (type(alone.value), str(alone.value))


class OddError(Exception):
    """Comes out of no pickle."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")


def test_an_error_that_cannot_be_sent_comes_as_text(spec_of, bands_file, monkeypatch):
    def odd(*_: object) -> None:
        raise OddError("strange", 7)

    monkeypatch.setattr(module, "do", odd)
    spec = spec_of(f"{bands_file}:Bands")
    site = build_site(spec)
    with pytest.raises(
        RuntimeError, match=r"job 'bands: features' failed(?s:.*)OddError: strange 7"
    ):
        done_by(work_on(make_order(partial(build_site, spec), site), first_job(site)))


def test_an_object_that_cannot_be_sent_is_refused_before_any_worker_starts(places, bands):
    encoder = bands()
    with pytest.raises(SuperbError, match=r"cannot be sent.*my_file\.py:Name.*leave out --workers"):
        run(encoder, "ks", workers=2, **places)
    assert encoder.heard == []
    assert list(places["output"].iterdir()) == []


def test_an_object_that_only_this_process_can_read_is_refused_by_the_worker(
    spec_of, plugin, monkeypatch
):
    """Its class is in a file that was loaded here and not there, or was typed at a prompt."""
    spec = spec_of(load_upstream(plugin("pass")))
    site = build_site(spec)
    order = make_order(partial(build_site, spec), site)
    monkeypatch.delitem(sys.modules, type(spec.upstream[0]).__module__)
    with pytest.raises(SuperbError, match=r"cannot be sent.*ModuleNotFound.*my_file\.py:Name"):
        done_by(work_on(order, first_job(site)))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ("corpus", "corpus of ks"),
        ("protocol", "rules of ks"),
        ("upstream", "upstream bands"),
        ("tasks", "corpus of sid and another rules of sid"),
    ],
)
def test_a_worker_that_sees_something_else_does_no_job(
    other, what, spec_of, changed, plugin, bands_file, tones, tmp_path
):
    spec = spec_of(f"{bands_file}:Bands")
    there = {
        "corpus": {"corpus": str(tones)[:-4] + "-other.tsv"},
        "protocol": {"protocol": changed(("[ks]\nupdates = 60", "[ks]\nupdates = 80"))},
        "upstream": {"upstream": (plugin("pass").replace(":Own", ":Other"),)},
        "tasks": {"downstream": ("ks", "sid")},
    }[other]
    own = tmp_path / "own.py"
    own.write_text(own.read_text() + "\n\nclass Other(Bands):\n    fingerprint = 'other'\n")
    shorter = Path(str(tones)[:-4] + "-other.tsv")
    shorter.write_text(tones.read_text().rsplit("\n", 2)[0])
    try:
        site = build_site(spec)
        order = make_order(partial(build_site, replace(spec, **there)), site)
        with pytest.raises(SuperbError, match=f"a worker sees another {what} than the process"):
            done_by(work_on(order, first_job(site)))
    finally:
        shorter.unlink()


def test_a_worker_of_another_version_does_no_job(spec_of, bands_file, monkeypatch):
    spec = spec_of(f"{bands_file}:Bands")
    here = build_site(spec)
    order = make_order(partial(build_site, spec), here)
    monkeypatch.setattr(sites, "own_sources", lambda: "of another version")
    with pytest.raises(SuperbError, match="a worker sees another version of superb than"):
        done_by(work_on(order, first_job(here)))


def test_a_worker_that_does_not_see_the_folder_says_so(spec_of, bands_file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VISIBLE_S", 0.0)
    spec = spec_of(f"{bands_file}:Bands")
    site = build_site(spec)
    order = make_order(partial(build_site, spec), site, marks=[tmp_path / ".mark"])
    with pytest.raises(SuperbError, match=rf"does not see {tmp_path}: all machines must share"):
        done_by(work_on(order, first_job(site)))


def test_a_worker_builds_its_site_once_and_loads_the_encoders_of_its_jobs(
    spec_of, plugin, tmp_path
):
    """Of three that have one name."""
    path = Path(plugin("pass").rpartition(":")[0])
    loaded = tmp_path / "loaded"
    path.write_text(
        f"{path.read_text()}\n\nloaded = Path({str(loaded)!r})\n\n\n"
        + "".join(
            f"class {name}(Own):\n    fingerprint = {name!r}\n\n    def __init__(self):\n"
            f"        super().__init__()\n"
            f"        loaded.write_text(loaded.read_text() + {name!r})\n\n\n"
            for name in "ABC"
        )
    )
    loaded.write_text("")
    spec = spec_of(*(f"{path}:{name}" for name in "ABC"), layers=("last",))
    site = build_site(spec)
    assert loaded.read_text() == "ABC"
    needs = make_plan(site, Messages(), 3).needs
    order = make_order(partial(build_site, spec), site)
    loaded.write_text("")
    _, second, third = site.encoders
    for name, done in ((third, "C"), (second, "CB")):
        jobs = [job for job in needs if job.encoder == name and not needs[job]]
        assert len(jobs) == 3
        for job in jobs:
            done_by(work_on(order, job))
        assert loaded.read_text() == done


class Pool:
    """A pool of one process that is this one; some break when they are given their first job."""

    orders: ClassVar[list[object]] = []

    def __init__(self, broken: bool) -> None:
        self.broken = broken

    def submit(self, work, order, *rest):
        if self.broken:
            raise BrokenProcessPool
        self.orders.append(order)
        future = Future()
        future.set_result(work(order, *rest))
        return future

    def shutdown(self, **_: object) -> None:
        return


def test_a_worker_that_died_idle_is_replaced_and_has_the_threads_of_the_run(
    spec_of, bands_file, monkeypatch
):
    broken = [False, True, False]
    monkeypatch.setattr(module.torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(module, "_worker", lambda *_: Pool(broken.pop(0)))
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 5)
    spec = spec_of(f"{bands_file}:Bands", layers=("last",))
    workers = LocalWorkers(partial(build_site, spec), 2)
    assert len(run_site(build_site(spec), workers, Messages())) == 1
    assert broken == []
    assert {order.threads for order in Pool.orders} == {5}


def test_a_job_is_ready_once_what_it_needs_is_done():
    needs = {"a": (), "b": (), "c": ("a", "b"), "d": ("a",)}
    assert ready(needs, {}, []) == ["a", "b"]
    assert ready(needs, {"a": 1}, ["b"]) == ["d"]
    assert ready(needs, {"a": 1, "b": 1, "d": 1}, []) == ["c"]


@pytest.mark.parametrize(
    ("given", "gpu", "seen"),
    [
        (None, 1, "1"),
        ("", 1, "1"),
        ("6, 7", 1, "7"),
        ("GPU-8a,MIG-9b", 0, "GPU-8a"),
        ("6,7", None, "6,7"),  # where there is none, as it was
    ],
)
def test_each_worker_takes_a_gpu_of_its_own_among_those_that_are_the_runs(
    given, gpu, seen, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given or "")
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    module._start(gpu)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


class LostError(Exception):
    """Any error of Ray."""


class CrashedError(LostError):
    """A worker or a machine died."""


class FullError(LostError):
    """A disk is full."""


class Ray:
    """What of Ray a run asks for: tasks are done when they are waited for, or fail as told."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors, self.asked = list(errors), []
        died = ("WorkerCrashed", "OutOfMemory", "NodeDied", "LocalRayletDied", "ObjectLost")
        self.exceptions = SimpleNamespace(
            RayError=LostError,
            RayTaskError=type("Task", (LostError,), {}),
            **{f"{name}Error": CrashedError for name in died},
        )

    def put(self, thing):
        return thing

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1}}, {"Alive": False, "Resources": {}}]

    def remote(self, **options):
        def sender(work):
            def given(**resources):
                self.asked.append({**options, **resources})
                return SimpleNamespace(remote=lambda *told: partial(work, *told))

            return SimpleNamespace(options=given)

        return sender

    def wait(self, references, num_returns):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        if self.errors and (error := self.errors.pop(0)):
            raise error
        return reference()

    def cancel(self, reference, force):
        return

    def shutdown(self):
        return


@pytest.mark.parametrize(
    ("errors", "ends"),
    [
        ([CrashedError()] * 2, "well"),
        ([CrashedError()] * 3, "features' died 3 times.*Is there enough memory"),
        (
            [FullError("\nno room on node 3\nand more")],
            "could not do job 'bands: .*': no room on node 3$",
        ),
    ],
)
def test_a_cluster_does_again_what_died_and_says_in_one_line_what_it_cannot(
    errors, ends, spec_of, bands_file, monkeypatch
):
    ray = Ray(*errors)
    monkeypatch.setitem(sys.modules, "ray", ray)
    spec = spec_of(f"{bands_file}:Bands", layers=("last",))
    cluster = Cluster(partial(build_site, spec), 1, 0)
    if ends == "well":
        messages = Messages()
        assert len(run_site(build_site(spec), cluster, messages)) == 1
        assert len([text for text in messages.warnings if "a worker died" in text]) == 2
    else:
        with pytest.raises(SuperbError, match=ends):
            run_site(build_site(spec), cluster, Messages())
    assert {asked["max_retries"] for asked in ray.asked} == {0}
    assert not any("num_gpus" in asked for asked in ray.asked)
    assert list(spec.output.rglob(".*")) == []


def test_jobs_of_a_site_with_gpus_are_done_where_gpus_are(site_of, monkeypatch):
    site = site_of(tasks=("ks", "asr"), layers=("last",))
    there = replace(site, settings=replace(site.settings, device="cuda"))
    shares = {
        (type(job).__name__, getattr(job, "task", "")): _resources(job, there, 4)["num_gpus"]
        for job in make_plan(site, Messages()).needs
    }
    assert min(shares.values()) > 0
    assert {job for job, share in shares.items() if 2 * share > 1} == {
        ("Encode", ""),
        ("Fit", "asr"),
    }
    assert all(share + 2 * min(shares.values()) <= 1 for share in shares.values())
    monkeypatch.setitem(sys.modules, "ray", Ray())
    with pytest.raises(SuperbError, match=r"cluster has no GPU. Give --device cpu"):
        next(Cluster(partial(build_site), 1, 0).run({}, there, Messages()))


@pytest.mark.parametrize(
    ("installed", "address", "message"),
    [
        (None, "auto", r"pip install 'superb\[cluster\]'"),
        (SimpleNamespace(), "head", "takes auto, ray://HOST:10001 or HOST:6379; got 'head'"),
        (SimpleNamespace(), "ray://127.0.0.1:1", "no Ray cluster at .* nobody answers.*ray start"),
    ],
)
def test_a_cluster_that_is_not_there_is_refused_at_once(
    installed, address, message, spec_of, bands_file, monkeypatch
):
    monkeypatch.setitem(sys.modules, "ray", installed)
    build = partial(build_site, spec_of(f"{bands_file}:Bands"))
    with pytest.raises(SuperbError, match=message):
        Cluster.connect(address, build, Messages())
