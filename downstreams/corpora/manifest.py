"""One's own data: a table of recordings in CSV, TSV, JSON lines or Parquet.

Columns: ``audio`` (a path, relative to the manifest's folder or absolute), ``split`` (``train``,
``valid`` or ``test``) and what the task needs (``text``, ``speaker``, ``label``, ``phones`` or
others). A column ``fold`` may stand in place of ``split``: see `downstreams.corpora.folds`;
``text`` in place of ``phones``: see `downstreams.corpora.pronunciation`; and ``speaker`` in place
of ``segments``: see `downstreams.corpora.mixtures`. Optional: ``id`` (else the audio path as
written) and ``speaker``, by which intervals are clustered. Columns that the task does not need are
ignored. A Parquet manifest may also hold the audio itself, as the ``{bytes, path}``
struct that Hugging Face ``datasets`` writes.

Text is UTF-8. In CSV any cell may be quoted; a quotation mark in a quoted cell is written twice,
and a quoted cell over several lines may not hold as many commas as a row has. In TSV quotation
marks are text, as Common Voice has them, and a row is a line, unless a program has quoted there:
TSV with a quoted header is read like CSV, and a cell between quotation marks is unquoted if it
holds a tab, nothing, or quotation marks all of which are written twice.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmark.core import SPLITS, Corpus, DownstreamCard, StoredAudio, Utterance
from benchmark.errors import LacksError, SuperbError
from downstreams.corpora import MANIFEST_SUFFIXES, mixtures
from downstreams.corpora.folds import rotated
from downstreams.corpora.layout import choose_splits, naming
from downstreams.corpora.pronunciation import columns_read
from downstreams.corpora.utterances import checked
from downstreams.corpora.words import one_form

# What other tools call our columns; only for hints, nothing is renamed silently.
_OTHER_NAMES: Final = {
    "audio": ("path", "file", "file_name", "filename", "filepath", "wav", "audio_path"),
    "split": ("set", "subset", "partition"),
    "text": ("sentence", "transcript", "transcription", "raw_text", "normalized_text"),
    "speaker": ("speaker_id", "spk", "spk_id", "client_id", "subject"),
    "label": ("label", "keyword", "command", "class", "target", "category", "word", "text"),
}


_SPLITS: Final = {split: split for split in SPLITS}
# Paths that differ take a bit or two each, however well they are compressed.
_ROWS_PER_BYTE: Final = 8
_DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# What a program has quoted that quotes cells only where it must.
_QUOTED: Final = re.compile(r'"(|(?:[^"]|"")*""(?:[^"]|"")*)"')


@dataclass(frozen=True)
class Row:
    """One row as read: where it stands (in which part, if there are several), and its cells."""

    line: int
    cells: dict[str, Any]
    part: str = ""

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.part}/{self.line}" if self.part else f"line {self.line}"


def load(
    path: Path,
    card: DownstreamCard,
    pronunciations: Path | None = None,
    *,
    name: str = "",
    splits: Mapping[str, str] | None = None,
) -> Corpus:
    """Read and check a manifest of one's own data for one task.

    Cells are text or numbers; of numbers, 1.0 is 1. What is checked, and how a missing valid split
    is made, is told by `downstreams.corpora.utterances.checked`.

    Args:
        path: the manifest; its suffix tells the format.
        card: the task, which says what columns it needs.
        pronunciations: a lexicon, as for `downstreams.corpora.pronunciation.columns_read`.
        name: of the corpus; if "" that of the file, or of its folder if it is called manifest.
        splits: our name of a split → what column ``split`` has for it, several joined by ``+``;
            other rows are left out. If none is given, the column has our names.

    Raises:
        SuperbError: for whatever is wrong with the manifest, naming the first few rows.
    """
    own = path.parent.resolve().name if path.stem == "manifest" else path.stem
    rows, note = read_rows(path), ""
    if splits:
        rows, note = _chosen(path, rows, splits)
    corpus = from_rows(
        path, rows, card, name=name or own, source=str(path), pronunciations=pronunciations
    )
    notes = [text for text in (note, corpus.note) if text]
    return replace(corpus, note="; ".join(notes))


def _chosen(path: Path, rows: Sequence[Row], given: Mapping[str, str]) -> tuple[list[Row], str]:
    """The rows of the splits that are asked for, under our names, and a note on which."""
    if not any("split" in row.cells for row in rows):
        options = " and ".join(f"--{split}-split" for split in given)
        raise SuperbError(f"{path} has no column split, of which {options} would choose values")
    there = dict.fromkeys(one_form(_text(path, row, "split")) for row in rows)
    wanted = choose_splits(str(path), there, _SPLITS, given, carve="valid" not in given)
    ours = {part: split for split, parts in wanted.items() for part in parts}
    found = [(row, one_form(_text(path, row, "split"))) for row in rows]
    kept = [
        replace(row, cells={**row.cells, "split": ours[split]})
        for row, split in found
        if split in ours
    ]
    return kept, naming(wanted, _SPLITS)


def from_rows(
    path: Path,
    rows: Sequence[Row],
    card: DownstreamCard,
    *,
    name: str,
    source: str,
    licence: str = "",
    pinned: str = "",
    pronunciations: Path | None = None,
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
        pronunciations: a lexicon, as for `load`.

    Raises:
        SuperbError: for whatever is wrong with the rows, naming the first few.
    """
    # JSON lines may leave a key out; the row is then an empty cell, reported with its line.
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    read = mixtures.columns_read(columns_read(card, columns, pronunciations), columns)
    split = "fold" if "fold" in columns and "split" not in columns else "split"
    _check_columns(path, columns, read, split)
    utterances = [_utterance(path, row, read, split) for row in rows]
    note = "column fold not used: split decides" if {"fold", "split"} <= {*columns} else ""
    folds = None
    if split == "fold":
        folds, note = _folds(path, rows, utterances)
    return checked(
        str(path),
        utterances,
        card,
        name=name,
        source=source,
        licence=licence,
        note=note,
        pinned=pinned,
        folds=folds,
        apart=True,
        places=[row.place for row in rows],
        remedy=(
            "The column 'audio' holds paths relative to the manifest's folder, "
            f"{path.parent.resolve()}"
        ),
        pronunciations=pronunciations,
    )


def recordings(path: Path, card: DownstreamCard) -> list[Utterance]:
    """What a manifest lists, to be answered: no column but ``audio`` need be there.

    Args:
        path: the manifest.
        card: the task, whose columns are read where they are there.

    Raises:
        SuperbError: it cannot be read, has no column ``audio``, or an id twice.
    """
    rows = read_rows(path)
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    if "audio" not in columns:
        raise SuperbError(
            f"{path} lacks the column audio, which holds paths relative to its folder. It has: "
            f"{', '.join(columns)}"
        )
    found = [_utterance(path, row, card, "fold") for row in rows]
    twice = [name for name, count in Counter(u.id for u in found).items() if count > 1]
    if twice:
        raise SuperbError(f"{path}: ids that occur twice: {', '.join(twice[:3])}; see column id")
    return found


# Reading ---------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    """All rows of a manifest, or of another table, whatever its format.

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
    # utf-8-sig drops the byte order mark that spreadsheets write; all kinds of line end become \n
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    if "\0" in lines[0]:
        raise SuperbError(f"{path} is not UTF-8 text but perhaps UTF-16; save it as UTF-8")
    if delimiter == "," or lines[0].lstrip().startswith('"'):
        table = _quoted_lines(path, lines, delimiter)
    else:
        table = _plain_lines(lines, delimiter)
    _, names = next(table, (1, []))
    _check_delimiter(path, names, delimiter)
    header = [one_form(name) for name in names]
    _check_names(str(path), header)
    rows = []
    for number, cells in table:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise SuperbError(
                f"{path}, line {number}: {len(cells)} cells, the header has {len(header)}; quote "
                "cells that contain the delimiter"
            )
        rows.append(Row(number, dict(zip(header, cells, strict=True))))
    return rows


def _quoted_lines(
    path: Path, lines: Iterable[str], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of each row of a table in which any cell may be quoted.

    Raises:
        SuperbError: a quotation that goes on after its end, or that has swallowed rows.
    """
    # Strict: a stray quotation mark is an error instead of swallowing the lines after it.
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    start, wanted = 1, 0
    try:
        for cells in reader:
            wanted = wanted or len(cells)
            # One row opened a quotation and another ended it: between them lies a row's worth.
            if any("\n" in cell and cell.count(delimiter) >= wanted - 1 for cell in cells):
                raise csv.Error(f"a cell goes on to line {reader.line_num} and holds whole rows")
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise SuperbError(
            f"{path}, line {start}: {error}; end each quotation, and write a quotation mark inside "
            'a quoted cell twice ("")'
        ) from error


def _plain_lines(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of each row of a table without quoting, but for what a program must quote."""
    wanted = 0
    for number, line in enumerate(lines, start=1):
        cells = line.split(delimiter)
        wanted = wanted or len(cells)
        if len(cells) == wanted:
            cells = [c[1:-1].replace('""', '"') if _QUOTED.fullmatch(c) else c for c in cells]
        elif '"' in line:  # perhaps a cell holds the delimiter
            with suppress(csv.Error):
                cells = next(csv.reader([line], delimiter=delimiter, strict=True))
        yield number, cells


def _check_delimiter(path: Path, header: Sequence[str], delimiter: str) -> None:
    """Raise for a file that is separated by something else than its name says."""
    for other, name in _DELIMITERS.items():
        if len(header) == 1 and other in header[0]:
            raise SuperbError(
                f"{path} is separated by {name}, and its name says {_DELIMITERS[delimiter]}: save "
                "it with commas as .csv, or with tabs as .tsv"
            )


def _check_names(where: str, names: Iterable[str]) -> None:
    """Raise for columns or keys that occur twice."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SuperbError(
            f"{where}: column names occur twice: {', '.join(name or repr(name) for name in twice)}"
        )


def _read_json_lines(path: Path) -> list[Row]:
    rows = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_names(where, [key for key, _ in pairs])
        return dict(pairs)

    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                cells = json.loads(line, object_pairs_hook=unique)
            except (ValueError, RecursionError) as error:  # also of numbers of 5,000 digits
                raise SuperbError(f"{where}: not JSON: {error}") from error
            if not isinstance(cells, dict):
                raise SuperbError(f"{where}: not a JSON object but {line[:40]!r}")
            rows.append(Row(number, cells))
    return rows


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException

    try:
        # Not read_table(path), which takes folders named like split=train for columns.
        with path.open("rb") as file:
            content = pq.ParquetFile(file)  # type: ignore[no-untyped-call]
            if content.metadata.num_rows > _ROWS_PER_BYTE * path.stat().st_size:
                raise SuperbError(
                    f"{path} promises {content.metadata.num_rows} rows, more than a file of its "
                    "size can hold with an audio path in each; make it again"
                )
            table = content.read()  # type: ignore[no-untyped-call]
        _check_names(str(path), table.column_names)
        cells = table.to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        # The last two are of values that Python has not, such as years after 9999.
        raise SuperbError(f"{path} is not a readable Parquet file: {error}") from error
    return [Row(number, own) for number, own in enumerate(cells, start=1)]


def _utterance(path: Path, row: Row, card: DownstreamCard, split: str) -> Utterance:
    """One row as an utterance; a column that the task does not need stays empty.

    What stands in ``fold`` is none of the three splits: with folds, each says what is what.
    """

    def text(column: str) -> str:
        return _text(path, row, column)

    with_text = "text" in card.columns and card.label_from != "text"
    audio, written = _audio(path, row)
    return Utterance(
        id=one_form(text("id")) or written,
        audio=audio,
        split=text("split") if split == "split" else "test",
        speaker=text("speaker"),
        text=text("text") if with_text else "",
        label=text(card.label_from) if card.labelled else "",
        columns={
            column: text(column)
            for column in card.needs
            if column not in ("text", "speaker", "label")
        },
    )


def _folds(
    path: Path, rows: Sequence[Row], utterances: Sequence[Utterance]
) -> tuple[dict[str, dict[str, str]], str]:
    """The folds that rows name, and a note on who speaks in them.

    Raises:
        SuperbError: a row without a fold, or too few folds.
    """
    names = [one_form(_text(path, row, "fold")) for row in rows]
    if empty := [row.place for row, name in zip(rows, names, strict=True) if not name]:
        raise SuperbError(
            f"{path}: empty 'fold': {'; '.join(empty[:3])} ({len(empty)} in all). Fill it in"
        )
    fold_of = {u.id: name for u, name in zip(utterances, names, strict=True)}
    known = all(utterance.speaker for utterance in utterances)
    return rotated(str(path), fold_of), (
        "" if known else "speakers are not known: nothing tells whether folds share some"
    )


def _audio(path: Path, row: Row) -> tuple[Path | bytes | StoredAudio, str]:
    """The audio of a row, and how the row names it."""
    cell = row.cells.get("audio")
    if isinstance(cell, StoredAudio):
        return cell, f"row-{row.line}"
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"], str(cell.get("path") or f"row-{row.line}")
    written = cell.get("path") if isinstance(cell, dict) and "path" in cell else cell
    if not isinstance(written, str | None):
        raise _wrong_type(path, row, "audio", "a path", written)
    written = (written or "").strip()
    if not written:
        raise SuperbError(f"{path}, {row.place}: the 'audio' cell is empty")
    return path.parent / written, written  # an absolute path replaces the folder


def _text(path: Path, row: Row, column: str) -> str:
    """A cell as text; null and NaN are empty, and whole numbers have no decimal point."""
    cell = row.cells.get(column)
    if isinstance(cell, str):
        return cell
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        raise _wrong_type(path, row, column, "text or a number", cell)
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)


def _wrong_type(path: Path, row: Row, column: str, wanted: str, cell: object) -> SuperbError:
    return SuperbError(
        f"{path}, {row.place}: {column!r} must be {wanted}, got {type(cell).__name__} {cell!r:.60}"
    )


# Checking --------------------------------------------------------------------------------------


def _check_columns(path: Path, columns: Sequence[str], card: DownstreamCard, split: str) -> None:
    """Raise when a needed column is missing, telling what to rename."""
    needed = ("audio", split, *card.columns)
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
    others_do = {
        "phones": "; or give a column text, whose words are looked up",
        "segments": "; or give a column speaker, and mixtures are made of single speakers",
    }
    instead = "".join(others_do.get(name, "") for name in missing)
    raise LacksError(
        f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}. "
        f"It has: {', '.join(columns)}. Rename {' and '.join(renames)}; the task needs "
        f"{', '.join(needed)}{instead}"
    )
