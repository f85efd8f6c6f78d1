"""The layer mix: from all hidden layers of an encoder to the frames a head sees.

Choices, as typed on the command line:

``last``               the encoder's output
``weighted-sum``       softmax-weighted sum of all layers, learned with the head; the weights
                       start equal (Yang et al. 2021, "SUPERB", section 3)
``weighted-sum-norm``  the same over layers that are each layer-normalised per frame first,
                       without learned scale, so that a layer's weight does not depend on its norm
``3`` or ``-2``        one layer by index, 0 being the input of the first transformer layer
``each``               every single layer, one result each

Where nothing is trained there is no sum: ``best``, the layer that is best on valid, stands for
both sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates
from benchmark.errors import SuperbError, unknown

BEST = "best"
NAMED_CHOICES = ("last", "weighted-sum", "weighted-sum-norm", "each")


@dataclass(frozen=True)
class Mix:
    """What a layer choice comes to for an encoder of known depth.

    Two choices with equal mixes are the same probe: a one-layer encoder's ``last`` and
    ``weighted-sum`` are trained once and reported twice.

    Attributes:
        layer: the index of the only layer used, or None for a learned sum of all.
        normalised: whether each layer is layer-normalised per frame first.
    """

    layer: int | None
    normalised: bool = False


def expand(choices: Iterable[str], layers: int, *, trained: bool = True) -> dict[str, Mix]:
    """Turn layer choices into mixes for an encoder with `layers` hidden layers.

    Args:
        choices: as typed.
        layers: how many the encoder has.
        trained: whether a head learns the sum; if not, ``best`` stands in its place.

    Returns:
        Label (as it stands in results) → mix, in the order given, without repeats.

    Raises:
        SuperbError: for an unknown choice, an index out of range, or no choice at all.
    """
    mixes: dict[str, Mix] = {}
    for choice in choices:
        if not trained and choice in ("weighted-sum", "weighted-sum-norm"):
            mixes[BEST] = Mix(0) if layers == 1 else Mix(None)
        elif choice == "last":
            mixes[choice] = Mix(layers - 1)
        elif choice == "weighted-sum":
            mixes[choice] = Mix(0) if layers == 1 else Mix(None)
        elif choice == "weighted-sum-norm":
            mixes[choice] = Mix(0 if layers == 1 else None, normalised=True)
        elif choice == "each":
            mixes.update({str(index): Mix(index) for index in range(layers)})
        else:
            index = _index(choice, layers)
            mixes[str(index)] = Mix(index)
    if not mixes:
        raise SuperbError(f"no layer choice given; choose from {', '.join(NAMED_CHOICES)}")
    return mixes


def _index(choice: str, layers: int) -> int:
    try:
        index = int(choice)
    except ValueError:
        raise unknown(
            "layer choice", choice, NAMED_CHOICES, "A layer index such as 3 or -1 works too."
        ) from None
    if not -layers <= index < layers:
        raise SuperbError(
            f"layer {index} does not exist: this encoder has {layers} hidden "
            f"layer{'s' if layers > 1 else ''}, indices 0 to {layers - 1} "
            f"(or -{layers} to -1 from the end)"
        )
    return index % layers


class LayerMix(nn.Module):
    """The first module of a probe: hidden states → frames ``[utterance, frame, dim]``.

    Args:
        mix: what to mix.
        layers: number of hidden layers.
        scaling: ``(shift [dim], scale [])`` for ``(mixed - shift) * scale``, or None.
            A linear layer follows in every head, so scaling changes how fast the head learns and
            not what it can express.
    """

    def __init__(self, mix: Mix, layers: int, scaling: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.mix = mix
        # softmax(0, ..., 0): every layer starts with the same weight
        self.scores = nn.Parameter(torch.zeros(layers)) if mix.layer is None else None
        self.scaling = scaling

    @property
    def weights(self) -> list[float] | None:
        """The learned weights, which sum to 1, or None for a single layer."""
        if self.scores is None:
            return None
        return [float(weight) for weight in self.scores.detach().double().softmax(0)]

    def forward(self, states: HiddenStates) -> Tensor:
        """Mix ``states`` (already normalised if the mix wants that); padding stays zero."""
        if self.scores is None:
            assert self.mix.layer is not None
            mixed = states.values[self.mix.layer]
        else:
            # one product of matrices: the gradient of a tensordot moves all layers about first
            flat = states.values.reshape(len(self.scores), -1)
            mixed = (self.scores.softmax(0)[None] @ flat).view(states.values.shape[1:])
        if self.scaling is None:
            return mixed
        shift, scale = self.scaling
        time = torch.arange(mixed.shape[1], device=mixed.device)
        valid = time < states.lengths[:, None]
        return (mixed - shift) * scale * valid[..., None]
