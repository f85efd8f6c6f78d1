"""The composer: encoders x tasks x layer choices → result files.

Nothing else in the engine knows the whole way from a name on the command line to a score.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark import statistics
from benchmark.core import SPLITS, Corpus, Downstream, Tally, Upstream, UpstreamCard
from benchmark.errors import SuperbError, UpstreamError, unknown
from benchmark.features import ExtractionSettings, Features, duration_s, extract
from benchmark.fingerprint import count_parameters, fingerprint, modules_of
from benchmark.fit import (
    Probe,
    ProbeSpec,
    SplitData,
    build_probe,
    evaluate,
    fit,
    percentage,
    ranked_rates,
    standardisation,
)
from benchmark.layers import Mix, expand
from benchmark.progress import Progress
from benchmark.protocol import Protocol, Training, load_protocol
from benchmark.provenance import provenance
from benchmark.results import (
    HistoryPoint,
    LearningRatePoint,
    MetricValue,
    Result,
    SeedScore,
    find_result,
    read_result,
    run_id,
    write_result,
)
from benchmark.store import cache_folder
from downstreams import DOWNSTREAMS, PROTOCOLS, find_downstream, load_downstream
from downstreams.corpora import load_corpus
from upstreams.load import load_upstream

_FEW_CLUSTERS = 10
# Raised whenever training, selection or scoring changes a score that the protocol does not name.
ENGINE_VERSION = 1


@dataclass(frozen=True)
class Task:
    """One task on one corpus under one protocol, ready to run."""

    downstream: Downstream
    corpus: Corpus
    protocol: Protocol
    training: Training
    vocabulary: tuple[str, ...]


@dataclass(frozen=True)
class Encoder:
    """An upstream with what the engine found out about it."""

    upstream: Upstream
    fingerprint: str
    parameters: int | None

    @property
    def card(self) -> UpstreamCard:
        """Its card."""
        return self.upstream.card


def run(
    upstream: str | Upstream | Sequence[str | Upstream],
    downstream: str | Sequence[str],
    *,
    corpus: str = "mini",
    protocol: str = "mini",
    layers: str | Sequence[str] = ("last", "weighted-sum"),
    seeds: int = 1,
    output: str | Path = "results",
    cache_dir: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    storage: str = "float16",
    on_bad_audio: str = "fail",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """Score frozen encoders on tasks, with every layer choice, and write one result file each.

    What is finished already is read, not run again; what was interrupted goes on where it stopped.

    Args:
        upstream: names, paths or objects (see `superb.load_upstream`); one or several.
        downstream: ``asr``, ``sid``, ``ks`` or ``all``; one or several.
        corpus: a name, or a manifest (CSV, TSV, JSONL, Parquet).
        protocol: a name, or a TOML file.
        layers: ``last``, ``weighted-sum``, ``weighted-sum-norm``, an index, ``each``.
        seeds: how many seeds; 3 or more for anything published.
        output: folder of result files.
        cache_dir: folder of stored features; ``$SUPERB_CACHE`` or ``~/.cache/superb`` if None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: arithmetic of the encoder, ``float32`` or ``bfloat16``.
        storage: precision on disk, ``float16`` or ``float32``.
        on_bad_audio: ``fail``, or ``skip`` and list them in the result.
        trust_remote_code: let a checkpoint run the Python code it brings; its result says so.
        progress: where to report; standard error by default.

    Returns:
        One result per upstream, task and layer choice, in that order.

    Raises:
        SuperbError: for anything wrong with the input.
    """
    progress = progress or Progress()
    names = [downstream] if isinstance(downstream, str) else list(downstream)
    choices = [layers] if isinstance(layers, str) else list(layers)
    _require("precision", precision, ("float32", "bfloat16"))
    _require("storage", storage, ("float16", "float32"))
    _require("on-bad-audio", on_bad_audio, ("fail", "skip"))
    if seeds < 1:
        raise SuperbError(f"seeds must be at least 1, got {seeds}")
    if isinstance(upstream, str) or not isinstance(upstream, Sequence):
        given: list[str | Upstream] = [upstream]
    else:
        given = list(upstream)
    settings = ExtractionSettings(
        Path(cache_dir).expanduser() if cache_dir else cache_folder(),
        _device(device),
        precision,
        storage,
        on_bad_audio,
    )
    if not given:
        raise SuperbError("no upstream given; superb upstreams lists those with a name")
    _require_writable(Path(output))
    tasks = prepare_tasks(names, corpus, protocol)
    # every name is resolved before the first second of work
    encoders = [
        prepare_encoder(item, settings.device, progress, trust_remote_code) for item in given
    ]
    for encoder in encoders:
        expand(choices, encoder.card.layers)
    once = {(encoder.card.name, encoder.fingerprint): encoder for encoder in encoders}
    results: list[Result] = []
    # float32 means float32 on a GPU too, and kernels that repeat themselves are preferred
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        for encoder in once.values():
            results += _run_encoder(
                encoder, tasks, choices, list(range(seeds)), Path(output), settings, progress
            )
    return results


def _require_writable(output: Path) -> None:
    """Find out that results cannot be written before hours of work, not after."""
    place = output.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        what = "is not a folder" if not place.is_dir() else "may not be written to"
        raise SuperbError(
            f"results cannot be written to {output}: {place} {what}. Choose another folder with "
            "--output DIR"
        )


def _require(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise unknown(f"value of --{option}", value, allowed)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError("only processors and CUDA devices are supported")
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SuperbError(
            f"device {name!r} cannot be used: {reason}. Use --device cpu, cuda or auto"
        ) from error
    return name


def prepare_tasks(names: Sequence[str], corpus: str, protocol: str) -> list[Task]:
    """Resolve tasks, their corpora and their training values.

    Raises:
        SuperbError: for an unknown task, corpus or protocol, or a corpus that does not fit.
    """
    wanted = list(DOWNSTREAMS) if "all" in names else list(dict.fromkeys(names))
    if not wanted:
        raise SuperbError(f"no task given; choose from {', '.join(DOWNSTREAMS)}, or all")
    rules = load_protocol(protocol, PROTOCOLS)
    tasks = []
    for name in wanted:
        entry = find_downstream(name)
        training = rules.training(name)
        if set(training.head) != set(entry.settings):
            raise SuperbError(
                f"protocol {rules.name}, [{name}.head] must give {', '.join(entry.settings)}; "
                f"it gives {', '.join(training.head) or 'nothing'}"
            )
        data = load_corpus(corpus, entry.card, entry.label_from)
        task = load_downstream(name)
        tasks.append(Task(task, data, rules, training, task.vocabulary(data.split("train"))))
    return tasks


def prepare_encoder(
    item: str | Upstream, device: str, progress: Progress, trust_remote_code: bool = False
) -> Encoder:
    """Load an upstream, move it to its device and take its fingerprint."""
    upstream = load_upstream(item, trust_remote_code) if isinstance(item, str) else item
    if isinstance(upstream, type):
        raise SuperbError(
            f"{upstream.__name__} is a class; pass an instance of it: {upstream.__name__}()"
        )
    card = getattr(upstream, "card", None)
    if not isinstance(card, UpstreamCard) or not callable(upstream):
        raise SuperbError(
            f"{type(upstream).__name__} is not an upstream: it needs a .card (superb.UpstreamCard) "
            "and must be callable with a list of waveforms. See docs/adding-an-upstream.md"
        )
    # frozen and in evaluation mode, whoever built it
    for module in modules_of(upstream):
        module.eval()
    mark, stable = fingerprint(upstream)
    if not stable:
        progress.warn(
            f"{card.name} holds something that cannot be hashed, so its features will not be "
            "found again by a later run. Give it an attribute `fingerprint` (a text that changes "
            "whenever its output may)"
        )
    move = getattr(upstream, "to", None)
    if callable(move):
        try:
            move(device)
        except Exception as error:
            raise UpstreamError(
                f"upstream {card.name} cannot be moved to {device}: {type(error).__name__}: {error}"
            ) from error
    if card.note:
        progress.warn(f"{card.name}: {card.note}")
    parameters = card.parameters if card.parameters is not None else count_parameters(upstream)
    return Encoder(upstream, mark, parameters)


def _run_encoder(
    encoder: Encoder,
    tasks: Sequence[Task],
    choices: Sequence[str],
    seeds: list[int],
    output: Path,
    settings: ExtractionSettings,
    progress: Progress,
) -> list[Result]:
    card = encoder.card
    mixes = expand(choices, card.layers)
    done: dict[tuple[str, str], Result] = {}
    open_tasks: list[tuple[Task, dict[str, Mix]]] = []
    for task in tasks:
        name = task.downstream.card.name
        todo: dict[str, Mix] = {}
        for label, mix in mixes.items():
            identity = _identity(encoder, task, label, seeds, settings)
            found = find_result(output, name, card.name, run_id(identity))
            if found is None:
                todo[label] = mix
            else:
                done[name, label] = found
        if len(todo) < len(mixes):
            finished = ", ".join(label for label in mixes if label not in todo)
            progress.note(f"{card.name}, {name}: finished before, not run again: {finished}")
        if todo:
            open_tasks.append((task, todo))
    if open_tasks:
        with ExitStack() as resources:
            features = extract(
                encoder.upstream,
                encoder.fingerprint,
                _wanted(open_tasks),
                settings,
                progress,
                resources,
            )
            if features.skipped:
                first = features.skipped[0]
                progress.warn(
                    f"{len(features.skipped)} audio files left out, listed in the results; the "
                    f"first: {first.utterance}: {first.reason}"
                )
            for task, todo in open_tasks:
                for result in _run_task(
                    encoder, task, todo, seeds, output, settings, features, progress
                ):
                    done[task.downstream.card.name, result.layer] = result
    return [done[task.downstream.card.name, label] for task in tasks for label in mixes]


def _wanted(open_tasks: Sequence[tuple[Task, Mapping[str, Mix]]]) -> dict[str, list[Any]]:
    """Kind of feature → utterances that need it."""
    wanted: dict[str, list[Any]] = {}
    for task, todo in open_tasks:
        for kind in _kinds(task, todo):
            wanted.setdefault(kind, []).extend(task.corpus.utterances)
    return wanted


def _kinds(task: Task, todo: Mapping[str, Mix]) -> list[str]:
    if task.downstream.card.features == "frames":
        return ["frames"]
    extra = ["mean-normalised"] if any(mix.normalised for mix in todo.values()) else []
    return ["mean", *extra]


def _identity(
    encoder: Encoder, task: Task, label: str, seeds: list[int], settings: ExtractionSettings
) -> dict[str, Any]:
    """Everything a score depends on; its hash is the run's id."""
    name = task.downstream.card.name
    record = task.protocol.record(name)
    return {
        "engine": ENGINE_VERSION,
        "upstream": {"name": encoder.card.name, "fingerprint": encoder.fingerprint},
        "downstream": {"name": name, "version": task.downstream.card.version},
        "corpus": {"name": task.corpus.name, "sha256": task.corpus.sha256},
        "protocol": {key: record[key] for key in ("name", "version", "sha256")},
        "layer": label,
        "seeds": seeds,
        "precision": settings.precision,
        "storage": settings.storage,
        "device": torch.device(settings.device).type,
        "on_bad_audio": settings.on_bad_audio,
    }


def _run_task(
    encoder: Encoder,
    task: Task,
    todo: Mapping[str, Mix],
    seeds: list[int],
    output: Path,
    settings: ExtractionSettings,
    features: Features,
    progress: Progress,
) -> list[Result]:
    card, downstream, training = encoder.card, task.downstream, task.training
    # heads over time means are too small for a GPU: launching costs more than computing
    device = settings.device if downstream.card.features == "frames" else "cpu"
    stores = {kind: features.stores[kind] for kind in _kinds(task, todo)}
    data = {
        split: SplitData(
            [u for u in task.corpus.split(split) if u.id in features.keys],
            features.keys,
            stores,
            device,
        )
        for split in SPLITS
    }
    for split, part in data.items():
        if not part.utterances:
            raise SuperbError(f"corpus {task.corpus.name}: no usable audio is left in {split}")
    hop_s = card.hop_samples / card.sample_rate
    scalings = {
        mix: standardisation(data["train"], mix) if training.standardise else None
        for mix in todo.values()
    }
    probes = [
        build_probe(
            ProbeSpec(mix, rate, seed),
            downstream,
            training,
            layers=card.layers,
            dim=card.dim,
            hop_s=hop_s,
            outputs=len(task.vocabulary),
            scaling=scalings[mix],
            device=device,
        )
        for mix in dict.fromkeys(todo.values())
        for rate in training.learning_rates
        for seed in seeds
    ]
    notes = downstream.notes(data["train"].utterances, data["train"].lengths, hop_s, training.head)
    notes += _information(data["train"], stores, card)
    notes += _shared_audio(data)
    corpus = _describe(task.corpus, features)
    started = time.perf_counter()
    fit(
        probes,
        data["train"],
        data["valid"],
        downstream,
        task.vocabulary,
        training,
        progress,
        f"{card.name}, {downstream.card.name}: {len(probes)} probes",
    )
    training_s = time.perf_counter() - started
    results = []
    outcomes: dict[Mix, tuple[float | None, dict[int, list[Tally]]]] = {}
    for label, mix in todo.items():
        own = [probe for probe in probes if probe.spec.mix == mix]
        if mix not in outcomes:
            outcomes[mix] = _test(own, data["test"], task)
        rate, tallies = outcomes[mix]
        result = _result(
            encoder,
            task,
            label,
            own,
            rate,
            tallies,
            seeds,
            settings,
            features,
            notes,
            corpus,
            training_s,
        )
        for warning in result.warnings:
            progress.warn(f"{card.name}, {downstream.card.name}, {label}: {warning}")
        results.append(read_result(write_result(output, result, tallies)))
    return results


def _information(train: SplitData, stores: Mapping[str, Any], card: UpstreamCard) -> list[str]:
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


def _shared_audio(data: Mapping[str, SplitData]) -> list[str]:
    """Warn when the same recording stands in train or valid and in test."""
    heard = set(data["train"].keys) | set(data["valid"].keys)
    shared = [
        utterance.id
        for utterance, key in zip(data["test"].utterances, data["test"].keys, strict=True)
        if key in heard
    ]
    if not shared:
        return []
    return [
        f"{len(shared)} of {len(data['test'].keys)} test recordings are in train or valid too "
        f"({', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}): the score is too good"
    ]


def _test(
    probes: Sequence[Probe], data: SplitData, task: Task
) -> tuple[float | None, dict[int, list[Tally]]]:
    """The learning rate chosen on valid, and the test tallies of its seeds: looked at once."""
    order = ranked_rates(probes, task.downstream.card.direction)
    kept = {probe.spec.learning_rate for probe in probes if probe.status == "finished"}
    # should every rate that was kept have failed, the best of the dropped ones stands in
    rate = next((candidate for candidate in order if candidate in kept), next(iter(order), None))
    if rate is None:
        return None, {}
    size = task.training.batch_utterances
    return rate, {
        probe.spec.seed: evaluate(probe, data, task.downstream, task.vocabulary, size)
        for probe in probes
        if probe.spec.learning_rate == rate
    }


def _result(
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
    card, downstream, training = encoder.card, task.downstream.card, task.training
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
    if at_edge:
        warnings.append(
            f"the best learning rate, {rate:g}, is at the edge of the grid "
            f"({training.learning_rates[0]:g} to {training.learning_rates[-1]:g}): a better one "
            "may lie outside"
        )
    if metrics and metrics[downstream.metric].get("by_utterance"):
        warnings.append("the interval is over utterances: fewer than two test speakers are known")
    elif metrics and metrics[downstream.metric]["clusters"] < _FEW_CLUSTERS:
        clusters = metrics[downstream.metric]["clusters"]
        warnings.append(f"the interval rests on {clusters} test speakers only")
    kind = "frames" if downstream.features == "frames" else "mean"
    store = features.stores[kind]
    keys = [features.keys[u.id] for u in task.corpus.utterances if u.id in features.keys]
    weights = [probe.mix.weights for probe in chosen]
    known = [weight for weight in weights if weight is not None]
    identity = _identity(encoder, task, label, seeds, settings)
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
            if any(u.id == skipped.utterance for u in task.corpus.utterances)
        ],
        warnings=warnings,
        timings={
            "extraction_s": features.extraction_s,
            "extraction_audio_s": features.audio_s,
            "training_s": training_s,
        },
        encoder={
            "parameters": encoder.parameters,
            "throughput": store.throughput(),
            "rounding_error": store.rounding_error(keys),
        },
        provenance=provenance(_device_name(settings.device)),
    )


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


def _describe(corpus: Corpus, features: Features) -> dict[str, Any]:
    splits = {}
    for name in SPLITS:
        part = [u for u in corpus.split(name) if u.id in features.keys]
        splits[name] = {
            "utterances": len(part),
            "hours": round(sum(duration_s(u) for u in part) / 3600, 4),
            "speakers": len({u.speaker for u in part if u.speaker}),
        }
    return {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "licence": corpus.licence,
        "source": corpus.source.replace(str(Path.home()), "~"),
        "note": corpus.note,
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
