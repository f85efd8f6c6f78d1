"""How each job is done, on a site: the waveform's way from the encoder to the result file."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmark.core import (
    SPLITS,
    Attends,
    Attention,
    Downstream,
    Learns,
    Material,
    NotesTest,
    NotesTraining,
    Prepares,
    Record,
    Searches,
    TunesOnValid,
    at_hop,
)
from benchmark.encoding.arithmetic import exact
from benchmark.encoding.audio import decode
from benchmark.encoding.cache import PREPARED, TRAINING
from benchmark.encoding.features import Encoded, Features, extract, find_features
from benchmark.encoding.recordings import Hashes, file_hashes, joint_sha256
from benchmark.errors import SuperbError
from benchmark.identity import code_sha256
from benchmark.jobs.keep import Chosen, keep_heads
from benchmark.jobs.plan import Encode, Fit, Job, Write
from benchmark.jobs.site import Encoder, Partition, Site, Task, head_device
from benchmark.metrics import check_record, score
from benchmark.probing.fit import (
    Look,
    Probe,
    ProbeSpec,
    SplitData,
    answers_of,
    build_probe,
    evaluate,
    fit,
    ranked_rates,
    standardisation,
)
from benchmark.probing.layers import Mix
from benchmark.probing.notes import inaudible, lost_labels, missing_information, shared_audio
from benchmark.probing.snapshot import Snapshot, clear
from benchmark.progress import Progress
from benchmark.registry import cause
from benchmark.scoring.outcome import Choice, Fitted, Subject, Trained, build_result, plain
from benchmark.scoring.results import Result, read_result, write_result
from benchmark.tracking.tracker import About

# Utterances whose attention a result shows.
_LOOKED_AT = 3


@dataclass(frozen=True)
class Written:
    """The results of a job that wrote some, by layer choice."""

    results: Mapping[str, Result]


Outcome = Encoded | Fitted | Written


def do(job: Job, inputs: Sequence[Any], site: Site, progress: Progress) -> Outcome:
    """Do one job.

    Args:
        job: what.
        inputs: outcomes of the jobs that it needs, in the plan's order.
        site: what it is done with.
        progress: where to report.

    Raises:
        SuperbError: for whatever is wrong with audio, encoder, task or disk.
    """
    with exact():
        if isinstance(job, Encode):
            return encode(job, site, progress)
        if isinstance(job, Fit):
            return train(job, inputs, site, progress)
        return write(job, inputs, site, progress)


def encode(job: Encode, site: Site, progress: Progress) -> Encoded:
    """Store the features of a share."""
    extraction = site.extraction(
        job.encoder, dict(job.wanted), job.storage, job.gain_db, job.layers
    )
    return extract(extraction, progress, job.share, job.shares)


def train(job: Fit, shares: Sequence[Encoded], site: Site, progress: Progress) -> Fitted:
    """Train every probe of some layer choices, choose on valid, and look at test once."""
    encoder, task = site.encoders[job.encoder], site.tasks[job.task]
    partition, card = task.partitions[job.fold], encoder.card
    hop_s = card.hop_samples / card.sample_rate
    downstream = at_hop(task.downstream, hop_s)
    partition = replace(partition, scorer=at_hop(partition.scorer, hop_s))
    mixes = {label: site.mixes(job.encoder, job.task)[label] for label in job.choices}
    with ExitStack() as resources:
        extraction = site.extraction(
            job.encoder,
            {job.task: job.choices},
            job.storage,
            task.training.gain_db,
            job.kept,
        )
        features = find_features(extraction, shares, resources)
        data = _splits(site, job, features)
        files = file_hashes(task.corpus.utterances, task.cache_dir)
        scorers = _prepared(site, job, partition.scorer, data, hop_s, progress)
        notes = _notes(task, job.fold, scorers, partition, data, hop_s)
        quiet = inaudible(data, next(iter(features.stores.values())))

        def fitted(found: Mapping[Mix, Choice], seconds: float) -> Fitted:
            return Fitted(
                fold=job.fold,
                choices={label: found[mix] for label, mix in mixes.items()},
                notes=(*notes, *quiet),
                corpus=_describe_corpus(task, features, files, len(site.seeds_of(job.task))),
                skipped=tuple(
                    {"utterance": item.utterance, "reason": item.reason}
                    for item in features.encoded.skipped
                ),
                timings={
                    "extraction_s": features.encoded.seconds,
                    "extraction_audio_s": features.encoded.audio_s,
                    "training_s": seconds,
                },
                features=_about_features(task, features),
            )

        title = f"{card.name}, {job.task}{f', fold {job.fold}' if job.fold else ''}"
        if isinstance(partition.scorer, Searches):
            started = time.perf_counter()
            searched = _searched(task, job.fold, partition.scorer, mixes, data, title, progress)
            return fitted(searched, time.perf_counter() - started)
        probes = _probes(site, job, downstream, scorers, mixes, data)
        _try(task, probes[0], scorers[0], partition, data["train"])
        notes += missing_information(data["train"], features.stores, card)
        notes += shared_audio(data, partition.corpus, files)
        runs = [site.run_id((job.encoder, job.task, c), job.storage) for c in job.choices]
        snapshot = Snapshot(
            site.settings.cache_dir / TRAINING,
            {
                "runs": runs,
                "fold": job.fold,
                "audio": _digest(data["train"].keys + data["valid"].keys),
                "task": code_sha256(task.downstream) + code_sha256(probes[0].head),
            },
            progress,
            run=runs[0],
        )
        started = time.perf_counter()
        metric = task.downstream.card.metric
        results: dict[Mix, list[About]] = {}
        for label, mix in mixes.items():
            results.setdefault(mix, []).append(_about(site, job, label))
        listen = site.courses.listener(results, job.fold, metric.name, progress)
        chosen_on = data[task.training.choose_on]
        fit(
            probes,
            data["train"],
            chosen_on,
            partition.vocabulary,
            task.training,
            progress,
            f"{title}: {len(probes)} probes",
            takes=lambda rerun: _groups(task, job.fold, data["train"], rerun),
            snapshot=snapshot,
            listen=listen if site.courses else None,
            cores=site.cores,
        )
        training_s = time.perf_counter() - started
        trained: dict[Mix, Choice] = {}
        chosen: dict[Mix, Chosen] = {}
        for mix in dict.fromkeys(mixes.values()):
            trained[mix], chosen[mix] = _choice(
                probes, mix, chosen_on, data["test"], task, scorers, partition
            )
        if site.save_heads:
            for label, mix in mixes.items():
                keep_heads(site, job, label, chosen[mix], data["test"])
        return fitted(trained, training_s)


def _prepared(
    site: Site,
    job: Fit,
    scorer: Downstream,
    data: Mapping[str, SplitData],
    hop_s: float,
    progress: Progress,
) -> dict[int, Downstream]:
    """What each rerun is scored by: what a task learns of train itself, it learns of its part."""
    task = site.tasks[job.task]
    reruns = range(len(site.seeds_of(job.task)))
    if not isinstance(scorer, Prepares):
        return dict.fromkeys(reruns, scorer)
    train, valid = data["train"], data["valid"]
    keys = {
        utterance.id: key
        for part in (train, valid)
        for utterance, key in zip(part.utterances, part.keys, strict=True)
    }
    channel = site.settings.channel
    found: dict[int, Downstream] = {}
    for rerun in reruns:
        if rerun and task.budget is None:  # all hear the same
            found[rerun] = found[0]
            continue
        told = [index for group in _groups(task, job.fold, train, rerun) for index in group]
        found[rerun] = scorer.prepared(
            Material(
                [train.utterances[index] for index in told],
                valid.utterances,
                keys,
                task.partitions[job.fold].vocabulary,
                hop_s,
                task.training.head,
                channel,
                lambda utterance, rate: decode(
                    utterance.audio, rate, name=utterance.id, span=utterance.span, channel=channel
                ),
                site.settings.cache_dir / PREPARED,
                progress.note,
            )
        )
    return found


def _searched(
    task: Task,
    fold: str,
    scorer: Searches,
    mixes: Mapping[str, Mix],
    data: Mapping[str, SplitData],
    title: str,
    progress: Progress,
) -> dict[Mix, Choice]:
    """What a task without gradients finds: each layer tried on valid, the best asked on test."""
    valid, test = data["valid"], data["test"]
    metric, seed = scorer.card.metric, task.training.first_seed
    learnt: dict[int, Searches] = {}

    def by(layer: int) -> Searches:
        """What searches in a layer, after learning from it where that is needed."""
        if not isinstance(scorer, Learns):
            return scorer
        if layer not in learnt:
            train = data["train"]
            told = [index for group in _groups(task, fold, train, 0) for index in group]
            states = train.layer(layer)
            learnt[layer] = scorer.learn(
                [states[index] for index in told],
                [train.utterances[index] for index in told],
                task.training.head,
            )
        return learnt[layer]

    def records(split: SplitData, layer: int) -> list[Record]:
        try:
            with torch.inference_mode():
                own = by(layer)
                answers = own.search(split.layer(layer), split.utterances)
            found = own.records(split.utterances, answers)
            for record in found:
                check_record(record, scorer.card.metrics)
        except SuperbError:
            raise
        except Exception as error:
            raise SuperbError(
                f"task {task.name} fails on {split.utterances[0].split}: {cause(error)}. "
                "superb check on it tells more"
            ) from error
        return found

    tried: dict[int, float] = {}
    asked: dict[int, list[Record]] = {}
    found = {}
    for mix in dict.fromkeys(mixes.values()):
        placed = valid.placed(mix)
        layers = range(valid.layers) if placed.layer is None else [placed.layer]
        for layer in layers:
            if layer not in tried:
                tried[layer] = score(records(valid, layer), metric)
                progress.note(f"{title}: layer {layer}, valid {metric.name} {tried[layer]:.1f}")
        order = max if metric.direction == "higher" else min
        best = order(layers, key=lambda layer: tried[layer])
        if best not in asked:
            asked[best] = records(test, best)
        look = Look(update=0, train_loss=0.0, valid=tried[best], valid_loss=0.0)
        scores = [tried[layer] for layer in layers] if placed.layer is None else None
        probe = Trained(0.0, seed, "finished", "", 0, (look,), look, layer_scores=scores)
        found[mix] = Choice((probe,), 0.0, {seed: asked[best]})
    return found


def write(job: Write, folds: Sequence[Fitted], site: Site, progress: Progress) -> Written:
    """Write a result file for each layer choice; training need not be gone on with any more."""
    encoder, task = site.encoders[job.encoder], site.tasks[job.task]
    results = {}
    for layer in job.choices:
        subject = Subject(
            identity=site.identity((job.encoder, job.task, layer), job.storage),
            upstream=encoder.card,
            downstream=task.card,
            protocol=task.protocol.record(task.training),
            seeds=site.seeds_of(job.task),
            encoder={
                "parameters": encoder.parameters,
                "macs": encoder.macs,
                "weights_sha256": encoder.weights_sha256,
            },
            device=_device_name(encoder),
            file=site.file,
        )
        result, records = build_result(subject, layer, folds)
        results[layer] = read_result(write_result(site.output, result, records))
    for layer, result in results.items():
        clear(site.settings.cache_dir / TRAINING, result.run_id)
        if site.courses:
            site.courses.score(_about(site, job, layer), result, progress)
    return Written(results)


def _about(site: Site, job: Fit | Write, layer: str) -> About:
    """What trackers are told a result is of."""
    cell = (job.encoder, job.task, layer)
    encoder, task = site.encoders[job.encoder], site.tasks[job.task]
    config = {
        **site.identity(cell, job.storage),
        "protocol": task.protocol.record(task.training),
        "parameters": encoder.parameters,
    }
    run_id = site.run_id(cell, job.storage)
    return About(run_id, encoder.card.name, job.task, layer, plain(config))


def _splits(site: Site, job: Fit, features: Features) -> dict[str, SplitData]:
    """The stored features of a fold, split by split, where its heads compute."""
    task = site.tasks[job.task]
    device = head_device(task.downstream, site.encoders[job.encoder].device)
    heard = [take for group in task.takes[job.fold].values() for take in group]
    data = {}
    for split in task.splits:
        usable = [u for u in heard if u.split == split and u.id in features.keys]
        if not usable:
            fold = f", fold {job.fold}" if job.fold else ""
            of_split = len(task.partitions[job.fold].corpus.split(split))
            raise SuperbError(
                f"corpus {task.corpus.name}{fold}: nothing is left in {split}: none of its "
                f"{of_split} recordings can be used. superb data check tells what is wrong with "
                "each"
            )
        data[split] = SplitData(usable, features.keys, features.stores, device, anew=features.anew)
    return data


def _probes(
    site: Site,
    job: Fit,
    downstream: Downstream,
    scorers: Mapping[int, Downstream],
    mixes: Mapping[str, Mix],
    data: Mapping[str, SplitData],
) -> list[Probe]:
    """Fresh probes: layer choice x learning rate x seed; equal mixes are trained once."""
    encoder, task = site.encoders[job.encoder], site.tasks[job.task]
    card, training, train = encoder.card, task.training, data["train"]

    @cache
    def scaling(mix: Mix, rerun: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of what a rerun is told of train; all reruns hear the same of all of it."""
        if task.budget is None:
            return standardisation(train, mix) if rerun == 0 else scaling(mix, 0)
        told = [index for group in _groups(task, job.fold, train, rerun) for index in group]
        return standardisation(train, mix, told=told)

    return [
        build_probe(
            ProbeSpec(mix, rate, seed),
            scorers[rerun] if isinstance(downstream, Prepares) else downstream,
            training,
            layers=card.layers,
            dim=card.dim,
            hop_s=card.hop_samples / card.sample_rate,
            outputs=len(task.partitions[job.fold].vocabulary),
            scaling=scaling(mix, rerun) if training.standardise else None,
            device=train.device,
            placed=train.placed(mix),
        )
        for mix in dict.fromkeys(mixes.values())
        for rate in training.learning_rates
        for rerun, seed in enumerate(site.seeds_of(job.task))
    ]


def _try(
    task: Task, probe: Probe, downstream: Downstream, partition: Partition, train: SplitData
) -> None:
    """Let a task answer two utterances, so that what is wrong with it shows before training.

    Raises:
        SuperbError: its code fails, or gives what it must not.
    """
    name = task.name
    batch = train.batch(range(min(2, len(train.utterances))), probe.spec.mix.normalised)
    probe.head.eval()
    try:
        with torch.inference_mode():
            logits, lengths = probe.answer(batch)
            loss = downstream.loss(logits, lengths, batch.utterances, partition.vocabulary)
            answers = downstream.answer(logits, lengths, batch.utterances, partition.vocabulary)
            records = list(downstream.records(batch.utterances, answers))
            value = float(loss)
    except SuperbError:
        raise
    except Exception as error:
        raise SuperbError(
            f"task {name} fails on two utterances of train: {cause(error)}. superb check on it "
            "tells more"
        ) from error
    wrong = ""
    outputs = len(partition.vocabulary) + getattr(probe.head, "extra_outputs", 0)
    if isinstance(logits, torch.Tensor) and logits.shape[-1] != outputs:
        wrong = f"logits {list(logits.shape)} for {outputs} outputs"
    elif not math.isfinite(value):
        wrong = f"a loss of {value}"
    elif len(answers) != len(batch.utterances):
        wrong = f"{len(answers)} answers for {len(batch.utterances)} utterances"
    else:
        try:
            for record in records:
                check_record(record, downstream.card.metrics)
        except ValueError as error:
            wrong = f"a record that cannot be scored ({error})"
    if wrong:
        raise SuperbError(
            f"task {name} gives {wrong} on two utterances of train. superb check on it tells more"
        )


def _notes(
    task: Task,
    fold: str,
    scorers: Mapping[int, Downstream],
    partition: Partition,
    data: Mapping[str, SplitData],
    hop_s: float,
) -> list[str]:
    """What the task has to say of the data of a fold, and labels that were lost with bad audio.

    Reruns on a budget of labels each hear a train split of their own; what is not so in all of them
    is said with the seeds of those where it is.
    """
    downstream = scorers[0]
    reruns = range(len(scorers)) if task.budget else range(1)
    said: dict[str, list[int]] = {}
    for rerun in reruns:
        for note in _notes_of(task, fold, rerun, scorers[rerun], partition, data, hop_s):
            said.setdefault(note, []).append(task.training.first_seed + rerun)
    notes = [
        note if len(seeds) == len(reruns) else f"seed {', '.join(map(str, seeds))}: {note}"
        for note, seeds in said.items()
    ]
    if task.training.choose_on == "test" and downstream.card.trained:
        notes.append("chosen on test, as the published runs do: the score is too good")
    for column in downstream.card.closed_columns:
        notes += lost_labels(data, partition.corpus, column)
    return notes


def _notes_of(
    task: Task,
    fold: str,
    rerun: int,
    scorer: Downstream,
    partition: Partition,
    data: Mapping[str, SplitData],
    hop_s: float,
) -> Iterator[str]:
    """What the task has to say of what a rerun hears."""
    train, test = data.get("train"), data["test"]
    if train is not None and isinstance(scorer, NotesTraining):
        told = [group[0] for group in _groups(task, fold, train, rerun)] if task.budget else None
        places = range(len(train.utterances)) if told is None else told
        yield from scorer.notes(
            [train.utterances[place] for place in places],
            [train.lengths[place] for place in places],
            hop_s,
            task.training.head,
        )
    if isinstance(scorer, NotesTest):
        yield from scorer.test_notes(test.utterances, partition.vocabulary)


def _groups(task: Task, fold: str, train: SplitData, rerun: int) -> list[list[int]]:
    """The takes of each training utterance as indices; those with bad audio are not there."""
    place = {utterance.id: index for index, utterance in enumerate(train.utterances)}
    heard = [task.takes[fold][utterance.id] for utterance in task.subset(fold, rerun)]
    groups = [[place[u.id] for u in group if u.id in place] for group in heard]
    return [group for group in groups if group]


def _digest(keys: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()


def _choice(
    probes: Sequence[Probe],
    mix: Mix,
    valid: SplitData,
    test: SplitData,
    task: Task,
    scorers: Mapping[int, Downstream],
    partition: Partition,
) -> tuple[Choice, Chosen]:
    """The learning rate chosen on valid, and the test records of its seeds: looked at once.

    With them the heads themselves, and what they were scored by.
    """
    own = [probe for probe in probes if probe.spec.mix == mix]
    order = ranked_rates(own, task.downstream.card.metric.direction)
    kept = {probe.spec.learning_rate for probe in own if probe.status == "finished"}
    # should every rate that was kept have failed, the best of the dropped ones stands in
    rate = next((candidate for candidate in order if candidate in kept), next(iter(order), None))
    records: dict[int, list[Record]] = {}
    looked: list[Attention] = []
    chosen: dict[int, tuple[Probe, Downstream]] = {}
    if rate is not None:
        size = task.training.batch_utterances
        for probe in own:
            if probe.spec.learning_rate == rate:
                scorer = scorers[probe.spec.seed - task.training.first_seed]
                if isinstance(scorer, TunesOnValid):
                    answers = answers_of(probe, valid, scorer, partition.vocabulary, size)
                    scorer = scorer.tuned(valid.utterances, answers)
                chosen[probe.spec.seed] = probe, scorer
                records[probe.spec.seed] = evaluate(probe, test, scorer, partition.vocabulary, size)
                if not looked and isinstance(scorer, Attends):
                    looked = _attention(probe, scorer, test, partition.vocabulary)
    trained = tuple(
        Trained(
            learning_rate=probe.spec.learning_rate,
            seed=probe.spec.seed,
            status=probe.status,
            reason=probe.reason,
            updates=probe.updates,
            looks=tuple(probe.looks),
            best=probe.best,
            layer_weights=probe.mix.weights,
        )
        for probe in own
    )
    return Choice(trained, rate, records, looked), chosen


def _attention(
    probe: Probe, scorer: Attends, test: SplitData, vocabulary: Sequence[str]
) -> list[Attention]:
    """What a head looked at in a few utterances of middling length."""
    order = sorted(range(len(test.lengths)), key=lambda place: (test.lengths[place], place))
    middle = len(order) // 2
    chosen = order[max(0, middle - _LOOKED_AT // 2) :][:_LOOKED_AT]
    batch = test.batch(chosen, probe.spec.mix.normalised)
    probe.head.eval()
    with torch.inference_mode():
        logits, lengths = probe.answer(batch)
        return scorer.attention(logits, lengths, batch.utterances, vocabulary)


def _about_features(task: Task, features: Features) -> dict[str, Any]:
    """What a result says of the features that its heads read."""
    store = features.stores[task.kinds([])[0]]
    heard = dict.fromkeys(utterance.id for utterance in task.heard)  # in corpus order
    keys = [features.keys[name] for name in heard if name in features.keys]
    return {
        "layer_norms": store.layer_norms(keys),
        "throughput": store.throughput(),
        "rounding_error": store.rounding_error(keys),
    }


def _describe_corpus(task: Task, features: Features, files: Hashes, reruns: int) -> dict[str, Any]:
    """What a result says of its corpus, as far as its audio could be used."""
    corpus = task.corpus
    store = features.stores[task.kinds([])[0]]
    splits: dict[str, Any] = {}
    for name in SPLITS:
        # of several folds, whatever is in this split of any
        part = {
            utterance.id: utterance
            for fold, partition in task.partitions.items()
            for utterance in (
                task.subset(fold, 0) if name == "train" else partition.corpus.split(name)
            )
            if any(take.id in features.keys for take in task.takes[fold].get(utterance.id, ()))
        }
        # what was encoded whole has been measured
        whole = [features.keys[u] for u in part if u in features.keys]
        cropped = [task.durations[u] for u in part if u not in features.keys]
        seconds = store.audio_s(whole) + sum(cropped)
        splits[name] = {
            "utterances": len(part),
            "hours": round(seconds / 3600, 4),
            "speakers": len({u.speaker for u in part.values() if u.speaker}),
        }
    labels = {}
    if task.budget is not None:
        told = {
            fold: [[u.id for u in task.subset(fold, rerun)] for rerun in range(reruns)]
            for fold in task.partitions
        }
        labels = {"labels": {"text": task.budget.text, "utterances": told}}
    return {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "licence": corpus.licence,
        "source": corpus.source.replace(str(Path.home()), "~"),
        "note": corpus.note,
        "audio_sha256": joint_sha256(files),
        "splits": splits,
        **labels,
    }


def _device_name(encoder: Encoder) -> str:
    kind = torch.device(encoder.device)
    return f"cuda: {torch.cuda.get_device_name(kind)}" if kind.type == "cuda" else encoder.device
