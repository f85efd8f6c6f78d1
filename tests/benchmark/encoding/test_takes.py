"""Crops of training utterances: inside, apart, and always the same."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.core import Utterance
from benchmark.encoding.takes import takes


def recording(name="a.wav", span=None):
    return Utterance(name, Path("a.wav"), "train", "ada", "hello", "yes", span)


@pytest.mark.parametrize(("duration_s", "crop_s"), [(10, 0), (3, 8), (8, 8)])
def test_what_is_no_longer_than_a_crop_is_heard_whole(duration_s, crop_s):
    assert takes(recording(), duration_s, crop_s, 4) == (recording(),)


def test_crops_keep_everything_but_id_and_span():
    crops = takes(recording(), 20, 8, 4)
    assert len(crops) == len({crop.id for crop in crops}) == 4
    for crop in crops:
        assert (crop.speaker, crop.label, crop.split, crop.audio) == (
            "ada",
            "yes",
            "train",
            Path("a.wav"),
        )
        assert crop.span[1] == 8
        assert crop.id == f"a.wav@{crop.span[0]:.3f}+8"


def test_crops_follow_from_id_and_index_alone():
    many = takes(recording(), 20, 8, 8)
    assert takes(recording(), 20, 8, 3) == many[:3]
    assert takes(recording("b.wav"), 20, 8, 8)[0].span != many[0].span
    assert many[0].span == (9.77, 8)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.sampled_from([8_000, 16_000, 44_100]))
def test_every_crop_lies_within_the_recording(duration_s, crop_s, rate):
    samples = round(duration_s * rate)
    for span in (None, (3.25, duration_s)):
        for crop in takes(recording(span=span), samples / rate, crop_s, 5):
            if crop.span == span:
                continue
            first = crop.span[0] - (span[0] if span else 0.0)
            assert first >= -1e-9
            assert round(first * rate) + round(crop.span[1] * rate) <= samples


def test_crops_spread_over_the_recording():
    starts = [takes(recording(str(index)), 18, 8, 1)[0].span[0] for index in range(400)]
    assert 4.5 < sum(starts) / 400 < 5.5
    assert min(starts) < 0.3
    assert max(starts) > 9.7


def test_as_many_crops_as_have_room():
    """Between 8.000 and 8.003 s there are two places on the grid at most."""
    assert len(takes(recording(), 8.0025, 8, 20)) <= 2
