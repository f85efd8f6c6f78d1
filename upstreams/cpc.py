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

Their descendants are in `upstreams.wav2vec`. `FrozenEncoder`, `untrained_upstream`, `no_weights`
and `checkpoint_upstream` serve that file and `upstreams.generative` too: encoders that take one
utterance at a time, so that no feature depends on what else is in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.core import HiddenStates, UpstreamCard
from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams import UPSTREAMS, batch

SAMPLE_RATE = 16_000
SEED = 0


# --------------------------------------------------------------------------------------------
# What the encoders here, in upstreams.wav2vec and in upstreams.generative share
# --------------------------------------------------------------------------------------------


class UtteranceEncoder(nn.Module):
    """An encoder of one utterance at a time: ``[sample]`` to ``[state, frame, dim]``."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, as before training: `draw_weights`, then what is special.

        Args:
            generator: source of randomness; None is torch's own, for callers that guard it.
        """
        draw_weights(self, generator)


class Architecture(Protocol):
    """An architecture as data: what a row of the table names."""

    @property
    def states(self) -> int:
        """Hidden states returned."""
        ...

    @property
    def dim(self) -> int:
        """Features per frame."""
        ...

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        ...

    @property
    def min_samples(self) -> int:
        """Shortest waveform that yields a frame."""
        ...

    def build(self) -> UtteranceEncoder:
        """The encoder, its weights as torch initialises them (or on the meta device)."""
        ...


class FrozenEncoder(nn.Module):
    """A frozen encoder as an upstream: each utterance is encoded alone, then zero-padded.

    Args:
        encoder: with its weights.
        card: its card.
    """

    def __init__(self, encoder: UtteranceEncoder, card: UpstreamCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.card = card
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D waveforms in [-1, 1] at 16 kHz, one per utterance.

        Raises:
            AudioError: for a waveform that is not 1-D, not float, or too short.
        """
        batch.check_waveforms(waveforms, self.card)
        device = next(self.encoder.parameters()).device
        return batch.stack([self.encoder(waveform.to(device).float()) for waveform in waveforms])


def parameter_count(architecture: Architecture) -> int:
    """Weights of an architecture, counted on the meta device: nothing is allocated."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in architecture.build().parameters())


def untrained_upstream(name: str, seed: int = SEED) -> FrozenEncoder:
    """A row of the table with random weights; nothing is fetched, global random state stays.

    Args:
        name: a name in `UPSTREAMS` whose architecture is an `Architecture`.
        seed: of the weights.
    """
    architecture: Architecture = load_attribute(UPSTREAMS[name].architecture)
    with torch.device("meta"):
        encoder = architecture.build()
    encoder.to_empty(device="cpu")
    encoder.reset_parameters(torch.Generator().manual_seed(seed))
    card = replace(
        architecture_card(name, architecture),
        family="untrained",
        trained_on=frozenset(),
        note=f"UNTRAINED: random weights, seed {seed}; a floor to compare with",
    )
    return FrozenEncoder(encoder, card)


def architecture_card(name: str, architecture: Architecture) -> UpstreamCard:
    """The card of an architecture under the name of a row; whose weights is not its business."""
    entry = UPSTREAMS[name]
    return UpstreamCard(
        name=name,
        layers=architecture.states,
        dim=architecture.dim,
        hop_samples=architecture.hop_samples,
        sample_rate=SAMPLE_RATE,
        family=entry.family,
        parameters=parameter_count(architecture),
        min_samples=architecture.min_samples,
        pad_invariant=True,
        paper=entry.paper,
    )


def no_weights(name: str, reader: str = "") -> NoReturn:
    """Refuse a name whose weights cannot be had by name; never random weights in their place.

    Args:
        name: a name in `UPSTREAMS`.
        reader: ``module:function`` that reads a local copy of the weights, "" for none.

    Raises:
        UpstreamError: always.
    """
    message = f"{name}: {UPSTREAMS[name].note}. Random weights: --upstream untrained:{name}"
    if reader:
        module, _, function = reader.partition(":")
        message += (
            f". A local copy: write a file mine.py with `from {module} import {function}` and "
            f"`def mine(): return {function}({name!r}, '/path/to/file.pt')`, then "
            "--upstream mine.py:mine"
        )
    raise UpstreamError(message)


def read_tensors(path: Path, weights_key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a training checkpoint without running anything that is in it.

    Args:
        path: a file of ``torch.save`` that holds plain containers, numbers, strings and tensors.
        weights_key: where its named tensors are.

    Returns:
        The named tensors, and everything else in the file.

    Raises:
        UpstreamError: unreadable, or holding objects whose unpickling would run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else ""
        raise UpstreamError(
            f"{path} cannot be read as plain data ({type(error).__name__}: {reason}). It is "
            "missing or damaged, or unpickling it would run code, which is refused"
        ) from error
    weights = content.get(weights_key) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise UpstreamError(f"{path} must hold named tensors under {weights_key!r}")
    rest = {name: value for name, value in content.items() if name != weights_key}
    return cast("dict[str, Tensor]", weights), rest


def load_strictly(
    encoder: UtteranceEncoder,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    where: str,
    ignored: Iterable[str] = (),
) -> None:
    """Give an encoder a checkpoint's weights: every one used, none left over.

    Args:
        encoder: on the meta device or any other; its weights are replaced, in float32 on the CPU.
        weights: theirs.
        names: our names → theirs, for every entry of our ``state_dict``.
        where: the file, for messages.
        ignored: names of theirs that an encoder does not need.

    Raises:
        UpstreamError: a weight is missing, left over, or of another shape; all are named.
    """
    ours = encoder.state_dict()
    skip = set(ignored)
    missing = sorted(set(names.values()) - weights.keys())
    unexpected = sorted(weights.keys() - set(names.values()) - skip)
    wrong = [
        f"{theirs} {tuple(weights[theirs].shape)} instead of {tuple(ours[name].shape)}"
        for name, theirs in names.items()
        # Some store normalisers as [1, channel, 1]; axes of size one carry nothing.
        if theirs in weights and _bare(weights[theirs].shape) != _bare(ours[name].shape)
    ]
    problems = [
        f"{label}: {', '.join(found[:5])}{f' and {len(found) - 5} more' if len(found) > 5 else ''}"
        for label, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", wrong),
        )
        if found
    ]
    if problems:
        raise UpstreamError(f"{where} does not hold the weights expected. {'; '.join(problems)}")
    state = {
        name: (
            weights[theirs].float().view(ours[name].shape)
            if weights[theirs].is_floating_point()
            else weights[theirs].view(ours[name].shape)
        )
        for name, theirs in names.items()
    }
    encoder.load_state_dict(state, strict=True, assign=True)


def checkpoint_upstream(
    name: str,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    path: str | Path,
    ignored: Iterable[str] = (),
) -> FrozenEncoder:
    """A row of the table with the weights of a local file; see `load_strictly`.

    What they were trained on is not known here, and the card says so.
    """
    with torch.device("meta"):
        encoder = architecture.build()
    load_strictly(encoder, weights, names, str(path), ignored)
    card = replace(
        architecture_card(name, architecture),
        trained_on=None,
        source=str(path),
        note="weights from a local file; where it comes from is not verified",
    )
    return FrozenEncoder(encoder, card)


def _bare(shape: torch.Size) -> tuple[int, ...]:
    """A shape without its ones."""
    return tuple(size for size in shape if size != 1)


def draw_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Initial weights of every layer below a module; biases are zero.

    Convolutions: He et al. 2015, so that depth keeps the variance through ReLUs. Linear maps:
    N(0, 0.02), as in BERT. Recurrent layers: uniform in ±1/√units, torch's default.

    Args:
        module: whose layers are drawn.
        generator: source of randomness, on the device of the weights.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv1d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            elif isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02, generator=generator)
            elif isinstance(part, nn.MultiheadAttention):
                nn.init.normal_(part.in_proj_weight, std=0.02, generator=generator)
                nn.init.zeros_(part.in_proj_bias)
            elif isinstance(part, nn.RNNBase):
                bound = 1 / math.sqrt(part.hidden_size)
                for weight in part.parameters():
                    nn.init.uniform_(weight, -bound, bound, generator=generator)
                continue
            elif isinstance(part, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm1d | ChannelNorm):
                nn.init.ones_(part.weight)
                if isinstance(part, nn.BatchNorm1d):
                    part.reset_running_stats()
            bias = getattr(part, "bias", None)
            if isinstance(bias, nn.Parameter):
                nn.init.zeros_(bias)


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
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    dim: int
    bias: bool
    norm: Literal["none", "channel", "group"]
    activation: Literal["relu", "gelu"] = "relu"
    log_compression: bool = False

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


class ChannelNorm(nn.Module):
    """Zero mean and unit variance over the channels of each frame (arXiv 2002.02848, section 3.1).

    A layer norm but for the unbiased variance, which the published weights were trained with.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self.eps = eps
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one, bias zero."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x_bct: Tensor) -> Tensor:
        """``[utterance, channel, frame]`` to the same shape."""
        variance, mean = torch.var_mean(x_bct, dim=1, keepdim=True)
        normalised = (x_bct - mean) * torch.rsqrt(variance + self.eps)
        return normalised * self.weight[:, None] + self.bias[:, None]


def make_norm(kind: Literal["none", "channel", "group"], dim: int) -> nn.Module:
    """The norm behind a convolution."""
    if kind == "channel":
        return ChannelNorm(dim)
    return nn.GroupNorm(1, dim) if kind == "group" else nn.Identity()


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

    def forward(self, waveform: Tensor) -> Tensor:
        """Latents z of one utterance, ``[sample]`` to ``[1, dim, frame]``."""
        x_bct = waveform.to(next(self.parameters()).dtype).view(1, 1, -1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_bct = activate(self.config.activation, norm(convolution(x_bct)))
        return torch.log1p(x_bct.abs()) if self.config.log_compression else x_bct


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

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``: z and c, or c alone."""
        z_btd = self.convolutions(waveform).transpose(1, 2)
        c_btd, _ = self.context(z_btd)
        return torch.cat([z_btd, c_btd]) if self.config.states == 2 else c_btd


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

    def forward(self, z_bct: Tensor) -> list[Tensor]:
        """``[1, input_dim, frame]`` to the output of every layer, ``[1, dim, frame]`` each."""
        outputs: list[Tensor] = []
        x_bct = z_bct
        for kernel, convolution, norm in zip(
            self.kernels, self.convolutions, self.norms, strict=True
        ):
            x_bct = F.relu(norm(convolution(F.pad(x_bct, (kernel - 1, 0)))))
            outputs.append(x_bct)
            x_bct = torch.stack(outputs).sum(0) / math.sqrt(len(outputs))
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

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``: z, then [past, future] pairs."""
        z_bct = self.convolutions(waveform)
        past = self.past(z_bct)
        future = [x_bct.flip(2) for x_bct in self.future(z_bct.flip(2))]
        both = [torch.cat(pair, dim=1) for pair in zip(past, future, strict=True)]
        return torch.cat([z_bct, *both]).transpose(1, 2)


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
# --------------------------------------------------------------------------------------------
# Rows of the table, and weights from a local file
# --------------------------------------------------------------------------------------------

READER = "upstreams.cpc:from_checkpoint"


def cpc_2019() -> FrozenEncoder:
    """Nobody published these weights."""
    no_weights("cpc-2019")


def modified_cpc() -> FrozenEncoder:
    """Published as a file outside the hub."""
    no_weights("modified-cpc", READER)


def bidirectional_cpc() -> FrozenEncoder:
    """Nobody published these weights."""
    no_weights("bidirectional-cpc")


def from_checkpoint(name: str, path: str | Path) -> FrozenEncoder:
    """``modified-cpc`` with weights from a local file, read without running code.

    The layout is ``{"config": …, "weights": …}``, as facebookresearch/CPC_audio writes it. It is
    taken from that project's source code; no published file was at hand to try.

    Args:
        name: the row.
        path: the file.

    Raises:
        UpstreamError: no reader for this row, or the file does not hold exactly its weights.
    """
    if name != "modified-cpc":
        raise UpstreamError(
            f"no layout is known for weights of {name!r}; there is one for modified-cpc"
        )
    weights, _ = read_tensors(Path(path), "weights")
    return checkpoint_upstream(name, MODIFIED_CPC, weights, _cpc_audio_names(MODIFIED_CPC), path)


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
