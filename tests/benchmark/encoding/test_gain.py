"""An amplifier before the encoder."""

import torch

from benchmark.core import HiddenStates, UpstreamCard
from benchmark.encoding.gain import Amplified


class Loudness:
    """The largest sample, as the only feature."""

    card = UpstreamCard(name="loudness", layers=1, dim=1, hop_samples=160)

    def __call__(self, waveforms):
        peaks = torch.stack([waveform.abs().max() for waveform in waveforms])
        return HiddenStates(peaks[None, :, None, None], torch.ones(len(waveforms), dtype=torch.int))


def test_three_decibels_down_is_0_708_times():
    quiet = Amplified(Loudness(), -3.0)
    assert quiet.card is Loudness.card
    waveforms = [torch.tensor([0.5, -1.0]), torch.tensor([0.25])]
    expected = torch.tensor([1.0, 0.25]) * 0.7079457843841379
    assert torch.allclose(quiet(waveforms).values.flatten(), expected, rtol=1e-7)
    assert waveforms[0].tolist() == [0.5, -1.0]  # the input is left as it is
