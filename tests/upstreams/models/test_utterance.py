"""What holds for every encoder of one utterance at a time."""

from __future__ import annotations

import pytest
import torch

from benchmark.conformance import check_upstream, raise_for_failures
from benchmark.errors import SuperbError
from benchmark.registry import load_attribute
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.load import load_upstream
from upstreams.loading.rows import untrained_row
from upstreams.models.architecture import parameter_count

# Samples between frames, and the school.
MODULES = {
    "upstreams.models.cpc": (160, "contrastive"),
    "upstreams.models.wav2vec": (160, "contrastive"),
    "upstreams.models.generative": (160, "generative"),
    "upstreams.models.av_hubert": (640, "predictive"),
}
ROWS = [name for name, row in UPSTREAMS.items() if row.architecture.split(":")[0] in MODULES]
# Random weights take their time.
QUICK = [name for name in ROWS if name not in ("mockingjay-12x768", "av-hubert-large")]
# Published sizes (s3prl's counts); the others have none to compare with.
PUBLISHED = {
    "modified-cpc": 1_843_456,
    "wav2vec-large": 32_537_088,
    "vq-wav2vec-gumbel": 34_145_408,
    "apc-3x512": 4_105_296,
    "vq-apc-3x512": 4_630_096,
    "npc-4x512": 19_380_560,
    "mockingjay-12x768": 85_118_208,
    "tera-3x768": 21_327_360,
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_tell_the_truth(name):
    entry = UPSTREAMS[name]
    config = load_attribute(entry.architecture)
    assert parameter_count(config) == entry.parameters
    assert (config.states, config.dim) == (entry.layers, entry.dim)
    assert config.hop_samples == entry.hop_samples
    if entry.checkpoint != "bundled":  # one body, with frames of 20 ms, for several schools
        hop, family = MODULES[entry.architecture.split(":")[0]]
        assert (entry.hop_samples, entry.family) == (hop, family)
    assert PUBLISHED.get(name, entry.parameters) == entry.parameters


@pytest.mark.parametrize("name", QUICK)
def test_published_size_runs(name, noise, rng_untouched):
    upstream, again = untrained_row(name), untrained_row(name)
    states = upstream([noise(4000)])
    entry = UPSTREAMS[name]
    assert states.values.shape[0] == entry.layers
    assert states.values.shape[3] == entry.dim
    assert states.values.isfinite().all()
    assert states.values.std() > 0.01
    assert torch.equal(states.values, again([noise(4000)]).values)
    card = upstream.card
    assert (card.name, card.family) == (f"untrained:{name}", "untrained")
    assert card.note.startswith("UNTRAINED: random weights, seed 0")
    assert card.parameters == entry.parameters


@pytest.mark.parametrize("name", ROWS)
def test_conformance(name, small):
    raise_for_failures(check_upstream(small(name), hop_budget_s=0.1))


def test_a_seed_is_a_model(noise, rng_untouched):
    values = [untrained_row("modified-cpc", seed)([noise(2000)]).values for seed in (0, 1)]
    assert not torch.allclose(values[0], values[1], atol=0.01)


@pytest.mark.parametrize("name", [name for name, entry in UPSTREAMS.items() if not entry.loads])
def test_a_name_never_gives_random_weights(name):
    with pytest.raises(SuperbError) as error:
        load_upstream(name)
    entry = UPSTREAMS[name]
    assert entry.note in str(error.value)
    assert (f"untrained:{name}" in str(error.value)) == bool(entry.architecture)
    assert (f"--upstream {name}:/path/to/" in str(error.value)) == (
        entry.checkpoint == "local file"
    )
