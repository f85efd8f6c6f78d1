"""Checkpoints that transformers' own model reads, by the names of the table.

``upstreams.hub_models:whisper_tiny`` is the function without arguments that loads the row with that
target. Their settings are on the hub alone, so an untrained twin takes them from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn

from benchmark.core import Upstream
from benchmark.errors import UpstreamError
from upstreams import UPSTREAMS
from upstreams.checkpoint import Origin
from upstreams.hub import download


def __getattr__(attribute: str) -> Callable[[], Upstream]:
    """The function that loads the row whose target is this attribute.

    Raises:
        UpstreamError: it is the architecture of a row, which is asked for by an untrained twin.
    """
    target = f"{__name__}:{attribute}"
    for name, entry in UPSTREAMS.items():
        if entry.target == target:
            return partial(published, name)
        if entry.architecture == target:
            raise UpstreamError(
                f"untrained:{name}: the settings of this encoder are not here but on the hub. "
                "This fetches them, a few kB, and draws the weights: "
                f"--upstream untrained:{entry.checkpoint}"
                f"{f'@{entry.revision}' if entry.revision else ''}"
            )
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")


def published(name: str) -> Upstream:
    """Fetch and load the published checkpoint of a row of the table.

    Args:
        name: a name in `UPSTREAMS` whose checkpoint is a hub id.

    Raises:
        UpstreamError: it cannot be fetched or read, or is not the size the table says.
    """
    entry = UPSTREAMS[name]
    folder = download(entry.checkpoint, entry.revision)
    from upstreams.huggingface import load_huggingface  # imports transformers: seconds

    origin = Origin(name=name, source=entry.checkpoint, revision=folder.name)
    upstream = load_huggingface(folder, origin)
    card = upstream.card
    found = (card.layers, card.dim, card.hop_samples, card.parameters)
    listed = (entry.layers, entry.dim, entry.hop_samples, entry.parameters)
    if found != listed:
        raise UpstreamError(
            f"{entry.checkpoint} at {folder.name} has layers, dim, hop and weights {found}, the "
            f"table says {listed}: it is another model than {name!r}"
        )
    upstream.card = replace(
        card,
        family=entry.family,
        trained_on=entry.trained_on,
        licence=entry.licence,
        paper=entry.paper,
        note="; ".join(filter(None, (entry.note, card.note))),
    )
    return upstream


def av_hubert_base() -> NoReturn:
    """The audio stream of AV-HuBERT, whose published weights need code of their own.

    Raises:
        UpstreamError: always.
    """
    name = "av-hubert-base"
    raise UpstreamError(
        f"{name}: {UPSTREAMS[name].note}. There is no untrained twin either: its input, four "
        "filterbank frames stacked, is not the convolutions of the transformer here. To run it, "
        "install its own code (github.com/facebookresearch/av_hubert), wrap the model in a class "
        "that takes waveforms, and type --upstream my_file.py:MyClass"
    )
