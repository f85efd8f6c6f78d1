"""How fast a device multiplies, and in which arithmetic: processors differ by ten times in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from benchmark.errors import unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

AUTO: Final = "auto"
PRECISIONS: Final = ("float32", "bfloat16")
# bfloat16 rounds: it has to be faster by more than timings vary.
_WORTH: Final = 1.3
# Rows and columns of the matrices that are multiplied; about 10 ms in float32.
_SIZE: Final = {"cpu": 768}
_SIZE_ELSEWHERE: Final = 4096
# Likewise for the fastest that there is, which small ones do not reach.
_PEAK_SIZE: Final = {"cpu": 2048}
_PEAK_SIZE_ELSEWHERE: Final = 8192


def require_precision(precision: str) -> None:
    """Refuse a name that is none.

    Raises:
        SuperbError: it is unknown.
    """
    if precision not in (AUTO, *PRECISIONS):
        raise unknown("value of --precision", precision, (AUTO, *PRECISIONS))


def faster_precision(device: str) -> tuple[str, str]:
    """The faster arithmetic of a device for products of matrices, and why, in one line.

    bfloat16 where it is at least 1.3 times as fast: without instructions of its own for it, a
    processor takes several times as long as in float32.
    """
    gain = bfloat16_gain(device)
    chosen = "bfloat16" if gain >= _WORTH else "float32"
    return chosen, f"bfloat16 multiplies matrices {gain:.1f} x as fast as float32 on this {device}"


def bfloat16_gain(device: str) -> float:
    """Time of a product of matrices in float32 over that in bfloat16; the best of eight each."""
    import torch  # listing commands is to stay instant

    size = _SIZE.get(torch.device(device).type, _SIZE_ELSEWHERE)
    return _product_s(size, "float32", device, 8) / _product_s(size, "bfloat16", device, 8)


def matmul_peak(precision: str, device: str, repeats: int = 5) -> float:
    """Operations per second of the fastest big product of matrices that a device was seen to do."""
    import torch

    size = _PEAK_SIZE.get(torch.device(device).type, _PEAK_SIZE_ELSEWHERE)
    return 2 * size**3 / _product_s(size, precision, device, repeats)


def _product_s(size: int, precision: str, device: str, repeats: int) -> float:
    """Seconds of a product of square matrices, the fastest of several.

    In float32 by torch or by oneDNN, whichever is faster, as our transformer does: on some
    processors torch multiplies single precision with a library that is slow there.
    """
    import torch

    kind = getattr(torch, precision)
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(size, size, generator=generator).to(device, kind)
    ways: list[Callable[[], object]] = [partial(torch.mm, one, one)]
    if kind == torch.float32 and one.device.type == "cpu" and torch._C._has_mkldnn:
        linear = torch.ops.mkldnn._linear_pointwise
        ways.append(partial(linear, one, one, None, "none", [], ""))
    with torch.inference_mode():
        for way in ways:
            way()
        return min(seconds_of(way, device) for _ in range(repeats) for way in ways)


def exact() -> AbstractContextManager[object]:
    """Float32 means float32 on a card too, and kernels that repeat themselves are preferred."""
    import torch

    flags: AbstractContextManager[object] = torch.backends.cudnn.flags(
        deterministic=True, allow_tf32=False
    )
    return flags


def recur(layer: nn.LSTM | nn.GRU, x_btd: Tensor) -> tuple[Tensor, Any]:
    """A recurrent layer; in float32 where a processor has none in bfloat16 (autocast).

    oneDNN raises there: it has such LSTM kernels only for processors with instructions for them.

    Args:
        layer: with ``batch_first``.
        x_btd: ``[utterance, frame, dim]``.
    """
    import torch

    halved = x_btd.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    found: tuple[Tensor, Any]
    if halved and not _has_bfloat16_recurrence():
        with torch.autocast("cpu", enabled=False):
            found = layer(x_btd.float())
    else:
        found = layer(x_btd)
    return found


@cache
def _has_bfloat16_recurrence() -> bool:
    """Whether this processor runs an LSTM in bfloat16; tried once, drawing no random number."""
    import torch
    from torch import nn

    with torch.device("meta"):
        layer = nn.LSTM(1, 1)
    layer.to_empty(device="cpu")
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            layer(torch.zeros(1, 1, 1))
    except RuntimeError:
        return False
    return True


def synchronise(device: str) -> None:
    """Wait until a device has done all that it was given; a processor has."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize()
    elif kind == "mps":
        torch.mps.synchronize()


def seconds_of(work: Callable[[], object], device: str) -> float:
    """How long something takes on a device, by the clock."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started
