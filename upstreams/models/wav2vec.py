"""wav2vec (Schneider et al., arXiv 1904.05862) and vq-wav2vec (Baevski et al., arXiv 1910.05453).

Not wav2vec 2.0, whose encoder is a transformer (`upstreams.models.transformer`). Here strided
convolutions give latents *z*, one per 10 ms; causal convolutions of growing width give contexts
*c*, each of which sees more of the past::

    waveform [sample]
      └ convolutions ─► z [frame, 512]
           └ quantiser ─► one of 320 codes for each half of z       vq-wav2vec only
                └ twelve causal convolutions ─► c₁ … c₁₂ [frame, 512]

The states are z (never quantised) and c₁ … c₁₂: the input of every context layer but the first,
and the output, as SUPERB takes them.

Every norm is a group norm with one group: its statistics are over channels *and time*. So padding
would leak into every feature, and utterances are encoded one at a time; and a context is strictly
causal in its convolutions, but not in the norms between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import UpstreamError
from upstreams.models.architecture import Layout
from upstreams.models.cpc import ConvolutionConfig, Convolutions, activate
from upstreams.models.utterance import UtteranceEncoder


@dataclass(frozen=True)
class Wav2VecConfig:
    """wav2vec, with or without a quantiser between latents and context.

    Attributes:
        convolutions: waveform to latents.
        context_kernels: widths of the causal convolutions of the context network, in frames.
        quantizer: ``none``, ``gumbel`` or ``kmeans``.
        groups: parts of a latent that are quantised independently.
        codes: entries of the codebook of each group.
        prediction_steps: frames ahead that pretraining predicts; only weights here.
    """

    convolutions: ConvolutionConfig
    context_kernels: tuple[int, ...]
    quantizer: Literal["none", "gumbel", "kmeans"] = "none"
    groups: int = 2
    codes: int = 320
    prediction_steps: int = 12

    @property
    def states(self) -> int:
        """z, and the output of every context layer."""
        return 1 + len(self.context_kernels)

    @property
    def dim(self) -> int:
        """Features per frame."""
        return self.convolutions.dim

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return self.convolutions.hop_samples

    @property
    def min_samples(self) -> int:
        """Shortest waveform that yields a frame."""
        return self.convolutions.min_samples

    def build(self) -> Wav2VecEncoder:
        """The encoder."""
        return Wav2VecEncoder(self)


class GumbelQuantizer(nn.Module):
    """Choose one code per group from logits of the latent (arXiv 1910.05453, section 3.1).

    The Gumbel noise and the temperature belong to training; here the largest logit wins.
    """

    def __init__(self, dim: int, groups: int, codes: int) -> None:
        super().__init__()
        self.groups = groups
        self.expand = nn.Linear(dim, 2 * dim)
        self.logits = nn.Linear(2 * dim, groups * codes)
        self.codebook = nn.Parameter(torch.empty(groups * codes, dim // groups))

    def reset_codebook(self, generator: torch.Generator | None) -> None:
        """Codes uniform in [0, 1), as at the start of training."""
        nn.init.uniform_(self.codebook, generator=generator)

    def indices(self, z_bct: Tensor) -> Tensor:
        """The code of every group, ``[1, dim, frame]`` to ``[frame, group]``."""
        logits = self.logits(F.gelu(self.expand(z_bct[0].T)))
        chosen: Tensor = logits.unflatten(1, (self.groups, -1)).argmax(2)
        return chosen

    def forward(self, z_bct: Tensor) -> Tensor:
        """Latents replaced by their codes, ``[1, dim, frame]`` to the same shape."""
        codebook_gcd = self.codebook.view(self.groups, -1, self.codebook.shape[1])
        chosen_tg = self.indices(z_bct)
        parts = [codebook_gcd[group, chosen_tg[:, group]] for group in range(self.groups)]
        return torch.cat(parts, dim=1).T.unsqueeze(0)


class KMeansQuantizer(nn.Module):
    """Replace each group by the nearest entry of its codebook (arXiv 1910.05453, section 3.2)."""

    def __init__(self, dim: int, groups: int, codes: int) -> None:
        super().__init__()
        self.groups = groups
        self.projection = nn.Conv1d(dim, dim, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, dim)
        self.codebook = nn.Parameter(torch.empty(codes, groups, dim // groups))

    def reset_codebook(self, generator: torch.Generator | None) -> None:
        """Codes N(0, 0.01), as at the start of training."""
        nn.init.normal_(self.codebook, std=0.01, generator=generator)

    def indices(self, z_bct: Tensor) -> Tensor:
        """The code of every group, ``[1, dim, frame]`` to ``[frame, group]``."""
        projected_gtd = (
            self.norm(self.projection(z_bct))[0].unflatten(0, (self.groups, -1)).transpose(1, 2)
        )
        # Exact: torch's quicker way through a matrix product takes a wrong code for a near one.
        distances_gtc = torch.cdist(
            projected_gtd,
            self.codebook.transpose(0, 1),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        return distances_gtc.argmin(2).T

    def forward(self, z_bct: Tensor) -> Tensor:
        """Latents replaced by their codes, ``[1, dim, frame]`` to the same shape."""
        chosen_tg = self.indices(z_bct)
        parts = [self.codebook[chosen_tg[:, group], group] for group in range(self.groups)]
        return torch.cat(parts, dim=1).T.unsqueeze(0)


QUANTIZERS: dict[str, type[GumbelQuantizer] | type[KMeansQuantizer]] = {
    "gumbel": GumbelQuantizer,
    "kmeans": KMeansQuantizer,
}


class Wav2VecEncoder(UtteranceEncoder):
    """Convolutions, a quantiser or none, and causal convolutions of growing width.

    Every context layer repeats the first latent to its left (so that frame 0 has a past),
    convolves, normalises over channels and time, and is added to its input; the sum is scaled by
    √0.5. `prediction` holds the step weights of the pretraining loss (arXiv 1904.05862, equation
    2); no state passes through it, but published checkpoints hold it and published sizes count it.
    """

    RESIDUAL_SCALE = math.sqrt(0.5)

    def __init__(self, config: Wav2VecConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.convolutions = Convolutions(config.convolutions)
        self.quantizer: GumbelQuantizer | KMeansQuantizer | None = (
            None
            if config.quantizer == "none"
            else QUANTIZERS[config.quantizer](dim, config.groups, config.codes)
        )
        self.context = nn.ModuleList(nn.Conv1d(dim, dim, k) for k in config.context_kernels)
        self.context_norms = nn.ModuleList(nn.GroupNorm(1, dim) for _ in config.context_kernels)
        self.prediction = nn.ConvTranspose2d(dim, dim, (1, config.prediction_steps))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew; the codebook as its quantiser wants it."""
        super().reset_parameters(generator)
        if self.quantizer is not None:
            self.quantizer.reset_codebook(generator)

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``: z (not quantised), then c."""
        z_bct = self.convolutions(waveform.unsqueeze(0)).transpose(1, 2)
        states = [z_bct]
        x_bct = z_bct if self.quantizer is None else self.quantizer(z_bct)
        for kernel, convolution, norm in zip(
            self.config.context_kernels, self.context, self.context_norms, strict=True
        ):
            padded = F.pad(x_bct, (kernel - 1, 0), mode="replicate")
            change = activate(self.config.convolutions.activation, norm(convolution(padded)))
            x_bct = (x_bct + change) * self.RESIDUAL_SCALE
            states.append(x_bct)
        return torch.cat(states).transpose(1, 2)

    def predict(self, c_btd: Tensor) -> Tensor:
        """Latents expected 1, 2, … steps ahead: ``[1, frame, dim]`` to ``[1, frame, dim, step]``.

        How far ahead step 1 is, is the loss's business: fairseq skips the frames that overlap.
        """
        ahead: Tensor = self.prediction(c_btd.transpose(1, 2).unsqueeze(3))
        return ahead.transpose(1, 2)


# --------------------------------------------------------------------------------------------
# The configurations of the papers
# --------------------------------------------------------------------------------------------

# arXiv 1904.05862, section 3.1 and "wav2vec large": two more layers of width 1 in the encoder,
# twelve context layers with skips; log compression as in the authors' training command.
WAV2VEC_LARGE = Wav2VecConfig(
    ConvolutionConfig(
        (10, 8, 4, 4, 4, 1, 1),
        (5, 4, 2, 2, 2, 1, 1),
        (0,) * 7,
        dim=512,
        bias=False,
        norm="group",
        log_compression=True,
    ),
    context_kernels=tuple(range(2, 14)),
)
# arXiv 1910.05453, section 4.1: one more layer of width 1. The text says ReLU, the authors'
# training command GELU without log compression; the command made the published weights.
VQ_WAV2VEC_GUMBEL = Wav2VecConfig(
    ConvolutionConfig(
        (10, 8, 4, 4, 4, 1, 1, 1),
        (5, 4, 2, 2, 2, 1, 1, 1),
        (0,) * 8,
        dim=512,
        bias=False,
        norm="group",
        activation="gelu",
    ),
    context_kernels=tuple(range(2, 14)),
    quantizer="gumbel",
)
VQ_WAV2VEC_KMEANS = replace(VQ_WAV2VEC_GUMBEL, quantizer="kmeans")


# --------------------------------------------------------------------------------------------
# Names of published weights
# --------------------------------------------------------------------------------------------


def _fairseq_config(config: Wav2VecConfig, rest: Mapping[str, Any], where: str) -> Wav2VecConfig:
    """The configuration with what the file says of it, if it is the same model."""
    settings = rest.get("model_cfg")
    if not isinstance(settings, dict):
        raise UpstreamError(f"{where} must hold its settings under 'model_cfg'")
    fixed: dict[str, Any] = {
        "aggregator": "cnn",
        "skip_connections_feat": False,
        "skip_connections_agg": True,
        "residual_scale": 0.5,
        "no_conv_bias": False,
        "agg_zero_pad": False,
        "non_affine_group_norm": False,
        "combine_groups": False,
        "project_features": "none",
    }
    if differing := [
        f"{key}={settings[key]!r} instead of {value!r}"
        for key, value in fixed.items()
        if settings.get(key, value) != value
    ]:
        raise UpstreamError(f"{where} holds another model: {', '.join(differing)}")
    # Absent, they are what the row says.
    activation = settings.get("activation", config.convolutions.activation)
    compression = settings.get("log_compression", config.convolutions.log_compression)
    if activation not in ("relu", "gelu") or not isinstance(compression, bool):
        raise UpstreamError(
            f"{where}: activation is relu or gelu and log_compression true or false; got "
            f"{activation!r} and {compression!r}"
        )
    return replace(
        config,
        convolutions=replace(
            config.convolutions, activation=activation, log_compression=compression
        ),
    )


def _fairseq_names(config: Wav2VecConfig) -> dict[str, str]:
    """Our names → fairseq's, where layers are numbers in a sequence: convolution, dropout, norm."""
    names = {
        f"prediction.{part}": f"wav2vec_predictions.project_to_steps.{part}"
        for part in ("weight", "bias")
    }
    for index in range(len(config.convolutions.kernels)):
        theirs = f"feature_extractor.conv_layers.{index}"
        names[f"convolutions.convolutions.{index}.weight"] = f"{theirs}.0.weight"
        for part in ("weight", "bias"):
            names[f"convolutions.norms.{index}.{part}"] = f"{theirs}.2.{part}"
    for index in range(len(config.context_kernels)):
        theirs = f"feature_aggregator.conv_layers.{index}"
        for part in ("weight", "bias"):  # after the padding
            names[f"context.{index}.{part}"] = f"{theirs}.1.{part}"
            names[f"context_norms.{index}.{part}"] = f"{theirs}.3.{part}"
    if config.quantizer == "gumbel":
        names["quantizer.codebook"] = "vector_quantizer.vars"
        for part in ("weight", "bias"):
            names[f"quantizer.expand.{part}"] = f"vector_quantizer.weight_proj.0.0.{part}"
            names[f"quantizer.logits.{part}"] = f"vector_quantizer.weight_proj.1.{part}"
    elif config.quantizer == "kmeans":
        names["quantizer.codebook"] = "vector_quantizer.embedding"
        names["quantizer.projection.weight"] = "vector_quantizer.projection.0.weight"
        for part in ("weight", "bias"):
            names[f"quantizer.norm.{part}"] = f"vector_quantizer.projection.1.{part}"
    return names


# ``{"model_cfg": …, "model_weight": …}``, as s3prl's converter writes it; fairseq's own files hold
# objects. Taken from the projects' source code; no published file was at hand to try.
FAIRSEQ = Layout("model_weight", _fairseq_names, settled=_fairseq_config)
