"""What `superb bench` is asked for: names of measurements, encoders and a device become reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmark.encoding.arithmetic import PRECISIONS
from benchmark.encoding.cache import cache_folder, free_bytes
from benchmark.encoding.features import ExtractionSettings
from benchmark.errors import SuperbError, unknown
from benchmark.jobs.price import TaskWork
from benchmark.jobs.site import find_device
from benchmark.progress import Progress
from benchmark.protocol import load_protocol
from downstreams import PROTOCOLS
from downstreams.corpora import BUNDLED, CorpusOptions
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream
from superb.bench import show
from superb.bench.encoder import SECONDS, compare
from superb.bench.extract import measure_extraction, sample
from superb.bench.probe import made_up_material, material_of, measure_updates
from superb.bench.run import project_runs
from superb.bench.timing import threads
from superb.plan import load_encoder

ENCODER, EXTRACT, PROBE, RUN = "encoder", "extract", "probe", "run"
WHAT: Final = (ENCODER, EXTRACT, PROBE, RUN)


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Attributes:
        upstreams: names, folders, or hub ids.
        what: some of `WHAT`.
        device: where.
        precisions: of the encoder's arithmetic.
        rounds: timings of each; the median counts.
        cores: threads of torch; as they are if None.
        random_weights: take architectures alone.
        seconds: lengths of utterance, for `ENCODER`.
        downstream: the task whose corpus is extracted and whose head trains.
        corpus: of it; `mini` if None, and for protocols other than that made up.
        data_root: folder of a corpus that has a name and is not bundled.
        minutes: of audio that is extracted; what keeps the device busy if None.
        protocols: whose updates are taken apart.
        cache_dir: the folder of features, whose disk is used; the usual one if None.
    """

    upstreams: Sequence[str]
    what: Sequence[str] = (ENCODER,)
    device: str = "cpu"
    precisions: Sequence[str] = PRECISIONS
    rounds: int = 5
    cores: int | None = None
    random_weights: bool = False
    seconds: Sequence[float] = SECONDS
    downstream: str = "asr"
    corpus: str | None = None
    data_root: Path | None = None
    minutes: float | None = None
    protocols: Sequence[str] = ("mini",)
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if not (self.upstreams and self.what and self.precisions and self.protocols):
            raise SuperbError("give at least one upstream, measurement, precision and protocol")
        for name in self.what:
            if name not in WHAT:
                raise unknown("value of --what", name, WHAT)
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise unknown("value of --precision", precision, PRECISIONS)
        if self.rounds < 1 or (self.cores is not None and self.cores < 1):
            raise SuperbError(
                f"--rounds and --threads are at least 1; got {self.rounds} and {self.cores}"
            )
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise SuperbError(f"--minutes must be positive; got {self.minutes:g}")


@dataclass(frozen=True)
class Report:
    """One table, and what is in it as records."""

    table: Table
    records: list[dict[str, Any]]


def measure(asked: Asked, progress: Progress) -> list[Report]:
    """Measure all that was asked for.

    Raises:
        SuperbError: a name is unknown, the device cannot be used, or a value is out of range.
    """
    device = find_device(asked.device)
    work = {ENCODER: _encoders, EXTRACT: _extractions, PROBE: _probes, RUN: _runs}
    with threads(asked.cores):
        return [report for what in asked.what for report in work[what](asked, device, progress)]


def _encoders(asked: Asked, device: str, progress: Progress) -> list[Report]:
    found = [
        compare(
            name,
            asked.random_weights,
            asked.seconds,
            asked.precisions,
            asked.rounds,
            device,
            progress.note,
        )
        for name in asked.upstreams
    ]
    return [
        Report(show.encoder_table(one), _records(ENCODER, device, [asdict(one)])) for one in found
    ]


def _extractions(asked: Asked, device: str, progress: Progress) -> list[Report]:
    card = load_downstream(asked.downstream).card
    corpus = asked.corpus or BUNDLED
    every = load_corpus(corpus, card, CorpusOptions(asked.data_root)).utterances
    utterances = sample(every, asked.minutes, device)
    settings = ExtractionSettings(_folder(asked), device)
    found = [
        row
        for name in asked.upstreams
        for row in measure_extraction(
            name,
            utterances,
            card.features,
            asked.precisions,
            settings,
            random_weights=asked.random_weights,
            rounds=asked.rounds,
            progress=progress,
        )
    ]
    table = show.extract_table(found, corpus, len(utterances), device)
    return [Report(table, _records(EXTRACT, device, map(show.extract_record, found)))]


def _probes(asked: Asked, device: str, progress: Progress) -> list[Report]:
    task = load_downstream(asked.downstream)
    found = []
    for name in asked.upstreams:
        card = load_encoder(name, asked.random_weights, "cpu", progress).card
        for protocol in asked.protocols:
            rules = load_protocol(protocol, PROTOCOLS)
            if asked.corpus or rules.name == BUNDLED:
                options = CorpusOptions(asked.data_root)
                material = material_of(task, asked.corpus or BUNDLED, options, _folder(asked))
            else:
                material = made_up_material(task)
            own = task.card
            training = rules.training(own.name, own.features, task.training, own.base)
            progress.note(f"{card.name}: updates of {own.name} by protocol {rules.name}")
            found.append(
                measure_updates(
                    card,
                    TaskWork(task, training),
                    rules.name,
                    material,
                    _folder(asked),
                    device=device,
                    rounds=asked.rounds,
                )
            )
    records = _records(PROBE, device, map(show.probe_record, found))
    return [Report(show.probe_table(found), records)]


def _runs(asked: Asked, device: str, progress: Progress) -> list[Report]:
    found = []
    for name in asked.upstreams:
        encoder = load_encoder(name, asked.random_weights, device, progress)
        for precision in asked.precisions:
            found += project_runs(
                encoder, name, precision, _folder(asked), rounds=asked.rounds, progress=progress
            )
    records = _records(RUN, device, map(show.run_record, found))
    return [Report(show.run_table(found, device), records)]


def _folder(asked: Asked) -> Path:
    """The folder of features, which is there."""
    folder = asked.cache_dir or cache_folder()
    free_bytes(folder)
    return folder


def _records(what: str, device: str, found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"what": what, "device": device, **values} for values in found]
