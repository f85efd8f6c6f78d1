"""``superb data``: is a corpus on disk whole and sound, and how does it get there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from benchmark.errors import SuperbError
from superb.commands.options import Quiet

data_app = typer.Typer(help="Check a corpus on disk, download or make one.", no_args_is_help=True)

DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of a corpus that has a name.")
]


@data_app.command()
def check(
    corpus: Annotated[
        str,
        typer.Argument(
            help="A name (superb corpora), your manifest, or file.py:load, as for superb run."
        ),
    ],
    data_root: DataRoot = None,
    downstream: Annotated[
        str | None,
        typer.Option("--downstream", "-d", help="Also ask your data for all this task needs."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Names and headers only; decode nothing.")
    ] = False,
    channel: Annotated[
        int | None, typer.Option(min=0, help="The channel to hear, as for superb run.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything that was found as JSON.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Check files, transcripts, splits and speakers, before anything is trained on them.

    Ends with 1 if there are errors, with 0 if there are only warnings.
    """
    from benchmark.progress import Progress
    from superb.data import audit_corpus, print_audit, record

    audit = audit_corpus(
        corpus, data_root, downstream, quick=quick, progress=Progress(quiet), channel=channel
    )
    if as_json:
        print(json.dumps(record(corpus, audit), indent=1))
    else:
        print_audit(corpus, audit, Console(emoji=False, highlight=False))
    if audit.errors:
        raise typer.Exit(1)


@data_app.command()
def download(
    corpus: Annotated[str, typer.Argument(help="A name (superb corpora).")],
    data_root: DataRoot = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            help="The corpus's own split, several with commas, or all; if none, what a run needs.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Download a corpus from its owners; the same command again goes on where it was cut off."""
    from benchmark.progress import Progress
    from downstreams.corpora.download import download as bring
    from superb.data import layout_of

    layout = layout_of(corpus)
    if layout.archives and data_root is None:
        raise SuperbError(f"give --data-root, the folder in which {corpus} is to lie")
    splits = [part.strip() for text in split or [] for part in text.split(",") if part.strip()]
    root = data_root or Path()
    archives = bring(corpus, layout, root, splits, Progress(quiet))
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    if archives:
        names = ", ".join(split for archive in archives for split in archive.splits)
        console.print(f"{escape(names)}: unpacked in {escape(str(root))}; check it:")
    else:
        console.print("all there already; to check it:")
    console.print(f"  superb data check {corpus} --data-root {escape(shlex.quote(str(root)))}")


@data_app.command()
def voices(
    librispeech: Annotated[
        list[Path],
        typer.Option("--librispeech", help="Folder with dev-clean and test-clean; repeatable."),
    ],
    words: Annotated[Path, typer.Option("--words", help="Folder of Arabic Speech Commands.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the corpus; made.")],
    codec: Annotated[
        str, typer.Option("--codec", help="opus (9 MB) or flac (without loss at 16 bits).")
    ] = "opus",
    quiet: Quiet = False,
) -> None:
    """Make the corpus voices: real speech for KS, SID, ASV, SD and QbE."""
    from benchmark.progress import Progress
    from downstreams.corpora.voices.make import make

    written = make(librispeech, words, output, codec, Progress(quiet))
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    megabytes = sum(path.stat().st_size for path in written) / 1e6
    where = escape(shlex.quote(str(output)))
    console.print(f"{megabytes:.1f} MB in {escape(str(output))}; now try it:")
    console.print(f"  superb run -u hubert -d ks --corpus voices --data-root {where}")
