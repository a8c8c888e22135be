"""The power of a comparison: the smallest difference that its runs could have shown."""

import math
from functools import cache

from scipy import stats
from scipy.optimize import brentq

POWER = 0.8  # of showing a difference that is there


def smallest_difference(
    sd: float,
    runs: int,
    *,
    test_share: float | None = None,
    level: float = 0.05,
    power: float = POWER,
) -> float:
    """Returns the difference of means that `compare_paired` finds with a probability of `power`.

    Of a true difference D its t has a noncentral t distribution with runs - 1 degrees of freedom
    and the noncentrality D / (sd sqrt(1 / runs + test_share)); exactly so for normal differences
    that are as alike between runs as Nadeau and Bengio (2003) assume. Of both sides of the test
    the wrong one is left out: below 1e-6.

    Args:
        sd: standard deviation of the differences between runs.
        runs: their number, two at least.
        test_share: see `compare_paired`.
        level: of the test, two-sided.
        power: above the level, and below 1.

    Raises:
        ValueError: for numbers out of these ranges.
    """
    if runs < 2 or not sd >= 0 or not 0 < level < power < 1:
        raise ValueError(
            "the smallest difference needs two runs, an sd of at least 0, and a power between the "
            f"level and 1, got runs {runs}, sd {sd}, level {level}, power {power}"
        )
    return _noncentrality(runs, level, power) * sd * math.sqrt(1 / runs + (test_share or 0))


@cache
def _noncentrality(runs: int, level: float, power: float) -> float:
    """Returns the noncentrality at which a test of that level has that power."""
    freedom = runs - 1
    critical = float(stats.t.ppf(1 - level / 2, freedom))

    def lacks(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, freedom, noncentrality)) - power

    end = 2 * critical
    while lacks(end) < 0:
        end *= 2
    return float(brentq(lacks, 0, end))
