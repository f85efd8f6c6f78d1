"""Where jobs are done: tasks with their data and rules, encoders on their devices, and the places.

A site is made of objects and lives in one process; jobs name what is in it. A worker elsewhere
builds its own from the same words, and `Site.digest` tells whether it is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmark.core import (
    SPLITS,
    Corpus,
    Downstream,
    DownstreamCard,
    Upstream,
    UpstreamCard,
    Utterance,
    hears_train,
)
from benchmark.encoding.features import Extraction, ExtractionSettings
from benchmark.encoding.fingerprint import (
    count_parameters,
    fingerprint,
    modules_of,
    weights_sha256,
)
from benchmark.encoding.gain import Amplified
from benchmark.encoding.macs import macs_per_second
from benchmark.encoding.recordings import durations
from benchmark.encoding.takes import takes
from benchmark.errors import SuperbError, UpstreamError
from benchmark.probing.budget import Budget
from benchmark.probing.layers import Mix, expand
from benchmark.progress import Progress
from benchmark.protocol import Protocol, Training
from benchmark.scoring.results import run_id
from benchmark.source import own_sources
from benchmark.tracking.courses import Courses

# Raised whenever training, selection or scoring changes a score that the protocol does not name.
ENGINE_VERSION = 1


@dataclass(frozen=True)
class Encoder:
    """An upstream with what the engine found out about it.

    Attributes:
        upstream: on its device.
        fingerprint: of its weights and code.
        weights_sha256: of its weights and settings alone; None where they cannot be hashed.
        parameters: how many, where that is known.
        device: where it computes.
        place: among the upstreams that were asked for, from 0.
        typed: how it was asked for, for whoever loads it again; None for an object.
    """

    upstream: Upstream
    fingerprint: str
    weights_sha256: str | None
    parameters: int | None
    device: str
    place: int = 0
    typed: Mapping[str, Any] | None = None

    @property
    def card(self) -> UpstreamCard:
        """Its card."""
        return self.upstream.card

    @cached_property
    def macs(self) -> float | None:
        """Multiply-accumulate operations per second of audio; see `benchmark.encoding.macs`."""
        return macs_per_second(self.upstream, self.device)


@dataclass(frozen=True)
class Partition:
    """A fold of a corpus, or all of it.

    Attributes:
        corpus: what is trained, chosen and tested on.
        vocabulary: the output symbols, from its train split.
        scorer: what is asked on test: the task, or the same with a language model.
    """

    corpus: Corpus
    vocabulary: tuple[str, ...]
    scorer: Downstream


@dataclass(frozen=True)
class Task:
    """One task on one corpus under one protocol, ready to run.

    Attributes:
        downstream: what is trained.
        corpus: with all its folds.
        protocol: the rules.
        training: those for this task.
        partitions: name of a fold, or "" → what it is.
        cache_dir: where lengths and hashes of recordings are remembered.
        lm: hashes of the language model and its lexicon; empty without.
        source: hash of a task that is not one of ours as it stands, whose version would not tell
            it from another; "" otherwise.
        budget: how much of train its heads are told the labels of; None for all.
        lexicon: hash of the phones of words that it recognises by; "" without.
        reruns: how many seeds its heads have; each has labels of its own in a budget.
        typed: how the task was asked for, for whoever loads it again; None for an object.
    """

    downstream: Downstream
    corpus: Corpus
    protocol: Protocol
    training: Training
    partitions: Mapping[str, Partition]
    cache_dir: Path
    lm: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    budget: Budget | None = None
    lexicon: str = ""
    reruns: int = 1
    typed: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Of the task, with its budget where it has one."""
        name = self.downstream.card.name
        return f"{name}-{self.budget.text}" if self.budget else name

    @property
    def card(self) -> DownstreamCard:
        """What a result says that it is."""
        card = self.scorer.card
        return replace(card, name=self.name, base=card.base or card.name) if self.budget else card

    def subset(self, fold: str, rerun: int) -> list[Utterance]:
        """The utterances of train that the heads of a rerun hear; other ones for each."""
        corpus = self.partitions[fold].corpus
        train = corpus.split("train")
        if self.budget is None:
            return train
        if published := corpus.subsets.get(self.budget.text):
            return self.budget.published(train, published[rerun % len(published)])
        return [train[place] for place in self.budget.subset(train, self.durations, rerun)]

    @property
    def labels(self) -> dict[str, Any]:
        """What tells its budget from another: seconds, and a hash of a published part."""
        if self.budget is None:
            return {}
        published = self.corpus.subsets.get(self.budget.text)
        mark = hashlib.sha256(repr(published).encode()).hexdigest() if published else ""
        return {"seconds": self.budget.seconds} | ({"published": mark} if mark else {})

    @property
    def scorer(self) -> Downstream:
        """What is asked on test; all folds are asked the same."""
        return next(iter(self.partitions.values())).scorer

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are heard: no train where nothing is learnt."""
        return SPLITS if hears_train(self.downstream) else SPLITS[1:]

    @cached_property
    def durations(self) -> Mapping[str, float]:
        """Utterance id → seconds, of those that may be cropped or left out."""
        if not self.training.crop_s and self.budget is None:
            return {}
        train = {
            utterance.id: utterance
            for partition in self.partitions.values()
            for utterance in partition.corpus.split("train")
        }
        return durations(train.values(), self.cache_dir)

    @cached_property
    def takes(self) -> Mapping[str, Mapping[str, tuple[Utterance, ...]]]:
        """Fold → utterance id → what of it is heard: in train perhaps crops, else the whole.

        Of train only what some rerun has the labels of.
        """
        found = {}
        for fold, partition in self.partitions.items():
            reruns = range(self.reruns if self.budget else 1)
            told = {u.id for rerun in reruns for u in self.subset(fold, rerun)}
            found[fold] = {
                utterance.id: self._takes(utterance)
                for utterance in partition.corpus.utterances
                if utterance.split in self.splits
                and (utterance.split != "train" or utterance.id in told)
            }
        return found

    def _takes(self, utterance: Utterance) -> tuple[Utterance, ...]:
        training = self.training
        if utterance.split != "train" or not training.crop_s:
            return (utterance,)
        return takes(utterance, self.durations[utterance.id], training.crop_s, training.crops)

    @property
    def heard(self) -> list[Utterance]:
        """All that passes the encoder, once."""
        found = {
            take.id: take
            for fold in self.takes.values()
            for group in fold.values()
            for take in group
        }
        return list(found.values())

    def kinds(self, mixes: Sequence[Mix]) -> list[str]:
        """The kinds of feature that its heads read for some layer mixes."""
        if self.downstream.card.features == "frames":
            return ["frames"]
        return ["mean", *(["mean-normalised"] if any(mix.normalised for mix in mixes) else [])]


Cell = tuple[str, str, str]
"""Encoder, task and layer choice: one result."""


@dataclass(frozen=True)
class Site:
    """All that jobs are done with.

    Attributes:
        encoders: name on the site → encoder.
        tasks: name → task.
        layers: layer choices.
        seeds: how many.
        output: folder of results.
        settings: of features; the storage of each encoder is settled by the plan.
        courses: what trackers are told of results that are under way.
        file: name and hash of the file that says what is run; empty without.
        cores: of the processor, for the heads of one job; None for all.
        save_heads: whether heads are kept beside their results.
    """

    encoders: Mapping[str, Encoder]
    tasks: Mapping[str, Task]
    layers: tuple[str, ...]
    seeds: int
    output: Path
    settings: ExtractionSettings
    courses: Courses = field(default_factory=Courses)
    file: Mapping[str, str] = field(default_factory=dict)
    cores: int | None = None
    save_heads: bool = False

    def mixes(self, encoder: str, task: str) -> dict[str, Mix]:
        """Layer choice → mix, for an encoder on a task."""
        trained = self.tasks[task].downstream.card.trained
        return expand(self.layers, self.encoders[encoder].card.layers, trained=trained)

    def cells(self, encoder: str) -> list[Cell]:
        """All results of an encoder, in order."""
        return [
            (encoder, task, layer) for task in self.tasks for layer in self.mixes(encoder, task)
        ]

    def seeds_of(self, task: str) -> list[int]:
        """The seeds of a task's heads; one where there is nothing to draw."""
        first = self.tasks[task].training.first_seed
        trained = self.tasks[task].downstream.card.trained
        return [first + index for index in range(self.seeds if trained else 1)]

    def identity(self, cell: Cell, storage: str) -> dict[str, Any]:
        """Everything a score depends on; its hash is the run's id."""
        name, task_name, layer = cell
        encoder, task = self.encoders[name], self.tasks[task_name]
        record = task.protocol.record(task.training)
        downstream = {"name": task_name, "version": task.downstream.card.version}
        seeds = self.seeds_of(task_name)
        identity = {
            "engine": ENGINE_VERSION,
            "upstream": {"name": encoder.card.name, "fingerprint": encoder.fingerprint},
            "downstream": downstream | ({"source": task.source} if task.source else {}),
            "corpus": {"name": task.corpus.name, "sha256": task.corpus.sha256},
            "protocol": {key: record[key] for key in ("name", "version", "sha256")},
            "layer": layer,
            "seeds": seeds,
            "precision": self.settings.precision,
            "storage": storage,
            "device": torch.device(self.settings.device).type,
            "on_bad_audio": self.settings.on_bad_audio,
        }
        # several seeds once shared the order of the data; one seed is what it was
        return (
            identity
            | ({"lm": dict(task.lm)} if task.lm else {})
            | ({"lexicon": task.lexicon} if task.lexicon else {})
            | ({"labels": task.labels} if task.budget else {})
            | ({"reruns": "whole"} if len(seeds) > 1 else {})
            | ({"channel": self.settings.channel} if self.settings.channel is not None else {})
        )

    def run_id(self, cell: Cell, storage: str) -> str:
        """The name of a run."""
        return run_id(self.identity(cell, storage))

    def extraction(
        self,
        encoder: str,
        wanted: Mapping[str, Sequence[str]],
        storage: str,
        gain_db: float = 0.0,
        layers: tuple[int, ...] | None = None,
    ) -> Extraction:
        """What some layer choices of some tasks need of an encoder.

        Args:
            encoder: its name on the site.
            wanted: task → its layer choices.
            storage: how features are kept.
            gain_db: what their audio is amplified by; the tasks share it.
            layers: the only layers that frames are kept of, None for all.
        """
        found = self.encoders[encoder]
        upstream, mark = found.upstream, found.fingerprint
        if gain_db:
            upstream, mark = Amplified(upstream, gain_db), f"{mark} {gain_db!r} dB"
        utterances: dict[str, list[Utterance]] = {}
        for name, choices in wanted.items():
            task, mixes = self.tasks[name], self.mixes(encoder, name)
            for kind in task.kinds([mixes[choice] for choice in choices]):
                utterances.setdefault(kind, []).extend(task.heard)
        settings = replace(self.settings, storage=storage)
        return Extraction(upstream, mark, utterances, settings, layers)

    @cached_property
    def digest(self) -> Mapping[str, str]:
        """What must be the same where the same jobs are done: part → hash."""
        parts = {
            **{f"upstream {name}": e.fingerprint for name, e in self.encoders.items()},
            **{f"corpus of {name}": task.corpus.sha256 for name, task in self.tasks.items()},
            **{
                f"rules of {name}": json.dumps(
                    [
                        task.protocol.record(task.training)["sha256"],
                        task.lm,
                        task.source,
                        task.lexicon,
                        task.labels,
                        task.reruns,
                    ]
                )
                for name, task in self.tasks.items()
            },
            "version of superb": own_sources(),
            "kind of device": torch.device(self.settings.device).type,
        }
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in parts.items()}


def prepare_encoder(upstream: object, device: str, progress: Progress) -> Encoder:
    """Take an upstream as it is, move it to its device and take its fingerprint.

    Raises:
        SuperbError: it is no upstream, or cannot be moved.
    """
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
    weights = weights_sha256(upstream)
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
    return Encoder(upstream, mark, weights, parameters, device)  # type: ignore[arg-type]


def head_device(downstream: Downstream, device: str) -> str:
    """Where the heads of a task compute, whose encoder does on a device.

    Heads over time means are too small for a card: launching costs more than computing.
    """
    return device if downstream.card.features == "frames" else "cpu"


def find_device(name: str) -> str:
    """The device behind ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        SuperbError: when it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
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
