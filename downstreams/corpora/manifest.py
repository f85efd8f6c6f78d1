"""One's own data: a table of recordings in CSV, TSV, JSON lines or Parquet.

Columns: ``audio`` (a path, relative to the manifest's folder or absolute), ``split`` (``train``,
``valid`` or ``test``) and what the task needs (``text``, ``speaker``, ``label``). Optional:
``id`` (else the audio path as written) and ``speaker``, by which intervals are clustered. Columns
that the task does not need are ignored. A Parquet manifest may also hold the audio itself, as the
``{bytes, path}`` struct that Hugging Face ``datasets`` writes.
"""

from __future__ import annotations

import csv
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmark.core import Corpus, DownstreamCard, StoredAudio, Utterance
from benchmark.errors import SuperbError
from downstreams.corpora import MANIFEST_SUFFIXES
from downstreams.corpora.utterances import checked

# What other tools call our columns; only for hints, nothing is renamed silently.
_OTHER_NAMES: Final = {
    "audio": ("path", "file", "file_name", "filename", "filepath", "wav", "audio_path"),
    "split": ("set", "subset", "partition", "fold"),
    "text": ("sentence", "transcript", "transcription", "raw_text", "normalized_text"),
    "speaker": ("speaker_id", "spk", "spk_id", "client_id", "subject"),
    "label": ("keyword", "command", "class", "target", "category", "word", "text"),
}


@dataclass(frozen=True)
class Row:
    """One row as read: where it stands, and its cells."""

    line: int
    cells: dict[str, Any]


def load(path: Path, card: DownstreamCard) -> Corpus:
    """Read and check a manifest of one's own data for one task.

    Text, label, speaker and other cells are brought to Unicode NFC and their white space is
    collapsed; nothing else is changed. What is checked, and how a missing valid split is made, is
    told by `downstreams.corpora.utterances.checked`.

    Args:
        path: the manifest; its suffix tells the format.
        card: the task, which says what columns it needs.

    Raises:
        SuperbError: for whatever is wrong with the manifest, naming the first few rows.
    """
    name = path.parent.resolve().name if path.stem == "manifest" else path.stem
    return from_rows(path, _read(path), card, name=name, source=str(path))


def from_rows(
    path: Path,
    rows: Sequence[Row],
    card: DownstreamCard,
    *,
    name: str,
    source: str,
    licence: str = "",
    pinned: str = "",
) -> Corpus:
    """Check rows of any origin as `load` does, and make a corpus of them.

    Args:
        path: what messages name; audio paths are relative to its folder.
        rows: at least one, with cells as in a manifest; ``audio`` may also be a `StoredAudio`.
        card: the task, which says what columns it needs.
        name: of the corpus.
        source: where it comes from.
        licence: of the audio.
        pinned: what fixes the bytes of all audio, as for `content_sha256`.

    Raises:
        SuperbError: for whatever is wrong with the rows, naming the first few.
    """
    _check_columns(path, rows, card)
    return checked(
        str(path),
        [_utterance(path, row, card) for row in rows],
        card,
        name=name,
        source=source,
        licence=licence,
        pinned=pinned,
        places=[f"line {row.line}" for row in rows],
        remedy=f"Paths are relative to the manifest's folder, {path.parent.resolve()}",
    )


# Reading ---------------------------------------------------------------------------------------


def _read(path: Path) -> list[Row]:
    """All rows of a manifest, whatever its format.

    Raises:
        SuperbError: for an unknown suffix, a missing file and one that is not what it says.
    """
    suffix = path.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise SuperbError(
            f"cannot tell the format of manifest {path}: its name must end in "
            f"{', '.join(MANIFEST_SUFFIXES)}"
        )
    if not path.is_file():
        raise SuperbError(
            f"no manifest at {path}; give the path of a table with the columns audio, split and "
            "what the task needs"
        )
    try:
        if suffix == ".parquet":
            rows = _read_parquet(path)
        elif suffix == ".jsonl":
            rows = _read_json_lines(path)
        else:
            rows = _read_delimited(path, "\t" if suffix == ".tsv" else ",")
    except UnicodeDecodeError as error:
        raise SuperbError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    if not rows:
        raise SuperbError(f"{path} has no rows")
    return rows


def _read_delimited(path: Path, delimiter: str) -> list[Row]:
    rows = []
    # utf-8-sig drops the byte order mark that spreadsheets write; newline="" leaves CRLF to csv.
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict: a stray quotation mark is an error instead of swallowing the lines after it.
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) < len(header):
                twice = sorted(name for name, count in Counter(header).items() if count > 1)
                raise SuperbError(f"{path}: column names occur twice: {', '.join(twice)}")
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise SuperbError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells, the header has "
                        f"{len(header)}; quote cells that contain the delimiter"
                    )
                rows.append(Row(reader.line_num, dict(zip(header, cells, strict=True))))
        except csv.Error as error:
            raise SuperbError(
                f"{path}, line {reader.line_num}: {error}; write a quotation mark inside a "
                'quoted cell twice ("")'
            ) from error
    return rows


def _read_json_lines(path: Path) -> list[Row]:
    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:  # also of numbers of 5,000 digits
                raise SuperbError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(cells, dict):
                raise SuperbError(f"{path}, line {number}: not a JSON object but {line[:40]!r}")
            rows.append(Row(number, cells))
    return rows


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException

    try:
        # Not read_table(path), which takes folders named like split=train for columns.
        with path.open("rb") as file:
            cells = pq.ParquetFile(file).read().to_pylist()  # type: ignore[no-untyped-call]
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        # The last two are of values that Python has not, such as years after 9999.
        raise SuperbError(f"{path} is not a readable Parquet file: {error}") from error
    return [Row(number, own) for number, own in enumerate(cells, start=1)]


def _utterance(path: Path, row: Row, card: DownstreamCard) -> Utterance:
    """One row as an utterance; a column that the task does not need stays empty."""
    with_text = "text" in card.columns and card.label_from != "text"
    audio, written = _audio(path, row)
    return Utterance(
        id=_text(row.cells.get("id")) or written,
        audio=audio,
        split=_text(row.cells.get("split")),
        speaker=_text(row.cells.get("speaker")),
        text=_text(row.cells.get("text")) if with_text else "",
        label=_text(row.cells.get(card.label_from)) if card.labelled else "",
        columns={
            column: _text(row.cells.get(column))
            for column in card.needs
            if column not in ("text", "speaker", "label")
        },
    )


def _audio(path: Path, row: Row) -> tuple[Path | bytes | StoredAudio, str]:
    """The audio of a row, and how the row names it."""
    cell = row.cells.get("audio")
    if isinstance(cell, StoredAudio):
        return cell, f"row-{row.line}"
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"], str(cell.get("path") or f"row-{row.line}")
    written = str((cell.get("path") if isinstance(cell, dict) else cell) or "").strip()
    if not written:
        raise SuperbError(f"{path}, line {row.line}: the 'audio' cell is empty")
    return path.parent / written, written  # an absolute path replaces the folder


def _text(cell: object) -> str:
    """A cell as text: NFC, white space collapsed; null and NaN are empty."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return unicodedata.normalize("NFC", " ".join(str(cell).split()))


# Checking --------------------------------------------------------------------------------------


def _check_columns(path: Path, rows: Sequence[Row], card: DownstreamCard) -> None:
    """Raise when a needed column is missing, telling what to rename."""
    needed = ("audio", "split", *card.columns)
    # JSON lines may leave a key out; the row is then an empty cell, reported with its line.
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    missing = [name for name in needed if name not in columns]
    if not missing:
        return
    renames = []
    for name in missing:
        kind = "label" if card.labelled and name == card.label_from else name
        others = (name, *_OTHER_NAMES.get(kind, ()))
        lower = {column.lower(): column for column in columns}
        found = next((lower[other] for other in others if other in lower), None)
        renames.append(f"{found or 'the column that holds it'} to {name}")
    raise SuperbError(
        f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}. "
        f"It has: {', '.join(columns)}. Rename {' and '.join(renames)}; the task needs "
        f"{', '.join(needed)}"
    )
