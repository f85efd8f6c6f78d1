"""The untrained twin of anything."""

from __future__ import annotations

import pytest
import torch

from benchmark.encoding.fingerprint import weights_sha256
from benchmark.errors import UpstreamError
from upstreams.loading.load import load_upstream

HOLDER = """
import torch
from torch import nn
from superb_like import HiddenStates, UpstreamCard

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(400, 8)
        self.norm = nn.LayerNorm(8)

class Mine:
    card = UpstreamCard("mine", layers=1, dim=8, hop_samples=400, min_samples=400,
                        family="predictive", trained_on=None)
    def __init__(self):
        self.block = Block()
        with torch.no_grad():
            self.block.linear.weight.fill_(0.5)
    def __call__(self, waveforms):
        x = torch.stack([w[: len(w) // 400 * 400].view(-1, 400) for w in waveforms])
        y = self.block.norm(self.block.linear(x))
        return HiddenStates(y[None], torch.tensor([x.shape[1]] * len(waveforms)))

class Choosy(Mine):
    def __init__(self):
        super().__init__()
        self.block.reset_parameters = lambda generator: None

class Stubborn(Mine):
    def __init__(self):
        super().__init__()
        self.block.extra = nn.Parameter(torch.ones(3))
""".replace("superb_like", "benchmark.core")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(HOLDER)
    return path


def test_of_a_folder(make_folder, noise, rng_untouched):
    folder, _ = make_folder()
    trained, twin = load_upstream(str(folder)), load_upstream(f"untrained:{folder}")
    again = load_upstream(f"untrained:{folder}")
    values = [upstream([noise(4000)]).values for upstream in (trained, twin, again)]
    assert values[0].shape == values[1].shape
    assert not torch.allclose(values[0], values[1], atol=0.1)
    assert torch.equal(values[1], values[2])
    card = twin.card
    assert (card.name, card.family) == ("untrained:model", "untrained")
    assert card.trained_on == frozenset()
    assert card.note.startswith("UNTRAINED: random weights, seed 0")


def test_of_a_folder_reads_no_weights(make_folder):
    folder, _ = make_folder()
    (folder / "model.safetensors").unlink()
    assert load_upstream(f"untrained:{folder}").card.layers == 4


def test_of_the_table_needs_no_download(noise, rng_untouched):
    bundled, twin = load_upstream("hubert"), load_upstream("untrained:hubert")
    assert twin.card.name == "untrained:hubert"
    assert (bundled.card.family, twin.card.family) == ("predictive", "untrained")
    assert twin.card.note.startswith("UNTRAINED")
    assert twin([noise(4000)]).values.isfinite().all()


def test_encoders_of_one_body_have_one_twin():
    one, same, other = (
        weights_sha256(load_upstream(f"untrained:{name}")) for name in ("hubert", "wav2vec2", "apc")
    )
    assert one == same != other


@pytest.mark.parametrize("name", ["hubert", "wav2vec2", "cpc", "apc"])
def test_a_bundled_encoder_and_its_twin_hear_the_same(name, noise):
    bundled, twin = load_upstream(name), load_upstream(f"untrained:{name}")
    for waveform in (noise(4000), 0.01 * noise(4000) + 0.1):
        one, other = (upstream([waveform]).values for upstream in (bundled, twin))
        assert one[0].equal(other[0])  # what comes in, as it is
        assert not one[1].allclose(other[1], atol=1e-3)


def test_of_a_published_size(noise):
    twin = load_upstream("untrained:hubert-base")
    assert (twin.card.layers, twin.card.dim, twin.card.parameters) == (13, 768, 94_370_816)
    assert twin([noise(1000)]).values.std() > 0.1


def test_of_a_file(file, noise, rng_untouched):
    with torch.random.fork_rng(devices=[]):
        trained = load_upstream(f"{file}:Mine")
        twins = [load_upstream(f"untrained:{file}:Mine") for _ in range(2)]
    results = [upstream([noise(4000)]).values for upstream in (trained, *twins)]
    assert torch.equal(results[1], results[2])
    assert not torch.allclose(results[0], results[1], atol=0.1)
    assert twins[0].card.name == "untrained:mine"
    assert twins[0].card.parameters == 400 * 8 + 8 + 16
    assert twins[0].to("cpu") is twins[0]


def test_a_weight_that_nothing_draws(file):
    with torch.random.fork_rng(devices=[]), pytest.raises(UpstreamError, match=r"\bextra\b"):
        load_upstream(f"untrained:{file}:Stubborn")


def test_a_module_that_wants_more_than_that(file):
    says = r"Block\.reset_parameters\(\) raises TypeError"
    with torch.random.fork_rng(devices=[]), pytest.raises(UpstreamError, match=says):
        load_upstream(f"untrained:{file}:Choosy")


def test_signals_have_none():
    with pytest.raises(UpstreamError, match="'fbank' has no weights"):
        load_upstream("untrained:fbank")


def test_once_is_enough():
    with pytest.raises(UpstreamError, match="once"):
        load_upstream("untrained:untrained:hubert")


def test_of_a_foreign_model(tmp_path, noise, rng_untouched):
    import transformers

    config = transformers.Data2VecAudioConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=[12] * 7,
        num_conv_pos_embedding_groups=4,
        conv_pos_kernel_size=5,
    )
    config.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    twins = [load_upstream(f"untrained:{tmp_path}") for _ in range(2)]
    one, two = (twin([noise(4000)]).values for twin in twins)
    assert torch.equal(one, two)
    assert twins[0].card.family == "untrained"
