"""wav2vec 2.0 (Baevski et al., arXiv 2006.11477) and wav2vec-C (Sadhu et al., arXiv 2103.08393).

Spans of frames are hidden from the transformer, which has to tell what was there from what is
behind the mask elsewhere in the utterance::

    waveform
      └ convolutions, layer norm ─► z ─┬ projection, mask ─► transformer ─► context c
                                       └ quantiser ──────────────────────► target q
                                                  └ LSTM ─► spectrum         (wav2vec-C only)

As in fairseq: distractors are drawn with replacement from the other masked frames, of the utterance
or of the batch; those with the very codes of the target are left out of the softmax; the diversity
loss takes probabilities without Gumbel noise; and the mean square of the convolutions' output,
before its layer norm, is added to the loss. Unlike there: no dropout, which the encoder does not
have, and a temperature that follows the progress of the run, however short it is. The published run
gets from 2 to 0.5 with a factor of 0.999995 per update.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from benchmark.encoding.arithmetic import recur
from benchmark.errors import unknown
from upstreams.models.generative import HOP_SAMPLES, MEL_BANDS, WINDOW_SAMPLES, kaldi_mel
from upstreams.models.utterance import draw_weights
from upstreams.pretraining.bodies import (
    SIZES,
    Body,
    BodyEncoder,
    build,
    contexts,
    frame_dim,
    latent_dim,
)
from upstreams.pretraining.masking import MaskedFrames, masked_front
from upstreams.pretraining.objective import Batch, Loss, Moment, Recipe, require
from upstreams.pretraining.quantizer import ProductQuantizer, Quantized, annealed

Source = Literal["utterance", "batch"]

# --------------------------------------------------------------------------------------------
# The contrastive loss
# --------------------------------------------------------------------------------------------


def first_of(counts: Sequence[int]) -> Tensor:
    """For each masked frame of a batch ``[n]``, the index of the first one of its utterance."""
    counts_b = torch.tensor(counts)
    return (counts_b.cumsum(0) - counts_b).repeat_interleave(counts_b)


def draw_distractors(counts: Sequence[int], number: int, generator: Generator) -> Tensor:
    """Draw distractors for every masked frame, uniformly and with replacement.

    Args:
        counts: masked frames of each utterance, n in all.
        number: distractors per masked frame.
        generator: on the CPU.

    Returns:
        ``[n, number]``, indices into the n masked frames of the batch: others of the same
        utterance. A frame that is its utterance's only one gets itself, which shares its codes
        and so is left out of the loss.
    """
    counts_b = torch.tensor(counts)
    others_n1 = (counts_b - 1).repeat_interleave(counts_b).unsqueeze(1)
    first_n1 = first_of(counts).unsqueeze(1)
    rank_n1 = torch.arange(len(first_n1)).unsqueeze(1) - first_n1
    drawn_nk = torch.randint(2**62, (len(rank_n1), number), generator=generator)
    drawn_nk %= others_n1.clamp(min=1)
    drawn_nk += drawn_nk >= rank_n1  # step over the frame itself
    return first_n1 + torch.minimum(drawn_nk, others_n1)


def contrastive_loss(
    context_nf: Tensor,
    target_nf: Tensor,
    codes_ng: Tensor,
    distractors_nk: Tensor,
    counts: Sequence[int],
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Equation 3 of wav2vec 2.0, in float32: name the target among distractors, by cosine.

    Args:
        context_nf: ``[masked frame, dim]``, the frames of an utterance one after the other.
        target_nf: its quantised latent.
        codes_ng: the codes of that, by which identical ones are known.
        distractors_nk: indices of other masked frames of the same utterance.
        counts: masked frames of each utterance.
        temperature: divides the cosine, κ.

    Returns:
        The mean loss, and the share of frames whose target is more similar than all distractors,
        of which there must be one; scalars, the latter detached.
    """
    counts = list(counts)
    with torch.autocast(context_nf.device.type, enabled=False):
        context_nf = F.normalize(context_nf.float(), dim=1)
        target_nf = F.normalize(target_nf.float(), dim=1)
        positive_n1 = (context_nf * target_nf).sum(1, keepdim=True)
        # All pairs of an utterance, then a choice of numbers: cheaper than a choice of vectors.
        context_bmf = pad_sequence(list(torch.split(context_nf, counts)), batch_first=True)
        target_bmf = pad_sequence(list(torch.split(target_nf, counts)), batch_first=True)
        cosine_bmm = context_bmf @ target_bmf.transpose(1, 2)
        cosine_nm = torch.cat([row[:count] for row, count in zip(cosine_bmm, counts, strict=True)])
    within_nk = distractors_nk - first_of(counts).unsqueeze(1).to(distractors_nk.device)
    same_nk = (codes_ng[distractors_nk] == codes_ng.unsqueeze(1)).all(2)
    negative_nk = cosine_nm.gather(1, within_nk).masked_fill(same_nk, -math.inf)
    logits_n1k = torch.cat([positive_n1, negative_nk], dim=1) / temperature
    loss = -logits_n1k.log_softmax(1)[:, 0].mean()
    best_n1 = negative_nk.detach().amax(1, keepdim=True)
    right_n1 = (positive_n1.detach() > best_n1) & best_n1.isfinite()
    return loss, right_n1.float().mean()


# --------------------------------------------------------------------------------------------
# wav2vec 2.0
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wav2Vec2Settings:
    """What can be set. Defaults are for ``mini``; where Base has another value, it is given.

    Attributes:
        mask_share: starts of masked spans over frames, above 0 and at most 1; 0.065 in Base.
        mask_span: frames masked from each start on, at least 1; 10 in Base.
        groups: codebooks, G, at least 1.
        codes: entries of each codebook, V, at least 2; 320 in Base.
        final_dim: width of the vectors that are compared, and of quantised latents, a multiple of
            groups; 256 in Base.
        distractors: wrong answers per masked frame, at least 1.
        negatives: where they come from: ``utterance`` (the paper), the masked frames of the same
            one, or ``batch``, of all of them, which who speaks helps to tell apart.
        similarity_temperature: divides the cosine, above 0.
        first_temperature: of the Gumbel softmax at the first step, above 0.
        last_temperature: the same at the last step, above 0.
        diversity_weight: of the diversity loss, at least 0; 0.1 in Base. With few codes, and
            latents that are a step away from log mel energies, less of it lets them collapse.
        penalty_weight: of the mean square of the convolutions' output, at least 0; fairseq's is 10.
        feature_grad_mult: factor on the gradient of the convolutions, above 0 and at most 1.

    Raises:
        SuperbError: a value is out of its range.
    """

    mask_share: float = 0.08
    mask_span: int = 5
    groups: int = 2
    codes: int = 32
    final_dim: int = 128
    distractors: int = 100
    negatives: Source = "utterance"
    similarity_temperature: float = 0.1
    first_temperature: float = 2.0
    last_temperature: float = 0.5
    diversity_weight: float = 1.5
    penalty_weight: float = 0.1
    feature_grad_mult: float = 0.1

    def __post_init__(self) -> None:
        if self.negatives not in get_args(Source):
            raise unknown("source of negatives", str(self.negatives), get_args(Source))
        for name in ("mask_span", "groups", "distractors"):
            require(vars(self)[name] >= 1, name, vars(self)[name], "at least 1")
        require(self.codes >= 2, "codes", self.codes, "at least 2")
        require(
            self.final_dim >= 1 and self.final_dim % self.groups == 0,
            "final_dim",
            self.final_dim,
            f"a multiple of groups, {self.groups}",
        )
        for name in ("mask_share", "feature_grad_mult"):
            value = vars(self)[name]
            require(0 < value <= 1, name, value, "above 0 and at most 1")
        for name in ("similarity_temperature", "first_temperature", "last_temperature"):
            value = vars(self)[name]
            require(0 < value < math.inf, name, value, "a finite number above 0")
        for name in ("diversity_weight", "penalty_weight"):
            value = vars(self)[name]
            require(0 <= value < math.inf, name, value, "a finite number, at least 0")


class Contrast(nn.Module):
    """All of wav2vec 2.0 that is not the encoder: mask embedding, quantiser, two projections.

    Its weights are as torch initialises them: follow with `reset_parameters`.
    """

    def __init__(self, architecture: Body, settings: Wav2Vec2Settings) -> None:
        super().__init__()
        self.settings = settings
        self.mask_embedding = nn.Parameter(torch.empty(frame_dim(architecture)))
        self.quantizer = ProductQuantizer(
            latent_dim(architecture), settings.groups, settings.codes, settings.final_dim
        )
        self.project_context = nn.Linear(architecture.dim, settings.final_dim)
        self.project_target = nn.Linear(settings.final_dim, settings.final_dim)

    def reset_parameters(self, generator: Generator) -> None:
        """Draw all weights; the embedding of the mask is uniform in [0, 1), as in fairseq."""
        draw_weights(self, generator)
        self.quantizer.reset_parameters(generator)
        nn.init.uniform_(self.mask_embedding, generator=generator)

    def temperature(self, moment: Moment) -> float:
        """Of the Gumbel softmax."""
        first, last = self.settings.first_temperature, self.settings.last_temperature
        return annealed(first, last, moment.progress)

    def front(self, encoder: BodyEncoder, waveforms: Tensor, moment: Moment) -> MaskedFrames:
        """`masked_front` by the settings."""
        return masked_front(
            encoder,
            self.mask_embedding,
            waveforms,
            self.settings.mask_share,
            self.settings.mask_span,
            self.settings.feature_grad_mult,
            moment.generator,
        )

    def quantize(self, z_nc: Tensor, moment: Moment) -> Quantized:
        """Latents ``[latent, channel]`` to their quantised form."""
        quantized: Quantized = self.quantizer(z_nc, self.temperature(moment), moment.generator)
        return quantized

    def forward(
        self, context_nd: Tensor, quantized: Quantized, masked: MaskedFrames, moment: Moment
    ) -> Loss:
        """The loss of wav2vec 2.0: contrast, diversity and penalty (section 3.2).

        Args:
            context_nd: a hidden state at the masked frames.
            quantized: the latents of the same frames.
            masked: where they are.
            moment: source of the distractors.
        """
        settings = self.settings
        # Frames of a batch are one after the other, as those of one long utterance are.
        of_batch = settings.negatives == "batch"
        counts = [sum(masked.counts)] if of_batch else masked.counts
        distractors_nk = draw_distractors(counts, settings.distractors, moment.generator)
        contrastive, accuracy = contrastive_loss(
            self.project_context(context_nd),
            self.project_target(quantized.values_nd),
            quantized.chosen_ng,
            distractors_nk.to(context_nd.device),
            counts,
            settings.similarity_temperature,
        )
        value = (
            contrastive
            + settings.diversity_weight * quantized.diversity
            + settings.penalty_weight * masked.penalty
        )
        parts = {
            "contrastive": contrastive.detach(),
            "contrastive_accuracy": accuracy,
            "diversity": quantized.diversity.detach(),
            "feature_penalty": masked.penalty.detach(),
            "code_perplexity": quantized.hard_perplexity,
            "soft_perplexity": quantized.soft_perplexity,
            "temperature": torch.full((), self.temperature(moment), device=context_nd.device),
        }
        return Loss(value, parts)


class Wav2Vec2(nn.Module):
    """wav2vec 2.0: tell the quantised latent behind a mask from those of other masked frames.

    Args:
        size: a key of `sizes`.
        settings: what can be set.
        generator: of all weights, on the CPU.
    """

    Settings: ClassVar[type[Wav2Vec2Settings]] = Wav2Vec2Settings
    sizes: ClassVar[dict[str, Body]] = SIZES
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, batch_seconds=40.0, crop_seconds=5.0)

    def __init__(self, size: str, settings: Wav2Vec2Settings, generator: Generator) -> None:
        super().__init__()
        self.architecture = self.sizes[size]
        # Weights on the meta device are not drawn, so the global random state stays as it was.
        with torch.device("meta"):
            self.encoder = build(self.architecture)
            self.contrast = Contrast(self.architecture, settings)
        self.to_empty(device="cpu")
        self.encoder.reset_parameters(generator)
        self.contrast.reset_parameters(generator)

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Nothing has to be known of the audio beforehand."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """The loss of a batch, differentiable.

        Raises:
            SuperbError: the crops are not longer than a masked span.
        """
        masked = self.contrast.front(self.encoder, batch.waveforms, moment)
        last_btd = contexts(self.encoder, masked.frames_btd)
        quantized = self.contrast.quantize(masked.rows(masked.z_btc), moment)
        loss: Loss = self.contrast(masked.rows(last_btd), quantized, masked, moment)
        return loss


# --------------------------------------------------------------------------------------------
# wav2vec-C
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wav2VecCSettings(Wav2Vec2Settings):
    """Those of wav2vec 2.0, and of the consistency network.

    Attributes:
        consistency_weight: of the reconstruction, γ, at least 0.
        consistency_layers: of the LSTM, at least 1; 3 in the paper.
        consistency_dim: its units, at least 1; 768 in the paper.

    Raises:
        SuperbError: a value is out of its range.
    """

    consistency_weight: float = 1.0
    consistency_layers: int = 1
    consistency_dim: int = 192

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.consistency_weight
        require(0 <= value < math.inf, "consistency_weight", value, "a finite number, at least 0")
        for name in ("consistency_layers", "consistency_dim"):
            require(vars(self)[name] >= 1, name, vars(self)[name], "at least 1")


class Wav2VecC(nn.Module):
    """wav2vec-C: the codes of wav2vec 2.0 must also suffice to write the spectrum.

    A consistency network, an LSTM, maps the quantised latents of all frames, masked or not, to
    what the encoder read, so that codes keep what was said and a codebook cannot collapse. In the
    paper the encoder reads log spectra; here it reads waveforms, and the spectrum is that of
    `spectra`. The error is a mean square, 1 for the mean of the utterance.

    Args:
        size: a key of `sizes`.
        settings: what can be set.
        generator: of all weights, on the CPU.
    """

    Settings: ClassVar[type[Wav2VecCSettings]] = Wav2VecCSettings
    sizes: ClassVar[dict[str, Body]] = SIZES
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, batch_seconds=40.0, crop_seconds=5.0)

    def __init__(self, size: str, settings: Wav2VecCSettings, generator: Generator) -> None:
        super().__init__()
        self.architecture = self.sizes[size]
        self.weight = settings.consistency_weight
        self.stacked = self.architecture.hop_samples // HOP_SAMPLES
        # The mel frame in the middle of what the encoder's first frame sees.
        self.first = (self.architecture.min_samples - WINDOW_SAMPLES) // HOP_SAMPLES // 2
        with torch.device("meta"):
            self.encoder = build(self.architecture)
            self.contrast = Contrast(self.architecture, settings)
            self.consistency = nn.LSTM(
                settings.final_dim,
                settings.consistency_dim,
                settings.consistency_layers,
                batch_first=True,
            )
            self.spectrum = nn.Linear(settings.consistency_dim, self.stacked * MEL_BANDS)
        self.to_empty(device="cpu")
        self.encoder.reset_parameters(generator)
        self.contrast.reset_parameters(generator)
        draw_weights(self.consistency, generator)
        draw_weights(self.spectrum, generator)

    def prepare(self, batches: Iterable[Batch], moment: Moment) -> dict[str, float]:
        """Nothing has to be known of the audio beforehand."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> Loss:
        """The loss of a batch, differentiable.

        Raises:
            SuperbError: the crops are not longer than a masked span.
        """
        masked = self.contrast.front(self.encoder, batch.waveforms, moment)
        last_btd = contexts(self.encoder, masked.frames_btd)
        quantized = self.contrast.quantize(masked.z_btc.flatten(0, 1), moment)
        contrast: Loss = self.contrast(
            masked.rows(last_btd), quantized.rows(masked.index_n), masked, moment
        )
        codes_btd = quantized.values_nd.view(*masked.z_btc.shape[:2], -1)
        spectra_btm = spectra(batch.waveforms, self.stacked, self.first)
        consistency = self.reconstruction_loss(codes_btd, spectra_btm)
        return Loss(
            contrast.value + self.weight * consistency,
            contrast.parts | {"consistency": consistency.detach()},
        )

    def reconstruction_loss(self, codes_btd: Tensor, spectra_btm: Tensor) -> Tensor:
        """Mean square error of the spectra that quantised latents are decoded to, scalar.

        Args:
            codes_btd: quantised latents of all frames.
            spectra_btm: output of `spectra`; may have a frame less or more.
        """
        frames = min(codes_btd.shape[1], spectra_btm.shape[1])
        decoded_btd, _ = recur(self.consistency, codes_btd[:, :frames])
        return F.mse_loss(self.spectrum(decoded_btd).float(), spectra_btm[:, :frames])


def spectra(waveforms: Tensor, stacked: int, first: int = 0) -> Tensor:
    """Log mel energies over the frames of an encoder, normalised over each utterance.

    Frame *t* of an encoder with a hop of 20 ms begins with the window of mel frame 2 *t*. If it
    sees no more than that, mel frames 2 *t* and 2 *t* + 1 stand for it; if more, those that begin
    in its middle.

    Args:
        waveforms: ``[utterance, sample]``.
        stacked: mel frames, of 10 ms, per frame.
        first: mel frame with which the first one's begin.

    Returns:
        ``[utterance, frame, stacked · 80]``, float32. Where the last frame of an encoder has no
        whole window left for its last mel frame, it is not there.
    """
    with torch.no_grad(), torch.autocast(waveforms.device.type, enabled=False):
        mel_btm = torch.stack([kaldi_mel(waveform) for waveform in waveforms])[:, first:]
    frames = mel_btm.shape[1] // stacked
    return mel_btm[:, : frames * stacked].reshape(len(waveforms), frames, stacked * MEL_BANDS)
