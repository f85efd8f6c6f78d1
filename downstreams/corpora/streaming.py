"""Datasets of the Hugging Face hub, read where they are: Parquet files over the network.

Everything but audio is read at the start, a few megabytes; the audio of an utterance when an
encoder wants it, with the row group that it stands in. A row group holds a hundred or a thousand
rows that follow each other, so whoever goes through a corpus in its order fetches each one once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from benchmark.errors import SuperbError

if TYPE_CHECKING:  # seconds to import
    import pyarrow.parquet as pq
    from datasets.arrow_dataset import Dataset
    from datasets.builder import DatasetBuilder
    from huggingface_hub import HfFileSystem
    from pyarrow.lib import ChunkedArray, Table

# The leaf of the audio column that holds the bytes of files.
_BYTES: Final = "audio.bytes"
# Whoever reads is up to a few utterances ahead of whoever cuts crops out of them.
_KEPT_GROUPS: Final = 2
_FILES_AT_ONCE: Final = 8


class RowGroups:
    """Parquet files of one dataset, of whose audio the last few row groups are in memory.

    May be used by several threads; only one of them fetches audio at a time.

    Args:
        filesystem: where the files are.
    """

    def __init__(self, filesystem: HfFileSystem) -> None:
        self._filesystem = filesystem
        self._footers: dict[str, pq.FileMetaData] = {}
        self._kept: dict[tuple[str, int], ChunkedArray] = {}
        self._lock = Lock()
        self._broken: SuperbError | None = None

    def footer(self, path: str) -> pq.FileMetaData:
        """What a file says of its row groups and columns; fetched once.

        Raises:
            SuperbError: when the file cannot be read.
        """
        if path not in self._footers:
            with self._open(path):
                pass  # which keeps it
        return self._footers[path]

    def table(self, path: str, columns: Sequence[str]) -> Table:
        """Some columns of a file, all rows.

        Raises:
            SuperbError: when the file cannot be read.
        """
        with self._open(path) as file:
            found: Table = file.read(list(columns), use_threads=False)  # type: ignore[no-untyped-call]
        return found

    def audio(self, path: str, group: int, row: int) -> bytes:
        """The bytes of the audio file in a row of a row group.

        Raises:
            OSError: when there are none.
            SuperbError: when the row group cannot be fetched, or one before it could not.
        """
        with self._lock:
            if (path, group) not in self._kept:
                self._kept[path, group] = self._fetch(path, group)
            data: bytes | None = self._kept[path, group][row]["bytes"].as_py()
        if data is None:
            raise OSError(f"row {row} of row group {group} of {path} holds no audio")
        return data

    def _fetch(self, path: str, group: int) -> ChunkedArray:
        """The audio of a row group, as structs with ``bytes``."""
        # The hub's client has tried for half a minute by then: once for all who wait is enough.
        if self._broken is not None:
            raise self._broken
        if len(self._kept) == _KEPT_GROUPS:  # the oldest goes before another comes
            del self._kept[next(iter(self._kept))]
        try:
            with self._open(path) as file:
                table = file.read_row_group(group, [_BYTES], use_threads=False)  # type: ignore[no-untyped-call]
        except SuperbError as error:
            self._broken = error
            raise
        found: ChunkedArray = table["audio"]
        return found

    @contextmanager
    def _open(self, path: str) -> Iterator[pq.ParquetFile]:
        import pyarrow.parquet as pq

        try:
            # Exactly what Parquet asks for is fetched, not the megabytes after it.
            with (
                self._filesystem.open(path, "rb", cache_type="none") as raw,
                pq.ParquetFile(raw, metadata=self._footers.get(path), pre_buffer=True) as file,  # type: ignore[no-untyped-call]
            ):
                self._footers[path] = file.metadata
                yield file
        except Exception as error:  # of the hub's client, its HTTP library and Arrow alike
            what = (str(error).splitlines() or [""])[0].rstrip(".")
            raise SuperbError(
                f"cannot stream {path}: {type(error).__name__}: {what}. Run the same command again "
                "once the hub can be reached; what is encoded is kept"
            ) from error


@dataclass(frozen=True, eq=False, slots=True)
class StreamedAudio:
    """Audio in a row of a Parquet file on the hub.

    Attributes:
        groups: fetches it.
        path: of the file.
        group: the row group.
        row: in the row group.
        size: in bytes; the mean of the row group, since no more is known before it is read.
        origin: what stands for its bytes, the same as once they are downloaded.
    """

    groups: RowGroups = field(repr=False)
    path: str
    group: int
    row: int
    size: int
    origin: tuple[str, int]

    @property
    def far(self) -> bool:
        """True: it lies across a network."""
        return True

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            OSError: when the row holds none.
            SuperbError: when the hub cannot be reached.
        """
        return self.groups.audio(self.path, self.group, self.row)


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split of a dataset that stays on the hub.

    Attributes:
        files: its Parquet files, in order.
        features: all columns and their types.
        groups: reads the files.
        origin: what stands for all of it, for ever.
    """

    files: Sequence[str]
    features: Mapping[str, Any]
    groups: RowGroups
    origin: str

    def cells(self, columns: Sequence[str]) -> Dataset:
        """Some columns, in memory; none of them may hold audio.

        Raises:
            SuperbError: when a file cannot be read.
        """
        from datasets.arrow_dataset import Dataset
        from datasets.features import Features
        from datasets.info import DatasetInfo
        from datasets.table import table_cast
        from pyarrow.lib import concat_tables

        types: Any = {column: self.features[column] for column in columns}
        features = Features(types)  # type: ignore[no-untyped-call]

        def read(path: str) -> Table:
            table = self.groups.table(path, columns)
            try:
                return table_cast(table, features.arrow_schema)
            except Exception as error:  # of Arrow and of the library alike
                what = (str(error).splitlines() or [""])[0].rstrip(".")
                raise SuperbError(
                    f"cannot read {path} as the dataset's card says: {what}"
                ) from error

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            table = concat_tables(list(pool.map(read, self.files)))
        return Dataset(table, info=DatasetInfo(features=features))

    def audio(self) -> Iterator[StreamedAudio]:
        """Where the audio of each row is; fetches none.

        Raises:
            SuperbError: when a file cannot be read, or the column ``audio`` does not hold audio.
        """
        number = 0
        for path in self.files:
            footer = self.groups.footer(path)
            leaves = [footer.schema.column(index).path for index in range(footer.num_columns)]
            if _BYTES not in leaves:
                raise SuperbError(
                    f"cannot stream {path}: its column 'audio' does not hold the bytes of audio "
                    f"files, but {self.features['audio']}"
                )
            leaf = leaves.index(_BYTES)
            for group in range(footer.num_row_groups):
                about = footer.row_group(group)
                size = about.column(leaf).total_uncompressed_size // max(about.num_rows, 1)
                for row in range(about.num_rows):
                    origin = f"{self.origin}/{number}", 0
                    yield StreamedAudio(self.groups, path, group, row, size, origin)
                    number += 1


def obstacle(builder: DatasetBuilder) -> str:
    """Why a dataset cannot be streamed, in words; "" where it can."""
    from datasets.packaged_modules.cache.cache import Cache
    from datasets.packaged_modules.parquet.parquet import Parquet

    if isinstance(builder, Cache):
        return "the hub cannot be reached"
    if not isinstance(builder, Parquet):
        kind = type(builder).__mro__[1].__name__
        return f"it does not come as Parquet files but as {kind}"
    if builder.config.filters is not None:
        return "its configuration filters rows"
    return ""


def streamed(builder: DatasetBuilder, origin: str) -> dict[str, StreamedSplit]:
    """The splits of a dataset, by name, read from the hub whenever something of them is wanted.

    Args:
        builder: of Parquet files (see `obstacle`), at a commit.
        origin: what stands for the dataset at that commit.

    Raises:
        SuperbError: when the hub cannot be reached.
    """
    from datasets.features import Features
    from huggingface_hub import HfFileSystem

    found: Any = builder.config.data_files
    files = {str(split): [str(path) for path in paths] for split, paths in found.items()}
    groups = RowGroups(HfFileSystem())
    features: Any = builder.info.features
    if features is None:  # as the builder itself finds out
        schema = groups.footer(next(iter(files.values()))[0]).schema.to_arrow_schema()
        features = Features.from_arrow_schema(schema)
    return {
        split: StreamedSplit(paths, features, groups, f"{origin}/{split}")
        for split, paths in files.items()
    }
