"""Span masks cover what they should."""

from __future__ import annotations

import pytest
import torch

from benchmark.errors import SuperbError
from upstreams.pretraining.masking import span_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masks_are_spans_and_leave_something():
    mask = span_mask(50, 100, 0.08, 10, generator())
    assert mask.shape == (50, 100)
    for row in mask:
        runs = row.int().diff(prepend=torch.tensor([0]), append=torch.tensor([0]))
        lengths = (runs == -1).nonzero() - (runs == 1).nonzero()
        assert int(lengths.min()) >= 10
        assert not bool(row.all())


@pytest.mark.parametrize(("share", "expected"), [(0.065, 0.49), (0.08, 0.57)])
def test_the_share_of_masked_frames_is_the_papers(share, expected):
    # wav2vec 2.0, section 4.2: "approximately 49 % of all time steps", 15 s utterances.
    masks = [span_mask(4, 750, share, 10, generator(seed)).float().mean() for seed in range(20)]
    assert float(torch.stack(masks).mean()) == pytest.approx(expected, abs=0.015)


def test_every_utterance_has_as_many_starts_in_the_mean():
    counts = [int(span_mask(1, 60, 0.04, 1, generator(seed)).sum()) for seed in range(300)]
    assert sum(counts) / len(counts) == pytest.approx(2.4, abs=0.1)


def test_a_mask_never_covers_everything():
    assert not bool(span_mask(20, 12, 1.0, 10, generator()).all(dim=1).any())


def test_utterances_shorter_than_a_span_are_refused():
    with pytest.raises(SuperbError, match="longer audio"):
        span_mask(2, 10, 0.08, 10, generator())
