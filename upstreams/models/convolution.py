"""Strided convolutions over frames that stay rows, ``[utterance, frame, channel]``.

On a CPU these are faster than `torch.nn.Conv1d`, and a norm over the channels of a frame needs no
transposition.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def convolve_rows(x_btc: Tensor, convolution: nn.Module) -> Tensor:
    """What the module computes, ``[utterance, frame, channel]`` to the same.

    Args:
        x_btc: input; one channel is a waveform.
        convolution: an `nn.Conv1d`: weight, bias, stride and padding with zeros.
    """
    assert isinstance(convolution, nn.Conv1d)
    weight_cik, bias = convolution.weight, convolution.bias
    (kernel,), (stride,) = convolution.kernel_size, convolution.stride
    padding = int(convolution.padding[0])
    if x_btc.shape[2] == 1:
        padded_bt = F.pad(x_btc.squeeze(2), (padding, padding))
        return F.linear(padded_bt.unfold(1, kernel, stride), weight_cik[:, 0], bias)
    # As an image of one row: only for images does torch know convolutions over rows.
    image = x_btc.unsqueeze(1).permute(0, 3, 1, 2)
    image = F.conv2d(image, weight_cik.unsqueeze(2), bias, stride=(1, stride), padding=(0, padding))
    return image.permute(0, 2, 3, 1).squeeze(1)
