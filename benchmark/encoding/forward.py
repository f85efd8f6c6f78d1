"""Utterances through the frozen encoder, and the forms in which its hidden states are kept.

On a processor each utterance passes the encoder alone: its features are then a function of it, bit
for bit, whatever else is in the corpus and wherever an earlier run was cut off. On other devices an
encoder whose card says that padding changes nothing gets several utterances of like length at once,
so much audio as keeps the device busy; features are then the same to rounding, some 1e-6 of their
size, which is looked at once for each extraction. All other encoders get one at a time.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates, Upstream
from benchmark.encoding.packing import Floats
from benchmark.errors import SuperbError, UpstreamError

# Seconds of audio, padding included, that pass a device other than the processor at once.
_AT_ONCE_S: Final = 320.0
# By how much company may change a layer, of its size, before it is no rounding any more.
_ROUNDING: Final = {"float32": 1e-3, "bfloat16": 5e-2}


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
    alone = torch.device(device).type == "cpu" or not upstream.card.pad_invariant
    return 0.0 if alone else _AT_ONCE_S


def batching(upstream: Upstream, device: str) -> str:
    """The name of the rule, for what features depend on."""
    return "packed" if seconds_at_once(upstream, device) else "one"


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
    apart: Callable[[UpstreamError], None] = lambda error: None,
) -> HiddenStates:
    """Utterances through the frozen encoder at once; what it returns stays on its device, float32.

    Where several fail together they are encoded one at a time, so that the culprit is named, or
    so that all pass where there was no memory for them together; `apart` is then told why.

    Raises:
        UpstreamError: when the encoder raises, or what it returns does not fit its card.
    """
    try:
        return _encode(upstream, waveforms, device, precision, names)
    except UpstreamError as error:
        if len(waveforms) == 1:
            raise
        reason = error
    each = [
        _encode(upstream, [waveform], device, precision, [name])
        for waveform, name in zip(waveforms, names, strict=True)
    ]
    apart(reason)
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
        size = wanted.flatten(1).norm(dim=1).clamp(min=1e-30)
        off = float(((beside - wanted).flatten(1).norm(dim=1) / size).max())
    if off > _ROUNDING[precision]:
        raise UpstreamError(
            f"upstream {upstream.card.name} gives {names[row]} other features beside longer "
            f"utterances than alone ({100 * off:.1g} % off), but its card says "
            "pad_invariant=True. Say pad_invariant=False there (each is encoded alone then), or "
            "mend its masks; superb check on it tells more"
        )


def is_concurrent(upstream: Upstream) -> bool:
    """Whether several threads may call an encoder at once: it says so, and then never draws."""
    return getattr(upstream, "concurrent", False) is True


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


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
    # should an encoder draw at random after all, it draws the same for every utterance
    draws = nullcontext() if is_concurrent(upstream) else _seeded()
    try:
        with (
            torch.inference_mode(),
            torch.autocast(place.type, torch.bfloat16, enabled=half),
            draws,
        ):
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
    valid = torch.arange(found[2])[None] < torch.tensor(lengths)[:, None]
    finite = torch.isfinite(states.values).all(dim=3).all(dim=0)
    if not bool((finite | ~valid.to(finite.device)).all()):
        raise UpstreamError(
            f"upstream {card.name} returned NaN or infinity for {name} ({seconds:.2f} s)"
        )
    return HiddenStates(states.values.detach().float(), states.lengths.cpu())
