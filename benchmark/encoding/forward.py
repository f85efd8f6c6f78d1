"""Utterances through the frozen encoder, and the forms in which its hidden states are kept.

On a processor each utterance passes the encoder alone: its features are then a function of it, bit
for bit, whatever else is in the corpus and wherever an earlier run was cut off. On other devices an
encoder whose card says that padding changes nothing gets several utterances of like length at once,
so much audio as keeps the device busy; features are then the same to rounding, some 1e-6 of their
size, which is looked at once for each extraction. All other encoders get one at a time.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.core import HiddenStates, Upstream, UpstreamCard
from benchmark.encoding.audio import Sound
from benchmark.encoding.packing import Floats
from benchmark.errors import SuperbError, UpstreamError

# Seconds of audio, padding included, that pass a device other than the processor at once.
_AT_ONCE_S: Final = 320.0
# Utterances that are encoded at a time on a processor, each in memory; and threads that decode for
# another device.
_SIDE_BY_SIDE: Final = 8
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


def frames_of(
    states: HiddenStates, layers: Sequence[int] | None, device: str | None = None
) -> list[Tensor]:
    """``[layer, frame, dim]`` of each utterance, without padding: views of all of them.

    Args:
        states: of the utterances.
        layers: those that are wanted; all if None.
        device: where to; where they are if None.
    """
    kept = states.values if layers is None else states.values[list(layers)]
    kept = kept.to(device or kept.device)
    return [kept[:, row, :length] for row, length in enumerate(states.lengths.tolist())]


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
            forms = frames_of(states, layers, "cpu")
        else:
            forms = list(torch.stack([_mean(frames, kind) for frames in each]).cpu())
        for own, form in zip(found, forms, strict=True):
            own[kind] = form.numpy()
    return [(own, norm.numpy()) for own, norm in zip(found, norms, strict=True)]


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


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder, where it computes and in which arithmetic.

    Attributes:
        upstream: on its device.
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``float32`` or ``bfloat16``.
    """

    upstream: Upstream
    device: str = "cpu"
    precision: str = "float32"

    @property
    def card(self) -> UpstreamCard:
        """Its card."""
        return self.upstream.card

    @property
    def on_processor(self) -> bool:
        """Whether it computes where audio is decoded and features are stored."""
        return torch.device(self.device).type == "cpu"

    @property
    def concurrent(self) -> bool:
        """Whether several threads may call it at once: it says so, and then never draws."""
        return getattr(self.upstream, "concurrent", False) is True

    @property
    def seconds_at_once(self) -> float:
        """Audio that may pass at once; 0 for one utterance at a time."""
        return 0.0 if self.on_processor or not self.card.pad_invariant else _AT_ONCE_S

    @property
    def samples_at_once(self) -> int:
        """The same in samples."""
        return int(self.seconds_at_once * self.card.sample_rate)

    @property
    def batching(self) -> str:
        """The name of the rule, for what features depend on."""
        return "packed" if self.seconds_at_once else "one"

    @property
    def side_by_side(self) -> int:
        """Utterances that pass at a time, each on a core of its own."""
        alone = not (self.on_processor and self.concurrent)
        return 1 if alone else min(torch.get_num_threads(), _SIDE_BY_SIDE)

    @property
    def decoders(self) -> int:
        """Threads that decode audio for it, and that round what it gives for the store.

        On a processor it needs the cores itself.
        """
        return 1 if self.on_processor else min(torch.get_num_threads(), _SIDE_BY_SIDE)

    def together(self, mean_s: float) -> int:
        """Utterances of such a mean length that pass at once; 0 for one at a time."""
        return math.ceil(self.seconds_at_once / max(mean_s, 1 / self.card.sample_rate))

    def ready(self, sound: Sound) -> Sound:
        """The same in pinned memory, which a card fetches from while the processor goes on."""
        if torch.device(self.device).type != "cuda":
            return sound
        return replace(sound, waveform=sound.waveform.pin_memory())

    def encode(
        self,
        waveforms: Sequence[Tensor],
        names: Sequence[str],
        apart: Callable[[UpstreamError], None] = lambda error: None,
    ) -> HiddenStates:
        """Utterances through the encoder at once; what it returns stays on its device, float32.

        Where several fail together they are encoded one at a time, so that the culprit is named, or
        so that all pass where there was no memory for them together; `apart` is then told why.

        Raises:
            UpstreamError: when the encoder raises, or what it returns does not fit its card.
        """
        try:
            return self._encode(waveforms, names)
        except UpstreamError as error:
            if len(waveforms) == 1:
                raise
            reason = error
        each = [
            self._encode([waveform], [name])
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
        self, states: HiddenStates, waveforms: Sequence[Tensor], names: Sequence[str]
    ) -> None:
        """Refuse a card that is wrong about padding: the shortest, alone and as it was.

        Raises:
            UpstreamError: they differ by more than rounding.
        """
        row = min(range(len(waveforms)), key=lambda place: waveforms[place].numel())
        alone = self.encode([waveforms[row]], [names[row]])
        length = int(states.lengths[row])
        beside, wanted = states.values[:, row, :length], alone.values[:, 0, : int(alone.lengths[0])]
        off = 1.0
        if beside.shape == wanted.shape:
            size = wanted.flatten(1).norm(dim=1).clamp(min=1e-30)
            off = float(((beside - wanted).flatten(1).norm(dim=1) / size).max())
        if off > _ROUNDING[self.precision]:
            raise UpstreamError(
                f"upstream {self.card.name} gives {names[row]} other features beside longer "
                f"utterances than alone ({100 * off:.1g} % off), but its card says "
                "pad_invariant=True. Say pad_invariant=False there (each is encoded alone then), "
                "or mend its masks; superb check on it tells more"
            )

    def _encode(self, waveforms: Sequence[Tensor], names: Sequence[str]) -> HiddenStates:
        card, place = self.card, torch.device(self.device)
        seconds = max(waveform.numel() for waveform in waveforms) / card.sample_rate
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        where = f"{names[0]}{more} ({seconds:.2f} s)"
        half = self.precision == "bfloat16"
        # should an encoder draw at random after all, it draws the same for every utterance
        draws = nullcontext() if self.concurrent else _seeded()
        try:
            with (
                torch.inference_mode(),
                torch.autocast(place.type, torch.bfloat16, enabled=half),
                draws,
            ):
                states = self.upstream(
                    [waveform.to(place, non_blocking=True) for waveform in waveforms]
                )
        except SuperbError as error:
            raise UpstreamError(f"upstream {card.name} on {where}: {error}") from error
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            raise UpstreamError(
                f"upstream {card.name} failed on {where}: "
                f"{type(error).__name__}: {error} ({line.filename}:{line.lineno}). "
                "superb check on it tells more"
            ) from error
        _require_contract(states, card, len(waveforms), where)
        return HiddenStates(states.values.detach().float(), states.lengths.cpu())


def _require_contract(states: HiddenStates, card: UpstreamCard, count: int, where: str) -> None:
    """Refuse what does not fit the card, or is not finite.

    Raises:
        UpstreamError: it is so; `where` says of what.
    """
    name = card.name
    if not isinstance(states, HiddenStates):
        raise UpstreamError(
            f"upstream {name} returned {type(states).__name__}; it must return HiddenStates "
            f"(values [layer, utterance, frame, dim], lengths). superb check on it tells more"
        )
    if not isinstance(states.values, Tensor) or not isinstance(states.lengths, Tensor):
        raise UpstreamError(
            f"upstream {name} returned hidden states of {type(states.values).__name__} and "
            f"lengths of {type(states.lengths).__name__}; both must be torch tensors. "
            "superb check on it tells more"
        )
    found = tuple(states.values.shape)
    lengths = states.lengths.tolist()
    if (found[0], found[1], found[3]) != (card.layers, count, card.dim) or not all(
        1 <= length <= found[2] for length in lengths
    ):
        shown = lengths[0] if len(lengths) == 1 else lengths
        raise UpstreamError(
            f"upstream {name} broke its contract on {where}: its card "
            f"says {card.layers} layers x {card.dim}, it returned [layer, utterance, frame, dim] = "
            f"{list(found)} with length {shown}. superb check on it tells more"
        )
    valid = torch.arange(found[2])[None] < torch.tensor(lengths)[:, None]
    finite = torch.isfinite(states.values).all(dim=3).all(dim=0)
    if not bool((finite | ~valid.to(finite.device)).all()):
        raise UpstreamError(f"upstream {name} returned NaN or infinity for {where}")
