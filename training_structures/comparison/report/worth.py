"""Whether a set is worth fusing on, and what differences its runs could have shown: sentences."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from ..methods import FUSION, SINGLE, SYSTEM
from ..paired import MIN_RUNS, Paired
from ..power import POWER, smallest_difference
from .findings import Findings
from .table import LEVEL, Row, difference, difference_cells, number

ABOVE = 0.001  # from which a fusion counts as above a modality: MulTaBench's rule


def worth(found: Findings) -> list[str]:
    """Returns whether the set is worth fusing on, in a sentence: the best fusion against the best
    single modality, both chosen on validation, tested once on the scored part.

    Args:
        found: the comparison.
    """
    rows = found.table()
    joint = [row for row in rows if row.kind in (FUSION, SYSTEM)]
    single = [row for row in rows if row.kind == SINGLE]
    if not joint:
        return []
    if len(found.recipe.modalities) == 1:
        return ["Whether it is worth fusing cannot be told: there is one modality."]
    if not single:
        return [
            "Whether it is worth fusing is not told: single modalities are not among the methods "
            "(--no-unimodal, unimodal=False)."
        ]
    name = found.score.name
    fusion, alone = (best_on_validation(found, group) for group in (joint, single))
    test = None
    if fusion is not None and alone is not None:
        groups = runs_of(found, fusion), runs_of(found, alone)
        test = difference(groups[0], groups[1], found.score, found.test_share)
    if test is None or not math.isfinite(test.difference):
        return [f"Whether it is worth fusing cannot be told: {name} is undefined."]
    bar = next(row.scores[name].mean for row in rows if row.method == alone)
    sign = -1 if found.score.lower else 1
    above = sum(sign * (row.scores[name].mean - bar) >= ABOVE for row in joint)
    told, p = difference_cells(test, found.score)
    unit = " points" if found.score.percent else ""
    less = ", less is better" if found.score.lower else ""
    return [
        f"Worth fusing: {_answer(test, sign)}. On validation {fusion} is the best fusion and "
        f"{alone} the best single modality; {fusion} minus {alone}: {told}{unit} of {name}{less}"
        f"{f', p {p}' if p else ''}. Of {len(joint)} {'fusions' if len(joint) > 1 else 'fusion'} "
        f"{above} score{'s' * (above == 1)} above {alone}."
    ]


def _answer(test: Paired, sign: int) -> str:
    if test.p is None:
        return f"too few runs to tell, take {MIN_RUNS} or more"
    if test.p >= LEVEL:
        return "not shown, the difference is within chance"
    return "yes, beyond chance" if sign * test.difference > 0 else "no, it loses beyond chance"


def best_on_validation(found: Findings, rows: Sequence[Row]) -> str | None:
    """Returns which of these methods has the best mean validation score; None if there is none."""
    means = {}
    for row in rows:
        own = [r.get("valid", {}).get(found.score.name) for r in runs_of(found, row.method)]
        if own and None not in own and math.isfinite(fmean(own)):
            means[row.method] = fmean(own)
    return (min if found.score.lower else max)(means, key=means.__getitem__) if means else None


def runs_of(found: Findings, method: str) -> list[Mapping[str, Any]]:
    """Returns a method's results, run by run."""
    return [result for result in found.results if result["method"] == method]


def smallest(found: Findings, times: int = 1) -> dict[str, float]:
    """Returns method -> the smallest difference from the baseline that the table's test could have
    shown, with a chance of `POWER`, at the level that Holm's correction asks of the first of all
    comparisons; of methods that have enough runs for a test, and differ.

    Args:
        found: the comparison.
        times: how many times as many runs there would be.
    """
    tests = {row.method: row.test for row in found.table()}
    tested = [name for name, test in tests.items() if test is not None and test.p is not None]
    gaps = {}
    for method in tested:
        sides = (runs_of(found, name) for name in (method, str(found.baseline)))
        own, other = ({r["run"]: r["scores"][found.score.name] for r in side} for side in sides)
        values = [own[run] - other[run] for run in sorted(own.keys() & other.keys())]
        sd = float(np.std(values, ddof=1))
        if sd > 0 and math.isfinite(sd):
            gaps[method] = smallest_difference(
                *(sd, times * len(values)),
                test_share=found.test_share,
                level=LEVEL / len(tested),
            )
    return gaps


def resolution(found: Findings) -> list[str]:
    """Returns what differences from the baseline the runs could have shown, in a sentence."""
    gaps = smallest(found)
    if not gaps:
        return []
    unit = " points" if found.score.percent else ""
    middle, more = (median(smallest(found, times).values()) for times in (1, 2))
    ends = [number(end(gaps.values()), found.score) for end in (min, max)]
    spread = f" ({ends[0]} to {ends[1]} by method)" if len(gaps) > 1 else ""
    runs = max(row.runs for row in found.table())
    return [
        f"What {runs} runs can show: a method that truly differs from {found.baseline} by "
        f"{number(middle, found.score)}{unit} of {found.score.name}{spread} is told from chance "
        f"{POWER:.0%} of the time; of smaller differences nothing is said either way. Twice as "
        f"many runs: {number(more, found.score)}."
    ]
