"""Trackers: what they are told of a result, what they keep, and that they cost nothing but that."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import pytest

from benchmark.errors import SuperbError
from benchmark.progress import Messages, Progress
from benchmark.tracking import courses as module
from benchmark.tracking import tracker as table
from benchmark.tracking.courses import Courses
from benchmark.tracking.tracker import About, load_tracker, require_tracker
from benchmark.tracking.with_trackio import Trackio
from superb.running import run

ABOUT = About("0123456789abcdef", "hubert", "ks", "last", {"seeds": [0], "protocol": {"a": 1}})
POINT = {"train/loss": 2.5, "valid/accuracy": 50.0}
SCORE = {"status": "finished", "test/accuracy": 75.0}


class Told:
    """A tracker that remembers, and fails when told so."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.opened, self.told, self.closed = fails, [], [], 0

    def open(self, about):
        self.opened.append(about)
        return self

    def look(self, curve, update, values):
        if self.fails:
            raise OSError("no network")
        self.told.append((curve, update, values))

    def score(self, values):
        self.told.append(values)

    def close(self):
        self.closed += 1


def test_a_course_is_a_result_and_a_tracker_that_fails_is_given_up(places, bands, monkeypatch):
    trackers = {"tensorboard": Told(), "wandb": Told(fails=True)}
    monkeypatch.setattr(module, "load_tracker", lambda name, folder: trackers[name])
    messages = Messages()
    asked = {**places, "layers": ("last", "0"), "track": tuple(trackers), "progress": messages}
    results = run(bands(), "ks", **asked)
    told = trackers["tensorboard"]
    assert sorted(about.run_id for about in told.opened) == sorted(r.run_id for r in results)
    assert told.closed == len(results)
    assert told.opened[0].config["protocol"]["name"] == results[0].protocol["name"]
    stored = [
        (f"{point['learning_rate']:g}, seed {point['seed']}", point["update"], point["valid"])
        for result in results
        for point in result.history
    ]
    looks = [item for item in told.told if isinstance(item, tuple)]
    shown = [(curve, update, values["valid/accuracy"]) for curve, update, values in looks]
    assert sorted(shown) == sorted(stored)
    scores = [item for item in told.told if isinstance(item, dict)]
    found = results[0].metrics["accuracy"]
    assert scores[0]["test/accuracy"] == found["value"]
    assert scores[0]["test/accuracy_low"] == found["low"]
    # the other one is asked once, and what was trained is what it would have been
    assert {result.status for result in results} == {"finished"}
    (warning,) = [text for text in messages.warnings if "--track" in text]
    assert "wandb is given up, training goes on: OSError: no network" in warning


def test_a_tracker_without_its_package_says_what_to_type(monkeypatch):
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SuperbError, match=r"pip install 'superb\[wandb\]'"):
        require_tracker("wandb")
    with pytest.raises(SuperbError, match="Did you mean wandb"):
        Courses(["wandbb"])


def test_tensorboard_keeps_runs_apart_and_takes_back_what_comes_again(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for run_id, values in (("1", (1.0, 2.0)), ("2", (3.0,))):
        for _ in range(2):  # as if cut off after the first
            course = load_tracker("tensorboard", tmp_path).open(replace(ABOUT, run_id=run_id))
            for step, value in enumerate(values, start=1):
                course.look("0.1, seed 0", step, {"train/loss": value})
            course.score({"status": "finished", "test/accuracy": sum(values)})
            course.close()
    for run_id, values in (("1", (1.0, 2.0)), ("2", (3.0,))):
        place = tmp_path / "ks" / "hubert" / run_id
        curve, score = (
            EventAccumulator(f"{place}/last, 0.1, seed 0"),
            EventAccumulator(f"{place}/last"),
        )
        curve.Reload(), score.Reload()
        points = [(point.step, point.value) for point in curve.Scalars("train/loss")]
        assert points == list(enumerate(values, start=1))
        assert [point.value for point in score.Scalars("test/accuracy")] == [sum(values)]


def test_trackio_keeps_courses_that_are_open_together(tmp_path, monkeypatch, capfd):
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils

    for found in (utils, sqlite_storage):  # it may have been imported with another one
        monkeypatch.setattr(found, "TRACKIO_DIR", tmp_path, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setattr(Trackio, "_folder", ())
    tracker = load_tracker("trackio", tmp_path)
    for other in (tmp_path / "other", None):  # it would keep them here all the same
        with pytest.raises(SuperbError, match="all runs of a process in one folder"):
            load_tracker("trackio", other)
    runs = [tracker.open(About(f"{n}", "hubert", "ks", "last", {"n": n})) for n in range(2)]
    for own in runs:
        own.look("0.1, seed 0", 20, POINT)
    for own in runs:
        own.score(SCORE)
        own.close()
    with sqlite3.connect(tmp_path / "superb.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics").fetchall()
        assert len(base.execute("select * from configs").fetchall()) == 2
    own = [(step, json.loads(text)) for name, step, text in rows if name.endswith("last, 1")]
    curves = {f"{name}, 0.1, seed 0": value for name, value in POINT.items()}
    assert own[0] == (20, curves)
    assert own[1][1] == SCORE
    assert capfd.readouterr().out == ""


def test_wandb_writes_offline(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = load_tracker("wandb", tmp_path)
    course = tracker.open(ABOUT)
    course.look("0.1, seed 0", 20, POINT)
    course.score(SCORE)
    course.close()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(ABOUT.run_id)
    data = next(folder.glob("*.wandb")).read_bytes()
    for text in (b"valid/accuracy, 0.1, seed 0", b"test/accuracy", b"protocol"):
        assert text in data
    assert capfd.readouterr().out == ""


def test_courses_without_trackers_say_nothing():
    courses = Courses()
    assert not courses
    courses.close(Progress(quiet=True))
