"""The measurements of all runs brought together: what pictures draw and CSV files hold."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from examples.convergence.rows import ROWS, TIED
from examples.drawing import mean_band
from training_structures.comparison import Score
from training_structures.comparison.report import Report

FLOOR = 1e-12  # a mean that float32 rounds to zero still has a logarithm


class Curve(NamedTuple):
    """A quantity against steps (or tolerance), over the runs of a row."""

    x: list[float]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


class Measured(NamedTuple):
    """What was measured of each run of a row, and how much the runs' parts overlap."""

    runs: list[dict[str, Any]]
    test_share: float | None  # see `estimate`


def trace_curve(found: Measured, solve: str, quantity: str) -> Curve | None:
    """Returns a quantity of the fused state's solve against steps, over the runs.

    Mean and 95 % interval are those of the logarithm: relative norms span decades. A run
    counts as far as its solve went. None if no run has this solve.

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
    logs = np.full((len(runs), longest), np.nan)
    for line, run in zip(logs, runs, strict=True):
        line[: len(run)] = np.log10(np.maximum(run, FLOOR))
    return Curve(
        list(range(1, longest + 1)), *(10**v for v in mean_band(logs, found.test_share)), len(runs)
    )


def early_curve(found: Measured, kind: str, score: Score, *, gain: bool = True) -> Curve | None:
    """Returns the validation score against "tolerance" or "limit", over the runs.

    Args:
        gain: each run's score minus its own at the most exact setting, which comes last; of a
            weight-tied row, at the steps of its training.
    """
    settings = found.runs[0]["early"]
    if kind not in settings:
        return None
    tried, solved = list(settings[kind]), "tolerance" in settings
    unit = 100 if score.percent else 1
    values = np.array(
        [[unit * run["early"][kind][x][score.name] for x in tried] for run in found.runs]
    )
    if gain:
        values = values - values[:, [-1 if solved else tried.index(str(TIED))]]
    return Curve([float(x) for x in tried], *mean_band(values, found.test_share), len(found.runs))


def radius_curve(found: Measured, which: str) -> Curve:
    """Returns the spectral radius of each state's map ("mean" or "largest" over samples).

    Mean and 95 % interval over the runs are those of the logarithm.
    """
    radii = [[state[which] for state in run["radii"].values()] for run in found.runs]
    logs = np.log10(np.maximum(radii, FLOOR))
    bounds = (10**v for v in mean_band(logs, found.test_share))
    return Curve(list(range(logs.shape[1])), *bounds, len(found.runs))


def traces_csv(reports: Mapping[str, Report]) -> str:
    """Returns all traces, a line a step: mean and 95 % interval over runs, of the logarithm."""
    head = ["injection", "row", "solve", "quantity", "step", "runs", "mean", "low", "high"]
    return _csv(head, _trace_lines(reports))


def _trace_lines(reports: Mapping[str, Report]) -> Iterator[list[Any]]:
    for injection, row, found in _rows(reports):
        for solve in found.runs[0]["traces"]:
            for quantity in ("difference", "residual"):
                curve = trace_curve(found, solve, quantity)
                for point in () if curve is None else _points(curve):
                    yield [injection, row, solve, quantity, *point]


def early_csv(reports: Mapping[str, Report]) -> str:
    """Returns all scores on the validation part by tolerance and step limit."""
    head = ["injection", "row", "kind", "score", "value", "runs", "mean", "low", "high"]
    head += ["gain", "gain_low", "gain_high", "steps"]
    lines = []
    for injection, row, found in _rows(reports):
        for kind, tried in found.runs[0]["early"].items():
            steps = [np.mean([run["early"][kind][x]["steps"] for run in found.runs]) for x in tried]
            for score in reports[injection].scores:
                plain = early_curve(found, kind, score, gain=False)
                gains = early_curve(found, kind, score)
                for point, (_, _, *gain), taken in zip(
                    _points(plain), _points(gains), steps, strict=True
                ):
                    line = [injection, row, kind, score.name, *point, *gain, f"{taken:.4g}"]
                    lines.append(line)
    return _csv(head, lines)


def radii_csv(reports: Mapping[str, Report]) -> str:
    """Returns the spectral radii of every state's map: mean and largest of the samples."""
    head = ["injection", "row", "state", "of_samples", "runs", "mean", "low", "high"]
    lines = []
    for injection, row, found in _rows(reports):
        for which in ("mean", "largest"):
            curve = radius_curve(found, which)
            for state, (_, *point) in zip(found.runs[0]["radii"], _points(curve), strict=True):
                lines.append([injection, row, state, which, *point])
    return _csv(head, lines)


def measured_rows(report: Report) -> dict[str, Measured]:
    """Returns row -> what was measured, in the order of the study; of rows that have runs."""
    results = report.found.results
    found = {row: [r["analysis"] for r in results if r["method"] == row] for row in ROWS}
    return {row: Measured(runs, report.test_share) for row, runs in found.items() if runs}


def _rows(reports: Mapping[str, Report]) -> Iterator[tuple[str, str, Measured]]:
    for injection, report in reports.items():
        for row, found in measured_rows(report).items():
            yield injection, row, found


def _points(curve: Curve) -> Iterator[list[Any]]:
    for x, mean, low, high in zip(curve.x, curve.mean, curve.low, curve.high, strict=True):
        yield [f"{x:g}", curve.runs, *(f"{v:.6g}" for v in (mean, low, high))]


def _csv(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return stream.getvalue()
