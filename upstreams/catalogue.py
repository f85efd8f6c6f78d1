"""The encoders that have a name: ``catalogue.toml``, read strictly.

A bare family name (``hubert``) is the bundled small checkpoint and never needs a network; a size
(``hubert-base``) is the published checkpoint of that size. Importing this imports no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, get_args

from benchmark.core import Family
from benchmark.errors import SuperbError
from benchmark.registry import is_target

PATH = Path(__file__).with_name("catalogue.toml")
UNDISCLOSED = "undisclosed"

Toml: TypeAlias = Any


@dataclass(frozen=True)
class Entry:
    """A built-in upstream, as it can be listed without loading it.

    Attributes:
        family: the pretext school.
        layers: hidden layers returned.
        dim: features per frame.
        hop_samples: samples between frames at 16 kHz.
        parameters: number of weights.
        paper: where it is described.
        year: of the paper.
        checkpoint: where weights are: a hub id, ``bundled``, or ``none`` where nothing is learned;
            otherwise, in two words, why there are none by name.
        revision: commit of the hub repository; "" takes the newest, and the card says which.
        licence: of the weights.
        trained_on: corpora seen in training; None means undisclosed, an empty set none at all.
        note: one loud line.
        target: ``module:attribute`` of a function that makes the upstream of its card, where
            nothing is learned.
        architecture: ``module:attribute`` of the configuration, for the untrained twin; "" where
            there is nothing to initialise, or where the settings are on the hub alone.
        layout: ``module:attribute`` of the `Layout` of published files that only the user has.
    """

    family: Family
    layers: int
    dim: int
    hop_samples: int
    parameters: int
    paper: str
    year: int
    checkpoint: str
    revision: str = ""
    licence: str = ""
    trained_on: frozenset[str] | None = frozenset()
    note: str = ""
    target: str = ""
    architecture: str = ""
    layout: str = ""

    @property
    def loads(self) -> bool:
        """Whether its weights, or what stands for them, can be had by name."""
        return self.checkpoint in ("bundled", "none") or "/" in self.checkpoint


# What a row must hold, and what else it may.
_REQUIRED = dict.fromkeys(("family", "paper", "checkpoint"), str) | dict.fromkeys(
    ("layers", "dim", "hop_samples", "parameters"), int
)
_TARGETS = ("target", "architecture", "layout")
_OPTIONAL = dict.fromkeys(("revision", "licence", "note", *_TARGETS), str)
_SHARED = ("papers", "corpora", "notes", "upstreams")


def read_catalogue(path: Path = PATH) -> dict[str, Entry]:
    """Read a catalogue: name → row, in the order of the file.

    Raises:
        SuperbError: it is no TOML, or a key is missing, unknown, of another type or out of what is
            allowed; the message names the row.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SuperbError(f"cannot read {path}: {error}") from error
    if content.keys() != set(_SHARED) or not all(isinstance(t, dict) for t in content.values()):
        raise SuperbError(f"{path} holds the tables {', '.join(_SHARED)}; got {', '.join(content)}")
    for key, paper in content["papers"].items():
        if not isinstance(paper, dict) or paper.keys() != {"text", "year"}:
            raise SuperbError(f"{path.name}: papers.{key} must hold text and year; got {paper!r}")
    return {name: _entry(name, row, content, path) for name, row in content["upstreams"].items()}


def _entry(name: str, row: Toml, shared: Mapping[str, Toml], path: Path) -> Entry:
    def refuse(problem: str) -> NoReturn:
        raise SuperbError(f"{path.name}: upstream {name!r}: {problem}")

    allowed = _REQUIRED | _OPTIONAL
    if not isinstance(row, dict):
        refuse(f"must be a table; got {row!r}")
    if missing := _REQUIRED.keys() - row.keys():
        refuse(f"{', '.join(sorted(missing))} missing")
    if unknown := row.keys() - allowed.keys() - {"trained_on"}:
        refuse(f"no such key: {', '.join(sorted(unknown))}; there are {', '.join(allowed)}")
    for key, kind in allowed.items():
        value = row.get(key, kind())
        if type(value) is not kind or (isinstance(value, int) and value < (key != "parameters")):
            refuse(f"{key} must be {'text' if kind is str else 'a size'}; got {value!r}")
    if row["family"] not in get_args(Family):
        refuse(f"family is one of {', '.join(get_args(Family))}; got {row['family']!r}")
    for key in _TARGETS:
        if row.get(key) and not is_target(row[key]):
            refuse(f"{key} is written module:attribute; got {row[key]!r}")
    if row["paper"] not in shared["papers"]:
        refuse(f"paper is one of {', '.join(shared['papers'])}; got {row['paper']!r}")
    note = row.get("note", "")
    if note and " " not in note and note not in shared["notes"]:
        refuse(f"note is a sentence, or one of {', '.join(shared['notes'])}; got {note!r}")
    corpora = row.get("trained_on", [])
    if isinstance(corpora, str) and corpora != UNDISCLOSED:
        corpora = shared["corpora"].get(corpora, corpora)
    if corpora != UNDISCLOSED and not (
        isinstance(corpora, list) and all(isinstance(corpus, str) for corpus in corpora)
    ):
        names = ", ".join(shared["corpora"])
        refuse(f"trained_on is a list of names, {UNDISCLOSED!r} or one of {names}; got {corpora!r}")
    paper = shared["papers"][row["paper"]]
    return Entry(
        **{key: value for key, value in row.items() if key in allowed and key != "paper"}
        | {"note": shared["notes"].get(note, note)},
        paper=paper["text"],
        year=paper["year"],
        trained_on=None if corpora == UNDISCLOSED else frozenset(corpora),
    )


UPSTREAMS: dict[str, Entry] = read_catalogue()
