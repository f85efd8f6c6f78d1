"""CPC, modified CPC and bidirectional CPC: tell the latents ahead from others.

A context c_t predicts each of the K latents that follow it. A prediction is right when it scores
its own latent above N others, the negatives (InfoNCE, arXiv 1807.03748, equation 4)::

                           exp(z_{t+k} · p_k(c_t))
    loss_k = − mean_t log ─────────────────────────     S: z_{t+k} and the negatives
                          Σ_{z in S} exp(z · p_k(c_t))

The three differ in their encoders (`upstreams.models.cpc`), in p_k, and in their contexts:

=====================  =================  =========================================  ============
`CPC`                  arXiv 1807.03748   a matrix W_k per step                      past
`ModifiedCPC`          arXiv 2002.02848   a transformer layer, then a matrix each    past
`BidirectionalCPC`     arXiv 2001.11128   a matrix per step and direction            past, future
=====================  =================  =========================================  ============

Where negatives come from decides what features are good for. Among frames of one utterance, who
speaks tells nothing apart, and features turn phonetic; among frames of a batch it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from benchmark.errors import SuperbError, unknown
from upstreams.models.cpc import (
    BIDIRECTIONAL_CPC_MINI,
    CPC_MINI,
    MODIFIED_CPC_MINI,
    BidirectionalCPCConfig,
    CPCConfig,
)
from upstreams.models.generative import RECURRENT_MINI, APCConfig, APCEncoder
from upstreams.models.utterance import draw_weights
from upstreams.pretraining.bodies import build, mel_frames
from upstreams.pretraining.objective import Batch, Loss, Moment, Recipe, require

Source = Literal["utterance", "batch", "speaker"]

# --------------------------------------------------------------------------------------------
# InfoNCE
# --------------------------------------------------------------------------------------------


def draw_negatives(
    source: Source, speakers_b: Tensor, frames: int, count: int, generator: Generator
) -> Tensor:
    """Draw the frames that predictions are compared with, uniformly and with replacement.

    All anchors and all steps of an utterance share one set. The code of arXiv 2002.02848 draws one
    per anchor, shared by its steps; sharing it further leaves the mean of the gradient as it is
    (but for the anchor's own positive, see `info_nce`) and makes all scores of a step one product
    of matrices, with no copy of the negatives per anchor.

    Args:
        source: ``utterance``, the utterance itself; ``speaker``, all utterances of its speaker in
            the batch, itself among them; ``batch``, all of them.
        speakers_b: ``[utterance]``, integer labels.
        frames: of every utterance.
        count: negatives per utterance.
        generator: of the draws, on the CPU.

    Returns:
        ``[utterance, negative]`` on the CPU: indices into the frames of the batch, that is,
        utterance · frames + frame.
    """
    utterances = len(speakers_b)
    shape = (utterances, count)
    if source == "utterance":
        owner_bn = torch.arange(utterances)[:, None].expand(shape)
    elif source == "batch":
        owner_bn = torch.randint(utterances, shape, generator=generator)
    else:
        # Utterances are equally long: drawing one, then a frame of it, is uniform over frames.
        same_bb = speakers_b[:, None] == speakers_b[None, :]
        owner_bn = same_bb.float().cpu().multinomial(count, replacement=True, generator=generator)
    return owner_bn * frames + torch.randint(frames, shape, generator=generator)


@dataclass(frozen=True)
class Contrast:
    """How well predictions were told from negatives.

    Attributes:
        loss: InfoNCE, mean over steps and anchors; a scalar.
        accuracy_k: per step, the share of anchors whose positive scored highest; detached.
    """

    loss: Tensor
    accuracy_k: Tensor


def info_nce(z_btd: Tensor, predictions: Sequence[Tensor], negatives_bn: Tensor) -> Contrast:
    """InfoNCE of predictions 1, 2, … frames ahead (arXiv 1807.03748, equation 4).

    Every frame that has a frame k ahead is an anchor of step k. Where an anchor's own positive
    was drawn as a negative it does not count as one.

    Args:
        z_btd: latents, ``[utterance, frame, dim]``.
        predictions: for each step k = 1, 2, …, what is expected k frames ahead of each frame,
            ``[utterance, frame, dim]``.
        negatives_bn: `draw_negatives`.

    Returns:
        Loss and accuracies, in float32 also under autocast: scores differ by less than what
        bfloat16 resolves.

    Raises:
        SuperbError: the utterances have no frame that many steps ahead.
    """
    utterances, frames, dim = z_btd.shape
    if frames <= len(predictions):
        raise SuperbError(
            f"crops of {frames} frames are too short to predict {len(predictions)} frames ahead; "
            "use longer crops, or fewer future_steps"
        )
    with torch.autocast(z_btd.device.type, enabled=False):
        z_btd = z_btd.float().contiguous()
        negatives_bn = negatives_bn.to(z_btd.device)
        chosen_bnd = z_btd.view(-1, dim).index_select(0, negatives_bn.flatten())
        chosen_bdn = chosen_bnd.view(utterances, -1, dim).transpose(1, 2)
        frame_bt = torch.arange(utterances * frames, device=z_btd.device).view(utterances, frames)
        losses, accuracies = [], []
        for step, prediction_btd in enumerate(predictions, start=1):
            expected_btd = prediction_btd[:, :-step].float()
            positive_bt = (expected_btd * z_btd[:, step:]).sum(2)
            own_btn = negatives_bn[:, None, :] == frame_bt[:, step:, None]
            # Not minus infinity: an anchor left without negatives has a loss of zero, not NaN.
            negative_btn = (expected_btd @ chosen_bdn).masked_fill(own_btn, -1e30)
            # −log(e^p / (e^p + Σ e^n)) = log(1 + e^(log Σ e^n − p))
            losses.append(F.softplus(negative_btn.logsumexp(2) - positive_bt).mean())
            with torch.no_grad():
                accuracies.append((positive_bt > negative_btn.amax(2)).float().mean())
        return Contrast(torch.stack(losses).mean(), torch.stack(accuracies))


# --------------------------------------------------------------------------------------------
# Predictions: contexts to expected latents
# --------------------------------------------------------------------------------------------


class StepMatrices(nn.Module):
    """A matrix W_k per step (arXiv 1807.03748, equation 3: z_{t+k} · W_k c_t).

    Args:
        context_dim: features of a context.
        dim: features of a latent.
        steps: K.
    """

    def __init__(self, context_dim: int, dim: int, steps: int) -> None:
        super().__init__()
        self.matrices = nn.ModuleList(nn.Linear(context_dim, dim, bias=False) for _ in range(steps))

    def forward(self, c_btd: Tensor) -> list[Tensor]:
        """Contexts to what is expected 1 … K frames ahead, ``[utterance, frame, dim]`` each."""
        return [matrix(c_btd) for matrix in self.matrices]


class TransformerPredictor(nn.Module):
    """One causal transformer layer over the contexts so far, then a matrix per step.

    As in arXiv 2002.02848, section 3, all steps share the layer. It has no positions of its own, as
    the contexts it reads are recurrent, and no dropout, whose masks would come from the global
    random state.

    Args:
        context_dim: features of a context.
        dim: features of a latent.
        steps: K.
        heads: attention heads; they divide ``context_dim``.
    """

    def __init__(self, context_dim: int, dim: int, steps: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            context_dim, heads, 4 * context_dim, dropout=0.0, batch_first=True
        )
        self.matrices = StepMatrices(context_dim, dim, steps)

    def forward(self, c_btd: Tensor) -> list[Tensor]:
        """Contexts to what is expected 1 … K frames ahead, ``[utterance, frame, dim]`` each."""
        frames = c_btd.shape[1]
        later_tt = torch.ones(frames, frames, dtype=torch.bool, device=c_btd.device).triu(1)
        x_btd = self.layer(c_btd, src_mask=later_tt, is_causal=True)
        predictions: list[Tensor] = self.matrices(x_btd)
        return predictions


# --------------------------------------------------------------------------------------------
# The objectives
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CPCSettings:
    """What a user of `CPC` can set.

    Attributes:
        negatives: where they come from, `draw_negatives`. ``batch`` is "mixed speaker" of
            arXiv 1807.03748, table 2.
        negatives_count: negatives of a prediction.
        future_steps: K, frames ahead that are predicted: of 10 ms in size ``mini``, as in the
            paper, of 20 ms in ``mini-recurrent``.

    Raises:
        SuperbError: a value that is not allowed.
    """

    negatives: Source = "batch"
    negatives_count: int = 128
    future_steps: int = 12

    def __post_init__(self) -> None:
        if self.negatives not in get_args(Source):
            raise unknown("source of negatives", str(self.negatives), get_args(Source))
        for name in ("negatives_count", "future_steps"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")


@dataclass(frozen=True)
class ModifiedCPCSettings(CPCSettings):
    """What a user of `ModifiedCPC` can set; the rest is in `CPCSettings`.

    Attributes:
        negatives: within speaker, as the paper has it.
        heads: attention heads of the predicting transformer layer.

    Raises:
        SuperbError: a value that is not allowed.
    """

    negatives: Source = "speaker"
    heads: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.heads >= 1, "heads", self.heads, "at least 1")


@dataclass(frozen=True)
class BidirectionalCPCSettings(CPCSettings):
    """What a user of `BidirectionalCPC` can set; the rest is in `CPCSettings`.

    Attributes:
        negatives: within the utterance.
    """

    negatives: Source = "utterance"


# 20480 samples, the windows of arXiv 1807.03748, section 3.1, and of arXiv 2002.02848, section 3.
WINDOW_RECIPE = Recipe(batch_seconds=30.0, crop_seconds=1.28)


class CPC(nn.Module):
    """Contrastive predictive coding (arXiv 1807.03748): GRU contexts, a matrix per step.

    In size ``mini-recurrent`` latents are mel frames, which nobody learns, and contexts those of
    the GRUs that `APC` trains.
    """

    Settings: ClassVar[type[Any]] = CPCSettings
    sizes: ClassVar[dict[str, CPCConfig | APCConfig]] = {
        "mini": CPC_MINI,
        "mini-recurrent": RECURRENT_MINI,
    }
    recipe: ClassVar[Recipe] = WINDOW_RECIPE

    def __init__(self, size: str, settings: CPCSettings, generator: Generator) -> None:
        super().__init__()
        self.settings = settings
        self.architecture = self.sizes[size]
        # On the meta device nothing is drawn from the global random state.
        with torch.device("meta"):
            self.encoder = build(self.architecture)
            self.predictor = self.make_predictor()
        self.to_empty(device="cpu")
        self.encoder.reset_parameters(generator)
        draw_weights(self.predictor, generator)

    def make_predictor(self) -> nn.Module:
        """What turns contexts into expected latents."""
        config = self.architecture
        latent = config.input_dim if isinstance(config, APCConfig) else config.convolutions.dim
        return StepMatrices(config.dim, latent, self.settings.future_steps)

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Nothing to prepare."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """InfoNCE of a batch; see `Objective.forward`.

        Raises:
            SuperbError: the crops have no frame that is ``future_steps`` ahead.
        """
        if isinstance(self.encoder, APCEncoder):
            z_btd = self.encoder.stacked(mel_frames(self.encoder, batch.waveforms))
        else:
            # Without a norm, latents under autocast are bfloat16, which recurrent layers do not mix
            # with float32 weights.
            z_btd = self.encoder.latents(batch.waveforms).float()
        c_btd = self.encoder.contexts(z_btd)
        negatives_bn = drawn(self.settings, batch, z_btd, moment)
        return reported(info_nce(z_btd, self.predictor(c_btd), negatives_bn))


class ModifiedCPC(CPC):
    """Modified CPC (arXiv 2002.02848): channel norm, LSTM, a transformer predicts all steps."""

    Settings: ClassVar[type[Any]] = ModifiedCPCSettings
    sizes: ClassVar[dict[str, CPCConfig | APCConfig]] = {"mini": MODIFIED_CPC_MINI}
    settings: ModifiedCPCSettings
    architecture: CPCConfig

    def make_predictor(self) -> nn.Module:
        """What turns contexts into expected latents.

        Raises:
            SuperbError: the heads do not divide the contexts.
        """
        config, settings = self.architecture, self.settings
        if config.context_dim % settings.heads:
            raise SuperbError(
                f"heads must divide the {config.context_dim} features of a context; "
                f"{settings.heads} do not"
            )
        return TransformerPredictor(
            config.context_dim, config.convolutions.dim, settings.future_steps, settings.heads
        )


class BidirectionalCPC(nn.Module):
    """Bidirectional CPC (arXiv 2001.11128): forwards from the past, backwards from the future.

    Both directions predict the same latents with context networks and matrices of their own; the
    loss is the sum of theirs. Contexts are those of the last layer.
    """

    Settings: ClassVar[type[Any]] = BidirectionalCPCSettings
    sizes: ClassVar[dict[str, BidirectionalCPCConfig]] = {"mini": BIDIRECTIONAL_CPC_MINI}
    recipe: ClassVar[Recipe] = WINDOW_RECIPE

    def __init__(self, size: str, settings: BidirectionalCPCSettings, generator: Generator) -> None:
        super().__init__()
        self.settings = settings
        self.architecture = config = self.sizes[size]
        with torch.device("meta"):
            self.encoder = config.build()
            dims = (config.direction_dim, config.convolutions.dim)
            self.ahead = StepMatrices(*dims, settings.future_steps)
            self.back = StepMatrices(*dims, settings.future_steps)
        self.to_empty(device="cpu")
        self.encoder.reset_parameters(generator)
        draw_weights(self.ahead, generator)
        draw_weights(self.back, generator)

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Nothing to prepare."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """InfoNCE of both directions of a batch, summed; see `Objective.forward`.

        Raises:
            SuperbError: the crops have no frame that is ``future_steps`` ahead.
        """
        z_btd = self.encoder.latents(batch.waveforms).float()
        past, future = self.encoder.contexts(z_btd)
        # Backwards is forwards in reversed time.
        contrasts = [
            info_nce(latents, predictor(context), drawn(self.settings, batch, z_btd, moment))
            for latents, predictor, context in (
                (z_btd, self.ahead, past[-1]),
                (z_btd.flip(1), self.back, future[-1].flip(1)),
            )
        ]
        loss = torch.stack([contrast.loss for contrast in contrasts]).sum()
        accuracy_k = torch.stack([contrast.accuracy_k for contrast in contrasts]).mean(0)
        report = reported(Contrast(loss, accuracy_k))
        ahead, back = (contrast.loss.detach() for contrast in contrasts)
        return Loss(report.value, {**report.parts, "loss_ahead": ahead, "loss_back": back})


def drawn(settings: CPCSettings, batch: Batch, z_btd: Tensor, moment: Moment) -> Tensor:
    """`draw_negatives` of a batch as the settings say."""
    return draw_negatives(
        settings.negatives,
        batch.speakers,
        z_btd.shape[1],
        settings.negatives_count,
        moment.generator,
    )


def reported(contrast: Contrast) -> Loss:
    """The loss, and to log: accuracy over all steps, at the first and at the last."""
    accuracy_k = contrast.accuracy_k
    parts = {
        "accuracy": accuracy_k.mean(),
        "accuracy_first_step": accuracy_k[0],
        "accuracy_last_step": accuracy_k[-1],
    }
    return Loss(contrast.loss, parts)
