"""Datasets of the Hugging Face hub, or folders in any format that ``datasets`` reads.

``hf:org/name[:config][@revision]`` or ``hf:/folder``. Columns have the names that a manifest's
have: ``audio``, ``text``, ``speaker``, ``label``. Splits are ``train``, ``validation`` (else taken
from train) and ``test`` unless others are named. Audio stays where ``datasets`` keeps it, encoded,
until an encoder wants it; code that a dataset brings along is never run. ``hf-stream:`` in place of
``hf:`` leaves a dataset on the hub, as is done with one that does not fit on the disk.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmark.core import Corpus, DownstreamCard
from benchmark.encoding.cache import format_bytes, free_bytes
from benchmark.errors import LacksError, SuperbError
from benchmark.progress import Progress
from downstreams.corpora import CorpusOptions, refuse_options
from downstreams.corpora.layout import choose_splits, naming
from downstreams.corpora.manifest import Row, from_rows
from downstreams.corpora.pronunciation import columns_read
from downstreams.corpora.streaming import StreamedSplit, obstacle, streamed
from downstreams.corpora.utterances import is_file

if TYPE_CHECKING:  # two seconds to import
    from datasets.arrow_dataset import Dataset
    from datasets.builder import DatasetBuilder

DEFAULTS: Final[Mapping[str, str]] = {"train": "train", "valid": "validation", "test": "test"}
EXAMPLES: Final = "hf:org/name, hf:org/name:config@revision or hf:/path/to/folder"
_HUB: Final = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[^@]+))?(@(?P<revision>.+))?")
_FILE: Final = re.compile(r"hf://datasets/(?P<name>[^@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.+)")
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
        origin: what stands for its bytes, and when they last changed; None for a table in memory.
    """

    table: Dataset = field(repr=False)
    row: int
    size: int
    origin: tuple[str, int] | None

    @property
    def far(self) -> bool:
        """False: it lies on the disk."""
        return False

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            OSError: when the row holds none.
        """
        cell: Mapping[str, Any] | None = self.table[self.row]["audio"]
        data: bytes | None = cell["bytes"] if cell is not None else None
        if data is None:
            raise OSError(f"row {self.row} holds no audio")
        return data


@dataclass(frozen=True, eq=False)
class TableSplit:
    """A split of a dataset that is on the disk.

    Attributes:
        table: all of it.
        folder: where paths of audio files start.
        origin: what stands for all of it.
        pinned: whether it does so for ever.
    """

    table: Dataset
    folder: Path
    origin: str
    pinned: bool

    @property
    def features(self) -> Mapping[str, Any]:
        """All columns and their types."""
        found: Mapping[str, Any] = self.table.features
        return found

    def cells(self, columns: Sequence[str]) -> Dataset:
        """Some columns."""
        found: Dataset = self.table.select_columns(list(columns))
        return found

    def audio(self) -> Iterator[TableAudio | str]:
        """Where the audio of each row is: in the table, or a file beside it. Reads no audio.

        Raises:
            SuperbError: when the column ``audio`` does not hold audio, or a file is not there.
        """
        import pyarrow.compute as pc
        from datasets import Audio

        try:
            stored = self.cells(["audio"]).cast_column("audio", Audio(decode=False))
        except Exception as error:  # of Arrow and of the library alike
            raise SuperbError(
                f"column 'audio' holds {self.features['audio']}, not audio"
            ) from error
        number = 0
        changed = 0 if self.pinned else _changed_ns(self.table)
        for batch in stored.with_format("arrow").iter(_ROWS_AT_A_TIME):
            for chunk in batch["audio"].chunks:
                data, paths = chunk.flatten()
                sizes = pc.binary_length(data)  # type: ignore[attr-defined]
                for size, path in zip(sizes.to_pylist(), paths.to_pylist(), strict=True):
                    if size is None and path and (file := self._file(path, number)):
                        yield str(file)
                    else:  # a row without audio is found out when it is read
                        origin = None if changed is None else (f"{self.origin}/{number}", changed)
                        yield TableAudio(stored, number, size or 0, origin)
                    number += 1

    def _file(self, path: str, row: int) -> Path | None:
        """A file beside the table, or wherever the library has put it."""
        file = Path(path)
        if not file.is_absolute():
            if self.pinned:  # of a dataset of the hub, nothing lies in the working folder
                return None
            file = self.folder / file
        if not is_file(file):
            raise SuperbError(f"row {row} has no audio: {path!r} is no file")
        return file


@dataclass(frozen=True)
class _Place:
    """Where a dataset is: a folder, or a repository with configuration and revision."""

    name: str
    folder: Path | None = None
    config: str | None = None
    revision: str | None = None
    stream: bool = False


@dataclass(frozen=True)
class _Found:
    """A dataset: its splits, where exactly they are from, and what is known of all of them.

    Attributes:
        pinned: what fixes its bytes for ever, "" for a folder.
    """

    splits: Mapping[str, TableSplit | StreamedSplit]
    source: str
    licence: str
    pinned: str = ""
    note: str = ""


def load(name: str, card: DownstreamCard, options: CorpusOptions) -> Corpus:
    """Load a dataset and check it as a manifest is checked.

    Utterances are called by the dataset's own split and the row in it, such as ``train/0``. A
    dataset of the hub is the same corpus whether it is downloaded or streamed.

    Args:
        name: as typed, with ``hf:`` or ``hf-stream:``.
        card: the task, which says what columns it needs.
        options: which of the dataset's splits are wanted, several joined by ``+``.

    Raises:
        SuperbError: a name that is none, a dataset that cannot be had, a split or column that is
            not there, and whatever `downstreams.corpora.manifest.from_rows` finds wrong.
    """
    refuse_options(name, options, f"the name says where it is: {EXAMPLES}", splits=False)
    place = _place(name)
    found = _fetch(name, place)
    carve = "valid" not in options.splits
    wanted = choose_splits(name, list(found.splits), DEFAULTS, options.splits, carve=carve)
    rows = [
        row
        for split, parts in wanted.items()
        for part in parts
        for row in _rows(name, found.splits[part], part, split, card, options.pronunciations)
    ]
    if not rows:
        raise SuperbError(f"{name} has no rows in {', '.join(map('+'.join, wanted.values()))}")
    corpus = from_rows(
        Path(name),
        rows,
        card,
        name=_called(place),
        source=found.source,
        licence=found.licence,
        pinned=found.pinned,
        pronunciations=options.pronunciations,
    )
    notes = (found.note, naming(wanted, DEFAULTS), corpus.note)
    return replace(corpus, note="; ".join(filter(None, notes)))


def _called(place: _Place) -> str:
    """The name of the corpus: that of the folder, or of the dataset without its revision."""
    if place.folder is not None:
        return place.folder.resolve().name
    return f"hf:{place.name}" + (f":{place.config}" if place.config else "")


def _place(name: str) -> _Place:
    prefix, _, given = name.partition(":")
    stream = prefix == "hf-stream"
    if given.startswith(("/", "./", "../", "~")):
        folder = Path(given).expanduser()
        if stream:
            raise SuperbError(f"a folder is on the disk already: give it as hf:{given}")
        if not folder.is_dir():
            raise SuperbError(f"no folder at {folder}; give a dataset as {EXAMPLES}")
        return _Place(given, folder)
    found = _HUB.fullmatch(given)
    if found is None:
        raise SuperbError(f"{name!r} names no dataset; give one as {EXAMPLES}")
    return _Place(found["name"], None, found["config"], found["revision"], stream)


def _fetch(name: str, place: _Place) -> _Found:
    """All splits of a dataset."""
    from datasets.dataset_dict import DatasetDict
    from datasets.exceptions import DatasetGenerationError
    from datasets.load import load_dataset

    try:
        if place.folder is None:
            return _fetch_from_hub(name, place)
        source = str(place.folder)
        if (place.folder / "dataset_dict.json").is_file():  # written by save_to_disk
            return _on_disk(DatasetDict.load_from_disk(source), place.folder, source)
        return _on_disk(load_dataset(source), place.folder, source)
    except SuperbError:
        raise
    except Exception as error:  # the library's errors, and those of its readers, vary by release
        # "An error occurred while generating the dataset" has the reason behind it.
        generating = isinstance(error, DatasetGenerationError)
        cause = (error.__cause__ or error) if generating else error
        what = (str(cause).splitlines() or [""])[0].rstrip(".")
        raise SuperbError(
            f"cannot load {name}: {type(cause).__name__}: {what}. Give a dataset as {EXAMPLES}; "
            "what has a loading script or needs a log-in (hf auth login) is best saved with "
            "DatasetDict.save_to_disk and given as a folder"
        ) from error


def _on_disk(splits: Mapping[Any, Dataset], folder: Path, source: str, pinned: str = "") -> _Found:
    origin = pinned or str(folder.resolve())
    tables = {
        str(split): TableSplit(table, folder.resolve(), f"{origin}/{split}", bool(pinned))
        for split, table in splits.items()
    }
    licences = [str(table.info.license or "") for table in splits.values()]
    return _Found(tables, source, licences[0] if licences else "", pinned)


def _changed_ns(table: Dataset) -> int | None:
    """When the files of a table last changed; None for one in memory."""
    files = [Path(file["filename"]) for file in table.cache_files]
    return max((file.stat().st_mtime_ns for file in files), default=None)


def _fetch_from_hub(name: str, place: _Place) -> _Found:
    """A dataset of the hub at a commit: downloaded if it fits on the disk, else streamed."""
    from datasets.load import load_dataset_builder

    commit = _commit(place)
    source = f"https://huggingface.co/datasets/{place.name}/tree/{commit}"
    builder = load_dataset_builder(place.name, place.config, revision=commit)
    # Where the hub cannot be reached, the library takes whatever commit it loaded last.
    if builder.hash != commit:
        raise SuperbError(
            f"cannot load {name}: the hub cannot be reached, and {builder.cache_dir} holds commit "
            f"{builder.hash}, not {commit}. Go online, or ask for @{builder.hash}"
        )
    # A dataset has the same rows at a commit, however they get here.
    pinned = f"hf:{place.name}:{builder.config.name}@{commit}"
    shortage = "" if place.stream else _shortage(builder)
    if not place.stream and not shortage:
        builder.download_and_prepare()
        tables: Any = builder.as_dataset()
        return _on_disk(tables, Path(), source, pinned)
    if why_not := obstacle(builder):
        if place.stream:
            instead = name.replace("hf-stream:", "hf:", 1)
            raise SuperbError(f"{name} cannot be streamed: {why_not}. Download it: {instead}")
        raise SuperbError(
            f"{name} cannot be downloaded: {shortage}. Nor can it be streamed: {why_not}. Make "
            "room, or set HF_HOME to a folder on a larger disk"
        )
    if shortage:
        Progress().warn(f"{name} is streamed from the hub: {shortage}")
    note = f"streamed from the hub: {shortage}" if shortage else "streamed from the hub"
    return _Found(streamed(builder, pinned), source, str(builder.info.license or ""), pinned, note)


def _commit(place: _Place) -> str:
    """The commit that a revision means now; one that is given in full is not asked for."""
    if place.revision and _COMMIT.fullmatch(place.revision):
        return place.revision
    from huggingface_hub import HfApi

    found = HfApi().dataset_info(place.name, revision=place.revision, timeout=_TIMEOUT_S)
    return str(found.sha)


def _shortage(builder: DatasetBuilder) -> str:
    """What is missing on the disk to download and prepare a dataset, in words; "" for nothing."""
    import datasets
    from huggingface_hub import constants

    if (Path(builder.cache_dir) / datasets.config.DATASET_INFO_FILENAME).is_file():
        return ""  # was prepared before
    info = builder.info
    files = [path for paths in (builder.config.data_files or {}).values() for path in paths]
    left = [path for path in files if path.startswith("hf://") and not _is_cached(path)]
    download = info.download_size if info.download_size and len(left) == len(files) else _size(left)
    whole = info.dataset_size or info.download_size or _size(files)
    folders = [Path(constants.HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE)]
    needed: Counter[int] = Counter()
    for folder, size in zip(folders, (download, whole), strict=True):
        free = free_bytes(folder)
        disk = folder.stat().st_dev  # they may share one
        needed[disk] += size
        if needed[disk] > free:
            return f"it takes {format_bytes(needed[disk])} on a disk with {format_bytes(free)} free"
    return ""


def _size(files: Sequence[str]) -> int:
    """Bytes of files of the hub."""
    from huggingface_hub import HfFileSystem

    hub = HfFileSystem()
    return sum(int(hub.info(path)["size"]) for path in files if path.startswith("hf://"))


def _is_cached(file: str) -> bool:
    """Whether a file of the hub, at a commit, was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    found = _FILE.fullmatch(file)
    if found is None:
        return False
    cached = try_to_load_from_cache(
        found["name"], found["path"], revision=found["commit"], repo_type="dataset"
    )
    return isinstance(cached, str)


def _rows(
    name: str,
    found: TableSplit | StreamedSplit,
    part: str,
    split: str,
    card: DownstreamCard,
    pronunciations: Path | None,
) -> Iterator[Row]:
    """The rows of one split, audio left where it is."""
    columns = list(found.features)
    needed = columns_read(card, columns, pronunciations).columns
    if missing := [column for column in ("audio", *needed) if column not in columns]:
        raise LacksError(
            f"{name}, split {part}, lacks the column{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}; it has {', '.join(columns)}. Rename with "
            "Dataset.rename_column, save with DatasetDict.save_to_disk, and give that folder"
        )
    kept = [column for column in dict.fromkeys((*needed, "speaker")) if column in columns]
    try:
        table = found.cells(kept)
        cells = {column: _named(table, column) for column in kept}
        for number, audio in enumerate(found.audio()):
            row = {column: values[number] for column, values in cells.items()}
            yield Row(
                number, {**row, "id": f"{part}/{number}", "split": split, "audio": audio}, part
            )
    except SuperbError as error:
        raise SuperbError(f"{name}, split {part}: {error}") from error


def _named(table: Dataset, column: str) -> list[Any]:
    """The cells of a column, classes by their names."""
    values: list[Any] = table.select_columns([column])[:][column]
    kind = table.features[column]
    if not hasattr(kind, "int2str"):
        return values
    # -1 is what datasets writes for a class that is not known.
    return ["" if value is None or value < 0 else kind.int2str(value) for value in values]
