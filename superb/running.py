"""``superb.run``: encoders x tasks x layer choices → result files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmark.core import Downstream, Upstream
from benchmark.encoding.arithmetic import AUTO as AUTO_PRECISION
from benchmark.encoding.arithmetic import faster_precision, require_precision
from benchmark.errors import SuperbError
from benchmark.jobs.cost import AUTO, plan_run, plan_table
from benchmark.jobs.executors import Executor, InProcess, LocalWorkers
from benchmark.jobs.plan import make_plan
from benchmark.jobs.run import extractions, run_site
from benchmark.jobs.site import find_device
from benchmark.progress import Progress
from benchmark.scoring.results import Result
from downstreams.corpora.load import how_to_get
from downstreams.load import load_downstream
from superb.compose import RunSpec, build_site, unbundled

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
    protocol: str = "mini",
    layers: str | Sequence[str] = ("last", "weighted-sum"),
    seeds: int = 1,
    output: str | Path = "results",
    cache_dir: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    storage: str = AUTO,
    on_bad_audio: str = "fail",
    channel: int | None = None,
    plan_only: bool = False,
    trust_remote_code: bool = False,
    lm: str | Path | None = None,
    lexicon: str | Path | None = None,
    pronunciations: str | Path | None = None,
    slots: Sequence[str] = (),
    head: str | Sequence[str] = (),
    labels: str | Sequence[str] = (),
    trials: str | Path | None = None,
    settings: Sequence[str] = (),
    log_dir: str | Path | None = None,
    workers: int = 1,
    cluster: str | None = None,
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
        protocol: a name, or a TOML file.
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
        plan_only: show what features would cost, and score nothing.
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
        log_dir: folder of logs for TensorBoard; none if None.
        workers: processes on this machine that share the jobs; in this one if 1.
        cluster: address of a Ray cluster that does the jobs, or ``auto``; needs
            ``superb[cluster]``.
        progress: where to report; standard error by default.

    Returns:
        One result per upstream, task and layer choice, in that order.

    Raises:
        SuperbError: for anything wrong with the input.
    """
    progress = progress or Progress()
    splits = {"train": train_split, "valid": valid_split, "test": test_split}
    # both are settled once: what workers would find may be another
    place = find_device(device)
    require_precision(precision)
    if precision == AUTO_PRECISION:
        precision, why = faster_precision(place)
        progress.note(f"precision {precision}: {why}")
    spec = RunSpec(
        upstreams=_several(upstream),
        downstreams=_several(downstream),
        corpus=corpus,
        data_root=_folder(data_root),
        splits=tuple((split, own) for split, own in splits.items() if own is not None),
        protocol=protocol,
        layers=_several(layers),
        seeds=seeds,
        output=Path(output),
        cache_dir=_folder(cache_dir),
        device=place,
        precision=precision,
        storage=storage,
        on_bad_audio=on_bad_audio,
        trust_remote_code=trust_remote_code,
        lm=_folder(lm),
        lexicon=_folder(lexicon),
        pronunciations=_folder(pronunciations),
        trials=_folder(trials),
        settings=tuple(settings),
        log_dir=_folder(log_dir),
        channel=channel,
        slots=tuple(slots),
        heads=_several(head),
        labels=_several(labels),
    )
    _require_writable(spec.output)
    if spec.log_dir is not None:
        _require_writable(spec.log_dir, "logs", "--log-dir")
    executor = _executor(spec, workers, cluster, progress)
    for task in unbundled(spec.downstreams, spec.corpus):
        progress.warn(f"{task} is left out: {how_to_get(load_downstream(task).card)}")
    site = build_site(spec, progress)
    if plan_only:
        for extraction, reason in extractions(site, make_plan(site, progress)):
            progress.console.print(plan_table(plan_run(extraction, reason)))
        return []
    return run_site(site, executor, progress)


def _executor(spec: RunSpec, workers: int, cluster: str | None, progress: Progress) -> Executor:
    """Who does the jobs."""
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


def _folder(path: str | Path | None) -> Path | None:
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
