"""An encoder that hears everything louder or softer than it was recorded."""

from __future__ import annotations

from torch import Tensor

from benchmark.core import HiddenStates, Upstream, UpstreamCard


class Amplified:
    """An upstream behind an amplifier.

    The samples are multiplied by one number and not clipped, as ``sox gain`` does it for gains
    that do not exceed full scale. Resampling and mixing channels are linear, so it is the same
    before and after them.

    Args:
        upstream: the encoder.
        gain_db: in decibels; -3 multiplies by 0.708.
    """

    def __init__(self, upstream: Upstream, gain_db: float) -> None:
        self._upstream = upstream
        self.factor = 10.0 ** (gain_db / 20)

    @property
    def card(self) -> UpstreamCard:
        """That of the encoder."""
        return self._upstream.card

    def __call__(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode the amplified waveforms."""
        return self._upstream([waveform * self.factor for waveform in waveforms])
