"""Small models of the rows of the table, and what is asked of any model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from upstreams.catalogue import UPSTREAMS
from upstreams.loading.rows import row_card
from upstreams.models import av_hubert, cpc, generative, wav2vec
from upstreams.models.utterance import FrozenEncoder


@pytest.fixture
def noise() -> Callable[[int], torch.Tensor]:
    """``noise(samples)``: a waveform, always the same one."""

    def make(samples, seed=0):
        generator = torch.Generator().manual_seed(seed + samples)
        return 0.1 * torch.randn(samples, generator=generator) + 0.03

    return make


@pytest.fixture
def change_in_company() -> Callable[..., float]:
    """``change_in_company(upstream, waveforms)``: largest relative change beside the others."""

    def measure(upstream, waveforms):
        together = upstream(waveforms)
        worst = 0.0
        for index, waveform in enumerate(waveforms):
            alone = upstream([waveform])
            length = int(together.lengths[index])
            assert length == int(alone.lengths[0])
            difference = together.values[:, index, :length] - alone.values[:, 0]
            scale = alone.values.abs().amax(dim=(1, 2, 3))
            worst = max(worst, float((difference.abs().amax(dim=(1, 2)) / scale).max()))
            assert not together.values[:, index, length:].any()
        return worst

    return measure


def _thin(config, dim):
    return replace(config, convolutions=replace(config.convolutions, dim=dim))


_NARROW = {"dim": 16, "heads": 2, "feed_forward_dim": 24}
_SMALL = {
    "cpc": replace(generative.RECURRENT_MINI, dim=160),
    "apc": replace(generative.RECURRENT_MINI, dim=160),
    "cpc-2019": replace(_thin(cpc.CPC_2019, 16), context_dim=8),
    "modified-cpc": replace(_thin(cpc.MODIFIED_CPC, 12), context_dim=12),
    "bidirectional-cpc": replace(_thin(cpc.BIDIRECTIONAL_CPC, 16), direction_dim=8),
    "wav2vec-large": _thin(wav2vec.WAV2VEC_LARGE, 12),
    "vq-wav2vec-gumbel": replace(_thin(wav2vec.VQ_WAV2VEC_GUMBEL, 12), codes=5),
    "vq-wav2vec-kmeans": replace(_thin(wav2vec.VQ_WAV2VEC_KMEANS, 12), codes=5),
    "apc-3x512": replace(generative.APC_3X512, dim=16),
    "vq-apc-3x512": replace(generative.VQ_APC_3X512, dim=16, codes=7),
    "npc-4x512": replace(generative.NPC_4X512, dim=16, codes=5),
    "mockingjay-12x768": replace(generative.MOCKINGJAY_12X768, layers=4, **_NARROW),
    "tera-3x768": replace(generative.TERA_3X768, **_NARROW),
    "av-hubert-base": replace(av_hubert.AV_HUBERT_BASE, layers=2, position_groups=4, **_NARROW),
    "av-hubert-large": replace(av_hubert.AV_HUBERT_LARGE, layers=3, position_groups=8, **_NARROW),
}


@pytest.fixture
def small() -> Callable[[str], FrozenEncoder]:
    """``small(name)``: the row's architecture with few channels and random weights."""

    def make(name):
        encoder = _SMALL[name].build()
        encoder.reset_parameters(torch.Generator().manual_seed(0))
        return FrozenEncoder(encoder, row_card(name, _SMALL[name]))

    with torch.random.fork_rng(devices=[]):
        yield make


@pytest.fixture
def small_rows(monkeypatch) -> None:
    """The rows' configurations are those of `small`."""
    for name, config in _SMALL.items():
        monkeypatch.setattr(UPSTREAMS[name].architecture.replace(":", "."), config)
