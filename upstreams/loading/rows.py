"""The rows of the catalogue as encoders: bundled, published, computed, from a file, untrained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmark.core import Upstream, UpstreamCard
from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams.catalogue import UPSTREAMS
from upstreams.loading import pretrained
from upstreams.loading.files import Origin, hub_origin, joined
from upstreams.loading.folder import load_folder
from upstreams.loading.hub import download
from upstreams.loading.local_file import read_encoder
from upstreams.loading.untrained import SEED, untrained_card
from upstreams.models.architecture import Architecture, untrained_encoder
from upstreams.models.transformer import EncoderConfig

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def load_row(name: str) -> Upstream:
    """The encoder of a row whose `Entry.loads` says that it can be had by name.

    Raises:
        UpstreamError: its weights cannot be fetched or read, or are not the size the row says.
    """
    entry = UPSTREAMS[name]
    if entry.checkpoint == "bundled":
        return pretrained.load(CHECKPOINTS / name, Origin(name=name, source=entry.checkpoint))
    if entry.target:
        computed: Upstream = load_attribute(entry.target)(row_card(name))
        return computed
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


def with_weights(row: str, content: object, path: Path, name: str) -> pretrained.Frozen:
    """A row with the weights of a training file.

    Args:
        row: with a `Layout`.
        content: of the file, as plain data.
        path: of the file.
        name: of the encoder.

    Raises:
        UpstreamError: the file does not hold exactly the weights of the row.
    """
    entry = UPSTREAMS[row]
    architecture, layout = load_attribute(entry.architecture), load_attribute(entry.layout)
    encoder = read_encoder(content, architecture, layout, str(path))
    card = replace(
        row_card(row, encoder.config),
        name=name,
        trained_on=None,
        source=str(path),
        note="weights from a local file; where it comes from is not verified",
    )
    return pretrained.frozen(encoder, card)


def untrained_row(name: str, seed: int = SEED) -> pretrained.Frozen:
    """The architecture of a row with random weights; nothing is fetched.

    Args:
        name: a row with an architecture.
        seed: of the weights.
    """
    architecture: Architecture = load_attribute(UPSTREAMS[name].architecture)
    card = untrained_card(row_card(name, architecture), seed)
    # Normalising the waveform changes nothing after a group norm, is what the published layer-norm
    # checkpoints ask for, and is not done before mel energies, which keep their level.
    normalize = (
        isinstance(architecture, EncoderConfig)
        and architecture.conv_norm == "layer"
        and not architecture.log_mel
    )
    return pretrained.frozen(untrained_encoder(architecture, seed), card, normalize)


def row_card(name: str, architecture: Architecture | None = None) -> UpstreamCard:
    """The card of a row, with the sizes of an architecture where one is given."""
    entry = UPSTREAMS[name]
    sizes = entry if architecture is None else architecture
    return UpstreamCard(
        name=name,
        layers=entry.layers if architecture is None else architecture.states,
        dim=sizes.dim,
        hop_samples=sizes.hop_samples,
        family=entry.family,
        parameters=entry.parameters,
        min_samples=1 if architecture is None else architecture.min_samples,
        pad_invariant=True,
        trained_on=entry.trained_on,
        paper=entry.paper,
        note=entry.note,
    )
