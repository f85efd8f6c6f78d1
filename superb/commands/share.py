"""A leaderboard that others add to: hand in results, make its site, tell two results apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmark.errors import SuperbError
from superb.commands.options import no_garbage


def submit(
    results: Annotated[
        Path | None, typer.Argument(help="Folder of results, or one JSON file.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder of the leaderboard.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check; exit code 1 if one is refused.")
    ] = False,
    init: Annotated[
        Path | None, typer.Option(help="Start a leaderboard in this folder: README, workflow.")
    ] = None,
) -> None:
    """Add results to a leaderboard, a folder in git: each is checked, and copied whole or not."""
    from leaderboard.submit import start
    from leaderboard.submit import submit as hand_in

    if init is not None:
        if results is not None or to is not None or check:
            raise SuperbError("--init starts a leaderboard and takes nothing else")
        for path in start(init):
            print(path)
        return
    if results is None or to is None:
        raise SuperbError(
            "give a folder of results and a leaderboard, such as: superb submit results --to "
            "../leaderboard; start one with: superb submit --init ../leaderboard"
        )
    from superb.standard import standard

    found = hand_in(results, to, standard, check=check)
    for line in found.refused:
        _print(f"refused: {line}", error=True)
    verb = "would be taken" if check else "taken"
    for path in found.taken:
        _print(f"{verb}: {path}")
    counts = f"{len(found.taken)} {verb}, {len(found.there)} there before"
    _print(f"{counts}, {len(found.refused)} refused")
    if found.refused:
        raise typer.Exit(1)


def site(
    leaderboard: Annotated[Path, typer.Argument(help="Folder of a leaderboard, or of results.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path(
        "public"
    ),
    title: Annotated[
        str, typer.Option(help="Heading of the first page.")
    ] = "Frozen speech encoders compared",
    url: Annotated[str, typer.Option(help="Where it will be, for the feed: https://…/")] = "",
    pairs: Annotated[
        int, typer.Option(help="Most pages of two encoders, the best of each table first.")
    ] = 500,
) -> None:
    """A static site of a leaderboard: pages, downloads and a feed, with no server or network."""
    from leaderboard.show.site import SiteOptions, write_site

    with no_garbage():
        path, pages = write_site(leaderboard, output, SiteOptions(title, url, pairs))
    _print(f"{path}: {pages} pages; open it in a browser")


def diff(
    a: Annotated[Path, typer.Argument(help="JSON file of a result.")],
    b: Annotated[Path, typer.Argument(help="JSON file of another, of the same task.")],
    utterances: Annotated[int, typer.Option(help="How many changed utterances to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as a record.")] = False,
) -> None:
    """Why do two results differ? What they do not share, and the utterances that changed most."""
    from leaderboard.compare.causes import causes
    from leaderboard.show.causes import as_json as record
    from leaderboard.show.causes import show_causes

    if utterances < 0:
        raise SuperbError(f"--utterances is at least 0; got {utterances}")
    found = causes(a, b)
    if as_json:
        print(json.dumps(record(found), indent=1))
    else:
        show_causes(found, Console(emoji=False), utterances)


def _print(line: str, *, error: bool = False) -> None:
    """One line, with what a stranger wrote in it spelled out."""
    from rich.text import Text

    from leaderboard.read.names import printable

    Console(stderr=error, emoji=False, highlight=False).print(Text(printable(line)), soft_wrap=True)
