"""Warnings of runs: kept with each result, and told once a method instead of once a run."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

LONGEST = 2000  # characters of a warning that are kept


@contextmanager
def kept() -> Iterator[list[dict[str, str]]]:
    """Yields a list of the warnings that come meanwhile, `category` and `text`: the first of each
    line of code. What the filters make an error is one, and what they ignore is not kept."""
    found: dict[tuple, dict[str, str]] = {}
    told: list[dict[str, str]] = []

    def keep(message: Any, category: type, filename: str, line: int, *_: Any) -> None:
        if (category, filename, line) not in found:
            entry = {"category": category.__name__, "text": str(message)[:LONGEST]}
            found[category, filename, line] = entry
            told.append(entry)

    with warnings.catch_warnings():
        warnings.showwarning = keep
        yield told


def summary(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence for each method and kind of warning of its runs."""
    groups: dict[tuple[str, str], list[str]] = {}
    for result in results:
        first = {entry["category"]: entry["text"] for entry in reversed(result.get("warnings", []))}
        for category, text in first.items():
            groups.setdefault((result["method"], category), []).append(text)
    said = []
    for (method, category), texts in groups.items():
        own = [result for result in results if result["method"] == method]
        shares = [r["solver_converged"] for r in own if "solver_converged" in r]
        share = ""
        if category == "ConvergenceWarning" and shares:
            missed = 100 * (1 - sum(shares) / len(shares))
            share = f"; {missed:.2g} % of its solves in training did not converge"
        said.append(
            f"{method}: {category} in {len(texts)} of {len(own)} runs, first: {texts[0]}{share}"
        )
    return said
