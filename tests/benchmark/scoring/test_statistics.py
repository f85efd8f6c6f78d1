import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError
from benchmark.scoring.coverage import (
    DIFFERENCE_CASES,
    EER,
    MTWV,
    RERUN_CASES,
    RERUN_DIFFERENCE_CASES,
    SEARCH_CASES,
    TRIAL_CASES,
    TRIAL_DIFFERENCE_CASES,
    bootstrap_ends,
    bootstrap_trial_ends,
    draw_answers,
    draw_errors,
    draw_trials,
    ends,
    records,
)
from benchmark.scoring.statistics import (
    Difference,
    Interval,
    difference_of,
    holm,
    interval_of,
    matched_pairs,
    mcnemar,
    seed_std,
    spearman,
    student_p_value,
    student_quantile,
)

RATIO = Metric("m", "lower")
MEAN = Metric("m", "lower", "mean", unit="dB")


def names(clusters) -> list[str]:
    return [f"speaker {cluster}" for cluster in clusters]


def counted(top, bottom, clusters, seeds=1) -> list[Record]:
    rows = zip(top, bottom, clusters, strict=True)
    return [
        Record(f"u{place % (len(top) // seeds)}", (cluster,), "", "", {"m": (int(a), int(b))})
        for place, (a, b, cluster) in enumerate(rows)
    ]


def interval(top, bottom, clusters, seeds=1, **options) -> Interval:
    """Of a ratio."""
    return interval_of(counted(top, bottom, clusters, seeds), RATIO, seeds=seeds, **options)


def difference(a_top, a_bottom, b_top, b_bottom, clusters, seeds=1, **options) -> Difference:
    a, b = (counted(*own, clusters, seeds) for own in ((a_top, a_bottom), (b_top, b_bottom)))
    return difference_of(a, b, RATIO, seeds=seeds, **options)


def systems(drawn) -> list[list[Record]]:
    return [records(drawn, own) for own in drawn.systems]


def moved_by(drawn, **options) -> Difference:
    """Of the two systems of a drawn test set."""
    return difference_of(*systems(drawn), drawn.metric, **options)


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
    drawn = draw_errors(rng, 2_000, 0.3, 0.3)
    low, high = ends(drawn)
    errors, words = drawn.systems[0].T
    by_speaker = errors.reshape(-1, 10).sum(1), words.reshape(-1, 10).sum(1)
    ratio = errors.sum() / words.sum()
    residuals = by_speaker[0] - ratio * by_speaker[1]
    error = residuals.std(ddof=1) * math.sqrt(2_000) / words.sum()
    assert high - low == pytest.approx(2 * 196 * error, rel=0.01)


def test_width_agrees_with_a_bootstrap_over_speakers():
    rng = np.random.default_rng(1)
    drawn = draw_answers(rng, 100, 0.7, 0.1, unequal=True)
    found = ends(drawn)
    index = drawn.speakers[:, 0]
    sums, sizes = np.bincount(index, drawn.systems[0][:, 0]), np.bincount(index)
    draws = rng.multinomial(100, np.full(100, 0.01), size=4_000)
    low, high = np.quantile(100 * (draws @ sums) / (draws @ sizes), [0.025, 0.975])
    assert found[1] - found[0] == pytest.approx(high - low, rel=0.07)


@pytest.mark.parametrize(
    ("make", "mean", "spread"),
    [
        (draw_answers, 0.6, 0.1),
        (draw_answers, 0.9, 0.1),
        (draw_answers, 0.98, 0.05),
        (draw_errors, 0.08, 0.4),
        (draw_errors, 0.9, 0.2),
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
        low, high = ends(make(rng, speakers, mean, spread, unequal=repeat % 2 == 1))
        held += low <= 100 * mean <= high
    assert 0.912 <= held / 300 <= (0.987 if mean < 0.98 else 1)


@pytest.mark.parametrize("case", DIFFERENCE_CASES)
@pytest.mark.parametrize("speakers", [10, 40])
def test_coverage_of_differences(case, speakers):
    """Likewise a small version of the table of differences."""
    truth, draw = DIFFERENCE_CASES[case]
    rng = np.random.default_rng(speakers)
    held = 0
    for _ in range(300):
        low, high = ends(draw(rng, speakers))
        held += low <= truth <= high
    assert 0.912 <= held / 300 <= 0.99


def test_bootstraps_over_few_speakers_are_too_narrow():
    """Why they are not used; widened, they miss less but not enough where scores are high."""
    rng = np.random.default_rng(0)
    held = {"used": 0, "bootstrap": 0, "widened": 0}
    for _ in range(200):
        drawn = draw_answers(rng, 5, 0.98, 0.05)
        for name, (low, high) in (
            ("used", ends(drawn)),
            ("bootstrap", bootstrap_ends(rng, drawn)),
            ("widened", bootstrap_ends(rng, drawn, widened=True)),
        ):
            held[name] += low <= 98 <= high
    assert held["used"] >= 184
    assert held["bootstrap"] <= held["widened"] < 150


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
    drawn = draw_errors(rng, 20, 0.3, 0.6)
    errors, words = drawn.systems[0].T
    clusters = names(drawn.speakers[:, 0])
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


def test_seed_std():
    assert seed_std([50.0]) is None
    assert seed_std([50.0, 53.0, 58.0]) == pytest.approx(statistics.stdev([50, 53, 58]))


@pytest.mark.parametrize("statistic", [0.0, 0.3, -1.7, 2.5, 6.0])
@pytest.mark.parametrize("degrees", [1, 2, 3, 11, 40, 1_999, 2_001, 20_000])
def test_student_p_value(statistic, degrees):
    expected = 2 * stats.t.sf(abs(statistic), degrees)
    assert student_p_value(statistic, degrees) == pytest.approx(expected, abs=1e-11)


def test_p_value_and_interval_of_a_difference_agree():
    rng = np.random.default_rng(3)
    for _ in range(50):
        drawn = DIFFERENCE_CASES["WER 30 → 27 %"][1](rng, 10)
        found = moved_by(drawn)
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
        edge = moved_by(drawn, confidence=1 - found.p_value)
        assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-9)


def test_one_utterance_a_speaker_is_the_paired_t_test():
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 9, (2, 40))
    found = difference(a, [10] * 40, b, [10] * 40, names(range(40)))
    expected = stats.ttest_rel(b, a)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.degrees == expected.df
    assert found.standard_error == pytest.approx(10 * stats.sem(b - a))


@pytest.mark.parametrize("case", ["accuracy 90 → 90 %", "WER 8 → 8 %"])
def test_p_values_are_uniform_under_the_null(case):
    """Every level rejects its share of 1,000 sets, within three standard errors and 1 %."""
    truth, draw = DIFFERENCE_CASES[case]
    assert truth == 0
    rng = np.random.default_rng(11)
    found = np.array([moved_by(draw(rng, 20)).p_value for _ in range(1_000)])
    for level in (0.01, 0.05, 0.1, 0.25, 0.5, 0.75):
        error = 3 * math.sqrt(level * (1 - level) / 1_000)
        assert np.mean(found < level) == pytest.approx(level, abs=error + 0.01)
    if "WER" in case:  # differences of accuracies come in steps, exact ties among them
        assert stats.kstest(found, "uniform").pvalue > 0.01


def test_detectable_differences_are_detected_that_often():
    """Normal speaker means, whose test is exactly the t test: 80 % of sets find the difference."""
    rng = np.random.default_rng(5)
    speakers, level = 12, 0.01
    clusters = names(range(speakers))
    words = np.full(speakers, 100_000)
    a = np.full(speakers, 50_000)
    spread = 100 / 100_000 * 1_000 / math.sqrt(speakers)  # the true standard error, in points
    quantiles = stats.t.ppf(1 - level / 2, 11) + stats.t.ppf(0.8, 11)
    found = []
    for _ in range(1_500):
        b = a + np.rint(rng.normal(quantiles * spread * 1_000, 1_000, speakers))
        found.append(difference(a, words, b, words, clusters))
    estimates = np.array([entry.detectable(level, 0.8) for entry in found])
    assert math.sqrt(np.mean(estimates**2)) == pytest.approx(quantiles * spread, rel=0.05)
    assert np.mean([entry.p_value < level for entry in found]) == pytest.approx(0.8, abs=0.04)


def test_detectable_is_larger_for_more_power_and_a_stricter_level():
    found = difference([1, 4, 2], [9] * 3, [2, 2, 5], [9] * 3, names(range(3)))
    assert found.detectable() < found.detectable(level=0.01)
    assert found.detectable() < found.detectable(power=0.9)


def answers(both, a_only, b_only, neither):
    a = [1] * both + [1] * a_only + [0] * b_only + [0] * neither
    b = [1] * both + [0] * a_only + [1] * b_only + [0] * neither
    return a, b


@pytest.mark.parametrize(
    ("a_only", "b_only"), [(0, 0), (1, 0), (0, 5), (4, 4), (10, 3), (60, 90), (400, 300)]
)
def test_mcnemar_is_the_exact_binomial_test(a_only, b_only):
    trials = a_only + b_only
    expected = stats.binomtest(a_only, trials).pvalue if trials else 1
    assert mcnemar(*answers(7, a_only, b_only, 2)) == pytest.approx(expected)


def test_mcnemar_by_hand():
    # Of 10 discordant answers, at most 1 the one way: 2 * (1 + 10) / 1024.
    assert mcnemar(*answers(3, 9, 1, 0)) == pytest.approx(22 / 1024)


def test_mcnemar_nears_the_chi_square_of_the_textbook():
    a, b = answers(0, 5_000, 5_150, 0)
    statistic = (150 - 1) ** 2 / 10_150
    assert mcnemar(a, b) == pytest.approx(stats.chi2.sf(statistic, 1), rel=0.01)


def test_matched_pairs_by_hand():
    # Differences 2, 0, 1, 1 have mean 1, variance 2 / 3: W = 1 / sqrt(2 / 3 / 4) = sqrt(6).
    p_value = matched_pairs([0, 3, 1, 2], [2, 3, 2, 3])
    assert p_value == pytest.approx(2 * stats.norm.sf(math.sqrt(6)))
    assert matched_pairs([2, 3, 2, 3], [0, 3, 1, 2]) == p_value


def test_matched_pairs_are_uniform_under_the_null():
    rng = np.random.default_rng(6)
    found = [matched_pairs(*rng.poisson(2, (2, 100))) for _ in range(1_000)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("counts", [([1], [3]), ([1, 2], [1, 2]), ([1, 2], [2, 3])])
def test_matched_pairs_without_variance_find_nothing(counts):
    assert matched_pairs(*counts) == 1


@pytest.mark.parametrize("test", [mcnemar, matched_pairs])
def test_paired_tests_need_pairs(test):
    with pytest.raises(SuperbError, match="got 2 and 1"):
        test([1, 0], [1])
    with pytest.raises(SuperbError, match="got 0 and 0"):
        test([], [])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_keeps_the_error_of_the_family():
    """Five true nulls and one false: some true one is called false in at most 5 % of families."""
    rng = np.random.default_rng(7)
    nulls = rng.random((2_000, 5))
    wrong = [min(holm([*family, 1e-6])[:5]) < 0.05 for family in nulls]
    assert 0.03 < np.mean(wrong) < 0.065


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.floats(-9, 9, allow_nan=False).map(lambda x: round(x, 2))),
        min_size=2,
        max_size=12,
    )
)
def test_spearman(rows):
    x, y = zip(*rows, strict=True)
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


def test_a_ratio_without_a_unit_is_no_percentage():
    records = counted([1, 0, 3, 2], [4, 5, 6, 7], list("aabc"))
    plain = interval_of(records, Metric("m", "lower", unit=""))
    found = interval_of(records, RATIO)
    assert (100 * plain.value, 100 * plain.low) == pytest.approx((found.value, found.low))
    moved = difference_of(records, counted([2, 2, 1, 0], [4, 5, 6, 7], list("aabc")), RATIO)
    assert moved.value == pytest.approx(100 * (5 / 22 - 6 / 22))


def test_figures_of_the_past():
    """One seed of counts: these were there before other statistics were, and must not change."""
    found = interval([1, 0, 3, 2], [4, 5, 6, 7], ["a", "a", "b", "c"])
    assert (found.value, found.low, found.high) == pytest.approx(
        (27.27272727272727, 5.355737099566527, 138.8794182882432), rel=1e-9
    )
    found = difference([1, 0, 3, 2], [4, 5, 6, 7], [2, 2, 1, 0], [4, 5, 6, 7], list("aabc"))
    assert (found.value, found.low, found.standard_error) == pytest.approx(
        (-4.545454545454544, -111.67718406090485, 24.898995165173034), rel=1e-9
    )
    assert found.degrees == 2


@pytest.mark.parametrize("case", TRIAL_CASES)
@pytest.mark.parametrize("speakers", [10, 20])
def test_coverage_of_equal_error_rates(case, speakers):
    """A small version of the measurement, as `test_coverage`."""
    truth, make = TRIAL_CASES[case]
    rng = np.random.default_rng(speakers)
    found = [ends(make(rng, speakers)) for _ in range(300)]
    assert 0.9 <= np.mean([low <= truth <= high for low, high in found]) <= 0.995


@pytest.mark.parametrize("case", TRIAL_DIFFERENCE_CASES)
@pytest.mark.parametrize("speakers", [10, 20])
def test_coverage_of_differences_of_equal_error_rates(case, speakers):
    truth, make = TRIAL_DIFFERENCE_CASES[case]
    rng = np.random.default_rng(speakers)
    found = [ends(make(rng, speakers)) for _ in range(300)]
    assert 0.9 <= np.mean([low <= truth <= high for low, high in found]) <= 0.99


@pytest.mark.parametrize("case", SEARCH_CASES)
def test_coverage_of_what_searches_of_a_size_give(case):
    """The best threshold of a few searches flatters them: intervals are about such test sets."""
    truth, make = SEARCH_CASES[case]
    rng = np.random.default_rng(20)
    found = [interval_of(systems(make(rng, 20))[0], MTWV) for _ in range(60)]
    expected = np.mean([one.value for one in found])
    assert truth < expected < truth + 5
    assert 0.86 <= np.mean([one.low <= expected <= one.high for one in found]) <= 1


def test_the_truth_of_simulated_trials():
    rng = np.random.default_rng(0)
    one, other = systems(draw_trials(rng, 2_000, 0.06, 0.08))
    assert interval_of(one, EER).value == pytest.approx(6, abs=0.5)
    assert interval_of(other, EER).value == pytest.approx(8, abs=0.5)


def test_a_bootstrap_over_few_speakers_is_too_narrow_for_trials_too():
    truth, make = TRIAL_CASES["EER 2 %"]
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(100):
        drawn = make(rng, 5)
        for place, (low, high) in enumerate((ends(drawn), bootstrap_trial_ends(rng, drawn))):
            held[place] += low <= truth <= high
    assert held[0] >= 90
    assert held[1] < 80


@pytest.mark.parametrize("cases", [RERUN_CASES, RERUN_DIFFERENCE_CASES])
def test_several_seeds_cover_reruns(cases):
    rng = np.random.default_rng(1)
    name = next(name for name in cases if "98" in name and "3 seeds" in name)
    truth, make = cases[name]
    held = np.zeros(2)
    for _ in range(150):
        drawn = make(rng, 40)
        for place, reruns in enumerate((True, False)):
            low, high = ends(drawn, reruns=reruns)
            held[place] += low <= truth <= high
    assert held[0] >= 140
    assert held[1] < 135


def test_reruns_that_differ_widen_the_interval():
    top, ones, clusters = [1, 1, 0, 1] * 5, [1] * 20, names(i // 2 for i in range(20))
    worse = [0, *top[1:]]
    same = interval(top + top, ones * 2, clusters * 2, seeds=2)
    apart = interval(top + worse, ones * 2, clusters * 2, seeds=2)
    assert apart.high - apart.low > same.high - same.low
    assert difference(top * 2, ones * 2, top + worse, ones * 2, clusters * 2, seeds=2).degrees < 9
    assert difference(top, ones, worse, ones, clusters).degrees == 9


def test_a_trial_belongs_to_both_its_speakers():
    records = systems(draw_trials(np.random.default_rng(0), 12, 0.2))[0]
    found = interval_of(records, EER)
    assert (found.clusters, found.utterances, found.by_utterance) == (12, len(records), False)
    turned = [replace(record, clusters=record.clusters[::-1]) for record in records]
    assert interval_of(turned, EER) == found
    once = [replace(r, clusters=tuple(dict.fromkeys(r.clusters))) for r in records]
    assert interval_of(once, EER) == found
    first = [replace(record, clusters=record.clusters[:1]) for record in records]
    assert interval_of(first, EER).high - found.low < found.high - found.low
    alone = interval_of([replace(r, clusters=("",)) for r in records], EER)
    assert (alone.clusters, alone.by_utterance) == (len(records), True)
    assert alone.high - alone.low < found.high - found.low


def test_trials_that_are_all_right_are_not_certain():
    scores = [(float(kind), kind) for kind in (0, 1)] * 40
    records = [
        Record(f"t{place}", (f"s{place % 8}", f"s{(place + place % 2) % 8}"), "", "", {"eer": row})
        for place, row in enumerate(scores)
    ]
    found = interval_of(records, EER)
    assert (found.value, found.low) == (0, 0)
    assert 1 < found.high < 20


def test_seeds_of_other_statistics_are_averaged_and_not_pooled():
    """Scores of two trained heads need not be on the same scale."""
    one = systems(draw_trials(np.random.default_rng(0), 12, 0.2))[0]
    moved = [
        replace(record, values={"eer": (score + 100, kind)})
        for record in one
        for score, kind in [record.values["eer"]]
    ]
    alone, both = interval_of(one, EER), interval_of(one + moved, EER, seeds=2)
    assert (both.value, both.low, both.high, both.utterances) == pytest.approx(
        (alone.value, alone.low, alone.high, alone.utterances)
    )
    found = difference_of(one + moved, moved + one, EER, seeds=2)
    assert (found.value, found.p_value) == (0, 1)


def in_folds(rows) -> list[Record]:
    return [
        Record(f"u{place}", (speaker,), "", "", {"m": (right, 1)}, fold)
        for place, (fold, speaker, right) in enumerate(rows)
    ]


def test_folds_are_averaged_and_their_speakers_are_the_units():
    rng = np.random.default_rng(0)
    rates = rng.beta(8, 4, 10)
    rows = [
        (f"fold {speaker // 2}", f"s{speaker}", int(rng.random() < rates[speaker]))
        for speaker in range(10)
        for _ in range(20)
    ]
    found = interval_of(in_folds(rows), RATIO)
    pooled = interval_of([replace(record, fold="") for record in in_folds(rows)], RATIO)
    # folds of one size: the mean of folds is that of all
    assert (found.value, found.low, found.high, found.clusters) == pytest.approx(
        (pooled.value, pooled.low, pooled.high, 10)
    )
    uneven = in_folds(rows + [("fold 0", "s0", 1)] * 100)
    folds = [np.mean([r.values["m"][0] for r in uneven if r.fold == f"fold {n}"]) for n in range(5)]
    assert interval_of(uneven, RATIO).value == pytest.approx(100 * np.mean(folds))
    better = [replace(record, values={"m": (1, 1)}) for record in uneven]
    assert difference_of(uneven, better, RATIO).value == pytest.approx(100 - 100 * np.mean(folds))


def test_means_of_values_have_no_bounds():
    values = [(-3.0,), (5.0,), (1.0,), (-9.0,)]
    records = [Record(f"u{i}", (f"s{i}",), "", "", {"m": row}) for i, row in enumerate(values)]
    found = interval_of(records, MEAN)
    half = stats.sem([row[0] for row in values]) * stats.t.ppf(0.975, 3)
    assert (found.value, found.low) == pytest.approx((-1.5, -1.5 - half))
    same = difference_of(records, records, MEAN)
    assert (same.value, same.standard_error, same.p_value) == (0, 0, 1)


def trials(clusters, values) -> list[Record]:
    return [
        Record(f"t{place}", own, "", "", {"m": row})
        for place, (own, row) in enumerate(zip(clusters, values, strict=True))
    ]


def test_trials_of_one_pair_of_speakers_stand_for_themselves():
    """Nothing is left without either: no reason to take the value for certain."""
    values = [(float(place % 7),) for place in range(50)]
    other = [(value + 0.01 * (place == 3),) for place, (value,) in enumerate(values)]
    a, b = (trials([("x", "y")] * 50, own) for own in (values, other))
    found = interval_of(a, MEAN)
    half = stats.sem([row[0] for row in values]) * stats.t.ppf(0.975, 49)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
    assert (found.clusters, found.by_utterance) == (50, True)
    moved = difference_of(a, b, MEAN)
    assert moved.p_value == pytest.approx(stats.ttest_rel(other, values).pvalue[0])
    assert moved.by_utterance


def test_a_speaker_in_every_trial_is_no_unit():
    values = [(float(place % 7),) for place in range(50)]
    found = interval_of(trials([("x", f"y{place % 5}") for place in range(50)], values), MEAN)
    alone = interval_of(trials([(f"y{place % 5}",) for place in range(50)], values), MEAN)
    assert found == alone
    assert (found.clusters, found.by_utterance) == (5, False)


def test_a_speaker_with_all_that_is_counted_cannot_be_left_out():
    silent = [("y",)] * 5 + [("z",)] * 5
    found = interval_of(trials([("x",)] * 10 + silent, [(1, 2)] * 10 + [(0, 0)] * 10), RATIO)
    assert found.by_utterance
    f1 = Metric("m", "higher", "f1")
    values = [(1, place % 2, 0) for place in range(10)] + [(0, 0, 0)] * 10
    a, b = (trials([("x",)] * 10 + silent, own) for own in (values, [(1, 0, 0)] * 10 + values[10:]))
    assert interval_of(a, f1).by_utterance
    assert difference_of(a, b, f1).p_value > 0.001


def test_classes_of_one_speaker_each_say_nothing_about_other_speakers():
    """Leaving a speaker out would leave out a class: utterances are all that can differ."""
    rng = np.random.default_rng(8)
    metric = Metric("m", "higher", "unweighted-accuracy")
    speakers = [(f"s{place % 6}",) for place in range(120)]
    p_values = []
    for _ in range(300):
        a, b = (
            trials(speakers, [(int(right), place % 6) for place, right in enumerate(own)])
            for own in rng.random((2, 120)) < 0.8
        )
        found = difference_of(a, b, metric)
        assert (found.clusters, found.by_utterance) == (120, True)
        p_values.append(found.p_value)
    assert 0.012 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_targets_of_one_speaker_stand_for_themselves():
    rng = np.random.default_rng(9)
    clusters = [("x", "x")] * 40 + [("x", f"y{place % 8}") for place in range(40)]
    values = [(float(score), int(place < 40)) for place, score in enumerate(rng.normal(0, 1, 80))]
    found = interval_of(trials(clusters, values), Metric("m", "lower", "equal-error-rate"))
    assert (found.clusters, found.by_utterance) == (48, True)


def test_folds_may_share_their_test_utterances():
    rng = np.random.default_rng(10)
    for known in (True, False):
        once = [
            Record(f"u{place}", (f"s{place % 8}" if known else "",), "", "", {"m": (right, 1)})
            for place, right in enumerate((rng.random(80) < 0.8).tolist())
        ]
        folds = [replace(record, fold=f"f{fold}") for fold in range(5) for record in once]
        found, alone = interval_of(folds, RATIO), interval_of(once, RATIO)
        assert (found.value, found.low, found.high) == pytest.approx(
            (alone.value, alone.low, alone.high)
        )
        assert (found.clusters, found.utterances) == (alone.clusters, alone.utterances)
        sure = [replace(record, values={"m": (1, 1)}) for record in folds]
        sure_once = [replace(record, fold="") for record in sure[:80]]
        assert interval_of(sure, RATIO).low == pytest.approx(interval_of(sure_once, RATIO).low)
        moved, expected = difference_of(folds, sure, RATIO), difference_of(once, sure_once, RATIO)
        assert moved.p_value == pytest.approx(expected.p_value)


def test_records_that_do_not_fit():
    one = counted([1, 0], [1, 1], ["a", "b"])
    with pytest.raises(SuperbError, match="2 records cannot be 3 seeds"):
        interval_of(one, RATIO, seeds=3)
    with pytest.raises(SuperbError, match="same records in the same order"):
        interval_of(one, RATIO, seeds=2)
    with pytest.raises(SuperbError, match="same records in the same order"):
        difference_of(one, one[::-1], RATIO)
    with pytest.raises(SuperbError, match="nothing to score"):
        interval_of([], RATIO)
    with pytest.raises(SuperbError, match="every record needs 1 numbers"):
        interval_of(one, Metric("m", "lower", "mean"))
    with pytest.raises(SuperbError, match="one cluster or two"):
        interval_of([replace(record, clusters=("a", "b", "c")) for record in one], RATIO)
    with pytest.raises(SuperbError, match="nothing to score"):
        interval([1], [0], ["a"])
    with pytest.raises(SuperbError, match="not negative"):
        interval([-1], [1], ["a"])
    with pytest.raises(SuperbError, match="finite"):
        interval_of([replace(one[0], values={"m": (math.nan, 1)})], RATIO)
    with pytest.raises(SuperbError, match=r"one test record, u0.*two or more"):
        interval_of([replace(one[0], values={"m": (3.0,)})], MEAN)
