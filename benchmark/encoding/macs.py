"""What an encoder's arithmetic costs: multiply-accumulate operations per second of audio.

Counted where torch hands an operation to its kernels, while one utterance of noise passes: matrix
products, convolutions, attention, recurrences and Fourier transforms, whatever library the encoder
is written with. Everything else (norms, activations, sums) is small beside them and left out, as
is usual; so are biases. What an encoder computes outside torch, in NumPy say, is not seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmark.core import Upstream

# Attention grows with the square of the length, so a figure belongs to a length.
SECONDS: Final = 10.0
# A kernel called like one of these without a formula below makes the sum worthless.
_HEAVY: Final = re.compile(
    r"mm(_|$)|matmul|mv$|dot$|conv|(^|_)linear(_|$)|trilinear(?!3d)|cdist|attention|transformer"
    r"|gru|lstm|rnn|fft|mm_activation"
)
_TORCHS: Final = ("aten", "prim", "prims")  # another library's operators do anything
_SEED: Final = 0


def macs_per_second(upstream: Upstream, device: str = "cpu") -> float | None:
    """Multiply-accumulate operations that a second of audio costs, in an utterance of 10 s.

    Returns:
        None where it cannot be told: all is computed outside torch, or with a kernel whose cost is
        not known here.
    """
    generator = torch.Generator().manual_seed(_SEED)
    samples = round(SECONDS * upstream.card.sample_rate)
    waveform = 0.1 * torch.randn(samples, generator=generator)
    counter = _Counter()
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]), counter:
            upstream([waveform.to(device)])
    except Exception:  # whatever a compiled model or a foreign tensor raises when it is watched
        return None
    return None if counter.unknown or not counter.macs else counter.macs / SECONDS


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums what passes by."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0.0
        self.unknown: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's operators are not typed
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:  # what is made of other operators is counted as those
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if formula is not None:
            macs = formula(out, args, kwargs)
        else:
            name = func._overloadpacket.__name__
            macs = None if func.namespace not in _TORCHS or _HEAVY.search(name) else 0.0
        if macs is None:
            self.unknown.add(func.name())
        else:
            self.macs += macs
        return out


Formula = Callable[[Any, Sequence[Any], Mapping[str, Any]], float | None]


def _torchs(count: Callable[..., int]) -> Formula:
    """A formula of torch's own, which counts a multiplication and an addition as two."""

    def macs(out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float | None:  # noqa: ANN401
        complex_valued = isinstance(out, Tensor) and out.is_complex()  # those take four
        return None if complex_valued else count(*args, **kwargs, out_val=out) / 2

    return macs


def _linear(out: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """A product with a weight ``[output, input]``."""
    return out.numel() * int(args[0].shape[-1])


def _attention(out: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """Both products of attention, over ``[..., frame, dim]``."""
    query, key, value = args[:3]
    pairs = out.numel() // value.shape[-1] * key.shape[-2]
    return float(pairs * (query.shape[-1] + value.shape[-1]))


def _product(out: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """A matrix or a vector times a vector."""
    return float(args[0].numel())


def _fused_attention(out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:  # noqa: ANN401
    """Self-attention with its projections, or a whole layer: weights once a frame, and products."""
    given = args[0]
    mask = given.shape[:2]
    weights = [
        value
        for value in args
        if isinstance(value, Tensor) and value.dim() == 2 and value.shape != mask
    ]
    frames = given.numel() / given.shape[-1]
    products = 2.0 * given.numel() * given.shape[-2]
    return float(frames * sum(weight.numel() for weight in weights) + products)


def _recurrence(out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:  # noqa: ANN401
    """GRU and LSTM: each weight matrix once a step; biases are vectors."""
    given = args[0]
    weights = args[3] if given.dim() == 2 else args[2]  # a packed sequence brings its batch sizes
    steps = given.numel() / given.shape[-1]
    return float(steps * sum(weight.numel() for weight in weights if weight.dim() == 2))


def _fourier(out: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """Cooley and Tukey (1965): 5 n log2 n operations, two to a MAC; half if one side is real."""
    sides = (args[0], out)
    size = max(math.prod(side.shape[axis] for axis in args[1]) for side in sides)
    values = max(side.numel() for side in sides)
    per_value = 2.5 if all(side.is_complex() for side in sides) else 1.25
    return float(per_value * values * math.log2(max(size, 1)))


def _nothing(out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:  # noqa: ANN401
    """What is left of a recurrence after its matrix products."""
    return 0.0


_ATEN: Final = torch.ops.aten
_FORMULAS: Final[dict[Any, Formula]] = {
    **{operator: _torchs(count) for operator, count in flop_registry.items()},
    torch.ops.mkldnn._linear_pointwise: _linear,
    _ATEN.linear: _linear,
    _ATEN.mv: _product,
    _ATEN.dot: _product,
    _ATEN.scaled_dot_product_attention: _attention,
    _ATEN._transformer_encoder_layer_fwd: _fused_attention,
    _ATEN._native_multi_head_attention: _fused_attention,
    _ATEN.gru: _recurrence,
    _ATEN.lstm: _recurrence,
    _ATEN._thnn_fused_gru_cell: _nothing,
    _ATEN._thnn_fused_lstm_cell: _nothing,
    _ATEN._fft_r2c: _fourier,
    _ATEN._fft_c2r: _fourier,
    _ATEN._fft_c2c: _fourier,
}
