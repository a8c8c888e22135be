"""The summary of what the runs measured: tables, and the curves of pictures and CSV."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deq_fusion.examples.studies.drawing import mean_band
from deq_fusion.examples.studies.output import Summary, in_order, score_table
from deq_fusion.examples.studies.score_tables import difference_column, score_column
from deq_fusion.examples.studies.tables import Bounded, Column, Table
from deq_fusion.examples.studies.uniqueness.rows import ROWS
from deq_fusion.training_structures.comparison import Comparison, Score
from deq_fusion.training_structures.comparison.report.text import csv_text

SELECTED = "selected"  # the epoch that was chosen, whichever it was
QUANTITIES = {  # of a look -> its column
    "several": Column("several fixed points", ".1%"),
    "starts_differ": Column("starts differ", ".1%"),
    "solvers_differ": Column("solvers differ", ".1%"),
    "solvers_differ_from_zero": Column("solvers differ from zero", ".1%"),
    "judged": Column("judged", ".1%"),
    "radius_median": Column("median radius", ".2f"),
    "radius_largest": Column("largest radius", ".2f"),
    "contracts": Column("radius below 1", ".1%"),
}


class Point(NamedTuple):
    """A quantity at one moment of training, over the runs that have it there."""

    when: str
    mean: float
    low: float
    high: float
    runs: int


def points(runs: Sequence[Mapping[str, Any]], quantity: str) -> list[Point]:
    """Returns a quantity of the looks of runs, by moment: 0, 1, 2, 4, ... and `SELECTED`.

    Runs end at epochs of their own: later moments have fewer of them.

    Args:
        runs: what `measure` returned of each.
        quantity: one of `QUANTITIES`.
    """
    share = next((run["share"] for run in runs if run.get("share") is not None), None)
    epochs = sorted({int(epoch) for run in runs for epoch in run["looks"]})
    moments = {str(e): [run["looks"].get(str(e), {}) for run in runs] for e in epochs}
    moments[SELECTED] = [run.get(SELECTED, {}) for run in runs]
    found = []
    for when, looks in moments.items():
        values = [x[quantity] for x in looks if x.get(quantity) is not None]
        if values:
            (mean,), (low,), (high,) = mean_band(np.array(values)[:, None], share)
            found.append(Point(when, mean, low, high, len(values)))
    return found


def differences(runs: Sequence[Mapping[str, Any]], score: Score) -> dict[str, list[float]]:
    """Returns how much it matters for a score which fixed points are taken, a number a run.

    Returns:
        `own`: the score as the model stands; `lowest` and `highest` of those from each solve;
        `range`: highest minus lowest. Runs whose score is undefined in some solve are left out.
    """
    found: dict[str, list[float]] = {"own": [], "lowest": [], "highest": [], "range": []}
    for run in runs:
        own, *others = [of.get(score.name) for of in run.get("scores", {}).values()] or [None]
        if own is None or None in others:
            continue
        lowest, highest = min(others), max(others)
        for name, value in zip(found, (own, lowest, highest, highest - lowest), strict=True):
            found[name].append(value)
    return found


def measured_rows(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Returns row -> what was measured of its runs, in the order of the study; rows with any."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in in_order(comparison, list(ROWS)):
        runs = [r.get("analysis") for r in comparison.results if r["method"] == row]
        if any(runs):
            found[row] = [run for run in runs if run]
    return found


def _rows(
    comparisons: Mapping[str, Comparison],
) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    for injection, comparison in comparisons.items():
        for row, runs in measured_rows(comparison).items():
            yield injection, row, runs


def looks_csv(comparisons: Mapping[str, Comparison]) -> str:
    """Returns all looks, a line a moment and quantity: mean and 95 % interval over runs."""
    head = ["injection", "row", "quantity", "epoch", "runs", "mean", "low", "high"]
    lines = []
    for injection, row, runs in _rows(comparisons):
        for quantity in QUANTITIES:
            for when, *bounds, count in points(runs, quantity):
                shown = ["" if np.isnan(x) else f"{x:.6g}" for x in bounds]
                lines.append([injection, row, quantity, when, count, *shown])
    return csv_text(head, lines)


def scores_csv(comparisons: Mapping[str, Comparison]) -> str:
    """Returns the scores with the fixed points of each solve in the fusion's place, run by run."""
    head = ["injection", "row", "run", "score", "solve", "value"]
    lines = [
        [injection, row, number, score.name, solve, of.get(score.name)]
        for injection, row, runs in _rows(comparisons)
        for number, run in enumerate(runs)
        for score in comparisons[injection].scores
        for solve, of in run.get("scores", {}).items()
    ]
    return csv_text(head, lines)


def summary(comparisons: Mapping[str, Comparison]) -> Summary:
    """Returns the fixed points through training, what they mean for the score, scores, and CSV."""
    numbers = {"looks.csv": looks_csv(comparisons), "solutions.csv": scores_csv(comparisons)}
    tables = [looks_table(comparisons), solutions_table(comparisons)]
    tables += [score_table(comparisons, list(ROWS))]
    return Summary([table for table in tables if table.rows], numbers)


def looks_table(comparisons: Mapping[str, Comparison]) -> Table:
    """Returns the looks before training, during it, and at the selected epoch."""
    lines = []
    for injection, row, runs in _rows(comparisons):
        by_quantity = {q: {p.when: p for p in points(runs, q)} for q in QUANTITIES}
        moments = dict.fromkeys(when for found in by_quantity.values() for when in found)
        for when in sorted(moments, key=lambda when: (when == SELECTED, when.zfill(9))):
            of = [by_quantity[q].get(when) for q in QUANTITIES]
            first = of[0] and Bounded(of[0].mean, of[0].low, of[0].high)
            count = max(p.runs for p in of if p)
            lines.append([injection, row, when, count, first, *(p and p.mean for p in of[1:])])
    columns = [Column("injection"), Column("row"), Column("epoch"), Column("runs", ".0f")]
    title = "Samples with several fixed points, through training (epoch 0: before)"
    return Table("uniqueness", [*columns, *QUANTITIES.values()], lines, 3, title)


def solutions_table(comparisons: Mapping[str, Comparison]) -> Table:
    """Returns the lowest and the highest score that the fixed points found give, by row."""
    score = next(iter(comparisons.values())).score
    lines = []
    for injection, row, runs in _rows(comparisons):
        found = differences(runs, score)
        if not found["own"]:
            continue
        means = [float(np.mean(found[name])) for name in ("own", "lowest", "highest")]
        share = next((run["share"] for run in runs if run.get("share") is not None), None)
        bounds = [float(x[0]) for x in mean_band(np.array(found["range"])[:, None], share)]
        lines.append([injection, row, len(found["own"]), *means, Bounded(*bounds)])
    columns = [Column("injection"), Column("row"), Column("runs", ".0f")]
    columns += [score_column(score, "own"), score_column(score, "lowest")]
    columns += [score_column(score, "highest"), difference_column(score, "highest minus lowest")]
    title = f"Validation {score.name} with the fixed points of each solver and start"
    return Table("solutions", columns, lines, 2, title)
