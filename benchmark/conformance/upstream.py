"""The contract of an upstream as a list of checks."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmark.conformance.report import (
    BrokenError,
    Check,
    NotApplicableError,
    disturb_random_state,
    hold,
    random_state_restored,
    run_checks,
    state_kept,
)
from benchmark.core import HiddenStates, UpstreamCard

# Largest allowed change of an utterance's features by its company in a batch, relative to their
# norm: float32 rounding is near 1e-6, a leak of padding between 1e-2 and 1.
TOLERANCE: Final = 1e-4
# The same for encoders that compute in half precision.
TOLERANCE_HALF: Final = 2e-2
# Hops over which the frame rate is measured: a card that is off by one percent is noticed.
DRIFT_HOPS: Final = 100
# Most lengths the hop check tries, for encoders with very long hops.
MOST_LENGTHS: Final = 2048
# Clips per call of the hop check.
HOP_BATCH: Final = 32

# Name -> what the contract asks for, in the order of the report.
EXPECTED: Final = {
    "card": "an attribute `card` that is an UpstreamCard",
    "hidden-states": "calling it with a list of 1-D waveforms returns HiddenStates: values float "
    "[layer, utterance, frame, dim], lengths integer [utterance]",
    "layers": "as many layers as the card says",
    "dim": "as many features per frame as the card says",
    "lengths": "0 < length <= frames, the longest fills the batch, and the same length alone and "
    "in a batch",
    "padding": "zeros past an utterance's length",
    "hop": "frames never fall as clips get longer, and grow by one per card.hop_samples",
    "finite": "finite features for noise",
    "silence": "finite features for digital silence",
    "loud": "finite features for a full-scale square wave",
    "shortest-input": "at least one finite frame for card.min_samples samples",
    "determinism": "the same call gives the same features, also after other calls",
    "batch-invariance": "the same features alone and beside other clips of the same length",
    "batch-order": "the same features wherever a clip stands in the batch",
    "pad-invariance": "the same features alone and beside longer clips, if card.pad_invariant",
    "gradients": "values that need no gradient, and no gradients left in parameters",
    "random-state": "the global generators of torch, numpy and random are left alone",
    "inputs": "the waveforms passed in are not modified",
    "construction": "made again, it gives the same features",
}


def check_upstream(
    upstream: object,
    *,
    again: Callable[[], object] | None = None,
    hop_budget_s: float = 30.0,
) -> list[Check]:
    """Check one encoder against the whole contract.

    The encoder is called a few dozen times on seeded noise of at most a few seconds. The global
    random state is as before afterwards. An exception inside the encoder fails the check it
    happened in; the others still run where that makes sense.

    Args:
        upstream: any object; it need not be registered.
        again: makes it once more, to see whether weights drawn at random are drawn from a seed:
            without one, every run would score another encoder.
        hop_budget_s: seconds the hop check may take. A slow encoder is checked at fewer lengths,
            and the report says at how many.

    Returns:
        One `Check` per entry of `EXPECTED`, in that order; ``construction`` only with `again`.
    """
    with random_state_restored():
        return _Suite(upstream, again, hop_budget_s).run()


class _Suite:
    """The checks of one encoder: a method each, which returns what it found or raises."""

    def __init__(
        self, upstream: object, again: Callable[[], object] | None, hop_budget_s: float
    ) -> None:
        self.upstream: Any = upstream
        self.again = again
        self.hop_budget_s = hop_budget_s
        self.card: UpstreamCard
        self.seconds_per_call = 0.0

    def run(self) -> list[Check]:
        """Run everything, in order."""
        tests: dict[str, Callable[[], str]] = {
            "card": self.has_card,
            "hidden-states": self.returns_states,
            "layers": self.layers,
            "dim": self.dim,
            "lengths": self.lengths,
            "padding": self.padding,
            "hop": self.hop,
            "finite": lambda: self.finite(noise(self.clip_samples, 1)),
            "silence": lambda: self.finite(torch.zeros(self.clip_samples)),
            "loud": lambda: self.finite(noise(self.clip_samples, 2).sign()),
            "shortest-input": self.shortest_input,
            "determinism": self.determinism,
            "batch-invariance": self.batch_invariance,
            "batch-order": self.batch_order,
            "pad-invariance": self.pad_invariance,
            "gradients": self.gradients,
            "random-state": lambda: state_kept(lambda: self.encode(noise(self.clip_samples, 10))),
            "inputs": self.inputs,
        }
        if self.again:
            tests["construction"] = self.construction
        return run_checks(EXPECTED, tests, basics=("card", "hidden-states"))

    # What the tests share.

    @property
    def clip_samples(self) -> int:
        """Length of an ordinary clip: half a second, or more for an encoder that needs it."""
        return max(self.card.sample_rate // 2, 2 * self.card.min_samples, 4 * self.card.hop_samples)

    def encode(self, *waveforms: Tensor) -> HiddenStates:
        """Call the encoder and check no more than that the answer has the right shape."""
        # Copies, so that an encoder that modifies its input fails one check and not all.
        states = self.upstream([waveform.clone() for waveform in waveforms])
        if not isinstance(states, HiddenStates):
            raise BrokenError(f"{type(states).__name__}, not HiddenStates")
        if states.values.shape[1] != len(waveforms):
            raise BrokenError(f"{states.values.shape[1]} utterances for {len(waveforms)} waveforms")
        return HiddenStates(states.values.detach(), states.lengths.detach())

    def features(self, *waveforms: Tensor) -> list[Tensor]:
        """Each utterance's own part of a batch, on the CPU: ``[layer, frame, dim]``."""
        states = self.encode(*waveforms)
        return [
            states.values[:, index, : int(length)].cpu()
            for index, length in enumerate(states.lengths)
        ]

    # The checks.

    def has_card(self) -> str:
        card = getattr(self.upstream, "card", None)
        if not isinstance(card, UpstreamCard):
            if isinstance(self.upstream, type):
                raise BrokenError(f"a class; pass an object, {self.upstream.__name__}()")
            raise BrokenError("no attribute `card`" if card is None else f"a {type(card).__name__}")
        if not card.name.strip():
            raise BrokenError("a card with an empty name")
        self.card = card
        return f"card of {card.name!r}"

    def returns_states(self) -> str:
        if not callable(self.upstream):
            raise BrokenError(f"a {type(self.upstream).__name__} that cannot be called")
        waveform = noise(self.clip_samples, 0)
        self.encode(waveform)  # the first call may load weights or compile
        started = time.perf_counter()
        states = self.encode(waveform)
        self.seconds_per_call = time.perf_counter() - started
        if not states.values.is_floating_point():
            raise BrokenError(f"values of type {states.values.dtype}")
        if states.lengths.is_floating_point() or states.lengths.dtype == torch.bool:
            raise BrokenError(f"lengths of type {states.lengths.dtype}")
        return f"values {tuple(states.values.shape)} {states.values.dtype}"

    def layers(self) -> str:
        found = self.encode(noise(self.clip_samples, 0)).layers
        return hold(found == self.card.layers, f"{found} layers, card.layers={self.card.layers}")

    def dim(self) -> str:
        found = self.encode(noise(self.clip_samples, 0)).dim
        return hold(found == self.card.dim, f"{found} features, card.dim={self.card.dim}")

    def lengths(self) -> str:
        clips = self._mixed_clips()
        states = self.encode(*clips)
        together = states.lengths.tolist()
        frames = states.values.shape[2]
        if min(together) < 1 or max(together) != frames:
            raise BrokenError(f"lengths {together} for values with {frames} frames")
        alone = [int(self.encode(clip).lengths[0]) for clip in clips]
        samples = [len(clip) for clip in clips]
        return hold(
            alone == together,
            f"clips of {samples} samples have {alone} frames alone, {together} in a batch",
        )

    def padding(self) -> str:
        states = self.encode(*self._mixed_clips())
        worst = 0.0
        for index, length in enumerate(states.lengths.tolist()):
            tail = states.values[:, index, length:]
            if tail.numel():
                # NaN must not pass as small.
                worst = max(worst, float(tail.float().abs().nan_to_num(nan=torch.inf).max()))
        return hold(worst == 0.0, f"largest absolute value in padding frames {worst:.3g}")

    def hop(self) -> str:
        hop, card = self.card.hop_samples, self.card
        base = max(card.min_samples, 2 * hop)
        # Every remainder of the hop, as far as time allows.
        affordable = int(self.hop_budget_s / max(self.seconds_per_call, 1e-4))
        steps = min(hop, MOST_LENGTHS, max(8, affordable))
        offsets = sorted({round(index * hop / steps) for index in range(steps + 1)})
        counts: list[int] = []
        for start in range(0, len(offsets), HOP_BATCH):
            batch = [noise(base + offset, 3) for offset in offsets[start : start + HOP_BATCH]]
            counts += [int(length) for length in self.encode(*batch).lengths]
        for (before, after), (frames, more) in zip(
            pairwise(offsets), pairwise(counts), strict=True
        ):
            if more < frames:
                raise BrokenError(
                    f"{base + before} samples give {frames} frames, {base + after} give {more}"
                )
        if counts[-1] - counts[0] != 1:
            raise BrokenError(
                f"{counts[0]} frames for {base} samples and {counts[-1]} for {base + hop}: "
                f"{counts[-1] - counts[0]} more frames for card.hop_samples={hop} more samples"
            )
        far = self.encode(noise(base + DRIFT_HOPS * hop, 3)).lengths
        grown = int(far[0]) - counts[0]
        if grown != DRIFT_HOPS:
            measured = f"about {DRIFT_HOPS * hop / grown:.0f}" if grown > 0 else "none"
            raise BrokenError(
                f"{grown} more frames for {DRIFT_HOPS} hops of card.hop_samples={hop} more "
                f"samples; measured hop: {measured}"
            )
        visited = len({offset % hop for offset in offsets})
        return f"{visited} of {hop} remainders of the hop, and {DRIFT_HOPS} hops in a row"

    def finite(self, waveform: Tensor) -> str:
        (features,) = self.features(waveform)
        bad = int((~torch.isfinite(features)).sum())
        if bad:
            raise BrokenError(f"{bad} of {features.numel()} values are NaN or infinite")
        return f"all {features.numel()} values are finite"

    def shortest_input(self) -> str:
        (features,) = self.features(noise(self.card.min_samples, 4))
        what = f"card.min_samples={self.card.min_samples}"
        if not features.shape[1]:
            raise BrokenError(f"no frame for {what}; give the card a longer min_samples")
        finite = bool(torch.isfinite(features).all())
        return hold(finite, f"{features.shape[1]} {'finite' if finite else 'NaN'} frames, {what}")

    def determinism(self) -> str:
        clip, other = noise(self.clip_samples, 5), noise(self.clip_samples + 77, 6)
        (first,) = self.features(clip)
        (second,) = self.features(clip)
        self.features(other)
        (third,) = self.features(clip)
        if not _same(first, second):
            raise BrokenError(f"{_describe(first, second)} (dropout left on? call eval())")
        if not _same(first, third):
            raise BrokenError(
                f"{_describe(first, third)} after another clip was encoded in between"
            )
        return "bit-identical"

    def batch_invariance(self) -> str:
        clips = [noise(self.clip_samples, seed, scale) for seed, scale in _COMPANY]
        (alone,) = self.features(clips[0])
        return _close(alone, self.features(*clips)[0])

    def batch_order(self) -> str:
        clips = [noise(self.clip_samples, seed, scale) for seed, scale in _COMPANY]
        forward = self.features(*clips)
        backward = self.features(*reversed(clips))[::-1]
        worst = max(
            zip(forward, backward, strict=True), key=lambda pair: float(_changes(*pair).max())
        )
        return _close(*worst)

    def pad_invariance(self) -> str:
        short = noise(self.clip_samples, 7)
        longer = noise(3 * self.clip_samples, 8)
        try:
            (alone,) = self.features(short)
            found = _close(alone, self.features(short, longer)[0])
        except BrokenError as failure:
            if self.card.pad_invariant:
                raise
            raise NotApplicableError(
                f"{failure}; not a failure, since card.pad_invariant=False: the engine gives "
                "it one clip at a time"
            ) from failure
        return found if self.card.pad_invariant else f"{found}; card.pad_invariant could be True"

    def gradients(self) -> str:
        with torch.enable_grad():
            states = self.upstream([noise(self.clip_samples, 9)])
        if states.values.requires_grad:
            raise BrokenError("values.requires_grad is True; encode under torch.no_grad()")
        left = [
            name
            for module in _modules(self.upstream)
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        ]
        return hold(not left, f"gradients in {', '.join(left[:3])}" if left else "none")

    def inputs(self) -> str:
        clips = self._mixed_clips()
        given = [clip.clone() for clip in clips]
        batch = list(given)
        self.upstream(batch)
        if len(batch) != len(given) or any(a is not b for a, b in zip(batch, given, strict=True)):
            raise BrokenError("the list passed in was changed")
        changed = sum(not torch.equal(a, b) for a, b in zip(clips, given, strict=True))
        return hold(not changed, f"{changed} of {len(clips)} waveforms changed")

    def construction(self) -> str:
        disturb_random_state()
        clip = noise(self.clip_samples, 15)
        (first,) = self.features(clip)
        other = _Suite(self.again() if self.again else None, None, self.hop_budget_s)
        (second,) = other.features(clip)
        if not _same(first, second):
            raise BrokenError(
                f"{_describe(first, second)}; draw weights with a seed, inside "
                "torch.random.fork_rng()"
            )
        return "bit-identical"

    def _mixed_clips(self) -> list[Tensor]:
        """Clips of different lengths, none of them a whole number of hops longer than another."""
        step = self.card.hop_samples + max(1, self.card.hop_samples // 3)
        return [noise(self.clip_samples + index * step, 11 + index) for index in (2, 0, 3)]


# Seed and loudness of the clips in a batch: the company is louder than the clip under test, so
# that statistics over the whole batch would show.
_COMPANY: Final = ((20, 0.1), (21, 0.9), (22, 0.5))


def noise(samples: int, seed: int, scale: float = 0.3) -> Tensor:
    """A test signal: uniform noise in [-scale, scale], float32 ``[sample]``, from its own seed."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return (torch.rand(samples, generator=generator) * 2 - 1) * scale


def _changes(one: Tensor, other: Tensor) -> Tensor:
    """Relative change per layer, ``[layer]``, of features ``[layer, frame, dim]``."""
    if one.shape != other.shape:
        return torch.tensor([torch.inf])
    before = one.double().flatten(1)
    change = (other.double().flatten(1) - before).norm(dim=1)
    # A layer of zeros may only stay one.
    relative = change / before.norm(dim=1)
    return torch.where(change == 0, 0.0, relative).nan_to_num(nan=torch.inf)


def _describe(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f"{other.shape[1]} frames instead of {one.shape[1]}"
    changes = _changes(one, other)
    layer = int(changes.argmax())
    return f"relative change {float(changes[layer]):.2g}, largest in layer {layer}"


def _close(one: Tensor, other: Tensor) -> str:
    exact = one.dtype in (torch.float32, torch.float64)
    tolerance = TOLERANCE if exact else TOLERANCE_HALF
    within = float(_changes(one, other).max()) <= tolerance
    return hold(within, f"{_describe(one, other)} (allowed {tolerance:g})")


def _same(one: Tensor, other: Tensor) -> bool:
    """Bit-identical, where NaN equals NaN: that is another check's failure."""
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _modules(upstream: object) -> list[nn.Module]:
    """The torch modules of an encoder: itself, or the attributes it keeps."""
    if isinstance(upstream, nn.Module):
        return [upstream]
    attributes = getattr(upstream, "__dict__", {})
    return [value for value in attributes.values() if isinstance(value, nn.Module)]
