"""What has a name: encoders, tasks, corpora, pretraining objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.errors import SuperbError
from benchmark.registry import packages
from superb.commands.options import FileSettings


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


def downstreams() -> None:
    """List the tasks, those of installed plug-ins among them; your own may be a file."""
    from downstreams import DOWNSTREAMS
    from downstreams.load import GROUP, load_downstream
    from downstreams.recogniser import head_names

    table = listing("task", "what", "version", "metrics", "head")
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


def corpora() -> None:
    """List the corpora that have a name; your own data come as a manifest or a function."""
    from downstreams.corpora import CORPORA
    from downstreams.corpora.load import GROUP

    table = listing("corpus", "what", "tasks", "audio", "licence", "where")
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


def objectives(
    name: Annotated[str | None, typer.Argument(help="Show what can be set of this one.")] = None,
) -> None:
    """List the pretraining objectives, or the settings of one."""
    from superb.pretraining import objective_table, settings_table

    Console(emoji=False).print(settings_table(name) if name else objective_table())


def listing(*columns: str) -> Table:
    """A table of things that have a name, as narrow as can be."""
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
