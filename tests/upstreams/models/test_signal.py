"""Spectra, filter banks and cepstra against torchaudio; PLP against the paper written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

from benchmark.conformance import check_upstream, raise_for_failures
from benchmark.errors import AudioError
from upstreams.loading.load import load_upstream
from upstreams.models import signal as features

NAMES = ["fbank", "fbank-cmvn", "mfcc", "plp", "spectrogram"]


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


@pytest.mark.parametrize("name", ["plp", "spectrogram"])
def test_conformance(name):
    raise_for_failures(check_upstream(load_upstream(name)))


def test_spectrogram_is_torchaudio(noise):
    waveform = noise(8000)
    expected = kaldi.spectrogram(waveform[None] * 32768, dither=0.0)
    frames = load_upstream("spectrogram")([waveform]).values[0, 0]
    assert frames.shape == (48, 257)
    assert torch.equal(frames, expected)
    # A tone of 1 kHz lands in bin 1000 / (16000 / 512) = 32.
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 16_000)
    assert load_upstream("spectrogram")([tone]).values[0, 0, 5, 1:].argmax() == 31


# Perceptual linear prediction, written out a second time from Hermansky (1990): sums over single
# bands and frequencies, a matrix of cosines, the normal equations, and the cepstrum as the Fourier
# series of the model's logarithm. Nothing is shared with the code under test.


def plp_of_one_frame(samples):
    """``[400]`` in the 16-bit range to 13 cepstra."""
    window = [0.54 - 0.46 * np.cos(2 * np.pi * n / 399) for n in range(400)]
    bins = np.arange(257)
    angles = 2 * np.pi * np.outer(bins, np.arange(400)) / 512
    x = samples * window
    power = (np.cos(angles) @ x) ** 2 + (np.sin(angles) @ x) ** 2
    hertz = bins * 16_000 / 512

    def bark(f):
        w = 2 * np.pi * f
        return 6 * np.log(w / (1200 * np.pi) + np.sqrt((w / (1200 * np.pi)) ** 2 + 1))

    top = bark(8000.0)
    centres = [top * i / 20 for i in range(21)]
    loudness = []
    for centre in centres:
        energy = 0.0
        for f, p in zip(hertz, power, strict=True):
            z = bark(f) - centre
            if z < -1.3 or z > 2.5:
                weight = 0.0
            elif z <= -0.5:
                weight = 10 ** (2.5 * (z + 0.5))
            elif z < 0.5:
                weight = 1.0
            else:
                weight = 10 ** (-1.0 * (z - 0.5))
            energy += weight * p
        loudness.append(max(energy, 1.0))
    omega = [1200 * np.pi * np.sinh(centre / 6) for centre in centres]
    ear = np.array(
        [
            (w**2 + 56.8e6) * w**4 / ((w**2 + 6.3e6) ** 2 * (w**2 + 0.38e9) * (w**6 + 9.58e26))
            for w in omega
        ]
    )
    heard = (np.array(loudness) * ear / ear.max()) ** 0.33
    heard[0], heard[20] = heard[1], heard[19]
    # The spectrum and its mirror image, 40 points around the circle.
    circle = np.concatenate([heard, heard[19:0:-1]])
    lags = [np.mean(circle * np.cos(2 * np.pi * n * np.arange(40) / 40)) for n in range(13)]
    matrix = np.array([[lags[abs(i - j)] for j in range(12)] for i in range(12)])
    a = np.linalg.solve(matrix, -np.array(lags[1:]))
    error = lags[0] + a @ np.array(lags[1:])
    grid = np.exp(-2j * np.pi * np.outer(np.arange(4096), np.arange(13)) / 4096)
    log_model = -2 * np.log(np.abs(grid @ np.concatenate([[1.0], a])))
    series = np.fft.ifft(log_model).real
    return np.concatenate([[np.log(error)], series[1:13]])


@pytest.mark.parametrize("kind", ["noise", "tone", "silence", "vowel"])
def test_plp_is_the_paper(kind, noise):
    time = torch.arange(2000) / 16_000
    waveform = {
        "noise": noise(2000),
        "tone": 0.3 * torch.sin(2 * torch.pi * 440 * time),
        "silence": torch.zeros(2000),
        "vowel": sum(0.2 / k * torch.cos(2 * torch.pi * 120 * k * time) for k in range(1, 30)),
    }[kind]
    frames = load_upstream("plp")([waveform]).values[0, 0]
    assert frames.shape == (11, 39)
    for index in range(11):
        scaled = waveform[160 * index : 160 * index + 400].double().numpy() * 32768
        expected = torch.from_numpy(plp_of_one_frame(scaled)).float()
        assert torch.allclose(frames[index, :13], expected, atol=2e-4), index
    assert torch.allclose(frames[:, 13:26], compute_deltas(frames[:, :13].T.contiguous()).T)


def test_loudness_moves_plp_in_c0_alone(noise):
    waveform = 0.1 * noise(4000)
    one, two = (load_upstream("plp")([scale * waveform]).values[0, 0] for scale in (1.0, 4.0))
    shift = torch.full((len(one),), 0.33 * 2 * np.log(4.0))
    assert torch.allclose(two[:, 0] - one[:, 0], shift, atol=1e-3)
    assert torch.allclose(two[:, 1:13], one[:, 1:13], atol=1e-4)


def test_levinson_durbin_solves_the_normal_equations():
    signal = torch.randn(3, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lags = torch.stack(
        [(signal[:, : 200 - lag] * signal[:, lag:]).sum(1) for lag in range(6)], dim=1
    )
    predictor, error = features.levinson_durbin(lags)
    for row in range(3):
        matrix = torch.tensor([[float(lags[row, abs(i - j)]) for j in range(5)] for i in range(5)])
        residual = matrix.double() @ predictor[row] + lags[row, 1:]
        assert residual.abs().max() < 1e-3
        assert torch.allclose(error[row], lags[row, 0] + predictor[row] @ lags[row, 1:])


def test_critical_bands_and_loudness():
    weights, centres = features.critical_bands(257)
    assert weights.shape == (257, 21)
    assert float(centres[-1]) == pytest.approx(8000)
    assert weights.max() == 1
    loudness = features.equal_loudness(torch.tensor([100.0, 1000.0, 3500.0, 7900.0]).double())
    assert loudness.argmax() == 2
    assert loudness[0] < 0.1
