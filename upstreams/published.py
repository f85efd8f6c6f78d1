"""Checkpoints that our transformer reads, by the names of the table.

A row's target is its name with underscores: ``upstreams.published:hubert_base`` is the function
without arguments that loads the row ``hubert-base``. The architectures are in
`upstreams.transformer`; which weights an architecture gets is in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmark.core import UpstreamCard
from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams import UPSTREAMS
from upstreams.checkpoint import Origin, load_transformer
from upstreams.hub import download
from upstreams.transformer import EncoderConfig, TransformerUpstream, untrained_encoder

SEED = 0


def __getattr__(attribute: str) -> Callable[[], TransformerUpstream]:
    """The function that loads the row whose target is this attribute."""
    name = attribute.replace("_", "-")
    if name not in UPSTREAMS or UPSTREAMS[name].target != f"{__name__}:{attribute}":
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    # Until trained weights are bundled: random weights, and the card says so.
    if UPSTREAMS[name].checkpoint == "bundled":
        return partial(untrained, name, SEED)
    return partial(published, name)


def published(name: str) -> TransformerUpstream:
    """Fetch and load the published checkpoint of a row of the table.

    Args:
        name: a name in `UPSTREAMS` whose checkpoint is a hub id.

    Raises:
        UpstreamError: it cannot be fetched or read, or is not the size the table says.
    """
    entry = UPSTREAMS[name]
    folder = download(entry.checkpoint, entry.revision)
    origin = Origin(name=name, source=entry.checkpoint, revision=folder.name)
    upstream = load_transformer(folder, origin)
    found = (upstream.card.layers, upstream.card.dim, upstream.card.hop_samples)
    listed = (entry.layers, entry.dim, entry.hop_samples)
    if found != listed:
        raise UpstreamError(
            f"{entry.checkpoint} at {folder.name} has layers, dim and hop {found}, the table says "
            f"{listed}: it is another model than {name!r}"
        )
    upstream.card = replace(
        upstream.card,
        family=entry.family,
        trained_on=entry.trained_on,
        licence=entry.licence,
        paper=entry.paper,
        note=entry.note,
    )
    return upstream


def untrained(name: str, seed: int) -> TransformerUpstream:
    """The architecture of a row of the table with random weights; nothing is fetched.

    Args:
        name: a name in `UPSTREAMS` that has an architecture.
        seed: of the weights.
    """
    entry = UPSTREAMS[name]
    config: EncoderConfig = load_attribute(entry.architecture)
    plain = f"UNTRAINED: random weights, seed {seed}; a floor to compare with"
    card = UpstreamCard(
        name=name,
        layers=entry.layers,
        dim=entry.dim,
        hop_samples=entry.hop_samples,
        family="untrained",
        parameters=entry.parameters,
        min_samples=config.min_samples,
        pad_invariant=True,
        trained_on=frozenset(),
        licence="",
        paper=entry.paper,
        note=entry.note if entry.family == "untrained" else plain,
    )
    # Normalising the waveform changes nothing after a group norm and is what the published
    # layer-norm checkpoints ask for.
    return TransformerUpstream(untrained_encoder(config, seed), card, config.conv_norm == "layer")
