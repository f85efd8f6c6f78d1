"""The command line. Every command imports what it needs when it runs, so ``--help`` is instant."""

from __future__ import annotations

import gc
import json
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import superb
from benchmark.errors import SuperbError
from benchmark.registry import packages
from superb.data import data_app

app = typer.Typer(
    name="superb",
    help="Benchmark self-supervised speech encoders: frozen layers, light heads, honest intervals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
export_app = typer.Typer(help="Results as a model card's metadata or as a table.")
cache_app = typer.Typer(help="List or clear stored features.", invoke_without_command=True)
app.add_typer(cache_app, name="cache")
app.add_typer(data_app, name="data")
app.add_typer(export_app, name="export")

CacheDir = Annotated[
    Path | None,
    typer.Option(help="Folder of stored features; $SUPERB_CACHE or ~/.cache/superb if not given."),
]
Storage = Annotated[
    str,
    typer.Option(
        help="How features are kept: float16, float32, int8, none (encoded anew each time), or "
        "auto: the first of float16, int8 and none that fits on the disk."
    ),
]
Tasks = Annotated[
    list[str],
    typer.Option(
        "--downstream",
        "-d",
        help="Task: a name (superb downstreams), file.py:Name, several with commas, or all.",
    ),
]
LayerChoices = Annotated[
    str,
    typer.Option("--layers", "-l", help="last, weighted-sum, weighted-sum-norm, an index, each."),
]
Heads = Annotated[
    str,
    typer.Option(
        help="asr: ctc, attention, transducer, hmm, gmm-hmm or your own; several with commas."
    ),
]
FileSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="What a training file does not say, name=value; may be repeated."),
]
PictureFolder = Annotated[
    Path | None, typer.Option("--output", "-o", help="Draw pictures into this folder.")
]


class _Warnings(logging.Handler):
    """What our own code warns of, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning; file names in it come from strangers."""
        from leaderboard.read.names import printable

        print(printable(record.getMessage()), file=sys.stderr)


def main() -> None:
    """Enter from the shell: exit code 2 and one message for bad input, 130 after Ctrl-C."""
    # interval notation, x, arrows: keep them on terminals that claim to know only ASCII
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    # libmpg123 talks to file descriptor 2, which is shut while MP3 is decoded: have another
    with suppress(OSError, ValueError):
        if sys.stderr.fileno() == 2:
            sys.stderr = os.fdopen(os.dup(2), "w", 1, sys.stderr.encoding, "replace")
    # Threads of the encoder that wait by spinning make it tens of times slower whenever another
    # program wants the core; read by OpenMP when torch is imported, which comes later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # a batch system's end is an interrupt like Ctrl-C: what is finished is kept
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for package in ("benchmark", "leaderboard"):
        logging.getLogger(package).handlers = [_Warnings(logging.WARNING)]
    try:
        app()
    except SuperbError as error:
        from leaderboard.read.names import printable

        # names and paths come from strangers: what they hold may not steer the terminal
        text = "\n".join(map(printable, str(error).splitlines()))
        Console(stderr=True, highlight=False, emoji=False).print(
            f"[bold red]error:[/] {escape(text)}", soft_wrap=True
        )
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"superb {superb.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmark self-supervised speech encoders: frozen layers, light heads, honest intervals."""


@app.command()
def run(
    upstream: Annotated[
        list[str],
        typer.Option(
            "--upstream",
            "-u",
            help="Encoder, or several with commas: a name (superb upstreams), a folder, "
            "org/model\\[@revision], file.py:Name, package.module:Name, untrained:NAME.",
        ),
    ],
    downstream: Tasks,
    layers: LayerChoices = "last,weighted-sum",
    corpus: Annotated[
        str,
        typer.Option(
            help="A name (superb corpora), hf:org/name\\[:config]\\[@revision] (hf-stream: "
            "leaves it on the hub), hf:/folder, your manifest (CSV, TSV, JSONL, Parquet), or "
            "my_corpus.py:load."
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
    plan: Annotated[
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
        _with_checkpoint(_several(upstream), checkpoint),
        _several(downstream),
        corpus=corpus,
        data_root=data_root,
        train_split=train_split,
        valid_split=valid_split,
        test_split=test_split,
        protocol=protocol,
        layers=_several([layers]),
        seeds=seeds,
        output=output,
        cache_dir=cache_dir,
        device=device,
        precision=precision,
        lm=lm,
        lexicon=lexicon,
        pronunciations=pronunciations,
        slots=_several([slots]),
        head=_several([head]),
        labels=_several([labels]),
        trials=trials,
        log_dir=log_dir,
        storage=storage,
        plan_only=plan,
        on_bad_audio=on_bad_audio,
        channel=channel,
        trust_remote_code=trust_remote_code,
        settings=settings or (),
        workers=workers,
        cluster=cluster,
        progress=Progress(quiet),
    )
    if plan:
        return
    if as_json:
        from dataclasses import asdict

        from benchmark.scoring.results import shown_result

        print(json.dumps([asdict(shown_result(result)) for result in results], indent=1))
    else:
        print_summary(results, output, Console(emoji=False))
    failed = any(result.status == "failed" for result in results)
    if failed or unbundled(_several(downstream), corpus):
        raise typer.Exit(1)


def _speaks() -> bool:
    """Whether this is the only process, or the one of several that speaks for all."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0"


def _several(values: list[str]) -> list[str]:
    """What stands between commas; those in the name of a file or folder that is there stay."""
    found: list[str] = []
    for value in values:
        parts = value.split(",")
        while parts:
            texts = [",".join(parts[:size]).strip() for size in range(len(parts), 0, -1)]
            text = next((text for text in texts[:-1] if _is_there(text)), texts[-1])
            found += [text] if text else []
            parts = parts[len(text.split(",")) :]
    return found


def _is_there(text: str) -> bool:
    """Whether it names something on disk: PATH, untrained:PATH, NAME:PATH or PATH:Name."""
    ends = (text, text.partition(":")[2], text.rpartition(":")[0])
    return any(end and os.access(Path(end).expanduser(), os.F_OK) for end in ends)


@app.command(name="plan")
def plan_(
    upstream: Annotated[
        str, typer.Option("--upstream", "-u", help="A name, a folder, or org/model.")
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
            _several(downstream),
            hours,
            utterances,
            protocol=protocol,
            layers=_several([layers]),
            storage=storage,
            cache_dir=cache_dir,
            device=device,
            precision=precision,
            random_weights=random_weights,
            nodes=nodes,
            seeds=seeds,
            heads=_several([head]),
        ),
        Progress(),
    )
    console = Console(emoji=False)
    console.print(plan_table(plan))
    if price is not None:
        from benchmark.jobs.price import price_table

        console.print(price_table(price))


@app.command()
def leaderboard(
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("results"),
    format: Annotated[
        str, typer.Option(help="terminal, markdown, csv, latex (booktabs) or html (a fragment).")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here.")] = None,
    with_published: Annotated[
        bool,
        typer.Option("--with-published", help="With SUPERB's published table, not ranked."),
    ] = False,
    wide: Annotated[
        bool,
        typer.Option("--wide", help="One line per upstream, whatever the width."),
    ] = False,
) -> None:
    """Tables from result files alone: last layer beside weighted sum, ties shown as ties."""
    from leaderboard.read.collect import collect, warn_left_out
    from leaderboard.show.render import render
    from leaderboard.show.terminal import show_board

    with _no_garbage():
        board = collect(results)
        if format == "terminal" and output is None:
            show_board(board, Console(emoji=False), with_published=with_published, wide=wide)
        else:
            if format == "csv":
                warn_left_out(board.problems)
            _deliver(render(board, format, with_published=with_published, wide=wide), output)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Spare the collector walking thousands of results, all kept: a quarter of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@app.command()
def reproduce(
    upstream: Annotated[
        str, typer.Argument(help="A published encoder, such as hubert-base.", show_default=False)
    ],
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("results"),
) -> None:
    """Measured scores beside those that SUPERB published, and what to run for what is missing."""
    from leaderboard.compare.reproduction import reproduce as compare
    from leaderboard.read.names import printable
    from leaderboard.show.published import reproduction_grid
    from leaderboard.show.terminal import show_grid

    found = compare(upstream, results)
    console = Console(emoji=False)
    show_grid(reproduction_grid(found), console)
    for line in found.notes:
        console.print(escape(printable(line)), soft_wrap=True)
    if found.commands:
        console.print("missing; to measure them (FOLDER holds your copy of the corpus):")
    for command in found.commands:
        console.print(f"  {escape(printable(command))}", soft_wrap=True)


@app.command()
def compare(
    upstreams: Annotated[
        list[str], typer.Argument(help="Names of the leaderboard; each is compared with the first.")
    ],
    results: Annotated[Path, typer.Argument(help="Folder of results, last.")],
    downstream: Annotated[
        list[str] | None,
        typer.Option("--downstream", "-d", help="Task, or several with commas; all if none."),
    ] = None,
    layer: Annotated[
        str, typer.Option("--layer", "-l", help="weighted-sum, last, or another that was run.")
    ] = "weighted-sum",
    as_json: Annotated[bool, typer.Option("--json", help="Print records, not a table.")] = False,
) -> None:
    """Is one encoder better than another? Paired by utterance, corrected, with its power."""
    from leaderboard.compare.encoders import compare as compare_all
    from leaderboard.read.collect import warn_left_out
    from leaderboard.show.comparison import as_json as records
    from leaderboard.show.comparison import show_comparisons

    found = compare_all(results, upstreams, _several(downstream or []), layer=layer)
    if as_json:
        warn_left_out(found.left_out)
        print(json.dumps(records(found), indent=1))
    else:
        show_comparisons(found, Console(emoji=False))


@app.command()
def layers(
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("results"),
    downstream: Annotated[
        list[str] | None,
        typer.Option("--downstream", "-d", help="Task, or several with commas; all if none."),
    ] = None,
    output: PictureFolder = None,
) -> None:
    """What do the other layers add to the last? Differences, single layers, learned weights."""
    from leaderboard.compare.layers import study_layers
    from leaderboard.show.layers import show_layers

    study = study_layers(results, _several(downstream or []))
    show_layers(study, Console(emoji=False))
    if output is not None:
        from leaderboard.show.plots import draw

        for path in draw(study, output):
            print(path)


@app.command()
def heads(
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("results"),
    output: PictureFolder = None,
) -> None:
    """Does the rank of encoders depend on the head? Scores, rank correlation, what flips."""
    _show_variants(results, "heads", output)


@app.command()
def labels(
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("results"),
    output: PictureFolder = None,
) -> None:
    """Does the rank of encoders depend on how many labels there are? Scores, what flips."""
    _show_variants(results, "labels", output)


def _show_variants(results: Path, by: Literal["heads", "labels"], output: Path | None) -> None:
    from leaderboard.compare.variants import study_variants
    from leaderboard.show.variants import show_variants

    studies = study_variants(results, by)
    show_variants(studies, Console(emoji=False))
    if output is not None:
        from leaderboard.show.curve_plots import draw_studies

        for path in draw_studies(studies, output):
            print(path)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("results"),
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    details: Annotated[
        int, typer.Option(help="Upstreams per table with drawings and mistakes, best first.")
    ] = 10,
    audio: Annotated[
        bool, typer.Option(help="Embed recordings of the bundled corpus that are shown.")
    ] = True,
) -> None:
    """One HTML file with all there is to see: tables, layers, mistakes, where scores come from."""
    from benchmark.encoding.cache import format_bytes
    from leaderboard.show.report import write_report
    from superb.recordings import bundled_recordings

    found = bundled_recordings if audio else None
    path = write_report(results, output, detailed=details, recordings=found)
    print(f"{path}: {format_bytes(path.stat().st_size)}; open it in a browser")


@export_app.command(name="model-card")
def model_card(
    upstream: Annotated[
        str, typer.Option("--upstream", "-u", help="Name of the encoder in the leaderboard.")
    ],
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("results"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here.")] = None,
) -> None:
    """Metadata for the start of a Hugging Face model card: scores as its model-index."""
    from leaderboard.show.export import model_card as front_matter

    _deliver(front_matter(results, upstream), output)


@export_app.command(name="csv")
def csv_(
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("results"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here.")] = None,
) -> None:
    """All results as tidy CSV: one row per result and metric."""
    from leaderboard.show.export import tidy_csv

    _deliver(tidy_csv(results), output)


def _deliver(text: str, output: Path | None) -> None:
    """Print text, or write it to a file as it is."""
    if output is None:
        print(text, end="")
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise SuperbError(
            f"{output} cannot be written: {error.strerror}. Choose another file with --output."
        ) from error


@app.command()
def upstreams(
    name: Annotated[
        str | None,
        typer.Argument(help="Show all that is known of this one, or what is in a training file."),
    ] = None,
    settings: FileSettings = None,
    wide: Annotated[
        bool,
        typer.Option("--wide", help="With checkpoints, licences, training data and papers."),
    ] = False,
) -> None:
    """List the encoders that have a name, or all that is known of one or of a training file."""
    from superb.summary import upstream_details, upstream_table
    from upstreams.loading.load import is_training_file

    if name is not None and is_training_file(name):
        from superb.training_files import file_details

        Console(emoji=False).print(file_details(Path(name), settings or ()))
    elif settings:
        raise SuperbError(
            f"--set is for encoders in training files, and {name or 'the list'} is none: "
            "superb upstreams ./x.pt --set normalize=true"
        )
    elif name is not None:
        Console(emoji=False).print(upstream_details(name))
    elif wide:
        # Lines are never broken, so that they can be piped into less -S or grep.
        Console(emoji=False, width=400).print(upstream_table(wide=True))
    else:
        Console(emoji=False).print(upstream_table(wide=False))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A training file, or any encoder of ours.")],
    folder: Annotated[Path, typer.Argument(help="Where to; it must not be there yet.")],
    to: Annotated[
        str, typer.Option(help="superb: a folder of ours; transformers: one for AutoModel too.")
    ] = "superb",
    settings: FileSettings = None,
) -> None:
    """Write the encoder in a training file as a folder of safetensors, for us or transformers."""
    from superb.training_files import convert_file

    print(convert_file(source, folder, to, settings or ()))


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


def _list(*columns: str) -> Table:
    """A table of things that have a name, as narrow as can be."""
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


@app.command()
def downstreams() -> None:
    """List the tasks, those of installed plug-ins among them; your own may be a file."""
    from downstreams import DOWNSTREAMS
    from downstreams.load import GROUP, load_downstream
    from downstreams.recogniser import head_names

    table = _list("task", "what", "version", "metrics", "head")
    for name in DOWNSTREAMS:
        card = load_downstream(name).card
        arrow = "↓" if card.metric.direction == "lower" else "↑"
        metrics = "\n".join([f"{card.metric.name} {arrow}", *(m.name for m in card.metrics[1:])])
        table.add_row(name, card.title, str(card.version), metrics, card.head)
    for name, package in packages(GROUP).items():
        table.add_row(escape(name), f"of the installed package {escape(package)}", "", "", "")
    table.caption = (
        f"Heads of asr: --head {', '.join(map(escape, head_names()))}. "
        "Your own: --downstream my_task.py:MyTask, --head my_head.py:MyHead, docs/adding-a-task.md"
    )
    table.caption_justify = "left"
    Console(emoji=False).print(table)


@app.command()
def corpora() -> None:
    """List the corpora that have a name; your own data come as a manifest or a function."""
    from downstreams.corpora import CORPORA
    from downstreams.corpora.load import GROUP

    table = _list("corpus", "what", "tasks", "audio", "licence", "where")
    table.columns[0].no_wrap = True  # names are there to be copied
    table.columns[1].min_width = 11
    table.columns[5].min_width = len("own copy")
    table.caption = (
        "Your own: --corpus FILE.csv, .tsv, .jsonl or .parquet, hf:org/name, or my_corpus.py:load"
    )
    table.caption_justify = "left"
    for entry in CORPORA.values():
        table.add_row(
            entry.name, entry.title, ", ".join(entry.tasks), entry.hours, entry.licence, entry.where
        )
    for name, package in packages(GROUP).items():
        table.add_row(escape(name), "", "", "", "", f"package {escape(package)}")
    Console(emoji=False).print(table)


@app.command()
def check(
    target: Annotated[
        str,
        typer.Argument(
            help="An upstream, a task or a corpus, as for superb run: a name, file.py:Name, "
            "package.module:Name, a folder, org/model\\[@revision], a manifest."
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option(help="upstream, downstream or corpus, where the target does not tell."),
    ] = None,
    downstream: Annotated[
        str | None,
        typer.Option("--downstream", "-d", help="The task, or tasks, a corpus is to serve."),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Try a task on what is said in this one's train split.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the corpus.")] = None,
) -> None:
    """Run the conformance suite on an encoder, a task or a corpus; ends with 1 if one fails."""
    from superb.check import check_target
    from superb.summary import check_table

    failed = False
    for title, checks in check_target(target, kind, downstream, corpus, data_root).items():
        Console(emoji=False).print(check_table(title, checks))
        failed = failed or any(item.passed is False for item in checks)
    if failed:
        raise typer.Exit(1)


@app.command()
def bench(
    upstream: Annotated[
        list[str],
        typer.Option(
            "--upstream",
            "-u",
            help="Encoder, or several with commas: a name, a folder, or org/model.",
        ),
    ],
    what: Annotated[
        str,
        typer.Option(
            help="Several with commas. encoder: our transformer beside transformers and "
            "torchaudio; extract: decoding, encoding, storing; probe: the parts of an update of a "
            "head; run: a projection of whole runs."
        ),
    ] = "encoder",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, auto.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32, bfloat16.")] = "float32,bfloat16",
    rounds: Annotated[int, typer.Option(help="Timings of each; the median counts.")] = 5,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; as torch would if not given.")
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Its architecture alone; no checkpoint is needed."),
    ] = False,
    seconds: Annotated[str, typer.Option(help="encoder: lengths of utterance.")] = "1,8,15",
    downstream: Annotated[
        str, typer.Option("--downstream", "-d", help="extract, probe: the task.")
    ] = "asr",
    corpus: Annotated[
        str | None,
        typer.Option(
            help="extract, probe: as for superb run. mini if not given; for probe with another "
            "protocol, utterances as long as LibriSpeech's."
        ),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of a corpus that has a name and is not bundled.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="extract: audio; 4 on a processor, 40 on a card.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="probe: mini, superb, a TOML file; several with commas.")
    ] = "mini",
    cache_dir: CacheDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print records, not tables.")] = False,
) -> None:
    """Time encoders, extraction and the training of heads here, and project whole runs."""
    try:
        lengths = [float(length) for length in _several([seconds])]
    except ValueError as error:
        raise SuperbError(f"--seconds takes numbers such as 1,8,15; got {seconds!r}") from error
    from benchmark.progress import Progress
    from superb.bench.measure import Asked, measure

    asked = Asked(
        _several(upstream),
        _several([what]),
        device=device,
        precisions=_several([precision]),
        rounds=rounds,
        cores=threads,
        random_weights=random_weights,
        seconds=lengths,
        downstream=downstream,
        corpus=corpus,
        data_root=data_root,
        minutes=minutes,
        protocols=_several([protocol]),
        cache_dir=cache_dir,
    )
    reports = measure(asked, Progress())
    if as_json:
        print(json.dumps([record for report in reports for record in report.records], indent=1))
        return
    for report in reports:
        Console(emoji=False).print(report.table)


@app.command()
def pretrain(
    objective: Annotated[str, typer.Option(help="The pretext task; superb objectives lists them.")],
    audio: Annotated[
        list[str],
        typer.Option(help="Folder of recordings, or a corpus whose train part is taken; repeat."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the encoder.")],
    size: Annotated[str, typer.Option(help="Of the encoder: mini, base.")] = "mini",
    minutes: Annotated[
        float | None, typer.Option(help="For all of it; 60 unless --steps is given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser instead.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the objective, name=value; repeat."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak.")] = None,
    batch_seconds: Annotated[float | None, typer.Option(help="Audio per step.")] = None,
    crop_seconds: Annotated[float | None, typer.Option(help="Longest crop of a file.")] = None,
    min_seconds: Annotated[float | None, typer.Option(help="Shortest file used.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    warm_up: Annotated[float | None, typer.Option(help="Share of steps with rising rate.")] = None,
    accumulate: Annotated[int, typer.Option(help="Batches per step.")] = 1,
    initial: Annotated[str, typer.Option(help="Start from the weights of this upstream.")] = "",
    seed: Annotated[int, typer.Option(help="Of weights, order, crops and masks.")] = 0,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16 (mixed), or the faster: auto.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; as torch would if not given.")
    ] = None,
    speakers: Annotated[
        str | None,
        typer.Option(help="Pattern with a group that finds the speaker in a file's path."),
    ] = None,
    trained_on: Annotated[
        str, typer.Option(help="Names of the corpora in the folders, for the card.")
    ] = "",
    licence: Annotated[str, typer.Option(help="Of the weights, for the card.")] = "",
    attribution: Annotated[str, typer.Option(help="To the audio's owners, for the card.")] = "",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")
    ] = False,
) -> None:
    """Pretrain an encoder on recordings without labels; the same command again goes on with it.

    Defaults and further settings of each objective: superb objectives NAME.
    """
    began = time.monotonic()
    recipe = {
        "learning_rate": learning_rate,
        "batch_seconds": batch_seconds,
        "crop_seconds": crop_seconds,
        "min_seconds": min_seconds,
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
        "warm_up": warm_up,
    }
    settings = dict(_assignment(text) for text in set_ or [])
    if threads is not None and threads < 1:
        raise SuperbError(f"--threads must be at least 1; got {threads}")
    from benchmark.progress import Progress
    from superb.pretraining import gather
    from upstreams.pretraining import train

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    train.pretrain(
        objective,
        gather(audio, speakers, _several([trained_on]), licence, attribution),
        output,
        size=size,
        settings=settings,
        recipe={name: value for name, value in recipe.items() if value is not None},
        minutes=60.0 if minutes is None and steps is None else minutes,
        steps=steps,
        accumulate=accumulate,
        initial=initial,
        seed=seed,
        precision=precision,
        device=device,
        command=shlex.join(["superb", *sys.argv[1:]]),
        began=began,
        progress=Progress(quiet),
    )
    if not _speaks():
        return
    console = Console(emoji=False, soft_wrap=True)
    console.print(f"the encoder is in {escape(str(output))}; try it:")
    quoted = escape(shlex.quote(str(output)))
    console.print(f"  superb run --upstream {quoted} --downstream asr,sid,ks")


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SuperbError(f"--set takes name=value, such as clusters=50; got {text!r}")
    return name.strip(), value.strip()


@app.command()
def objectives(
    name: Annotated[str | None, typer.Argument(help="Show what can be set of this one.")] = None,
) -> None:
    """List the pretraining objectives, or the settings of one."""
    from superb.pretraining import objective_table, settings_table

    Console(emoji=False).print(settings_table(name) if name else objective_table())


@cache_app.callback()
def cache(context: typer.Context, cache_dir: CacheDir = None) -> None:
    """List stored features, biggest first, and the states of trainings that were cut off."""
    if context.invoked_subcommand is not None:
        return
    from datetime import datetime

    from benchmark.encoding.cache import PREPARED, TRAINING, cache_folder, format_bytes, list_stores

    root = cache_dir or cache_folder()
    stores = list_stores(root)
    table = Table("key", "upstream", "kind", "storage", box=SIMPLE_HEAD)
    for column in ("utterances", "size", "last written"):
        table.add_column(column, justify="right")
    for store in stores:
        table.add_row(
            store.key[:12],
            escape(store.upstream),
            store.kind,
            store.storage,
            "–" if store.key in (TRAINING, PREPARED) else str(store.utterances),
            format_bytes(store.size),
            f"{datetime.fromtimestamp(store.used):%Y-%m-%d %H:%M}",
        )
    total = format_bytes(sum(store.size for store in stores))
    table.caption = f"{total} in {root}"
    table.caption_justify = "left"
    Console(emoji=False).print(table)


@cache_app.command()
def clear(
    selection: Annotated[
        list[str] | None,
        typer.Argument(help="Keys, upstream names, or training; everything if none."),
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Delete stored features and states of training; scores are kept, the rest can be remade."""
    from benchmark.encoding.cache import cache_folder, clear_stores, format_bytes

    cleared = clear_stores(cache_dir or cache_folder(), selection or ())
    size = format_bytes(sum(store.size for store in cleared))
    print(f"cleared {len(cleared)} store{'' if len(cleared) == 1 else 's'}, {size}")
