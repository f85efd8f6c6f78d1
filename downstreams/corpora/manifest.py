"""One's own data: a table of recordings in CSV, TSV, JSON lines or Parquet.

Columns: ``audio`` (a path, relative to the manifest's folder or absolute), ``split`` (``train``,
``valid`` or ``test``) and what the task needs (``text``, ``speaker``, ``label``). Optional:
``id`` (else the audio path as written) and ``speaker``, by which intervals are clustered. Other
columns are ignored. A Parquet manifest may also hold the audio itself, as the
``{bytes, path}`` struct that Hugging Face ``datasets`` writes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmark.core import SPLITS, Corpus, DownstreamCard, StoredAudio, Utterance
from benchmark.errors import SuperbError
from downstreams.corpora import MANIFEST_SUFFIXES, content_sha256

# A corpus without a valid split gets this part of its train split.
VALID_PART: Final = 0.1
# With fewer train speakers, one of them is too much of the data to give away whole.
MIN_SPEAKERS_TO_CARVE: Final = 10
# Part of the carve-out's identity: another seed is another corpus.
CARVE_SEED: Final = "valid-0"

# What other tools call our columns and splits; only for hints, nothing is renamed silently.
_OTHER_NAMES: Final = {
    "audio": ("path", "file", "file_name", "filename", "filepath", "wav", "audio_path"),
    "split": ("set", "subset", "partition", "fold"),
    "text": ("sentence", "transcript", "transcription", "raw_text", "normalized_text"),
    "speaker": ("speaker_id", "spk", "spk_id", "client_id", "subject"),
    "label": ("keyword", "command", "class", "target", "category", "word", "text"),
}
_OTHER_SPLITS: Final = {
    "dev": "valid",
    "val": "valid",
    "validation": "valid",
    "training": "train",
    "eval": "test",
    "evaluation": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Row:
    """One row as read: where it stands, and its cells."""

    line: int
    cells: dict[str, Any]


def load(path: Path, card: DownstreamCard, label_from: str = "label") -> Corpus:
    """Read and check a manifest of one's own data for one task.

    Text, label and speaker cells are brought to Unicode NFC and their white space is collapsed;
    nothing else is changed. Without a valid split, a fixed tenth of train becomes one, and the
    corpus's note says so: whole speakers if there are enough of them and they are not the labels,
    else some utterances of every label.

    Args:
        path: the manifest; its suffix tells the format.
        card: the task, which says what columns it needs.
        label_from: the column that holds the label (``"speaker"`` for SID).

    Raises:
        SuperbError: for whatever is wrong with the manifest, naming the first few rows.
    """
    name = path.parent.resolve().name if path.stem == "manifest" else path.stem
    return from_rows(path, _read(path), card, label_from, name=name, source=str(path))


def from_rows(
    path: Path,
    rows: Sequence[Row],
    card: DownstreamCard,
    label_from: str,
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
        label_from: the column that holds the label.
        name: of the corpus.
        source: where it comes from.
        licence: of the audio.
        pinned: what fixes the bytes of all audio, as for `content_sha256`.

    Raises:
        SuperbError: for whatever is wrong with the rows, naming the first few.
    """
    # A task that needs a label finds it in the column the caller names.
    needed = tuple(dict.fromkeys(label_from if need == "label" else need for need in card.needs))
    has_label = "label" in card.needs or label_from in card.needs
    _check_columns(path, rows, ("audio", "split", *needed), label_from)
    utterances = [_utterance(path, row, needed, label_from if has_label else "") for row in rows]

    def where(bad: Callable[[Utterance], bool], show: Callable[[Utterance], str]) -> str:
        """The first few rows that are bad, and how many there are."""
        found = [
            f"line {row.line}: {show(utterance)}"
            for row, utterance in zip(rows, utterances, strict=True)
            if bad(utterance)
        ]
        return _some(found)

    _check_splits(path, utterances, where)
    for column in needed:
        attribute = "label" if column == label_from else column
        if empty := where(lambda u, a=attribute: not getattr(u, a), lambda u: u.id):  # type: ignore[misc]
            raise SuperbError(f"{path}: empty {column!r} cells: {empty}. Fill or drop these rows")
    unknown_speakers = sum(not utterance.speaker for utterance in utterances)
    if 0 < unknown_speakers < len(utterances):
        raise SuperbError(
            f"{path}: empty 'speaker' cells: {where(lambda u: not u.speaker, lambda u: u.id)}. "
            "Fill all of them, or drop the column if speakers are not known"
        )
    ids = Counter(utterance.id for utterance in utterances)
    if double := where(lambda u: ids[u.id] > 1, lambda u: repr(u.id)):
        raise SuperbError(
            f"{path}: duplicate ids: {double}. Drop the repeated rows or add an 'id' column"
        )
    if missing := where(
        lambda u: isinstance(u.audio, Path) and not u.audio.is_file(), lambda u: str(u.audio)
    ):
        raise SuperbError(
            f"{path}: missing audio files: {missing}. "
            f"Paths are relative to the manifest's folder, {path.parent.resolve()}"
        )

    utterances, note = with_valid(path, utterances, labels_are_speakers=label_from == "speaker")
    if card.closed_set:
        check_closed_set(path, utterances)
    return Corpus(
        name=name,
        sha256=content_sha256(utterances, pinned),
        utterances=tuple(utterances),
        licence=licence,
        source=source,
        note=note,
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
            except json.JSONDecodeError as error:
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
            table = pq.ParquetFile(file).read()  # type: ignore[no-untyped-call]
    except ArrowException as error:
        raise SuperbError(f"{path} is not a readable Parquet file: {error}") from error
    return [Row(number, cells) for number, cells in enumerate(table.to_pylist(), start=1)]


def _utterance(path: Path, row: Row, needed: Sequence[str], label_from: str) -> Utterance:
    """One row as an utterance; a column that the task does not need stays empty."""
    audio, written = _audio(path, row)
    return Utterance(
        id=_text(row.cells.get("id")) or written,
        audio=audio,
        split=_text(row.cells.get("split")),
        speaker=_text(row.cells.get("speaker")),
        text=_text(row.cells.get("text")) if "text" in needed and label_from != "text" else "",
        label=_text(row.cells.get(label_from)) if label_from else "",
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


def _check_columns(path: Path, rows: Sequence[Row], needed: Sequence[str], label_from: str) -> None:
    """Raise when a needed column is missing, telling what to rename."""
    # JSON lines may leave a key out; the row is then an empty cell, reported with its line.
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    missing = [name for name in needed if name not in columns]
    if not missing:
        return
    renames = []
    for name in missing:
        others = (name, *_OTHER_NAMES["label" if name == label_from else name])
        lower = {column.lower(): column for column in columns}
        found = next((lower[other] for other in others if other in lower), None)
        renames.append(f"{found or 'the column that holds it'} to {name}")
    raise SuperbError(
        f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}. "
        f"It has: {', '.join(columns)}. Rename {' and '.join(renames)}; the task needs "
        f"{', '.join(needed)}"
    )


def _check_splits(
    path: Path,
    utterances: Sequence[Utterance],
    where: Callable[[Callable[[Utterance], bool], Callable[[Utterance], str]], str],
) -> None:
    """Raise for unknown split names and for a train or test split without rows."""
    counts = Counter(utterance.split for utterance in utterances)
    if set(counts) - set(SPLITS):
        bad = where(lambda u: u.split not in SPLITS, lambda u: repr(u.split))
        hints = [
            f"write {_OTHER_SPLITS[name.lower()]} for {name}"
            for name in sorted(counts)
            if name.lower() in _OTHER_SPLITS
        ]
        hints += [
            f"write {name.lower()} for {name}"
            for name in sorted(counts)
            if name not in SPLITS and name.lower() in SPLITS
        ]
        raise SuperbError(
            f"{path}: unknown values in 'split': {bad}. Allowed: {', '.join(SPLITS)}"
            + "".join(f"; {hint}" for hint in hints)
        )
    empty = [name for name in ("train", "test") if not counts[name]]
    if empty:
        raise SuperbError(
            f"{path}: no rows in split {' and '.join(empty)}; found "
            f"{', '.join(f'{name}: {count}' for name, count in counts.items())}. "
            "A manifest needs train and test; valid is taken from train if it is left out"
        )


def check_closed_set(path: Path, utterances: Sequence[Utterance]) -> None:
    """Raise when valid or test asks for a label that train does not have.

    Args:
        path: what the message names.
        utterances: of all splits.
    """
    known = {utterance.label for utterance in utterances if utterance.split == "train"}
    unseen = Counter(
        f"{utterance.label!r} ({utterance.split})"
        for utterance in utterances
        if utterance.label not in known
    )
    if unseen:
        raise SuperbError(
            f"{path}: labels that train does not have: {_some(unseen)}. No classifier can "
            f"answer these; train has {len(known)} labels. Move some of their rows to train or "
            "drop them"
        )


def _some(items: Iterable[str], most: int = 3) -> str:
    """The first few items and the count of all, or "" for none."""
    everything = list(items)
    more = f" … ({len(everything)} in all)" if len(everything) > most else ""
    return "; ".join(everything[:most]) + more


# Valid split -----------------------------------------------------------------------------------


def with_valid(
    path: Path, utterances: list[Utterance], *, labels_are_speakers: bool
) -> tuple[list[Utterance], str]:
    """The utterances with a valid split, taken from train if there is none, and a note on it.

    Args:
        path: what messages name.
        utterances: of all splits.
        labels_are_speakers: whether every speaker must stay in train, as for SID.

    Returns:
        All utterances, some of train moved to valid; the note is "" where none had to be.

    Raises:
        SuperbError: train is too small to take anything from.
    """
    if any(utterance.split == "valid" for utterance in utterances):
        return utterances, ""
    train = [utterance for utterance in utterances if utterance.split == "train"]
    chosen: set[str] = set()
    how = "whole speakers"
    if not labels_are_speakers:
        chosen = _whole_speakers(train)
    if not chosen:
        how = "some of every label" if any(u.label for u in train) else "drawn one by one"
        chosen = _every_label(train)
    if not chosen:
        raise SuperbError(
            f"{path} has no valid split, and its train split ({len(train)} rows) is too small to "
            "take one from: mark some rows as valid"
        )
    note = f"no valid split given: {len(chosen)} of {len(train)} train utterances, {how}, moved"
    return [replace(u, split="valid") if u.id in chosen else u for u in utterances], note


def _order(key: str) -> str:
    """A fixed shuffle that depends on nothing but the key, so other rows do not disturb it."""
    return hashlib.sha256(f"{CARVE_SEED} {key}".encode()).hexdigest()


def _whole_speakers(train: Sequence[Utterance]) -> set[str]:
    """Ids of about a tenth of train, by whole speakers; none where that cannot be done well."""
    of_speaker: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in train:
        of_speaker[utterance.speaker].append(utterance)
    if "" in of_speaker or len(of_speaker) < MIN_SPEAKERS_TO_CARVE:
        return set()
    target = VALID_PART * len(train)
    left = Counter(utterance.label for utterance in train)
    chosen: set[str] = set()
    for speaker in sorted(of_speaker, key=_order):
        own = of_speaker[speaker]
        labels = Counter(utterance.label for utterance in own)
        # Neither a speaker who is most of the data nor one who alone says some label.
        if len(chosen) + len(own) > 1.5 * target or any(labels[x] == left[x] for x in labels):
            continue
        chosen |= {utterance.id for utterance in own}
        left -= labels
        if len(chosen) >= target:
            break
    # Far too little would make a valid split that chooses by noise.
    return chosen if len(chosen) >= target / 2 else set()


def _every_label(train: Sequence[Utterance]) -> set[str]:
    """Ids of about a tenth of train, spread over the labels; each label keeps one in train."""
    of_label: dict[str, list[str]] = defaultdict(list)
    for utterance in train:
        of_label[utterance.label].append(utterance.id)
    # An utterance's place within its label, 0 to 1: the lowest tenth is a tenth of every label.
    places = [
        ((index + 0.5) / len(ids), _order(identifier), identifier)
        for ids in of_label.values()
        for index, identifier in enumerate(sorted(ids, key=_order)[:-1])
    ]
    count = max(1, round(VALID_PART * len(train)))
    return {identifier for _, _, identifier in sorted(places)[:count]}
