"""Encoders that learned to write spectrograms: APC, VQ-APC, NPC, Mockingjay and TERA.

All of them read 80 log mel energies each 10 ms, normalised over the utterance, and were
trained to produce mel frames that they cannot see (L1 loss):

=============  ===============================  ==========================================
``APC``        arXiv 1904.03240                 frames ahead, from a GRU that reads the past
``VQ_APC``     arXiv 2005.08392                 the same through a bottleneck of codes
``NPC``        arXiv 2011.00406                 the frame in the middle, from its surroundings
``MOCKINGJAY`` arXiv 1910.12638                 masked frames, from both sides: a transformer
``TERA``       arXiv 2007.06028                 altered time, channels and magnitude; 3 layers
=============  ===============================  ==========================================

Sizes are those of s3prl, which SUPERB measured. APC and NPC read Kaldi filter banks (Hamming
window, no edge frames); Mockingjay and TERA read a centred spectrogram of the waveform scaled to
-25 dB. Normalisation is over the utterance, so no state is causal with respect to the *waveform*;
APC is with respect to its input frames.

Every utterance is encoded alone; `upstreams.models.utterance` holds what is shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance import kaldi

from benchmark.errors import UpstreamError
from upstreams.models import batch
from upstreams.models.architecture import Layout, added
from upstreams.models.batch import SAMPLE_RATE
from upstreams.models.utterance import UtteranceEncoder

MEL_BANDS = 80
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
# By which Kaldi's have about zero mean and unit variance on speech.
FBANK_MEAN, FBANK_DEVIATION = -9.0, 5.0


# --------------------------------------------------------------------------------------------
# Input: mel frames
# --------------------------------------------------------------------------------------------


def kaldi_mel(waveform: Tensor) -> Tensor:
    """Normalised log mel energies by Kaldi's recipe, ``[sample]`` to ``[frame, 80]``."""
    return normalised(kaldi_fbank(waveform))


def kaldi_fbank(waveform: Tensor) -> Tensor:
    """The same as they come.

    25 ms Hamming windows every 10 ms, whole windows only; samples in [-1, 1], as s3prl feeds them.
    """
    mel: Tensor = kaldi.fbank(
        waveform.float().unsqueeze(0),
        num_mel_bins=MEL_BANDS,
        window_type="hamming",
        dither=0.0,
        sample_frequency=float(SAMPLE_RATE),
    )
    return mel


# Every utterance at the same loudness (s3prl, `target_level`).
TARGET_DB = -25.0


def centred_mel(waveform: Tensor) -> Tensor:
    """Normalised log mel energies of a centred spectrogram, ``[sample]`` to ``[frame, 80]``.

    The waveform is scaled to -25 dB, reflected at both ends, and cut into 25 ms Hann windows every
    10 ms, the first one centred on the first sample: ``1 + samples // 160`` frames.
    """
    waveform = waveform.float()
    loudness = waveform.square().mean().sqrt()
    scaled = waveform * (10 ** (TARGET_DB / 20) / (loudness + 1e-10))
    spectrum_ft = torch.stft(
        scaled,
        n_fft=WINDOW_SAMPLES,
        hop_length=HOP_SAMPLES,
        window=torch.hann_window(WINDOW_SAMPLES, device=waveform.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    power_tf = spectrum_ft.abs().square().T
    filters_fm = mel_filters(WINDOW_SAMPLES // 2 + 1, MEL_BANDS).to(waveform.device)
    return normalised(torch.log(power_tf @ filters_fm + 1e-10))


def mel_filters(bins: int, bands: int) -> Tensor:
    """Triangles of height one, equally wide in mel = 2595 log10(1 + f / 700): ``[bin, band]``.

    With 201 bins the lowest of 80 bands are narrower than the distance of two bins and some hold
    none: those are constant, and zero after normalisation.
    """
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, bins)
    highest = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, highest, bands + 2) / 2595) - 1)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - left) / (centre - left)
    falling = (right - frequencies[:, None]) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0)


def normalised(features: Tensor) -> Tensor:
    """Zero mean and unit (unbiased) variance of each band over time, ``[frame, band]``.

    A band that does not vary (silence, or a single frame) becomes zero.
    """
    if features.shape[0] == 1:
        return torch.zeros_like(features)
    deviation, mean = torch.std_mean(features, dim=0)
    # Log energies are of the order of 10: a deviation below 1e-5 is rounding, not signal.
    return torch.where(deviation > 1e-5, (features - mean) / deviation, 0.0)


class CodeLayer(nn.Module):
    """The bottleneck of VQ-APC (arXiv 2005.08392, section 2.2) and NPC: one code per group.

    Each group of features gives logits over its codebook; the largest wins here (in training,
    a Gumbel softmax samples).

    Args:
        dim: features, divided evenly over the groups.
        groups: independent parts.
        codes: entries of each codebook.
    """

    def __init__(self, dim: int, groups: int, codes: int) -> None:
        super().__init__()
        size = dim // groups
        self.logits = nn.ModuleList(nn.Linear(size, codes) for _ in range(groups))
        self.codebooks = nn.ModuleList(nn.Linear(codes, size, bias=False) for _ in range(groups))

    def forward(self, x_btd: Tensor) -> Tensor:
        """Features replaced by their codes, ``[utterance, frame, dim]`` to the same shape."""
        parts = x_btd.chunk(len(self.logits), dim=2)
        outputs = []
        for part, logits, codebook in zip(parts, self.logits, self.codebooks, strict=True):
            scores = logits(part)
            chosen = F.one_hot(scores.argmax(2), scores.shape[2]).to(part.dtype)
            outputs.append(codebook(chosen))
        return torch.cat(outputs, dim=2)


# --------------------------------------------------------------------------------------------
# APC (Chung et al. 2019) and VQ-APC (Chung et al. 2020)
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class APCConfig:
    """APC: stacked GRUs with residual connections.

    Attributes:
        dim: units of every layer.
        layers: GRU layers.
        codes: entries of the codebook behind the last layer; 0 for plain APC.
        stack: mel frames that are read as one: 1 in the papers, a frame each 10 ms.
        input_state: one state comes first: the log mel energies before they are normalised over the
            utterance, then zeros.

    Raises:
        UpstreamError: a frame that is read is wider than a layer, and is to be a state.
    """

    dim: int
    layers: int
    codes: int = 0
    stack: int = added(1)
    input_state: bool = added(False)

    def __post_init__(self) -> None:
        if self.input_state and self.input_dim > self.dim:
            raise UpstreamError(
                f"input_state takes dim {self.dim} to be at least {self.stack} frames of "
                f"{MEL_BANDS} bands"
            )

    @property
    def states(self) -> int:
        """The inputs of layers 2, 3, …, and the output of the last; perhaps `input_state`."""
        return self.layers + self.input_state

    @property
    def input_dim(self) -> int:
        """Numbers of a frame that is read, and written."""
        return self.stack * MEL_BANDS

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return self.stack * HOP_SAMPLES

    @property
    def min_samples(self) -> int:
        """The windows of one frame."""
        return WINDOW_SAMPLES + (self.stack - 1) * HOP_SAMPLES

    def build(self) -> APCEncoder:
        """The encoder."""
        return APCEncoder(self)


class APCEncoder(UtteranceEncoder):
    """Unidirectional GRUs; from the second on, a layer's input is added to its output.

    The states are taken before the codebook of VQ-APC, whose codes only feed `prediction`: as an
    architecture, VQ-APC gives the states of APC; training with the bottleneck makes them differ.
    """

    def __init__(self, config: APCConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            nn.GRU(config.dim if index else config.input_dim, config.dim, batch_first=True)
            for index in range(config.layers)
        )
        self.codes = CodeLayer(config.dim, 1, config.codes) if config.codes else None
        self.prediction = nn.Linear(config.dim, config.input_dim)

    def mel(self, waveform: Tensor) -> Tensor:
        """One utterance in frames of 10 ms, ``[sample]`` to ``[frame, 80]``."""
        return kaldi_mel(waveform).to(self.prediction.weight.dtype)

    def stacked(self, mel: Tensor) -> Tensor:
        """Mel frames as `states` reads them, ``[…, mel frame, 80]`` to ``[…, frame, stack · 80]``.

        Mel frames that are left over at the end fill no frame.
        """
        stack = self.config.stack
        frames = mel.shape[-2] // stack
        whole = mel[..., : frames * stack, :]
        return whole.reshape(*mel.shape[:-2], frames, self.config.input_dim)

    def states(self, x_btm: Tensor) -> Tensor:
        """``[utterance, frame, stack · 80]`` to ``[layer, utterance, frame, dim]``."""
        x_btd = x_btm
        outputs = []
        for index, layer in enumerate(self.layers):
            output, _ = layer(x_btd)
            x_btd = output + x_btd if index else output
            outputs.append(x_btd)
        return torch.stack(outputs)

    def contexts(self, x_btm: Tensor) -> Tensor:
        """The last state alone, ``[utterance, frame, stack · 80]`` to ``[…, frame, dim]``."""
        return self.states(x_btm)[-1]

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``."""
        return self.together([waveform])[0]

    def together(self, waveforms: list[Tensor]) -> list[Tensor]:
        """Several utterances in one pass of the GRUs, which hear the past alone."""
        fbanks = [kaldi_fbank(waveform) for waveform in waveforms]
        dtype = self.prediction.weight.dtype
        x_btm, lengths = batch.pad([self.stacked(normalised(mel).to(dtype)) for mel in fbanks])
        states = self.states(x_btm)
        found = [states[:, row, :length] for row, length in enumerate(lengths)]
        if not self.config.input_state:
            return found
        width = self.config.dim - self.config.input_dim
        inputs = [
            F.pad(self.stacked((mel - FBANK_MEAN) / FBANK_DEVIATION), (0, width)) for mel in fbanks
        ]
        return [
            torch.cat([heard.to(dtype)[None], states])
            for heard, states in zip(inputs, found, strict=True)
        ]

    def predict(self, state_btd: Tensor) -> Tensor:
        """Frames expected some frames ahead, ``[utterance, frame, dim]`` to ``[…, stack · 80]``."""
        coded = state_btd if self.codes is None else self.codes(state_btd)
        mel: Tensor = self.prediction(coded)
        return mel


# --------------------------------------------------------------------------------------------
# NPC (Liu, Chung and Glass 2020)
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NPCConfig:
    """NPC: convolution blocks, each looked at through a convolution with a hole in its middle.

    Attributes:
        dim: channels.
        blocks: convolution blocks of width 3.
        kernel: width of the masked convolutions, in frames, odd.
        mask: width of the hole in the *input*, in frames, odd: what a feature may not see.
        groups: groups of the codebook in front of the prediction.
        codes: entries of the codebook of each group.

    Raises:
        UpstreamError: a width is even, or the hole swallows the kernel.
    """

    dim: int
    blocks: int
    kernel: int
    mask: int
    groups: int
    codes: int

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0 or self.mask % 2 == 0 or self.hole(self.blocks - 1) >= self.kernel:
            raise UpstreamError(
                f"NPC: kernel and mask are odd, and kernel > mask + 2 × blocks; got kernel "
                f"{self.kernel}, mask {self.mask} and {self.blocks} blocks"
            )

    def hole(self, block: int) -> int:
        """Frames hidden from the masked convolution of a block: it has seen 2 more per block."""
        return self.mask + 2 * (block + 1)

    @property
    def states(self) -> int:
        """The output of every block, of every masked convolution, and their sum."""
        return 2 * self.blocks + 1

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return HOP_SAMPLES

    @property
    def min_samples(self) -> int:
        """One window."""
        return WINDOW_SAMPLES

    def build(self) -> NPCEncoder:
        """The encoder."""
        return NPCEncoder(self)


class ConvolutionBlock(nn.Module):
    """Convolve over 3 frames, mix channels, add the input (arXiv 2011.00406, figure 1b)."""

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.residual = input_dim == dim
        self.convolution = nn.Conv1d(input_dim, dim, 3, padding=1)
        self.convolution_norm = nn.BatchNorm1d(dim)
        self.mix = nn.Conv1d(dim, dim, 1)
        self.mix_norm = nn.BatchNorm1d(dim)

    def forward(self, x_bct: Tensor) -> Tensor:
        """``[utterance, input_dim, frame]`` to ``[utterance, dim, frame]``."""
        output = F.relu(self.convolution_norm(self.convolution(x_bct)))
        output = self.mix_norm(self.mix(output))
        return F.relu(output + x_bct if self.residual else output)


class MaskedConvolution(nn.Module):
    """A convolution whose middle weights are zero (arXiv 2011.00406, section 2.2)."""

    def __init__(self, dim: int, kernel: int, hole: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(dim, dim, kernel, padding=kernel // 2)
        self.first, self.last = (kernel - hole) // 2, (kernel + hole) // 2

    def forward(self, x_bct: Tensor) -> Tensor:
        """``[utterance, dim, frame]`` to the same shape."""
        weight = self.convolution.weight
        seen = torch.ones(weight.shape[2], dtype=weight.dtype, device=weight.device)
        seen[self.first : self.last] = 0
        output = F.conv1d(x_bct, weight * seen, self.convolution.bias, padding=weight.shape[2] // 2)
        return torch.tanh(output)


class NPCEncoder(UtteranceEncoder):
    """Blocks see more and more frames, masked convolutions see all but the middle ones.

    The deeper the block, the wider the hole: whatever the block, the mel frames within mask // 2
    of a frame stay hidden from its masked features and from their sum, which has to predict them.
    (The blocks' own outputs, which SUPERB also counts as states, do see them.)
    """

    def __init__(self, config: NPCConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            ConvolutionBlock(config.dim if index else MEL_BANDS, config.dim)
            for index in range(config.blocks)
        )
        self.masked = nn.ModuleList(
            MaskedConvolution(config.dim, config.kernel, config.hole(index))
            for index in range(config.blocks)
        )
        self.codes = CodeLayer(config.dim, config.groups, config.codes)
        self.prediction = nn.Linear(config.dim, MEL_BANDS)

    def mel(self, waveform: Tensor) -> Tensor:
        """One utterance as `states` reads it, ``[sample]`` to ``[frame, 80]``."""
        return kaldi_mel(waveform).to(self.prediction.weight.dtype)

    def states(self, mel_btm: Tensor) -> Tensor:
        """``[utterance, frame, 80]`` to ``[state, utterance, frame, dim]``: blocks, masked, sum."""
        x_bct = mel_btm.transpose(1, 2)
        blocks, masked = [], []
        for block, look in zip(self.blocks, self.masked, strict=True):
            x_bct = block(x_bct)
            blocks.append(x_bct)
            masked.append(look(x_bct))
        total = torch.stack(masked).sum(0)
        return torch.stack([*blocks, *masked, total]).transpose(2, 3)

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``."""
        return self.states(self.mel(waveform).unsqueeze(0))[:, 0]

    def predict(self, state_btd: Tensor) -> Tensor:
        """Mel frames in the hole, from the last state, ``[utterance, frame, dim]`` to mel_btm."""
        mel: Tensor = self.prediction(self.codes(state_btd))
        return mel


# --------------------------------------------------------------------------------------------
# Mockingjay (Liu et al. 2020) and TERA (Liu, Li and Lee 2021)
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MelTransformerConfig:
    """A BERT over mel frames.

    Attributes:
        layers: transformer layers.
        dim: width.
        heads: attention heads.
        feed_forward_dim: inner width of the feed-forward blocks.
        norm_eps: epsilon of the layer norms.

    Raises:
        UpstreamError: the width is odd, or no multiple of the heads.
    """

    layers: int
    dim: int = 768
    heads: int = 12
    feed_forward_dim: int = 3072
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.dim % 2 or self.dim % self.heads:
            raise UpstreamError(
                f"dim must be even and a multiple of heads, {self.heads}; got {self.dim}"
            )

    @property
    def states(self) -> int:
        """The input of the first layer and the output of every layer."""
        return self.layers + 1

    @property
    def hop_samples(self) -> int:
        """Samples between two frames."""
        return HOP_SAMPLES

    @property
    def min_samples(self) -> int:
        """Reflection at the ends needs one sample more than half a window."""
        return WINDOW_SAMPLES // 2 + 1

    def build(self) -> MelTransformer:
        """The encoder."""
        return MelTransformer(self)


class MelTransformer(UtteranceEncoder):
    """Mel frames plus sinusoidal positions, layer norm, post-norm transformer layers.

    The whole utterance is attended to at once. (s3prl cuts what is longer than its training
    sequences, 15 s for TERA, into pieces that do not see each other.)
    """

    def __init__(self, config: MelTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(MEL_BANDS, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.dim,
                config.heads,
                config.feed_forward_dim,
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=config.norm_eps,
                batch_first=True,
                norm_first=False,
            )
            for _ in range(config.layers)
        )

    def mel(self, waveform: Tensor) -> Tensor:
        """One utterance as `states` reads it, ``[sample]`` to ``[frame, 80]``."""
        return centred_mel(waveform).to(self.projection.weight.dtype)

    def states(self, mel_btm: Tensor) -> Tensor:
        """``[utterance, frame, 80]`` to ``[layer + 1, utterance, frame, dim]``."""
        positions_td = sinusoids(mel_btm.shape[1], self.config.dim).to(mel_btm)
        x_btd = self.norm(self.projection(mel_btm) + positions_td)
        outputs = [x_btd]
        for layer in self.layers:
            x_btd = layer(x_btd)
            outputs.append(x_btd)
        return torch.stack(outputs)

    def forward(self, waveform: Tensor) -> Tensor:
        """One utterance: ``[sample]`` to ``[state, frame, dim]``."""
        return self.states(self.mel(waveform).unsqueeze(0))[:, 0]


def sinusoids(frames: int, dim: int) -> Tensor:
    """Positions as sines (even features) and cosines (odd), arXiv 1706.03762, section 3.5.

    Returns:
        ``[frame, dim]``.
    """
    rates = torch.pow(10_000.0, -torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(frames, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


# --------------------------------------------------------------------------------------------
# The configurations of the papers
# --------------------------------------------------------------------------------------------

# arXiv 1904.03240, section 4: 3 layers × 512.
APC_3X512 = APCConfig(dim=512, layers=3)
# arXiv 2005.08392, section 3: the same with a codebook of 512 behind the last layer.
VQ_APC_3X512 = APCConfig(dim=512, layers=3, codes=512)
# arXiv 2011.00406, section 3.1: receptive field 23 frames, 5 of them masked.
NPC_4X512 = NPCConfig(dim=512, blocks=4, kernel=15, mask=5, groups=4, codes=64)
# arXiv 1910.12638, section 2.1 (LARGE, on linear targets), and arXiv 2007.06028, section 3 (base).
MOCKINGJAY_12X768 = MelTransformerConfig(layers=12)
TERA_3X768 = MelTransformerConfig(layers=3)
# Ours: the same in small, about 3 million weights each.
RECURRENT_MINI = APCConfig(dim=424, layers=3, stack=2, input_state=True)
MEL_TRANSFORMER_MINI = MelTransformerConfig(layers=5, dim=224, heads=4, feed_forward_dim=896)


# --------------------------------------------------------------------------------------------
# Names of published weights
# --------------------------------------------------------------------------------------------


def _parts(ours: str, theirs: str, parts: tuple[str, ...] = ("weight", "bias")) -> dict[str, str]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in parts}


def _code_names(groups: int) -> dict[str, str]:
    """Our names → theirs, for the code layer."""
    names: dict[str, str] = {}
    for group in range(groups):
        names |= _parts(f"codes.logits.{group}", f"vq_layers.{group}.vq_logits")
        names |= _parts(f"codes.codebooks.{group}", f"vq_layers.{group}.codebook_CxE", ("weight",))
    return names


def _apc_names(config: APCConfig) -> dict[str, str]:
    """Our names → those of VQ-APC's repository and s3prl."""
    names = _parts("prediction", "postnet")
    gru = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    for index in range(config.layers):
        names |= _parts(f"layers.{index}", f"rnn_layers.{index}", gru)
    return names | (_code_names(1) if config.codes else {})


def _npc_names(config: NPCConfig) -> dict[str, str]:
    """Our names → those of NPC's repository and s3prl."""
    names = _parts("prediction", "postnet") | _code_names(config.groups)
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for index in range(config.blocks):
        ours, theirs = f"blocks.{index}", f"blocks.{index}"
        names |= _parts(f"{ours}.convolution", f"{theirs}.conv")
        names |= _parts(f"{ours}.convolution_norm", f"{theirs}.bn1", batch_norm)
        names |= _parts(f"{ours}.mix", f"{theirs}.linear")
        names |= _parts(f"{ours}.mix_norm", f"{theirs}.bn2", batch_norm)
        names |= _parts(f"masked.{index}.convolution", f"masked_convs.{index}.conv")
    return names


def _npc_masks(config: NPCConfig) -> list[str]:
    """Ones and zeros that follow from the configuration."""
    return [f"masked_convs.{index}.conv_mask" for index in range(config.blocks)]


# ``{"model": …, "config": …}``, as s3prl and the NPC repository write it; taken from the projects'
# source code, no published file was at hand to try.
APC_LAYOUT = Layout("model", _apc_names)
NPC_LAYOUT = Layout("model", _npc_names, _npc_masks)
