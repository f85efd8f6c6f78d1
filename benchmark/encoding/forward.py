"""One utterance through the frozen encoder, and the forms in which its hidden states are kept.

The batching rule is ``one``: each utterance passes the encoder alone. Its features are then a
function of that utterance, bit for bit, whatever else is in the corpus and wherever an earlier
run was cut off; and on a processor it is also the fastest rule, since no work goes into padding.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates, Upstream
from benchmark.errors import SuperbError, UpstreamError

BATCHING: Final = "one"


def normalise(values: Tensor) -> Tensor:
    """Layer-normalise each layer per frame, without learned scale or shift: [..., dim]."""
    return nn.functional.layer_norm(values, values.shape[-1:])


def features_of(states: HiddenStates, kind: str, layers: Sequence[int] | None = None) -> Tensor:
    """The stored form of one utterance's hidden states (a batch of one).

    Returns:
        ``frames``: ``[layer, frame, dim]``, of the layers asked for; ``mean``: time means
        ``[layer, dim]``; ``mean-normalised``: time means of the layer-normalised frames.
    """
    frames = states.values[:, 0, : int(states.lengths[0])].float()
    if kind == "frames":
        return frames if layers is None else frames[list(layers)]
    if kind == "mean":
        return frames.mean(dim=1)
    if kind == "mean-normalised":
        return normalise(frames).mean(dim=1)
    raise ValueError(f"no such kind of feature: {kind}")


def encode(
    upstream: Upstream, waveform: Tensor, device: str, precision: str, name: str
) -> HiddenStates:
    """One utterance through the frozen encoder; the result is on the processor, in float32.

    Raises:
        UpstreamError: when the encoder raises, or what it returns does not fit its card.
    """
    card = upstream.card
    place = torch.device(device)
    seconds = waveform.numel() / card.sample_rate
    half = precision == "bfloat16"
    try:
        with (
            torch.inference_mode(),
            torch.autocast(place.type, torch.bfloat16, enabled=half),
            torch.random.fork_rng(devices=[]),
        ):
            # should an encoder draw at random after all, it draws the same for every utterance
            torch.manual_seed(0)
            states = upstream([waveform.to(place)])
    except SuperbError as error:
        raise UpstreamError(f"upstream {card.name} on {name} ({seconds:.2f} s): {error}") from error
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise UpstreamError(
            f"upstream {card.name} failed on {name} ({seconds:.2f} s): "
            f"{type(error).__name__}: {error} ({line.filename}:{line.lineno}). "
            "superb check on it tells more"
        ) from error
    if not isinstance(states, HiddenStates):
        raise UpstreamError(
            f"upstream {card.name} returned {type(states).__name__}; it must return HiddenStates "
            f"(values [layer, utterance, frame, dim], lengths). superb check on it tells more"
        )
    if not isinstance(states.values, Tensor) or not isinstance(states.lengths, Tensor):
        raise UpstreamError(
            f"upstream {card.name} returned hidden states of {type(states.values).__name__} and "
            f"lengths of {type(states.lengths).__name__}; both must be torch tensors. "
            "superb check on it tells more"
        )
    found = tuple(states.values.shape)
    length = int(states.lengths[0]) if found[1] else 0
    if (found[0], found[1], found[3]) != (card.layers, 1, card.dim) or not 1 <= length <= found[2]:
        raise UpstreamError(
            f"upstream {card.name} broke its contract on {name} ({seconds:.2f} s): its card says "
            f"{card.layers} layers x {card.dim}, it returned [layer, utterance, frame, dim] = "
            f"{list(found)} with length {length}. superb check on it tells more"
        )
    if not bool(torch.isfinite(states.values).all()):
        raise UpstreamError(
            f"upstream {card.name} returned NaN or infinity for {name} ({seconds:.2f} s)"
        )
    return HiddenStates(states.values.detach().float().cpu(), states.lengths.cpu())
