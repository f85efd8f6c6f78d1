"""The composer: encoders x tasks x layer choices → result files.

Nothing else in the engine knows the whole way from a name on the command line to a score.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmark.core import SPLITS, Tally, Upstream
from benchmark.encoding.cache import TRAINING, cache_folder
from benchmark.encoding.features import ExtractionSettings, Features, extract
from benchmark.encoding.gain import Amplified
from benchmark.encoding.packing import STORAGES
from benchmark.encoding.recordings import any_known, file_hashes, joint_sha256
from benchmark.errors import SuperbError, unknown
from benchmark.jobs.cost import (
    AUTO,
    PREFERRED,
    WORTH_A_TABLE,
    Work,
    amounts,
    plan_run,
    plan_table,
    settle,
    size,
)
from benchmark.prepare import (
    Encoder,
    Task,
    find_device,
    prepare_encoder,
    prepare_tasks,
    with_language_model,
)
from benchmark.probing.fit import (
    Look,
    Probe,
    ProbeSpec,
    SplitData,
    build_probe,
    evaluate,
    fit,
    ranked_rates,
    standardisation,
)
from benchmark.probing.layers import Mix, expand
from benchmark.probing.logs import Logs
from benchmark.probing.snapshot import Snapshot
from benchmark.processes import Processes, find_processes
from benchmark.progress import Progress
from benchmark.scoring.outcome import (
    build_result,
    describe_corpus,
    missing_information,
    shared_audio,
)
from benchmark.scoring.results import (
    Result,
    find_result,
    read_result,
    result_path,
    run_id,
    write_result,
)
from downstreams.corpora import CorpusOptions

# Network file systems may remember for a minute that a file is not there.
_VISIBLE_S = 60.0
# Raised whenever training, selection or scoring changes a score that the protocol does not name.
ENGINE_VERSION = 1


def run(
    upstream: str | Upstream | Sequence[str | Upstream],
    downstream: str | Sequence[str],
    *,
    corpus: str = "mini",
    data_root: str | Path | None = None,
    train_split: str | None = None,
    valid_split: str | None = None,
    test_split: str | None = None,
    protocol: str = "mini",
    layers: str | Sequence[str] = ("last", "weighted-sum"),
    seeds: int = 1,
    output: str | Path = "results",
    cache_dir: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    storage: str = AUTO,
    on_bad_audio: str = "fail",
    plan_only: bool = False,
    trust_remote_code: bool = False,
    lm: str | Path | None = None,
    lexicon: str | Path | None = None,
    log_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Score frozen encoders on tasks, with every layer choice, and write one result file each.

    What is finished already is read, not run again; what was interrupted goes on where it stopped.
    Several processes that ``torchrun`` or ``accelerate launch`` started share the work, each on a
    GPU of its own; every one returns all results, and one reports.

    Args:
        upstream: names, paths or objects (see `superb.load_upstream`); one or several.
        downstream: ``asr``, ``sid``, ``ks`` or ``all``; one or several.
        corpus: a name, ``hf:`` or ``hf-stream:`` with a Hugging Face dataset, or a manifest (CSV,
            TSV, JSONL, Parquet).
        data_root: folder of a corpus that has a name and is not bundled.
        train_split: which of the corpus's own splits to train on, several joined by ``+``; the
            official one if None. Likewise `valid_split` and `test_split`.
        valid_split: to choose on.
        test_split: to report on.
        protocol: a name, or a TOML file.
        layers: ``last``, ``weighted-sum``, ``weighted-sum-norm``, an index, ``each``.
        seeds: how many seeds; 3 or more for anything published.
        output: folder of result files.
        cache_dir: folder of stored features; ``$SUPERB_CACHE`` or ``~/.cache/superb`` if None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: arithmetic of the encoder, ``float32`` or ``bfloat16``.
        storage: of features: ``float16``, ``float32``, ``int8``, ``none`` (frames are encoded anew
            whenever they are needed), or ``auto``: float16 if it fits on the disk, else int8 if
            that does, else none; earlier results of the same command decide before that.
        on_bad_audio: ``fail``, or ``skip`` and list them in the result.
        plan_only: show what features would cost, and score nothing.
        trust_remote_code: let a checkpoint run the Python code it brings; its result says so.
        lm: a word n-gram model (ARPA or KenLM binary) that transcripts of test are decoded with
            as well, for the metric ``wer_lm``; needs the extra ``superb[lm]``.
        lexicon: the words that this can find, one per line; those of an ARPA model if None.
        log_dir: folder of logs for TensorBoard; none if None.
        progress: where to report; standard error by default.

    Returns:
        One result per upstream, task and layer choice, in that order.

    Raises:
        SuperbError: for anything wrong with the input.
    """
    processes = find_processes()
    progress = processes.voice(progress or Progress())
    with processes.together():
        names = [downstream] if isinstance(downstream, str) else list(downstream)
        choices = [layers] if isinstance(layers, str) else list(layers)
        _require("precision", precision, ("float32", "bfloat16"))
        _require("storage", storage, (AUTO, *STORAGES))
        _require("on-bad-audio", on_bad_audio, ("fail", "skip"))
        if seeds < 1:
            raise SuperbError(f"seeds must be at least 1, got {seeds}")
        if isinstance(upstream, str) or not isinstance(upstream, Sequence):
            given: list[str | Upstream] = [upstream]
        else:
            given = list(upstream)
        settings = ExtractionSettings(
            Path(cache_dir).expanduser() if cache_dir else cache_folder(),
            find_device(device, processes),
            precision,
            storage,
            on_bad_audio,
            processes,
        )
        if not given:
            raise SuperbError("no upstream given; superb upstreams lists those with a name")
        _require_writable(Path(output))
        logs = None if log_dir is None else Path(log_dir).expanduser()
        if logs is not None:
            _require_writable(logs, "logs", "--log-dir")
        splits = {"train": train_split, "valid": valid_split, "test": test_split}
        options = CorpusOptions(
            Path(data_root).expanduser() if data_root is not None else None,
            {split: own for split, own in splits.items() if own is not None},
        )
        tasks = prepare_tasks(names, corpus, protocol, options, settings.cache_dir)
        if lm is not None:
            words = None if lexicon is None else Path(lexicon).expanduser()
            tasks = with_language_model(tasks, Path(lm).expanduser(), words)
        elif lexicon is not None:
            raise SuperbError(
                "--lexicon gives the words for a language model; give one with --lm FILE"
            )
        # every name is resolved before the first second of work
        encoders = [
            prepare_encoder(item, settings.device, progress, trust_remote_code) for item in given
        ]
        for encoder in encoders:
            expand(choices, encoder.card.layers)
        once = {(encoder.card.name, encoder.fingerprint): encoder for encoder in encoders}
        if plan_only:
            for encoder in once.values() if processes.main else ():
                mixes = expand(choices, encoder.card.layers)
                everything = [(task, mixes) for task in tasks]
                own, reason = _settled(encoder, tasks, mixes, seeds, Path(output), settings)
                for work in _works(encoder, everything).values():
                    progress.console.print(plan_table(plan_run(work, own, reason)))
            return []
        results: list[Result] = []
        # float32 means float32 on a GPU too, and kernels that repeat themselves are preferred
        with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
            for encoder in once.values():
                results += _run_encoder(
                    encoder, tasks, choices, seeds, Path(output), settings, progress, logs
                )
        return results


def _require_writable(output: Path, what: str = "results", option: str = "--output") -> None:
    """Find out that results cannot be written before hours of work, not after."""
    place = output.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "is not a folder" if not place.is_dir() else "may not be written to"
        raise SuperbError(
            f"{what} cannot be written to {output}: {place} {why}. Choose another folder with "
            f"{option} DIR"
        )


def _require(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise unknown(f"value of --{option}", value, allowed)


def _run_encoder(
    encoder: Encoder,
    tasks: Sequence[Task],
    choices: Sequence[str],
    seeds: int,
    output: Path,
    settings: ExtractionSettings,
    progress: Progress,
    logs: Path | None,
) -> list[Result]:
    card, processes = encoder.card, settings.processes
    mixes = expand(choices, card.layers)
    asked = settings.storage
    settings, reason = _settled(encoder, tasks, mixes, seeds, output, settings)
    identities = {
        (task.downstream.card.name, label): _identity(
            encoder, task, label, _seeds(task, seeds), settings
        )
        for task in tasks
        for label in mixes
    }
    _require_same_work(list(identities.values()), processes)

    def find(task: str, label: str) -> Result | None:
        return find_result(output, task, card.name, run_id(identities[task, label]))

    if asked == AUTO and settings.storage != PREFERRED[0]:
        progress.warn(f"{card.name}: features are kept as {reason}")
    # found once, by one process: another may write results before the last one looks
    finished = processes.agree(lambda: [find(*cell) is not None for cell in identities])
    done = {
        cell: _written(partial(find, *cell), output)
        for cell, there in zip(identities, finished, strict=True)
        if there
    }
    open_tasks: list[tuple[Task, dict[str, Mix]]] = []
    for task in tasks:
        name = task.downstream.card.name
        todo = {label: mix for label, mix in mixes.items() if (name, label) not in done}
        if processes.main:
            _require_same_audio(task, [r for (own, _), r in done.items() if own == name], output)
        if len(todo) < len(mixes):
            before = ", ".join(label for label in mixes if label not in todo)
            progress.note(f"{card.name}, {name}: finished before, not run again: {before}")
        if todo:
            open_tasks.append((task, todo))
    # of all, done or not: training that was cut off is found by what one process trains together
    trainings = processes.share(_trainings([(task, mixes) for task in tasks]))
    for gain_db, work in _works(encoder, open_tasks).items():
        alike = [(task, todo) for task, todo in open_tasks if task.training.gain_db == gain_db]
        big = size(card, amounts(work.wanted), PREFERRED[0], work.layers) >= WORTH_A_TABLE
        if big and not progress.quiet:
            progress.console.print(plan_table(plan_run(work, settings, reason)))
        with ExitStack() as resources:
            features = extract(
                work.upstream,
                work.fingerprint,
                work.wanted,
                settings,
                progress,
                resources,
                work.layers,
            )
            if features.skipped:
                first = features.skipped[0]
                progress.warn(
                    f"{len(features.skipped)} audio files left out, listed in the results; the "
                    f"first: {first.utterance}: {first.reason}"
                )
            for task, todo in alike:
                name, own = task.downstream.card.name, _seeds(task, seeds)
                mine = {label: mix for label, mix in todo.items() if (name, mix) in trainings}
                if not mine:
                    continue
                # what goes wrong with its training, each process has to say itself
                said = progress if processes.main else Progress(quiet=True)
                for result in _run_task(
                    encoder, task, mine, own, output, settings, features, said, logs
                ):
                    _warn(result, progress)
                    done[name, result.layer] = result
    if processes.count > 1:
        progress.note(f"{card.name}: waiting for what other processes train")
        processes.gather(None)
    for cell in [cell for cell in identities if cell not in done]:
        done[cell] = _written(partial(find, *cell), output)
        _warn(done[cell], progress)
    return [done[task.downstream.card.name, label] for task in tasks for label in mixes]


def _trainings(wanted: Sequence[tuple[Task, Mapping[str, Mix]]]) -> list[tuple[str, Mix]]:
    """What can be trained apart from each other: each layer choice of each task.

    Learning rates and seeds of a layer choice cannot: successive halving compares them.
    """
    return [
        (task.downstream.card.name, mix)
        for task, todo in wanted
        for mix in dict.fromkeys(todo.values())
    ]


def _require_same_work(identities: Sequence[Mapping[str, Any]], processes: Processes) -> None:
    """Refuse to share what not all processes see alike."""
    first, *rest = processes.gather(list(identities))
    differ = {
        key
        for others in rest
        for one, other in zip(first, others, strict=False)
        for key in one.keys() | other.keys()
        if one.get(key) != other.get(key)
    }
    if any(len(others) != len(first) for others in rest):
        differ |= {"tasks", "layer choices"}
    if differ:
        raise SuperbError(
            f"the processes do not see the same {' and '.join(sorted(differ))}, so they cannot "
            "share the run. Corpora and checkpoints must be the same on all machines, and so must "
            "the kind of device; an upstream of your own whose weights cannot be hashed needs an "
            "attribute `fingerprint`"
        )


def _written(find: Callable[[], Result | None], output: Path) -> Result:
    """A result that another process has written, or has found."""
    until = time.monotonic() + _VISIBLE_S
    while (found := find()) is None:
        if time.monotonic() > until:
            raise SuperbError(
                f"a result of another process is not in {output}: choose a folder that all "
                "machines share with --output DIR"
            )
        time.sleep(1)
    return found


def _warn(result: Result, progress: Progress) -> None:
    """Say what a reader of a new score must know."""
    upstream, task = result.upstream["name"], result.downstream["name"]
    for warning in result.warnings:
        progress.warn(f"{upstream}, {task}, {result.layer}: {warning}")


def _require_same_audio(task: Task, found: Sequence[Result], output: Path) -> None:
    """Refuse to take results for those of a corpus whose files have changed in place since.

    Where nothing is known of the files any more, as after clearing the cache folder, names and
    sizes have to do.
    """
    checkable = [result for result in found if result.corpus.get("audio_sha256")]
    utterances = task.corpus.utterances
    if not checkable or not any_known(utterances, task.cache_dir):
        return
    now = joint_sha256(file_hashes(utterances, task.cache_dir))
    for result in checkable:
        if result.corpus["audio_sha256"] != now:
            path = result_path(
                output, result.downstream["name"], result.upstream["name"], result.run_id
            )
            raise SuperbError(
                f"audio files of {task.corpus.name} have changed since {path} was written, though "
                "their sizes have not: it is the score of other audio. Choose another folder with "
                "--output DIR, or delete that file to have it run again"
            )


def _seeds(task: Task, seeds: int) -> list[int]:
    return [task.training.first_seed + index for index in range(seeds)]


def _settled(
    encoder: Encoder,
    tasks: Sequence[Task],
    mixes: Mapping[str, Mix],
    seeds: int,
    output: Path,
    settings: ExtractionSettings,
) -> tuple[ExtractionSettings, str]:
    """The settings with a storage instead of ``auto``, and the reason for it in words.

    What results of this command are there already were made with is not changed under way, so that
    the same command again finds them whatever the disk looks like by then.
    """
    if settings.storage != AUTO:
        return settings, f"{settings.storage}, as --storage says"
    # what lies on the disk and what is free there changes while processes look
    storage, reason = settings.processes.agree(
        lambda: _preferred(encoder, tasks, mixes, seeds, output, settings)
    )
    return replace(settings, storage=storage), reason


def _preferred(
    encoder: Encoder,
    tasks: Sequence[Task],
    mixes: Mapping[str, Mix],
    seeds: int,
    output: Path,
    settings: ExtractionSettings,
) -> tuple[str, str]:
    """What ``auto`` comes to, and why."""
    for storage in PREFERRED:
        trial = replace(settings, storage=storage)
        for task in tasks:
            for label in mixes:
                identity = _identity(encoder, task, label, _seeds(task, seeds), trial)
                name = task.downstream.card.name
                if find_result(output, name, encoder.card.name, run_id(identity)) is not None:
                    return storage, f"{storage}, as in earlier results"
    works = list(_works(encoder, [(task, mixes) for task in tasks]).values())
    return settle(works, settings)


def _works(
    encoder: Encoder, open_tasks: Sequence[tuple[Task, Mapping[str, Mix]]]
) -> dict[float, Work]:
    """Gain in decibels → what is to be encoded with it."""
    works = {}
    for gain_db in dict.fromkeys(task.training.gain_db for task, _ in open_tasks):
        alike = [(task, todo) for task, todo in open_tasks if task.training.gain_db == gain_db]
        upstream, mark = encoder.upstream, encoder.fingerprint
        if gain_db:
            upstream, mark = Amplified(upstream, gain_db), f"{mark} {gain_db!r} dB"
        works[gain_db] = Work(upstream, mark, _wanted(alike), _layers(alike, encoder.card.layers))
    return works


def _layers(
    open_tasks: Sequence[tuple[Task, Mapping[str, Mix]]], layers: int
) -> tuple[int, ...] | None:
    """The only layers that frames are needed of, None for all."""
    wanted = {
        mix.layer
        for task, todo in open_tasks
        if task.downstream.card.features == "frames"
        for mix in todo.values()
    }
    chosen = sorted(layer for layer in wanted if layer is not None)
    return None if None in wanted or len(chosen) == layers else tuple(chosen) or None


def _wanted(open_tasks: Sequence[tuple[Task, Mapping[str, Mix]]]) -> dict[str, list[Any]]:
    """Kind of feature → utterances that need it."""
    wanted: dict[str, list[Any]] = {}
    for task, todo in open_tasks:
        for kind in _kinds(task, todo):
            wanted.setdefault(kind, []).extend(task.heard)
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
    identity = {
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
    return identity | ({"lm": dict(task.lm)} if task.lm else {})


def _run_task(
    encoder: Encoder,
    task: Task,
    todo: Mapping[str, Mix],
    seeds: list[int],
    output: Path,
    settings: ExtractionSettings,
    features: Features,
    progress: Progress,
    logs: Path | None,
) -> list[Result]:
    card, downstream, training = encoder.card, task.downstream, task.training
    # heads over time means are too small for a GPU: launching costs more than computing
    device = settings.device if downstream.card.features == "frames" else "cpu"
    stores = {kind: features.stores[kind] for kind in _kinds(task, todo)}
    data = {
        split: SplitData(
            [u for u in task.heard if u.split == split and u.id in features.keys],
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
            placed=data["train"].placed(mix),
        )
        for mix in dict.fromkeys(todo.values())
        for rate in training.learning_rates
        for seed in seeds
    ]
    notes = downstream.notes(data["train"].utterances, data["train"].lengths, hop_s, training.head)
    notes += missing_information(data["train"], stores, card)
    files = file_hashes(task.corpus.utterances, task.cache_dir)
    notes += shared_audio(data, task.corpus, files)
    corpus = describe_corpus(task, features, files)
    snapshot = Snapshot(
        settings.cache_dir / TRAINING,
        {
            "runs": [run_id(_identity(encoder, task, label, seeds, settings)) for label in todo],
            "audio": _digest(data["train"].keys + data["valid"].keys),
        },
        progress,
    )
    started = time.perf_counter()
    with ExitStack() as resources:
        metric, name = downstream.card.metric, downstream.card.name
        written = None if logs is None else Logs(logs, name, card.name, metric, resources)

        def listen(probe: Probe, look: Look) -> None:
            settings.processes.require_others()
            if written is not None:
                written(probe, look)

        fit(
            probes,
            data["train"],
            data["valid"],
            downstream,
            task.vocabulary,
            training,
            progress,
            f"{card.name}, {name}: {len(probes)} probes",
            takes=_groups(task, data["train"]),
            snapshot=snapshot,
            listen=listen,
        )
    training_s = time.perf_counter() - started
    results = []
    outcomes: dict[Mix, tuple[float | None, dict[int, list[Tally]]]] = {}
    for label, mix in todo.items():
        own = [probe for probe in probes if probe.spec.mix == mix]
        if mix not in outcomes:
            outcomes[mix] = _test(own, data["test"], task)
        rate, tallies = outcomes[mix]
        result = build_result(
            _identity(encoder, task, label, seeds, settings),
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
        results.append(read_result(write_result(output, result, tallies)))
    snapshot.discard()
    return results


def _groups(task: Task, train: SplitData) -> list[list[int]]:
    """The takes of each training utterance as indices; those with bad audio are not there."""
    place = {utterance.id: index for index, utterance in enumerate(train.utterances)}
    groups = [[place[u.id] for u in group if u.id in place] for group in task.takes.values()]
    return [group for group in groups if group]


def _digest(keys: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()


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
        probe.spec.seed: evaluate(probe, data, task.scorer, task.vocabulary, size)
        for probe in probes
        if probe.spec.learning_rate == rate
    }
