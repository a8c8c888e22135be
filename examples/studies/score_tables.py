"""The tables of comparisons as data: columns of scores, and cells of their estimates and tests."""

from collections.abc import Sequence
from dataclasses import replace

from deq_fusion.examples.studies.tables import Bounded, Cell, Column, Interval, Spread, Table
from deq_fusion.training_structures.comparison.methods import SYSTEM
from deq_fusion.training_structures.comparison.paired import Estimate, Paired
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.table import Row


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


def _cost(heading: str, value: float | None) -> float | None:
    """Returns a cost as a cell: rows have the share that converged in percent."""
    return value / 100 if value is not None and COSTS[heading].endswith("%") else value
