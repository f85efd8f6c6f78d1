"""What is read from result files: tables, comparisons, layers, heads, labels, the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from benchmark.errors import SuperbError
from superb.commands.options import (
    PictureFolder,
    Results,
    deliver,
    no_garbage,
    several,
)


def leaderboard(
    results: Results = Path("results"),
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

    with no_garbage():
        board = collect(results)
        if format == "terminal" and output is None:
            show_board(board, Console(emoji=False), with_published=with_published, wide=wide)
        else:
            if format == "csv":
                warn_left_out(board.problems)
            deliver(render(board, format, with_published=with_published, wide=wide), output)


def reproduce(
    upstream: Annotated[
        str, typer.Argument(help="A published encoder, such as hubert-base.", show_default=False)
    ],
    results: Results = Path("results"),
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


def compare(
    upstreams: Annotated[
        list[str] | None,
        typer.Argument(help="Names of the leaderboard; each is compared with the first."),
    ] = None,
    results: Annotated[Path, typer.Argument(help="Folder of results, last.")] = Path("results"),
    twins: Annotated[
        bool, typer.Option("--twins", help="Compare each encoder with its own untrained twin.")
    ] = False,
    downstream: Annotated[
        list[str] | None,
        typer.Option("--downstream", "-d", help="Task, or several with commas; all if none."),
    ] = None,
    layer: Annotated[
        str, typer.Option("--layer", "-l", help="weighted-sum, last, or another that was run.")
    ] = "weighted-sum",
    as_json: Annotated[bool, typer.Option("--json", help="Print records, not a table.")] = False,
) -> None:
    """Is one encoder better than another? Paired by utterance, corrected, with its power.

    With --twins and no names: what has each encoder learned that its random twin has not?
    """
    from leaderboard.compare.encoders import compare as compare_all
    from leaderboard.compare.twins import compare_twins
    from leaderboard.read.collect import warn_left_out
    from leaderboard.show.comparison import as_json as records
    from leaderboard.show.comparison import show_comparisons, show_twins

    if twins and upstreams:
        raise SuperbError(
            f"--twins compares every encoder of a folder; got {', '.join(upstreams)} besides. "
            f"Type: superb compare --twins {results}"
        )
    tasks = several(downstream or [])
    if twins:
        found = compare_twins(results, tasks, layer=layer)
    else:
        found = compare_all(results, upstreams or [], tasks, layer=layer)
    if as_json:
        warn_left_out(found.left_out)
        print(json.dumps(records(found), indent=1))
    else:
        show = show_twins if twins else show_comparisons
        show(found, Console(emoji=False))


def layers(
    results: Results = Path("results"),
    downstream: Annotated[
        list[str] | None,
        typer.Option("--downstream", "-d", help="Task, or several with commas; all if none."),
    ] = None,
    output: PictureFolder = None,
) -> None:
    """What do the other layers add to the last? Differences, single layers, learned weights."""
    from leaderboard.compare.layers import study_layers
    from leaderboard.show.layers import show_layers

    study = study_layers(results, several(downstream or []))
    show_layers(study, Console(emoji=False))
    if output is not None:
        from leaderboard.show.plots import draw

        for path in draw(study, output):
            print(path)


def heads(
    results: Results = Path("results"),
    output: PictureFolder = None,
) -> None:
    """Does the rank of encoders depend on the head? Scores, rank correlation, what flips."""
    _show_variants(results, "heads", output)


def labels(
    results: Results = Path("results"),
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


def report(
    results: Results = Path("results"),
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
