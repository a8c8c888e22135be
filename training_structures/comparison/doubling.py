"""Twice the epochs for the methods that the bound on them may have stopped: does validation gain?

Such a run goes the same way as the one before it, and then on. As the epoch is selected on
validation data, which then has more to choose from, a small gain there is to be expected; whether
it is beyond chance is what is tested. No test part is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .comparison import Comparison
from .methods import Method
from .paired import Paired, holm
from .report.budget import at_the_bound
from .report.table import difference


def check_doubled(trials: int) -> None:
    """Raises ValueError for a search, which has a setting of its own in every run."""
    if trials > 1:
        raise ValueError(
            "twice the epochs are tried with one setting of every method: leave out double_epochs "
            "(--double-epochs), or the search"
        )


def doubled(
    found: Comparison, again: Callable[..., Comparison], output: Path | None
) -> dict[str, Paired]:
    """Returns, of each method that the bound may have stopped, its validation score with twice the
    epochs minus that before, tested in the same runs; `p` is corrected for their number (Holm).

    Methods whose runs fail are left out.

    Args:
        found: the comparison.
        again: `compare`, with all but the recipe, the fusions and the output.
        output: folder of these runs, one for each method; None: nothing is kept.
    """
    tests: dict[str, Paired] = {}
    for method in at_the_bound(found.methods, found.results):
        folder = None if output is None else output / method.name
        after = again(*_twice(method, found), output=folder)
        before: list[Mapping[str, Any]] = [
            result | {"scores": result["valid"]}
            for result in found.results
            if result["method"] == method.name and "valid" in result
        ]
        test = difference(after.results, before, found.score, after.test_share)
        if test is not None:
            tests[method.name] = test
    adjusted = holm([test.p for test in tests.values()])
    return {
        name: replace(test, p=p) for (name, test), p in zip(tests.items(), adjusted, strict=True)
    }


def _twice(method: Method, found: Comparison) -> tuple[Any, dict[str, Any]]:
    """Returns the recipe and the method with twice the epochs, scored on the validation part."""
    epochs = 2 * method.recipe.epochs
    asked: dict[str, Any] = {"epochs": epochs, "part": "valid", "floors": {}}
    if method.system is not None:
        return replace(found.recipe, **asked), {method.name: method.system.shortened(epochs)}
    return replace(method.recipe, **asked), {method.name: method.fusion}
