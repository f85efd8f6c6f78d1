"""``superb predict`` and ``superb demo``: what a trained head answers, here or on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from superb.commands.options import Device, Quiet, RemoteCode, deliver

ResultFile = Annotated[
    Path, typer.Argument(help="JSON file of a result made with --save-heads.", show_default=False)
]
Seed = Annotated[
    int | None, typer.Option(help="Whose head; that of the first seed if none is given.")
]
Fold = Annotated[
    str | None, typer.Option(help="er and others in folds: whose head; the first if none.")
]
Encoder = Annotated[
    str | None,
    typer.Option("--upstream", "-u", help="The encoder, where it is elsewhere now, or code."),
]
Task = Annotated[str | None, typer.Option("--downstream", "-d", help="The task, where it is code.")]
Head = Annotated[str | None, typer.Option(help="The head of asr, where it is code.")]


def predict(
    result: ResultFile,
    audio: Annotated[
        list[str],
        typer.Argument(
            help="Recordings, folders, manifests (CSV, TSV, JSONL, Parquet), or - for standard "
            "input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write answers to this file, .csv or .json."),
    ] = None,
    seed: Seed = None,
    fold: Fold = None,
    upstream: Encoder = None,
    downstream: Task = None,
    head: Head = None,
    device: Device = "auto",
    channel: Annotated[
        int | None, typer.Option(help="The channel to hear, from 0; that of the run if none.")
    ] = None,
    trust_remote_code: RemoteCode = False,
    quiet: Quiet = False,
) -> None:
    """Answer recordings by the head of a result: transcripts, labels, speakers, scores of pairs.

    Of recordings that cannot be used the others are answered, then it ends with 2.
    """
    from benchmark.errors import AudioError
    from benchmark.progress import Progress
    from superb.answers import as_csv, as_json, format_of, show_answers
    from superb.clips import gather
    from superb.predict import answer_all, load_head

    form = "" if output is None else format_of(output)
    progress = Progress(quiet)
    restored = load_head(
        result,
        seed=seed,
        fold=fold,
        upstream=upstream,
        downstream=downstream,
        head=head,
        device=device,
        channel=channel,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    recordings = gather(audio, restored.downstream.card)
    with progress.bar("recordings", len(recordings)) as bar:
        found, bad = answer_all(restored, recordings, bar.advance)
    if output is not None and found:
        deliver(as_csv(found) if form == "csv" else as_json(found), output)
    elif found:
        show_answers(found, Console(emoji=False))
    if bad:
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise AudioError(
            f"{len(bad)} of {len(recordings)} recordings cannot be used: "
            f"{'; '.join(map(str, bad[:5]))}{more}"
        )


def demo(
    result: ResultFile,
    port: Annotated[int, typer.Option(help="Of the page on this machine.")] = 7860,
    seed: Seed = None,
    fold: Fold = None,
    upstream: Encoder = None,
    downstream: Task = None,
    head: Head = None,
    device: Device = "auto",
    trust_remote_code: RemoteCode = False,
) -> None:
    """A page on this machine: drop or record a clip, see what a head answers (superb\\[demo])."""
    from benchmark.progress import Progress
    from superb.demo import serve
    from superb.predict import load_head

    progress = Progress()
    restored = load_head(
        result,
        seed=seed,
        fold=fold,
        upstream=upstream,
        downstream=downstream,
        head=head,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    serve(restored, port, progress)
