"""An upstream in a file of its own, nothing installed: `superb check my_encoder.py:MyEncoder`."""

import torch
from torch import Tensor, nn

from superb import HiddenStates, UpstreamCard


class MyEncoder:
    """A random convolution and two layers on top of it."""

    def __init__(self) -> None:
        self.card = UpstreamCard(
            name="my-encoder",
            layers=3,
            dim=64,
            hop_samples=320,
            min_samples=400,
            pad_invariant=True,
        )
        with torch.random.fork_rng():  # a fixed encoder that leaves global randomness alone
            torch.manual_seed(0)
            self.front = nn.Conv1d(1, 64, kernel_size=400, stride=320).eval()
            self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(2)).eval()

    @torch.no_grad()
    def __call__(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D waveforms in [-1, 1] at 16 kHz, each on its own."""
        states = [self._encode(waveform) for waveform in waveforms]  # [layer, frame, dim] each
        lengths = torch.tensor([state.shape[1] for state in states])
        values = torch.zeros(3, len(states), int(lengths.max()), 64)
        for index, state in enumerate(states):
            values[:, index, : state.shape[1]] = state  # frames past the length stay zero
        return HiddenStates(values, lengths)

    def _encode(self, waveform: Tensor) -> Tensor:
        layers = [self.front(waveform[None, None])[0].T]  # [frame, dim]
        for block in self.blocks:
            layers.append(layers[-1] + torch.tanh(block(layers[-1])))
        return torch.stack(layers)
