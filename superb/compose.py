"""What was typed becomes what runs. Strings become objects here and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol as TypingProtocol
from typing import runtime_checkable

from benchmark.core import Corpus, Downstream, Upstream
from benchmark.encoding.cache import cache_folder
from benchmark.encoding.features import ExtractionSettings
from benchmark.encoding.packing import STORAGES
from benchmark.errors import SuperbError, unknown
from benchmark.identity import source_sha256
from benchmark.jobs.cost import AUTO
from benchmark.jobs.site import Encoder, Partition, Site, Task, find_device, prepare_encoder
from benchmark.probing.layers import expand
from benchmark.progress import Messages, Progress
from benchmark.protocol import LanguageModel, Protocol, load_protocol
from downstreams import DOWNSTREAMS, PROTOCOLS
from downstreams.corpora import CorpusOptions
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream
from upstreams.loading.load import load_upstream


@dataclass(frozen=True)
class RunSpec:
    """A run as it was asked for; see `superb.run` for what each value means."""

    upstreams: tuple[str | Upstream, ...]
    downstreams: tuple[str | Downstream, ...]
    corpus: str | object
    data_root: Path | None
    splits: tuple[tuple[str, str], ...]
    protocol: str
    layers: tuple[str, ...]
    seeds: int
    output: Path
    cache_dir: Path | None
    device: str
    precision: str
    storage: str
    on_bad_audio: str
    trust_remote_code: bool
    lm: Path | None
    lexicon: Path | None
    log_dir: Path | None
    channel: int | None = None

    @property
    def options(self) -> CorpusOptions:
        """Where the corpus lies, and which of its splits are wanted."""
        return CorpusOptions(self.data_root, dict(self.splits))


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


def build_site(spec: RunSpec, progress: Progress | None = None) -> Site:
    """Resolve every name of a run before the first second of work.

    Args:
        spec: what was asked for.
        progress: where notes on encoders go; nowhere if None.

    Raises:
        SuperbError: for anything that does not exist or does not fit.
    """
    progress = progress or Messages()
    _require("precision", spec.precision, ("float32", "bfloat16"))
    _require("storage", spec.storage, (AUTO, *STORAGES))
    _require("on-bad-audio", spec.on_bad_audio, ("fail", "skip"))
    if spec.channel is not None and spec.channel < 0:
        raise SuperbError(f"channels are counted from 0; got --channel {spec.channel}")
    if spec.seeds < 1:
        raise SuperbError(f"seeds must be at least 1, got {spec.seeds}")
    if not spec.upstreams:
        raise SuperbError("no upstream given; superb upstreams lists those with a name")
    settings = ExtractionSettings(
        spec.cache_dir or cache_folder(),
        find_device(spec.device),
        spec.precision,
        spec.storage,
        spec.on_bad_audio,
        spec.channel,
    )
    tasks = prepare_tasks(spec, settings.cache_dir)
    encoders: dict[str, Encoder] = {}
    for item in spec.upstreams:
        upstream = load_upstream(item, spec.trust_remote_code) if isinstance(item, str) else item
        encoder = prepare_encoder(upstream, settings.device, progress)
        expand(spec.layers, encoder.card.layers)
        known = [
            other.fingerprint for other in encoders.values() if other.card.name == encoder.card.name
        ]
        if encoder.fingerprint not in known:
            name = encoder.card.name
            label = f"{name} @{encoder.fingerprint[:8]}" if name in encoders else name
            encoders[label] = encoder
    return Site(encoders, tasks, spec.layers, spec.seeds, spec.output, settings, spec.log_dir)


def prepare_tasks(spec: RunSpec, cache_dir: Path) -> dict[str, Task]:
    """Resolve tasks, their corpora and their training values.

    Raises:
        SuperbError: for an unknown task, corpus or protocol, or a corpus that does not fit.
    """
    wanted = list(DOWNSTREAMS) if "all" in spec.downstreams else list(spec.downstreams)
    if not wanted:
        raise SuperbError(f"no task given; choose from {', '.join(DOWNSTREAMS)}, or all")
    rules = load_protocol(spec.protocol, PROTOCOLS)
    tasks: dict[str, Task] = {}
    for item in wanted:
        task = prepare_task(load_downstream(item), spec, rules, cache_dir)
        if task.name in tasks and tasks[task.name].source != task.source:
            raise SuperbError(f"two tasks are called {task.name!r}; rename one on its card")
        tasks[task.name] = task
    if spec.lm is not None:
        return _with_language_model(tasks, spec.lm, spec.lexicon)
    if spec.lexicon is not None:
        raise SuperbError("--lexicon gives the words for a language model; give one with --lm FILE")
    return tasks


def prepare_task(downstream: Downstream, spec: RunSpec, rules: Protocol, cache_dir: Path) -> Task:
    """A task with its corpus and its training values."""
    card = downstream.card
    training = rules.training(card.name, card.features, downstream.training)
    if training.crop_s and "text" in card.needs:
        raise SuperbError(
            f"protocol {rules.name}, [{card.name}]: crop_s must be 0, since a crop of an utterance "
            f"does not have its transcript; got {training.crop_s:g}"
        )
    corpus: Corpus = load_corpus(spec.corpus, card, spec.options)
    partitions = {
        fold: Partition(part, downstream.vocabulary(part.split("train")), downstream)
        for fold, part in corpus.partitions().items()
    }
    return Task(
        downstream, corpus, rules, training, partitions, cache_dir, source=_source(downstream)
    )


def _source(downstream: Downstream) -> str:
    """What tells a task from others of its name and version; "" for one of ours as it stands."""
    found = source_sha256(downstream)
    if downstream.card.name not in DOWNSTREAMS:
        return found
    return "" if source_sha256(load_downstream(downstream.card.name)) == found else found


def _with_language_model(
    tasks: Mapping[str, Task], model: Path, lexicon: Path | None
) -> dict[str, Task]:
    """The same tasks, those with transcripts scored with a language model too."""
    if not any(isinstance(task.downstream, DecodesWords) for task in tasks.values()):
        raise SuperbError(
            f"--lm is for tasks with transcripts, such as asr; got {', '.join(tasks)}"
        )
    lm = {"model": _file_sha256(model, "--lm")}
    if lexicon is not None:
        lm["lexicon"] = _file_sha256(lexicon, "--lexicon")
    scored = dict(tasks)
    for name, task in tasks.items():
        decoder = task.downstream
        if not isinstance(decoder, DecodesWords):
            continue
        settings = task.training.lm
        if settings is None:
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
        scored[name] = replace(task, partitions=partitions, lm=lm)
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
