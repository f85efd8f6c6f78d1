"""What tasks, protocols and encoders are known to be, for judging results of others by their names.

Names are looked up in tables and never loaded as code: they come from strangers.
"""

from __future__ import annotations

import csv
from functools import cache
from typing import Final, cast

from benchmark.core import Downstream
from benchmark.errors import SuperbError, unknown
from benchmark.protocol import Protocol, load_protocol
from benchmark.scoring.results import Result
from downstreams import PROTOCOLS
from downstreams.load import downstream_names, load_downstream
from downstreams.recogniser import head_names
from leaderboard.read.fields import base_of, labels_of
from leaderboard.read.names import printable
from leaderboard.read.verify import Expected
from upstreams.catalogue import Entry, read_catalogue

_EARLIER: Final = PROTOCOLS / "earlier.csv"
"""Hashes of what protocols held in earlier versions, of which results are still about."""


def standard(result: Result) -> Expected:
    """What the task, the protocol and the encoder that a result names are known to be.

    Raises:
        SuperbError: when task or protocol is not known here: then nobody can say what the score
            means.
    """
    task = _task(result)
    card = task.card
    if result.downstream["version"] != card.version:
        raise SuperbError(
            f"{printable(card.name)} version {result.downstream['version']} is not the one known "
            f"here, {card.version}"
        )
    encoder = _encoders().get(str(result.upstream["name"]))
    heard = (encoder and encoder.trained_on) or frozenset()
    name, version = str(result.protocol["name"]), result.protocol["version"]
    if name not in _protocol_names():
        raise unknown("protocol", printable(name), _protocol_names(), "Run it under one of these.")
    protocol = _protocol(name)
    if version == protocol.version:
        training = protocol.training(card.name, card.features, task.training, card.base)
        return Expected(card.metrics, protocol.record(training)["sha256"], heard)
    content = _earlier().get((name, str(version), card.name))
    if content is None:
        raise SuperbError(
            f"protocol {name} version {version} is not known for {printable(card.name)}; the one "
            f"of today is version {protocol.version}"
        )
    return Expected(card.metrics, content, heard)


def _task(result: Result) -> Downstream:
    """The task of a result, by its head, without its labels."""
    name, base, labels = str(result.downstream["name"]), base_of(result), labels_of(result)
    if base not in _task_names():
        raise unknown("task", printable(base), _task_names())
    task = load_downstream(base)
    own = name.removesuffix(f"-{labels}") if labels else name
    head = own.removeprefix(f"{base}-")
    if own == base:
        return task
    by_head = getattr(task, "with_head", None)  # not all tasks have several
    if by_head is None or head not in head_names():
        raise SuperbError(f"{printable(own)} is no task that is known here")
    return cast("Downstream", by_head(head))


@cache
def _task_names() -> list[str]:
    return downstream_names()


@cache
def _encoders() -> dict[str, Entry]:
    return read_catalogue()


@cache
def _protocol_names() -> list[str]:
    return sorted(path.stem for path in PROTOCOLS.glob("*.toml"))


@cache
def _protocol(name: str) -> Protocol:
    return load_protocol(name, PROTOCOLS)


@cache
def _earlier() -> dict[tuple[str, str, str], str]:
    with _EARLIER.open(encoding="utf-8", newline="") as file:
        return {
            (row["protocol"], row["version"], row["task"]): row["sha256"]
            for row in csv.DictReader(file)
        }
