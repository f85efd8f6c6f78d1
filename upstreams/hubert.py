"""HuBERT (Hsu et al., arXiv 2106.07447), by size: predict the cluster of masked frames.

The encoder is in `upstreams.transformer`; here is which weights it gets.
"""

from __future__ import annotations

from dataclasses import replace

from benchmark.core import UpstreamCard
from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams import UPSTREAMS
from upstreams.checkpoint import Origin, load_transformer
from upstreams.hub import download
from upstreams.transformer import EncoderConfig, TransformerUpstream, untrained_encoder

SEED = 0


def mini() -> TransformerUpstream:
    """The bundled small one. Until trained weights are bundled: random weights, and it says so."""
    return untrained("hubert", SEED)


def base() -> TransformerUpstream:
    """12 layers x 768, trained on LibriSpeech 960 h."""
    return published("hubert-base")


def large() -> TransformerUpstream:
    """24 layers x 1024, trained on Libri-Light 60,000 h."""
    return published("hubert-large")


def xlarge() -> TransformerUpstream:
    """48 layers x 1280, trained on Libri-Light 60,000 h."""
    return published("hubert-xlarge")


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
        note=f"UNTRAINED: random weights, seed {seed}; a floor to compare with, not a HuBERT",
    )
    # Normalising the waveform changes nothing after a group norm and is what the published
    # layer-norm checkpoints ask for.
    return TransformerUpstream(untrained_encoder(config, seed), card, config.conv_norm == "layer")
