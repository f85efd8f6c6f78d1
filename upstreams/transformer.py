"""The speech transformer of wav2vec 2.0 (arXiv 2006.11477) and HuBERT (arXiv 2106.07447).

A waveform goes through strided convolutions (one frame per 20 ms), a linear projection, a
convolution that adds relative position, and a transformer::

    waveform [utterance, sample]
      └ front_end ─► frames [utterance, frame, dim]     wav2vec 2.0, section 2, "feature encoder"
           └ states ─► K+1 × [utterance, frame, dim]    ibid., "contextualized representations"

The published models differ only in the values of `EncoderConfig`. Two of them matter to a probe:

* Base models normalise the first convolution over *time*. Statistics over a padded tail would
  make an utterance's features depend on its neighbours, so they are taken over valid frames only.
* Large models normalise before each block ("pre-norm"), so a last layer norm follows the stack;
  the last hidden state is the output of that norm, as in fairseq and SUPERB. (transformers 5
  returns it as ``last_hidden_state`` while its ``hidden_states[-1]`` skips the norm.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.core import HiddenStates, UpstreamCard
from benchmark.errors import UpstreamError
from upstreams import batch


@dataclass(frozen=True)
class EncoderConfig:
    """An architecture.

    Attributes:
        conv_dims: channels of each convolution of the front end.
        conv_kernels: their widths, in samples for the first, in frames for the rest.
        conv_strides: their strides; the product is the hop.
        conv_bias: whether they have a bias.
        conv_norm: ``group`` normalises the first convolution per channel over time (Base),
            ``layer`` every convolution per frame over channels (Large).
        projection_norm: layer norm before the linear projection.
        dim: width of the transformer.
        layers: transformer layers K; K + 1 hidden states are returned.
        heads: attention heads.
        feed_forward_dim: inner width of the feed-forward blocks.
        position_kernel: frames seen by the positional convolution.
        position_groups: its groups.
        pre_norm: layer norm before each block (Large) or after it (Base).
        norm_eps: epsilon of the transformer's layer norms.

    Raises:
        UpstreamError: when the sizes do not fit together.
    """

    conv_dims: tuple[int, ...]
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_norm: Literal["group", "layer"] = "group"
    projection_norm: bool = True
    dim: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward_dim: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    pre_norm: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if not len(self.conv_dims) == len(self.conv_kernels) == len(self.conv_strides) > 0:
            raise UpstreamError(
                "conv_dims, conv_kernels and conv_strides need one value per convolution; got "
                f"{len(self.conv_dims)}, {len(self.conv_kernels)} and {len(self.conv_strides)}"
            )
        if self.dim % self.heads or self.dim % self.position_groups:
            raise UpstreamError(
                f"dim {self.dim} must be a multiple of heads {self.heads} and of position_groups "
                f"{self.position_groups}"
            )
        if self.conv_norm not in ("group", "layer"):
            raise UpstreamError(f"conv_norm is 'group' or 'layer'; got {self.conv_norm!r}")

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return math.prod(self.conv_strides)

    @property
    def min_samples(self) -> int:
        """Shortest waveform that yields a frame: the receptive field of one."""
        samples = 1
        for kernel, stride in zip(
            reversed(self.conv_kernels), reversed(self.conv_strides), strict=True
        ):
            samples = (samples - 1) * stride + kernel
        return samples

    def frames(self, samples: int) -> int:
        """Number of frames of a waveform of so many samples."""
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples


# HuBERT, table 1; the front end is that of wav2vec 2.0, section 4.2.
HUBERT_BASE = EncoderConfig(conv_dims=(512,) * 7)
HUBERT_LARGE = EncoderConfig(
    conv_dims=(512,) * 7,
    conv_bias=True,
    conv_norm="layer",
    dim=1024,
    layers=24,
    heads=16,
    feed_forward_dim=4096,
    pre_norm=True,
)
HUBERT_XLARGE = EncoderConfig(
    conv_dims=(512,) * 7,
    conv_bias=True,
    conv_norm="layer",
    dim=1280,
    layers=48,
    heads=16,
    feed_forward_dim=5120,
    pre_norm=True,
)
# Ours: Base in small. A small model spends its time in the first convolutions, which run at 3200
# and 1600 frames a second: 64 channels there instead of 96 make the whole encoder a quarter faster
# on one CPU thread and more on two.
MINI = EncoderConfig(
    conv_dims=(64, 64, 96, 96, 96, 96, 96),
    dim=192,
    layers=6,
    heads=4,
    feed_forward_dim=768,
    position_kernel=64,
)


class Convolution(nn.Module):
    """One convolution of the front end: convolve, perhaps normalise, GELU."""

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(
            config.conv_dims[index - 1] if index else 1,
            config.conv_dims[index],
            config.conv_kernels[index],
            stride=config.conv_strides[index],
            bias=config.conv_bias,
        )
        self.norm: nn.GroupNorm | nn.LayerNorm | None = None
        if config.conv_norm == "layer":
            self.norm = nn.LayerNorm(config.conv_dims[index])
        elif index == 0:
            self.norm = nn.GroupNorm(config.conv_dims[0], config.conv_dims[0])

    def forward(self, x_bct: Tensor, lengths: list[int]) -> Tensor:
        """``[utterance, channel, frame]`` to the same with new channels and fewer frames.

        Args:
            x_bct: input.
            lengths: valid frames of each utterance *after* this convolution.
        """
        x_bct = self.convolution(x_bct)
        if isinstance(self.norm, nn.GroupNorm):
            x_bct = masked_channel_norm(x_bct, lengths, self.norm)
        elif self.norm is not None:
            x_bct = self.norm(x_bct.transpose(1, 2)).transpose(1, 2)
        return F.gelu(x_bct)


def masked_channel_norm(x_bct: Tensor, lengths: list[int], norm: nn.GroupNorm) -> Tensor:
    """Group norm with one channel per group, its statistics over valid frames only.

    Args:
        x_bct: ``[utterance, channel, frame]``.
        lengths: valid frames of each utterance.
        norm: the module that holds weight, bias and epsilon.

    Returns:
        The same shape. Frames past an utterance's length hold finite numbers without meaning; no
        valid frame of a later convolution looks at them.
    """
    frames = x_bct.shape[2]
    # One frame has no variance and torch refuses it; a mean over one frame is itself.
    if min(lengths) == frames > 1:
        return F.group_norm(x_bct, norm.num_groups, norm.weight, norm.bias, norm.eps)
    mask_b1t = frame_mask(lengths, frames, x_bct.device).unsqueeze(1).to(x_bct.dtype)
    count_b11 = mask_b1t.sum(2, keepdim=True)
    mean_bc1 = (x_bct * mask_b1t).sum(2, keepdim=True) / count_b11
    centred_bct = x_bct - mean_bc1
    variance_bc1 = (centred_bct * mask_b1t).square().sum(2, keepdim=True) / count_b11
    scale_bc1 = norm.weight[:, None] * torch.rsqrt(variance_bc1 + norm.eps)
    return centred_bct * scale_bc1 + norm.bias[:, None]


def frame_mask(lengths: list[int], frames: int, device: torch.device) -> Tensor:
    """``[utterance, frame]``, True where a frame belongs to its utterance."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(frames, device=device) < counts.unsqueeze(1)


class PositionalConvolution(nn.Module):
    """Relative position as a wide grouped convolution (wav2vec 2.0, section 2).

    Trained with weight normalisation; here weight = direction × magnitude is already multiplied
    out, which is the same function and cheaper.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(
            config.dim,
            config.dim,
            config.position_kernel,
            padding=config.position_kernel // 2,
            groups=config.position_groups,
        )

    def forward(self, x_btd: Tensor) -> Tensor:
        """``[utterance, frame, dim]`` to the same shape."""
        frames = x_btd.shape[1]
        # An even kernel with half its width on both sides gives one frame too many: drop it.
        x_bdt = self.convolution(x_btd.transpose(1, 2))[:, :, :frames]
        return F.gelu(x_bdt).transpose(1, 2)


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward with residuals (arXiv 1706.03762), norm before or after."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.pre_norm = config.pre_norm
        self.query_key_value = nn.Linear(config.dim, 3 * config.dim)
        self.attention_output = nn.Linear(config.dim, config.dim)
        self.attention_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.expand = nn.Linear(config.dim, config.feed_forward_dim)
        self.contract = nn.Linear(config.feed_forward_dim, config.dim)
        self.feed_forward_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(self, x_btd: Tensor, mask_b11t: Tensor | None) -> Tensor:
        """One layer.

        Args:
            x_btd: ``[utterance, frame, dim]``.
            mask_b11t: True at the frames that may be attended to; None for all of them.
        """
        if self.pre_norm:
            x_btd = x_btd + self.attention(self.attention_norm(x_btd), mask_b11t)
            return x_btd + self.feed_forward(self.feed_forward_norm(x_btd))
        x_btd = self.attention_norm(x_btd + self.attention(x_btd, mask_b11t))
        output: Tensor = self.feed_forward_norm(x_btd + self.feed_forward(x_btd))
        return output

    def attention(self, x_btd: Tensor, mask_b11t: Tensor | None) -> Tensor:
        """Multi-head self-attention, ``[utterance, frame, dim]`` to the same shape."""
        utterances, frames, dim = x_btd.shape
        projected = self.query_key_value(x_btd)
        query, key, value = projected.view(
            utterances, frames, 3, self.heads, dim // self.heads
        ).permute(2, 0, 3, 1, 4)
        mixed_bhtd = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_b11t)
        output: Tensor = self.attention_output(mixed_bhtd.transpose(1, 2).flatten(2))
        return output

    def feed_forward(self, x_btd: Tensor) -> Tensor:
        """Two linear layers with a GELU between them."""
        output: Tensor = self.contract(F.gelu(self.expand(x_btd)))
        return output


class TransformerEncoder(nn.Module):
    """The encoder: weights and nothing else. Differentiable; it holds no dropout.

    Its parameters are as torch initialises them: follow with `reset_parameters` or load some.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.convolutions = nn.ModuleList(
            Convolution(config, index) for index in range(len(config.conv_dims))
        )
        width = config.conv_dims[-1]
        self.projection_norm = (
            nn.LayerNorm(width, eps=config.norm_eps) if config.projection_norm else None
        )
        self.projection = nn.Linear(width, config.dim)
        self.position = PositionalConvolution(config)
        # Before the first layer (post-norm) or after the last one (pre-norm).
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all weights anew, as before training: fairseq's wav2vec 2.0 initialisation.

        Args:
            generator: source of randomness, on the device of the parameters.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
                nn.init.ones_(module.weight)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
        position = self.position.convolution
        std = math.sqrt(4 / (self.config.position_kernel * self.config.dim))
        nn.init.normal_(position.weight, std=std, generator=generator)

    def front_end(self, waveforms: Tensor, samples: list[int]) -> tuple[Tensor, list[int]]:
        """Waveforms to projected frames, the input of `states`.

        Args:
            waveforms: ``[utterance, sample]``, zero-padded.
            samples: valid samples of each utterance, at least `EncoderConfig.min_samples`.

        Returns:
            ``[utterance, frame, dim]`` and the valid frames of each utterance.
        """
        lengths = list(samples)
        x_bct = waveforms.unsqueeze(1)
        for index, convolution in enumerate(self.convolutions):
            kernel, stride = self.config.conv_kernels[index], self.config.conv_strides[index]
            lengths = [(length - kernel) // stride + 1 for length in lengths]
            x_bct = convolution(x_bct, lengths)
        x_btc = x_bct.transpose(1, 2)
        if self.projection_norm is not None:
            x_btc = self.projection_norm(x_btc)
        return self.projection(x_btc), lengths

    def states(self, frames_btd: Tensor, lengths: list[int]) -> Iterator[Tensor]:
        """The K + 1 hidden states, one after the other, each ``[utterance, frame, dim]``.

        State 0 is the input of the first layer: frames plus position, normalised in post-norm
        models. Frames past an utterance's length hold numbers without meaning.

        Args:
            frames_btd: output of `front_end`.
            lengths: valid frames of each utterance.
        """
        mask_b11t = None
        if min(lengths) < frames_btd.shape[1]:
            mask_bt = frame_mask(lengths, frames_btd.shape[1], frames_btd.device)
            # The positional convolution must see zeros after an utterance, as it does alone.
            frames_btd = frames_btd * mask_bt.unsqueeze(2)
            mask_b11t = mask_bt[:, None, None, :]
        x_btd = frames_btd + self.position(frames_btd)
        if not self.config.pre_norm:
            x_btd = self.norm(x_btd)
        yield x_btd
        for index, layer in enumerate(self.layers):
            x_btd = layer(x_btd, mask_b11t)
            last = index == self.config.layers - 1
            yield self.norm(x_btd) if last and self.config.pre_norm else x_btd

    def forward(self, waveforms: Tensor, samples: list[int]) -> HiddenStates:
        """All hidden states of a zero-padded batch; frames past a length are zeros.

        Args:
            waveforms: ``[utterance, sample]``, zero-padded.
            samples: valid samples of each utterance.
        """
        frames_btd, lengths = self.front_end(waveforms, samples)
        values = frames_btd.new_empty(self.config.layers + 1, *frames_btd.shape)
        for index, state in enumerate(self.states(frames_btd, lengths)):
            values[index] = state
        for index, length in enumerate(lengths):
            values[:, index, length:] = 0
        return HiddenStates(values, torch.tensor(lengths, device=values.device))


class TransformerUpstream(nn.Module):
    """A frozen `TransformerEncoder` that takes waveforms: the upstream.

    Args:
        encoder: with its weights.
        card: its card.
        normalize: bring every waveform to zero mean and unit variance first, as the checkpoint's
            ``preprocessor_config.json`` asks (``do_normalize``).
    """

    def __init__(self, encoder: TransformerEncoder, card: UpstreamCard, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.card = card
        self.normalize = normalize
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D waveforms in [-1, 1], one per utterance.

        Each gets the features it would get alone. On a CPU one at a time is fastest.

        Raises:
            AudioError: for a waveform that is not 1-D, not float, or too short.
        """
        batch.check_waveforms(waveforms, self.card)
        weight = self.encoder.projection.weight
        prepared = [self.prepare(waveform.to(weight.device)) for waveform in waveforms]
        padded, samples = batch.pad(prepared)
        states: HiddenStates = self.encoder(padded.to(weight.dtype), samples)
        return states

    def prepare(self, waveform: Tensor) -> Tensor:
        """One waveform ``[sample]``, normalised if the checkpoint was trained so."""
        waveform = waveform.float()
        if not self.normalize:
            return waveform
        variance, mean = torch.var_mean(waveform, correction=0)
        return (waveform - mean) / torch.sqrt(variance + 1e-7)


def parameter_count(config: EncoderConfig) -> int:
    """Weights of an architecture, counted on the meta device: nothing is allocated."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in TransformerEncoder(config).parameters())


def untrained_encoder(config: EncoderConfig, seed: int) -> TransformerEncoder:
    """An encoder with random weights, on the CPU; torch's global random state stays as it was.

    Args:
        config: the architecture.
        seed: of the weights.
    """
    with torch.device("meta"):
        encoder = TransformerEncoder(config)
    encoder.to_empty(device="cpu")
    encoder.reset_parameters(torch.Generator().manual_seed(seed))
    return encoder
