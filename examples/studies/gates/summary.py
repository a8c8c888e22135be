"""The summary of the runs' shares: tables, and every number of the pictures as CSV."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from statistics import fmean
from typing import Any

from deq_fusion.examples.studies.gates.measure import Curves
from deq_fusion.examples.studies.gates.rows import FULL, NOISY, ROWS
from deq_fusion.examples.studies.output import Summary, score_table
from deq_fusion.examples.studies.tables import Bounded, Column, Table
from deq_fusion.training_structures.comparison import Comparison
from deq_fusion.training_structures.comparison.paired import estimate
from deq_fusion.training_structures.comparison.report.text import csv_text

AS_IT_IS, AT_INFERENCE, THROUGHOUT = "as it is", "noise at inference: ", "noise throughout: "
ALL = "all"


@dataclass(frozen=True)
class Point:
    """A share of the gate, in percent, over the runs.

    Attributes:
        injection: of the fusion that was trained.
        row: which it was.
        condition: what is noise: `AS_IT_IS`, `AT_INFERENCE` or `THROUGHOUT`, and the modality.
        group: `ALL`, or a class.
        samples: of the group; the mean over the runs.
        step: of the solve, from 1.
        modality: whose share it is.
        runs: how many had such samples.
        mean: over them.
        low: where its 95 % interval begins, corrected where the runs resplit one set (see
            `estimate`); NaN for a single run.
        high: where it ends.
    """

    injection: str
    row: str
    condition: str
    group: str
    samples: float
    step: int
    modality: str
    runs: int
    mean: float
    low: float
    high: float


def points_of(comparisons: Mapping[str, Comparison]) -> list[Point]:
    """Returns all points, injection by injection, row by row, and every curve step by step."""
    found = []
    for injection, comparison in comparisons.items():
        names = comparison.recipe.modalities
        for row in ROWS:
            runs = [r["analysis"] for r in comparison.results if r["method"] == row]
            runs = [run for run in runs if run]
            curves: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
            for run in runs:
                for key, part in _parts(row, run, names):
                    curves.setdefault(key, []).append(part)
            for key, parts in curves.items():
                samples = fmean(part["samples"] for part in parts)
                shares = [part["shares"] for part in parts]
                where = injection, row, *key, samples
                found += _averaged(where, names, shares, comparison.test_share)
    return found


def _parts(
    row: str, run: Mapping[str, Any], names: Sequence[str]
) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    """Yields (condition, group) and what was found then, of a run."""
    usual = AS_IT_IS if row == FULL else THROUGHOUT + names[NOISY[row]]
    yield (usual, ALL), run
    for group, found in run["groups"].items():
        yield (usual, group), found
    for name, shares in run.get("noise_at_inference", {}).items():
        yield (AT_INFERENCE + name, ALL), {"samples": run["samples"], "shares": shares}


def _averaged(
    where: tuple, names: Sequence[str], runs: Sequence[Curves], test_share: float | None
) -> Iterator[Point]:
    for step, rows in enumerate(zip(*runs, strict=True), start=1):
        for index, name in enumerate(names):
            found = estimate([100 * row[index] for row in rows], test_share=test_share)
            yield Point(*where, step, name, len(rows), found.mean, found.low, found.high)


def numbers(points: Sequence[Point]) -> str:
    """Returns a line of CSV for each point; intervals that there are not are empty."""
    lines = ([round(x, 4) if isinstance(x, float) else x for x in astuple(p)] for p in points)
    shown = (["" if value != value else value for value in line] for line in lines)
    return csv_text([field.name for field in fields(Point)], shown)


def summary(comparisons: Mapping[str, Comparison]) -> Summary:
    """Returns shares at some steps, at the last one what noise does, scores, and all numbers.

    Raises:
        SystemExit: if no row with a gate was trained.
    """
    points = points_of(comparisons)
    if not points:
        sys.exit(f"no gates to show: --fusions must name one of {', '.join(ROWS)}")
    tables = [*tables_of(points), score_table(comparisons, list(ROWS))]
    return Summary(tables, {"gates.csv": numbers(points)})


def tables_of(points: Sequence[Point]) -> list[Table]:
    """Returns the shares by step, and those at the last step by what is noise, where any is."""
    last = max(point.step for point in points)
    everyone = [point for point in points if point.group == ALL]
    steps = [step for step in (1, 2, 5) if step < last] + [last]
    usual = [p for p in everyone if p.condition == AS_IT_IS and p.step in steps]
    final = [p for p in everyone if p.step == last]
    noisy = any(p.condition != AS_IT_IS for p in final)
    title = f"Share of the gate, mean and 95 % interval; runs: {points[0].runs}"
    found = []
    if usual:
        found.append(_table("shares", title, usual, ("injection", "modality"), "step"))
    if noisy:
        title = f"The same at step {last}, where a modality is noise"
        found.append(_table("noise", title, final, ("injection", "condition"), "modality"))
    return found


def _table(
    name: str, title: str, points: Sequence[Point], lines: tuple[str, str], column: str
) -> Table:
    """Returns the points in lines by two attributes and in columns by a third."""
    found: dict[tuple, dict[str, Bounded]] = {}
    for point in points:
        line = tuple(getattr(point, key) for key in lines)
        head = f"step {point.step}" if column == "step" else getattr(point, column)
        cell = Bounded(*(value / 100 for value in (point.mean, point.low, point.high)))
        found.setdefault(line, {})[head] = cell
    heads = list(dict.fromkeys(head for cells in found.values() for head in cells))
    columns = [*map(Column, lines), *(Column(head, ".1%") for head in heads)]
    rows = [[*line, *map(cells.get, heads)] for line, cells in found.items()]
    return Table(name, columns, rows, len(lines), title)
