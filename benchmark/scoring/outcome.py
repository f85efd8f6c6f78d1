"""What trainings found out becomes a result: scores with intervals, and what to know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmark.core import Attention, DownstreamCard, Metric, Record, UpstreamCard
from benchmark.metrics import score
from benchmark.probing.fit import Look, Status
from benchmark.provenance import provenance
from benchmark.scoring import statistics
from benchmark.scoring.results import (
    FoldScore,
    HistoryPoint,
    LearningRatePoint,
    MetricValue,
    Result,
    SeedScore,
    SkippedAudio,
    no_interval,
    run_id,
)

_FEW_CLUSTERS = 10


@dataclass(frozen=True)
class Trained:
    """One probe after its training; see `benchmark.probing.fit.Probe`."""

    learning_rate: float  # 0 where nothing is trained
    seed: int
    status: Status
    reason: str
    updates: int
    looks: tuple[Look, ...]
    best: Look | None
    layer_weights: list[float] | None = None
    layer_scores: list[float] | None = None  # of each layer on valid, where nothing is trained


@dataclass(frozen=True)
class Choice:
    """One layer choice on one fold.

    Attributes:
        probes: at all learning rates and seeds.
        rate: the learning rate chosen on valid; None when all failed.
        records: seed → those of test at that rate.
        attention: what the head of the first seed looked at, in a few of test.
    """

    probes: tuple[Trained, ...]
    rate: float | None
    records: Mapping[int, Sequence[Record]]
    attention: Sequence[Attention] = ()

    @property
    def chosen(self) -> list[Trained]:
        """The probes at the chosen rate, a seed each."""
        return [probe for probe in self.probes if probe.learning_rate == self.rate]


@dataclass(frozen=True)
class Fitted:
    """What training some layer choices of a task on one fold found out.

    Attributes:
        fold: its name, "" for the only one.
        choices: layer choice → what came of it.
        notes: warnings that concern the data.
        corpus: what a result says of it.
        skipped: utterances left out.
        timings: seconds by phase.
        features: what a result says of them: norms, throughput and rounding.
    """

    fold: str
    choices: Mapping[str, Choice]
    notes: tuple[str, ...]
    corpus: Mapping[str, Any]
    skipped: tuple[SkippedAudio, ...]
    timings: Mapping[str, float]
    features: Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """What a result is about.

    Attributes:
        identity: everything the score depends on.
        upstream: the encoder's card.
        downstream: the task's card, with all metrics that were scored.
        protocol: every value that was used.
        seeds: of the heads.
        encoder: parameters and multiply-accumulates of the encoder.
        device: where it ran.
        file: name and hash of the file that said what to run; empty without.
    """

    identity: Mapping[str, Any]
    upstream: UpstreamCard
    downstream: DownstreamCard
    protocol: Mapping[str, Any]
    seeds: list[int]
    encoder: Mapping[str, Any]
    device: str
    file: Mapping[str, str] = field(default_factory=dict)


def build_result(
    subject: Subject, layer: str, fitted: Sequence[Fitted]
) -> tuple[Result, dict[int, list[Record]]]:
    """One layer choice of one encoder on one task, all of its folds.

    Args:
        subject: what was run.
        layer: the layer choice, as it was asked for.
        fitted: every fold, in order.

    Returns:
        The result, and its records by seed.
    """
    folds = {part.fold: part.choices[layer] for part in fitted}
    rates = {choice.rate for choice in folds.values()}
    failed = None in rates
    metrics = subject.downstream.metrics
    records: dict[int, list[Record]] = {}
    if not failed:
        records = {
            seed: [
                replace(record, fold=fold) if fold else record
                for fold, choice in folds.items()
                for record in choice.records[seed]
            ]
            for seed in subject.seeds
        }
    values = {metric.name: _metric(records, metric) for metric in metrics} if records else {}
    grid = list(subject.protocol["learning_rates"])
    warnings = list(dict.fromkeys(note for part in fitted for note in part.notes))
    for fold, choice in folds.items():
        warnings += [f"fold {fold}: {text}" if fold else text for text in _about_rate(choice, grid)]
    if len(grid) == 1 and subject.downstream.trained:
        warnings.append(f"one learning rate was tried, {grid[0]:g}: a better one may exist")
    if values:
        own = next(iter(records.values()))
        warnings += _about_interval(values[metrics[0].name], metrics[0].unit, own)
    chosen = [probe for choice in folds.values() for probe in choice.chosen]
    weights = [probe.layer_weights for probe in chosen if probe.layer_weights is not None]
    searched = [probe.layer_scores for probe in chosen if probe.layer_scores is not None]
    first = fitted[0]
    result = Result(
        run_id=run_id(subject.identity),
        status="failed" if failed else "finished",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        identity=subject.identity,
        upstream=plain(asdict(subject.upstream)),
        downstream=plain(asdict(subject.downstream)),
        corpus=first.corpus,
        protocol=plain(subject.protocol),
        layer=layer,
        seeds=subject.seeds,
        metrics=values,
        learning_rate=rates.pop() if len(rates) == 1 else None,
        learning_rate_at_edge=any(_at_edge(choice.rate, grid) for choice in folds.values()),
        learning_rate_curve=_curve([p for choice in folds.values() for p in choice.probes], grid),
        per_seed=[
            _seed_score(seed, [p for p in chosen if p.seed == seed], records[seed], metrics)
            for seed in subject.seeds
            if records
        ],
        history=[
            HistoryPoint(
                learning_rate=probe.learning_rate,
                seed=probe.seed,
                update=look.update,
                train_loss=look.train_loss,
                valid=look.valid,
                valid_loss=look.valid_loss,
            )
            for choice in folds.values()
            for probe in choice.probes
            for look in probe.looks
        ],
        layer_weights=[float(w) for w in np.mean(weights, axis=0)] if weights else None,
        layer_norms=first.features["layer_norms"],
        layer_scores=[float(s) for s in np.mean(searched, axis=0)] if searched else None,
        skipped_audio=list(first.skipped),
        warnings=warnings,
        timings={
            **first.timings,
            "training_s": sum(part.timings["training_s"] for part in fitted),
        },
        encoder={
            **subject.encoder,
            "throughput": first.features["throughput"],
            "rounding_error": first.features["rounding_error"],
        },
        provenance=provenance(subject.device)
        | ({"file": dict(subject.file)} if subject.file else {}),
        folds=[_fold_score(fold, choice, metrics) for fold, choice in folds.items() if fold],
        attention=[plain(asdict(own)) for choice in folds.values() for own in choice.attention],
    )
    return result, records


def _at_edge(rate: float | None, grid: Sequence[float]) -> bool:
    return rate in (grid[0], grid[-1])


def _about_rate(choice: Choice, grid: Sequence[float]) -> list[str]:
    """What a reader must know of how the learning rate was chosen."""
    warnings = []
    if choice.rate is None:
        reason = next(probe.reason for probe in choice.probes if probe.status == "failed")
        warnings.append(f"every learning rate failed: {reason}")
    elif choice.chosen[0].status == "dropped":
        warnings.append(
            f"every learning rate that was kept failed; {choice.rate:g}, dropped after "
            f"{choice.chosen[0].updates} updates, stands in"
        )
    if len(grid) > 1 and _at_edge(choice.rate, grid):
        warnings.append(
            f"the best learning rate, {choice.rate:g}, is at the edge of the grid "
            f"({grid[0]:g} to {grid[-1]:g}): a better one may lie outside"
        )
    return warnings


def _about_interval(value: MetricValue, unit: str, records: Sequence[Record]) -> list[str]:
    """Why there is no interval to show, or one that is not over speakers alone, or over few."""
    if why := no_interval(value, unit):
        return [f"no interval is shown, it would say nothing: {why}"]
    if not value.get("by_utterance"):
        clusters = value["clusters"]
        if clusters >= _FEW_CLUSTERS:
            return []
        return [f"the interval rests on {clusters} test speakers only"]
    unknown = sum("" in record.clusters for record in records)
    if 0 < unknown < len(records):
        return [
            f"the speakers of {unknown} of {len(records)} test utterances are not known: in the "
            "interval, each of these utterances stands for a speaker"
        ]
    names = sorted({name for record in records for name in record.clusters})
    if unknown:
        return ["the interval is over utterances: no test speaker is known"]
    if len(names) == 1:
        return [f"the interval is over utterances: test has one speaker, {names[0]}"]
    return [
        "the interval is over utterances, in part or in all: without some test speaker nothing, or "
        "none of a kind, would be left to score"
    ]


def _metric(records: Mapping[int, Sequence[Record]], metric: Metric) -> MetricValue:
    stacked = [record for seed in records.values() for record in seed]
    found = statistics.interval_of(stacked, metric, seeds=len(records))
    return MetricValue(
        value=found.value,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        clusters=found.clusters,
        utterances=found.utterances,
        by_utterance=found.by_utterance,
        seed_std=statistics.seed_std([score(seed, metric) for seed in records.values()]),
    )


def _fold_score(fold: str, choice: Choice, metrics: Sequence[Metric]) -> FoldScore:
    """What one fold came to, seeds averaged."""
    own = choice.records.values()
    valid = [probe.best.valid for probe in choice.chosen if probe.best is not None]
    return FoldScore(
        fold=fold,
        learning_rate=choice.rate,
        metrics={
            metric.name: float(np.mean([score(records, metric) for records in own]))
            for metric in metrics
            if own
        },
        valid=float(np.mean(valid)) if valid else None,
        utterances=len(next(iter(own))) if own else 0,
    )


def _seed_score(
    seed: int, probes: Sequence[Trained], records: Sequence[Record], metrics: Sequence[Metric]
) -> SeedScore:
    best = [probe.best for probe in probes if probe.best is not None]
    weights = [probe.layer_weights for probe in probes if probe.layer_weights is not None]
    return SeedScore(
        seed=seed,
        metrics={metric.name: score(records, metric) for metric in metrics},
        valid=float(np.mean([look.valid for look in best])) if len(best) == len(probes) else None,
        best_update=max((look.update for look in best), default=0),
        updates=max(probe.updates for probe in probes),
        layer_weights=[float(w) for w in np.mean(weights, axis=0)] if weights else None,
    )


def _curve(probes: Sequence[Trained], grid: Sequence[float]) -> list[LearningRatePoint]:
    """The best valid score of every learning rate, averaged over seeds and folds."""
    points = []
    for rate in grid:
        own = [probe for probe in probes if probe.learning_rate == rate]
        if not own:  # of a task that trains nothing
            continue
        best = [probe.best.valid for probe in own if probe.best is not None]
        failed = [probe for probe in own if probe.status == "failed"]
        worst = failed[0] if failed else own[0]
        assert worst.status != "training"
        points.append(
            LearningRatePoint(
                learning_rate=rate,
                valid=float(np.mean(best)) if len(best) == len(own) else None,
                status=worst.status,
                updates=max(probe.updates for probe in own),
                reason=worst.reason,
            )
        )
    return points


def plain(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """Sets as sorted lists and tuples as lists, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
