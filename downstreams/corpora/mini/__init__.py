"""The bundled corpus `mini`: synthetic English speech for ASR, PR, SID, SD, KS, IC, SF and QbE.

Audio and answers lie in three Parquet files beside this one, in the layout that Hugging Face
``datasets`` reads: ``audio`` is a struct of encoded bytes and a name. ``sentences.parquet`` serves
ASR and, by way of ``lexicon.txt``, PR and, by way of ``voiced.json``, SD (column ``split``: new
speakers and new sentences in every split), and SID (column ``sid_split``: the same speakers, new
sentences); ``keywords.parquet`` serves KS; ``commands.parquet`` serves IC and SF. QbE searches
for keywords in sentences and commands.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmark.core import SPLITS, Corpus, Utterance
from benchmark.errors import SuperbError, unknown
from downstreams.corpora import CorpusOptions, mixtures, refuse_options
from downstreams.corpora.pronunciation import pronounced
from downstreams.corpora.utterances import built

FOLDER: Final = Path(__file__).parent
CHECKSUMS: Final = "checksums.json"
LICENCE: Final = "MIT"
SOURCE: Final = "bundled, synthetic speech"

LEXICON: Final = "lexicon.txt"
# Utterance → first millisecond of speech and milliseconds, as `mixtures.voiced` finds them.
VOICED: Final = "voiced.json"
RECIPE: Final = mixtures.Recipe({"train": 400, "valid": 60, "test": 120}, utterances=(1, 2))


@dataclass(frozen=True)
class _Table:
    """What one task reads: a file, and columns of it; "" for what the task has not.

    Attributes:
        file: name of the Parquet file.
        split: column of the split; rows without one are left out.
        label, text: columns that become the label and the text.
        columns: those that stay columns of the utterance.
    """

    file: str
    split: str = "split"
    label: str = ""
    text: str = ""
    columns: tuple[str, ...] = ()


_TABLES: Final = {
    "asr": _Table("sentences.parquet", text="text"),
    "sid": _Table("sentences.parquet", split="sid_split", label="speaker"),
    "ks": _Table("keywords.parquet", label="label"),
    "pr": _Table("sentences.parquet", text="text"),
    "ic": _Table("commands.parquet", columns=("action", "object", "location")),
    "sf": _Table("commands.parquet", columns=("tagged",)),
    "sd": _Table("sentences.parquet"),
    "asv": _Table("sentences.parquet"),
}
UNKNOWN: Final = "_unknown_"
# The words behind that label, in turn.
_UNKNOWN_WORDS: Final = {
    "train": (
        "water seven apple window river money paper music table winter"
        " yellow house bird tree three happy nose dot late stuff"
    ),
    "valid": "water seven apple window nose late garden bread stone shop",
    "test": "water seven apple window nose late forest nine robin town light goat",
}
_SEARCHED: Final = (
    _Table("sentences.parquet", text="text"),
    _Table("commands.parquet", text="text"),
)


def load(task: str, options: CorpusOptions | None = None) -> Corpus:
    """Load the part of the corpus that serves one task.

    Args:
        task: ``asr``, ``sid``, ``ks``, ``pr``, ``ic``, ``sf``, ``asv``, ``sd`` or ``qbe``.
        options: of these, only a lexicon for ``pr`` means anything to a corpus that is bundled with
            its splits.

    Raises:
        SuperbError: for another task, for options, and for a data file that is missing or was
            changed.
    """
    options = options or CorpusOptions()
    refuse_options("mini", options, "it is bundled, and its splits are fixed")
    if task not in (*_TABLES, "qbe"):
        raise unknown("task of corpus 'mini'", task, (*_TABLES, "qbe"))
    utterances = _searches() if task == "qbe" else _utterances(_TABLES[task])
    notes = ["synthetic speech, for trying out and for tests"]
    if task == "pr":
        _verified(LEXICON)
        utterances, note = pronounced(
            "mini", utterances, [options.pronunciations or FOLDER / LEXICON]
        )
        notes.append(note)
    if task == "sd":
        voiced = {name: (first, length) for name, (first, length) in _bounds().items()}
        utterances, note = mixtures.mixed("mini", utterances, "mini", RECIPE, voiced)
        notes.append(note)
    return built("mini", FOLDER, utterances, notes, licence=LICENCE, source=SOURCE)


def keyword(split: str, label: str, number: int) -> str:
    """What is said in a clip of `keywords.parquet`, by its label and its number in split."""
    words = _UNKNOWN_WORDS[split].split() if label == UNKNOWN else [label]
    return words[number % len(words)]


def _utterances(table: _Table) -> list[Utterance]:
    """The utterances of one table."""
    return [
        Utterance(
            id=row["utterance"],
            audio=row["audio"]["bytes"],
            split=row[table.split],
            speaker=row["speaker"],
            text=row[table.text] if table.text else "",
            label=row[table.label] if table.label else "",
            columns={name: row[name] for name in table.columns},
        )
        for row in _rows(table)
    ]


def _searches() -> list[Utterance]:
    """Sentences and commands as documents, and keywords that are said in them as queries.

    A speaker asks for a word once. Documents are all that hold such a word, and every third other.
    """
    every = [
        replace(u, text="", columns={"role": "document", "term": ";".join(u.text.split())})
        for table in _SEARCHED
        for u in _utterances(table)
        if u.split != "train"
    ]

    def words(document: Utterance) -> list[str]:
        return document.value("term").split(";")

    held = {(u.split, word) for u in every for word in words(u)}
    queries: dict[tuple[str, str], Utterance] = {}
    for u in _utterances(_TABLES["ks"]):
        word = keyword(u.split, u.label, int(u.id.rpartition("-")[2]))
        if (u.split, word) in held:
            columns = {"role": "query", "term": word}
            queries.setdefault((u.speaker, word), replace(u, label="", columns=columns))
    asked = {(u.split, u.value("term")) for u in queries.values()}
    hit: list[Utterance] = []
    other: list[Utterance] = []
    for u in every:
        (hit if any((u.split, word) in asked for word in words(u)) else other).append(u)
    return [*queries.values(), *hit, *other[::3]]


def _bounds() -> dict[str, list[int]]:
    found: dict[str, list[int]] = json.loads(_verified(VOICED))
    return found


def _rows(table: _Table) -> list[dict[str, Any]]:
    """The rows of one verified Parquet file that are in a split of the task."""
    import pyarrow.parquet as pq

    own = {table.split, table.label, table.text, *table.columns} - {""}
    data = pq.ParquetFile(io.BytesIO(_verified(table.file))).read(  # type: ignore[no-untyped-call]
        columns=sorted({"utterance", "audio", "speaker"} | own)
    )
    return [row for row in data.to_pylist() if row[table.split] in SPLITS]


def _verified(file: str) -> bytes:
    """The bytes of a data file, if they are the ones that were published."""
    restore = (
        f"Get it back with `git checkout -- {FOLDER.relative_to(FOLDER.parents[2])}` in a clone, "
        "or by installing superb again."
    )
    try:
        expected = json.loads((FOLDER / CHECKSUMS).read_text(encoding="utf-8"))[file]
        data = (FOLDER / file).read_bytes()
    except FileNotFoundError as error:
        raise SuperbError(
            f"corpus 'mini' is incomplete: {error.filename} is missing. {restore}"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise SuperbError(
            f"corpus 'mini' was changed: {FOLDER / file} has sha256 {found[:12]}…, "
            f"expected {expected[:12]}…. {restore}"
        )
    return data
