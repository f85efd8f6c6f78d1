"""w2v-BERT (Chung et al., arXiv 2108.06209): two pretext tasks, one above the other.

The lower half of the transformer solves wav2vec 2.0's task. Its quantiser thereby learns codes,
and the upper half has to name those of the masked frames, as BERT names masked words::

    z ─┬ projection, mask ─► lower layers ─► contrast with q ─► upper layers ─► codes of q
       └ quantiser ────────────────────────► q

Unlike in the paper, layers are those of the other objectives here and not conformers, and they
read waveforms through convolutions, whose output has wav2vec 2.0's penalty. The paper has one
codebook; with several of them, each is predicted by a softmax of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from benchmark.errors import SuperbError
from upstreams.models.transformer import EncoderConfig, TransformerEncoder
from upstreams.models.utterance import draw_weights
from upstreams.pretraining.bodies import TRANSFORMERS
from upstreams.pretraining.objective import Batch, Loss, Moment, Recipe, require
from upstreams.pretraining.wav2vec2 import (
    Contrast,
    Wav2Vec2Settings,
)


@dataclass(frozen=True)
class W2VBERTSettings(Wav2Vec2Settings):
    """Those of wav2vec 2.0, and what is put above it.

    Attributes:
        lower_share: share of the layers that contrast, above 0 and below 1; at least one layer is
            on either side.
        contrastive_weight: of wav2vec 2.0's loss, β, at least 0.
        prediction_weight: of the cross-entropy of the codes, γ, at least 0.

    Raises:
        SuperbError: a value is out of its range.
    """

    lower_share: float = 0.5
    contrastive_weight: float = 1.0
    prediction_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.lower_share < 1, "lower_share", self.lower_share, "above 0 and below 1")
        for name in ("contrastive_weight", "prediction_weight"):
            value = vars(self)[name]
            require(0 <= value < math.inf, name, value, "a finite number, at least 0")


class W2VBERT(nn.Module):
    """w2v-BERT: contrast in the lower layers, name the code of each masked frame in the upper ones.

    Args:
        size: a key of `sizes`.
        settings: what can be set.
        generator: of all weights, on the CPU.

    Raises:
        SuperbError: it has a single layer.
    """

    Settings: ClassVar[type[W2VBERTSettings]] = W2VBERTSettings
    sizes: ClassVar[dict[str, EncoderConfig]] = TRANSFORMERS
    recipe: ClassVar[Recipe] = Recipe(batch_seconds=30.0, crop_seconds=5.0)

    def __init__(self, size: str, settings: W2VBERTSettings, generator: Generator) -> None:
        super().__init__()
        self.architecture = self.sizes[size]
        self.settings = settings
        layers = self.architecture.layers
        if layers < 2:
            raise SuperbError(f"w2v-BERT needs at least 2 layers, lower and upper; got {layers}")
        self.lower_layers = min(max(1, round(settings.lower_share * layers)), layers - 1)
        with torch.device("meta"):
            self.encoder = TransformerEncoder(self.architecture)
            self.contrast = Contrast(self.architecture, settings)
            self.prediction = nn.Linear(self.architecture.dim, settings.groups * settings.codes)
        self.to_empty(device="cpu")
        self.encoder.reset_parameters(generator)
        self.contrast.reset_parameters(generator)
        draw_weights(self.prediction, generator)

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Nothing has to be known of the audio beforehand."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """The loss of a batch, differentiable.

        Raises:
            SuperbError: the crops are not longer than a masked span.
        """
        masked = self.contrast.front(self.encoder, batch.waveforms, moment)
        quantized = self.contrast.quantize(masked.rows(masked.z_btc), moment)
        states = list(self.encoder.states(masked.frames_btd, masked.lengths))
        lower_nd = masked.rows(states[self.lower_layers])
        contrast: Loss = self.contrast(lower_nd, quantized, masked, moment)
        prediction, accuracy = self.prediction_loss(masked.rows(states[-1]), quantized.likeliest_ng)
        return Loss(
            self.settings.contrastive_weight * contrast.value
            + self.settings.prediction_weight * prediction,
            contrast.parts | {"prediction": prediction.detach(), "prediction_accuracy": accuracy},
        )

    def prediction_loss(self, upper_nd: Tensor, codes_ng: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the codes, a mean over masked frames and codebooks, in float32.

        Args:
            upper_nd: the last hidden state at the masked frames.
            codes_ng: the codes of their latents, chosen without noise.

        Returns:
            The loss, and the share of codes that are named rightly; scalars, the latter detached.
        """
        groups = codes_ng.shape[1]
        logits_ngv = self.prediction(upper_nd).float().unflatten(1, (groups, -1))
        loss = F.cross_entropy(logits_ngv.flatten(0, 1), codes_ng.flatten())
        return loss, (logits_ngv.detach().argmax(2) == codes_ng).float().mean()
