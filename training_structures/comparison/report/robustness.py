"""Robustness over runs: areas under curves, tested against the baseline's, as tables and numbers.

Of a curve s(x) over levels x from 0, in one run:

- its relative robustness is the area under it, divided by the width of the levels (Liang et al.,
  2021, MultiBench, whose levels have steps of 0.1): the mean score over the levels. Areas are
  sums of trapezoids;
- its effective robustness is the mean of (s(x) - s(0)) - (b(x) - b(0)) over the levels, likewise,
  where b is the baseline's in the same run: by how much s lies above the baseline's curve once that
  is shifted to the same clean score (Taori et al., 2020, with that shift in place of
  their fit, as MultiBench has it, which adds up the levels).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from ..methods import FUSION
from ..paired import Estimate, Paired, compare_paired, estimate, holm
from ..recipe import Score
from ..robustness import ALL, ANY, KINDS, MISSING, NOISE, ZEROS
from .table import Result, difference_cells, interval, score_heading, spread
from .text import csv_text

LEGEND = (
    "Relative robustness: the area under the curve of {score} over the levels {levels}, by their "
    "width, a mean over them (MultiBench, Liang et al., 2021)."
)
EFFECTIVE = (
    " Effective robustness: the same mean of what a curve lies above {baseline}'s once that is "
    "shifted to the same score on clean data (Taori et al., 2020, as in MultiBench)."
)
DRAWN = (
    " Noise, and which samples lack a modality, are the same for all methods of a run. A sample "
    "lacks it as the fusion knows absence, else by zeros; (zeros): by zeros although it knows. p: "
    "paired, corrected for the number of methods (Holm, 1979), and for resampling as above."
)

BRIEF = (
    "Second table: the same score's mean over rising noise in all modalities, and over rising "
    "shares of samples that lack one (relative robustness); effective: its mean above {baseline}'s "
    "curve, shifted to the same clean score. Each curve is in results.md."
)


@dataclass(frozen=True)
class Robust:
    """A method's robustness by one curve, over its runs; `Score` says which way is better.

    Attributes:
        method: its name.
        method_kind: one of `methods.KINDS`.
        kind: "noise", "missing" (samples without a modality), or "zeros" (the same with zeros of
            a fusion that could be told).
        where: the modality, "all" of them or "any" one.
        levels: of noise, or the shares of samples.
        curve: the score at each level.
        relative: the relative robustness.
        test: the relative robustness minus the baseline's, `p` corrected for the methods (Holm).
        effective: the effective robustness, tested against 0, likewise.
        told: of "missing", the relative robustness minus that with zeros, likewise; None of a
            method that has but one way.
    """

    method: str
    method_kind: str
    kind: str
    where: str
    levels: tuple[float, ...]
    curve: tuple[Estimate, ...]
    relative: Estimate
    test: Paired | None
    effective: Paired | None
    told: Paired | None

    @property
    def name(self) -> str:
        """The method, and whether it met zeros although it can be told of absence."""
        return f"{self.method} (zeros)" if self.kind == ZEROS else self.method


def area(levels: Sequence[float], values: Any) -> float:
    """Returns the area under values at levels, by the width of these: a mean height."""
    return float(trapezoid(values, levels)) / (levels[-1] - levels[0])


def robust_rows(
    results: Sequence[Result],
    score: Score,
    modalities: Sequence[str],
    *,
    baseline: str | None = None,
    test_share: float | None = None,
) -> list[Robust]:
    """Returns a row for each curve and method, curve by curve, the best relative robustness first.

    Args:
        results: of a `Comparison`; those without robustness are left out.
        score: what is compared.
        modalities: their order.
        baseline: the method that the others are compared with.
        test_share: see `compare_paired`.
    """
    methods: dict[str, dict[int, Result]] = {}
    for result in results:
        if "robustness" in result:
            methods.setdefault(result["method"], {})[result["run"]] = result
    reference = methods.get(baseline or "", {})
    rows = []
    for kind, where in curves_of(modalities):
        own = [
            _row(kind, where, runs, {} if name == baseline else reference, score, test_share)
            for name, runs in methods.items()
            if all(where in run["robustness"].get(kind, {}) for run in runs.values())
        ]
        rows += _sorted(_corrected(own), score)
    return rows


def curves_of(modalities: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (kind, where) of all curves, the one of all modalities first."""
    return [
        (kind, where) for kind in KINDS for where in (ALL if kind == NOISE else ANY, *modalities)
    ]


def _row(
    kind: str,
    where: str,
    runs: Mapping[int, Result],
    reference: Mapping[int, Result],
    score: Score,
    test_share: float | None,
) -> Robust:
    first = next(iter(runs.values()))
    curves = [_curve(result, kind, where, score) for result in runs.values()]

    def over_runs(values: Any) -> Estimate:
        found = estimate(values, test_share=test_share)
        return replace(found, low=score.bounded(found.low), high=score.bounded(found.high))

    def paired(one: Mapping[int, float], two: Mapping[int, float]) -> Paired | None:
        shared = sorted(one.keys() & two.keys())  # a run may have failed for one of them
        values = [[side[run] for run in shared] for side in (one, two)]
        return compare_paired(*values, test_share=test_share) if shared else None

    own, other = (_areas(each, kind, where, score) for each in (runs, reference))
    falls = [_areas(each, kind, where, score, shifted=True) for each in (runs, reference)]
    zeros = {}
    if kind == MISSING and ZEROS in first["robustness"]:
        zeros = _areas(runs, ZEROS, where, score)
    return Robust(
        method=first["method"],
        method_kind=first.get("kind", FUSION),
        kind=kind,
        where=where,
        levels=tuple(first["robustness"]["levels"]),
        curve=tuple(over_runs(points) for points in zip(*curves, strict=True)),
        relative=over_runs(list(own.values())),
        test=paired(own, other),
        effective=paired(*falls),
        told=paired(own, zeros),
    )


def _areas(
    runs: Mapping[int, Result], kind: str, where: str, score: Score, *, shifted: bool = False
) -> dict[int, float]:
    """Returns run -> area under its curve, if it has one; or under its distance from the clean
    score."""
    found = {}
    for run, result in runs.items():
        curve = _curve(result, kind, where, score)
        if curve is not None:
            found[run] = area(result["robustness"]["levels"], curve - shifted * curve[0])
    return found


def _curve(result: Result, kind: str, where: str, score: Score) -> np.ndarray | None:
    """Returns a curve, if there is one; of what knows zeros alone these are its `missing`."""
    found = result["robustness"]
    curves = found.get(kind, found.get(MISSING, {}) if kind == ZEROS else {})
    return np.array(curves[where][score.name]) if where in curves else None


def _corrected(rows: list[Robust]) -> list[Robust]:
    """Returns the rows of one curve with Holm's p-values."""
    for name in ("test", "effective", "told"):
        tests = [getattr(row, name) for row in rows]
        adjusted = holm([None if test is None else test.p for test in tests])
        rows = [
            row if test is None else replace(row, **{name: replace(test, p=p)})
            for row, test, p in zip(rows, tests, adjusted, strict=True)
        ]
    return rows


def _sorted(rows: list[Robust], score: Score) -> list[Robust]:
    sign = 1 if score.lower else -1
    means = [(math.isnan(row.relative.mean), sign * row.relative.mean) for row in rows]
    return [row for _, row in sorted(zip(means, rows, strict=True), key=lambda pair: pair[0])]


def title(kind: str, where: str) -> str:
    """Returns what a curve is over."""
    if kind == NOISE:
        return "Noise in all modalities" if where == ALL else f"Noise in {where}"
    return f"Samples that lack {'one modality, any of them' if where == ANY else where}"


def legend(rows: Sequence[Robust], score: Score, baseline: str | None) -> str:
    """Returns how to read the tables."""
    levels = ", ".join(f"{level:g}" for level in rows[0].levels)
    text = LEGEND.format(score=score.name, levels=levels)
    if any(row.effective is not None for row in rows):
        text += EFFECTIVE.format(baseline=baseline)
    return text + DRAWN


def tables(
    rows: Sequence[Robust], score: Score, baseline: str | None
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns title, heading and lines of a table for each curve, as text."""
    by_title: dict[str, list[Robust]] = {}
    for row in rows:
        by_title.setdefault(title(row.kind, row.where), []).append(row)
    return [
        (name, *cells(_sorted(group, score), score, baseline)) for name, group in by_title.items()
    ]


def cells(
    rows: Sequence[Robust], score: Score, baseline: str | None
) -> tuple[list[str], list[list[str]]]:
    """Returns the heading and the lines of one curve's table; empty columns are left out."""
    minus, last = f"minus {baseline} [95 %]", f"{rows[0].levels[-1]:g}"
    head = ["method", f"relative, {score_heading(score)}", "95 % interval", minus, "p"]
    head += ["effective [95 %]", "p", "present minus zeros [95 %]", "p", "clean", f"at {last}"]
    lines = []
    for row in rows:
        line = [row.name, spread(row.relative, score), interval(row.relative, score)]
        for test in (row.test, row.effective, row.told):
            line += difference_cells(test, score)
        lines.append([*line, spread(row.curve[0], score), spread(row.curve[-1], score)])
    kept = [i for i in range(len(head)) if any(line[i] for line in lines)]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def short_cells(rows: Sequence[Robust], score: Score) -> tuple[list[str], list[list[str]]]:
    """Returns a table for a terminal: robust to noise in all modalities, and to one missing."""
    two = [(NOISE, ALL), (MISSING, ANY)]
    found = {(row.kind, row.where, row.method): row for row in rows}
    head = ["method"]
    for name in ("noise in all", "one missing"):
        head += [f"{name}{' %' if score.percent else ''}", "effective", "p"]
    lines = []
    for name in dict.fromkeys(row.method for row in rows if (row.kind, row.where) in two):
        line = [name]
        for key in two:
            row = found.get((*key, name))
            line += ["", "", ""] if row is None else _short(row, score)
        lines.append(line)
    kept = [i for i in range(len(head)) if any(line[i] for line in lines)]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def _short(row: Robust, score: Score) -> list[str]:
    effective, p = difference_cells(row.effective, score)
    return [spread(row.relative, score), effective.partition(" [")[0], p]


def record(row: Robust) -> dict[str, Any]:
    """Returns a row as what JSON can hold, None for what is not a number."""

    def known(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    numbers = {"relative": row.relative, "difference": row.test}
    numbers |= {"effective": row.effective, "present_minus_zeros": row.told}
    told: dict[str, Any] = {"method": row.method, "kind": row.kind, "where": row.where}
    told |= {"levels": list(row.levels), "curve": [known(point.mean) for point in row.curve]}
    for name, found in numbers.items():
        if found is not None:
            told[name] = {key: known(value) for key, value in vars(found).items()}
    return told


def as_csv(results: Sequence[Result]) -> str:
    """Returns every point of every run's curves as a line of CSV: method, run, kind, where, level,
    scores."""
    measured = [result for result in results if "robustness" in result]
    scores = list(measured[0]["scores"])
    lines = [
        [result["method"], result["run"], kind, where, level, *(curve[s][i] for s in scores)]
        for result in measured
        for kind in KINDS
        for where, curve in result["robustness"].get(kind, {}).items()
        for i, level in enumerate(result["robustness"]["levels"])
    ]
    return csv_text(["method", "run", "kind", "where", "level", *scores], lines)
