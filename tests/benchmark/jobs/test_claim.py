"""One run makes a result at a time; what a dead one left is cleared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from benchmark.errors import SuperbError
from benchmark.jobs import claim as module
from benchmark.jobs.claim import claimed
from benchmark.jobs.executors import InProcess
from benchmark.jobs.run import run_site

HOLD = """
import sys
from pathlib import Path
from benchmark.jobs.claim import claimed

with claimed(Path(sys.argv[1]), ["a", "b"]):
    print("claimed", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process(output):
    """Another process that is making the runs a and b."""
    command = [sys.executable, "-c", HOLD, str(output)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "claimed\n"
        yield process
        if process.poll() is None:
            process.communicate("end\n")


def elsewhere(output, ago_s, name="elsewhere", **more):
    """A mark of another machine."""
    output.mkdir(exist_ok=True)
    mark = output / f".running-{name}"
    mark.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid(), "runs": ["a"], **more}))
    os.utime(mark, (time.time() - ago_s,) * 2)
    return mark


def test_the_same_results_are_refused_and_others_are_not(tmp_path):
    with another_process(tmp_path) as other:
        told = rf"process {other.pid} on \S+ is making the same results in {tmp_path}"
        with pytest.raises(SuperbError, match=told), claimed(tmp_path, ["b", "c"]):
            pytest.fail("two make the same")
        with claimed(tmp_path, ["c"]):
            assert len(list(tmp_path.iterdir())) == 2
        other.communicate("end\n")
    assert list(tmp_path.iterdir()) == []
    with claimed(tmp_path, ["b"]):
        pass


@pytest.mark.parametrize("wanted", [["a"], []])
def test_the_mark_of_a_dead_process_is_cleared(tmp_path, wanted):
    with another_process(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with claimed(tmp_path, wanted):
        assert len(list(tmp_path.iterdir())) == len(wanted)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_over_and_nothing_made_for_nothing(tmp_path):
    with claimed(tmp_path / "none", []):
        assert not (tmp_path / "none").exists()
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "some", ["a"]):
        raise KeyboardInterrupt
    assert list((tmp_path / "some").iterdir()) == []


def test_another_machine_is_believed_as_long_as_it_touches_its_mark(tmp_path):
    mark = elsewhere(tmp_path, ago_s=30)
    with pytest.raises(SuperbError, match=r"on elsewhere is making the same"):
        claimed(tmp_path, ["a"]).__enter__()
    assert mark.exists()
    half = elsewhere(tmp_path, ago_s=300, name="half.tmp")
    for ago_s in (300, -300):  # also from before the clock was set back
        elsewhere(tmp_path, ago_s)
        with claimed(tmp_path, ["a"]):
            assert not mark.exists()
            assert not half.exists()


def test_of_those_that_begin_together_the_first_by_name_waits_and_others_give_way(
    tmp_path, monkeypatch
):
    elsewhere(tmp_path, 0, name="0", held=False)
    with pytest.raises(SuperbError, match="making the same"):
        claimed(tmp_path, ["a"]).__enter__()
    (tmp_path / ".running-0").unlink()
    other = elsewhere(tmp_path, 0, name="z", held=False)
    monkeypatch.setattr(module.time, "sleep", lambda _: other.unlink())
    with claimed(tmp_path, ["a"]):
        assert not other.exists()
    elsewhere(tmp_path, 0, name="z", held=True)
    with pytest.raises(SuperbError, match="making the same"):
        claimed(tmp_path, ["a"]).__enter__()


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, monkeypatch):
    with another_process(tmp_path):
        now = time.time
        monkeypatch.setattr(module.time, "time", lambda: now() - 86_400)
        with pytest.raises(SuperbError, match="making the same"):
            claimed(tmp_path, ["a"]).__enter__()


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path):
    host = module.socket.gethostname()
    mark = elsewhere(tmp_path, 0, host=host, pid=os.getpid(), born="another start 1")
    with claimed(tmp_path, ["a"]):
        assert not mark.exists()


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SuperbError, match="nothing can be written to"):
        claimed(tmp_path / "file", ["a"]).__enter__()


def test_a_mark_is_touched_while_the_run_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TOUCH_EVERY_S", 0.01)
    with claimed(tmp_path, ["a"]):
        (mark,) = tmp_path.iterdir()
        os.utime(mark, (1e9, 1e9))
        until = time.monotonic() + 10
        while mark.stat().st_mtime == 1e9:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_second_command_ends_with_one_message_and_exit_code_two(
    places, site_of, bands_file, tones, quick
):
    site = site_of(f"{bands_file}:Bands")
    with claimed(site.output, [site.run_id(("bands", "ks", "last"), "float16")]):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "superb", "run", "-u", f"{bands_file}:Bands", "-d", "ks"),
                *("--corpus", tones, "--protocol", quick, "--device", "cpu"),
                *("--output", site.output, "--cache-dir", places["cache_dir"]),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"process {os.getpid()} on " in done.stderr
    assert done.stderr.count("making the same results") == 1
    assert "Traceback" not in done.stderr
    assert list(site.output.rglob("*.json")) == []
    # of other results the folder may have more
    with claimed(site.output, ["another run"]):
        assert len(run_site(site, InProcess(), places["progress"])) == 2
    assert list(site.output.glob(".*")) == []
