"""Fluent Speech Commands (Lugosch et al. 2019): spoken commands of a smart home, for intents.

``data/train_data.csv``, ``valid_data.csv`` and ``test_data.csv`` with the columns ``path``,
``speakerId``, ``transcription``, ``action``, ``object`` and ``location``, and the recordings that
they name, ``wavs/speakers/SPEAKER/NAME.wav``. No speaker is in two splits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Final

from benchmark.core import SPLITS, Corpus, Utterance
from benchmark.encoding.folders import visible
from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions
from downstreams.corpora.layout import (
    Layout,
    Official,
    Survey,
    not_found,
    official_root,
    partial,
    require_splits,
)
from downstreams.corpora.manifest import read_rows
from downstreams.corpora.utterances import built
from downstreams.corpora.words import one_form

NAME: Final = "fluent-speech-commands"
# What the archive unpacks to.
FOLDER: Final = "fluent_speech_commands_dataset"
# The three parts of an intent.
SLOTS: Final = ("action", "object", "location")
COLUMNS: Final = ("path", "speakerId", *SLOTS)

# Table 1 of the paper.
OFFICIAL: Final[Mapping[str, Official]] = {
    "train": Official(23_132, 77, 14.7),
    "valid": Official(3_118, 10, 1.9),
    "test": Official(3_793, 10, 2.4),
}
SOURCE: Final = (
    "https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-research/"
)
OBTAIN: Final = (
    "Fluent Speech Commands may not be downloaded automatically: accept its licence, for research, "
    f"in the form at {SOURCE} and unpack the archive."
)
# Nothing outside of the corpus.
_PATH: Final = re.compile(r"wavs/speakers/(?!\.\.?/)[^/]+/[^/]+\.wav")


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load the official splits, as far as their recordings are there.

    Args:
        task: ``ic``.
        options: the folder that holds ``data`` and ``wavs``, or the one above; its splits are
            fixed.

    Returns:
        A corpus whose utterances have the columns ``action``, ``object`` and ``location``.

    Raises:
        SuperbError: another task, options that mean nothing here, no lists in the folder, a row
            that cannot be understood, and an empty split.
    """
    root = official_root(NAME, task, "ic", options, "its three lists say which is in which", OBTAIN)
    found = survey(root)
    require_splits(NAME, root, found, SPLITS, OBTAIN)
    return built(
        NAME,
        root,
        found.utterances,
        [partial(found.utterances, OFFICIAL)],
        licence="its owners', for research: Fluent Speech Commands Public License",
        source=SOURCE,
    )


def survey(root: Path) -> Survey:
    """What of the three lists is there, by names.

    Raises:
        SuperbError: a list is not there, or a row that cannot be understood.
    """
    lists = {split: f"data/{split}_data.csv" for split in SPLITS}
    bases = [
        base
        for base in (root, root / FOLDER)
        if any((base / name).is_file() for name in lists.values())
    ]
    if not bases:
        wanted = f"{lists['train']} and wavs/, there or in {FOLDER}/"
        raise not_found("Fluent Speech Commands", root, wanted, OBTAIN)
    base = bases[0]
    there = {
        path.relative_to(base).as_posix(): path for path in visible(base, "wavs/speakers/*/*.wav")
    }
    utterances = []
    missing = {}
    listed: set[str] = set()
    for split, list_name in lists.items():
        path = base / list_name
        if not path.is_file():
            raise not_found("list of Fluent Speech Commands", path.parent, path.name, OBTAIN)
        for row in read_rows(path):
            cells = {name: one_form(str(row.cells.get(name, ""))) for name in COLUMNS}
            if empty := [name for name, cell in cells.items() if not cell]:
                raise SuperbError(
                    f"{path}, {row.place}: nothing in column {' and '.join(empty)}; wanted "
                    f"{', '.join(COLUMNS)} in every row. Unpack the archive again"
                )
            name = cells.pop("path")
            if not _PATH.fullmatch(name):
                raise SuperbError(
                    f"{path}, {row.place}: {name[:60]!r} is not wavs/speakers/SPEAKER/NAME.wav. "
                    "Unpack the archive again"
                )
            if name in listed:
                raise SuperbError(
                    f"{path}, {row.place}: {name} is listed twice. Unpack the archive again"
                )
            listed.add(name)
            if name in there:
                speaker = cells.pop("speakerId")
                utterances.append(Utterance(name, there[name], split, speaker, columns=cells))
            else:
                missing[(base / name).relative_to(root)] = split
    extra = {there[name].relative_to(root): "" for name in sorted(there.keys() - listed)}
    return Survey(tuple(utterances), missing, extra, disjoint=tuple(combinations(SPLITS, 2)))


LAYOUT: Final = Layout(survey, OFFICIAL, (), OBTAIN)
