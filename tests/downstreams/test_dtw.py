"""Dynamic time warping: as the plain loop has it, whatever the lengths and the budget."""

import pytest
import torch

from downstreams.dtw import SHORTEST, loop, scores


def drawn(draw, count, low, high, dim=7):
    lengths = torch.randint(low, high + 1, (count,), generator=draw).tolist()
    return [torch.randn(length, dim, generator=draw) for length in lengths]


@pytest.mark.parametrize("budget", [1, 30_000, 1 << 23])
def test_scores_are_those_of_the_plain_loop(budget):
    """Also where a query is longer than a document, or a document has one frame."""
    draw = torch.Generator().manual_seed(0)
    queries = drawn(draw, 9, SHORTEST, 25)
    documents = [*drawn(draw, 12, 1, 60), torch.randn(1, 7, generator=draw)]
    found = scores(queries, documents, budget=budget)
    expected = torch.tensor([[loop(a, b) for b in documents] for a in queries])
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.min() < -0.1


def one_hot(*places):
    return torch.eye(8)[list(places)]


def test_a_query_within_a_document_costs_nothing():
    query = one_hot(0, 1, 2, 3, 4)
    inside, slow = one_hot(7, 0, 1, 2, 3, 4, 6), one_hot(7, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    assert scores([query], [inside, slow]).tolist() == [[0, 0]]


def test_a_path_waits_or_skips_one_frame_and_no_more():
    query = one_hot(0, 1, 2, 3, 4)
    waits = one_hot(0, 1, 2, 3, 4)[[0, 1, 3, 4]]  # 2 is not there: half of its row at least
    skips_two = one_hot(0, 1, 7, 7, 2, 3, 4)
    (found,) = scores([query], [waits, skips_two])
    assert found.tolist() == pytest.approx([0, -0.2])  # 2 is as far from all, which is no distance
    assert loop(query, skips_two) == pytest.approx(-0.2)


def test_short_queries_score_nothing():
    short = one_hot(0, 1, 2, 3)
    assert len(short) == SHORTEST - 1
    found = scores([short, one_hot(0, 1, 2, 3, 4)], [one_hot(4, 3, 2, 1, 0)])
    assert found[0].tolist() == [0]
    assert found[1] < 0
    assert scores([short], [short]).tolist() == [[0]]


def test_frames_that_cannot_be_told_apart_are_no_distance():
    """Half precision, silence and padding must not blow rounding up to a distance of 1."""
    same = torch.full((40, 7), 0.1, dtype=torch.float16)
    query = torch.randn(9, 7, generator=torch.Generator().manual_seed(1)).half()
    longer = torch.randn(90, 7, generator=torch.Generator().manual_seed(2))
    found = scores([query, torch.zeros(6, 7)], [same, torch.zeros(3, 7), longer])
    assert found[:, :2].abs().max() < 0.05
    assert found.isfinite().all()


def test_frames_are_prepared_when_their_turn_comes():
    draw = torch.Generator().manual_seed(3)
    queries, documents = drawn(draw, 2, 8, 9), drawn(draw, 3, 20, 30)
    found = scores(queries, documents, lambda frames: 2 * frames - 1)
    ready = [[2 * own - 1 for own in several] for several in (queries, documents)]
    assert torch.equal(found, scores(*ready))
