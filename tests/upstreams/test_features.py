"""Filter banks and cepstra against torchaudio."""

from __future__ import annotations

import pytest
import torch
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

from benchmark.errors import AudioError
from upstreams.load import load_upstream

NAMES = ["fbank", "fbank-cmvn", "mfcc"]


def test_fbank_is_torchaudio_with_differences(noise):
    waveform = noise(8000)
    mel = kaldi.fbank(waveform[None] * 32768, num_mel_bins=80, frame_length=25, frame_shift=10)
    states = load_upstream("fbank")([waveform])
    assert states.values.shape == (1, 1, 1 + (8000 - 400) // 160, 240)
    frames = states.values[0, 0]
    assert torch.allclose(frames[:, :80], mel, atol=1e-5)
    delta = compute_deltas(mel.T).T
    assert torch.allclose(frames[:, 80:160], delta, atol=1e-5)
    assert torch.allclose(frames[:, 160:], compute_deltas(delta.T).T, atol=1e-5)


def test_mfcc_is_torchaudio_without_normalisation(noise):
    waveform = noise(8000)
    expected = kaldi.mfcc(waveform[None] * 32768, num_ceps=13)
    frames = load_upstream("mfcc")([waveform]).values[0, 0]
    assert frames.shape[1] == 39
    assert torch.allclose(frames[:, :13], expected, atol=1e-4)
    assert "without" in load_upstream("mfcc").card.note


def test_cmvn_leaves_no_mean_and_unit_variance(noise):
    frames = load_upstream("fbank-cmvn")([noise(16_000)]).values[0, 0]
    assert frames.mean(0).abs().max() < 1e-4
    assert torch.allclose(frames.std(0, correction=0), torch.ones(240), atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [400, 559, 560, 8001])
def test_frames_and_silence(name, samples):
    states = load_upstream(name)([torch.zeros(samples)])
    assert int(states.lengths) == 1 + (samples - 400) // 160
    assert states.values.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_neighbour_changes_nothing(name, noise, rng_untouched):
    upstream = load_upstream(name)
    short, long = noise(3000), noise(9000)
    together = upstream([short, long])
    alone = upstream([short])
    length = int(alone.lengths)
    assert torch.equal(together.values[:, :1, :length], alone.values)
    assert not together.values[:, 0, length:].any()
    assert torch.equal(upstream([short]).values, alone.values)
    assert upstream.card.pad_invariant


def test_too_short():
    with pytest.raises(AudioError, match="at least 400"):
        load_upstream("fbank")([torch.zeros(399)])
