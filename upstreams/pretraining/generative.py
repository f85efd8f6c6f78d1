"""APC and masked reconstruction (Mockingjay, TERA): write mel frames that cannot be seen.

Both read and write 80 log mel energies, and are penalised by the absolute difference (L1).
What they cannot see:

======================  ==================================  ====================================
`APC`                   arXiv 1904.03240                    what is some frames ahead
`MaskedReconstruction`  arXiv 1910.12638, arXiv 2007.06028  spans of frames, perhaps bands, blanked
======================  ==================================  ====================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from benchmark.errors import SuperbError
from upstreams.models.generative import (
    HOP_SAMPLES,
    MEL_BANDS,
    MEL_TRANSFORMER_MINI,
    RECURRENT_MINI,
    WINDOW_SAMPLES,
    APCConfig,
    MelTransformerConfig,
)
from upstreams.models.utterance import draw_weights
from upstreams.pretraining.bodies import SHARED, Body, build, mel_frames, read
from upstreams.pretraining.masking import span_mask
from upstreams.pretraining.objective import Batch, Loss, Moment, Recipe, require

# --------------------------------------------------------------------------------------------
# APC
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class APCSettings:
    """What a user of `APC` can set.

    Attributes:
        steps_ahead: distance of the predicted frame, in frames of 20 ms. Neighbouring frames are
            alike; too near a target is copied, too far a one cannot be guessed (arXiv 1904.03240,
            section 4, tries 1 to 20 of 10 ms).

    Raises:
        SuperbError: it is not ahead.
    """

    steps_ahead: int = 2

    def __post_init__(self) -> None:
        require(self.steps_ahead >= 1, "steps_ahead", self.steps_ahead, "at least 1")


class APC(nn.Module):
    """Autoregressive predictive coding (arXiv 1904.03240, section 3).

    Logged beside the loss: ``l1_copy``, the loss of repeating the current frame.
    """

    Settings: ClassVar[type[Any]] = APCSettings
    sizes: ClassVar[dict[str, APCConfig]] = {
        "mini": RECURRENT_MINI,
        "mini-recurrent": RECURRENT_MINI,
    }
    # A recurrent layer takes one frame after the other: many short crops are faster than few
    # long ones.
    recipe: ClassVar[Recipe] = Recipe(batch_seconds=60.0, crop_seconds=2.0)

    def __init__(self, size: str, settings: APCSettings, generator: Generator) -> None:
        super().__init__()
        self.settings = settings
        self.architecture = self.sizes[size]
        # On the meta device nothing is drawn from the global random state.
        with torch.device("meta"):
            self.encoder = self.architecture.build()
        self.to_empty(device="cpu")
        self.encoder.reset_parameters(generator)

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Nothing to prepare."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """Mean L1 between predicted and true frames of a batch; see `Objective.forward`.

        Raises:
            SuperbError: the crops have no frame that far ahead.
        """
        ahead = self.settings.steps_ahead
        x_btm = self.encoder.stacked(mel_frames(self.encoder, batch.waveforms))
        if x_btm.shape[1] <= ahead:
            raise SuperbError(
                f"crops of {x_btm.shape[1]} frames have none {ahead} frames ahead; use longer "
                "crops, or a smaller steps_ahead"
            )
        seen_btm, target_btm = x_btm[:, :-ahead], x_btm[:, ahead:]
        predicted_btm = self.encoder.predict(self.encoder.states(seen_btm)[-1])
        loss = F.l1_loss(predicted_btm.float(), target_btm)
        return Loss(loss, {"l1_copy": F.l1_loss(seen_btm, target_btm)})


# --------------------------------------------------------------------------------------------
# Mockingjay and TERA
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskedReconstructionSettings:
    """What a user of `MaskedReconstruction` can set.

    The defaults alter time alone, as Mockingjay does, in the longer spans of TERA. TERA's
    alteration of channels and magnitude is ``channel_share=0.2, noise_probability=0.15``.

    Attributes:
        mask_share: share of frames that are chosen, less what spans overlap.
        span: frames chosen in a row; 3 in arXiv 1910.12638, section 2.2, 7 in arXiv 2007.06028.
        zero_probability: that an utterance's chosen frames are set to zero, the mean.
        replace_probability: that they are replaced by random frames of the utterance; else they
            stay as they are, so that the encoder also meets input like that of its later use.
        channel_share: widest block of neighbouring bands that is set to zero in all frames of an
            utterance, as a share of all bands; its width is uniform from 0.
        noise_probability: that noise is added to an utterance's frames.
        noise_deviation: of that noise, where each band has deviation one.

    Raises:
        SuperbError: a value that is not allowed.
    """

    mask_share: float = 0.15
    span: int = 7
    zero_probability: float = 0.8
    replace_probability: float = 0.1
    channel_share: float = 0.0
    noise_probability: float = 0.0
    noise_deviation: float = 0.2

    def __post_init__(self) -> None:
        require(0 < self.mask_share < 1, "mask_share", self.mask_share, "above 0 and below 1")
        require(self.span >= 1, "span", self.span, "at least 1")
        for name in ("zero_probability", "replace_probability", "noise_probability"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, "from 0 to 1")
        require(
            self.zero_probability + self.replace_probability <= 1,
            "zero_probability + replace_probability",
            self.zero_probability + self.replace_probability,
            "at most 1",
        )
        require(
            0 <= self.channel_share < 1, "channel_share", self.channel_share, "0 or more, below 1"
        )
        require(
            0 <= self.noise_deviation < math.inf,
            "noise_deviation",
            self.noise_deviation,
            "a finite number, at least 0",
        )


@torch.no_grad()
def altered(
    mel_btm: Tensor, settings: MaskedReconstructionSettings, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Alter mel frames in time, channels and magnitude (arXiv 2007.06028, section 3.1).

    As in s3prl, one throw decides for all chosen frames of an utterance whether they are set to
    zero, replaced, or left; channels and noise are decided per utterance too.

    Args:
        mel_btm: ``[utterance, frame, 80]``.
        settings: how much of what.
        generator: of all choices, on the CPU.

    Returns:
        The altered frames, and a boolean of the same shape: True where they have to be written,
        which is where time or channels were chosen. Noise alone chooses nothing.

    Raises:
        SuperbError: the utterances are not longer than a span.
    """
    utterances, frames, bands = mel_btm.shape
    chosen_bt = span_mask(
        utterances, frames, settings.mask_share / settings.span, settings.span, generator
    )
    throw_b = torch.rand(utterances, generator=generator)
    zeroed_b = throw_b < settings.zero_probability
    replaced_b = ~zeroed_b & (throw_b < settings.zero_probability + settings.replace_probability)
    source_bt = torch.randint(frames, (utterances, frames), generator=generator)
    # Blocks of 0 … widest bands that lie anywhere.
    widest = int(settings.channel_share * bands)
    width_b = torch.randint(widest + 1, (utterances,), generator=generator)
    first_b = (torch.rand(utterances, generator=generator) * (bands - width_b + 1)).long()
    band_m = torch.arange(bands)
    blanked_bm = (band_m >= first_b[:, None]) & (band_m < (first_b + width_b)[:, None])
    noisy_b = torch.rand(utterances, generator=generator) < settings.noise_probability

    device = mel_btm.device
    chosen_btm = (chosen_bt[:, :, None] | blanked_bm[:, None, :]).to(device)
    zeroed_btm = ((chosen_bt & zeroed_b[:, None])[:, :, None] | blanked_bm[:, None, :]).to(device)
    replaced_bt1 = (chosen_bt & replaced_b[:, None])[:, :, None].to(device)
    elsewhere_btm = mel_btm.gather(1, source_bt[:, :, None].expand_as(mel_btm).to(device))
    altered_btm = torch.where(replaced_bt1, elsewhere_btm, mel_btm).masked_fill(zeroed_btm, 0.0)
    if noisy_b.any():
        noise_btm = settings.noise_deviation * torch.randn(mel_btm.shape, generator=generator)
        altered_btm = altered_btm + (noise_btm * noisy_b[:, None, None]).to(device)
    return altered_btm, chosen_btm


def masked_l1(predicted_btm: Tensor, target_btm: Tensor, chosen_btm: Tensor) -> Tensor:
    """Mean absolute difference where ``chosen_btm`` is True, in float32; a scalar, 0 if nowhere."""
    difference_btm = (predicted_btm.float() - target_btm.float()).abs()
    return (difference_btm * chosen_btm).sum() / chosen_btm.sum().clamp(min=1)


class MaskedReconstruction(nn.Module):
    """Masked acoustic modelling (arXiv 1910.12638, section 2.2; arXiv 2007.06028, section 3).

    Logged beside the loss: ``l1_zero``, the loss of writing zeros, each band's mean.
    """

    Settings: ClassVar[type[Any]] = MaskedReconstructionSettings
    sizes: ClassVar[dict[str, Body | MelTransformerConfig]] = {
        "mini": MEL_TRANSFORMER_MINI,
        **SHARED,
    }
    recipe: ClassVar[Recipe] = Recipe(batch_seconds=30.0, crop_seconds=5.0)

    def __init__(
        self, size: str, settings: MaskedReconstructionSettings, generator: Generator
    ) -> None:
        super().__init__()
        self.settings = settings
        self.architecture = self.sizes[size]
        dim = self.architecture.dim
        # A frame of 20 ms writes the two mel frames in the middle of what it sees.
        self.stacked = self.architecture.hop_samples // HOP_SAMPLES
        seen = self.architecture.min_samples - WINDOW_SAMPLES
        self.first = seen // HOP_SAMPLES // 2 if self.stacked > 1 else 0
        # On the meta device nothing is drawn from the global random state.
        with torch.device("meta"):
            self.encoder = build(self.architecture)
            self.prediction = nn.Sequential(
                nn.Linear(dim, dim),
                nn.GELU(),
                nn.LayerNorm(dim),
                nn.Linear(dim, self.stacked * MEL_BANDS),
            )
        self.to_empty(device="cpu")
        self.encoder.reset_parameters(generator)
        draw_weights(self.prediction, generator)

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Nothing to prepare."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """Mean L1 over the chosen frames and bands of a batch; see `Objective.forward`.

        Raises:
            SuperbError: the crops are not longer than a span.
        """
        mel_btm = mel_frames(self.encoder, batch.waveforms)
        altered_btm, chosen_btm = altered(mel_btm, self.settings, moment.generator)
        predicted_btm = self.prediction(read(self.encoder, altered_btm))
        target_btm, chosen_btm = self.joined(mel_btm), self.joined(chosen_btm)
        frames = min(predicted_btm.shape[1], target_btm.shape[1])
        predicted_btm, target_btm, chosen_btm = (
            x_btm[:, :frames] for x_btm in (predicted_btm, target_btm, chosen_btm)
        )
        loss = masked_l1(predicted_btm, target_btm, chosen_btm)
        zeros_btm = torch.zeros_like(target_btm)
        return Loss(loss, {"l1_zero": masked_l1(zeros_btm, target_btm, chosen_btm)})

    def joined(self, mel_btm: Tensor) -> Tensor:
        """Mel frames beside each other that one frame of the encoder writes."""
        frames = (mel_btm.shape[1] - self.first) // self.stacked
        mel_btm = mel_btm[:, self.first : self.first + frames * self.stacked]
        return mel_btm.reshape(len(mel_btm), frames, self.stacked * MEL_BANDS)
