"""Encoders before they are scored: trained, converted, checked, timed."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from benchmark.errors import SuperbError
from superb.commands.options import (
    CacheDir,
    FileSettings,
    Quiet,
    complete_upstream,
    several,
)


def pretrain(
    objective: Annotated[str, typer.Option(help="The pretext task; superb objectives lists them.")],
    audio: Annotated[
        list[str],
        typer.Option(help="Folder of recordings, or a corpus whose train part is taken; repeat."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the encoder.")],
    size: Annotated[
        str, typer.Option(help="Of the encoder; superb objectives NAME lists them.")
    ] = "mini",
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
    quiet: Quiet = False,
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
        gather(audio, speakers, several([trained_on]), licence, attribution),
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


def _speaks() -> bool:
    """Whether this is the only process, or the one of several that speaks for all."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0"


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SuperbError(f"--set takes name=value, such as clusters=50; got {text!r}")
    return name.strip(), value.strip()


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


def bench(
    upstream: Annotated[
        list[str],
        typer.Option(
            "--upstream",
            "-u",
            help="Encoder, or several with commas: a name, a folder, or org/model.",
            autocompletion=complete_upstream,
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
        lengths = [float(length) for length in several([seconds])]
    except ValueError as error:
        raise SuperbError(f"--seconds takes numbers such as 1,8,15; got {seconds!r}") from error
    from benchmark.progress import Progress
    from superb.bench.measure import Asked, measure

    asked = Asked(
        several(upstream),
        several([what]),
        device=device,
        precisions=several([precision]),
        rounds=rounds,
        cores=threads,
        random_weights=random_weights,
        seconds=lengths,
        downstream=downstream,
        corpus=corpus,
        data_root=data_root,
        minutes=minutes,
        protocols=several([protocol]),
        cache_dir=cache_dir,
    )
    reports = measure(asked, Progress())
    if as_json:
        print(json.dumps([record for report in reports for record in report.records], indent=1))
        return
    for report in reports:
        Console(emoji=False).print(report.table)
