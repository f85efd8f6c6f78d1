"""``superb.run`` and ``superb.run_file``: encoders x tasks x layer choices → result files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from benchmark.core import Downstream, Upstream
from benchmark.encoding.arithmetic import AUTO as AUTO_PRECISION
from benchmark.encoding.arithmetic import faster_precision, require_precision
from benchmark.errors import SuperbError
from benchmark.jobs.cost import AUTO
from benchmark.jobs.dry_run import forecast, forecast_table
from benchmark.jobs.executors import Executor, InProcess, LocalWorkers
from benchmark.jobs.run import run_site
from benchmark.jobs.site import Encoder, Site, find_device
from benchmark.progress import Progress
from benchmark.protocol import Protocol
from benchmark.scoring.results import Result
from downstreams.corpora.load import how_to_get
from downstreams.load import load_downstream
from superb.compose import build_site, unbundled
from superb.run_files import read_run_file
from superb.spec import RunSpec
from upstreams.catalogue import UPSTREAMS

T = TypeVar("T")


def run(
    upstream: str | Upstream | Sequence[str | Upstream],
    downstream: str | Downstream | Sequence[str | Downstream],
    *,
    corpus: str | object = "mini",
    data_root: str | Path | None = None,
    train_split: str | None = None,
    valid_split: str | None = None,
    test_split: str | None = None,
    protocol: str | Protocol = "mini",
    layers: str | Sequence[str] = ("last", "weighted-sum"),
    seeds: int = 1,
    output: str | Path = "results",
    cache_dir: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    storage: str = AUTO,
    on_bad_audio: str = "fail",
    channel: int | None = None,
    trust_remote_code: bool = False,
    lm: str | Path | None = None,
    lexicon: str | Path | None = None,
    pronunciations: str | Path | None = None,
    slots: Sequence[str] = (),
    head: str | Sequence[str] = (),
    labels: str | Sequence[str] = (),
    trials: str | Path | None = None,
    settings: Sequence[str] = (),
    checkpoint: str | Path | None = None,
    track: str | Sequence[str] = (),
    log_dir: str | Path | None = None,
    save_heads: bool = False,
    workers: int = 1,
    cluster: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """Score frozen encoders on tasks, with every layer choice, and write one result file each.

    What is finished already is read, not run again; what was interrupted goes on where it stopped.

    Args:
        upstream: names, paths or objects (see `superb.load_upstream`); one or several.
        downstream: names, ``all``, ``path.py:Name`` or objects (see `superb.load_downstream`); one
            or several.
        corpus: a name, ``hf:`` or ``hf-stream:`` with a Hugging Face dataset, a manifest (CSV,
            TSV, JSONL, Parquet), ``path.py:name`` or an object (see `superb.load_corpus`).
        data_root: folder of a corpus that has a name and is not bundled.
        train_split: which of the corpus's own splits to train on, several joined by ``+``; the
            official one if None. Likewise `valid_split` and `test_split`.
        valid_split: to choose on.
        test_split: to report on.
        protocol: a name, a TOML file, or a `Protocol`.
        layers: ``last``, ``weighted-sum``, ``weighted-sum-norm``, an index, ``each``.
        seeds: how many whole reruns, each with its own weights, dropout, masks and order of the
            data; 3 or more for anything published.
        output: folder of result files.
        cache_dir: folder of stored features; ``$SUPERB_CACHE`` or ``~/.cache/superb`` if None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: arithmetic of the encoder: ``float32``, ``bfloat16``, or ``auto``, what is
            faster on this device; the result says which.
        storage: of features: ``float16``, ``float32``, ``int8``, ``none`` (frames are encoded anew
            whenever they are needed), or ``auto``: float16 if it fits on the disk, else int8 if
            that does, else none; earlier results of the same command decide before that.
        on_bad_audio: ``fail``, or ``skip`` and list them in the result.
        channel: the channel that is heard, counted from 0; the mean of all if None.
        trust_remote_code: let a checkpoint run the Python code it brings; its result says so.
        lm: a word n-gram model (ARPA or KenLM binary) that transcripts of test are decoded with
            as well, for the metric ``wer_lm``; needs the extra ``superb[lm]``.
        lexicon: the words that this can find, one per line; those of an ARPA model if None.
        pronunciations: for what needs phones, ``pr`` and the heads ``hmm`` and ``gmm-hmm``, on
            utterances with a text: a file, a word and its phones in each line; if None, the phones
            that the corpus has, or those of the CMU Pronouncing Dictionary. ``letters`` has the
            heads take letters for phones.
        head: by which of several heads ``asr`` is done: ``ctc`` (as if none is named),
            ``attention``, ``transducer``, ``hmm``, ``gmm-hmm``, or one of your own.
        labels: how much of train the heads are told the labels of, ``10min``, ``1h`` or ``all``;
            each rerun has other utterances.
        slots: the columns that hold the labels of ``ic``, where not action, object and location.
        trials: for ``asv``, a list of the test utterances that are compared, ``1 ONE OTHER`` (one
            person) or ``0 ONE OTHER`` in each line; those of the corpus, or pairs of all, if None.
        settings: of the model in a training file, for what it does not say: ``normalize=true``.
        checkpoint: the training file with the weights of the one upstream.
        track: who is told of curves and scores while they come: ``tensorboard``, ``trackio`` or
            ``wandb``; one or several.
        log_dir: folder that they keep files in, each in its own place if None; given alone, it is
            TensorBoard's.
        save_heads: keep the heads of the chosen learning rate beside each result, one of each
            seed, for `superb.load_head`; scores stay as they are.
        workers: processes on this machine that share the jobs; in this one if 1.
        cluster: address of a Ray cluster that does the jobs, or ``auto``; needs
            ``superb[cluster]``.
        dry_run: show the jobs, what is done, and what the rest would take; score nothing.
        progress: where to report; standard error by default.

    Returns:
        One result per upstream, task and layer choice, in that order.

    Raises:
        SuperbError: for anything wrong with the input.
    """
    spec = RunSpec(
        upstream=_several(upstream),
        downstream=_several(downstream),
        corpus=corpus,
        data_root=_path(data_root),
        train_split=train_split,
        valid_split=valid_split,
        test_split=test_split,
        protocol=protocol,
        layers=_several(layers),
        seeds=seeds,
        output=Path(output),
        cache_dir=_path(cache_dir),
        device=device,
        precision=precision,
        storage=storage,
        on_bad_audio=on_bad_audio,
        channel=channel,
        trust_remote_code=trust_remote_code,
        lm=_path(lm),
        lexicon=_path(lexicon),
        pronunciations=_path(pronunciations),
        slots=_several(slots),
        head=_several(head),
        labels=_several(labels),
        trials=_path(trials),
        settings=_several(settings),
        checkpoint=_path(checkpoint),
        track=_several(track),
        log_dir=_path(log_dir),
        save_heads=save_heads,
        workers=workers,
        cluster=cluster,
    )
    (results,) = run_specs([spec], dry_run=dry_run, progress=progress)
    return results


def run_file(
    path: str | Path, *, dry_run: bool = False, progress: Progress | None = None
) -> list[Result]:
    """Do all runs of a file, which is TOML with the options of ``superb run``.

    Args:
        path: the file; docs/experiments.md says what may stand in it.
        dry_run: show the jobs, what is done, and what the rest would take; score nothing.
        progress: where to report; standard error by default.

    Returns:
        The results of each run of it, as `run` gives them, one after another.

    Raises:
        SuperbError: for anything wrong with the file, with its line, or with what it names.
    """
    specs = [asked.spec() for asked in read_run_file(Path(path).expanduser())]
    found = run_specs(specs, dry_run=dry_run, progress=progress)
    return [result for results in found for result in results]


def run_specs(
    specs: Sequence[RunSpec], *, dry_run: bool = False, progress: Progress | None = None
) -> list[list[Result]]:
    """Do several runs, once it is sure that all of them can be done.

    Args:
        specs: the runs; an encoder that several have is loaded once.
        dry_run: show the jobs, what is done, and what the rest would take; score nothing.
        progress: where to report; standard error by default.

    Returns:
        The results of each run; none of a dry one.

    Raises:
        SuperbError: for anything wrong with the input.
    """
    progress = progress or Progress()
    ready: list[tuple[RunSpec, Executor, Site]] = []
    loaded: dict[object, Encoder] = {}
    for asked in specs:
        with _of_file(asked):
            spec = _settled(asked, progress)
            executor = _executor(spec, progress)
            for task in unbundled(spec.downstream, spec.corpus):
                progress.warn(f"{task} is left out: {how_to_get(load_downstream(task).card)}")
            ready.append((spec, executor, build_site(spec, progress, loaded=loaded)))
    if dry_run:
        sites = [site for _, _, site in ready]
        Console(emoji=False, highlight=False).print(forecast_table(forecast(sites, progress)))
        return [[] for _ in ready]
    results = []
    for spec, executor, site in ready:
        if len(ready) > 1 and spec.file is not None:
            progress.note(spec.file.place)
        results.append(run_site(site, executor, progress))
    return results


@contextmanager
def _of_file(spec: RunSpec) -> Iterator[None]:
    """Name the place in a file of what is wrong with a run."""
    try:
        yield
    except SuperbError as error:
        if spec.file is None:
            raise
        raise SuperbError(f"{spec.file.place}: {error}") from error


def _settled(spec: RunSpec, progress: Progress) -> RunSpec:
    """The same with what is found out once: workers would perhaps find something else."""
    _require_writable(spec.output)
    track = spec.track
    if spec.log_dir is not None:
        _require_writable(spec.log_dir, "logs", "--log-dir")
        track = track or ("tensorboard",)
    device = find_device(spec.device)
    require_precision(spec.precision)
    precision = spec.precision
    if precision == AUTO_PRECISION:
        precision, why = faster_precision(device)
        progress.note(f"precision {precision}: {why}")
    upstream = _with_checkpoint(spec.upstream, spec.checkpoint)
    return replace(
        spec, upstream=upstream, checkpoint=None, track=track, device=device, precision=precision
    )


def _with_checkpoint(
    upstreams: tuple[str | Upstream, ...], checkpoint: Path | None
) -> tuple[str | Upstream, ...]:
    """The encoders asked for, the one there is with the file of its weights."""
    if checkpoint is None:
        return upstreams
    if len(upstreams) != 1:
        raise SuperbError(
            f"--checkpoint is the file of one --upstream; got {', '.join(map(str, upstreams))}. "
            f"Several: --upstream {upstreams[0]}:{checkpoint},…"
        )
    if not isinstance(upstreams[0], str) or upstreams[0] not in UPSTREAMS:
        raise SuperbError(
            f"--checkpoint goes with an --upstream that superb upstreams lists, such as "
            f"av-hubert-base; got {upstreams[0]}. A file by itself: --upstream {checkpoint}"
        )
    return (f"{upstreams[0]}:{checkpoint}",)


def _executor(spec: RunSpec, progress: Progress) -> Executor:
    """Who does the jobs."""
    workers, cluster = spec.workers, spec.cluster
    if workers < 1:
        raise SuperbError(f"--workers must be at least 1, got {workers}")
    if cluster is not None and workers > 1:
        raise SuperbError("--workers is for this machine, --cluster for others; give one of them")
    build = partial(build_site, spec)
    if cluster is not None:
        from benchmark.jobs.cluster import Cluster

        return Cluster.connect(cluster, build, progress)
    return InProcess() if workers == 1 else LocalWorkers(build, workers)


def _several(given: T | Sequence[T]) -> tuple[T, ...]:
    """One or several, as several."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        return (given,)
    return tuple(given)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


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
