"""Tiny models in transformers' own classes and folders, the reference for ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
SHORT_STACK = {"conv_dim": [12] * 3, "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2]}
FULL_STACK = {"conv_dim": [12] * 7}


@pytest.fixture(scope="session")
def make_model() -> Callable[..., transformers.PreTrainedModel]:
    """``make_model(kind, full_stack, **options)``: random, all weights away from 0 and 1."""

    def make(kind="hubert", full_stack=True, seed=0, **options):
        stack = FULL_STACK if full_stack else SHORT_STACK
        config_class, model_class = {
            "hubert": (HubertConfig, HubertModel),
            "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
        }[kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(config_class(**TINY, **stack, **options)).eval()
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(0.2 * torch.randn_like(weight))
        return model

    return make


@pytest.fixture
def make_folder(make_model, tmp_path) -> Callable[..., tuple[Path, transformers.PreTrainedModel]]:
    """``make_folder(name, normalize, **make_model arguments)``: the same as a checkpoint folder."""

    def make(name="model", normalize=False, **options):
        model = make_model(**options)
        folder = tmp_path / name
        model.save_pretrained(folder)
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
        extractor.save_pretrained(folder)
        return folder, model

    return make


@pytest.fixture
def noise() -> Callable[[int], torch.Tensor]:
    """``noise(samples)``: a waveform, always the same one."""

    def make(samples, seed=0):
        generator = torch.Generator().manual_seed(seed + samples)
        return 0.1 * torch.randn(samples, generator=generator) + 0.03

    return make


@pytest.fixture
def rng_untouched():
    """Fails the test if torch's global random state changed during it."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())
