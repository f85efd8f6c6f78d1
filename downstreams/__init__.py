"""Tasks: one file each, with their heads; protocols say how the heads are trained.

This table imports no torch, so that listing stays instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import Downstream, DownstreamCard
from benchmark.errors import SuperbError, unknown
from benchmark.registry import load_attribute

PROTOCOLS = Path(__file__).parent / "protocols"


@dataclass(frozen=True)
class Entry:
    """One task of the table.

    Attributes:
        card: what it is.
        target: ``module:attribute`` of its implementation.
        label_from: the manifest column that holds the class.
        head: its head in words.
        settings: the names of the values a protocol must give for the head.
    """

    card: DownstreamCard
    target: str
    label_from: str
    head: str
    settings: tuple[str, ...]


DOWNSTREAMS: Mapping[str, Entry] = {
    "asr": Entry(
        DownstreamCard(
            name="asr",
            title="Automatic speech recognition",
            version=1,
            metrics=("wer", "cer"),
            direction="lower",
            features="frames",
            needs=("text",),
            closed_set=False,
        ),
        "downstreams.asr:Asr",
        "label",
        "linear, 2-layer BLSTM, linear; character CTC, greedy",
        ("frame_s", "projection", "hidden", "layers", "dropout"),
    ),
    "sid": Entry(
        DownstreamCard(
            name="sid",
            title="Speaker identification",
            version=1,
            metrics=("accuracy",),
            direction="higher",
            features="mean",
            needs=("speaker",),
            closed_set=True,
        ),
        "downstreams.classification:Classification",
        "speaker",
        "linear, mean over time, linear",
        ("projection",),
    ),
    "ks": Entry(
        DownstreamCard(
            name="ks",
            title="Keyword spotting",
            version=1,
            metrics=("accuracy",),
            direction="higher",
            features="mean",
            needs=("label",),
            closed_set=True,
        ),
        "downstreams.classification:Classification",
        "label",
        "linear, mean over time, linear",
        ("projection",),
    ),
}


def find_downstream(name: str) -> Entry:
    """Look a task up by name.

    Raises:
        SuperbError: for an unknown name, with near matches and the list.
    """
    if name not in DOWNSTREAMS:
        raise unknown("downstream task", name, DOWNSTREAMS, "Or type: --downstream all")
    return DOWNSTREAMS[name]


def load_downstream(name: str) -> Downstream:
    """The implementation of a task, by name."""
    entry = find_downstream(name)
    kind = load_attribute(entry.target)
    if not callable(kind):
        raise SuperbError(f"{entry.target} cannot be called")
    task: Downstream = kind(entry.card)
    return task
