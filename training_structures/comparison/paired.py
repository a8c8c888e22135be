"""The statistics of repeated runs: intervals, paired tests, corrections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Paired:
    """A paired comparison of two methods over the same runs.

    Attributes:
        difference: mean of first minus second.
        low: the lower end of its 95 % confidence interval; NaN for fewer than two runs.
        high: the upper end; likewise.
        p: two-sided p-value; None for fewer than `MIN_RUNS` runs.
    """

    difference: float
    low: float
    high: float
    p: float | None


@dataclass(frozen=True)
class Estimate:
    """A method's score over its runs; what needs a second run is NaN without one.

    Attributes:
        mean: over the runs.
        sd: standard deviation between runs.
        low: the lower end of the mean's 95 % confidence interval.
        high: the upper end.
    """

    mean: float
    sd: float
    low: float
    high: float


MIN_RUNS = 6  # with fewer runs no p-value is given


def estimate(values: Sequence[float], *, test_share: float | None = None) -> Estimate:
    """Returns mean, spread and interval of scores over runs.

    Args:
        values: a score for each run.
        test_share: see `compare_paired`.
    """
    x = np.asarray(values, dtype=float)
    mean, runs = float(x.mean()), len(x)
    if runs < 2:
        return Estimate(mean, math.nan, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, runs - 1)) * _error(x, test_share)
    with np.errstate(over="ignore"):  # a loss of 1e200 spreads beyond what a float holds
        spread = float(x.std(ddof=1))
    return Estimate(mean, spread, mean - half, mean + half)


def _error(x: np.ndarray, test_share: float | None) -> float:
    """Returns the standard error of the mean."""
    with np.errstate(over="ignore"):
        variance = float(x.var(ddof=1))
    return math.sqrt((1 / len(x) + (test_share or 0)) * variance)


def compare_paired(
    first: Sequence[float], second: Sequence[float], *, test_share: float | None = None
) -> Paired:
    """Compares two methods by their scores in the same runs, with Student's t distribution.

    Args:
        first: scores of one method, run by run.
        second: scores of the other, in the same runs.
        test_share: test samples per training sample, where every run is a fresh split of one
            set. Such runs share samples, and the variance of the mean difference is then
            (1 / runs + test_share) * variance (Nadeau and Bengio's corrected resampled t-test,
            2003, section 4). None: independent runs, variance / runs.
    """
    d = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    mean, runs = float(d.mean()), len(d)
    if runs < 2:
        return Paired(mean, math.nan, math.nan, None)
    error = _error(d, test_share)
    half = float(stats.t.ppf(0.975, runs - 1)) * error
    p = None
    if runs >= MIN_RUNS and math.isfinite(mean):
        t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
        p = float(2 * stats.t.sf(abs(t), runs - 1))
    return Paired(mean, mean - half, mean + half, p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusts p-values for multiple comparisons (Holm, 1979); None entries do not count."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted
