"""SpecAugment on hidden states: where masks may fall, and what they must leave alone."""

import dataclasses

import pytest
import torch

from benchmark.core import HiddenStates
from benchmark.probing.augment import spec_augment
from benchmark.probing.layers import LayerMix, Mix
from benchmark.protocol import SpecAugment

MASKS = SpecAugment(
    time_warp=0,
    time_masks=2,
    time_width=40,
    time_share=1.0,
    feature_masks=2,
    feature_width=50,
    feature_share=1.0,
)
TIME = dataclasses.replace(MASKS, feature_masks=0)
FEATURE = dataclasses.replace(MASKS, time_masks=0)
WARP = dataclasses.replace(MASKS, time_masks=0, feature_masks=0, time_warp=5)


def ones(*lengths, layers=3, dim=20):
    """Nothing is zero but the padding."""
    values = torch.ones(layers, len(lengths), max(lengths), dim)
    for utterance, length in enumerate(lengths):
        values[:, utterance, length:] = 0
    return HiddenStates(values, torch.tensor(lengths))


def noise(*lengths, layers=3, dim=20):
    states = ones(*lengths, layers=layers, dim=dim)
    random = torch.rand(states.values.shape, generator=torch.Generator().manual_seed(0)) + 0.5
    return HiddenStates(states.values * random, states.lengths)


def generators(count, start=0):
    return [torch.Generator().manual_seed(start + seed) for seed in range(count)]


def spans(flags):
    """(start, width) of the runs of True."""
    found, start = [], None
    for position, flag in enumerate([*flags.tolist(), False]):
        if flag and start is None:
            start = position
        elif not flag and start is not None:
            found.append((start, position - start))
            start = None
    return found


@pytest.mark.parametrize(("width", "share", "widest"), [(5, 1.0, 4), (40, 0.1, 6), (1, 1.0, 0)])
def test_time_masks_are_zero_spans_of_whole_frames(width, share, widest):
    settings = dataclasses.replace(TIME, time_masks=1, time_width=width, time_share=share)
    seen = set()
    for generator in generators(200):
        values = spec_augment(ones(60), settings, generator).values[:, 0]
        assert set(values.unique().tolist()) <= {0.0, 1.0}
        masked = (values == 0).all(dim=2)
        # all dimensions and all layers alike
        assert torch.equal(masked, (values == 0).any(dim=2))
        assert torch.equal(masked, masked[:1].expand_as(masked))
        found = spans(masked[0])
        assert len(found) <= 1
        seen.add(found[0][1] if found else 0)
    assert seen == set(range(widest + 1))


@pytest.mark.parametrize(("width", "share", "widest"), [(4, 1.0, 3), (50, 0.25, 5), (50, 1.0, 20)])
def test_feature_masks_are_zero_spans_of_whole_dimensions(width, share, widest):
    settings = dataclasses.replace(FEATURE, feature_masks=1, feature_width=width)
    settings = dataclasses.replace(settings, feature_share=share)
    seen = set()
    for generator in generators(400):
        values = spec_augment(ones(30), settings, generator).values[:, 0]
        masked = (values == 0).all(dim=1)
        assert torch.equal(masked, (values == 0).any(dim=1))
        assert torch.equal(masked, masked[:1].expand_as(masked))
        found = spans(masked[0])
        assert len(found) <= 1
        seen.add(found[0][1] if found else 0)
    assert max(seen) == widest
    assert 0 in seen


def test_masks_reach_both_ends_and_stay_inside():
    settings = dataclasses.replace(TIME, time_masks=1, time_width=6)
    starts, ends = set(), set()
    for generator in generators(400):
        masked = (spec_augment(ones(12, 12), settings, generator).values[0, 1] == 0).all(dim=1)
        for start, width in spans(masked):
            starts.add(start)
            ends.add(start + width)
    assert min(starts) == 0
    # the paper draws the start from [0, length - width): no mask is cut short, nor ends a clip
    assert max(ends) == 11


def test_number_of_masks():
    settings = dataclasses.replace(TIME, time_masks=3, time_width=3)
    counts = {
        len(spans((spec_augment(ones(200), settings, generator).values[0, 0] == 0).all(dim=1)))
        for generator in generators(100)
    }
    assert max(counts) == 3


def test_utterances_are_masked_apart():
    values = spec_augment(ones(60, 60), TIME, torch.Generator().manual_seed(3)).values
    assert not torch.equal(values[:, 0], values[:, 1])


@pytest.mark.parametrize("settings", [MASKS, WARP], ids=["masks", "warp"])
def test_padding_lengths_and_input_stay_as_they_are(settings):
    states = noise(50, 20, 1)
    before = states.values.clone()
    for generator in generators(20):
        augmented = spec_augment(states, settings, generator)
        assert augmented.values.shape == before.shape
        assert augmented.lengths.tolist() == [50, 20, 1]
        assert augmented.values[:, 1, 20:].count_nonzero() == 0
        assert augmented.values[:, 2, 1:].count_nonzero() == 0
        assert torch.equal(states.values, before)


def test_masks_fall_within_the_utterance_not_its_padding():
    # with a share of a half, no more than 5 of these 10 frames are masked however long others are
    settings = dataclasses.replace(TIME, time_masks=1, time_share=0.5)
    widest = 0
    for generator in generators(200):
        values = spec_augment(ones(10, 400), settings, generator).values
        widest = max(widest, int((values[0, 0, :10, 0] == 0).sum()))
    assert widest == 5


@pytest.mark.parametrize("settings", [MASKS, WARP], ids=["masks", "warp"])
def test_same_generator_state_same_result(settings):
    first, second, other = (
        spec_augment(noise(50, 33), settings, torch.Generator().manual_seed(seed)).values
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    spec_augment(
        noise(50), dataclasses.replace(MASKS, time_warp=5), torch.Generator().manual_seed(0)
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_asked_nothing_done():
    settings = dataclasses.replace(MASKS, time_masks=0, feature_masks=0)
    states = noise(40)
    augmented = spec_augment(states, settings, torch.Generator().manual_seed(0))
    assert torch.equal(augmented.values, states.values)


def test_warp_moves_all_layers_alike_and_keeps_the_range():
    # a straight line in time stays monotone and within its bounds, in every layer the same
    line = torch.arange(60.0)[None, None, :, None].expand(3, 1, 60, 4).contiguous()
    moved = 0
    for generator in generators(30):
        values = spec_augment(HiddenStates(line, torch.tensor([60])), WARP, generator).values
        assert torch.equal(values, values[:1, :, :, :1].expand_as(values))
        course = values[0, 0, :, 0]
        assert (course.diff() >= 0).all()
        assert course.min() >= 0
        assert course.max() <= 59
        # both sides are stretched to fit: a shift of 5 moves no frame much further than that
        assert (course - line[0, 0, :, 0]).abs().max() <= 6
        moved += not torch.equal(values, line)
    assert moved > 15


def test_short_utterances_are_not_warped():
    states = noise(11)
    for generator in generators(10):
        assert torch.equal(spec_augment(states, WARP, generator).values, states.values)


def test_commutes_with_a_weighted_sum():
    states = noise(50, 31, layers=4)
    mix = LayerMix(Mix(None), 4)
    with torch.no_grad():
        mix.scores.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    settings = dataclasses.replace(MASKS, time_warp=5)
    for seed in range(10):
        first = mix(spec_augment(states, settings, torch.Generator().manual_seed(seed)))
        mixed = HiddenStates(mix(states)[None], states.lengths)
        then = spec_augment(mixed, settings, torch.Generator().manual_seed(seed)).values[0]
        assert torch.allclose(first, then, atol=1e-6)
