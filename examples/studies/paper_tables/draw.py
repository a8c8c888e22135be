"""The picture of a table: of each row the paper's score, and ours."""

from typing import TYPE_CHECKING

from deq_fusion.examples.studies.drawing import (
    COLOURS,
    MARKERS,
    from_zero,
    label,
    legend_above,
    make_figure,
)
from deq_fusion.examples.studies.tables import Spread, Table
from deq_fusion.training_structures.comparison import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(table: Table) -> "dict[str, Figure]":
    """Returns the first score of every line, as printed and as measured, with its deviation."""
    columns = [c.name for c in table.columns]
    first = columns[table.keys].rpartition(", ")[0]  # "accuracy, paper" and those beside it
    sides = [
        (i, name[len(first) + 2 :]) for i, name in enumerate(columns) if name.startswith(first)
    ]
    sides = [side for side in sides if side[0] >= table.keys]
    shown = table.columns[table.keys]
    percent = shown.form.endswith("%")
    unit = 100 if percent else 1
    figure, (axes,) = make_figure(1, 0.24 * len(table.rows) + 1.1)
    for place, (column, side) in enumerate(sides):
        look = {"color": COLOURS[place], "marker": MARKERS[place], "linestyle": "none"}
        for at, row in enumerate(table.rows):
            cell = row[column]
            if isinstance(cell, Spread):
                spread = unit * (cell.sd or 0.0)
                axes.errorbar(unit * cell.mean, at, xerr=spread, label=side, markersize=5, **look)
    axes.set_yticks(range(len(table.rows)), table.row_names, fontsize=7)
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    score = Score(first, percent=percent, lower=bool(shown.note))
    axes.set_xlabel(f"{label(score)}: mean and sd over the runs", fontsize=8)
    from_zero([axes], score)
    legend_above(figure, axes, columns=3)
    return {table.name: figure}
