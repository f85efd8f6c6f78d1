"""CPC (van den Oord et al. 2019), modified CPC and bidirectional CPC.

All of them squeeze a waveform through strided convolutions into latents *z*, one per 10 ms, and
summarise the latents so far in a context *c*. In pretraining a context has to tell the latents
that follow it from others (arXiv 1807.03748, section 2.3)::

    waveform [sample]
      └ convolutions ─► z [frame, dim]
           └ context ─► c [frame, dim]

They differ in the normalisation of the convolutions and in what makes the context:

=====================  =================  ====================  ==============================
``CPC_2019``           arXiv 1807.03748   none                  GRU
``MODIFIED_CPC``       arXiv 2002.02848   channels of a frame   LSTM
``BIDIRECTIONAL_CPC``  arXiv 2001.11128   channels of a frame   causal convolutions, both ways
=====================  =================  ====================  ==============================

Their descendants are in `upstreams.models.wav2vec`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.encoding.arithmetic import recur
from benchmark.errors import UpstreamError
from upstreams.models import batch
from upstreams.models.architecture import Layout
from upstreams.models.convolution import convolve_rows
from upstreams.models.utterance import UtteranceEncoder

# --------------------------------------------------------------------------------------------
# Strided convolutions: waveform to latents
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvolutionConfig:
    """The strided convolutions.

    Attributes:
        kernels: their widths, in samples for the first, in frames for the rest.
        strides: their strides; the product is the hop.
        paddings: zeros on both sides of each one's input.
        dim: channels of all of them.
        bias: whether they have a bias.
        norm: ``none``; ``channel``, over the channels of each frame (`ChannelNorm`); ``group``,
            over channels and time at once (group norm with one group).
        activation: after the norm.
        log_compression: log(1 + |z|) at the end (wav2vec's ``--log-compression``).

    Raises:
        UpstreamError: there are not as many kernels as strides and paddings.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    dim: int
    bias: bool
    norm: Literal["none", "channel", "group"]
    activation: Literal["relu", "gelu"] = "relu"
    log_compression: bool = False

    def __post_init__(self) -> None:
        if not len(self.kernels) == len(self.strides) == len(self.paddings) > 0:
            raise UpstreamError(
                "kernels, strides and paddings need one value per convolution; got "
                f"{len(self.kernels)}, {len(self.strides)} and {len(self.paddings)}"
            )

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return math.prod(self.strides)

    @property
    def min_samples(self) -> int:
        """Shortest waveform that yields a frame."""
        samples = 1
        for kernel, stride, padding in zip(
            reversed(self.kernels), reversed(self.strides), reversed(self.paddings), strict=True
        ):
            samples = max((samples - 1) * stride + kernel - 2 * padding, 1)
        return samples

    def last_sample(self, frame: int) -> int:
        """Index of the last sample that a frame's latent looks at (before norms over time)."""
        for kernel, stride, padding in zip(
            reversed(self.kernels), reversed(self.strides), reversed(self.paddings), strict=True
        ):
            frame = frame * stride - padding + kernel - 1
        return frame


class ChannelNorm(nn.LayerNorm):
    """Zero mean and unit variance over the channels of each frame (arXiv 2002.02848, section 3.1).

    A layer norm but for the unbiased variance, which the published weights were trained with.
    """

    def forward(self, x_btc: Tensor) -> Tensor:
        """``[utterance, frame, channel]`` to the same shape."""
        channels = x_btc.shape[2]
        biased = (channels - 1) / channels
        weight = self.weight * math.sqrt(biased)
        return F.layer_norm(x_btc, (channels,), weight, self.bias, self.eps * biased)


class GroupNorm(nn.GroupNorm):
    """One mean and variance over channels and time, of frames as rows."""

    def forward(self, x_btc: Tensor) -> Tensor:
        """``[utterance, frame, channel]`` to the same shape."""
        return super().forward(x_btc.transpose(1, 2)).transpose(1, 2)


def make_norm(kind: Literal["none", "channel", "group"], dim: int) -> nn.Module:
    """The norm behind a convolution."""
    if kind == "channel":
        return ChannelNorm(dim)
    return GroupNorm(1, dim) if kind == "group" else nn.Identity()


def activate(kind: Literal["relu", "gelu"], x: Tensor) -> Tensor:
    """The nonlinearity behind a norm."""
    return F.gelu(x) if kind == "gelu" else F.relu(x)


class Convolutions(nn.Module):
    """Strided convolutions, each followed by its norm and activation."""

    def __init__(self, config: ConvolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.convolutions = nn.ModuleList(
            nn.Conv1d(
                config.dim if index else 1,
                config.dim,
                kernel,
                stride=stride,
                padding=padding,
                bias=config.bias,
            )
            for index, (kernel, stride, padding) in enumerate(
                zip(config.kernels, config.strides, config.paddings, strict=True)
            )
        )
        self.norms = nn.ModuleList(make_norm(config.norm, config.dim) for _ in config.kernels)

    def forward(self, waveforms_bs: Tensor) -> Tensor:
        """Latents z of utterances of one length: ``[utterance, sample]`` to z_btd."""
        x_btc = waveforms_bs.to(next(self.parameters()).dtype).unsqueeze(2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_btc = activate(self.config.activation, norm(convolve_rows(x_btc, convolution)))
        return torch.log1p(x_btc.abs()) if self.config.log_compression else x_btc


# --------------------------------------------------------------------------------------------
# CPC (van den Oord et al. 2019) and modified CPC (Rivière et al. 2020)
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CPCConfig:
    """CPC: convolutions and one recurrent layer.

    Attributes:
        convolutions: waveform to latents.
        recurrence: what makes the context: ``gru`` or ``lstm``.
        context_dim: its units.
    """

    convolutions: ConvolutionConfig
    recurrence: Literal["gru", "lstm"]
    context_dim: int

    @property
    def states(self) -> int:
        """z and c where they are equally wide; c alone, the papers' feature, where not."""
        return 2 if self.convolutions.dim == self.context_dim else 1

    @property
    def dim(self) -> int:
        """Features per frame."""
        return self.context_dim

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return self.convolutions.hop_samples

    @property
    def min_samples(self) -> int:
        """Shortest waveform that yields a frame."""
        return self.convolutions.min_samples

    def build(self) -> CPCEncoder:
        """The encoder."""
        return CPCEncoder(self)


class CPCEncoder(UtteranceEncoder):
    """Convolutions, then a GRU or LSTM that reads the latents from left to right."""

    def __init__(self, config: CPCConfig) -> None:
        super().__init__()
        self.config = config
        self.convolutions = Convolutions(config.convolutions)
        layer = nn.GRU if config.recurrence == "gru" else nn.LSTM
        self.context = layer(config.convolutions.dim, config.context_dim, batch_first=True)

    def latents(self, waveforms_bs: Tensor) -> Tensor:
        """z of utterances of one length, ``[utterance, sample]`` to ``[utterance, frame, dim]``."""
        z_btd: Tensor = self.convolutions(waveforms_bs)
        return z_btd

    def contexts(self, z_btd: Tensor) -> Tensor:
        """c of their latents, ``[utterance, frame, dim]`` to ``[utterance, frame, context]``."""
        c_btd, _ = recur(self.context, z_btd)
        return c_btd

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``: z and c, or c alone."""
        return self.together([waveform])[0]

    def together(self, waveforms: list[Tensor]) -> list[Tensor]:
        """Several utterances in one pass of the context network, which hears the past alone."""
        latents = [self.latents(waveform.unsqueeze(0))[0] for waveform in waveforms]
        z_btd, lengths = batch.pad(latents)
        c_btd = self.contexts(z_btd)
        states = torch.stack([z_btd, c_btd]) if self.config.states == 2 else c_btd[None]
        return [states[:, row, :length] for row, length in enumerate(lengths)]


# --------------------------------------------------------------------------------------------
# Bidirectional CPC (Kawakami et al. 2020)
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BidirectionalCPCConfig:
    """Bidirectional CPC: one encoder, two causal context networks that read opposite ways.

    Attributes:
        convolutions: waveform to latents, shared by both directions.
        context_kernels: widths of the causal convolutions of each direction, in frames.
        direction_dim: channels of each direction; their concatenation is as wide as z.
    """

    convolutions: ConvolutionConfig
    context_kernels: tuple[int, ...]
    direction_dim: int

    @property
    def states(self) -> int:
        """z, and both directions of every context layer."""
        return 1 + len(self.context_kernels)

    @property
    def dim(self) -> int:
        """Features per frame."""
        return 2 * self.direction_dim

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return self.convolutions.hop_samples

    @property
    def min_samples(self) -> int:
        """Shortest waveform that yields a frame."""
        return self.convolutions.min_samples

    def build(self) -> BidirectionalCPCEncoder:
        """The encoder."""
        return BidirectionalCPCEncoder(self)


class DenseCausalConvolutions(nn.Module):
    """Causal convolutions with a skip from every earlier layer to every later one.

    A layer reads the sum of all outputs before it, over the square root of their number. The
    first layer reads z, which may be wider than the layers.
    """

    def __init__(self, input_dim: int, dim: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.kernels = kernels
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim if index else input_dim, dim, kernel)
            for index, kernel in enumerate(kernels)
        )
        self.norms = nn.ModuleList(ChannelNorm(dim) for _ in kernels)

    def forward(self, z_btd: Tensor) -> list[Tensor]:
        """z_btd to the output of every layer, ``[utterance, frame, dim]`` each."""
        outputs: list[Tensor] = []
        x_btd = z_btd
        for kernel, convolution, norm in zip(
            self.kernels, self.convolutions, self.norms, strict=True
        ):
            past_btd = F.pad(x_btd, (0, 0, kernel - 1, 0))
            x_btd = F.relu(norm(convolve_rows(past_btd, convolution)))
            outputs.append(x_btd)
            x_btd = torch.stack(outputs).sum(0) / math.sqrt(len(outputs))
        return outputs


class BidirectionalCPCEncoder(UtteranceEncoder):
    """Shared latents, a context of the past and a context of the future, side by side.

    The paper gives kernels, strides, the two directions over one encoder and "dense residual
    connections"; nobody published code or weights. Ours are: 256 channels per direction, so that
    both together are as wide as z; skips that add (`DenseCausalConvolutions`) rather than
    concatenate; `ChannelNorm`, which keeps each direction strictly on its side of time.
    """

    def __init__(self, config: BidirectionalCPCConfig) -> None:
        super().__init__()
        if config.convolutions.dim != config.dim:
            raise UpstreamError(
                f"bidirectional CPC: z has {config.convolutions.dim} features and both directions "
                f"together {config.dim}; they must be equal to be states of one encoder"
            )
        self.config = config
        self.convolutions = Convolutions(config.convolutions)
        arguments = (config.convolutions.dim, config.direction_dim, config.context_kernels)
        self.past = DenseCausalConvolutions(*arguments)
        self.future = DenseCausalConvolutions(*arguments)

    def latents(self, waveforms_bs: Tensor) -> Tensor:
        """z of utterances of one length, ``[utterance, sample]`` to ``[utterance, frame, dim]``."""
        z_btd: Tensor = self.convolutions(waveforms_bs)
        return z_btd

    def contexts(self, z_btd: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What every layer makes of the past of each frame, and of its future.

        Args:
            z_btd: `latents`.

        Returns:
            Per layer ``[utterance, frame, direction_dim]``, frames of both in their natural order.
        """
        return self.past(z_btd), [x_btd.flip(1) for x_btd in self.future(z_btd.flip(1))]

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``: z, then [past, future] pairs."""
        z_btd = self.latents(waveform.unsqueeze(0))
        pairs = zip(*self.contexts(z_btd), strict=True)
        return torch.cat([z_btd, *(torch.cat(pair, dim=2) for pair in pairs)])


# --------------------------------------------------------------------------------------------
# The configurations of the papers
# --------------------------------------------------------------------------------------------

# arXiv 1807.03748, section 3.1. The paper does not mention padding; its windows of 20480 samples
# that give 128 frames need it.
_STRIDES = (5, 4, 2, 2, 2)
_KERNELS = (10, 8, 4, 4, 4)
_PADDINGS = (3, 2, 1, 1, 1)
CPC_2019 = CPCConfig(
    ConvolutionConfig(_KERNELS, _STRIDES, _PADDINGS, dim=512, bias=True, norm="none"),
    recurrence="gru",
    context_dim=256,
)
# arXiv 2002.02848, section 3: 256 channels, channel norm, LSTM. The transformer predictors are
# part of the loss.
MODIFIED_CPC = CPCConfig(
    ConvolutionConfig(_KERNELS, _STRIDES, _PADDINGS, dim=256, bias=True, norm="channel"),
    recurrence="lstm",
    context_dim=256,
)
# arXiv 2001.11128, section 2 and figure 2.
BIDIRECTIONAL_CPC = BidirectionalCPCConfig(
    ConvolutionConfig(
        (10, 8, 4, 4, 4, 1, 1), (5, 4, 2, 2, 2, 1, 1), (0,) * 7, dim=512, bias=True, norm="channel"
    ),
    context_kernels=tuple(range(1, 14)),
    direction_dim=256,
)
# Ours: the same in small, about 3 million weights each.
CPC_MINI = CPCConfig(replace(CPC_2019.convolutions, dim=336), recurrence="gru", context_dim=336)
MODIFIED_CPC_MINI = CPCConfig(
    replace(MODIFIED_CPC.convolutions, dim=320), recurrence="lstm", context_dim=320
)
BIDIRECTIONAL_CPC_MINI = replace(
    BIDIRECTIONAL_CPC,
    convolutions=replace(BIDIRECTIONAL_CPC.convolutions, dim=208),
    direction_dim=104,
)


# --------------------------------------------------------------------------------------------
# Names of published weights
# --------------------------------------------------------------------------------------------


def _cpc_audio_names(config: CPCConfig) -> dict[str, str]:
    """Our names → those of facebookresearch/CPC_audio."""
    names = {
        f"context.{part}_l0": f"gAR.baseNet.{part}_l0"
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    for index in range(len(config.convolutions.kernels)):
        for part in ("weight", "bias"):
            names[f"convolutions.convolutions.{index}.{part}"] = f"gEncoder.conv{index}.{part}"
            names[f"convolutions.norms.{index}.{part}"] = f"gEncoder.batchNorm{index}.{part}"
    return names


# ``{"config": …, "weights": …}``, taken from the project's source code; no published file was at
# hand to try.
CPC_AUDIO = Layout("weights", _cpc_audio_names)
