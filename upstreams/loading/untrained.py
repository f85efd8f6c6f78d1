"""The untrained twin of any encoder: what its architecture gives without any learning.

A score means little until one knows what random weights score. ``untrained:hubert-base`` is built
from the architecture alone and needs no download.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates, Upstream, UpstreamCard
from benchmark.errors import UpstreamError
from upstreams.loading.checkpoint import (
    PRETRAINED,
    Origin,
    encoder_config,
    joined,
    read_json,
    transformer_card,
    unsupported_options,
    waveform_settings,
)
from upstreams.models.transformer import TransformerUpstream, untrained_encoder

if TYPE_CHECKING:
    from upstreams.loading.huggingface import HuggingFaceUpstream

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


def untrained_folder(
    folder: Path, origin: Origin, trust_remote_code: bool = False, seed: int = SEED
) -> Upstream:
    """The twin of a checkpoint folder, from its settings; its weights are not read.

    Args:
        folder: with config.json and preprocessor_config.json.
        origin: of the checkpoint.
        trust_remote_code: run code in the folder if the model needs it; the card says so.
        seed: of the weights.

    Raises:
        UpstreamError: the settings are missing or describe no speech encoder.
    """
    settings = read_json(folder, "config.json")
    twin: TransformerUpstream | HuggingFaceUpstream
    if settings.get("model_type") == PRETRAINED:
        from upstreams.loading import pretrained

        return pretrained.untrained(folder, origin, seed)
    if unsupported_options(settings):
        from upstreams.loading.huggingface import (
            untrained_huggingface,  # imports transformers: seconds
        )

        twin = untrained_huggingface(folder, origin, seed, trust_remote_code)
    else:
        config = encoder_config(settings)
        normalize, sample_rate = waveform_settings(folder)
        card = transformer_card(config, origin, settings["model_type"], sample_rate)
        twin = TransformerUpstream(untrained_encoder(config, seed), card, normalize)
    card = untrained_card(twin.card, seed)
    twin.card = dataclasses.replace(card, note=joined(card.note, twin.card.note))
    return twin


class UntrainedTwin:
    """An encoder of any make whose weights were drawn anew.

    Args:
        upstream: the encoder; its weights are overwritten.
        seed: of the new weights.

    Raises:
        UpstreamError: it has no weights, or some that no ``reset_parameters`` draws.
    """

    def __init__(self, upstream: Upstream, seed: int = SEED) -> None:
        modules = torch_modules(upstream)
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
            for module in torch_modules(self.upstream):
                module.to(device)
        return self


def torch_modules(upstream: object) -> list[nn.Module]:
    """The torch modules that an encoder is, or holds as attributes."""
    if isinstance(upstream, nn.Module):
        return [upstream]
    attributes = vars(upstream).values() if hasattr(upstream, "__dict__") else ()
    return [value for value in attributes if isinstance(value, nn.Module)]


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
