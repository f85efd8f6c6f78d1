"""Datasets of the Hugging Face hub, or folders in any format that ``datasets`` reads.

``hf:org/name[:config][@revision]`` or ``hf:/folder``. Columns have the names that a manifest's
have: ``audio``, ``text``, ``speaker``, ``label``. Splits are ``train``, ``validation`` (else taken
from train) and ``test`` unless others are named. Audio stays where ``datasets`` keeps it, encoded,
until an encoder wants it; code that a dataset brings along is never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmark.core import Corpus, DownstreamCard
from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, refuse_options
from downstreams.corpora.layout import choose_splits, naming
from downstreams.corpora.manifest import Row, from_rows

if TYPE_CHECKING:  # two seconds to import
    from datasets.arrow_dataset import Dataset
    from datasets.dataset_dict import DatasetDict

DEFAULTS: Final[Mapping[str, str]] = {"train": "train", "valid": "validation", "test": "test"}
EXAMPLES: Final = "hf:org/name, hf:org/name:config@revision or hf:/path/to/folder"
_HUB: Final = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[^@]+))?(@(?P<revision>.+))?")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
# One look-up that fails fast.
_TIMEOUT_S: Final = 10.0
_ROWS_AT_A_TIME: Final = 1000


@dataclass(frozen=True, eq=False)
class TableAudio:
    """Audio in a cell of a dataset, which keeps it on disk.

    Attributes:
        table: a dataset with an undecoded column ``audio``.
        row: which.
        size: in bytes.
    """

    table: Dataset = field(repr=False)
    row: int
    size: int

    def read(self) -> bytes:
        """The bytes of the file."""
        data: bytes = self.table[self.row]["audio"]["bytes"]
        return data


@dataclass(frozen=True)
class _Place:
    """Where a dataset is: a folder, or a repository with configuration and revision."""

    name: str
    folder: Path | None = None
    config: str | None = None
    revision: str | None = None


def load(name: str, card: DownstreamCard, label_from: str, options: CorpusOptions) -> Corpus:
    """Load a dataset and check it as a manifest is checked.

    Utterances are called by the dataset's own split and the row in it, such as ``train/0``.

    Args:
        name: as typed, with ``hf:``.
        card: the task, which says what columns it needs.
        label_from: the column that holds the label (``"speaker"`` for SID).
        options: which of the dataset's splits are wanted, several joined by ``+``.

    Raises:
        SuperbError: a name that is none, a dataset that cannot be had, a split or column that is
            not there, and whatever `downstreams.corpora.manifest.from_rows` finds wrong.
    """
    refuse_options(name, options, f"the name says where it is: {EXAMPLES}", splits=False)
    place = _place(name)
    splits, source = _fetch(name, place)
    carve = "valid" not in options.splits
    wanted = choose_splits(
        name, [str(split) for split in splits], DEFAULTS, options.splits, carve=carve
    )
    needed = [label_from if need == "label" else need for need in card.needs]
    rows = [
        row
        for split, parts in wanted.items()
        for part in parts
        for row in _rows(name, splits[part], part, split, needed, place.folder)
    ]
    if not rows:
        raise SuperbError(f"{name} has no rows in {', '.join(map('+'.join, wanted.values()))}")
    corpus = from_rows(
        Path(name),
        rows,
        card,
        label_from,
        name=name.partition("@")[0] if place.folder is None else place.folder.resolve().name,
        source=source,
        licence=str(splits[wanted["train"][0]].info.license or ""),
    )
    return replace(corpus, note="; ".join(filter(None, [naming(wanted, DEFAULTS), corpus.note])))


def _place(name: str) -> _Place:
    given = name.removeprefix("hf:")
    if given.startswith(("/", "./", "../", "~")):
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise SuperbError(f"no folder at {folder}; give a dataset as {EXAMPLES}")
        return _Place(given, folder)
    found = _HUB.fullmatch(given)
    if found is None:
        raise SuperbError(f"{name!r} names no dataset; give one as {EXAMPLES}")
    return _Place(found["name"], None, found["config"], found["revision"])


def _fetch(name: str, place: _Place) -> tuple[DatasetDict, str]:
    """All splits of a dataset, on disk, and where exactly they are from."""
    from datasets.dataset_dict import DatasetDict
    from datasets.load import load_dataset

    try:
        if place.folder is None:
            commit = _commit(place)
            source = f"https://huggingface.co/datasets/{place.name}/tree/{commit}"
            return load_dataset(place.name, place.config, revision=commit), source
        source = str(place.folder)
        if (place.folder / "dataset_dict.json").is_file():  # written by save_to_disk
            return DatasetDict.load_from_disk(source), source
        return load_dataset(source), source
    except Exception as error:  # the library's errors, and those of its readers, vary by release
        # "An error occurred while generating the dataset" has the reason behind it.
        cause = error.__cause__ or error
        what = (str(cause).splitlines() or [""])[0].rstrip(".")
        raise SuperbError(
            f"cannot load {name}: {type(cause).__name__}: {what}. Give a dataset as {EXAMPLES}; "
            "what has a loading script or needs a log-in (hf auth login) is best saved with "
            "DatasetDict.save_to_disk and given as a folder"
        ) from error


def _commit(place: _Place) -> str:
    """The commit that a revision means now; one that is given in full is not asked for."""
    if place.revision and _COMMIT.fullmatch(place.revision):
        return place.revision
    from huggingface_hub import HfApi

    found = HfApi().dataset_info(place.name, revision=place.revision, timeout=_TIMEOUT_S)
    return str(found.sha)


def _rows(
    name: str, table: Dataset, part: str, split: str, needed: Sequence[str], folder: Path | None
) -> Iterator[Row]:
    """The rows of one split, audio left where it is."""
    columns = list(table.column_names)
    if missing := [column for column in ("audio", *needed) if column not in columns]:
        raise SuperbError(
            f"{name}, split {part}, lacks the column{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}; it has {', '.join(columns)}. Rename with "
            "Dataset.rename_column, save with DatasetDict.save_to_disk, and give that folder"
        )
    kept = [column for column in dict.fromkeys((*needed, "speaker")) if column in columns]
    cells = {column: _named(table, column) for column in kept}
    for number, audio in enumerate(_audio(name, table, folder)):
        row = {column: values[number] for column, values in cells.items()}
        yield Row(number, {**row, "id": f"{part}/{number}", "split": split, "audio": audio})


def _named(table: Dataset, column: str) -> list[Any]:
    """The cells of a column, classes by their names."""
    values: list[Any] = table.select_columns([column])[:][column]
    kind = table.features[column]
    if not hasattr(kind, "int2str"):
        return values
    # -1 is what datasets writes for a class that is not known.
    return ["" if value is None or value < 0 else kind.int2str(value) for value in values]


def _audio(name: str, table: Dataset, folder: Path | None) -> Iterator[TableAudio | str]:
    """Where the audio of each row is: in the table, or a file beside it. Reads no audio."""
    import pyarrow.compute as pc
    from datasets import Audio

    try:
        stored = table.select_columns(["audio"]).cast_column("audio", Audio(decode=False))
    except Exception as error:  # of Arrow and of the library alike
        raise SuperbError(
            f"{name}: column 'audio' holds {table.features['audio']}, not audio"
        ) from error
    number = 0
    for batch in stored.with_format("arrow").iter(_ROWS_AT_A_TIME):
        for chunk in batch["audio"].chunks:
            data, paths = chunk.flatten()
            sizes = pc.binary_length(data)  # type: ignore[attr-defined]
            for size, path in zip(sizes.to_pylist(), paths.to_pylist(), strict=True):
                if size is not None:
                    yield TableAudio(stored, number, size)
                elif path and (file := (folder or Path()).resolve() / path).is_file():
                    yield str(file)
                else:
                    raise SuperbError(f"{name}: row {number} has no audio: {path!r} is no file")
                number += 1
