"""The summary of what the runs measured: the tables, and the curves of pictures and CSV."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from deq_fusion.examples.studies.convergence.rows import ROWS, SOLVES, TIED
from deq_fusion.examples.studies.drawing import mean_band
from deq_fusion.examples.studies.output import Summary, score_table
from deq_fusion.examples.studies.score_tables import difference_column, score_column
from deq_fusion.examples.studies.tables import Bounded, Column, Table
from deq_fusion.training_structures.comparison import Comparison, Score
from deq_fusion.training_structures.comparison.report.text import csv_text

FLOOR = 1e-12  # a mean that float32 rounds to zero still has a logarithm


class Curve(NamedTuple):
    """A quantity at some points, such as steps: over the runs that have one there."""

    x: list[float]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: np.ndarray


def _curve(x: Sequence[float], values: Any, share: float | None, *, logs: bool = False) -> Curve:
    """Returns the curve of values (runs, points); with `logs` by their logarithms.

    Relative norms span decades, which a mean of them would not show.
    """
    values = np.array(values, dtype=float)  # None is NaN
    bounds = mean_band(np.log10(np.maximum(values, FLOOR)) if logs else values, share)
    bounds = [10**v for v in bounds] if logs else bounds
    return Curve([float(each) for each in x], *bounds, np.isfinite(values).sum(0))


class Measured(NamedTuple):
    """The measurements of each run of a row, and how much the runs' parts overlap."""

    runs: list[dict[str, Any]]
    test_share: float | None  # see `estimate`


def trace_curve(found: Measured, solve: str, quantity: str) -> Curve | None:
    """Returns a quantity of the fused state's solve against steps, over the runs.

    Mean and 95 % interval are those of the logarithm; a run counts as far as its solve went.
    None if no run has this solve.

    Args:
        found: of `measured_rows`.
        solve: such as "joint anderson".
        quantity: "difference" or "residual".
    """
    runs = [
        list(run["traces"][solve].values())[-1][quantity]
        for run in found.runs
        if "failed" not in run["traces"][solve]
    ]
    longest = max(map(len, runs), default=0)
    if not longest:
        return None
    filled = [run + [None] * (longest - len(run)) for run in runs]
    return _curve(range(1, longest + 1), filled, found.test_share, logs=True)


def early_curve(found: Measured, kind: str, score: Score, *, gain: bool = True) -> Curve | None:
    """Returns the validation score against "tolerance" or "limit", over the runs.

    Args:
        gain: each run's score minus its own at the most exact setting, which comes last; of a
            weight-tied row, at the steps of its training.
    """
    runs = [run["early"] for run in found.runs if "failed" not in run["early"]]
    if not runs or kind not in runs[0]:
        return None
    tried, solved = list(runs[0][kind]), "tolerance" in runs[0]
    values = np.array([[run[kind][x][score.name] for x in tried] for run in runs])
    if gain:
        values = values - values[:, [-1 if solved else tried.index(str(TIED))]]
    return _curve(tried, values, runs[0]["share"])


def radius_curve(found: Measured, which: str) -> Curve | None:
    """Returns a number of `measure`'s radii for each state's map, over the runs.

    Mean and 95 % interval of radii are those of the logarithm. None if no run has them.
    """
    runs = [run["radii"] for run in found.runs if "failed" not in run["radii"]]
    if not runs:
        return None
    values = [[state[which] for state in run.values()] for run in runs]
    logs = which in ("mean", "largest")
    return _curve(range(len(runs[0])), values, found.test_share, logs=logs)


def traces_csv(comparisons: Mapping[str, Comparison]) -> str:
    """Returns all traces, a line a step: mean and 95 % interval over runs, of the logarithm.

    Each run's value is the mean over the samples that were still solved at that step.
    """
    head = ["injection", "row", "solve", "quantity", "step", "runs", "mean", "low", "high"]
    return csv_text(head, _trace_lines(comparisons))


def _trace_lines(comparisons: Mapping[str, Comparison]) -> Iterator[list[Any]]:
    for injection, row, found in _rows(comparisons):
        for solve in found.runs[0]["traces"]:
            for quantity in ("difference", "residual"):
                curve = trace_curve(found, solve, quantity)
                for point in _points(curve):
                    yield [injection, row, solve, quantity, *point]


def early_csv(comparisons: Mapping[str, Comparison]) -> str:
    """Returns all scores on the validation part by tolerance and step limit, as they come.

    `gain` is the score minus the same run's at the most exact setting, see `early_curve`.
    """
    head = ["injection", "row", "kind", "score", "value", "runs", "mean", "low", "high"]
    head += ["gain", "gain_low", "gain_high", "steps"]
    lines = []
    for injection, row, found in _rows(comparisons):
        steps = Score("steps")
        for kind, score in product(("tolerance", "limit"), comparisons[injection].scores):
            curves = [early_curve(found, kind, s, gain=False) for s in (score, steps)]
            gains = early_curve(found, kind, score)
            if gains is None:
                continue
            for point, (_, _, *gain), taken in zip(
                _points(curves[0]), _points(gains), curves[1].mean, strict=True
            ):
                lines.append([injection, row, kind, score.name, *point, *gain, f"{taken:.4g}"])
    return csv_text(head, lines)


def radii_csv(comparisons: Mapping[str, Comparison]) -> str:
    """Returns the spectral radii of every state's map, at the samples that converged.

    Their mean and the largest, the share of them that is below 1 (contracts), and the share of
    the samples that converged.
    """
    head = ["injection", "row", "state", "quantity", "runs", "mean", "low", "high"]
    lines = []
    for injection, row, found in _rows(comparisons):
        for which in RADII:
            curve = radius_curve(found, which)
            for state, (_, *point) in zip(states_of(found), _points(curve), strict=True):
                lines.append([injection, row, state, which, *point])
    return csv_text(head, lines)


RADII = "mean", "largest", "contracts", "converged"


def states_of(found: Measured) -> list[str]:
    """Returns the states whose maps have a radius; none if no run has one."""
    runs = [run["radii"] for run in found.runs if "failed" not in run["radii"]]
    return list(runs[0]) if runs else []


def measured_rows(comparison: Comparison) -> dict[str, Measured]:
    """Returns row -> what was measured, in the order of the study; of rows that have runs."""
    results = comparison.results
    found = {row: [r["analysis"] for r in results if r["method"] == row] for row in ROWS}
    found = {row: [run for run in runs if run] for row, runs in found.items()}
    return {row: Measured(runs, comparison.test_share) for row, runs in found.items() if runs}


def _rows(comparisons: Mapping[str, Comparison]) -> Iterator[tuple[str, str, Measured]]:
    for injection, comparison in comparisons.items():
        for row, found in measured_rows(comparison).items():
            yield injection, row, found


def _points(curve: Curve | None) -> Iterator[list[Any]]:
    for x, mean, low, high, runs in () if curve is None else zip(*curve, strict=True):
        bounds = ("" if np.isnan(v) else f"{v:.6g}" for v in (mean, low, high))
        yield [f"{x:g}", runs, *bounds]


SHOWN = (1, 2, 5, 10, 20, 40, 100)


def summary(comparisons: Mapping[str, Comparison]) -> Summary:
    """Returns traces at some steps, scores of solves that end early, the rows' scores, and CSV."""
    numbers = {"traces.csv": traces_csv, "radii.csv": radii_csv, "early.csv": early_csv}
    tables = [traces_table(comparisons), early_table(comparisons)]
    tables += [score_table(comparisons, list(ROWS))]
    found = {name: write(comparisons) for name, write in numbers.items()}
    return Summary([table for table in tables if table.rows], found)


def traces_table(comparisons: Mapping[str, Comparison]) -> Table:
    """Returns the traces at some steps, and the largest spectral radius."""
    lines = []
    for injection, comparison in comparisons.items():
        rows = measured_rows(comparison)
        for name, (row, solve) in SOLVES.items():
            for quantity in ("difference", "residual") if row in rows else ():
                curve = trace_curve(rows[row], solve, quantity)
                values = [] if curve is None else curve.mean
                shown = [values[k - 1] if k <= len(values) else None for k in SHOWN]
                lines.append([injection, name, solve, quantity, *shown, *_radii(rows[row])])
    columns = [*map(Column, ("injection", "row", "solve", "quantity"))]
    columns += [Column(f"step {k}", ".1e") for k in SHOWN]
    columns += [Column("largest radius", ".2f"), Column("radius below 1", ".1%")]
    columns += [Column("solved", ".1%")]
    title = "Relative change of z_fuse and residual of the joint state, by step of the solver"
    return Table("traces", columns, lines, 4, title)


def _radii(found: Measured) -> list[float | None]:
    """Returns the largest radius of all states and runs, the share below 1, and of solved ones."""
    radii = [run["radii"] for run in found.runs if "failed" not in run["radii"]]
    states = [state for run in radii for state in run.values()]
    there = [state for state in states if state["largest"] is not None]
    if not there:
        return [None, None, None]
    largest = max(state["largest"] for state in there)
    below = fmean(state["contracts"] for state in there)
    return [largest, below, fmean(s["converged"] for s in states)]


def early_table(comparisons: Mapping[str, Comparison]) -> Table:
    """Returns the validation score by tolerance and step limit, and what it differs by."""
    score = next(iter(comparisons.values())).score
    lines = []
    for injection, row, found in _rows(comparisons):
        for kind in ("tolerance", "limit"):
            gains = early_curve(found, kind, score)
            if gains is None:
                continue
            values = early_curve(found, kind, score, gain=False).mean
            steps = early_curve(found, kind, Score("steps"), gain=False).mean
            for x, value, taken, *gain in zip(gains.x, values, steps, *gains[1:4], strict=True):
                lines.append([injection, row, kind, f"{x:g}", value, Bounded(*gain), taken])
    columns = [*map(Column, ("injection", "row", "what ends the solve", "at"))]
    columns += [score_column(score), difference_column(score, "minus its own")]
    columns += [Column("steps", ".1f")]
    title = f"Validation {score.name} where the solve ends earlier, or later, than in training"
    return Table("early", columns, lines, 4, title)
