"""From what a user types after ``superb pretrain --audio`` to recordings; lists of objectives.

The only place where pretraining meets the corpora: upstreams know of none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from benchmark.core import SPLITS
from benchmark.errors import SuperbError
from downstreams.corpora import CORPORA
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream
from upstreams.pretraining import OBJECTIVES

if TYPE_CHECKING:  # at run time these modules import torch, so they wait until one is needed
    from upstreams.pretraining.audio import Clip
    from upstreams.pretraining.run import Source


def gather(
    names: Sequence[str],
    speaker_pattern: str | None = None,
    trained_on: Sequence[str] = (),
    licence: str = "",
    attribution: str = "",
) -> Source:
    """The recordings behind ``--audio``.

    Args:
        names: folders, and names of corpora, of which the train part is taken.
        speaker_pattern: where file names say who speaks; see `upstreams.pretraining.audio.scan`.
        trained_on: names of the corpora that the folders hold.
        licence: of what is trained on them.
        attribution: to their owners.

    Raises:
        SuperbError: a folder or corpus is missing, empty, unreadable or given twice.
    """
    from upstreams.pretraining.audio import SPEAKER_PATTERN, scan
    from upstreams.pretraining.run import Source

    if not names:
        raise SuperbError("give --audio a folder of recordings, or the name of a corpus")
    known = [name for name in names if name in CORPORA]
    if len(set(known)) < len(known):
        raise SuperbError(f"--audio {', '.join(known)}: give each corpus once")
    if absent := [name for name in known if CORPORA[name].layout]:
        raise SuperbError(
            f"--audio {absent[0]}: that corpus is not bundled; give the folder of its recordings, "
            f"and --trained-on {absent[0]} for the card"
        )
    folders = [Path(name).expanduser() for name in names if name not in CORPORA]
    clips = scan(folders, speaker_pattern or SPEAKER_PATTERN)
    for name in known:
        clips += corpus_clips(name)
    corpora = [*trained_on, *known]
    return Source(
        clips=clips,
        names=list(names),
        corpora=corpora if trained_on or not folders else None,
        licence=licence,
        attribution=attribution,
    )


def corpus_clips(name: str) -> list[Clip]:
    """The recordings of a corpus that are in no valid or test split of any of its tasks."""
    from upstreams.pretraining.audio import measure

    splits: dict[str, dict[bytes | Path, tuple[str, str]]] = {split: {} for split in SPLITS}
    for task in CORPORA[name].tasks:
        for utterance in load_corpus(name, load_downstream(task).card).utterances:
            audio = utterance.audio
            if isinstance(audio, bytes | Path):  # mixtures are made of what other tasks have
                splits[utterance.split][audio] = (utterance.id, utterance.speaker)
    kept_back = splits["valid"].keys() | splits["test"].keys()
    return [
        measure(audio, f"{name}:{speaker}", f"{name}:{identity}")
        for audio, (identity, speaker) in splits["train"].items()
        if audio not in kept_back
    ]


def objective_table() -> Table:
    """All objectives, without loading any."""
    table = Table(title="Pretraining objectives", title_justify="left", box=None, padding=(0, 2))
    for column in ("objective", "school"):
        table.add_column(column, no_wrap=True)
    table.add_column("what is learned")
    table.add_column("paper")
    for name, entry in OBJECTIVES.items():
        table.add_row(name, entry.school, escape(entry.title), escape(entry.paper))
    table.caption = "What can be set: superb objectives NAME"
    table.caption_justify = "left"
    return table


def settings_table(name: str) -> Table:
    """What can be set of one objective, with the defaults and what each means."""
    from upstreams.pretraining.objective import Recipe
    from upstreams.pretraining.run import objective_class

    kind = objective_class(name)
    table = Table(
        title=escape(f"superb pretrain --objective {name}"),
        title_justify="left",
        box=None,
        padding=(0, 2),
    )
    table.add_column("option", no_wrap=True)
    table.add_column("default", no_wrap=True)
    table.add_column("what")
    table.add_row("--size", next(iter(kind.sizes)), ", ".join(kind.sizes))
    for field in dataclasses.fields(Recipe):
        option = "--" + field.name.replace("_", "-")
        value = getattr(kind.recipe, field.name)
        table.add_row(option, str(value), escape(_described(Recipe, field.name)))
    for field in dataclasses.fields(kind.Settings):
        text = _described(kind.Settings, field.name)
        table.add_row(f"--set {field.name}=", str(field.default) or '""', escape(text))
    return table


def _described(kind: type, field: str) -> str:
    """What the docstring of a dataclass, or of one it extends, says under Attributes of a field."""
    found: list[str] = []
    for base in kind.__mro__:
        for line in (base.__doc__ or "").splitlines():
            stripped = line.strip()
            if line.startswith(f"        {field}:"):
                found.append(stripped.partition(":")[2].strip())
            elif found and line.startswith("            "):
                found.append(stripped)
            elif found:
                return " ".join(found).replace("``", "")
    return " ".join(found).replace("``", "")
