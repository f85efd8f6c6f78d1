"""Spectra, filter banks and cepstra: what a learned encoder has to beat. Nothing is trained.

Kaldi's recipe as torchaudio implements it: 25 ms frames every 10 ms, DC offset removed,
pre-emphasis 0.97, Povey window, 512-point power spectrum, triangular mel filters from 20 Hz to
8 kHz, natural logarithm; then first and second differences over a window of 5 frames.
``spectrogram`` stops at the logarithm of the power spectrum, without differences.

``plp``, which torchaudio does not have, follows Hermansky (JASA 87(4), 1990) instead: see
`perceptual_linear_prediction`.

* *Scale.* Waveforms in [-1, 1] are multiplied by 32768, the 16-bit range Kaldi was written for.
  For a log mel it only adds a constant, but Kaldi's floors assume it.
* *Silence.* Energies are floored before the logarithm (float32 epsilon for filter banks), so
  digital silence gives a finite constant, never minus infinity.
* *Dither* is 0: the same waveform gives the same features, bit for bit.
* *Frames.* Only whole windows count (``snip_edges``): ``1 + (samples - 400) // 160``.

Every utterance is computed on its own, then zero-padded: `pad_invariant` holds by construction.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torchaudio import functional
from torchaudio.compliance import kaldi

from benchmark.core import HiddenStates, UpstreamCard
from upstreams.models import batch
from upstreams.models.batch import SAMPLE_RATE

WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
INT16_SCALE = 32_768.0

FFT_SAMPLES = 512
PLP_ORDER = 12

Kind = Literal["fbank", "mfcc", "plp", "spectrogram"]


class SignalFeatures:
    """A signal representation as an upstream with one layer; with its differences but for spectra.

    Args:
        card: its card, but for the shortest waveform.
        kind: ``fbank``, 80 log mel energies; ``mfcc``, 13 cepstra of 23 mel bands; ``plp``, 13
            cepstra of an all-pole model of the auditory spectrum; ``spectrogram``, the log power
            spectrum.
        normalize: bring every dimension to zero mean and unit variance over the utterance (CMVN).
            The time mean is then zero whatever was said: a task that pools over time before
            anything nonlinear sees nothing.
    """

    concurrent = True

    def __init__(self, card: UpstreamCard, kind: Kind, normalize: bool) -> None:
        self.kind: Kind = kind
        self.normalize = normalize
        self.card = dataclasses.replace(card, min_samples=WINDOW_SAMPLES)

    @torch.inference_mode()
    def __call__(self, waveforms: list[Tensor]) -> HiddenStates:
        """Compute 1-D waveforms in [-1, 1] at 16 kHz, one per utterance.

        Raises:
            AudioError: for a waveform that is not 1-D, not float, or shorter than one window.
        """
        batch.check_waveforms(waveforms, self.card)
        return batch.stack([self.features(waveform).unsqueeze(0) for waveform in waveforms])

    def features(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[frame, dim]``."""
        scaled = waveform.float().unsqueeze(0) * INT16_SCALE
        features = STATIC[self.kind](scaled)
        if self.kind != "spectrogram":
            # [frame, dim] -> [dim, frame]: differences are along the last axis.
            static = features.transpose(0, 1)
            delta = functional.compute_deltas(static, win_length=5)
            delta_delta = functional.compute_deltas(delta, win_length=5)
            features = torch.cat([static, delta, delta_delta]).transpose(0, 1)
        return cmvn(features) if self.normalize else features


def log_mel(scaled: Tensor) -> Tensor:
    """80 log mel energies: ``[1, sample]`` in the 16-bit range to ``[frame, 80]``."""
    mel: Tensor = kaldi.fbank(
        scaled, num_mel_bins=80, dither=0.0, sample_frequency=float(SAMPLE_RATE)
    )
    return mel


def cepstra(scaled: Tensor) -> Tensor:
    """13 cepstra, C0 included: ``[1, sample]`` in the 16-bit range to ``[frame, 13]``."""
    mfcc: Tensor = kaldi.mfcc(scaled, num_ceps=13, dither=0.0, sample_frequency=float(SAMPLE_RATE))
    return mfcc


def log_power(scaled: Tensor) -> Tensor:
    """Log power spectrum: ``[1, sample]`` in the 16-bit range to ``[frame, 257]``.

    In Kaldi's layout: the place of the constant component, which is removed anyway, holds the log
    energy of the frame.
    """
    power: Tensor = kaldi.spectrogram(scaled, dither=0.0, sample_frequency=float(SAMPLE_RATE))
    return power


def perceptual_linear_prediction(scaled: Tensor) -> Tensor:
    """13 PLP cepstra: ``[1, sample]`` in the 16-bit range to ``[frame, 13]``.

    Hermansky (1990), sections I A to I F, for 16 kHz: power spectrum of 25 ms Hamming windows;
    critical bands one Bark apart; equal loudness at 40 dB; intensity to the power 0.33; an
    all-pole model of order 12 (5 in the paper, for 10 kHz) of that auditory spectrum; its
    cepstrum. C0 is the logarithm of the model's gain (of the prediction error's energy).

    In float64: the recursions lose digits.
    """
    frames = scaled[0].double().unfold(0, WINDOW_SAMPLES, HOP_SAMPLES)
    window = torch.hamming_window(
        WINDOW_SAMPLES, periodic=False, dtype=torch.float64, device=scaled.device
    )
    power_tf = torch.fft.rfft(frames * window, n=FFT_SAMPLES).abs().square()
    filters_fb, centres = critical_bands(power_tf.shape[1])
    # A floor of 1 in 16-bit units is below the noise of rounding to 16 bits: only silence meets it.
    bands_tb = (power_tf @ filters_fb.to(power_tf)).clamp(min=1.0)
    loudness_tb = (bands_tb * equal_loudness(centres).to(power_tf)) ** 0.33
    # The ends of the scale, 0 Bark and the Nyquist frequency, carry no loudness: copy the next.
    loudness_tb[:, 0], loudness_tb[:, -1] = loudness_tb[:, 1], loudness_tb[:, -2]
    # Inverse transform of a power spectrum: an autocorrelation.
    correlation_tn = torch.fft.irfft(loudness_tb)[:, : PLP_ORDER + 1]
    predictor_tn, error_t = levinson_durbin(correlation_tn)
    return predictor_cepstrum(predictor_tn, error_t).float()


def bark(hertz: Tensor) -> Tensor:
    """Frequency in Bark, Schroeder's formula (Hermansky 1990, equation 3)."""
    return 6 * torch.asinh(hertz / 600)


def critical_bands(bins: int) -> tuple[Tensor, Tensor]:
    """Critical-band curves, about one Bark apart from 0 to the Nyquist frequency.

    A band is flat over one Bark; it falls by 25 dB per Bark below and 10 dB per Bark above, to
    nothing 1.3 Bark below and 2.5 Bark above its centre (equation 5).

    Args:
        bins: of the power spectrum.

    Returns:
        Weights ``[bin, band]`` and centres in Hz ``[band]``.
    """
    nyquist = torch.tensor(SAMPLE_RATE / 2, dtype=torch.float64)
    highest = float(bark(nyquist))
    centres = torch.linspace(0, highest, math.ceil(highest) + 1, dtype=torch.float64)
    frequencies = torch.linspace(0, float(nyquist), bins, dtype=torch.float64)
    distance = bark(frequencies)[:, None] - centres
    rising = 10 ** (2.5 * (distance + 0.5))
    falling = 10 ** (-1.0 * (distance - 0.5))
    weights = torch.minimum(rising, falling).clamp(max=1.0)
    weights[(distance < -1.3) | (distance > 2.5)] = 0
    return weights, 600 * torch.sinh(centres / 6)


def equal_loudness(hertz: Tensor) -> Tensor:
    """The ear's sensitivity at about 40 dB, for frequencies above 5 kHz too (equation 7).

    Its constant factor is arbitrary; here the largest of the given frequencies gets 1.
    """
    squared = (2 * math.pi * hertz).square()
    weights = (
        (squared + 56.8e6)
        * squared.square()
        / ((squared + 6.3e6).square() * (squared + 0.38e9) * (squared**3 + 9.58e26))
    )
    return weights / weights.max()


def levinson_durbin(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Linear prediction from autocorrelations, frame by frame.

    Args:
        correlation: ``[frame, order + 1]``, lag 0 first.

    Returns:
        ``[frame, order]``, the coefficients a of A(z) = 1 + Σ a[n] z⁻ⁿ, and ``[frame]``, the energy
        of the prediction error.
    """
    error = correlation[:, 0]
    predictor = correlation[:, :0]
    for order in range(1, correlation.shape[1]):
        past = correlation[:, 1:order].flip(1)
        reflection = -(correlation[:, order] + (predictor * past).sum(1)) / error
        predictor = torch.cat(
            [predictor + reflection[:, None] * predictor.flip(1), reflection[:, None]], dim=1
        )
        error = error * (1 - reflection.square())
    return predictor, error


def predictor_cepstrum(predictor: Tensor, error: Tensor) -> Tensor:
    """Cepstrum of the all-pole model √error / A(z).

    Args:
        predictor: ``[frame, order]``, a[1], a[2], …
        error: ``[frame]``, the energy of the prediction error.

    Returns:
        ``[frame, order + 1]``: log(error), then c[n] = -a[n] - Σ k/n c[k] a[n-k].
    """
    cepstrum: list[Tensor] = []
    for n in range(1, predictor.shape[1] + 1):
        term = -predictor[:, n - 1]
        for k in range(1, n):
            term = term - k / n * cepstrum[k - 1] * predictor[:, n - k - 1]
        cepstrum.append(term)
    return torch.stack([error.log(), *cepstrum], dim=1)


STATIC: dict[Kind, Callable[[Tensor], Tensor]] = {
    "fbank": log_mel,
    "mfcc": cepstra,
    "plp": perceptual_linear_prediction,
    "spectrogram": log_power,
}


def cmvn(features: Tensor) -> Tensor:
    """Zero mean and unit variance of each dimension over time, ``[frame, dim]``.

    A dimension that does not vary (silence, or a single frame) becomes zero instead of dividing
    by zero.
    """
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    # Features are of the order of 10: a deviation below 1e-5 is rounding, not signal.
    return torch.where(deviation > 1e-5, (features - mean) / deviation, 0.0)


def fbank(card: UpstreamCard) -> SignalFeatures:
    """80 log mel energies with differences: 240 per frame."""
    return SignalFeatures(card, "fbank", normalize=False)


def fbank_cmvn(card: UpstreamCard) -> SignalFeatures:
    """The same, normalised over each utterance: the baseline of the SUPERB paper."""
    return SignalFeatures(card, "fbank", normalize=True)


def mfcc(card: UpstreamCard) -> SignalFeatures:
    """13 cepstra with differences: 39 per frame, without the CMVN that SUPERB applies to them."""
    return SignalFeatures(card, "mfcc", normalize=False)


def plp(card: UpstreamCard) -> SignalFeatures:
    """13 perceptual linear prediction cepstra with differences: 39 per frame."""
    return SignalFeatures(card, "plp", normalize=False)


def spectrogram(card: UpstreamCard) -> SignalFeatures:
    """Log power spectrum: 257 per frame."""
    return SignalFeatures(card, "spectrogram", normalize=False)
