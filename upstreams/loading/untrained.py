"""The untrained twin of any encoder: what its architecture gives without any learning.

A score means little until one knows what random weights score. ``untrained:hubert-base`` is built
from the architecture alone and needs no download.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates, Upstream, UpstreamCard
from benchmark.encoding.fingerprint import modules_of
from benchmark.errors import UpstreamError

PREFIX = "untrained:"
SEED = 0


def untrained_card(card: UpstreamCard, seed: int = SEED) -> UpstreamCard:
    """The twin's card, from the card of the encoder it is the twin of."""
    return dataclasses.replace(
        card,
        name=card.name if card.name.startswith(PREFIX) else PREFIX + card.name,
        family="untrained",
        trained_on=frozenset(),
        licence="",
        revision="",
        note=f"UNTRAINED: random weights, seed {seed}; a floor to compare with",
    )


class UntrainedTwin:
    """An encoder of any make whose weights were drawn anew.

    Args:
        upstream: the encoder; its weights are overwritten.
        seed: of the new weights.

    Raises:
        UpstreamError: it has no weights, or some that no ``reset_parameters`` draws.
    """

    def __init__(self, upstream: Upstream, seed: int = SEED) -> None:
        modules = modules_of(upstream)
        if not any(True for module in modules for _ in module.parameters()):
            raise UpstreamError(
                f"{upstream.card.name!r} has no weights, so it has no untrained twin"
            )
        reset(modules, upstream.card.name, seed)
        self.card = dataclasses.replace(
            untrained_card(upstream.card, seed),
            parameters=sum(weight.numel() for module in modules for weight in module.parameters()),
        )
        self.upstream = upstream

    def __call__(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode with the new weights."""
        return self.upstream(waveforms)

    def to(self, device: torch.device | str) -> UntrainedTwin:
        """Move the weights; returns itself."""
        move: Any = getattr(self.upstream, "to", None)
        if move is not None:
            move(device)
        else:
            for module in modules_of(self.upstream):
                module.to(device)
        return self


def reset(modules: list[nn.Module], name: str, seed: int) -> None:
    """Draw all weights anew with each module's own ``reset_parameters``.

    Every weight is set to NaN first, so one that nothing draws shows. Children go before their
    parents, whose initialisation may build on theirs. Torch's global random state stays.

    Args:
        modules: whose weights are overwritten.
        name: of the encoder, for messages.
        seed: of the new weights.

    Raises:
        UpstreamError: a weight was not drawn, or drawing it failed.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for module in modules:
            for weight in module.parameters():
                weight.fill_(torch.nan)
        for module in modules:
            for part in reversed(list(module.modules())):
                draw: Any = getattr(part, "reset_parameters", None)
                if callable(draw):
                    try:
                        draw()
                    except Exception as error:  # a user's code may raise anything
                        raise UpstreamError(
                            f"{name!r} has no untrained twin: {type(part).__name__}."
                            f"reset_parameters() raises {type(error).__name__}: {error}"
                        ) from error
        left = [
            parameter
            for module in modules
            for parameter, weight in module.named_parameters()
            if weight.isnan().any()
        ]
    if left:
        raise UpstreamError(
            f"{name!r} has weights that no reset_parameters() draws anew: {', '.join(left[:5])}; "
            "give the modules that own them such a method to compare with the untrained twin"
        )
