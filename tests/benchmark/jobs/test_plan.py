"""What jobs a run has: those of open cells, once, in an order in which they can be done."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import pytest

from benchmark.jobs.executors import InProcess
from benchmark.jobs.plan import Encode, Fit, Write, make_plan
from benchmark.jobs.run import run_site
from benchmark.jobs.work import do
from benchmark.progress import Messages
from benchmark.scoring.results import write_result

QUIET = Messages()


def of_kind(plan, kind):
    return [job for job in plan.needs if isinstance(job, kind)]


def test_one_process_encodes_once_and_trains_all_choices_of_a_task_together(site_of):
    plan = make_plan(site_of(tasks=("ks", "asr")), QUIET)
    (encode,) = of_kind(plan, Encode)
    choices = ("last", "weighted-sum")
    assert encode.wanted == (("ks", choices), ("asr", choices))
    assert (encode.share, encode.shares, encode.layers) == (0, 1, None)
    fits, writes = of_kind(plan, Fit), of_kind(plan, Write)
    assert [(fit.task, fit.fold, fit.choices) for fit in fits] == [
        ("ks", "", choices),
        ("asr", "", choices),
    ]
    assert [plan.needs[fit] for fit in fits] == [(encode,), (encode,)]
    assert [plan.needs[write] for write in writes] == [(fit,) for fit in fits]
    done = set()
    for job, inputs in plan.needs.items():
        assert done.issuperset(inputs)
        done.add(job)


def test_what_is_finished_is_in_no_job(site_of):
    run_site(site_of(layers=("last",)), InProcess(), QUIET)
    plan = make_plan(site_of(layers=("last", "weighted-sum"), tasks=("ks", "sid")), QUIET)
    assert list(plan.found) == [("bands", "ks", "last")]
    assert [(fit.task, fit.choices) for fit in of_kind(plan, Fit)] == [
        ("ks", ("weighted-sum",)),
        ("sid", ("last", "weighted-sum")),
    ]
    (encode,) = of_kind(plan, Encode)
    assert encode.wanted == (("ks", ("weighted-sum",)), ("sid", ("last", "weighted-sum")))
    assert make_plan(site_of(layers=("last",)), QUIET).needs == {}


def test_what_failed_is_not_run_again_and_it_is_said_how(site_of):
    site = site_of(layers=("last", "0"), tasks=("ks",))
    for result in run_site(site, InProcess(), QUIET):
        if result.layer == "0":
            failed = replace(result, status="failed", metrics={}, per_seed=[], learning_rate=None)
            path = write_result(site.output, failed, {})
    messages = Messages()
    plan = make_plan(site, messages)
    assert plan.needs == {}
    (warning,) = messages.warnings
    assert warning.startswith("bands, ks, 0: failed before")
    assert f"{path} says why" in warning
    path.unlink()
    assert [fit.choices for fit in of_kind(make_plan(site, QUIET), Fit)] == [("0",)]


def test_for_several_workers_each_choice_is_a_job_but_equal_ones_are_one(site_of):
    plan = make_plan(site_of(layers=("last", "weighted-sum", "1", "0")), QUIET, workers=4)
    groups = [("last", "1"), ("weighted-sum",), ("0",)]
    assert [fit.choices for fit in of_kind(plan, Fit)] == groups
    assert [write.choices for write in of_kind(plan, Write)] == groups
    encodes = of_kind(plan, Encode)
    assert [(job.share, job.shares) for job in encodes] == [(share, 4) for share in range(4)]
    assert all(plan.needs[fit] == tuple(encodes) for fit in of_kind(plan, Fit))


def test_shares_hear_every_recording_once(site_of, bands):
    encoder = bands()
    site = site_of(encoder)
    heard = []
    for job in of_kind(make_plan(site, QUIET, workers=5), Encode):
        found = do(job, [], site, QUIET)
        heard += found.keys
    assert sorted(heard) == sorted(u.id for u in site.tasks["ks"].corpus.utterances)
    assert len(encoder.heard) == 72


def test_no_share_is_left_without_a_recording(site_of, tones):
    rows = tones.read_text().splitlines()
    few = [rows[0], *(row for row in rows[1:] if row.startswith("ada-yes"))]
    few[1] = few[1].removesuffix("yes") + "no"
    path = tones.with_name("few.tsv")
    path.write_text("\n".join(few))
    shares = of_kind(make_plan(site_of(corpus=str(path)), QUIET, workers=8), Encode)
    path.unlink()
    assert len(shares) == 3  # of two recordings


def test_tasks_of_one_gain_are_encoded_together(site_of, changed):
    path = changed(("gain_db = 0.0", "gain_db = -3.0"))  # the first table is that of asr
    plan = make_plan(site_of(tasks=("ks", "asr", "sid"), protocol=path), QUIET)
    assert [(job.gain_db, [task for task, _ in job.wanted]) for job in of_kind(plan, Encode)] == [
        (0.0, ["ks", "sid"]),
        (-3.0, ["asr"]),
    ]


@pytest.mark.parametrize(
    ("layers", "task", "kept"),
    [
        (("last",), "asr", (1,)),
        (("0", "last"), "asr", None),  # that is all of them
        (("last", "weighted-sum"), "asr", None),
        (("last",), "ks", None),  # time means are kept of all
    ],
)
def test_frames_are_kept_of_the_layers_that_are_asked_for(site_of, layers, task, kept):
    plan = make_plan(site_of(layers=layers, tasks=(task,)), QUIET)
    assert {job.layers for job in of_kind(plan, Encode)} == {kept}
    assert {job.kept for job in of_kind(plan, Fit)} == {kept}


def test_frames_that_are_stored_of_all_layers_are_used(site_of, bands, tones, tmp_path):
    shutil.copytree(tones.parent, tmp_path / "own")
    for path in (tmp_path / "own").glob("*.wav"):
        os.utime(path, (1e9, 1e9))  # files as new as the tones would be read again
    given = {"tasks": ("asr",), "corpus": str(tmp_path / "own" / tones.name)}
    run_site(site_of(layers=("weighted-sum",), **given), InProcess(), QUIET)
    encoder = bands()
    site = site_of(encoder, layers=("last",), **given)
    (job,) = of_kind(make_plan(site, QUIET), Encode)
    assert job.layers is None
    do(job, [], site, QUIET)
    assert encoder.heard == []


def free(monkeypatch, size):
    usage = SimpleNamespace(free=size + 256 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_storage_is_settled_by_what_fits_and_then_stays(site_of, monkeypatch):
    def settled(**changes):
        site = site_of(storage="auto", tasks=("asr",), layers=("last",), **changes)
        messages = Messages()
        plan = make_plan(site, messages)
        return site, plan.storage["bands"], messages.warnings

    # 72 utterances of 0.35 s, a frame in 10 ms and one to spare, 8 numbers of 2 bytes
    whole = round(8 * 2 * (72 * 0.35 * 100 + 72))
    free(monkeypatch, whole + 100)
    assert settled()[1:] == ("float16", [])
    free(monkeypatch, whole - 100)
    site, storage, warnings = settled()
    assert storage == "int8"
    assert warnings[0].startswith("bands: features are kept as int8, since float16 would take")
    run_site(site, InProcess(), QUIET)
    free(monkeypatch, 10 * whole)
    _, storage, warnings = settled()
    assert storage == "int8"
    assert "as in earlier results" in warnings[0]
    assert settled(seeds=2)[1] == "float16"  # of which there are none
    free(monkeypatch, 0)
    assert settled(seeds=2, cache_dir=site.output)[1] == "none"


def test_what_fits_no_disk_is_encoded_anew_on_a_card(site_of, bands, monkeypatch):
    """Where the rounding of eight bits would save little time."""
    whole = round(8 * 2 * (72 * 0.35 * 100 + 72))
    site = site_of(bands(), storage="auto", tasks=("asr",), layers=("last",))
    there = replace(site, settings=replace(site.settings, device="cuda"))
    free(monkeypatch, whole - 100)
    found = [next(iter(make_plan(each, QUIET).storage.values())) for each in (site, there)]
    assert found == ["int8", "none"]


def test_encoders_share_what_is_free(site_of, bands, monkeypatch):
    other = bands()
    other.fingerprint = "bands 2"
    whole = round(8 * 2 * (72 * 0.35 * 100 + 72))
    free(monkeypatch, whole + 100)
    site = site_of(bands(), other, storage="auto", tasks=("asr",), layers=("last",))
    assert list(make_plan(site, QUIET).storage.values()) == ["float16", "none"]


def test_jobs_are_plain_values(site_of):
    site = site_of(tasks=("ks", "asr"))
    jobs = list(make_plan(site, QUIET, workers=2).needs)
    again = list(make_plan(site_of(tasks=("ks", "asr")), QUIET, workers=2).needs)
    assert jobs == again == pickle.loads(pickle.dumps(jobs))
    assert len({*jobs, *again}) == len(jobs)
    assert len({str(job) for job in jobs}) == len(jobs)
    for job in jobs:
        with pytest.raises(FrozenInstanceError):
            job.encoder = "other"


def test_doing_every_job_twice_does_no_harm(site_of, tmp_path):
    """Whoever does it, and whether or not the other had finished."""
    files = []
    for times in (1, 2):
        site = site_of(output=tmp_path / str(times), seeds=2)
        outcomes = {}
        for job, inputs in make_plan(site, QUIET, workers=2).needs.items():
            for _ in range(times):
                outcomes[job] = do(job, [outcomes[needed] for needed in inputs], site, QUIET)
        files.append(
            {
                path.relative_to(tmp_path / str(times)): path.read_bytes()
                for path in (tmp_path / str(times)).rglob("*.csv")
            }
        )
    assert len(files[0]) == 2
    assert files[0] == files[1]
