"""The cost of an encoder: closed forms, an independent count, and what cannot be told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from benchmark.core import HiddenStates, UpstreamCard
from benchmark.encoding.macs import SECONDS, macs_per_second
from upstreams.loading.load import load_upstream

RATE, HOP, DIM = 16000, 160, 8
FRAMES = round(SECONDS * RATE / HOP)


class Encoder:
    """Cuts audio into frames and applies a module to them."""

    def __init__(self, module):
        self.module = module
        self.card = UpstreamCard(
            name="mine", family="predictive", layers=1, dim=DIM, hop_samples=HOP,
            sample_rate=RATE, min_samples=HOP,
        )  # fmt: skip

    def __call__(self, waveforms):
        frames = waveforms[0].unfold(0, HOP, HOP)[None]
        out = self.module(frames)
        values = (out[0] if isinstance(out, tuple) else out)[None]
        return HiddenStates(values, torch.tensor([values.shape[2]]))


class Attention(nn.Module):
    """Two heads over the frames themselves."""

    def forward(self, frames):
        heads = frames.unflatten(-1, (2, -1)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads)
        return mixed.transpose(1, 2).flatten(2)


class Layer(nn.Module):
    """A Transformer layer that torch computes in one kernel."""

    def __init__(self, masked=False):
        super().__init__()
        self.masked = masked
        self.layer = nn.TransformerEncoderLayer(HOP, 2, DIM, batch_first=True).eval()

    def forward(self, frames):
        mask = torch.zeros(frames.shape[:2], dtype=torch.bool) if self.masked else None
        return self.layer(frames, src_key_padding_mask=mask)


class Packed(nn.Module):
    """A recurrence over a packed sequence."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(HOP, DIM, batch_first=True)

    def forward(self, frames):
        lengths = torch.tensor([frames.shape[1]])
        packed = nn.utils.rnn.pack_padded_sequence(frames, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]


class Fourier(nn.Module):
    """A real transform of each frame."""

    def forward(self, frames):
        return torch.fft.rfft(frames).abs()


class Outside(nn.Module):
    """Computes in NumPy, where nobody can watch."""

    def forward(self, frames):
        return torch.from_numpy(frames.numpy() @ torch.ones(HOP, DIM).numpy())


class Unknown(nn.Module):
    """Ends in a kernel whose cost no formula tells."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def forward(self, frames):
        return self.kernel(frames[..., :DIM])


class Function(nn.Module):
    """Any function of frames."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, frames):
        return self.function(frames)


def one_query_for_four_heads(frames):
    """Attention whose queries are the same in all heads."""
    heads = frames[:, None].expand(-1, 4, -1, -1)
    return nn.functional.scaled_dot_product_attention(frames[:, None], heads, heads).sum(1)


class Cell(nn.Module):
    """A recurrence written out step by step."""

    def __init__(self, kind):
        super().__init__()
        self.cell = kind(HOP, DIM)

    def forward(self, frames):
        state, out = None, []
        for frame in frames[0]:
            state = self.cell(frame[None], state)
            out.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(out, dim=1)


class Broken(nn.Module):
    """Raises, as a compiled model may when it is watched."""

    def forward(self, frames):
        raise RuntimeError("no")


class Convolution(nn.Module):
    """Grouped, over time."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(HOP, DIM, 4, stride=2, groups=2)

    def forward(self, frames):
        return self.convolution(frames.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize(
    ("module", "per_utterance"),
    [
        (nn.Linear(HOP, DIM), FRAMES * HOP * DIM),
        (Convolution(), (FRAMES - 4) // 2 * 4 * (HOP // 2) * DIM + 4 * (HOP // 2) * DIM),
        (Attention(), 2 * FRAMES**2 * HOP),
        (Layer(), FRAMES * (4 * HOP * HOP + 2 * HOP * DIM) + 2 * FRAMES**2 * HOP),
        (Layer(True), FRAMES * (4 * HOP * HOP + 2 * HOP * DIM) + 2 * FRAMES**2 * HOP),
        (Function(lambda frames: (frames @ torch.ones(HOP))[..., None]), FRAMES * HOP),
        (Function(one_query_for_four_heads), 4 * 2 * FRAMES**2 * HOP),
        (Cell(nn.GRUCell), FRAMES * 3 * DIM * (HOP + DIM)),
        (Cell(nn.LSTMCell), FRAMES * 4 * DIM * (HOP + DIM)),
        (nn.GRU(HOP, DIM, 2, batch_first=True), FRAMES * 3 * DIM * (HOP + 3 * DIM)),
        (nn.LSTM(HOP, DIM, batch_first=True), FRAMES * 4 * DIM * (HOP + DIM)),
        (Packed(), FRAMES * 3 * DIM * (HOP + DIM)),
        (Fourier(), 1.25 * FRAMES * HOP * math.log2(HOP)),
    ],
    ids=[
        "linear",
        "convolution",
        "attention",
        "layer",
        "masked layer",
        "vector",
        "broadcast",
        "GRU cell",
        "LSTM cell",
        "GRU",
        "LSTM",
        "packed GRU",
        "Fourier",
    ],
)
def test_closed_forms(module, per_utterance):
    assert macs_per_second(Encoder(module)) == pytest.approx(per_utterance / SECONDS, rel=1e-12)


@pytest.mark.parametrize(
    "module",
    [
        Outside(),
        Broken(),
        nn.Identity(),
        Unknown(lambda frames: torch.cdist(frames, frames)),
        Unknown(lambda frames: nn.functional.bilinear(frames, frames, torch.ones(DIM, DIM, DIM))),
        Unknown(lambda frames: (frames[0].cfloat() @ torch.ones(DIM, DIM).cfloat())[None].real),
    ],
)
def test_what_cannot_be_told_is_not_given(module):
    assert macs_per_second(Encoder(module)) is None


@pytest.mark.parametrize("name", ["untrained:hubert-base", "untrained:wav2vec2-base"])
def test_our_transformer_costs_what_that_of_transformers_does(name):
    """Counted by torch's own counter in another implementation of the model, never run."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import HubertConfig, HubertModel

    with torch.device("meta"):
        model = HubertModel(HubertConfig()).eval()
        waveform = torch.zeros(1, round(SECONDS * RATE))
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as count:
        model(waveform)
    expected = count.get_total_flops() / 2 / SECONDS
    assert macs_per_second(load_upstream(name)) == pytest.approx(expected, rel=2e-3)


def test_counting_draws_nothing_from_the_global_generator():
    encoder = Encoder(nn.Dropout().train())
    before = torch.get_rng_state()
    macs_per_second(encoder)
    assert torch.equal(torch.get_rng_state(), before)
