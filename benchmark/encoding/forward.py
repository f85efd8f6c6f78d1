"""Utterances through the frozen encoder, and the forms in which its hidden states are kept.

The batching rule is ``packed``: where its card says that padding changes nothing, an encoder gets
several short utterances of like length at once, so much audio as keeps the device busy; any other
encoder gets one. Features are a function of the utterance either way: to the last bit alone, and
to rounding (some 1e-6 of their size) in company, which is looked at once for each extraction.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates, Upstream
from benchmark.encoding.packing import Floats
from benchmark.errors import SuperbError, UpstreamError

BATCHING: Final = "packed"
# Seconds of audio, padding included, that pass at once. On a processor more of it is no faster.
_AT_ONCE_S: Final = {"cpu": 20.0}
_AT_ONCE_ELSEWHERE_S: Final = 320.0
# By how much company may change features, of their size, before it is no rounding any more.
_ROUNDING: Final = {"float32": 1e-3, "bfloat16": 0.1}


def normalise(values: Tensor) -> Tensor:
    """Layer-normalise each layer per frame, without learned scale or shift: [..., dim]."""
    return nn.functional.layer_norm(values, values.shape[-1:])


def _mean(frames: Tensor, kind: str) -> Tensor:
    if kind == "mean":
        return frames.mean(dim=1)
    if kind == "mean-normalised":
        return normalise(frames).mean(dim=1)
    raise ValueError(f"no such kind of feature: {kind}")


def forms_of(
    states: HiddenStates, kinds: Iterable[str], layers: Sequence[int] | None
) -> list[tuple[dict[str, Floats], Floats]]:
    """Of each utterance: its features by kind, and the mean norm of a frame in each layer.

    Means and norms are taken on the device; whatever goes to the processor goes there in one copy.

    Args:
        states: of the utterances.
        kinds: ``frames``, ``[layer, frame, dim]``; ``mean``, time means ``[layer, dim]``;
            ``mean-normalised``, time means of the layer-normalised frames.
        layers: those that frames are kept of; all if None, and always of means.
    """
    lengths = states.lengths.tolist()
    each = [states.values[:, row, :length] for row, length in enumerate(lengths)]
    norms = torch.stack([frames.norm(dim=-1).mean(dim=1) for frames in each]).cpu()
    found: list[dict[str, Floats]] = [{} for _ in each]
    for kind in kinds:
        if kind == "frames":
            kept = states.values if layers is None else states.values[list(layers)]
            forms = [
                own[:, :length] for own, length in zip(kept.cpu().unbind(1), lengths, strict=True)
            ]
        else:
            forms = list(torch.stack([_mean(frames, kind) for frames in each]).cpu())
        for own, form in zip(found, forms, strict=True):
            own[kind] = form.numpy()
    return [(own, norm.numpy()) for own, norm in zip(found, norms, strict=True)]


def seconds_at_once(upstream: Upstream, device: str) -> float:
    """Audio that may pass an encoder at once; 0 for one utterance at a time."""
    if not upstream.card.pad_invariant:
        return 0.0
    return _AT_ONCE_S.get(torch.device(device).type, _AT_ONCE_ELSEWHERE_S)


def packs(lengths: Sequence[int], most: float) -> list[list[int]]:
    """Indices of what goes together: of like length, `most` in all with padding, at least one.

    >>> packs([5, 1, 2, 9], most=6)
    [[1, 2], [0], [3]]
    """
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        # the longest so far comes last, and all others are padded to it
        if found and (len(found[-1]) + 1) * lengths[index] <= most:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def encode(
    upstream: Upstream,
    waveforms: Sequence[Tensor],
    device: str,
    precision: str,
    names: Sequence[str],
) -> HiddenStates:
    """Utterances through the frozen encoder at once; what it returns stays on its device, float32.

    Where several fail together they are encoded one at a time, so that the culprit is named, or
    so that all pass where there was no memory for them together.

    Raises:
        UpstreamError: when the encoder raises, or what it returns does not fit its card.
    """
    try:
        return _encode(upstream, waveforms, device, precision, names)
    except UpstreamError:
        if len(waveforms) == 1:
            raise
    each = [
        _encode(upstream, [waveform], device, precision, [name])
        for waveform, name in zip(waveforms, names, strict=True)
    ]
    lengths = torch.cat([states.lengths for states in each])
    longest, first = int(lengths.max()), each[0].values
    values = first.new_zeros(first.shape[0], len(each), longest, first.shape[3])
    for row, (states, length) in enumerate(zip(each, lengths.tolist(), strict=True)):
        values[:, row, :length] = states.values[:, 0, :length]
    return HiddenStates(values, lengths)


def require_invariance(
    upstream: Upstream,
    states: HiddenStates,
    waveforms: Sequence[Tensor],
    device: str,
    precision: str,
    names: Sequence[str],
) -> None:
    """Refuse an encoder whose card is wrong about padding: its shortest, alone and as it was.

    Raises:
        UpstreamError: they differ by more than rounding.
    """
    row = min(range(len(waveforms)), key=lambda place: waveforms[place].numel())
    alone = encode(upstream, [waveforms[row]], device, precision, [names[row]])
    length = int(states.lengths[row])
    beside, wanted = states.values[:, row, :length], alone.values[:, 0, : int(alone.lengths[0])]
    off = 1.0
    if beside.shape == wanted.shape:
        off = float((beside - wanted).norm() / wanted.norm().clamp(min=1e-30))
    if off > _ROUNDING[precision]:
        raise UpstreamError(
            f"upstream {upstream.card.name} gives {names[row]} other features beside longer "
            f"utterances than alone ({100 * off:.1g} % off), but its card says "
            "pad_invariant=True. Say pad_invariant=False there (each is encoded alone then), or "
            "mend its masks; superb check on it tells more"
        )


def _encode(
    upstream: Upstream,
    waveforms: Sequence[Tensor],
    device: str,
    precision: str,
    names: Sequence[str],
) -> HiddenStates:
    card = upstream.card
    place = torch.device(device)
    seconds = max(waveform.numel() for waveform in waveforms) / card.sample_rate
    name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    half = precision == "bfloat16"
    try:
        with (
            torch.inference_mode(),
            torch.autocast(place.type, torch.bfloat16, enabled=half),
            torch.random.fork_rng(devices=[]),
        ):
            # should an encoder draw at random after all, it draws the same for every utterance
            torch.manual_seed(0)
            states = upstream([waveform.to(place, non_blocking=True) for waveform in waveforms])
    except SuperbError as error:
        raise UpstreamError(f"upstream {card.name} on {name} ({seconds:.2f} s): {error}") from error
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise UpstreamError(
            f"upstream {card.name} failed on {name} ({seconds:.2f} s): "
            f"{type(error).__name__}: {error} ({line.filename}:{line.lineno}). "
            "superb check on it tells more"
        ) from error
    if not isinstance(states, HiddenStates):
        raise UpstreamError(
            f"upstream {card.name} returned {type(states).__name__}; it must return HiddenStates "
            f"(values [layer, utterance, frame, dim], lengths). superb check on it tells more"
        )
    if not isinstance(states.values, Tensor) or not isinstance(states.lengths, Tensor):
        raise UpstreamError(
            f"upstream {card.name} returned hidden states of {type(states.values).__name__} and "
            f"lengths of {type(states.lengths).__name__}; both must be torch tensors. "
            "superb check on it tells more"
        )
    found = tuple(states.values.shape)
    lengths = states.lengths.tolist()
    if (found[0], found[1], found[3]) != (card.layers, len(waveforms), card.dim) or not all(
        1 <= length <= found[2] for length in lengths
    ):
        shown = lengths[0] if len(lengths) == 1 else lengths
        raise UpstreamError(
            f"upstream {card.name} broke its contract on {name} ({seconds:.2f} s): its card says "
            f"{card.layers} layers x {card.dim}, it returned [layer, utterance, frame, dim] = "
            f"{list(found)} with length {shown}. superb check on it tells more"
        )
    if not bool(torch.isfinite(states.values).all()):
        raise UpstreamError(
            f"upstream {card.name} returned NaN or infinity for {name} ({seconds:.2f} s)"
        )
    return HiddenStates(states.values.detach().float(), states.lengths.cpu())
