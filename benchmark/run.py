"""The composer: encoders x tasks x layer choices → result files.

Nothing else in the engine knows the whole way from a name on the command line to a score.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, runtime_checkable
from typing import Protocol as TypingProtocol

import numpy as np
import torch

from benchmark import statistics
from benchmark.core import SPLITS, Corpus, Downstream, Tally, Upstream, UpstreamCard, Utterance
from benchmark.errors import SuperbError, UpstreamError, unknown
from benchmark.features import ExtractionSettings, Features, extract
from benchmark.fingerprint import count_parameters, fingerprint, modules_of
from benchmark.fit import (
    Look,
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
from benchmark.gain import Amplified
from benchmark.layers import Mix, expand
from benchmark.logs import Logs
from benchmark.macs import macs_per_second
from benchmark.plan import (
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
from benchmark.processes import ALONE, Processes, find_processes
from benchmark.progress import Progress
from benchmark.protocol import LanguageModel, Protocol, Training, load_protocol
from benchmark.provenance import provenance
from benchmark.recordings import Hashes, any_known, durations, file_hashes, joint_sha256
from benchmark.results import (
    HistoryPoint,
    LearningRatePoint,
    MetricValue,
    Result,
    SeedScore,
    find_result,
    read_result,
    result_path,
    run_id,
    write_result,
)
from benchmark.resume import Snapshot
from benchmark.store import STORAGES, TRAINING, cache_folder
from benchmark.takes import takes
from downstreams import DOWNSTREAMS, PROTOCOLS, find_downstream, load_downstream
from downstreams.corpora import CorpusOptions, load_corpus
from upstreams.load import load_upstream

_FEW_CLUSTERS = 10
# Network file systems may remember for a minute that a file is not there.
_VISIBLE_S = 60.0
# Raised whenever training, selection or scoring changes a score that the protocol does not name.
ENGINE_VERSION = 1


@runtime_checkable
class DecodesWords(Downstream, TypingProtocol):
    """A task whose transcripts can be decoded with a language model."""

    def with_language_model(
        self,
        model: Path,
        lexicon: Path | None,
        vocabulary: Sequence[str],
        settings: LanguageModel,
    ) -> Downstream:
        """The same task, also scored with a language model."""
        ...


@dataclass(frozen=True)
class Task:
    """One task on one corpus under one protocol, ready to run.

    Attributes:
        downstream: what is trained.
        corpus: what it is trained, chosen and tested on.
        protocol: the rules.
        training: those for this task.
        vocabulary: the output symbols.
        scorer: what is asked on test: `downstream`, or the same with a language model.
        lm: hashes of the language model and its lexicon; empty without.
        cache_dir: where lengths and hashes of recordings are remembered.
    """

    downstream: Downstream
    corpus: Corpus
    protocol: Protocol
    training: Training
    vocabulary: tuple[str, ...]
    scorer: Downstream
    lm: Mapping[str, str] = field(default_factory=dict)
    cache_dir: Path = field(default_factory=cache_folder)

    @cached_property
    def durations(self) -> Mapping[str, float]:
        """Utterance id → seconds, of those that may be cropped."""
        train = self.corpus.split("train") if self.training.crop_s else ()
        return durations(train, self.cache_dir)

    @cached_property
    def takes(self) -> Mapping[str, tuple[Utterance, ...]]:
        """Utterance id → what of it is heard: in train perhaps crops, else the whole."""
        crop_s, crops = self.training.crop_s, self.training.crops
        return {
            utterance.id: takes(utterance, self.durations[utterance.id], crop_s, crops)
            if utterance.id in self.durations
            else (utterance,)
            for utterance in self.corpus.utterances
        }

    @property
    def heard(self) -> list[Utterance]:
        """All that passes the encoder."""
        return [take for group in self.takes.values() for take in group]


@dataclass(frozen=True)
class Encoder:
    """An upstream with what the engine found out about it."""

    upstream: Upstream
    fingerprint: str
    parameters: int | None
    device: str

    @property
    def card(self) -> UpstreamCard:
        """Its card."""
        return self.upstream.card

    @cached_property
    def macs(self) -> float | None:
        """Multiply-accumulate operations per second of audio; see `benchmark.macs`."""
        return macs_per_second(self.upstream, self.device)


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
            tasks = _with_language_model(tasks, Path(lm).expanduser(), words)
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


def find_device(name: str, processes: Processes = ALONE) -> str:
    """The device behind ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Of several processes, each gets the GPU of its number on its machine.

    Raises:
        SuperbError: when it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes.count > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise SuperbError(
                f"device {name!r} is one GPU, but {processes.count} processes share the run; with "
                "--device cuda, or auto, each takes one of its own"
            )
        gpus = torch.cuda.device_count()
        if processes.local_rank >= gpus:
            raise SuperbError(
                f"this machine shows {gpus} GPUs, too few for process {processes.local_rank} (from "
                "0) on it: start at most one process for each GPU, use --device cpu, or set "
                "LOCAL_RANK to 0 where each process sees one GPU, its own"
            )
        name = f"cuda:{processes.local_rank}"
    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError("only processors and CUDA devices are supported")
        torch.empty(1, device=name)
        if name.startswith("cuda:"):  # kernels of other libraries look nowhere else
            torch.cuda.set_device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SuperbError(
            f"device {name!r} cannot be used: {reason}. Use --device cpu, cuda or auto"
        ) from error
    return name


def prepare_tasks(
    names: Sequence[str],
    corpus: str,
    protocol: str,
    options: CorpusOptions | None = None,
    cache_dir: Path | None = None,
) -> list[Task]:
    """Resolve tasks, their corpora and their training values.

    Args:
        names: of tasks, or ``all``.
        corpus: as for `run`.
        protocol: likewise.
        options: where the corpus lies, and which of its splits are wanted.
        cache_dir: where lengths and hashes of recordings are remembered; the usual folder if None.

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
        if training.crop_s and "text" in entry.card.needs:
            raise SuperbError(
                f"protocol {rules.name}, [{name}]: crop_s must be 0, since a crop of an utterance "
                f"does not have its transcript; got {training.crop_s:g}"
            )
        data = load_corpus(corpus, entry.card, entry.label_from, options)
        task = load_downstream(name)
        vocabulary = task.vocabulary(data.split("train"))
        place = cache_dir or cache_folder()
        tasks.append(Task(task, data, rules, training, vocabulary, scorer=task, cache_dir=place))
    return tasks


def _with_language_model(tasks: Sequence[Task], model: Path, lexicon: Path | None) -> list[Task]:
    """The same tasks, those with transcripts scored with a language model too."""
    able = [task for task in tasks if isinstance(task.downstream, DecodesWords)]
    if not able:
        names = ", ".join(task.downstream.card.name for task in tasks)
        raise SuperbError(f"--lm is for tasks with transcripts, such as asr; got {names}")
    lm = {"model": _file_sha256(model, "--lm")}
    if lexicon is not None:
        lm["lexicon"] = _file_sha256(lexicon, "--lexicon")
    scored = []
    for task in tasks:
        if not isinstance(task.downstream, DecodesWords):
            scored.append(task)
            continue
        settings = task.training.lm
        if settings is None:
            name = task.downstream.card.name
            raise SuperbError(
                f"protocol {task.protocol.name} does not say how to decode with --lm; use "
                f"--protocol superb, or one of your own with a table [{name}.lm]"
            )
        scorer = task.downstream.with_language_model(model, lexicon, task.vocabulary, settings)
        scored.append(replace(task, scorer=scorer, lm=lm))
    return scored


def _file_sha256(path: Path, option: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SuperbError(f"{option} {path} cannot be read: {error.strerror}") from error


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
    return Encoder(upstream, mark, parameters, device)


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
    notes += _information(data["train"], stores, card)
    files = file_hashes(task.corpus.utterances, task.cache_dir)
    notes += _shared_audio(data, task.corpus, files)
    corpus = _describe(task, features, files)
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


def _shared_audio(data: Mapping[str, SplitData], corpus: Corpus, files: Hashes) -> list[str]:
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


def _describe(task: Task, features: Features, files: Hashes) -> dict[str, Any]:
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
