"""Intervals, paired tests and Holm's correction, against scipy and the written formulas."""

import math

import numpy as np
import pytest
from scipy import stats

from deq_fusion.training_structures.comparison.paired import (
    MIN_RUNS,
    compare_paired,
    estimate,
    holm,
)

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.normal(0.8, 0.03, 12), RNG.normal(0.78, 0.03, 12)


def test_an_estimate_has_the_interval_of_student():
    ours = estimate(FIRST)
    low, high = stats.t.interval(0.95, 11, loc=FIRST.mean(), scale=stats.sem(FIRST))
    assert (ours.mean, ours.sd) == pytest.approx((FIRST.mean(), FIRST.std(ddof=1)))
    assert (ours.low, ours.high) == pytest.approx((low, high))


def test_an_estimate_over_fresh_splits_has_the_larger_variance():
    mean = sum(FIRST) / 12
    variance = sum((x - mean) ** 2 for x in FIRST) / 11
    half = stats.t.ppf(0.975, 11) * math.sqrt((1 / 12 + 0.25) * variance)
    ours = estimate(FIRST, test_share=0.25)
    assert (ours.low, ours.high) == pytest.approx((mean - half, mean + half))
    assert ours.sd == pytest.approx(math.sqrt(variance))  # the spread is that of the runs


def test_one_run_has_a_mean_and_nothing_else():
    ours = estimate([0.75], test_share=0.25)
    assert ours.mean == 0.75
    assert all(math.isnan(x) for x in (ours.sd, ours.low, ours.high))


def test_losses_beyond_all_squares_are_spread_without_end():
    ours = estimate([1e200, 2e200, 3e200], test_share=0.25)
    assert ours.mean == pytest.approx(2e200)
    assert (ours.sd, ours.low, ours.high) == (math.inf, -math.inf, math.inf)
    assert compare_paired([1e200, 3e200], [0.0, 0.0]).high == math.inf


def test_independent_runs_give_the_paired_t_test():
    ours = compare_paired(FIRST, SECOND)
    theirs = stats.ttest_rel(FIRST, SECOND)
    interval = theirs.confidence_interval(0.95)
    assert ours.difference == pytest.approx((FIRST - SECOND).mean())
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))


def test_resampled_runs_get_the_larger_variance_of_nadeau_and_bengio():
    """Their equation: t = mean / sqrt((1 / k + n_test / n_train) var), k - 1 degrees."""
    d = FIRST - SECOND
    t = d.mean() / math.sqrt((1 / 12 + 106 / 196) * d.var(ddof=1))
    ours = compare_paired(FIRST, SECOND, test_share=106 / 196)
    assert ours.p == pytest.approx(2 * stats.t.sf(abs(t), 11))
    assert ours.p > compare_paired(FIRST, SECOND).p
    half = stats.t.ppf(0.975, 11) * abs(d.mean() / t)
    assert ours.high - ours.difference == pytest.approx(half)


def test_few_runs_get_no_p_value():
    assert compare_paired(FIRST[: MIN_RUNS - 1], SECOND[: MIN_RUNS - 1]).p is None
    assert compare_paired(FIRST[:MIN_RUNS], SECOND[:MIN_RUNS]).p is not None
    assert math.isnan(compare_paired(FIRST[:1], SECOND[:1]).low)


def test_what_is_not_a_number_gets_no_p_value():
    missing = [math.nan, *FIRST[1:]]
    assert compare_paired(missing, SECOND).p is None
    assert math.isnan(compare_paired(missing, SECOND).difference)


def test_equal_scores_are_no_difference_and_constant_ones_are_certain():
    assert compare_paired(FIRST, FIRST).p == 1
    assert compare_paired([2.0] * 6, [1.0] * 6).p == 0


def test_holm_rejects_what_the_step_down_procedure_rejects():
    """Holm (1979): in order of p, reject while p_(i) <= level / (m - i + 1)."""
    p = [0.012, 0.3, 0.001, 0.02, 0.04]
    for level in (0.005, 0.05, 0.06, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(5), key=p.__getitem__)):
            if p[i] > level / (5 - rank):
                break
            rejected.add(i)
        assert {i for i, q in enumerate(holm(p)) if q <= level} == rejected


def test_holm_leaves_out_what_was_not_tested():
    assert holm([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]
    assert holm([]) == []
