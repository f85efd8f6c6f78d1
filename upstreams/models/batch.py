"""What every encoder here does with a list of waveforms, before and after encoding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmark.core import HiddenStates, UpstreamCard
from benchmark.errors import AudioError

# Hz, of every waveform that an encoder here takes.
SAMPLE_RATE = 16_000


def check_waveforms(waveforms: Sequence[Tensor], card: UpstreamCard) -> None:
    """Refuse what the encoder of this card cannot take.

    Args:
        waveforms: one 1-D float tensor ``[sample]`` per utterance.
        card: the encoder's card; its `min_samples` is the shortest waveform accepted.

    Raises:
        AudioError: no waveform, not 1-D, not floating point, or too short.
    """
    if not waveforms:
        raise AudioError(f"upstream {card.name!r} was given no waveform; pass at least one")
    for index, waveform in enumerate(waveforms):
        if waveform.dim() != 1 or not waveform.is_floating_point():
            raise AudioError(
                f"upstream {card.name!r} takes 1-D float waveforms in [-1, 1]; number {index} has "
                f"shape {tuple(waveform.shape)} and type {waveform.dtype}; mix it down to mono"
            )
        if waveform.numel() < card.min_samples:
            raise AudioError(
                f"upstream {card.name!r} needs at least {card.min_samples} samples "
                f"({1000 * card.min_samples / card.sample_rate:g} ms); number {index} has "
                f"{waveform.numel()}; leave it out or pad it"
            )


def pad(sequences: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """Stack waveforms ``[sample]`` or frames ``[frame, dim]``, zeros after the shorter ones.

    Returns:
        ``[utterance, sample]`` or ``[utterance, frame, dim]``, and the length of each.
    """
    lengths = [len(sequence) for sequence in sequences]
    if len(sequences) == 1:
        return sequences[0].unsqueeze(0), lengths
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths


def stack(states: Sequence[Tensor]) -> HiddenStates:
    """Stack utterances that were encoded one at a time, zeros after the shorter ones.

    Args:
        states: ``[layer, frame, dim]`` per utterance.
    """
    lengths = torch.tensor([state.shape[1] for state in states], device=states[0].device)
    if len(states) == 1:
        return HiddenStates(values=states[0].unsqueeze(1), lengths=lengths)
    layers, _, dim = states[0].shape
    values = states[0].new_zeros(layers, len(states), int(lengths.max()), dim)
    for index, state in enumerate(states):
        values[:, index, : state.shape[1]] = state
    return HiddenStates(values=values, lengths=lengths)
