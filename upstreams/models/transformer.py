"""The speech transformer: wav2vec 2.0, XLSR, XLS-R, MMS, HuBERT, WavLM, data2vec, UniSpeech-SAT.

A waveform goes through strided convolutions (one frame per 20 ms), a linear projection, a
convolution that adds relative position, and a transformer. (In our own small size the first
convolution is replaced by log mel energies.)::

    waveform [utterance, sample]
      └ front_end ─► frames [utterance, frame, dim]     wav2vec 2.0, section 2, "feature encoder"
           └ states ─► K+1 × [utterance, frame, dim]    ibid., "contextualized representations"

The small size has one state before these: the mel energies as they come.

The published models (arXiv 2006.11477, 2006.13979, 2111.09296, 2305.13516, 2106.07447, 2110.13900,
2202.03555, 2110.05752, 2110.01900) differ only in the values of `EncoderConfig`; many share all of
them and differ in what they were trained to do. Two values matter to a probe:

* Base models normalise the first convolution over *time*. Statistics over a padded tail would
  make an utterance's features depend on its neighbours, so they are taken over valid frames only.
* Large models normalise before each block ("pre-norm"), so a last layer norm follows the stack;
  the last hidden state is the output of that norm, as in fairseq and SUPERB. (transformers 5
  returns it as ``last_hidden_state`` while its ``hidden_states[-1]`` skips the norm.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, Protocol, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.core import HiddenStates, UpstreamCard
from benchmark.errors import UpstreamError
from upstreams.models import batch
from upstreams.models.architecture import added
from upstreams.models.batch import SAMPLE_RATE
from upstreams.models.convolution import convolve_rows

# Of the spectrum under log mel energies: far more than speech needs.
MOST_BINS = 4097


def spectrum_bins(window: int) -> int:
    """Bins of the spectrum of a window, filled up with zeros to a power of two."""
    return int(2 ** (window - 1).bit_length() // 2 + 1)


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
        log_mel: the first convolution is not learned: it is `LogMel`, with as many bands as it has
            channels and a window as wide as its kernel.
        input_state: log mel energies are normalised over each utterance, and one state comes first:
            what they were before, those in the middle of a frame beside each other, then zeros.
        state_norm: layer norm without weights on all states but that of `input_state`, as they are
            given out, so that a weighted sum hears them all; layers hear each other without it.
        projection_norm: layer norm before the linear projection.
        dim: width of the transformer.
        layers: transformer layers K; K + 1 hidden states are returned, and `input_state`.
        heads: attention heads.
        feed_forward_dim: inner width of the feed-forward blocks.
        position_kernel: frames seen by a positional convolution.
        position_groups: its groups.
        position_layers: positional convolutions, one after the other.
        position_norm: layer norm without weights after each of them (data2vec).
        relative_buckets: buckets of relative positions for a gated bias on attention (WavLM); 0
            for no such bias. Even: one half looks back, the other ahead.
        relative_distance: frames from which on all positions share the last bucket.
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
    log_mel: bool = False
    input_state: bool = added(False)
    state_norm: bool = added(False)
    projection_norm: bool = True
    dim: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward_dim: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    position_layers: int = 1
    position_norm: bool = False
    relative_buckets: int = 0
    relative_distance: int = 800
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
        bins = spectrum_bins(self.conv_kernels[0])
        if self.log_mel and (self.conv_dims[0] > bins or bins > MOST_BINS):
            raise UpstreamError(
                f"log_mel takes a window of at most {2 * (MOST_BINS - 1)} samples and no more "
                f"bands than its spectrum has bins; got conv_kernels[0] = {self.conv_kernels[0]} "
                f"({bins} bins) and conv_dims[0] = {self.conv_dims[0]} bands"
            )
        if self.input_state and not (
            self.log_mel
            and self.stack * self.conv_dims[0] <= self.dim
            and self.seen // 2 + self.stack <= self.seen
        ):
            raise UpstreamError(
                f"input_state takes log_mel, dim {self.dim} to be at least {self.stack} frames of "
                f"{self.conv_dims[0]} bands, and these to be in the middle of the {self.seen} that "
                "a frame sees"
            )
        if self.conv_norm not in ("group", "layer"):
            raise UpstreamError(f"conv_norm is 'group' or 'layer'; got {self.conv_norm!r}")
        # A quarter of the buckets are single positions, so 4 is the least that has any.
        if self.relative_buckets and (
            self.relative_buckets < 4
            or self.relative_buckets % 2
            or self.relative_distance <= self.relative_buckets // 4
        ):
            raise UpstreamError(
                "relative_buckets must be 0 or even and at least 4, and relative_distance more "
                f"than a quarter of it; got {self.relative_buckets} and {self.relative_distance}"
            )

    @property
    def states(self) -> int:
        """The input of the first layer and the output of every layer; perhaps `input_state`."""
        return self.layers + 1 + self.input_state

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return math.prod(self.conv_strides)

    @property
    def stack(self) -> int:
        """Frames of the first convolution from one frame to the next."""
        return math.prod(self.conv_strides[1:])

    @property
    def seen(self) -> int:
        """Frames of the first convolution that one frame is computed of."""
        return (self.min_samples - self.conv_kernels[0]) // self.conv_strides[0] + 1

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

    def build(self) -> TransformerEncoder:
        """The encoder."""
        return TransformerEncoder(self)


# The published architectures. Many names share one: what was learned differs, not what is computed.

# HuBERT, table 1. Base is also wav2vec 2.0 Base (section 4.2) and UniSpeech-SAT Base and Base+;
# Large is also UniSpeech-SAT Large.
HUBERT_BASE = EncoderConfig(conv_dims=(512,) * 7)
HUBERT_LARGE = EncoderConfig(
    conv_dims=(512,) * 7,
    conv_norm="layer",
    dim=1024,
    layers=24,
    heads=16,
    feed_forward_dim=4096,
    pre_norm=True,
)
HUBERT_XLARGE = replace(HUBERT_LARGE, dim=1280, layers=48, feed_forward_dim=5120)
# wav2vec 2.0 Large as trained on Libri-Light, with a bias in the convolutions; also XLSR-53
# (arXiv 2006.13979). XLS-R (arXiv 2111.09296) and MMS (arXiv 2305.13516) have it in three sizes.
WAV2VEC2_LARGE = replace(HUBERT_LARGE, conv_bias=True)
XLS_R_1B = replace(HUBERT_XLARGE, conv_bias=True)
XLS_R_2B = replace(XLS_R_1B, dim=1920, feed_forward_dim=7680)
# WavLM (arXiv 2110.13900): HuBERT with a gated relative position bias.
WAVLM_BASE = replace(HUBERT_BASE, relative_buckets=320)
WAVLM_LARGE = replace(HUBERT_LARGE, relative_buckets=320)
# data2vec (arXiv 2202.03555), section 4.2: all convolutions normalised per frame, five short
# positional ones, post-norm at both sizes.
DATA2VEC_BASE = replace(
    HUBERT_BASE, conv_norm="layer", position_kernel=19, position_layers=5, position_norm=True
)
DATA2VEC_LARGE = replace(DATA2VEC_BASE, dim=1024, layers=24, heads=16, feed_forward_dim=4096)
# DistilHuBERT (arXiv 2110.01900): two layers of Base; its prediction heads are dropped.
DISTILHUBERT = replace(HUBERT_BASE, projection_norm=False, layers=2)
# Ours: Base in small, on log mel energies as in MelHuBERT (arXiv 2211.09944), by two convolutions
# as in Whisper (arXiv 2212.04356, section 2.2). Filters for a waveform take longer to learn than a
# small encoder is trained. Norms come first, as in Large: so it trains at a higher learning rate.
MINI = EncoderConfig(
    conv_dims=(80, 192, 192),
    conv_kernels=(400, 3, 3),
    conv_strides=(160, 1, 2),
    conv_bias=True,
    conv_norm="layer",
    log_mel=True,
    input_state=True,
    state_norm=True,
    dim=192,
    layers=6,
    heads=4,
    feed_forward_dim=768,
    position_kernel=64,
    pre_norm=True,
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

    def forward(self, x_btc: Tensor, lengths: list[int]) -> Tensor:
        """``[utterance, frame, channel]`` to the same with new channels and fewer frames.

        Args:
            x_btc: input.
            lengths: valid frames of each utterance *after* this convolution.
        """
        if isinstance(self.norm, nn.GroupNorm):
            (kernel,), (stride,) = self.convolution.kernel_size, self.convolution.stride
            patches_btk = x_btc.squeeze(2).unfold(1, kernel, stride)
            weight_ck = self.convolution.weight[:, 0]
            return gelu(normalised_product(patches_btk, lengths, weight_ck, self.norm))
        x_btc = convolve_rows(x_btc, self.convolution)
        return gelu(x_btc if self.norm is None else self.norm(x_btc))


class LogMel(nn.Module):
    """Log mel energies in place of the first convolution (MelHuBERT, arXiv 2211.09944, section 3).

    Hann windows without an overhang, power, triangles on the HTK mel scale from 0 Hz to half the
    sample rate, and the logarithm, shifted and scaled by constants: about zero mean and unit
    variance on speech. No statistic of the utterance goes into that, so its level and its long-term
    spectrum stay, by which speakers and channels differ; with `EncoderConfig.input_state` every
    band is normalised over the utterance after it, and they go.
    """

    FLOOR, MEAN, DEVIATION = 1e-8, -3.7, 2.5
    # So that silence is zero.
    LEAST = 1e-3
    normalises = False

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.bands, self.window = config.conv_dims[0], config.conv_kernels[0]
        self.hop = config.conv_strides[0]
        if config.input_state:
            # An attribute of the others would change the hash of their weights.
            self.normalises = True

    def forward(self, x_bt1: Tensor, lengths: list[int]) -> Tensor:
        """``[utterance, sample, 1]`` to ``[utterance, frame, band]``.

        Args:
            x_bt1: the waveform, in [-1, 1].
            lengths: valid frames of each utterance; those past them have no meaning. Empty: all.
        """
        return self.heard(self.scaled(x_bt1), lengths).to(x_bt1.dtype)

    def heard(self, mel_btm: Tensor, lengths: list[int]) -> Tensor:
        """What `scaled` gives as convolutions get it, in float32."""
        if not self.normalises:
            return mel_btm
        # Of each by itself, so that nothing depends on what it is padded to.
        lengths = lengths or [mel_btm.shape[1]] * len(mel_btm)
        pairs = [
            torch.std_mean(mel_tm[:length], dim=0, correction=0)
            for mel_tm, length in zip(mel_btm, lengths, strict=True)
        ]
        deviation_b1m = torch.stack([deviation for deviation, _ in pairs]).unsqueeze(1)
        mean_b1m = torch.stack([mean for _, mean in pairs]).unsqueeze(1)
        return (mel_btm - mean_b1m) / (deviation_b1m + self.LEAST)

    def scaled(self, x_bt1: Tensor) -> Tensor:
        """The same frames before they are normalised, in float32 whatever the waveform has."""
        with torch.autocast(x_bt1.device.type, enabled=False):
            patches_btk = x_bt1.squeeze(2).float().unfold(1, self.window, self.hop)
            window_k, filters_fm = mel_filters(self.window, self.bands, x_bt1.device)
            spectrum_btf = torch.fft.rfft(patches_btk * window_k, n=2 * (len(filters_fm) - 1))
            power_btf = spectrum_btf.real.square() + spectrum_btf.imag.square()
            mel_btm = (power_btf @ filters_fm).clamp(min=self.FLOOR).log10()
            scaled: Tensor = (mel_btm - self.MEAN) / self.DEVIATION
            return scaled


@cache
def mel_filters(window: int, bands: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A Hann window ``[sample]`` and the mel triangles ``[bin, band]`` for its spectrum."""
    from torchaudio.functional import melscale_fbanks

    bins = spectrum_bins(window)
    filters_fm = melscale_fbanks(bins, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE)
    return torch.hann_window(window, device=device), filters_fm.to(device)


def normalised_product(
    patches_btk: Tensor, lengths: list[int], weight_ck: Tensor, norm: nn.GroupNorm
) -> Tensor:
    """The first convolution and the group norm after it, one channel per group, in one product.

    Over an utterance's valid frames, a channel with weights *w* has mean ``w·m`` and variance
    ``w·Cw``, where *m* and *C* are mean and covariance of the patches it is applied to. So the norm
    is known before the product is formed, and goes into its weights. A bias would cancel.

    Args:
        patches_btk: ``[utterance, frame, sample]``, what each frame sees of the waveform.
        lengths: valid frames of each utterance; statistics are taken over these alone.
        weight_ck: ``[channel, sample]``.
        norm: the module that holds weight, bias and epsilon.

    Returns:
        ``[utterance, frame, channel]``. Frames past an utterance's length hold finite numbers
        without meaning; no valid frame of a later convolution looks at them.
    """
    frames, device = patches_btk.shape[1], patches_btk.device
    # Speech has most of its power in few directions: single precision would lose the others.
    precise = torch.float32 if device.type == "mps" else torch.float64
    count_b11 = torch.tensor(lengths, device=device, dtype=precise)[:, None, None]
    mask_bt1: Tensor | float = 1.0
    if min(lengths) < frames:
        mask_bt1 = frame_mask(lengths, frames, device).unsqueeze(2).to(precise)
    exact_btk = patches_btk.to(precise)
    centred_btk = exact_btk - (exact_btk * mask_bt1).sum(1, keepdim=True) / count_b11
    valid_btk = centred_btk * mask_bt1
    covariance_bkk = valid_btk.transpose(1, 2) @ valid_btk / count_b11
    exact_ck = weight_ck.to(precise)
    variance_bc = ((exact_ck @ covariance_bkk) * exact_ck).sum(2)
    scale_bc = norm.weight * torch.rsqrt(variance_bc + norm.eps)
    scaled_bck = (exact_ck * scale_bc.unsqueeze(2)).to(patches_btk.dtype)
    centred_btk = centred_btk.to(patches_btk.dtype)
    return torch.baddbmm(norm.bias, centred_btk, scaled_bck.transpose(1, 2))


def gelu(x: Tensor) -> Tensor:
    """Exact GELU of a fresh tensor; in its own memory where no gradient will ask for it."""
    if torch.is_grad_enabled():
        return F.gelu(x)
    output: Tensor = torch.ops.aten.gelu_(x)
    return output


# Where torch would multiply with MKL, which takes a slow path on processors of other makers.
ONEDNN: bool = torch._C.has_mkl and torch._C._has_mkldnn


def product(x: Tensor, layer: nn.Linear) -> Tensor:
    """``layer(x)``; without gradients, on an x86 processor and in float32, by oneDNN.

    The same to rounding, and up to twice as fast.
    """
    if (
        ONEDNN
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    ):
        fast: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, layer.weight, layer.bias, "none", [], ""
        )
        return fast
    output: Tensor = layer(x)
    return output


def frame_mask(lengths: list[int], frames: int, device: torch.device) -> Tensor:
    """``[utterance, frame]``, True where a frame belongs to its utterance."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(frames, device=device) < counts.unsqueeze(1)


def _trains_in_bfloat16(x: Tensor) -> bool:
    """Whether plain attention is twice as fast as the fused one, which gains nothing from it."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled()


def residual(change: Tensor, x: Tensor) -> Tensor:
    """``x + change``, in the memory of the change unless that is less precise (autocast)."""
    return change.add_(x) if change.dtype == x.dtype else x + change


class PositionalConvolution(nn.Module):
    """Relative position as wide grouped convolutions.

    One of them in wav2vec 2.0 (section 2), trained with weight normalisation; here weight =
    direction × magnitude is already multiplied out, which is the same function and cheaper. In
    data2vec (section 4.2) a stack of narrower ones, each with a layer norm that has no weights.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm = config.position_norm
        self.convolutions = nn.ModuleList(
            nn.Conv1d(
                config.dim,
                config.dim,
                config.position_kernel,
                padding=config.position_kernel // 2,
                groups=config.position_groups,
            )
            for _ in range(config.position_layers)
        )

    def forward(self, x_btd: Tensor, mask_bt1: Tensor | None) -> Tensor:
        """``[utterance, frame, dim]`` to the same shape.

        Args:
            x_btd: input.
            mask_bt1: True at the valid frames; None if all are.
        """
        frames, dim = x_btd.shape[1:]
        for convolution in self.convolutions:
            # Every convolution must see zeros after an utterance, as it does alone.
            if mask_bt1 is not None:
                x_btd = x_btd * mask_bt1
            # An even kernel with half its width on both sides gives one frame too many: drop it.
            x_btd = convolution(x_btd.transpose(1, 2))[:, :, :frames].transpose(1, 2)
            if self.norm:
                x_btd = F.layer_norm(x_btd, (dim,))
            x_btd = gelu(x_btd)
        return x_btd


class RelativePositions(nn.Module):
    """A learned number per head and bucket of relative positions (WavLM, arXiv 2110.13900).

    Near positions have a bucket each, farther ones share buckets that widen with the logarithm of
    the distance. All layers add the same numbers, each weighted by its own `RelativeGate`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.distance = config.relative_distance
        self.buckets = nn.Embedding(config.relative_buckets, config.heads)

    def forward(self, frames: int) -> Tensor:
        """The bias ``[1, head, query frame, key frame]`` for so many frames."""
        device = self.buckets.weight.device
        offset_s = torch.arange(1 - frames, frames, device=device)
        bias_hs: Tensor = self.buckets(self.bucket(offset_s)).t()
        # The bias depends on key minus query alone: a window of it slides with the query.
        return bias_hs.unfold(1, frames, 1).flip(1).unsqueeze(0)

    def bucket(self, offset: Tensor) -> Tensor:
        """Bucket of each offset, key frame minus query frame, in frames."""
        half = self.buckets.num_embeddings // 2
        exact = half // 2
        distance = offset.abs()
        widening = torch.log(distance.clamp(min=1).float() / exact)
        widening = widening / math.log(self.distance / exact) * (half - exact)
        far = (exact + widening).long().clamp(max=half - 1)
        return torch.where(distance < exact, distance, far) + half * (offset > 0)


class RelativeGate(nn.Module):
    """How much of the relative position bias a frame takes, by its content (ibid.).

    A gated recurrent unit in small: per head and query frame, update gate *g* and reset gate *r*
    turn the bias *d* into ``d + g d + (1 - g) s r d`` with a learned scale *s* per head.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        # One row gives 1 - g, the other r; sigmoid(-x) = 1 - sigmoid(x) makes that the same model.
        self.gates = nn.Linear(config.dim // config.heads, 2)
        self.scale = nn.Parameter(torch.ones(config.heads))

    def reset_parameters(self) -> None:
        """Set the scale to one; the linear layer draws its own weights."""
        nn.init.ones_(self.scale)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Frames to the factor ``[utterance, head, query frame, 1]`` on the bias.

        The gates see the input of the attention as it is, cut into heads; the paper writes the
        query in its place.
        """
        gates_bth2: Tensor = self.gates(x_btd.view(*x_btd.shape[:2], self.heads, -1)).sigmoid()
        keep_bth, reset_bth = gates_bth2.unbind(3)
        return (2 + keep_bth * (reset_bth * self.scale - 1)).transpose(1, 2).unsqueeze(3)


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward with residuals (arXiv 1706.03762), norm before or after."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.pre_norm = config.pre_norm
        self.query_key_value = nn.Linear(config.dim, 3 * config.dim)
        self.attention_output = nn.Linear(config.dim, config.dim)
        self.gate = RelativeGate(config) if config.relative_buckets else None
        self.attention_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.expand = nn.Linear(config.dim, config.feed_forward_dim)
        self.contract = nn.Linear(config.feed_forward_dim, config.dim)
        self.feed_forward_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(
        self, x_btd: Tensor, mask_b11t: Tensor | None, bias_1htt: Tensor | None = None
    ) -> Tensor:
        """One layer.

        Args:
            x_btd: ``[utterance, frame, dim]``.
            mask_b11t: True at the frames that may be attended to; None for all of them.
            bias_1htt: output of `RelativePositions`, in models that have it.
        """
        if self.pre_norm:
            mixed_btd = self.attention(self.attention_norm(x_btd), mask_b11t, bias_1htt)
            x_btd = residual(mixed_btd, x_btd)
            return residual(self.feed_forward(self.feed_forward_norm(x_btd)), x_btd)
        mixed_btd = self.attention(x_btd, mask_b11t, bias_1htt)
        x_btd = self.attention_norm(residual(mixed_btd, x_btd))
        output: Tensor = self.feed_forward_norm(residual(self.feed_forward(x_btd), x_btd))
        return output

    def attention(
        self, x_btd: Tensor, mask_b11t: Tensor | None, bias_1htt: Tensor | None
    ) -> Tensor:
        """Multi-head self-attention, ``[utterance, frame, dim]`` to the same shape."""
        utterances, frames, dim = x_btd.shape
        projected = product(x_btd, self.query_key_value)
        query, key, value = projected.view(
            utterances, frames, 3, self.heads, dim // self.heads
        ).permute(2, 0, 3, 1, 4)
        scores_mask = mask_b11t  # None lets attention take its fastest way
        if self.gate is not None and bias_1htt is not None:
            scores_mask = (self.gate(x_btd) * bias_1htt).to(query.dtype)
            if mask_b11t is not None:
                scores_mask = scores_mask.masked_fill(~mask_b11t, -math.inf)
        if scores_mask is None and _trains_in_bfloat16(query):
            scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
            mixed_bhtd = scores.softmax(3, dtype=query.dtype) @ value
        else:
            mixed_bhtd = F.scaled_dot_product_attention(query, key, value, attn_mask=scores_mask)
        return product(mixed_bhtd.transpose(1, 2).flatten(2), self.attention_output)

    def feed_forward(self, x_btd: Tensor) -> Tensor:
        """Two linear layers with a GELU between them."""
        return product(gelu(product(x_btd, self.expand)), self.contract)


class TransformerEncoder(nn.Module):
    """The encoder: weights and nothing else. Differentiable; it holds no dropout.

    Its parameters are as torch initialises them: follow with `reset_parameters` or load some.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.convolutions = nn.ModuleList(
            LogMel(config) if config.log_mel and index == 0 else Convolution(config, index)
            for index in range(len(config.conv_dims))
        )
        width = config.conv_dims[-1]
        self.projection_norm = (
            nn.LayerNorm(width, eps=config.norm_eps) if config.projection_norm else None
        )
        self.projection = nn.Linear(width, config.dim)
        self.position = PositionalConvolution(config)
        # Before the first layer (post-norm) or after the last one (pre-norm).
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.relative = RelativePositions(config) if config.relative_buckets else None
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TransformerEncoder:
        COPIES.pop(self, None)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, as before training: fairseq's wav2vec 2.0 initialisation.

        Args:
            generator: source of randomness, on the device of the parameters; None is torch's own,
                for callers that guard it.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            elif isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
                nn.init.ones_(module.weight)
            elif isinstance(module, RelativeGate):
                module.reset_parameters()
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
        std = math.sqrt(4 / (self.config.position_kernel * self.config.dim))
        for name, parameter in self.position.named_parameters():
            if name.endswith(".weight"):
                nn.init.normal_(parameter, std=std, generator=generator)

    def front_end(
        self, waveforms: Tensor, samples: list[int], mel_btm: Tensor | None = None
    ) -> tuple[Tensor, list[int]]:
        """Waveforms to projected frames, the input of `states`.

        Args:
            waveforms: ``[utterance, sample]``, zero-padded.
            samples: valid samples of each utterance, at least `EncoderConfig.min_samples`.
            mel_btm: `LogMel.scaled` of them, where that is known.

        Returns:
            ``[utterance, frame, dim]`` and the valid frames of each utterance.
        """
        z_btc, lengths = self.latents(waveforms, samples, mel_btm)
        return product(z_btc, self.projection), lengths

    def latents(
        self, waveforms: Tensor, samples: list[int], mel_btm: Tensor | None = None
    ) -> tuple[Tensor, list[int]]:
        """Waveforms to the frames in front of the projection, which wav2vec 2.0 quantises.

        Args:
            waveforms: ``[utterance, sample]``, zero-padded.
            samples: valid samples of each utterance, at least `EncoderConfig.min_samples`.
            mel_btm: `LogMel.scaled` of them, where that is known.

        Returns:
            ``[utterance, frame, channel]`` and the valid frames of each utterance.
        """
        lengths = list(samples)
        x_btc = waveforms.unsqueeze(2)
        for index, convolution in enumerate(self.convolutions):
            kernel, stride = self.config.conv_kernels[index], self.config.conv_strides[index]
            lengths = [(length - kernel) // stride + 1 for length in lengths]
            if index == 0 and mel_btm is not None:
                x_btc = cast(LogMel, convolution).heard(mel_btm, lengths).to(waveforms.dtype)
            else:
                x_btc = convolution(x_btc, lengths)
        if self.projection_norm is not None:
            x_btc = self.projection_norm(x_btc)
        return x_btc, lengths

    def input_state(self, mel_btm: Tensor, frames: int) -> Tensor:
        """Log mel energies as they come, then zeros: ``[utterance, frame, dim]``."""
        first, stack = self.config.seen // 2, self.config.stack
        middle_btm = mel_btm[:, first : first + frames * stack]
        stacked_btd = middle_btm.reshape(len(mel_btm), frames, stack * mel_btm.shape[2])
        return F.pad(stacked_btd, (0, self.config.dim - stacked_btd.shape[2]))

    def states(self, frames_btd: Tensor, lengths: list[int]) -> Iterator[Tensor]:
        """The K + 1 hidden states, one after the other, each ``[utterance, frame, dim]``.

        State 0 is the input of the first layer: frames plus position, normalised in post-norm
        models. Frames past an utterance's length hold numbers without meaning.

        Args:
            frames_btd: output of `front_end`.
            lengths: valid frames of each utterance.
        """
        return contextual_states(self, frames_btd, lengths)

    def forward(self, waveforms: Tensor, samples: list[int]) -> HiddenStates:
        """All hidden states of a zero-padded batch; frames past a length are zeros.

        Args:
            waveforms: ``[utterance, sample]``, zero-padded.
            samples: valid samples of each utterance.
        """
        mel_btm = None
        if self.config.input_state:
            mel_btm = cast(LogMel, self.convolutions[0]).scaled(waveforms.unsqueeze(2))
        frames_btd, lengths = self.front_end(waveforms, samples, mel_btm)
        values = frames_btd.new_empty(self.config.states, *frames_btd.shape)
        if mel_btm is not None:
            values[0] = self.input_state(mel_btm, frames_btd.shape[1])
        first = int(self.config.input_state)
        for index, state in enumerate(self.states(frames_btd, lengths), first):
            if self.config.state_norm:
                state = F.layer_norm(state, state.shape[2:])
            values[index] = state
        for index, length in enumerate(lengths):
            values[:, index, length:] = 0
        return HiddenStates(values, torch.tensor(lengths, device=values.device))


class Network(Protocol):
    """What `contextual_states` reads of an encoder."""

    config: Any
    position: PositionalConvolution
    norm: nn.LayerNorm
    relative: RelativePositions | None
    layers: nn.ModuleList


def contextual_states(network: Network, frames_btd: Tensor, lengths: list[int]) -> Iterator[Tensor]:
    """Frames through position and layers, as `TransformerEncoder.states` says.

    Args:
        network: with `EncoderConfig.pre_norm` in its configuration.
        frames_btd: ``[utterance, frame, dim]``.
        lengths: valid frames of each utterance.
    """
    frames = frames_btd.shape[1]
    mask_bt1 = mask_b11t = None
    if min(lengths) < frames:
        mask_bt = frame_mask(lengths, frames, frames_btd.device)
        mask_bt1, mask_b11t = mask_bt.unsqueeze(2), mask_bt[:, None, None, :]
    bias_1htt = network.relative(frames) if network.relative is not None else None
    x_btd = frames_btd + network.position(frames_btd, mask_bt1)
    if not network.config.pre_norm:
        x_btd = network.norm(x_btd)
    yield x_btd
    for index, layer in enumerate(network.layers):
        x_btd = layer(x_btd, mask_b11t, bias_1htt)
        last = index == network.config.layers - 1
        yield network.norm(x_btd) if last and network.config.pre_norm else x_btd


# By encoder and type. Not kept in the encoder: a copy is no part of what it is.
COPIES: WeakKeyDictionary[TransformerEncoder, dict[torch.dtype, TransformerEncoder]] = (
    WeakKeyDictionary()
)


def converted(encoder: TransformerEncoder, dtype: torch.dtype) -> TransformerEncoder:
    """A frozen encoder in another type, made at the first call and kept as long as the encoder.

    Moving the encoder forgets it. To change weights in place afterwards, forget it too.
    """
    if dtype == encoder.projection.weight.dtype:
        return encoder
    copies = COPIES.setdefault(encoder, {})
    if dtype not in copies:
        copies[dtype] = copy.deepcopy(encoder).to(dtype)
    return copies[dtype]


class TransformerUpstream(nn.Module):
    """A frozen `TransformerEncoder` that takes waveforms: the upstream.

    Args:
        encoder: with its weights.
        card: its card.
        normalize: bring every waveform to zero mean and unit variance first, as the checkpoint's
            ``preprocessor_config.json`` asks (``do_normalize``).
    """

    concurrent = True

    def __init__(self, encoder: TransformerEncoder, card: UpstreamCard, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.card = card
        self.normalize = normalize
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, waveforms: list[Tensor]) -> HiddenStates:
        """Encode 1-D waveforms in [-1, 1], one per utterance.

        Each gets the features it would get alone. Under
        ``torch.autocast`` all arithmetic has its type, and the weights are converted once instead
        of at every call.

        Raises:
            AudioError: for a waveform that is not 1-D, not float, or too short.
        """
        batch.check_waveforms(waveforms, self.card)
        device = self.encoder.projection.weight.device
        encoder = self.encoder
        if torch.is_autocast_enabled(device.type):
            encoder = converted(self.encoder, torch.get_autocast_dtype(device.type))
        prepared = [self.prepare(waveform.to(device)) for waveform in waveforms]
        padded, samples = batch.pad(prepared)
        with torch.autocast(device.type, enabled=False):
            states: HiddenStates = encoder(padded.to(encoder.projection.weight.dtype), samples)
        return states

    def prepare(self, waveform: Tensor) -> Tensor:
        """One waveform ``[sample]``, normalised if the checkpoint was trained so."""
        waveform = waveform.float()
        if not self.normalize:
            return waveform
        variance, mean = torch.var_mean(waveform, correction=0)
        return (waveform - mean) / torch.sqrt(variance + 1e-7)
