"""The pictures of the study, a panel for each injection."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deq_fusion.examples.studies.drawing import legend_above, looks_of, make_figure
from deq_fusion.examples.studies.uniqueness.rows import ROWS
from deq_fusion.examples.studies.uniqueness.summary import (
    SELECTED,
    differences,
    measured_rows,
    points,
)
from deq_fusion.training_structures.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def several(comparisons: Mapping[str, Comparison]) -> "Figure":
    """The share of samples with several fixed points, and the largest radius, by epoch."""
    panels = [(i, q) for i in comparisons for q in ("several", "radius_largest")]
    figure, axes = make_figure(len(panels), 2.1, sharex=True)
    looks = looks_of(ROWS)
    for each, (injection, quantity) in zip(axes, panels, strict=True):
        share = quantity == "several"
        for row, runs in measured_rows(comparisons[injection]).items():
            _draw(each, runs, quantity, 100 if share else 1, label=row, style=looks.get(row, {}))
        each.set_xscale("symlog", linthresh=1)
        what = "samples with several\nfixed points (%)" if share else "largest spectral radius"
        each.set_ylabel(what, fontsize=8)
        if share:
            each.set_ylim(-3, 103)
        else:
            each.set_yscale("log")
            each.axhline(1, color="black", linewidth=0.8)
        each.set_title(f"{injection} injection", fontsize=9, loc="left")
    axes[-1].set_xlabel("epoch of training (0: before)", fontsize=9)
    legend_above(figure, axes[0])
    return figure


def solutions(comparisons: Mapping[str, Comparison]) -> "Figure | None":
    """How far the scores lie apart that the fixed points found give, run by run."""
    score = next(iter(comparisons.values())).score
    figure, axes = make_figure(len(comparisons), 2.1, sharex=True)
    drawn, unit = False, 100 if score.percent else 1
    for each, (injection, comparison) in zip(axes, comparisons.items(), strict=True):
        rows, looks = measured_rows(comparison), looks_of(ROWS)
        for at, (row, runs) in enumerate(rows.items()):
            apart = [unit * x for x in differences(runs, score)["range"]]
            drawn = drawn or bool(apart)
            look = {**looks.get(row, {}), "linestyle": "none", "markersize": 4}
            each.plot(apart, [at] * len(apart), alpha=0.6, **look)
        each.set_yticks(range(len(rows)), rows, fontsize=8)
        each.set_ylim(len(rows) - 0.5, -0.5)
        each.set_title(f"{injection} injection", fontsize=9, loc="left")
    points_ = " (points)" if score.percent else ""
    axes[-1].set_xlabel(f"validation {score.name}{points_}, highest minus lowest", fontsize=9)
    return figure if drawn else None


def draw(comparisons: Mapping[str, Comparison]) -> "dict[str, Figure | None]":
    """Returns name -> picture; None for one that there is not."""
    return {"several": several(comparisons), "solutions": solutions(comparisons)}


def _draw(
    axes: "Axes",
    runs: Sequence[Mapping[str, Any]],
    quantity: str,
    unit: float,
    *,
    label: str,
    style: Mapping[str, Any],
) -> None:
    found = [p for p in points(runs, quantity) if p.when != SELECTED]
    if not found:
        return
    x, mean = [int(p.when) for p in found], [unit * p.mean for p in found]
    axes.plot(x, mean, label=label, linewidth=1.3, markersize=4, **style)
    bounds = [unit * p.low for p in found], [unit * p.high for p in found]
    axes.fill_between(x, *bounds, color=style.get("color"), alpha=0.08, linewidth=0)
