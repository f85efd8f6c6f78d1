"""Folds: each trains, is chosen and is tested on its own, and their records are pooled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark.errors import SuperbError
from benchmark.jobs.executors import InProcess
from benchmark.jobs.plan import Encode, Fit, Write, make_plan
from benchmark.jobs.run import run_site
from benchmark.jobs.work import do
from benchmark.metrics import score
from benchmark.progress import Messages
from benchmark.scoring.outcome import Choice
from benchmark.scoring.results import read_records, result_path
from tests.made import FOLDS

QUIET = Messages()


def fitted(site):
    """The outcomes of all jobs but the last, which writes, and that job."""
    needs = make_plan(site, QUIET).needs
    outcomes = {}
    for job, inputs in needs.items():
        if isinstance(job, Write):
            return job, [outcomes[needed] for needed in inputs]
        outcomes[job] = do(job, [outcomes[needed] for needed in inputs], site, QUIET)
    raise AssertionError(needs)


def test_each_fold_is_the_corpus_that_it_makes(site_of, bands, folded, tmp_path):
    encoder = bands()
    site = site_of(encoder, corpus=folded, layers=("last",), seeds=2)
    plan = make_plan(site, QUIET)
    assert [(type(job), getattr(job, "fold", None)) for job in plan.needs] == [
        (Encode, None), (Fit, "a"), (Fit, "b"), (Fit, "c"), (Write, None),
    ]  # fmt: skip
    (result,) = run_site(site, InProcess(), QUIET)
    assert len(encoder.heard) == 72
    records = read_records(result_path(site.output, "ks", "bands", result.run_id))
    assert [(fold["fold"], fold["utterances"]) for fold in result.folds] == [
        ("a", 18), ("b", 18), ("c", 12),
    ]  # fmt: skip
    assert result.metrics["accuracy"]["utterances"] == 48
    for scored, own in zip(result.per_seed, records.values(), strict=True):
        assert scored["metrics"]["accuracy"] == score(own, site.tasks["ks"].scorer.card.metric)
        assert all(record.clusters == (FOLDS[record.fold][0],) for record in own)
    assert {fold: part.vocabulary for fold, part in site.tasks["ks"].partitions.items()} == {
        "a": ("no", "stop", "yes"), "b": ("no", "stop", "yes"), "c": ("no", "yes"),
    }  # fmt: skip
    for fold, (name, part) in zip(result.folds, folded.partitions().items(), strict=True):
        alone = site_of(
            corpus=part, layers=("last",), seeds=2, output=tmp_path / "alone", cache_dir=tmp_path
        )
        (one,) = run_site(alone, InProcess(), QUIET)
        assert fold["learning_rate"] == one.learning_rate
        assert fold["metrics"]["accuracy"] == one.metrics["accuracy"]["value"]
        assert fold["valid"] == sum(score["valid"] for score in one.per_seed) / 2
        own = read_records(result_path(alone.output, "ks", "bands", one.run_id))
        for seed, of_fold in own.items():
            assert [replace(record, fold=name) for record in of_fold] == [
                record for record in records[seed] if record.fold == name
            ]


def test_folds_that_chose_different_rates_have_no_common_one(site_of, folded):
    site = site_of(corpus=folded, layers=("last",))
    job, parts = fitted(site)

    def written(rates):
        inputs = [
            replace(part, choices={"last": replace(part.choices["last"], rate=rate)})
            for part, rate in zip(parts, rates, strict=True)
        ]
        return do(job, inputs, site, QUIET).results["last"]

    assert written([1e-2] * 3).learning_rate == 1e-2
    result = written([1e-2, 1e-1, 1e-2])
    assert result.learning_rate is None
    assert [fold["learning_rate"] for fold in result.folds] == [1e-2, 1e-1, 1e-2]
    assert result.learning_rate_at_edge
    assert any(text.startswith("fold b: the best learning rate, 0.1,") for text in result.warnings)
    assert result.status == "finished"


def test_a_fold_of_which_all_failed_fails_the_result(site_of, folded):
    site = site_of(corpus=folded, layers=("last",))
    job, parts = fitted(site)
    probes = tuple(
        replace(probe, status="failed", reason="loss was not finite at update 1", best=None)
        for probe in parts[1].choices["last"].probes
    )
    parts[1] = replace(parts[1], choices={"last": Choice(probes, None, {})})
    result = do(job, parts, site, QUIET).results["last"]
    assert (result.status, result.metrics, result.per_seed) == ("failed", {}, [])
    assert "fold b: every learning rate failed: loss was not finite at update 1" in result.warnings
    assert [fold["learning_rate"] is None for fold in result.folds] == [False, True, False]


def test_a_fold_without_usable_audio_in_a_split_is_named(site_of, folded):
    spoilt = replace(
        folded,
        utterances=tuple(
            replace(u, audio=b"no audio") if u.speaker == "cy" else u for u in folded.utterances
        ),
    )
    site = site_of(corpus=spoilt, layers=("last",), on_bad_audio="skip")
    with pytest.raises(SuperbError, match="folded, fold b: nothing is left in valid"):
        run_site(site, InProcess(), QUIET)


def test_logs_of_folds_stand_apart(site_of, folded, tmp_path):
    places = {"track": ("tensorboard",), "log_dir": tmp_path / "logs"}
    run_site(site_of(corpus=folded, layers=("last",), **places), InProcess(), QUIET)
    runs = [path.name for path in (tmp_path / "logs" / "ks" / "bands").glob("*/*")]
    for fold in FOLDS:
        assert sum(f"fold {fold}, " in name for name in runs) == 3
