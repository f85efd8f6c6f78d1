"""``superb run`` and ``superb plan``: encoders x tasks, or what that would cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from superb.commands.options import (
    TASKS,
    CacheDir,
    Device,
    FileSettings,
    Heads,
    LayerChoices,
    Quiet,
    RemoteCode,
    Storage,
    Tasks,
    complete_corpus,
    complete_upstream,
    several,
)

if TYPE_CHECKING:
    from benchmark.scoring.results import Result
    from superb.spec import RunSpec


def run(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Runs written down: TOML with these options as keys, which are overruled by what "
            "is typed (docs/experiments.md).",
            show_default=False,
        ),
    ] = None,
    upstream: Annotated[
        list[str] | None,
        typer.Option(
            "--upstream",
            "-u",
            help="Encoder, or several with commas: a name (superb upstreams), a folder, "
            "org/model\\[@revision], file.py:Name, package.module:Name, untrained:NAME.",
            autocompletion=complete_upstream,
        ),
    ] = None,
    downstream: Annotated[list[str] | None, TASKS] = None,
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
    device: Device = "auto",
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
    track: Annotated[
        str,
        typer.Option(help="Show curves and scores in tensorboard, trackio or wandb, with commas."),
    ] = "",
    log_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of what --track writes; given alone, TensorBoard's."),
    ] = None,
    save_heads: Annotated[
        bool,
        typer.Option("--save-heads", help="Keep trained heads beside results, for superb predict."),
    ] = False,
    storage: Storage = "auto",
    on_bad_audio: Annotated[
        str, typer.Option(help="fail, or skip and list what was left out in the result.")
    ] = "fail",
    channel: Annotated[
        int | None,
        typer.Option(help="The channel to hear, counted from 0; the mean of all if none is given."),
    ] = None,
    trust_remote_code: RemoteCode = False,
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the jobs, what is done, and what the rest would take; stop."
        ),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print this command as a run file, and stop.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result records instead of a table.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Score frozen encoders on tasks: last layer beside the weighted sum, with intervals.

    The same command again skips what is finished and takes up what was interrupted. Ends with 1 if
    training failed at every learning rate of some score, or a task has no bundled corpus.
    """
    from benchmark.progress import Progress
    from superb.run_files import Asked, read_run_file, write_run_file

    progress = Progress(quiet)
    typed = _typed(context)
    asked = [Asked({})] if file is None else read_run_file(file)
    for key, value in typed.items():
        if any(own.values.get(key, value) != value for own in asked):
            progress.note(f"--{key} as typed overrules {file}")
    asked = [own.overruled(typed) for own in asked]
    if print_config:
        print(write_run_file(asked), end="")
        return
    from superb.compose import unbundled
    from superb.running import run_specs

    specs = [own.spec() for own in asked]
    results = run_specs(specs, dry_run=dry_run, progress=progress)
    if dry_run:
        return
    _show(specs, results, as_json)
    failed = any(result.status == "failed" for own in results for result in own)
    if failed or any(unbundled(spec.downstream, spec.corpus) for spec in specs):
        raise typer.Exit(1)


def _typed(context: typer.Context) -> dict[str, Any]:
    """The options that were typed, as a run file has them."""
    from superb.run_files import key_of
    from superb.spec import OPTIONS

    typed: dict[str, Any] = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if name not in OPTIONS or source is None or source.name != "COMMANDLINE":
            continue
        if str(OPTIONS[name].type).startswith("tuple"):
            given = [value] if isinstance(value, str) else list(value)
            value = given if name == "settings" else several(given)
        typed[key_of(name)] = str(value) if isinstance(value, Path) else value
    return typed


def _show(specs: Sequence[RunSpec], results: Sequence[Sequence[Result]], as_json: bool) -> None:
    """Print what came of each run; those alike but for encoders and tasks as one."""
    if as_json:
        from dataclasses import asdict

        from benchmark.scoring.results import shown_result

        records = [asdict(shown_result(result)) for own in results for result in own]
        print(json.dumps(records, indent=1))
        return
    from superb.summary import print_heads, print_summary

    alike: dict[tuple[Path, str], dict[str, Result]] = {}
    for spec, own in zip(specs, results, strict=True):
        key = (spec.output, repr((spec.corpus, spec.protocol, spec.seeds)))
        alike.setdefault(key, {}).update({result.run_id: result for result in own})
    for (output, _), found in alike.items():
        print_summary(list(found.values()), output, Console(emoji=False))
        if any(spec.save_heads for spec in specs):
            print_heads(list(found.values()), output)


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
    device: Device = "auto",
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
