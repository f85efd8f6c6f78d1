"""``superb run`` and ``superb plan``: encoders x tasks, or what that would cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmark.errors import SuperbError
from superb.commands.options import (
    CacheDir,
    FileSettings,
    Heads,
    LayerChoices,
    Storage,
    Tasks,
    complete_corpus,
    complete_upstream,
    several,
)


def run(
    upstream: Annotated[
        list[str],
        typer.Option(
            "--upstream",
            "-u",
            help="Encoder, or several with commas: a name (superb upstreams), a folder, "
            "org/model\\[@revision], file.py:Name, package.module:Name, untrained:NAME.",
            autocompletion=complete_upstream,
        ),
    ],
    downstream: Tasks,
    layers: LayerChoices = "last,weighted-sum",
    corpus: Annotated[
        str,
        typer.Option(
            help="A name (superb corpora), hf:org/name\\[:config]\\[@revision] (hf-stream: "
            "leaves it on the hub), hf:/folder, your manifest (CSV, TSV, JSONL, Parquet), or "
            "my_corpus.py:load.",
            autocompletion=complete_corpus,
        ),
    ] = "mini",
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of a corpus that has a name and is not bundled.")
    ] = None,
    train_split: Annotated[
        str | None,
        typer.Option(help="The corpus's own split to train on, several joined by +."),
    ] = None,
    valid_split: Annotated[str | None, typer.Option(help="Likewise, to choose on.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Likewise, to report on.")] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="Every value of training and selection: mini, superb, superb-whole, "
            "superb-s3prl, or a TOML file."
        ),
    ] = "mini",
    seeds: Annotated[int, typer.Option(help="Seeds per probe; 3 for anything published.")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results.")] = Path(
        "results"
    ),
    cache_dir: CacheDir = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Arithmetic of the encoder: float32, bfloat16, auto.")
    ] = "float32",
    lm: Annotated[
        Path | None,
        typer.Option("--lm", help="N-gram model (ARPA, KenLM) to decode transcripts with as well."),
    ] = None,
    lexicon: Annotated[
        Path | None, typer.Option(help="Words that it can find, one per line.")
    ] = None,
    pronunciations: Annotated[
        Path | None,
        typer.Option(
            help="pr, heads of hmm: a word and its phones per line; else CMU's. Or letters."
        ),
    ] = None,
    slots: Annotated[
        str,
        typer.Option(
            help="ic on own data: columns of the labels, with commas; else action,object,location."
        ),
    ] = "",
    head: Heads = "",
    labels: Annotated[
        str,
        typer.Option(help="Of how much of train labels are used: 10min, 1h, all, with commas."),
    ] = "",
    trials: Annotated[
        Path | None,
        typer.Option(help="asv: pairs of test utterances, 1 ONE OTHER or 0 ONE OTHER per line."),
    ] = None,
    log_dir: Annotated[Path | None, typer.Option(help="Folder of logs for TensorBoard.")] = None,
    storage: Storage = "auto",
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show what features would cost on disk, and stop.")
    ] = False,
    on_bad_audio: Annotated[
        str, typer.Option(help="fail, or skip and list what was left out in the result.")
    ] = "fail",
    channel: Annotated[
        int | None,
        typer.Option(help="The channel to hear, counted from 0; the mean of all if none is given."),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Let a checkpoint run its own Python code."),
    ] = False,
    settings: FileSettings = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Training file with the weights of the one --upstream."),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes on this machine that share the jobs.")
    ] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(help="Ray cluster that does the jobs: auto, or ray://host:10001."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result records instead of a table.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")
    ] = False,
) -> None:
    """Score frozen encoders on tasks: last layer beside the weighted sum, with intervals.

    The same command again skips what is finished and takes up what was interrupted. Ends with 1 if
    training failed at every learning rate of some score, or a task has no bundled corpus.
    """
    from benchmark.progress import Progress
    from superb.compose import unbundled
    from superb.running import run as run_all
    from superb.summary import print_summary

    results = run_all(
        _with_checkpoint(several(upstream), checkpoint),
        several(downstream),
        corpus=corpus,
        data_root=data_root,
        train_split=train_split,
        valid_split=valid_split,
        test_split=test_split,
        protocol=protocol,
        layers=several([layers]),
        seeds=seeds,
        output=output,
        cache_dir=cache_dir,
        device=device,
        precision=precision,
        lm=lm,
        lexicon=lexicon,
        pronunciations=pronunciations,
        slots=several([slots]),
        head=several([head]),
        labels=several([labels]),
        trials=trials,
        log_dir=log_dir,
        storage=storage,
        plan_only=plan_only,
        on_bad_audio=on_bad_audio,
        channel=channel,
        trust_remote_code=trust_remote_code,
        settings=settings or (),
        workers=workers,
        cluster=cluster,
        progress=Progress(quiet),
    )
    if plan_only:
        return
    if as_json:
        from dataclasses import asdict

        from benchmark.scoring.results import shown_result

        print(json.dumps([asdict(shown_result(result)) for result in results], indent=1))
    else:
        print_summary(results, output, Console(emoji=False))
    failed = any(result.status == "failed" for result in results)
    if failed or unbundled(several(downstream), corpus):
        raise typer.Exit(1)


def plan(
    upstream: Annotated[
        str,
        typer.Option(
            "--upstream",
            "-u",
            help="A name, a folder, or org/model.",
            autocompletion=complete_upstream,
        ),
    ],
    hours: Annotated[float, typer.Option(help="Audio of the corpus, all splits together.")],
    utterances: Annotated[int, typer.Option(help="Recordings in it.")],
    downstream: Tasks,
    layers: LayerChoices = "last,weighted-sum",
    head: Heads = "",
    protocol: Annotated[str, typer.Option(help="mini, superb, or a TOML file.")] = "superb",
    storage: Storage = "auto",
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Its architecture alone; no checkpoint is needed."),
    ] = False,
    nodes: Annotated[
        int | None, typer.Option(help="Price all jobs of a run on so many machines like this.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds per probe, for --nodes.")] = 1,
    cache_dir: CacheDir = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
) -> None:
    """Price a run on a corpus of some size, from measured speeds; it need not be there."""
    from benchmark.jobs.cost import plan_table
    from benchmark.progress import Progress
    from superb.plan import Question, plan_for

    plan, price = plan_for(
        Question(
            upstream,
            several(downstream),
            hours,
            utterances,
            protocol=protocol,
            layers=several([layers]),
            storage=storage,
            cache_dir=cache_dir,
            device=device,
            precision=precision,
            random_weights=random_weights,
            nodes=nodes,
            seeds=seeds,
            heads=several([head]),
        ),
        Progress(),
    )
    console = Console(emoji=False)
    console.print(plan_table(plan))
    if price is not None:
        from benchmark.jobs.price import price_table

        console.print(price_table(price))


def _with_checkpoint(upstreams: list[str], checkpoint: Path | None) -> list[str]:
    """The encoders asked for, the one there is with the file of its weights."""
    if checkpoint is None:
        return upstreams
    from upstreams.catalogue import UPSTREAMS

    if len(upstreams) != 1:
        raise SuperbError(
            f"--checkpoint is the file of one --upstream; got {', '.join(upstreams)}. Several: "
            f"--upstream {upstreams[0]}:{checkpoint},…"
        )
    if upstreams[0] not in UPSTREAMS:
        raise SuperbError(
            f"--checkpoint goes with an --upstream that superb upstreams lists, such as "
            f"av-hubert-base; got {upstreams[0]}. A file by itself: --upstream {checkpoint}"
        )
    return [f"{upstreams[0]}:{checkpoint}"]
