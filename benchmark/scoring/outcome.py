"""What a run found out becomes a result: scores with intervals, and what their reader must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.core import SPLITS, Corpus, Tally, UpstreamCard, Utterance
from benchmark.encoding.features import ExtractionSettings, Features
from benchmark.encoding.recordings import Hashes, joint_sha256
from benchmark.prepare import Encoder, Task
from benchmark.probing.fit import Probe, SplitData, percentage
from benchmark.probing.layers import Mix
from benchmark.protocol import Training
from benchmark.provenance import provenance
from benchmark.scoring import statistics
from benchmark.scoring.results import (
    HistoryPoint,
    LearningRatePoint,
    MetricValue,
    Result,
    SeedScore,
    run_id,
)

_FEW_CLUSTERS = 10


def missing_information(
    train: SplitData, stores: Mapping[str, Any], card: UpstreamCard
) -> list[str]:
    """Warn when time means hold nothing, as after mean normalisation of each utterance."""
    if "mean" not in stores:
        return []
    sample = list(range(min(len(train.utterances), 64)))
    means = train.batch(sample, normalised=False).plain.values
    if float(means.square().mean().sqrt()) < 1e-3 * train.frame_size(Mix(None)):
        return [
            f"the time means of {card.name} are zero, as after mean normalisation of each "
            "utterance; a head on time means can only guess"
        ]
    return []


def shared_audio(data: Mapping[str, SplitData], corpus: Corpus, files: Hashes) -> list[str]:
    """Warn when the same recording stands in train or valid and in test."""
    heard = set(data["train"].keys) | set(data["valid"].keys)
    # crops have keys of their own; the recordings that they are from tell

    def recording(utterance: Utterance) -> tuple[str, tuple[float, float] | None] | None:
        sha256 = None if isinstance(utterance.audio, bytes) else files.get(utterance.audio)
        return (sha256, utterance.span) if sha256 else None

    known = {recording(u) for u in corpus.utterances if u.split != "test"} - {None}
    shared = [
        utterance.id
        for utterance, key in zip(data["test"].utterances, data["test"].keys, strict=True)
        if key in heard or recording(utterance) in known
    ]
    if not shared:
        return []
    return [
        f"{len(shared)} of {len(data['test'].keys)} test recordings are in train or valid too "
        f"({', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}): the score is too good"
    ]


def build_result(
    identity: Mapping[str, Any],
    encoder: Encoder,
    task: Task,
    label: str,
    probes: Sequence[Probe],
    rate: float | None,
    tallies: Mapping[int, Sequence[Tally]],
    seeds: list[int],
    settings: ExtractionSettings,
    features: Features,
    notes: Sequence[str],
    corpus: Mapping[str, Any],
    training_s: float,
) -> Result:
    """All of one run: the layer choice of one encoder on one task.

    Args:
        identity: everything the score depends on.
        encoder: what was scored.
        task: on what.
        label: the layer choice, as it was asked for.
        probes: those of this layer choice, at all learning rates and seeds.
        rate: the learning rate chosen on valid; None when all failed.
        tallies: seed → counts of every test utterance at that rate.
        seeds: of the heads.
        settings: how features were made.
        features: where they are.
        notes: warnings that concern the data.
        corpus: as `describe_corpus` has it.
        training_s: seconds that training took.
    """
    card, downstream, training = encoder.card, task.scorer.card, task.training
    chosen = [probe for probe in probes if probe.spec.learning_rate == rate]
    metrics = {metric: _metric(tallies, metric) for metric in downstream.metrics} if tallies else {}
    at_edge = rate in (training.learning_rates[0], training.learning_rates[-1])
    warnings = list(notes)
    if rate is None:
        reason = next(probe.reason for probe in probes if probe.status == "failed")
        warnings.append(f"every learning rate failed: {reason}")
    elif chosen[0].status == "dropped":
        warnings.append(
            f"every learning rate that was kept failed; {rate:g}, dropped after "
            f"{chosen[0].updates} updates, stands in"
        )
    if len(training.learning_rates) == 1:
        warnings.append(
            f"one learning rate was tried, {training.learning_rates[0]:g}: a better one may exist"
        )
    elif at_edge:
        warnings.append(
            f"the best learning rate, {rate:g}, is at the edge of the grid "
            f"({training.learning_rates[0]:g} to {training.learning_rates[-1]:g}): a better one "
            "may lie outside"
        )
    if metrics and metrics[downstream.metric].get("by_utterance"):
        warnings.append(_without_speakers([t.speaker for t in next(iter(tallies.values()))]))
    elif metrics and metrics[downstream.metric]["clusters"] < _FEW_CLUSTERS:
        clusters = metrics[downstream.metric]["clusters"]
        warnings.append(f"the interval rests on {clusters} test speakers only")
    kind = "frames" if downstream.features == "frames" else "mean"
    store = features.stores[kind]
    heard = dict.fromkeys(utterance.id for utterance in task.heard)  # in corpus order
    keys = [features.keys[name] for name in heard if name in features.keys]
    weights = [probe.mix.weights for probe in chosen]
    known = [weight for weight in weights if weight is not None]
    return Result(
        run_id=run_id(identity),
        status="failed" if rate is None else "finished",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        identity=identity,
        upstream=_plain(asdict(card)),
        downstream=_plain(asdict(downstream)),
        corpus=corpus,
        protocol=_plain(task.protocol.record(downstream.name)),
        layer=label,
        seeds=seeds,
        metrics=metrics,
        learning_rate=rate,
        learning_rate_at_edge=at_edge,
        learning_rate_curve=_curve(probes, training),
        per_seed=[_seed_score(probe, tallies, downstream.metrics) for probe in chosen],
        history=[
            HistoryPoint(
                learning_rate=probe.spec.learning_rate,
                seed=probe.spec.seed,
                update=look.update,
                train_loss=look.train_loss,
                valid=look.valid,
                valid_loss=look.valid_loss,
            )
            for probe in probes
            for look in probe.looks
        ],
        layer_weights=[float(w) for w in np.mean(known, axis=0)] if known else None,
        layer_norms=store.layer_norms(keys),
        skipped_audio=[
            {"utterance": skipped.utterance, "reason": skipped.reason}
            for skipped in features.skipped
            if skipped.utterance in heard
        ],
        warnings=warnings,
        timings={
            "extraction_s": features.extraction_s,
            "extraction_audio_s": features.audio_s,
            "training_s": training_s,
        },
        encoder={
            "parameters": encoder.parameters,
            "macs": encoder.macs,
            "throughput": store.throughput(),
            "rounding_error": store.rounding_error(keys),
        },
        provenance=provenance(_device_name(settings.device))
        | {"processes": settings.processes.count},
    )


def _without_speakers(speakers: Sequence[str]) -> str:
    """Why an interval is not over speakers alone."""
    unknown = speakers.count("")
    if 0 < unknown < len(speakers):
        return (
            f"the speakers of {unknown} of {len(speakers)} test utterances are not known: in the "
            "interval, each of these utterances stands for a speaker"
        )
    why = "no test speaker is known" if unknown else f"test has one speaker, {speakers[0]}"
    return f"the interval is over utterances: {why}"


def _metric(tallies: Mapping[int, Sequence[Tally]], metric: str) -> MetricValue:
    stacked = [tally for seed in tallies.values() for tally in seed]
    found = statistics.interval(
        [tally.counts[metric][0] for tally in stacked],
        [tally.counts[metric][1] for tally in stacked],
        [tally.speaker for tally in stacked],
        seeds=len(tallies),
    )
    scores = [percentage(seed, metric) for seed in tallies.values()]
    return MetricValue(
        value=found.value,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        clusters=found.clusters,
        utterances=found.utterances,
        by_utterance=found.by_utterance,
        seed_std=statistics.seed_std(scores),
    )


def _seed_score(
    probe: Probe, tallies: Mapping[int, Sequence[Tally]], metrics: Sequence[str]
) -> SeedScore:
    return SeedScore(
        seed=probe.spec.seed,
        metrics={metric: percentage(tallies[probe.spec.seed], metric) for metric in metrics},
        valid=probe.best.valid if probe.best else None,
        best_update=probe.best.update if probe.best else 0,
        updates=probe.updates,
        layer_weights=probe.mix.weights,
    )


def _curve(probes: Sequence[Probe], training: Training) -> list[LearningRatePoint]:
    """The best valid score of every learning rate, averaged over seeds."""
    points = []
    for rate in training.learning_rates:
        own = [probe for probe in probes if probe.spec.learning_rate == rate]
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


def describe_corpus(task: Task, features: Features, files: Hashes) -> dict[str, Any]:
    """What a result says of its corpus, as far as its audio could be used."""
    corpus, splits = task.corpus, {}
    usable = {
        name for name, group in task.takes.items() if any(u.id in features.keys for u in group)
    }
    store = features.stores["frames" if task.downstream.card.features == "frames" else "mean"]
    for name in SPLITS:
        part = [u for u in corpus.split(name) if u.id in usable]
        # what was encoded whole has been measured
        whole = [features.keys[u.id] for u in part if u.id in features.keys]
        cropped = [task.durations[u.id] for u in part if u.id not in features.keys]
        seconds = store.audio_s(whole) + sum(cropped)
        splits[name] = {
            "utterances": len(part),
            "hours": round(seconds / 3600, 4),
            "speakers": len({u.speaker for u in part if u.speaker}),
        }
    return {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "licence": corpus.licence,
        "source": corpus.source.replace(str(Path.home()), "~"),
        "note": corpus.note,
        "audio_sha256": joint_sha256(files),
        "splits": splits,
    }


def _device_name(device: str) -> str:
    kind = torch.device(device)
    return f"cuda: {torch.cuda.get_device_name(kind)}" if kind.type == "cuda" else device


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """Sets as sorted lists and tuples as lists, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
