"""Which arithmetic is faster on a device: measured, since processors differ by ten times in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Final

from benchmark.errors import unknown

AUTO: Final = "auto"
PRECISIONS: Final = ("float32", "bfloat16")
# bfloat16 rounds: it has to be faster by more than timings vary.
_WORTH: Final = 1.3
# Rows and columns of the matrices that are multiplied; about 10 ms in float32.
_SIZE: Final = {"cpu": 768}
_SIZE_ELSEWHERE: Final = 4096


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
    """Time of a product of matrices in float32 over that in bfloat16; the best of eight each.

    In float32 by torch or by oneDNN, whichever is faster, as our transformer does.
    """
    import torch  # listing commands is to stay instant

    place = torch.device(device)
    size = _SIZE.get(place.type, _SIZE_ELSEWHERE)
    taken = {}
    for kind in (torch.float32, torch.bfloat16):
        one = torch.ones(size, size, device=place, dtype=kind)
        ways: list[Callable[[], object]] = [partial(torch.mm, one, one)]
        if kind == torch.float32 and place.type == "cpu" and torch._C._has_mkldnn:
            linear = torch.ops.mkldnn._linear_pointwise
            ways.append(partial(linear, one, one, None, "none", [], ""))
        with torch.inference_mode():
            taken[kind] = min(seconds_of(way, device) for _ in range(8) for way in ways)
    return taken[torch.float32] / taken[torch.bfloat16]


def seconds_of(work: Callable[[], object], device: str) -> float:
    """How long something takes on a device, by the clock."""
    import torch

    kind = torch.device(device).type
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(kind, nullcontext)
    waits()
    started = time.perf_counter()
    work()
    waits()
    return time.perf_counter() - started
