"""The smallest difference that could have been shown, against simulated comparisons."""

import math

import numpy as np
import pytest
from scipy import stats

from deq_fusion.training_structures.comparison.paired import compare_paired
from deq_fusion.training_structures.comparison.power import smallest_difference

TIMES = 1500


def share_found(runs, test_share, level, difference):
    """How often the test finds a true difference of runs that are as alike as it assumes."""
    rng = np.random.default_rng(0)
    alike = (test_share or 0) / (1 + (test_share or 0))  # correlation of two runs' differences
    shared = math.sqrt(alike) * rng.normal(size=(TIMES, 1))
    own = math.sqrt(1 - alike) * rng.normal(size=(TIMES, runs))
    # compare_paired's sd is that between runs, of the part that they do not share
    noise = (shared + own) / math.sqrt(1 - alike)
    tests = (compare_paired(x + difference, 0 * x, test_share=test_share) for x in noise)
    return np.mean([test.p < level for test in tests])


@pytest.mark.parametrize(
    ("runs", "test_share", "level"),
    [(6, None, 0.05), (20, 1 / 3, 0.05), (20, 1 / 3, 0.05 / 12)],
)
def test_it_is_found_as_often_as_it_says(runs, test_share, level):
    smallest = smallest_difference(1.0, runs, test_share=test_share, level=level)
    found = share_found(runs, test_share, level, smallest)
    bound = 4 * math.sqrt(0.8 * 0.2 / TIMES)  # 4 %
    assert abs(found - 0.8) < bound
    assert share_found(runs, test_share, level, 0.8 * smallest) < 0.8 - bound


def test_of_many_runs_it_is_that_of_a_normal_distribution():
    expected = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * 3.0 / math.sqrt(5000)
    assert smallest_difference(3.0, 5000) == pytest.approx(expected, rel=1e-3)


def test_more_runs_show_less_but_fresh_splits_of_one_set_have_an_end():
    found = [smallest_difference(1.0, runs, test_share=0.25) for runs in (6, 20, 200, 5000)]
    assert found == sorted(found, reverse=True)
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert found[-1] == pytest.approx(z * 0.5, rel=1e-2)  # sqrt(test_share)


@pytest.mark.parametrize(
    "wrong", [{"runs": 1}, {"sd": -1.0}, {"sd": math.nan}, {"level": 0.9}, {"power": 1.0}]
)
def test_what_it_cannot_take_is_answered(wrong):
    given = {"sd": 1.0, "runs": 8} | wrong
    with pytest.raises(ValueError, match="needs two runs, an sd of at least 0, and a power"):
        smallest_difference(given.pop("sd"), given.pop("runs"), **given)
