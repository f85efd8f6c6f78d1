"""Span masks: which frames an encoder must do without, and what it gets instead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from benchmark.errors import SuperbError
from upstreams.pretraining.bodies import BodyEncoder, front


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


@dataclass(frozen=True)
class MaskedFrames:
    """A batch of latents, and what the context network gets to see of them.

    Attributes:
        z_btc: normalised output of the front end, nothing masked.
        frames_btd: the same projected, with the embedding of the mask in place of masked frames.
        index_n: the masked frames, as indices into all frames of the batch in a row.
        heard_m: the others, likewise.
        counts: masked frames of each utterance.
        penalty: mean square of the output of the convolutions before the norm, scalar.
    """

    z_btc: Tensor
    frames_btd: Tensor
    index_n: Tensor
    heard_m: Tensor
    counts: list[int]
    penalty: Tensor

    @property
    def lengths(self) -> list[int]:
        """Frames of each utterance: all of them."""
        return [self.z_btc.shape[1]] * self.z_btc.shape[0]

    def rows(self, x_btd: Tensor) -> Tensor:
        """The masked frames of a sequence, ``[utterance, frame, …]`` to ``[masked, …]``."""
        return x_btd.flatten(0, 1).index_select(0, self.index_n)

    def heard(self, x_btd: Tensor) -> Tensor:
        """The frames that are not masked, ``[utterance, frame, …]`` to ``[heard, …]``."""
        return x_btd.flatten(0, 1).index_select(0, self.heard_m)


def masked_front(
    encoder: BodyEncoder,
    mask_embedding_d: Tensor,
    waveforms: Tensor,
    mask_share: float,
    mask_span: int,
    feature_grad_mult: float,
    generator: Generator,
) -> MaskedFrames:
    """Waveforms to latents and to masked frames, the input of `bodies.contexts`.

    Args:
        encoder: whose front end is used.
        mask_embedding_d: what stands in place of a masked frame.
        waveforms: ``[utterance, sample]``, nothing padded.
        mask_share: starts of spans over frames.
        mask_span: frames masked from each start on.
        feature_grad_mult: factor on the gradient that reaches the convolutions.
        generator: of the mask.

    Raises:
        SuperbError: the utterances are not longer than a span.
    """
    z_btc, frames_btd, penalty = front(encoder, waveforms, feature_grad_mult)
    utterances, frames, _ = z_btc.shape
    mask_bt = span_mask(utterances, frames, mask_share, mask_span, generator)
    mask_bt1 = mask_bt.unsqueeze(2).to(z_btc.device)
    return MaskedFrames(
        z_btc=z_btc,
        frames_btd=torch.where(mask_bt1, mask_embedding_d.to(frames_btd.dtype), frames_btd),
        # Indices are found on the CPU, where the mask is: a GPU would have to be waited for.
        index_n=mask_bt.flatten().nonzero().squeeze(1).to(z_btc.device),
        heard_m=(~mask_bt).flatten().nonzero().squeeze(1).to(z_btc.device),
        counts=mask_bt.sum(1).tolist(),
        penalty=penalty,
    )
