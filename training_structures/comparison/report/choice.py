"""The choice that a comparison makes on validation data, and in a sentence how far that goes."""

import math
from statistics import fmean

from ..methods import FLOOR, SYSTEM
from ..paired import MIN_RUNS, holm
from .findings import Findings
from .table import LEVEL, difference, number, p_cell


def choose(found: Findings) -> tuple[str, float]:
    """Returns the fusion, system or single modality that is best on validation data, and its mean
    validation score over the runs; no method that failed in one of them, and no floor.

    Raises:
        ValueError: if there is none.
    """
    failed = {failure["method"] for failure in found.failures}
    means = {}
    for method in found.methods:
        own = [r["valid"] for r in found.results if r["method"] == method.name and "valid" in r]
        if method.kind == FLOOR or method.name in failed or not own:
            continue
        mean = fmean(valid.get(found.score.name, math.nan) for valid in own)
        if not math.isnan(mean):
            means[method.name] = mean
    if not means:
        raise ValueError(
            f"the best needs a method with a validation {found.score.name} in every run, there "
            "is none"
        )
    name = (min if found.score.lower else max)(means, key=means.__getitem__)
    return name, means[name]


def chosen(found: Findings) -> list[str]:
    """Returns a text on what is chosen, and on the floors that are no worse beyond chance; none
    where nothing can be chosen."""
    try:
        name, valid = choose(found)
    except ValueError:
        return []
    score, row = found.score, next(row for row in found.table() if row.method == name)
    unit = " %" if score.percent else ""
    scores = f"{score.name} {number(valid, score)}{unit} there"
    if found.recipe.part == "test":
        scores += f", {number(row.scores[score.name].mean, score)}{unit} on the test part"
    text = f"Chosen on validation data: {name} ({scores}). "
    systems = "systems, " * any(method.kind == SYSTEM for method in found.methods)
    text += f"Only {systems}fusions and single modalities can be chosen, no floors."
    return [" ".join([text, *_near(found, name)])]


def too_few(found: Findings) -> str:
    """Returns that the runs are too few to choose by, where they are, without a capital and a full
    stop; else nothing."""
    runs = len({result["run"] for result in found.results})
    if runs >= MIN_RUNS:
        return ""
    many = f"{runs} runs are" if runs > 1 else "a single run is"
    return f"{many} too few to choose by: take {MIN_RUNS} at least, better 20"


def _near(found: Findings, name: str) -> list[str]:
    """Returns the floors that the method is not beyond chance better than, by tests in the same
    runs, corrected for the number of floors."""
    floors = [method.name for method in found.methods if method.kind == FLOOR]
    own = [result for result in found.results if result["method"] == name]
    tests = {}
    for floor in floors:
        theirs = [result for result in found.results if result["method"] == floor]
        test = difference(own, theirs, found.score, found.test_share)
        if test is not None and test.p is not None:
            tests[floor] = test
    said = []
    adjusted = holm([test.p for test in tests.values()])
    for (floor, test), p in zip(tests.items(), adjusted, strict=True):
        worse = test.difference != 0 and (test.difference > 0) == found.score.lower
        if p is not None and p >= LEVEL:
            said.append(
                f"{floor}, a floor, is within chance of it (p {p_cell(p)}), and costs less: think "
                "of using just that."
            )
        elif worse:
            said.append(f"{floor}, a floor, is better than it beyond chance: use it.")
    return said
