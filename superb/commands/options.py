"""Options that several commands share, and what their words mean."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from benchmark.errors import SuperbError


def _completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What a shell offers while a name is typed; those before the last comma stay."""

    def complete(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(begun)]

    return complete


def _upstream_names() -> Iterable[str]:
    from upstreams.catalogue import UPSTREAMS

    return UPSTREAMS


def _downstream_names() -> Iterable[str]:
    from downstreams import DOWNSTREAMS

    return [*DOWNSTREAMS, "all"]


def _corpus_names() -> Iterable[str]:
    from downstreams.corpora import CORPORA

    return CORPORA


complete_upstream = _completing(_upstream_names)
complete_downstream = _completing(_downstream_names)
complete_corpus = _completing(_corpus_names)

CacheDir = Annotated[
    Path | None,
    typer.Option(help="Folder of stored features; $SUPERB_CACHE or ~/.cache/superb if not given."),
]
Storage = Annotated[
    str,
    typer.Option(
        help="How features are kept: float16, float32, int8, none (encoded anew each time), or "
        "auto: the first of float16, int8 (not on a card) and none that fits on the disk."
    ),
]
TASKS = typer.Option(
    "--downstream",
    "-d",
    help="Task: a name (superb downstreams), file.py:Name, several with commas, or all.",
    autocompletion=complete_downstream,
)
Tasks = Annotated[list[str], TASKS]
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
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let a checkpoint run its own Python code.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")]
Results = Annotated[Path, typer.Argument(help="Folder of results.")]
PictureFolder = Annotated[
    Path | None, typer.Option("--output", "-o", help="Draw pictures into this folder.")
]


def several(values: list[str]) -> list[str]:
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


def deliver(text: str, output: Path | None) -> None:
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


@contextmanager
def no_garbage() -> Iterator[None]:
    """Spare the collector walking thousands of results, all kept: a quarter of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
