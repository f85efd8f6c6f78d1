"""Workers here and of a cluster: to the same results, through deaths, with one voice, one end."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from benchmark.errors import AudioError, SuperbError, UpstreamError
from benchmark.jobs import executors as module
from benchmark.jobs import site
from benchmark.jobs.cluster import Cluster
from benchmark.jobs.executors import InProcess, LocalWorkers, make_order, ready, work_on
from benchmark.jobs.plan import make_plan
from benchmark.jobs.run import run_site
from benchmark.progress import Messages
from superb.compose import build_site
from superb.running import run

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
        if path.suffix == ".csv":
            found[path.relative_to(output)] = path.read_bytes()
            continue
        document = json.loads(path.read_text())
        del document["encoder"]["throughput"]
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
    assert len(one) == 2 * 3 * 2  # tasks, layer choices, files
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
    site, outcomes = build_site(spec), {}
    order = make_order(partial(build_site, spec), site, 1, "--workers")
    for job, inputs in make_plan(site, Messages(), 2).needs.items():
        report = work_on(order, job, [outcomes[needed] for needed in inputs])
        outcomes[job] = pickle.loads(pickle.dumps(report.outcome))


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
    brought = pickle.loads(pickle.dumps(there.value))
    assert (type(brought), str(brought)) == (type(alone.value), str(alone.value))


def test_an_object_that_cannot_be_sent_is_refused_before_any_worker_starts(places, bands):
    encoder = bands()
    with pytest.raises(SuperbError, match=r"cannot be sent.*my_file\.py:Name.*leave out --workers"):
        run(encoder, "ks", workers=2, **places)
    assert encoder.heard == []
    assert list(places["output"].iterdir()) == []


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
        "upstream": {"upstreams": (plugin("pass").replace(":Own", ":Other"),)},
        "tasks": {"downstreams": ("ks", "sid")},
    }[other]
    own = tmp_path / "own.py"
    own.write_text(own.read_text() + "\n\nclass Other(Bands):\n    fingerprint = 'other'\n")
    shorter = Path(str(tones)[:-4] + "-other.tsv")
    shorter.write_text(tones.read_text().rsplit("\n", 2)[0])
    try:
        site = build_site(spec)
        order = make_order(partial(build_site, replace(spec, **there)), site, 1, "--workers")
        job = next(iter(make_plan(site, Messages()).needs))
        with pytest.raises(SuperbError, match=f"a worker sees another {what} than the process"):
            work_on(order, job, [])
    finally:
        shorter.unlink()


def test_a_worker_of_another_version_does_no_job(spec_of, bands_file, monkeypatch):
    spec = spec_of(f"{bands_file}:Bands")
    here = build_site(spec)
    order = make_order(partial(build_site, spec), here, 1, "--cluster")
    monkeypatch.setattr(site, "own_sources", lambda: "of another version")
    with pytest.raises(SuperbError, match="a worker sees another version of superb than"):
        work_on(order, next(iter(make_plan(here, Messages()).needs)), [])


def test_a_worker_that_does_not_see_the_folder_says_so(spec_of, bands_file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VISIBLE_S", 0.0)
    spec = spec_of(f"{bands_file}:Bands")
    site = build_site(spec)
    order = make_order(partial(build_site, spec), site, 1, "--cluster", [tmp_path / ".mark"])
    job = next(iter(make_plan(site, Messages()).needs))
    with pytest.raises(SuperbError, match=rf"does not see {tmp_path}: all machines must share"):
        work_on(order, job, [])


def test_a_worker_builds_its_site_once(spec_of, bands_file, tmp_path):
    built = []
    spec = spec_of(f"{bands_file}:Bands")
    site = build_site(spec)

    def build():
        built.append(1)
        return build_site(spec)

    order = replace(make_order(partial(build_site, spec), site, 1, "--workers"), build=build)
    for job in make_plan(site, Messages(), 3).needs:
        if not make_plan(site, Messages(), 3).needs[job]:
            work_on(order, job, [])
    assert built == [1]


def test_a_job_is_ready_once_what_it_needs_is_done():
    needs = {"a": (), "b": (), "c": ("a", "b"), "d": ("a",)}
    assert ready(needs, {}, []) == ["a", "b"]
    assert ready(needs, {"a": 1}, ["b"]) == ["d"]
    assert ready(needs, {"a": 1, "b": 1, "d": 1}, []) == ["c"]


def test_each_worker_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    module._start(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    module._start(None)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"  # where there is none, as it was


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
