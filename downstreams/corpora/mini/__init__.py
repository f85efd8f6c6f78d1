"""The bundled corpus `mini`: synthetic English speech for ASR, SID and KS.

Audio and answers lie in two Parquet files beside this one, in the layout that Hugging Face
``datasets`` reads: ``audio`` is a struct of encoded bytes and a name. ``sentences.parquet`` serves
ASR (column ``split``: new speakers and new sentences in every split) and SID (column
``sid_split``: the same speakers, new sentences); ``keywords.parquet`` serves KS.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Final

from benchmark.core import SPLITS, Corpus, Utterance
from benchmark.errors import SuperbError, unknown
from downstreams.corpora import CorpusOptions, refuse_options
from downstreams.corpora.utterances import built

FOLDER: Final = Path(__file__).parent
CHECKSUMS: Final = "checksums.json"
LICENCE: Final = "MIT"
SOURCE: Final = "bundled, synthetic speech"

# Task -> file, column of the split, column of the label ("" for none), column of the text.
_TABLES: Final = {
    "asr": ("sentences.parquet", "split", "", "text"),
    "sid": ("sentences.parquet", "sid_split", "speaker", ""),
    "ks": ("keywords.parquet", "split", "label", ""),
}


def load(task: str, options: CorpusOptions | None = None) -> Corpus:
    """Load the part of the corpus that serves one task.

    Args:
        task: ``asr``, ``sid`` or ``ks``.
        options: none means anything to a corpus that is bundled with its splits.

    Raises:
        SuperbError: for another task, for options, and for a data file that is missing or was
            changed.
    """
    refuse_options("mini", options or CorpusOptions(), "it is bundled, and its splits are fixed")
    if task not in _TABLES:
        raise unknown("task of corpus 'mini'", task, _TABLES)
    file, split_column, label_column, text_column = _TABLES[task]
    utterances = [
        Utterance(
            id=row["utterance"],
            audio=row["audio"]["bytes"],
            split=row[split_column],
            speaker=row["speaker"],
            text=row[text_column] if text_column else "",
            label=row[label_column] if label_column else "",
        )
        for row in _rows(file, split_column, label_column, text_column)
    ]
    note = "synthetic speech, for trying out and for tests"
    return built("mini", FOLDER, utterances, [note], licence=LICENCE, source=SOURCE)


def _rows(file: str, split_column: str, *columns: str) -> list[dict[str, Any]]:
    """The rows of one verified Parquet file that are in a split of the task."""
    import pyarrow.parquet as pq

    data = _verified(file)
    wanted = {"utterance", "audio", "speaker", split_column, *columns} - {""}
    table = pq.ParquetFile(io.BytesIO(data)).read(  # type: ignore[no-untyped-call]
        columns=sorted(wanted)
    )
    return [row for row in table.to_pylist() if row[split_column] in SPLITS]


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
