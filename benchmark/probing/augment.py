"""SpecAugment on features (Park et al. 2019), as SUPERB applies it: in training, before the head.

Masks and warps act on frames and dimensions alike in every layer, so they commute with the layer
mix: they are drawn once for a batch and serve all of its probes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates
from benchmark.protocol import SpecAugment


def spec_augment(
    states: HiddenStates, settings: SpecAugment, generator: torch.Generator
) -> HiddenStates:
    """Warp and mask a batch; masked values are zero. The input is left as it is."""
    values = states.values.clone()
    dim = states.dim
    for utterance, length in enumerate(states.lengths.tolist()):
        own = values[:, utterance, :length]
        if settings.time_warp:
            own.copy_(_time_warp(own, settings.time_warp, generator))
        longest = min(settings.time_width, int(settings.time_share * length) + 1)
        for _ in range(settings.time_masks):
            start, width = _span(length, longest, generator)
            own[:, start : start + width] = 0
        widest = min(settings.feature_width, int(settings.feature_share * dim) + 1)
        for _ in range(settings.feature_masks):
            start, width = _span(dim, widest, generator)
            own[:, :, start : start + width] = 0
    return HiddenStates(values, states.lengths)


def _draw(bound: int, generator: torch.Generator) -> int:
    """A whole number in [0, bound)."""
    return int(torch.randint(max(bound, 1), (), generator=generator))


def _span(size: int, bound: int, generator: torch.Generator) -> tuple[int, int]:
    width = _draw(bound, generator)
    return _draw(size - width, generator), width


def _time_warp(own: Tensor, window: int, generator: torch.Generator) -> Tensor:
    """Move one frame by up to `window` and stretch both sides to fit: [layer, frame, dim]."""
    length = own.shape[1]
    if length - window <= window + 1:
        return own.clone()
    centre = window + 1 + _draw(length - 2 * window - 1, generator)
    moved = min(max(centre - window + _draw(2 * window + 1, generator), 1), length - 1)
    channels = own.transpose(1, 2)
    left = nn.functional.interpolate(channels[..., :centre], size=moved, mode="linear")
    right = nn.functional.interpolate(channels[..., centre:], size=length - moved, mode="linear")
    return torch.cat([left, right], dim=2).transpose(1, 2)
