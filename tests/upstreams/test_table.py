"""What the table promises, against what is built."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmark.registry import load_attribute
from upstreams import UPSTREAMS, published
from upstreams.load import load_upstream
from upstreams.transformer import parameter_count

LEARNED = [
    name
    for name, entry in UPSTREAMS.items()
    if entry.architecture.startswith("upstreams.transformer:")
]
LOCAL = [name for name, entry in UPSTREAMS.items() if entry.checkpoint in ("bundled", "none")]


@pytest.mark.parametrize("name", LEARNED)
def test_sizes(name, rng_untouched):
    entry = UPSTREAMS[name]
    config = load_attribute(entry.architecture)
    assert parameter_count(config) == entry.parameters
    assert (config.layers + 1, config.dim, config.hop_samples) == (
        entry.layers,
        entry.dim,
        entry.hop_samples,
    )


@pytest.mark.parametrize("name", LOCAL)
def test_cards(name, noise):
    upstream, entry = load_upstream(name), UPSTREAMS[name]
    card = upstream.card
    assert card.name == name
    for field in ("family", "layers", "dim", "hop_samples", "parameters", "trained_on", "note"):
        assert getattr(card, field) == getattr(entry, field), field
    states = upstream([noise(8000)])
    assert states.values.shape[0] == card.layers
    assert states.values.shape[3] == card.dim
    assert upstream([noise(card.min_samples)]).values.isfinite().all()


@pytest.mark.parametrize("entry", UPSTREAMS.values(), ids=UPSTREAMS)
def test_every_row_is_complete(entry):
    assert callable(load_attribute(entry.target))
    assert entry.paper
    assert 1900 < entry.year < 2100
    if "/" in entry.checkpoint:
        assert entry.licence
        assert entry.trained_on
        assert len(entry.revision) in (0, 40)


def test_a_published_row(monkeypatch, make_folder):
    """The path from a row to a card, with a small model in the place of the published one."""
    folder, _ = make_folder("a" * 40)
    row = UPSTREAMS["hubert-base"]
    monkeypatch.setattr(published, "download", lambda repository, revision: folder)
    with pytest.raises(published.UpstreamError, match="it is another model than 'hubert-base'"):
        published.hubert_base()
    small = {**UPSTREAMS, "hubert-base": replace(row, layers=4, dim=32)}
    monkeypatch.setattr(published, "UPSTREAMS", small)
    card = published.hubert_base().card
    assert (card.name, card.source, card.revision) == ("hubert-base", row.checkpoint, "a" * 40)
    assert card.trained_on == {"librispeech"}
    assert isinstance(published.hubert_base()([torch.zeros(400)]).values, torch.Tensor)
