import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmark.errors import SuperbError
from benchmark.statistics import difference, interval, seed_std, student_quantile


def names(clusters) -> list[str]:
    return [f"speaker {cluster}" for cluster in clusters]


def accuracy_set(rng, speakers, mean, intraclass, unequal):
    """Right or wrong answers; speakers' own rates are beta distributed."""
    strength = 1 / intraclass - 1
    sizes = rng.integers(2, 20, speakers) if unequal else np.full(speakers, 10)
    rates = rng.beta(mean * strength, (1 - mean) * strength, speakers)
    clusters = np.repeat(np.arange(speakers), sizes)
    right = (rng.random(len(clusters)) < rates[clusters]).astype(int)
    return right, np.ones_like(right), names(clusters)


def error_rate_set(rng, speakers, mean, sigma, unequal):
    """Errors in words; speakers and utterances have their own rates."""
    sizes = rng.integers(2, 20, speakers) if unequal else np.full(speakers, 10)
    clusters = np.repeat(np.arange(speakers), sizes)
    words = rng.integers(3, 31, len(clusters))
    rates = mean * np.exp(rng.normal(0, sigma, speakers) - sigma**2 / 2)
    hardness = rng.gamma(1.5, 1 / 1.5, len(clusters))
    return rng.poisson(rates[clusters] * hardness * words), words, names(clusters)


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.995])
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 39, 500, 1_999, 2_000, 2_001, 10**5, 10**9])
def test_student_quantile(probability, degrees):
    expected = stats.t.ppf(probability, degrees)
    assert student_quantile(probability, degrees) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("right", "of"), [(0, 20), (1, 20), (13, 20), (20, 20), (700, 1_000)])
def test_one_utterance_a_speaker_is_wilson(right, of):
    """With nothing to cluster, the score interval of Wilson with t for z and n - 1 for n."""
    found = interval([1] * right + [0] * (of - right), [1] * of, names(range(of)))
    share = right / of
    t = stats.t.ppf(0.975, of - 1)
    effect = of / (of - 1) if 0 < right < of else 1
    weight = t**2 * effect / of
    half = math.sqrt(weight * (share * (1 - share) + weight / 4))
    centre = share + weight / 2
    assert found.value == pytest.approx(100 * share)
    assert found.low == pytest.approx(100 * (centre - half) / (1 + weight), abs=1e-9)
    assert found.high == pytest.approx(100 * (centre + half) / (1 + weight))


def test_near_the_exact_binomial_interval():
    found = interval([1] * 970 + [0] * 30, [1] * 1_000, names(range(1_000)))
    exact = stats.binomtest(970, 1_000).proportion_ci()
    assert found.low == pytest.approx(100 * exact.low, abs=0.15)
    assert found.high == pytest.approx(100 * exact.high, abs=0.15)


def test_many_speakers_reach_the_normal_interval():
    rng = np.random.default_rng(0)
    errors, words, clusters = error_rate_set(rng, 2_000, 0.3, 0.3, unequal=False)
    found = interval(errors, words, clusters)
    by_speaker = errors.reshape(-1, 10).sum(1), words.reshape(-1, 10).sum(1)
    ratio = errors.sum() / words.sum()
    residuals = by_speaker[0] - ratio * by_speaker[1]
    error = residuals.std(ddof=1) * math.sqrt(2_000) / words.sum()
    assert found.high - found.low == pytest.approx(2 * 196 * error, rel=0.01)


def test_width_agrees_with_a_bootstrap_over_speakers():
    rng = np.random.default_rng(1)
    right, ones, clusters = accuracy_set(rng, 100, 0.7, 0.1, unequal=True)
    found = interval(right, ones, clusters)
    index = np.unique(clusters, return_inverse=True)[1]
    sums, sizes = np.bincount(index, right), np.bincount(index)
    draws = rng.multinomial(100, np.full(100, 0.01), size=4_000)
    low, high = np.quantile(100 * (draws @ sums) / (draws @ sizes), [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.07)


@pytest.mark.parametrize(
    ("make", "mean", "spread"),
    [
        (accuracy_set, 0.6, 0.1),
        (accuracy_set, 0.9, 0.1),
        (accuracy_set, 0.98, 0.05),
        (error_rate_set, 0.08, 0.4),
        (error_rate_set, 0.9, 0.2),
    ],
)
@pytest.mark.parametrize("speakers", [10, 20, 40])
def test_coverage(make, mean, spread, speakers):
    """A small version of the measurement that the module's text speaks of; 300 sets a case.

    Of 300 sets at 95 %, 91.2 to 98.7 % is three standard errors; a near-perfect accuracy counts
    in steps, which makes it cautious.
    """
    rng = np.random.default_rng(speakers)
    held = 0
    for repeat in range(300):
        found = interval(*make(rng, speakers, mean, spread, unequal=repeat % 2 == 1))
        held += found.low <= 100 * mean <= found.high
    assert 0.912 <= held / 300 <= (0.987 if mean < 0.98 else 1)


@pytest.mark.parametrize("speakers", [10, 40])
def test_coverage_of_differences(speakers):
    rng = np.random.default_rng(speakers)
    held = 0
    for _ in range(300):
        a_errors, words, clusters = error_rate_set(rng, speakers, 0.2, 0.4, unequal=True)
        # b makes each error of a with probability 0.9: its rate is 0.18.
        found = difference(a_errors, words, rng.binomial(a_errors, 0.9), words, clusters)
        held += found.low <= -2.0 <= found.high
    assert 0.912 <= held / 300 <= 0.987


counts = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 9), st.sampled_from(["", "a", "b", "c"])),
    min_size=1,
    max_size=30,
)


@given(counts, st.randoms())
def test_invariances(rows, random):
    top, bottom, clusters = (list(column) for column in zip(*rows, strict=True))
    found = interval(top, bottom, clusters)
    assert 0 <= found.low <= found.value <= found.high < math.inf
    assert interval(top, bottom, clusters) == found
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = interval(*([column[i] for i in order] for column in (top, bottom, clusters)))
    assert shuffled.low == pytest.approx(found.low, abs=1e-9)
    assert shuffled.high == pytest.approx(found.high)
    renamed = interval(top, bottom, [name and name + "'" for name in clusters])
    assert renamed == found
    wider = interval(top, bottom, clusters, confidence=0.99)
    assert wider.low <= found.low
    assert wider.high >= found.high
    forwards = difference(top, bottom, bottom, bottom, clusters)
    backwards = difference(bottom, bottom, top, bottom, clusters)
    assert (forwards.low, forwards.high) == pytest.approx((-backwards.high, -backwards.low))


@given(counts)
def test_the_same_seed_again_is_no_evidence(rows):
    top, bottom, clusters = (list(column) for column in zip(*rows, strict=True))
    once = interval(top, bottom, clusters)
    thrice = interval(top * 3, bottom * 3, clusters * 3, seeds=3)
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx(
        (once.value, once.low, once.high), abs=1e-7
    )
    assert (thrice.clusters, thrice.utterances) == (once.clusters, once.utterances)


def test_copies_within_speakers_are_no_evidence():
    top, clusters = [1, 0, 1, 1, 0, 1, 1, 1], names(range(8))
    once = interval(top, [1] * 8, clusters)
    copied = interval(top * 50, [1] * 400, clusters * 50)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_scaling_counts_scales_nothing_but_the_floor():
    top, bottom, clusters = [3, 9, 1, 30], [10, 12, 9, 40], names(range(4))
    once, tenfold = (interval([k * n for n in top], [k * n for n in bottom], clusters)
                     for k in (1, 10))  # fmt: skip
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))


def test_one_speaker_falls_back_to_utterances_and_says_so():
    top = [1, 0, 1, 1]
    found = interval(top, [1] * 4, ["only"] * 4)
    assert found.by_utterance
    assert found.clusters == 4
    unnamed = interval(top, [1] * 4, [""] * 4)
    assert (unnamed.low, unnamed.high) == (found.low, found.high)
    assert unnamed.by_utterance
    stacked = interval(top * 2, [1] * 8, ["only"] * 8, seeds=2)
    assert stacked.by_utterance
    assert stacked.clusters == 4


@pytest.mark.parametrize(
    ("clusters", "by_utterance"),
    [
        (["a", "b", "c", "d"], False),
        (["a", "a", "b", "b"], False),
        (["a", "a", "b", ""], True),
        (["a", "a", "a", ""], True),
        (["a", "a", "a", "a"], True),
        (["", "", "", ""], True),
    ],
)
def test_by_utterance_whenever_one_stands_in_for_a_speaker(clusters, by_utterance):
    top, ones = [1, 0, 1, 1], [1] * 4
    assert interval(top, ones, clusters).by_utterance is by_utterance
    assert difference(top, ones, ones, ones, clusters).by_utterance is by_utterance


def test_perfect_scores_are_not_certain():
    perfect = interval([1] * 50, [1] * 50, names(range(50)))
    assert perfect.high == 100
    assert 90 < perfect.low < 97
    no_errors = interval([0] * 50, [10] * 50, names(range(50)))
    assert no_errors.low == 0
    assert 0.3 < no_errors.high < 1.2


def test_error_rates_can_pass_100():
    found = interval([30, 25, 28], [20, 20, 20], names(range(3)))
    assert found.high > found.value > 100


def test_speakers_who_agree_are_not_certain():
    found = interval([1] * 6, [10] * 6, names(range(6)))
    assert found.low < 5
    assert found.high > 15


@pytest.mark.parametrize("errors", [10, 20])
def test_speakers_who_agree_on_100_percent_or_more_are_not_certain(errors):
    found = interval([errors] * 3, [10] * 3, names(range(3)))
    assert found.value == 10 * errors
    # At least one error in 30 words, times t of two degrees of freedom.
    error = 100 / 30 * math.sqrt(errors / 10) * stats.t.ppf(0.975, 2)
    assert found.high - found.value > error
    assert found.value - found.low > 0.5 * error
    assert found.high - found.low == pytest.approx(2 * error, rel=0.1)


def test_one_utterance_says_next_to_nothing():
    found = interval([1], [1], ["a"])
    assert found.low < 1
    assert found.high == 100


def test_difference_is_paired():
    rng = np.random.default_rng(0)
    errors, words, clusters = error_rate_set(rng, 20, 0.3, 0.6, unequal=False)
    better = errors - (errors > 2)
    found = difference(errors, words, better, words, clusters)
    alone = [interval(top, words, clusters) for top in (errors, better)]
    assert found.value == pytest.approx(alone[1].value - alone[0].value)
    assert found.high < 0
    assert alone[0].low < alone[1].high  # the separate intervals overlap
    same = difference(errors, words, errors, words, clusters)
    assert same.value == 0
    assert same.low < 0 < same.high


def test_difference_stays_possible():
    found = difference([0] * 3, [1] * 3, [1] * 3, [1] * 3, names(range(3)))
    assert (found.value, found.high) == (100, 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "nothing to score"),
        (([1], [0], ["a"]), "nothing to score"),
        (([1, 2], [1], ["a"]), "2 utterances"),
        (([1], [1], ["a", "b"]), "2 clusters"),
        (([-1], [1], ["a"]), "not negative"),
        (([float("nan")], [1], ["a"]), "finite"),
        (([[1]], [[1]], ["a"]), "one per utterance"),
    ],
)
def test_counts_that_do_not_fit(arguments, message):
    with pytest.raises(SuperbError, match=message):
        interval(*arguments)


def test_seeds_that_do_not_fit():
    with pytest.raises(SuperbError, match="2 seeds"):
        interval([1, 1, 1], [1, 1, 1], ["a", "b", "c"], seeds=2)
    with pytest.raises(SuperbError, match="same order"):
        interval([1, 1, 1, 1], [1, 1, 1, 1], ["a", "b", "b", "a"], seeds=2)
    with pytest.raises(SuperbError, match="same utterances"):
        difference([1], [1], [1, 1], [1, 1], ["a"])


def test_seed_std():
    assert seed_std([50.0]) is None
    assert seed_std([50.0, 53.0, 58.0]) == pytest.approx(statistics.stdev([50, 53, 58]))
