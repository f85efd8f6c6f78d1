"""What encoders of one utterance at a time share: no feature depends on what else is in a batch.

For `cpc`, `wav2vec` and `generative` beside this file: the frozen upstream around an encoder, and
its initial weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates, UpstreamCard
from upstreams.models import batch


class UtteranceEncoder(nn.Module):
    """An encoder of one utterance at a time: ``[sample]`` to ``[state, frame, dim]``."""

    def together(self, waveforms: list[Tensor]) -> list[Tensor]:
        """Several utterances, each as it is alone; where some of it can be shared, it is."""
        return [self(waveform) for waveform in waveforms]

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, as before training: `draw_weights`, then what is special.

        Args:
            generator: source of randomness; None is torch's own, for callers that guard it.
        """
        draw_weights(self, generator)


class FrozenEncoder(nn.Module):
    """A frozen encoder as an upstream: each utterance as if encoded alone, then zero-padded.

    Args:
        encoder: with its weights.
        card: its card.
    """

    concurrent = True

    def __init__(self, encoder: UtteranceEncoder, card: UpstreamCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.card = card
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D waveforms in [-1, 1] at 16 kHz, one per utterance.

        Raises:
            AudioError: for a waveform that is not 1-D, not float, or too short.
        """
        batch.check_waveforms(waveforms, self.card)
        device = next(self.encoder.parameters()).device
        return batch.stack(self.encoder.together([w.to(device).float() for w in waveforms]))


def draw_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Initial weights of every layer below a module; biases are zero.

    Convolutions: He et al. 2015, so that depth keeps the variance through ReLUs. Linear maps:
    N(0, 0.02), as in BERT. Recurrent layers: uniform in ±1/√units, torch's default.

    Args:
        module: whose layers are drawn.
        generator: source of randomness, on the device of the weights.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv1d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            elif isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02, generator=generator)
            elif isinstance(part, nn.MultiheadAttention):
                nn.init.normal_(part.in_proj_weight, std=0.02, generator=generator)
                nn.init.zeros_(part.in_proj_bias)
            elif isinstance(part, nn.RNNBase):
                bound = 1 / math.sqrt(part.hidden_size)
                for weight in part.parameters():
                    nn.init.uniform_(weight, -bound, bound, generator=generator)
                continue
            elif isinstance(part, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm1d):
                nn.init.ones_(part.weight)
                if isinstance(part, nn.BatchNorm1d):
                    part.reset_running_stats()
            bias = getattr(part, "bias", None)
            if isinstance(bias, nn.Parameter):
                nn.init.zeros_(bias)
