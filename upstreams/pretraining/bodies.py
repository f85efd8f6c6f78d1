"""Bodies: what an objective trains. Two of them, over mel energies, serve all three schools.

A score tells schools apart only where they trained one body on the same seconds of audio: a random
body of one kind may be ahead of a trained one of another. So predictive, contrastive and generative
objectives all take ``--size mini-transformer`` (it hears both sides) or ``--size mini-recurrent``
(GRUs, which hear the past), with a frame each 20 ms::

    school        transformer             recurrent
    predictive    hubert                  hubert
    contrastive   wav2vec2                wav2vec2, cpc
    generative    masked-reconstruction   masked-reconstruction, apc
"""

from __future__ import annotations

from typing import Final, TypeAlias

import torch
from torch import Tensor, nn

from benchmark.errors import SuperbError
from upstreams.models.architecture import Architecture, Encoder
from upstreams.models.generative import (
    RECURRENT_MINI,
    APCConfig,
    APCEncoder,
    MelTransformer,
)
from upstreams.models.transformer import (
    HUBERT_BASE,
    MINI,
    EncoderConfig,
    TransformerEncoder,
)

Body: TypeAlias = EncoderConfig | APCConfig
BodyEncoder: TypeAlias = TransformerEncoder | APCEncoder

SHARED: Final[dict[str, Body]] = {
    "mini-transformer": MINI,
    "mini-recurrent": RECURRENT_MINI,
}
# Of objectives that mask frames, and of those that look into a transformer.
SIZES: Final[dict[str, Body]] = {"mini": MINI, **SHARED, "base": HUBERT_BASE}
TRANSFORMERS: Final = {
    "mini": MINI,
    "mini-transformer": MINI,
    "base": HUBERT_BASE,
}


def build(body: Architecture) -> Encoder:
    """The encoder of a body, or of any other architecture."""
    encoder = body.build()
    if isinstance(encoder, APCEncoder):
        # Mel frames are written by what an objective puts on top.
        encoder.prediction.requires_grad_(False)
    return encoder


def latent_dim(body: Body) -> int:
    """Width of the frames that the context network reads, before they are projected."""
    return body.input_dim if isinstance(body, APCConfig) else body.conv_dims[-1]


def frame_dim(body: Body) -> int:
    """Width of what stands in place of a masked frame."""
    return body.input_dim if isinstance(body, APCConfig) else body.dim


@torch.no_grad()
def mel_frames(encoder: BodyEncoder | MelTransformer, waveforms_bs: Tensor) -> Tensor:
    """The mel frames that an encoder reads of crops, each normalised by itself where it does so.

    In float32 also under autocast: the logarithm makes much of what bfloat16 rounds off.

    Args:
        encoder: whose front end is computed.
        waveforms_bs: ``[utterance, sample]``.

    Returns:
        ``[utterance, frame, 80]``, a frame each 10 ms.

    Raises:
        SuperbError: it reads none.
    """
    with torch.autocast(waveforms_bs.device.type, enabled=False):
        if not isinstance(encoder, TransformerEncoder):
            return torch.stack([encoder.mel(waveform) for waveform in waveforms_bs])
        if not encoder.config.log_mel:
            raise SuperbError(
                "this size reads waveforms, not mel frames; choose --size mini-transformer"
            )
        mel_btm: Tensor = encoder.convolutions[0](waveforms_bs.unsqueeze(2), [])
        return mel_btm


def read(encoder: BodyEncoder | MelTransformer, mel_btm: Tensor) -> Tensor:
    """The last state of `mel_frames`, perhaps altered: ``[utterance, frame, dim]``."""
    if isinstance(encoder, TransformerEncoder):
        x_btc = mel_btm
        for convolution in encoder.convolutions[1:]:
            x_btc = convolution(x_btc, [])
        if encoder.projection_norm is not None:
            x_btc = encoder.projection_norm(x_btc)
        return contexts(encoder, encoder.projection(x_btc))
    if isinstance(encoder, APCEncoder):
        mel_btm = encoder.stacked(mel_btm)
    return encoder.states(mel_btm)[-1]


def front(
    encoder: BodyEncoder, waveforms_bs: Tensor, grad_mult: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Waveforms of one length to latents.

    Args:
        encoder: the body.
        waveforms_bs: ``[utterance, sample]``.
        grad_mult: factor on the gradient that reaches learned convolutions.

    Returns:
        Latents ``[utterance, frame, latent_dim]``; the same projected, ``frame_dim`` wide; and the
        mean square of the convolutions' output before its norm, which is 0 where none is learned.
    """
    if isinstance(encoder, APCEncoder):
        x_btm = encoder.stacked(mel_frames(encoder, waveforms_bs))
        return x_btm, x_btm, x_btm.new_zeros(())
    penalties: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: object, output_btc: Tensor) -> Tensor:
        if grad_mult != 1:
            # The bracket is exactly zero: only the gradient is scaled.
            output_btc = output_btc.detach() + grad_mult * (output_btc - output_btc.detach())
        penalties.append(output_btc.float().square().mean())
        return output_btc

    # `latents` returns what comes after the norm; the penalty is on what goes into it.
    handle = encoder.convolutions[-1].register_forward_hook(watch)
    try:
        z_btc, _ = encoder.latents(waveforms_bs, [waveforms_bs.shape[1]] * len(waveforms_bs))
    finally:
        handle.remove()
    return z_btc, encoder.projection(z_btc), penalties[0]


def outputs(encoder: BodyEncoder, frames_btd: Tensor) -> list[Tensor]:
    """What each layer makes of projected frames, nothing padded: ``[utterance, frame, dim]``."""
    if isinstance(encoder, APCEncoder):
        return list(encoder.states(frames_btd))
    _, *layers = encoder.states(frames_btd, [frames_btd.shape[1]] * len(frames_btd))
    return layers


def contexts(encoder: BodyEncoder, frames_btd: Tensor) -> Tensor:
    """The output of the last layer."""
    return outputs(encoder, frames_btd)[-1]
