"""What of a training utterance is heard: all of it, or crops of a fixed length.

Crops stand at places that follow from the utterance's id alone. Features of a crop are then as much
a function of the utterance as those of the whole, and can be stored; crops drawn anew in every
epoch, as published runs have them, could not.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from benchmark.core import Utterance

_GRID_S = 0.001  # crops start on whole milliseconds, and end at least one before the utterance


def takes(
    utterance: Utterance, duration_s: float, crop_s: float, crops: int
) -> tuple[Utterance, ...]:
    """The crops of an utterance, or the utterance itself when it is no longer than one.

    Args:
        utterance: a recording, or a span of one.
        duration_s: its seconds.
        crop_s: seconds of a crop; 0 for none.
        crops: how many.

    Returns:
        Utterances whose `span` is the crop and whose id names it, so that they stand beside the
        whole utterance; all else is as it was.
    """
    if not crop_s or duration_s <= crop_s:
        return (utterance,)
    start = utterance.span[0] if utterance.span is not None else 0.0
    room = max(int((duration_s - crop_s) / _GRID_S) - 1, 0)
    cropped = []
    for index in range(crops):
        first = round(start + _share(utterance.id, index) * room * _GRID_S, 3)
        name = f"{utterance.id}@{first:.3f}+{crop_s:g}"
        cropped.append(replace(utterance, id=name, span=(first, crop_s)))
    return tuple({crop.id: crop for crop in cropped}.values())


def _share(name: str, index: int) -> float:
    """A number in [0, 1) that follows from a name and an index."""
    digest = hashlib.sha256(f"{name} {index}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
