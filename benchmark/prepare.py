"""What was typed becomes what runs: tasks with their data and rules, encoders on their devices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol as TypingProtocol
from typing import runtime_checkable

import torch

from benchmark.core import Corpus, Downstream, Upstream, UpstreamCard, Utterance
from benchmark.encoding.cache import cache_folder
from benchmark.encoding.fingerprint import count_parameters, fingerprint, modules_of
from benchmark.encoding.macs import macs_per_second
from benchmark.encoding.recordings import durations
from benchmark.encoding.takes import takes
from benchmark.errors import SuperbError, UpstreamError
from benchmark.processes import ALONE, Processes
from benchmark.progress import Progress
from benchmark.protocol import LanguageModel, Protocol, Training, load_protocol
from downstreams import DOWNSTREAMS, PROTOCOLS, find_downstream, load_downstream
from downstreams.corpora import CorpusOptions, load_corpus
from upstreams.loading.load import load_upstream


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
        """Multiply-accumulate operations per second of audio; see `benchmark.encoding.macs`."""
        return macs_per_second(self.upstream, self.device)


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


def with_language_model(tasks: Sequence[Task], model: Path, lexicon: Path | None) -> list[Task]:
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
