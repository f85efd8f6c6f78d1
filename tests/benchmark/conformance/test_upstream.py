"""The conformance suite: a correct toy passes it, and one broken rule fails exactly one check."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from benchmark.conformance import check_upstream, raise_for_failures
from benchmark.conformance.upstream import EXPECTED
from benchmark.core import HiddenStates, UpstreamCard
from benchmark.errors import SuperbError

HOP = 64
BASE = {
    "name": "toy",
    "layers": 2,
    "dim": 4,
    "hop_samples": HOP,
    "min_samples": 100,
    "sample_rate": 4_000,
    "pad_invariant": True,
}


class Toy:
    """A correct encoder: a fixed random projection of windows of 100 samples."""

    def __init__(self, **changes):
        self.card = UpstreamCard(**{**BASE, **changes})
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(100, 4, generator=generator) / 10

    def encode(self, waveform):
        layer = waveform.unfold(0, 100, HOP) @ self.weight  # [frame, dim]
        return torch.stack([layer, torch.tanh(layer)], dim=1)  # [frame, layer, dim]

    def __call__(self, waveforms):
        encoded = [self.encode(waveform) for waveform in waveforms]
        values = pad_sequence(encoded, batch_first=True).permute(2, 0, 1, 3)
        return HiddenStates(values, torch.tensor([len(frames) for frames in encoded]))


class PaddingLeak(Toy):
    """Subtracts a mean over the padded clip, as group normalisation does."""

    def __call__(self, waveforms):
        longest = max(map(len, waveforms))
        return super().__call__([w - w.sum() / longest - len(w) / longest for w in waveforms])


class BatchMean(Toy):
    """Normalises over a batch where it can stack it."""

    def __call__(self, waveforms):
        if len(waveforms) > 1 and len({len(w) for w in waveforms}) == 1:
            level = torch.stack(waveforms).square().mean().sqrt()
            waveforms = [w / (level + 0.1) for w in waveforms]
        return super().__call__(waveforms)


class FirstInBatchDiffers(Toy):
    """Correct for a batch of one and for the first clip; wrong for the ones after it."""

    def __call__(self, waveforms):
        return super().__call__([w * (1 + index) for index, w in enumerate(waveforms)])


class NonzeroPadding(Toy):
    def __call__(self, waveforms):
        states = super().__call__(waveforms)
        values = states.values.clone()
        for index, length in enumerate(states.lengths):
            values[:, index, length:] = 0.5
        return HiddenStates(values, states.lengths)


class LengthsRoundedUpInBatches(Toy):
    def __call__(self, waveforms):
        states = super().__call__(waveforms)
        full = torch.full_like(states.lengths, states.values.shape[2])
        return HiddenStates(states.values, full)


class NeedsGradients(Toy):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(self.weight)


class LeavesGradients(Toy):
    def __init__(self):
        super().__init__()
        self.front = nn.Linear(1, 1)

    def __call__(self, waveforms):
        self.front(torch.ones(1)).backward()
        return super().__call__(waveforms)


class DrawsGlobally(Toy):
    draw = staticmethod(lambda: torch.rand(1))

    def __call__(self, waveforms):
        type(self).draw()
        return super().__call__(waveforms)


class ReseedsTorch(DrawsGlobally):
    draw = staticmethod(lambda: torch.manual_seed(0))


class DrawsFromNumpy(DrawsGlobally):
    draw = staticmethod(lambda: np.random.rand())


class DrawsFromRandom(DrawsGlobally):
    draw = staticmethod(random.random)


class NormalisesInPlace(Toy):
    def __call__(self, waveforms):
        for waveform in waveforms:
            waveform *= 0.5
        return super().__call__(waveforms)


class EmptiesTheList(Toy):
    def __call__(self, waveforms):
        batch = list(waveforms)
        waveforms.clear()
        return super().__call__(batch)


class DividesByEnergy(Toy):
    def encode(self, waveform):
        return super().encode(waveform / waveform.abs().max())


class RaisesOnSilence(Toy):
    def encode(self, waveform):
        if not waveform.any():
            raise ValueError("cannot encode nothing")
        return super().encode(waveform)


class OverflowsWhenLoud(Toy):
    def encode(self, waveform):
        scale = 1e38 if waveform.abs().mean() > 0.9 else 1.0
        return super().encode(waveform * scale * scale)


class Remembers(Toy):
    """Carries state from call to call."""

    calls = 0.0

    def encode(self, waveform):
        frames = super().encode(waveform)
        self.calls = self.calls * 0.5 + 1e-7 * float(waveform.abs().sum())
        return frames + self.calls


BROKEN = [
    (PaddingLeak(), "pad-invariance", "relative change"),
    (BatchMean(), "batch-invariance", "relative change"),
    (FirstInBatchDiffers(), "batch-order", "relative change"),
    (NonzeroPadding(), "padding", "0.5"),
    (Toy(hop_samples=HOP // 2), "hop", "card.hop_samples=32"),
    (Toy(hop_samples=HOP + 1), "hop", "measured hop: about 64"),
    (Toy(hop_samples=HOP * 2), "hop", "2 more frames"),
    (Toy(layers=3), "layers", "2 layers, card.layers=3"),
    (Toy(dim=5), "dim", "4 features, card.dim=5"),
    (Toy(min_samples=20), "shortest-input", "RuntimeError: maximum size"),
    (NeedsGradients(), "gradients", "no_grad"),
    (LeavesGradients(), "gradients", "weight"),
    (DrawsGlobally(), "random-state", "torch changed"),
    (ReseedsTorch(), "random-state", "torch changed"),
    (DrawsFromNumpy(), "random-state", "numpy changed"),
    (DrawsFromRandom(), "random-state", "random changed"),
    (NormalisesInPlace(), "inputs", "3 of 3 waveforms changed"),
    (EmptiesTheList(), "inputs", "list"),
    (DividesByEnergy(), "silence", "NaN"),
    (RaisesOnSilence(), "silence", "ValueError: cannot encode nothing (test_upstream.py:"),
    (OverflowsWhenLoud(), "loud", "NaN or infinite"),
]


@pytest.fixture(autouse=True)
def random_state_is_left_alone():
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


def failures(checks):
    return {check.name: check.found for check in checks if check.passed is False}


def test_a_correct_upstream_passes_everything():
    checks = check_upstream(Toy())
    assert [check.name for check in checks] == list(EXPECTED)[:-1]
    assert all(check.passed for check in checks), failures(checks)
    raise_for_failures(checks)


class DrawsItsWeights(Toy):
    """Weights from the global generators, which nobody seeded."""

    def __init__(self):
        super().__init__()
        self.weight = torch.rand(100, 4)


class DrawsAside(Toy):
    """The same, hidden from the global state but not seeded either."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.weight = torch.rand(100, 4)


@pytest.mark.parametrize("kind", [Toy, DrawsItsWeights, DrawsAside])
def test_weights_without_a_seed_are_noticed_where_it_can_be_made_again(kind):
    with torch.random.fork_rng(devices=[]):
        toy = kind()
    assert not failures(check_upstream(toy))
    checks = check_upstream(toy, again=kind)
    assert [check.name for check in checks] == list(EXPECTED)
    found = failures(checks)
    assert list(found) == ([] if kind is Toy else ["construction"])
    assert all("with a seed" in text for text in found.values())


def test_what_raises_while_it_is_made_again():
    found = failures(check_upstream(Toy(), again=lambda: 1 / 0))
    assert "ZeroDivisionError" in found["construction"]


@pytest.mark.parametrize(("toy", "name", "says"), BROKEN, ids=lambda value: type(value).__name__)
def test_one_broken_rule_fails_exactly_its_check(toy, name, says):
    checks = check_upstream(toy)
    found = failures(checks)
    assert list(found) == [name], found
    assert says in found[name]
    with pytest.raises(SuperbError, match=f"1 of {len(checks)} checks failed") as caught:
        raise_for_failures(checks)
    assert name in str(caught.value)


def test_lengths_must_be_the_utterances_own():
    found = failures(check_upstream(LengthsRoundedUpInBatches()))
    assert "frames alone" in found["lengths"]


def test_state_between_calls_is_noticed():
    assert "relative change" in failures(check_upstream(Remembers()))["determinism"]


def test_a_declared_leak_is_measured_and_does_not_fail():
    leak = PaddingLeak(pad_invariant=False)
    checks = {check.name: check for check in check_upstream(leak)}
    assert not failures(checks.values())
    assert checks["pad-invariance"].passed is None
    assert "relative change" in checks["pad-invariance"].found
    assert "pad_invariant=False" in checks["pad-invariance"].found


def test_an_undeclared_virtue_is_mentioned():
    checks = {check.name: check for check in check_upstream(Toy(pad_invariant=False))}
    assert checks["pad-invariance"].passed
    assert "could be True" in checks["pad-invariance"].found


class ReturnsTuple(Toy):
    def __call__(self, waveforms):
        states = super().__call__(waveforms)
        return states.values, states.lengths


class ReturnsIntegers(Toy):
    def __call__(self, waveforms):
        states = super().__call__(waveforms)
        return HiddenStates(states.values.long(), states.lengths)


class Raises(Toy):
    def __call__(self, waveforms):
        raise RuntimeError("no weights\nand more")


class ThreeAxes(Toy):
    def __call__(self, waveforms):
        states = super().__call__(waveforms)
        return HiddenStates(states.values[:, 0], states.lengths)


class CardOnly:
    card = UpstreamCard(**BASE)


@pytest.mark.parametrize(
    ("upstream", "name", "says"),
    [
        (object(), "card", "no attribute `card`"),
        (Toy, "card", "pass an object, Toy()"),
        (CardOnly(), "hidden-states", "cannot be called"),
        (ReturnsTuple(), "hidden-states", "tuple, not HiddenStates"),
        (ReturnsIntegers(), "hidden-states", "int64"),
        (Raises(), "hidden-states", "RuntimeError: no weights (test_upstream.py:"),
        (ThreeAxes(), "hidden-states", "[layer, utterance, frame, dim], got shape (2,"),
        (ThreeAxes(), "hidden-states", "(test_upstream.py:"),
    ],
)
def test_without_the_basics_the_rest_is_not_run(upstream, name, says):
    checks = check_upstream(upstream)
    assert [check.name for check in checks] == list(EXPECTED)[:-1]
    found = failures(checks)
    assert list(found) == [name]
    assert says in found[name]
    after = checks[list(EXPECTED).index(name) + 1 :]
    assert all(check.passed is None for check in after)
    assert all("not run" in check.found for check in after)


def test_the_budget_thins_the_lengths_and_says_so():
    hop = next(c for c in check_upstream(Toy(), hop_budget_s=0.0) if c.name == "hop")
    assert hop.passed
    assert hop.found.startswith("8 of 64 remainders")


def test_every_remainder_is_visited():
    class SkipsOneFrame(Toy):
        """Right at all lengths but those with one remainder of the hop."""

        def encode(self, waveform):
            frames = super().encode(waveform)
            return frames[:-1] if len(waveform) % HOP == 17 else frames

    found = failures(check_upstream(SkipsOneFrame()))
    assert list(found) == ["hop"]
    assert "samples give" in found["hop"]
