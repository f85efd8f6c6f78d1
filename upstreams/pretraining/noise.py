"""Disturbed inputs for denoising objectives (WavLM, arXiv 2110.13900, section III.B)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

# Energy of the speech over that of what is mixed in, in dB (ibid., algorithm 1).
SPEECH_DB = (-5.0, 5.0)
NOISE_DB = (-5.0, 20.0)
# How often what is mixed in is noise rather than another utterance (ibid.).
NOISE_CHANCE = 0.1


def disturb(waveforms: Tensor, share: float, generator: Generator) -> Tensor:
    """Mix a stretch of another utterance, or noise, into some utterances.

    The stretch takes at most half of an utterance, so that the louder half is still the speaker
    whose targets are asked for. WavLM takes recorded noise; here it is drawn, with a power that
    falls with frequency as 1 / f^a, a between 0 (white) and 2 (brown).

    Args:
        waveforms: ``[utterance, sample]``.
        share: of the utterances that are disturbed.
        generator: on the CPU.

    Returns:
        ``[utterance, sample]``, a copy.
    """
    utterances, samples = waveforms.shape
    mixed = waveforms.clone()
    for index in range(utterances):
        draw = torch.rand(6, generator=generator)
        other = int(torch.randint(max(1, utterances - 1), (), generator=generator))
        if draw[0] >= share:
            continue
        length = max(1, int(draw[1] * samples / 2))
        start = int(draw[2] * (samples - length))
        if draw[3] < NOISE_CHANCE or utterances == 1:
            added = coloured_noise(length, float(2 * draw[4]), generator).to(waveforms.device)
            low, high = NOISE_DB
        else:
            source = int(draw[4] * (samples - length))
            added = waveforms[other + (other >= index), source : source + length]
            low, high = SPEECH_DB
        ratio = 10 ** (float(low + draw[5] * (high - low)) / 10)
        energy = waveforms[index].square().mean()
        scale = torch.sqrt(energy / (ratio * added.square().mean() + 1e-12))
        mixed[index, start : start + length] += scale * added
    return mixed


def coloured_noise(samples: int, exponent: float, generator: Generator) -> Tensor:
    """Noise ``[sample]`` of unit variance in the mean, with power over 1 / f^exponent."""
    spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
    frequency = torch.arange(len(spectrum)).clamp(min=1).float()
    noise: Tensor = torch.fft.irfft(spectrum / frequency.pow(exponent / 2), n=samples)
    return noise / noise.square().mean().sqrt().clamp(min=1e-6)
