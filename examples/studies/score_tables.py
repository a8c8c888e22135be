"""The tables of comparisons as data: columns of scores, and cells of their estimates and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from deq_fusion.examples.studies.tables import Bounded, Cell, Column, Interval, Spread, Table
from deq_fusion.training_structures.comparison.methods import SYSTEM
from deq_fusion.training_structures.comparison.paired import Estimate, Paired
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.table import Row
from deq_fusion.training_structures.comparison.robustness import ALL, ANY, MISSING, NOISE


def score_column(score: Score, name: str = "") -> Column:
    """Returns the column of a score: in percent with one decimal, or with three."""
    note = "less is better" if score.lower else ""
    return Column(name or score.name, ".1%" if score.percent else ".3f", note)


def difference_column(score: Score, name: str) -> Column:
    """Returns the column of how a score differs from another method's."""
    return Column(name, "+.1%" if score.percent else "+.3f")


def spread(value: Estimate) -> Spread:
    """Returns mean and standard deviation of a method's score as a cell."""
    return Spread(value.mean, value.sd)


def difference(test: Paired | None) -> Bounded | None:
    """Returns a paired difference, with its interval, as a cell."""
    return test and Bounded(test.difference, test.low, test.high)


COSTS = {  # heading in a comparison's table -> how a column of tables shows it
    "parameters": ",.0f",
    "epochs": ".0f",
    "epochs spent": ",.0f",
    "seconds": ".1f",
    "solver steps": ".1f",
    "converged": ".2%",
}


def of_rows(
    name: str,
    rows: Sequence[Row],
    scores: Sequence[Score],
    baseline: str | None,
    *,
    title: str = "",
) -> Table:
    """Returns a comparison's table, of `Comparison.table()`, its `scores` and its `baseline`.

    Columns: method, kind of a system, runs, the first score, its interval, the difference from
    the baseline, p, the other scores, costs, and the first score without each modality (`without
    NAME`). Those that are empty are left out.
    """
    first, *others = scores
    missing = list(dict.fromkeys(m for row in rows for m in row.missing))
    columns = [Column("method"), Column("kind"), Column("runs", ".0f"), score_column(first)]
    columns += [replace(score_column(first, "95 % interval"), note="")]
    columns += [difference_column(first, f"minus {baseline}"), Column("p", "p")]
    columns += [score_column(score) for score in others]
    columns += [Column(heading, form) for heading, form in COSTS.items()]
    columns += [replace(score_column(first, f"without {m}"), note="") for m in missing]
    lines: list[list[Cell]] = []
    for row in rows:
        main, test = row.scores[first.name], row.test
        kind = row.kind if row.kind == SYSTEM else None  # a network of its own is to be seen
        line = [row.method, kind, row.runs, spread(main), Interval(main.low, main.high)]
        line += [difference(test), test and test.p]
        line += [spread(row.scores[score.name]) for score in others]
        line += [_cost(heading, row.costs.get(heading)) for heading in COSTS]
        line += [spread(row.missing[m]) if m in row.missing else None for m in missing]
        lines.append(line)
    return Table(name, columns, lines, title=title).filled()


def of_robust(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    score: Score,
    baseline: str | None,
    *,
    title: str = "",
) -> Table:
    """Returns how robust methods are, of results.json's `robustness`: noise in all, one missing.

    Columns: method, the score on clean data; under noise in all modalities the mean over the
    levels, how that differs from the baseline's, and the effective robustness, with p-values; the
    same where a rising share of samples lacks one modality, any of them; and there what a fusion
    gains by being told, over zeros. Those that are empty are left out.
    """
    parts = {"noise": (NOISE, ALL), "missing": (MISSING, ANY)}
    columns = [Column("method"), replace(score_column(score, "clean"), note="")]
    for part in parts:
        columns += [replace(score_column(score, part), note="")]
        columns += [
            difference_column(score, f"{part}, minus {baseline}"),
            Column(f"{part}, p", "p"),
        ]
        columns += [difference_column(score, f"{part}, effective")]
        columns += [Column(f"{part}, effective p", "p")]
    columns += [difference_column(score, "present minus zeros")]
    found = {(row["kind"], row["where"], row["method"]): row for row in rows}
    lines: list[list[Cell]] = []
    for method in dict.fromkeys(m for kind, where, m in found if (kind, where) == parts["noise"]):
        there = [found.get((*part, method), {}) for part in parts.values()]
        line: list[Cell] = [method, there[0]["curve"][0]]
        for row in there:
            relative = row.get("relative")
            line.append(relative and Spread(relative["mean"], relative["sd"]))
            for test in ("difference", "effective"):
                line += [_bounded(row.get(test)), row.get(test, {}).get("p")]
        lines.append([*line, _bounded(there[1].get("present_minus_zeros"))])
    return Table(name, columns, lines, title=title).filled()


def of_diagnosed(
    name: str, rows: Sequence[Mapping[str, Any]], score: Score, *, title: str = ""
) -> Table:
    """Returns what methods make of their modalities, of results.json's `diagnoses`.

    Columns: method, what each modality brings to the score (Shapley values), the share of the
    outputs that is interaction (InterSHAP), by how much a model is too sure, its calibration
    error, its Brier score, and the temperature that would mend it. Those that are empty are left
    out.
    """
    whose = list(dict.fromkeys(m for row in rows for m in row.get("brought", {})))
    columns = [Column("method"), *(difference_column(score, f"from {m}") for m in whose)]
    columns += [Column("interaction", ".1%"), Column("too sure by", "+.1%"), Column("ECE", ".1%")]
    columns += [Column("Brier", ".3f"), Column("temperature", ".2f")]
    lines: list[list[Cell]] = []
    for row in rows:
        brought, calibrated = row.get("brought", {}), row.get("calibration", {})
        line: list[Cell] = [row["method"], *(_around(brought.get(m)) for m in whose)]
        line += [_around(row.get("interaction")), _around(calibrated.get("surplus"))]
        line += [_around(calibrated.get("ece"))]
        lines.append([*line, *(_mean(calibrated.get(of)) for of in ("brier", "temperature"))])
    return Table(name, columns, lines, title=title).filled()


def _around(value: Mapping[str, float] | None) -> Bounded | None:
    return None if value is None else Bounded(value["mean"], value["low"], value["high"])


def _mean(value: Mapping[str, float] | None) -> float | None:
    return None if value is None else value["mean"]


def _bounded(test: Mapping[str, float] | None) -> Bounded | None:
    return None if test is None else Bounded(test["difference"], test["low"], test["high"])


def _cost(heading: str, value: float | None) -> float | None:
    """Returns a cost as a cell: rows have the share that converged in percent."""
    return value / 100 if value is not None and COSTS[heading].endswith("%") else value
