"""Methods that the budget of epochs has stopped: perhaps undertrained, and so compared unfairly."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..methods import Method

TENTH, SHARE = 0.1, 0.2  # the end of the budget, and the share of runs that may be best there


def stopped(methods: Sequence[Method], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence for each bound on epochs in whose last tenth methods had their best epoch
    in over a fifth of their runs: these may have been getting better still.

    A schedule that is planned over the epochs has the best one last by design, and is left out.

    Args:
        methods: all of them.
        results: their runs.
    """
    found: dict[int, list[str]] = {}
    for method in methods:
        bound = method.recipe.epochs
        best = [r["best_epoch"] for r in results if r["method"] == method.name if "best_epoch" in r]
        last = sum(epoch > (1 - TENTH) * bound for epoch in best)
        if method.recipe.scheduler is None and last > SHARE * len(best):
            found.setdefault(bound, []).append(method.name)
    return [
        f"Stopped by the bound of {bound} epoch{'s' * (bound > 1)}, in whose last tenth lies the "
        f"best one of over {SHARE:.0%} of the runs, and so perhaps undertrained: "
        f"{', '.join(names)}. Allow twice as many (epochs, --epochs {2 * bound}), and see whether "
        "validation gains by it."
        for bound, names in found.items()
    ]
