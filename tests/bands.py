"""A toy encoder, as an object in tests and as a file that is named to workers."""

from __future__ import annotations

import torch

from benchmark.encoding.macs import SECONDS
from superb import HiddenStates, UpstreamCard


class Bands:
    """Energies of a spectrum in 8 bands, in two layers, 10 ms apart; remembers what it heard."""

    card = UpstreamCard(
        name="bands", layers=2, dim=8, hop_samples=160, min_samples=320, pad_invariant=True
    )
    fingerprint = "bands 1"

    def __init__(self, patience: int = 10_000) -> None:
        self.heard: list[torch.Tensor] = []
        self.patience = patience

    def __call__(self, waveforms):
        (waveform,) = waveforms
        if len(self.heard) == self.patience:
            raise KeyboardInterrupt
        if waveform.numel() < SECONDS * 16_000:  # longer is noise, to count the arithmetic on
            self.heard.append(waveform)
        windows = waveform.unfold(0, 320, 160) * torch.hann_window(320)
        rows = torch.fft.rfft(windows).abs()[:, :160].reshape(-1, 8, 20).mean(-1).log1p()
        return HiddenStates(torch.stack([rows, rows.square()])[:, None], torch.tensor([len(rows)]))
