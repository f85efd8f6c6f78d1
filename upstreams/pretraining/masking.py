"""Span masks: which frames a transformer must do without."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from benchmark.errors import SuperbError


def span_mask(
    utterances: int, frames: int, share: float, span: int, generator: Generator
) -> Tensor:
    """Mask spans of frames that start anywhere and may overlap (wav2vec 2.0, section 3.1).

    The same number of spans starts in every utterance, at distinct frames, so that a batch has no
    utterance without a mask; in the mean ``share · frames`` starts. At least one frame stays free.

    Args:
        utterances: number of rows.
        frames: number of columns.
        share: starts of spans over frames; 0.065 for wav2vec 2.0, 0.08 for HuBERT.
        span: frames masked from each start on.
        generator: of the starts.

    Returns:
        Boolean ``[utterance, frame]``, True where masked.

    Raises:
        SuperbError: the utterances are not longer than a span.
    """
    if frames <= span:
        raise SuperbError(
            f"utterances of {frames} frames are not longer than the {span} that one mask covers; "
            "use longer audio, or a shorter mask"
        )
    # Probabilistic rounding keeps the mean where it should be in short utterances too.
    chance = float(torch.rand((), generator=generator))
    starts = max(1, int(share * frames + chance))
    possible = frames - span + 1
    order = torch.rand(utterances, possible, generator=generator).argsort(dim=1)
    first_bs = order[:, : min(starts, possible)]
    mask_bt = torch.zeros(utterances, frames, dtype=torch.bool)
    index = (first_bs.unsqueeze(2) + torch.arange(span)).flatten(1)
    mask_bt.scatter_(1, index, True)
    # Where spans happen to cover everything, the last frame is given back.
    mask_bt[mask_bt.all(dim=1), -1] = False
    return mask_bt
