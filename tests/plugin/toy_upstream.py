"""An installable upstream of two layers: magnitudes in 40 bands, and their logarithms."""

import torch
from torch.nn.utils.rnn import pad_sequence

from superb import HiddenStates, UpstreamCard

HOP = 320


class EnergyUpstream:
    """Cuts an utterance into frames of 20 ms; what does not fill a frame is left out."""

    card = UpstreamCard(
        name="toy-energy",
        layers=2,
        dim=40,
        hop_samples=HOP,
        min_samples=HOP,
        family="signal",
        trained_on=frozenset(),
        pad_invariant=True,
        note="a toy, for showing how to add an upstream",
    )
    fingerprint = "toy-energy 1"

    def __call__(self, waveforms: list[torch.Tensor]) -> HiddenStates:
        """Encode 1-D waveforms, each on its own, then put them into one padded tensor."""
        layers = [self._encode(waveform) for waveform in waveforms]  # [frame, layer, dim]
        values = pad_sequence(layers, batch_first=True)  # [utterance, frame, layer, dim]
        lengths = torch.tensor([len(frames) for frames in layers])
        return HiddenStates(values.permute(2, 0, 1, 3).contiguous(), lengths)

    def _encode(self, waveform: torch.Tensor) -> torch.Tensor:
        frames = waveform.unfold(0, HOP, HOP)  # [frame, sample]
        spectrum = torch.fft.rfft(frames).abs()[:, 1:]  # 160 bins: 4 in each of 40 bands
        bands = spectrum.unflatten(1, (40, 4)).square().sum(2)
        return torch.stack([bands.sqrt(), (bands + 1e-6).log()], dim=1)
