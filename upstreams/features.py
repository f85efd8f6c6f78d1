"""Filter banks and cepstra: what a learned encoder has to beat. No weights, nothing trained.

Kaldi's recipe as torchaudio implements it: 25 ms frames every 10 ms, DC offset removed,
pre-emphasis 0.97, Povey window, 512-point power spectrum, triangular mel filters from 20 Hz to
8 kHz, natural logarithm; then first and second differences over a window of 5 frames.

* *Scale.* Waveforms in [-1, 1] are multiplied by 32768, the 16-bit range Kaldi was written for.
  For a log mel it only adds a constant, but Kaldi's floors assume it.
* *Silence.* Energies are floored before the logarithm (float32 epsilon for filter banks), so
  digital silence gives a finite constant, never minus infinity.
* *Dither* is 0: the same waveform gives the same features, bit for bit.
* *Frames.* Only whole windows count (``snip_edges``): ``1 + (samples - 400) // 160``.

Every utterance is computed on its own, then zero-padded: `pad_invariant` holds by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torchaudio import functional
from torchaudio.compliance import kaldi

from benchmark.core import HiddenStates, UpstreamCard
from upstreams import UPSTREAMS, batch

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
INT16_SCALE = 32_768.0

Kind = Literal["fbank", "mfcc"]


class SignalFeatures:
    """A signal representation with its differences, as an upstream with one layer.

    Args:
        name: its name in the table.
        kind: ``fbank``, 80 log mel energies, or ``mfcc``, 13 cepstra of 23 mel bands.
        normalize: bring every dimension to zero mean and unit variance over the utterance (CMVN).
            The time mean is then zero whatever was said: a task that pools over time before
            anything nonlinear sees nothing.
    """

    def __init__(self, name: str, kind: Kind, normalize: bool) -> None:
        self.kind: Kind = kind
        self.normalize = normalize
        entry = UPSTREAMS[name]
        self.card = UpstreamCard(
            name=name,
            layers=entry.layers,
            dim=entry.dim,
            hop_samples=entry.hop_samples,
            sample_rate=SAMPLE_RATE,
            family=entry.family,
            parameters=entry.parameters,
            min_samples=WINDOW_SAMPLES,
            pad_invariant=True,
            trained_on=entry.trained_on,
            paper=entry.paper,
            note=entry.note,
        )

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


STATIC: dict[Kind, Callable[[Tensor], Tensor]] = {"fbank": log_mel, "mfcc": cepstra}


def cmvn(features: Tensor) -> Tensor:
    """Zero mean and unit variance of each dimension over time, ``[frame, dim]``.

    A dimension that does not vary (silence, or a single frame) becomes zero instead of dividing
    by zero.
    """
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    # Features are of the order of 10: a deviation below 1e-5 is rounding, not signal.
    return torch.where(deviation > 1e-5, (features - mean) / deviation, 0.0)


def fbank() -> SignalFeatures:
    """80 log mel energies with differences: 240 per frame."""
    return SignalFeatures("fbank", "fbank", normalize=False)


def fbank_cmvn() -> SignalFeatures:
    """The same, normalised over each utterance: the baseline of the SUPERB paper."""
    return SignalFeatures("fbank-cmvn", "fbank", normalize=True)


def mfcc() -> SignalFeatures:
    """13 cepstra with differences: 39 per frame, without the CMVN that SUPERB applies to them."""
    return SignalFeatures("mfcc", "mfcc", normalize=False)
