"""Span masks: which frames a transformer must do without, and what it gets instead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from benchmark.errors import SuperbError
from upstreams.models.transformer import TransformerEncoder


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
    """A batch of latents, and what the transformer gets to see of them.

    Attributes:
        z_btc: normalised output of the convolutions, nothing masked.
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
    encoder: TransformerEncoder,
    mask_embedding_d: Tensor,
    waveforms: Tensor,
    mask_share: float,
    mask_span: int,
    feature_grad_mult: float,
    generator: Generator,
) -> MaskedFrames:
    """Waveforms to latents and to masked frames, the input of ``encoder.states``.

    Args:
        encoder: whose convolutions and projection are used.
        mask_embedding_d: what stands in place of a masked frame.
        waveforms: ``[utterance, sample]``, nothing padded.
        mask_share: starts of spans over frames.
        mask_span: frames masked from each start on.
        feature_grad_mult: factor on the gradient that reaches the convolutions.
        generator: of the mask.

    Raises:
        SuperbError: the utterances are not longer than a span.
    """
    penalties: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: object, output_btc: Tensor) -> Tensor:
        if feature_grad_mult != 1:
            # The bracket is exactly zero: only the gradient is scaled.
            output_btc = output_btc.detach() + feature_grad_mult * (
                output_btc - output_btc.detach()
            )
        penalties.append(output_btc.float().square().mean())
        return output_btc

    # `latents` returns what comes after the norm; the penalty is on what goes into it.
    handle = encoder.convolutions[-1].register_forward_hook(watch)
    try:
        z_btc, lengths = encoder.latents(waveforms, [waveforms.shape[1]] * waveforms.shape[0])
    finally:
        handle.remove()
    mask_bt = span_mask(len(lengths), lengths[0], mask_share, mask_span, generator)
    frames_btd = encoder.projection(z_btc)
    mask_bt1 = mask_bt.unsqueeze(2).to(z_btc.device)
    return MaskedFrames(
        z_btc=z_btc,
        frames_btd=torch.where(mask_bt1, mask_embedding_d.to(frames_btd.dtype), frames_btd),
        # Indices are found on the CPU, where the mask is: a GPU would have to be waited for.
        index_n=mask_bt.flatten().nonzero().squeeze(1).to(z_btc.device),
        heard_m=(~mask_bt).flatten().nonzero().squeeze(1).to(z_btc.device),
        counts=mask_bt.sum(1).tolist(),
        penalty=penalties[0],
    )
