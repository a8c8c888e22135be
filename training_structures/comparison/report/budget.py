"""Methods that the budget of epochs has stopped: perhaps undertrained, and so compared unfairly."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..methods import Method
from ..paired import Paired
from ..recipe import Score
from .table import LEVEL, difference_cells

TENTH, SHARE = 0.1, 0.2  # the end of the budget, and the share of runs that may be best there


def at_the_bound(methods: Sequence[Method], results: Sequence[Mapping[str, Any]]) -> list[Method]:
    """Returns the methods that had their best epoch in the last tenth of the budget in over a fifth
    of their runs: these may have been getting better still.

    A schedule that is planned over the epochs has the best one last by design, and is left out.

    Args:
        methods: all of them.
        results: their runs.
    """
    found = []
    for method in methods:
        bound = method.recipe.epochs
        best = [r["best_epoch"] for r in results if r["method"] == method.name if "best_epoch" in r]
        last = sum(epoch > (1 - TENTH) * bound for epoch in best)
        if method.recipe.scheduler is None and last > SHARE * len(best):
            found.append(method)
    return found


def stopped(
    methods: Sequence[Method],
    results: Sequence[Mapping[str, Any]],
    score: Score,
    doubled: Mapping[str, Paired] | None = None,
) -> list[str]:
    """Returns a sentence for each bound on epochs that may have stopped methods, and of what twice
    as many have given on validation data, where that was tried.

    Args:
        methods: all of them.
        results: their runs.
        score: what they are compared by.
        doubled: see `doubling.doubled`; None: it was not tried.
    """
    bounds: dict[int, list[str]] = {}
    for method in at_the_bound(methods, results):
        bounds.setdefault(method.recipe.epochs, []).append(method.name)
    said = []
    for bound, names in bounds.items():
        text = (
            f"Stopped by the bound of {bound} epoch{'s' * (bound > 1)}, in whose last tenth lies "
            f"the best one of over {SHARE:.0%} of the runs, and so perhaps undertrained: "
            f"{', '.join(names)}."
        )
        if doubled is None:
            text += (
                f" Allow twice as many (epochs, --epochs {2 * bound}), and see whether validation "
                "gains by it (--double-epochs)."
            )
        else:
            text += _gains(names, score, doubled)
        said.append(text)
    return said


def _gains(names: Sequence[str], score: Score, doubled: Mapping[str, Paired]) -> str:
    """Returns of which methods validation gains beyond chance by twice the epochs."""
    unit = " points" if score.percent else ""
    gaining, others, untold = [], [], []
    for name in names:
        test = doubled.get(name)
        if test is None or test.p is None or math.isnan(test.difference):
            untold.append(name)
            continue
        told, p = difference_cells(test, score)
        gains = test.p < LEVEL and (test.difference < 0) == score.lower
        (gaining if gains else others).append(f"{name} ({told}{unit}, p {p})")
    parts = []
    if gaining:
        parts.append(
            f" With twice as many, validation {score.name} gains beyond chance of "
            f"{', '.join(gaining)}: undertrained here, so do not judge by this table."
        )
    if others:
        parts.append(f" Twice as many bring nothing beyond chance to {', '.join(others)}.")
    if untold:
        parts.append(f" Of {', '.join(untold)} it cannot be told.")
    return "".join(parts)
