"""Published checkpoints, by the names of the table.

A row's target is its name with underscores: ``upstreams.loading.published:hubert_base`` is the
function without arguments that loads the row ``hubert-base``. Which weights an architecture gets
is in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmark.core import Upstream, UpstreamCard
from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams import UPSTREAMS
from upstreams.loading.checkpoint import hub_origin, joined, load_folder
from upstreams.loading.hub import download
from upstreams.loading.untrained import untrained_card
from upstreams.models.transformer import EncoderConfig, TransformerUpstream, untrained_encoder


def __getattr__(attribute: str) -> Callable[[], Upstream]:
    """The function that loads the row whose target is this attribute."""
    for name, entry in UPSTREAMS.items():
        if entry.target == f"{__name__}:{attribute}":
            return partial(published, name)
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
    upstream = load_folder(folder, hub_origin(name, entry.checkpoint, entry.revision, folder))
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
        note=joined(entry.note, card.note),
    )
    return upstream


def untrained(name: str, seed: int) -> TransformerUpstream:
    """The architecture of a row of the table with random weights; nothing is fetched.

    Args:
        name: a name in `UPSTREAMS` whose architecture is an `EncoderConfig`.
        seed: of the weights.
    """
    entry = UPSTREAMS[name]
    config: EncoderConfig = load_attribute(entry.architecture)
    card = UpstreamCard(
        name=name,
        layers=entry.layers,
        dim=entry.dim,
        hop_samples=entry.hop_samples,
        family=entry.family,
        parameters=entry.parameters,
        min_samples=config.min_samples,
        pad_invariant=True,
        trained_on=entry.trained_on,
        paper=entry.paper,
        note=entry.note,
    )
    if entry.checkpoint != "bundled":
        card = untrained_card(card, seed)
    # Normalising the waveform changes nothing after a group norm and is what the published
    # layer-norm checkpoints ask for.
    return TransformerUpstream(untrained_encoder(config, seed), card, config.conv_norm == "layer")
