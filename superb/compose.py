"""What was typed becomes what runs. Strings become objects here and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, runtime_checkable
from typing import Protocol as TypingProtocol

from benchmark.core import Corpus, Downstream, hears_train
from benchmark.encoding.arithmetic import PRECISIONS
from benchmark.encoding.cache import cache_folder
from benchmark.encoding.features import ExtractionSettings
from benchmark.encoding.packing import STORAGES
from benchmark.errors import AudioError, LacksError, SuperbError, unknown
from benchmark.identity import source_sha256
from benchmark.jobs.cost import AUTO
from benchmark.jobs.site import Encoder, Partition, Site, Task, find_device, prepare_encoder
from benchmark.probing.budget import Budget
from benchmark.probing.layers import expand
from benchmark.progress import Messages, Progress
from benchmark.protocol import LanguageModel, Protocol, load_protocol
from benchmark.tracking.courses import Courses
from downstreams import DOWNSTREAMS, PROTOCOLS
from downstreams.corpora import BUNDLED, CORPORA, mini
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.corpora.pronunciation import COLUMN as PHONES
from downstreams.corpora.pronunciation import LETTERS, Lexicon, cmu_dictionary, read_lexicons
from downstreams.diarization import COLUMN as SEGMENTS
from downstreams.load import load_downstream
from downstreams.recogniser import HEADS
from superb.spec import RunSpec
from upstreams.loading.layouts.settings import parse_settings
from upstreams.loading.load import is_training_file, load_upstream

# Columns that say what is when in an utterance, or in which order: a crop has others.
_OF_ALL_TIME = {"text", PHONES, "tagged", SEGMENTS}
# More whole reruns than anybody waits for; a slip of the keyboard must not fill the memory.
MOST_SEEDS = 1_000


@runtime_checkable
class DecodesWords(TypingProtocol):
    """A task whose transcripts can be decoded with a language model."""

    def with_language_model(
        self,
        model: Path,
        lexicon: Path | None,
        vocabulary: Sequence[str],
        settings: LanguageModel | None,
    ) -> Any:  # noqa: ANN401 - a task of either kind
        """The same task, also scored with a language model."""
        ...


@runtime_checkable
class HasHeads(Downstream, TypingProtocol):
    """A task that can be done by several kinds of head."""

    def with_head(self, head: str) -> Downstream:
        """The same task by another head, under another name on its card."""
        ...


@runtime_checkable
class HasLexicon(TypingProtocol):
    """A task that recognises words by their phones."""

    def with_lexicon(self, lexicon: Lexicon | None) -> Any:  # noqa: ANN401 - a task of either kind
        """The same task for the words of a lexicon; None takes letters for phones."""
        ...


@runtime_checkable
class HasSlots(Downstream, TypingProtocol):
    """A task with several labels, whose columns a user may name."""

    def with_slots(self, slots: Sequence[str]) -> Downstream:
        """The same task for other columns."""
        ...


class _Later(Mapping[str, Encoder]):
    """Encoders that are loaded when they are first asked for."""

    def __init__(self, places: Mapping[str, int], load: Callable[[int], Encoder]) -> None:
        self._places, self._load = places, cache(load)

    def __getitem__(self, name: str) -> Encoder:
        return self._load(self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def build_site(
    spec: RunSpec,
    progress: Progress | None = None,
    *,
    places: Mapping[str, int] | None = None,
    loaded: dict[object, Encoder] | None = None,
) -> Site:
    """Resolve every name of a run before the first second of work.

    Args:
        spec: what was asked for.
        progress: where notes on encoders go; nowhere if None.
        places: the encoders of the same site, built before, and their places among the upstreams:
            each is loaded when it is first asked for.
        loaded: encoders of other sites of this process, which this one adds to.

    Raises:
        SuperbError: for anything that does not exist or does not fit.
    """
    progress = progress or Messages()
    _require("precision", spec.precision, PRECISIONS)
    _require("storage", spec.storage, (AUTO, *STORAGES))
    _require("on-bad-audio", spec.on_bad_audio, ("fail", "skip"))
    if spec.channel is not None and spec.channel < 0:
        raise SuperbError(f"channels are counted from 0; got --channel {spec.channel}")
    if not 1 <= spec.seeds <= MOST_SEEDS:
        raise SuperbError(f"seeds must be from 1 to {MOST_SEEDS}, got {spec.seeds}")
    if not spec.upstream:
        raise SuperbError("no upstream given; superb upstreams lists those with a name")
    settings = ExtractionSettings(
        spec.cache_dir or cache_folder(),
        find_device(spec.device),
        spec.precision,
        spec.storage,
        spec.on_bad_audio,
        spec.channel,
    )
    courses = Courses(spec.track, spec.log_dir)
    tasks = prepare_tasks(spec, settings.cache_dir, progress)
    of_files = parse_settings(spec.settings)
    if of_files and not any(isinstance(u, str) and is_training_file(u) for u in spec.upstream):
        raise SuperbError("--set is for encoders in training files, such as --upstream ./model.pt")

    found = {} if loaded is None else loaded

    def load(place: int) -> Encoder:
        item = spec.upstream[place]
        if not isinstance(item, str):
            return replace(prepare_encoder(item, settings.device, progress), place=place)
        key = (item, settings.device, spec.trust_remote_code, spec.settings)
        if key not in found:
            upstream = load_upstream(item, spec.trust_remote_code, of_files)
            found[key] = prepare_encoder(upstream, settings.device, progress)
        typed = {"name": item, "settings": dict(of_files), "remote": spec.trust_remote_code}
        return replace(found[key], place=place, typed=typed)

    encoders = _distinct(spec, load) if places is None else _Later(places, load)
    return Site(
        encoders,
        tasks,
        spec.layers,
        spec.seeds,
        spec.output,
        settings,
        courses,
        {} if spec.file is None else spec.file.record,
        save_heads=spec.save_heads,
    )


def _distinct(spec: RunSpec, load: Callable[[int], Encoder]) -> dict[str, Encoder]:
    """The encoders by name, those that are asked for twice once."""
    encoders: dict[str, Encoder] = {}
    for encoder in map(load, range(len(spec.upstream))):
        expand(spec.layers, encoder.card.layers)
        known = [
            other.fingerprint for other in encoders.values() if other.card.name == encoder.card.name
        ]
        if encoder.fingerprint not in known:
            name = encoder.card.name
            label = f"{name} @{encoder.fingerprint[:8]}" if name in encoders else name
            encoders[label] = encoder
    return encoders


def prepare_tasks(spec: RunSpec, cache_dir: Path, progress: Progress) -> dict[str, Task]:
    """Resolve tasks, their corpora and their training values; of ``all``, those that can be.

    Raises:
        SuperbError: for an unknown task, corpus or protocol, or a corpus that does not fit.
    """
    wanted = _wanted(spec)
    if not wanted:
        raise SuperbError(f"no task given; choose from {', '.join(DOWNSTREAMS)}, or all")
    rules = spec.protocol
    if isinstance(rules, str):
        rules = load_protocol(rules, PROTOCOLS)
    tasks: dict[str, Task] = {}
    lacking: dict[str, str] = {}
    budgets = [Budget.parse(text) for text in spec.labels] or [None]
    for place, head, downstream in by_heads(map(load_downstream, wanted), spec.head):
        asked = wanted[place]
        if spec.slots and isinstance(downstream, HasSlots):
            downstream = downstream.with_slots(spec.slots)
        card = downstream.card
        if "all" in spec.downstream and not {card.name, card.features} & rules.tables.keys():
            lacking[card.name] = f"protocol {rules.name} says nothing of {card.name}"
            continue
        try:
            task = prepare_task(downstream, spec, rules, cache_dir)
        except (LacksError, AudioError) as error:  # mixtures are heard when they are made
            if "all" not in spec.downstream:
                raise
            lacking[card.name] = str(error)
            continue
        for budget in budgets if hears_train(downstream) else [None]:
            own = replace(
                task,
                budget=budget,
                reruns=spec.seeds if card.trained else 1,
                typed={"name": asked, "head": head, "slots": list(spec.slots)}
                if isinstance(asked, str)
                else None,
            )
            if own.name in tasks and tasks[own.name].source != own.source:
                raise SuperbError(f"two tasks are called {own.name!r}; rename one on its card")
            for fold in own.partitions:
                for rerun in range(own.reruns if budget else 1):
                    own.subset(fold, rerun)
            tasks[own.name] = own
    if lacking and not tasks:
        raise SuperbError(next(iter(lacking.values())))
    for name, why in lacking.items():
        progress.note(f"{name} is left out of all: {why}")
    if spec.slots and not any(isinstance(task.downstream, HasSlots) for task in tasks.values()):
        raise SuperbError(f"--slots is for tasks with several labels, such as ic; got {_of(tasks)}")
    verifies = any(getattr(task.downstream, "reads_trials", False) for task in tasks.values())
    if spec.trials is not None and not verifies:
        raise SuperbError(f"--trials is for speaker verification, asv; got {_of(tasks)}")
    reads = any(
        PHONES in task.downstream.card.needs or isinstance(task.downstream, HasLexicon)
        for task in tasks.values()
    )
    if spec.pronunciations is not None and not reads:
        raise SuperbError(
            "--pronunciations is for what needs phones, such as pr and the heads hmm and gmm-hmm; "
            f"got {_of(tasks)}"
        )
    if spec.lm is not None:
        return _with_language_model(tasks, spec.lm, spec.lexicon)
    if spec.lexicon is not None:
        raise SuperbError(
            "--lexicon gives the words for a language model; give one with --lm FILE. Phones of "
            "words come with --pronunciations FILE"
        )
    return tasks


def by_heads(
    downstreams: Iterable[Downstream], heads: Sequence[str]
) -> Iterator[tuple[int, str, Downstream]]:
    """Each task, by each head where it can have several.

    Returns:
        The place of the task among those that were given, the head that it is done by, "" for its
        own, and the task.

    Raises:
        SuperbError: none can.
    """
    found = list(downstreams)
    if heads and not any(isinstance(task, HasHeads) for task in found):
        names = ", ".join(task.card.name for task in found)
        raise SuperbError(
            f"--head is for tasks that several heads can do, such as asr; got {names}"
        )
    for place, task in enumerate(found):
        if heads and isinstance(task, HasHeads):
            yield from ((place, head, task.with_head(head)) for head in heads)
        else:
            yield place, "", task


def _of(tasks: Mapping[str, Task]) -> str:
    return ", ".join(tasks)


def _wanted(spec: RunSpec) -> list[str | Downstream]:
    """The tasks to run: those of a corpus of the table, for ``all``; what can be, of the others."""
    if "all" in spec.downstream:
        known = CORPORA.get(spec.corpus) if isinstance(spec.corpus, str) else None
        return [task for task in DOWNSTREAMS if known is None or task in known.tasks]
    left_out = unbundled(spec.downstream, spec.corpus)
    return [task for task in spec.downstream if task not in left_out]


def unbundled(downstreams: Sequence[str | Downstream], corpus: str | object) -> list[str]:
    """Tasks that the bundled corpus cannot serve, where it can serve others that are asked for.

    Args:
        downstreams: as asked for.
        corpus: likewise.
    """
    if corpus != BUNDLED:
        return []
    lacking = [
        task
        for task in downstreams
        if isinstance(task, str) and task in DOWNSTREAMS and task not in CORPORA[BUNDLED].tasks
    ]
    return lacking if len(lacking) < len(downstreams) else []


def prepare_task(downstream: Downstream, spec: RunSpec, rules: Protocol, cache_dir: Path) -> Task:
    """A task with its corpus and its training values."""
    card = downstream.card
    training = rules.training(card.name, card.features, downstream.training, card.base)
    if training.crop_s and (whole := _OF_ALL_TIME & {*card.needs}):
        raise SuperbError(
            f"protocol {rules.name}, [{card.name}]: crop_s must be 0, since {min(whole)!r} is of a "
            f"whole utterance and not of a crop; got {training.crop_s:g}"
        )
    options = spec.options
    lexicon = ""
    if isinstance(downstream, HasLexicon):
        words = _lexicon_of(spec.corpus, spec.pronunciations)
        downstream = downstream.with_lexicon(words)
        lexicon = LETTERS if words is None else words.sha256
        options = replace(options, pronunciations=None)
    elif str(options.pronunciations) == LETTERS:
        raise SuperbError(
            f"--pronunciations {LETTERS} is for the heads hmm and gmm-hmm; got {card.name}"
        )
    if getattr(downstream, "reads_trials", False):
        options = replace(options, trials=spec.trials)
    try:
        corpus: Corpus = load_corpus(spec.corpus, card, options)
    except SuperbError as error:
        if isinstance(downstream, HasSlots) and not spec.slots and isinstance(error, LacksError):
            raise LacksError(f"{error}. --slots COLUMN,COLUMN names other columns") from error
        raise
    check_fits(downstream, corpus)
    partitions = {
        fold: Partition(part, downstream.vocabulary(part.split("train")), downstream)
        for fold, part in corpus.partitions().items()
    }
    return Task(
        downstream,
        corpus,
        rules,
        training,
        partitions,
        cache_dir,
        source=source_of(downstream),
        lexicon=lexicon,
    )


def _lexicon_of(corpus: object, given: Path | None) -> Lexicon | None:
    """The lexicon by which words of a corpus are recognised; None for their letters.

    Args:
        corpus: as it was asked for; `mini` has a lexicon of its own.
        given: a file, or ``letters``; the CMU Pronouncing Dictionary if None.

    Raises:
        SuperbError: it cannot be had or read.
    """
    if given is not None and str(given) == LETTERS:
        if given.is_file():
            raise SuperbError(
                f"--pronunciations {LETTERS} takes letters for phones, and there is a file of that "
                "name here: give it another name if it is meant, else leave the folder"
            )
        return None
    if given is not None:
        return read_lexicons([given])
    if corpus == "mini":
        return read_lexicons([mini.FOLDER / mini.LEXICON])
    return cmu_dictionary()


def source_of(downstream: Downstream) -> str:
    """What tells a task from others of its name and version; "" for one of ours as it stands."""
    found = source_sha256(downstream)
    name, _, head = downstream.card.name.partition("-")
    if name not in DOWNSTREAMS or (head and head not in HEADS):
        return found
    ours = load_downstream(name)
    if head and isinstance(ours, HasHeads):
        ours = ours.with_head(head)
    return "" if source_sha256(ours) == found else found


def _with_language_model(
    tasks: Mapping[str, Task], model: Path, lexicon: Path | None
) -> dict[str, Task]:
    """The same tasks, those with transcripts scored with a language model too."""
    if not any(isinstance(task.downstream, DecodesWords) for task in tasks.values()):
        raise SuperbError(f"--lm is for tasks with transcripts, such as asr; got {_of(tasks)}")
    lm = {"model": _file_sha256(model, "--lm")}
    if lexicon is not None:
        lm["lexicon"] = _file_sha256(lexicon, "--lexicon")
    scored = dict(tasks)
    for name, task in tasks.items():
        decoder = task.downstream
        if not isinstance(decoder, DecodesWords):
            continue
        settings = task.training.lm
        if settings is None and not isinstance(decoder, HasLexicon):
            raise SuperbError(
                f"protocol {task.protocol.name} does not say how to decode with --lm; use "
                f"--protocol superb, or one of your own with a table [{name}.lm]"
            )
        partitions = {
            fold: replace(
                part,
                scorer=decoder.with_language_model(model, lexicon, part.vocabulary, settings),
            )
            for fold, part in task.partitions.items()
        }
        found_by = f"{task.lexicon} {lm['model']}".encode()
        mark = hashlib.sha256(found_by).hexdigest() if task.lexicon else ""
        scored[name] = replace(task, partitions=partitions, lm=lm, lexicon=mark)
    return scored


def _file_sha256(path: Path, option: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SuperbError(f"{option} {path} cannot be read: {error.strerror}") from error


def _require(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise unknown(f"value of --{option}", value, allowed)
