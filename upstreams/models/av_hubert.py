"""AV-HuBERT (Shi et al., arXiv 2201.02184): its audio stream, as it is without a picture.

HuBERT that sees the speaker's lips. Each modality has a front end, the two are fused frame by
frame, and one transformer reads them (section 3.3)::

    waveform [sample]
      └ log filter banks, four in a row ─► [frame, 104]    one frame per 40 ms, that of the video
           └ linear layer ─► [frame, dim]
                └ beside dim zeros, layer norm ─► [frame, 2 dim] ─ linear layer ─► [frame, dim]
                     └ the transformer of wav2vec 2.0 ─► K + 1 × [frame, dim]

The zeros are the video's half. Training drops one modality at random and puts zeros in its place
(ibid., "modality dropout"), so the model knows frames like these. The video front end, a
ResNet, is not here.

Sizes are those of section 4.1. That both of them normalise before each block, how the filter banks
are computed and the zeros that fill up the last frame stand in the authors' code and training
settings alone (github.com/facebookresearch/av_hubert).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upstreams.models import batch
from upstreams.models.batch import SAMPLE_RATE
from upstreams.models.signal import FFT_SAMPLES, HOP_SAMPLES, INT16_SCALE, WINDOW_SAMPLES
from upstreams.models.transformer import (
    EncoderConfig,
    PositionalConvolution,
    RelativePositions,
    TransformerLayer,
    contextual_states,
    product,
)
from upstreams.models.utterance import UtteranceEncoder

BANDS = 26
PRE_EMPHASIS = 0.97


@dataclass(frozen=True)
class AVHubertConfig:
    """The audio stream of AV-HuBERT.

    Attributes:
        stack: filter bank frames of 10 ms in one frame of the encoder.
        normalize: bring every stacked frame to zero mean and unit variance.
        dim: width of the transformer.
        layers: transformer layers K; K + 1 hidden states are returned.
        heads: attention heads.
        feed_forward_dim: inner width of the feed-forward blocks.
        position_kernel: frames seen by the positional convolution.
        position_groups: its groups.
        pre_norm: layer norm before each block or after it.

    Raises:
        UpstreamError: when the sizes do not fit together.
    """

    stack: int = 4
    normalize: bool = True
    dim: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward_dim: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    pre_norm: bool = True

    def __post_init__(self) -> None:
        _ = self.transformer  # which says whether they do

    @property
    def states(self) -> int:
        """The input of the first layer and the output of every layer."""
        return self.layers + 1

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return self.stack * HOP_SAMPLES

    @property
    def min_samples(self) -> int:
        """Shortest waveform that yields a frame: windows and frames are filled up with zeros."""
        return 1

    @property
    def transformer(self) -> EncoderConfig:
        """The sizes of what follows the fusion; the fused frames stand for its front end."""
        return EncoderConfig(
            conv_dims=(2 * self.dim,),
            conv_kernels=(self.hop_samples,),
            conv_strides=(self.hop_samples,),
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            feed_forward_dim=self.feed_forward_dim,
            position_kernel=self.position_kernel,
            position_groups=self.position_groups,
            pre_norm=self.pre_norm,
        )

    def build(self) -> AVHubertEncoder:
        """The encoder."""
        return AVHubertEncoder(self)


AV_HUBERT_BASE = AVHubertConfig()
AV_HUBERT_LARGE = AVHubertConfig(dim=1024, layers=24, heads=16, feed_forward_dim=4096)


def log_filter_banks(waveform: Tensor) -> Tensor:
    """26 log energies every 10 ms, ``[sample]`` in [-1, 1] to ``[frame, 26]``.

    As ``logfbank`` of the package python_speech_features computes them by default: pre-emphasis
    over the whole waveform, 25 ms without a window function, the last one filled up with zeros, a
    512-point periodogram, triangles, natural logarithm. Samples go in as 16-bit numbers. That adds
    a constant, which normalising takes away again, but for the last frame (which may hold zeros in
    the place of log energies) and for silence.

    In double precision, as there: without a window function, loud bands leak into all others.
    """
    # An Apple processor's card has no double precision.
    precise = torch.float32 if waveform.device.type == "mps" else torch.float64
    with torch.autocast(waveform.device.type, enabled=False):
        scaled = waveform.to(precise) * INT16_SCALE
        flat = torch.cat([scaled[:1], scaled[1:] - PRE_EMPHASIS * scaled[:-1]])
        further = max(0, -(-(len(flat) - WINDOW_SAMPLES) // HOP_SAMPLES))
        samples = WINDOW_SAMPLES + further * HOP_SAMPLES
        windows_tk = F.pad(flat, (0, samples - len(flat))).unfold(0, WINDOW_SAMPLES, HOP_SAMPLES)
        spectrum_tf = torch.fft.rfft(windows_tk, n=FFT_SAMPLES)
        power_tf = (spectrum_tf.real.square() + spectrum_tf.imag.square()) / FFT_SAMPLES
        energy_tm = power_tf @ filters(waveform.device).to(precise)
        # Nothing at all has no logarithm; whatever is more than nothing stays as it is.
        floor = torch.finfo(torch.float64).eps
        return torch.where(energy_tm == 0, floor, energy_tm).log().float()


@cache
def filters(device: torch.device) -> Tensor:
    """Triangles of height one with corners on bins of the spectrum, ``[257, 26]``.

    The corners are equally far apart in mel = 2595 log10(1 + f / 700) from 0 Hz to half the sample
    rate, then moved to the bin below.
    """
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    corners = np.floor((FFT_SAMPLES + 1) * hertz / SAMPLE_RATE)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    bins = np.arange(FFT_SAMPLES // 2 + 1)[:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.from_numpy(np.minimum(rising, falling).clip(min=0)).to(device)


class AVHubertEncoder(UtteranceEncoder):
    """The audio front end, the fusion with a silent video, and the transformer."""

    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__()
        self.config = config
        dim, sizes = config.dim, config.transformer
        self.audio = nn.Linear(BANDS * config.stack, dim)
        self.projection_norm = nn.LayerNorm(2 * dim)
        self.projection = nn.Linear(2 * dim, dim)
        self.position = PositionalConvolution(sizes)
        # Before the first layer (post-norm) or after the last one (pre-norm).
        self.norm = nn.LayerNorm(dim)
        self.relative: RelativePositions | None = None
        self.layers = nn.ModuleList(TransformerLayer(sizes) for _ in range(config.layers))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew; the positional convolution as fairseq's wav2vec 2.0 does."""
        super().reset_parameters(generator)
        std = (4 / (self.config.position_kernel * self.config.dim)) ** 0.5
        for convolution in self.position.convolutions:
            nn.init.normal_(convolution.get_parameter("weight"), std=std, generator=generator)

    def features(self, waveform: Tensor) -> Tensor:
        """What the audio front end reads, ``[sample]`` to ``[frame, stack * 26]``.

        Zeros fill up the last frame, and count where it is normalised.
        """
        energies_tm = log_filter_banks(waveform)
        missing = -len(energies_tm) % self.config.stack
        stacked_tm = F.pad(energies_tm, (0, 0, 0, missing)).view(-1, BANDS * self.config.stack)
        if self.config.normalize:
            stacked_tm = F.layer_norm(stacked_tm, stacked_tm.shape[1:])
        return stacked_tm.to(self.audio.weight.dtype)

    def fused(self, features_btm: Tensor) -> Tensor:
        """The input of `states`, ``[utterance, frame, stack * 26]`` to ``[…, dim]``."""
        audio_btd = product(features_btm, self.audio)
        both_btd = self.projection_norm(F.pad(audio_btd, (0, self.config.dim)))
        return product(both_btd, self.projection)

    def states(self, frames_btd: Tensor, lengths: list[int]) -> Iterator[Tensor]:
        """The K + 1 hidden states, one after the other, each ``[utterance, frame, dim]``.

        State 0 is the input of the first layer: frames plus position, normalised in post-norm
        models. The last state of pre-norm models is the output of the norm that follows.

        Args:
            frames_btd: output of `fused`.
            lengths: valid frames of each utterance.
        """
        return contextual_states(self, frames_btd, lengths)

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``."""
        return self.together([waveform])[0]

    def together(self, waveforms: list[Tensor]) -> list[Tensor]:
        """Several utterances in one pass of the transformer, which heeds none but its own."""
        features_btm, lengths = batch.pad([self.features(waveform) for waveform in waveforms])
        states = torch.stack(list(self.states(self.fused(features_btm), lengths)))
        return [states[:, row, :length] for row, length in enumerate(lengths)]


# --------------------------------------------------------------------------------------------
# The authors' training files, written by fairseq
# --------------------------------------------------------------------------------------------

# What an encoder of audio does not need, under ``model``. In fine-tuned files the pretrained model
# stands under ``encoder.w2v_model.`` (or ``w2v_encoder.w2v_model.``), beside what follows it.
TRAINING_ONLY = (
    "feature_extractor_video.",
    "mask_emb",
    "final_proj.",
    "target_glu.",
    "label_embs_concat",
    "decoder.",
    "w2v_encoder.proj.",
)


def names(config: AVHubertConfig) -> dict[str, tuple[str, ...]]:
    """Our parameter names → theirs, for every entry of our ``state_dict``.

    Query, key and value are one matrix here; the positional convolution's weight is magnitude and
    direction there. `upstreams.loading.checkpoint.converted` makes one of ours of several.
    """
    position = "encoder.pos_conv.0"
    weight = "position.convolutions.0.weight"
    table: dict[str, tuple[str, ...]] = {weight: (f"{position}.weight_g", f"{position}.weight_v")}
    modules = {
        "audio": "feature_extractor_audio.proj",
        "projection_norm": "layer_norm",
        "projection": "post_extract_proj",
        "position.convolutions.0": position,
        "norm": "encoder.layer_norm",
    }
    for index in range(config.layers):
        ours, theirs = f"layers.{index}", f"encoder.layers.{index}"
        modules |= {
            f"{ours}.attention_output": f"{theirs}.self_attn.out_proj",
            f"{ours}.attention_norm": f"{theirs}.self_attn_layer_norm",
            f"{ours}.expand": f"{theirs}.fc1",
            f"{ours}.contract": f"{theirs}.fc2",
            f"{ours}.feed_forward_norm": f"{theirs}.final_layer_norm",
        }
        for part in ("weight", "bias"):
            table[f"{ours}.query_key_value.{part}"] = tuple(
                f"{theirs}.self_attn.{letter}_proj.{part}" for letter in "qkv"
            )
    for mine, their in modules.items():
        for part in ("weight", "bias"):
            table.setdefault(f"{mine}.{part}", (f"{their}.{part}",))
    return table
