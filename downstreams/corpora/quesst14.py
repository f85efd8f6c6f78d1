"""QUESST 2014 (Anguera et al. 2014): spoken queries in English recordings, for query by example.

As in SUPERB, the part in non-native English (``nnenglish``) of the MediaEval evaluation. The lists
``scoring/language_key_utterances.lst``, ``language_key_dev.lst`` and ``language_key_eval.lst`` name
documents and the queries of either set, each with its language ::

    quesst14Database/Audio/quesst14_00001.wav nnenglish

and ``scoring/groundtruth_quesst14_dev/quesst14_dev.rttm`` (eval likewise) what is where ::

    LEXEME quesst14_00001 1 0.00 5.30 quesst14_dev_0001 lex <NA> <NA>
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmark.core import Corpus, Utterance
from benchmark.encoding.folders import visible
from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions
from downstreams.corpora.layout import (
    Archive,
    Layout,
    Official,
    Survey,
    not_found,
    official_root,
    partial,
    require_splits,
)
from downstreams.corpora.utterances import built

NAME: Final = "quesst14"
# What the archive unpacks to.
FOLDER: Final = "quesst14Database"
LANGUAGE: Final = "nnenglish"
RATE: Final = 8_000
DOCUMENTS: Final = "documents"
# Our split → the queries of it; the documents are the same for both.
QUERIES: Final[Mapping[str, str]] = {"valid": "dev", "test": "eval"}
# Part of the corpus → its list, and the folder of its recordings.
PARTS: Final[Mapping[str, tuple[str, str]]] = {
    DOCUMENTS: ("scoring/language_key_utterances.lst", "Audio"),
    "dev": ("scoring/language_key_dev.lst", "dev_queries"),
    "eval": ("scoring/language_key_eval.lst", "eval_queries"),
}
# What stands for the terms of a document that holds no query.
NOTHING: Final = "-"

OFFICIAL: Final[Mapping[str, Official]] = {
    DOCUMENTS: Official(2_438),
    "dev": Official(138),
    "eval": Official(138),
}
SOURCE: Final = "https://speech.fit.vutbr.cz/software/quesst-2014-multilingual-database-query-by-example-keyword-spotting"
# The hash as torchaudio records it, which knows no size.
ARCHIVES: Final = (
    Archive(
        "https://speech.fit.vutbr.cz/files/quesst14Database.tgz",
        "4f869e06bc066bbe9c5dde31dbd3909a0870d70291110ebbb38878dcbc2fc5e4",
        None,
        FOLDER,
        tuple(PARTS),
        top=FOLDER,
    ),
)
OBTAIN: Final = (
    "QUESST 2014 is public: superb data download quesst14 --data-root FOLDER brings it, or unpack "
    f"{ARCHIVES[0].url}."
)
_NAME: Final = r"quesst14_[A-Za-z0-9_]+"


def load(task: str, options: CorpusOptions) -> Corpus:
    """Load the documents with the queries for choosing (dev) and for testing (eval).

    Args:
        task: ``qbe``.
        options: the folder that holds ``scoring`` and ``Audio``, or the one above; its splits are
            fixed.

    Returns:
        A corpus without a train split, whose utterances have the columns ``role`` and ``term``. A
        document is in valid and in test, under an id that begins with ``dev/`` or ``eval/``; each
        query is a term of its own, as in the evaluation.

    Raises:
        SuperbError: another task, options that mean nothing here, a list that is not there or
            cannot be understood, and a part without recordings.
    """
    root = official_root(
        NAME, task, "qbe", options, "dev queries are valid, eval queries are test", OBTAIN
    )
    found = survey(root)
    require_splits(NAME, root, found, OFFICIAL, OBTAIN)
    base = _base(root)
    utterances = []
    for split, part in QUERIES.items():
        held = _ground_truth(base, part)
        for utterance in found.utterances:
            if utterance.split == part:
                columns = {"role": "query", "term": utterance.id}
            elif utterance.split == DOCUMENTS:
                terms = ";".join(sorted(held[utterance.id])) or NOTHING
                columns = {"role": "document", "term": terms}
            else:
                continue
            name = f"{part}/{utterance.id}"
            utterances.append(replace(utterance, id=name, split=split, columns=columns))
    return built(
        NAME,
        root,
        utterances,
        [partial(found.utterances, OFFICIAL)],
        licence=f"its owners'; see {SOURCE}",
        source=SOURCE,
    )


def survey(root: Path) -> Survey:
    """The English documents and queries that are there, by names.

    Raises:
        SuperbError: a list is not there, or a line of it that cannot be understood.
    """
    base = _base(root)
    utterances: list[Utterance] = []
    missing: dict[Path, str] = {}
    extra: dict[Path, str] = {}
    for part, (list_name, folder) in PARTS.items():
        there = {path.stem: path for path in visible(base / folder, "*.wav")}
        pattern = rf"(?:[^\s/]+/)?{folder}/({_NAME})\.wav\s+([a-z]+)"
        listed: set[str] = set()
        for where, line in _lines(base / list_name):
            known = re.fullmatch(pattern, line)
            if not known:
                raise SuperbError(
                    f"{where}: {line[:60]!r} is not '{FOLDER}/{folder}/NAME.wav LANGUAGE'. {OBTAIN}"
                )
            name, language = known.groups()
            if name in listed:
                raise SuperbError(f"{where}: {name} is listed twice. {OBTAIN}")
            listed.add(name)
            path = there.pop(name, None)
            if language != LANGUAGE:
                continue
            if path:
                utterances.append(Utterance(name, path, part))
            else:
                missing[(base / folder / f"{name}.wav").relative_to(root)] = part
        extra |= {path.relative_to(root): part for path in there.values()}
    return Survey(tuple(utterances), missing, extra, rate=RATE)


LAYOUT: Final = Layout(survey, OFFICIAL, ARCHIVES, OBTAIN)


def _base(root: Path) -> Path:
    """The folder that holds the lists."""
    wanted, _ = PARTS[DOCUMENTS]
    for base in (root, root / FOLDER):
        if (base / wanted).is_file():
            return base
    raise not_found("QUESST 2014", root, f"{wanted}, there or in {FOLDER}/", OBTAIN)


def _ground_truth(base: Path, part: str) -> dict[str, set[str]]:
    """Document → the queries that it holds, of all languages."""
    path = base / f"scoring/groundtruth_quesst14_{part}/quesst14_{part}.rttm"
    held: dict[str, set[str]] = defaultdict(set)
    for where, line in _lines(path):
        kind, *fields = line.split()
        if kind != "LEXEME":
            continue
        if len(fields) < 5 or not re.fullmatch(_NAME, fields[0]):
            raise SuperbError(
                f"{where}: {line[:60]!r} is not 'LEXEME DOCUMENT CHANNEL START SECONDS QUERY …'. "
                f"{OBTAIN}"
            )
        if fields[4] != "NO_KEYWORD":
            held[fields[0]].add(fields[4])
    return held


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a list that hold something, each after where it stands."""
    if not path.is_file():
        raise not_found("list of QUESST 2014", path.parent, path.name, OBTAIN)
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()
