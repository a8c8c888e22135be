"""The pictures of the study, each a panel or two for each injection."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from deq_fusion.examples.studies.convergence.measure import LIMITS, TOLERANCES
from deq_fusion.examples.studies.convergence.rows import SOLVES, TIED
from deq_fusion.examples.studies.convergence.summary import (
    Curve,
    Measured,
    early_curve,
    measured_rows,
    radius_curve,
    trace_curve,
)
from deq_fusion.examples.studies.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    around_zero,
    legend_above,
    look_of,
    make_figure,
    styles,
)
from deq_fusion.training_structures.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIFFERENCE = r"$\|z^{(k+1)}-z^{(k)}\|\,/\,\|z^{(k)}\|$"
RESIDUAL = "relative residual\nof the joint state"


def convergence(comparisons: Mapping[str, Comparison]) -> "Figure":
    """The paper's Figure 4: the change of z_fuse, and the residual, against steps."""
    panels = [(i, q) for i in comparisons for q in ("difference", "residual")]
    figure, axes = make_figure(len(panels), 2.1, sharex=True)
    for each, (injection, quantity) in zip(axes, panels, strict=True):
        rows = measured_rows(comparisons[injection])
        curves = {
            name: trace_curve(rows[row], solve, quantity) if row in rows else None
            for name, (row, solve) in SOLVES.items()
        }
        _log_panel(each, curves, DIFFERENCE if quantity == "difference" else RESIDUAL, look_of)
        what = "change of z_fuse" if quantity == "difference" else "residual"
        each.set_title(f"{injection} injection: {what}", fontsize=9, loc="left")
    axes[-1].set_xlabel("step of the solver", fontsize=9)
    legend_above(figure, axes[0])
    return figure


def solvers(comparisons: Mapping[str, Comparison]) -> "Figure | None":
    """The residual of the joint state of DEQ fusion, by solver, for both ways to solve."""
    if not all("no_penalty" in measured_rows(comparison) for comparison in comparisons.values()):
        return None
    figure, axes = make_figure(len(comparisons), 2.6, sharex=True)
    for each, (injection, comparison) in zip(axes, comparisons.items(), strict=True):
        found = measured_rows(comparison)["no_penalty"]
        solves = found.runs[0]["traces"]
        curves = {solve: trace_curve(found, solve, "residual") for solve in solves}
        looks = dict(zip(curves, styles(), strict=False))
        _log_panel(each, curves, RESIDUAL, looks.__getitem__)
        title = f"{injection} injection: residual of no_penalty, by solver"
        each.set_title(title, fontsize=9, loc="left")
    axes[-1].set_xlabel("step of the solver (block-wise: of the solve of z_fuse)", fontsize=9)
    legend_above(figure, axes[0])
    return figure


def radius(comparisons: Mapping[str, Comparison]) -> "Figure":
    """The spectral radius of the trained map at its equilibrium: plain iteration needs < 1."""
    figure, axes = make_figure(len(comparisons), 2.1, sharex=True)
    for each, (injection, comparison) in zip(axes, comparisons.items(), strict=True):
        rows = measured_rows(comparison)
        for at, found in enumerate(rows.values()):
            _draw_radii(each, at, found)
        each.axvline(1, color="black", linewidth=0.8)
        each.set_yticks(range(len(rows)), rows, fontsize=8)
        each.set_ylim(len(rows) - 0.5, -0.5)
        each.set_xscale("log")
        each.set_title(f"{injection} injection: radius by row", fontsize=9, loc="left")
    means = [
        x
        for each in axes
        for line in each.lines
        if line.get_marker() != "None"
        for x in line.get_xdata()
    ]
    axes[0].set_xlim(min([0.5, *means]) / 2, max([2.0, *means]) * 2)  # intervals may be decades
    axes[-1].set_xlabel("spectral radius, the largest of all samples", fontsize=9)
    legend_above(figure, axes[0])
    return figure


def _draw_radii(axes: "Axes", at: int, found: Measured) -> None:
    """Draws the largest radius of the z_i's maps, and that of z_fuse."""
    curve = radius_curve(found, "largest")
    if curve is None or np.isnan(curve.mean).all():
        return
    largest = int(np.nanargmax([*curve.mean[:-1], -np.inf]))
    for i, (state, name) in enumerate(((largest, "largest of the z_i"), (-1, "z_fuse"))):
        place, label = at + 0.25 * (i - 0.5), None if at else name
        bounds = curve.low[state], curve.high[state]
        axes.plot(bounds, [place, place], color=COLOURS[i], linewidth=1.5)
        look = {"color": COLOURS[i], "markersize": 4, "label": label}
        axes.plot(curve.mean[state], place, MARKERS[i], **look)


def early(comparisons: Mapping[str, Comparison]) -> "Figure | None":
    """The gain or loss of the validation score when a trained model's solve ends elsewhere."""
    figure, axes = make_figure(2, 2.4)
    score, drawn = next(iter(comparisons.values())).score, False
    for each, kind in zip(axes, ("limit", "tolerance"), strict=True):
        what = "step limit" if kind == "limit" else kind
        each.set_title(f"score when the {what} changes", fontsize=9, loc="left")
        for number, (injection, comparison) in enumerate(comparisons.items()):
            for row in ("no_penalty", "tied"):
                found = measured_rows(comparison).get(row)
                own = look_of(row) | {"linestyle": DASHES[number], "marker": MARKERS[number]}
                curve = found and early_curve(found, kind, score)
                if curve:
                    unit, drawn = 100 if score.percent else 1, True
                    curve = curve._replace(**{k: unit * getattr(curve, k) for k in BOUNDS})
                    _draw(each, curve, label=f"{row}, {injection}", style=own, every=1)
                    each.set_xscale("log")
                    each.set_xticks(curve.x, [f"{x:g}" for x in curve.x], minor=False)
                    each.set_xticks([], minor=True)
        points, way = " (points)" * score.percent, " (less is better)" * score.lower
        each.set_ylabel(f"validation {score.name}{points}{way},\nminus its own", fontsize=8)
    around_zero(axes, score, "y")
    axes[0].set_xlabel(f"step limit at inference; its own: {LIMITS[-1]}, tied: {TIED}", fontsize=9)
    axes[1].set_xlabel(f"tolerance at inference; its own: {TOLERANCES[-1]:g}", fontsize=9)
    axes[1].invert_xaxis()  # more exact to the right in both
    legend_above(figure, axes[0])
    return figure if drawn else None


BOUNDS = "mean", "low", "high"
PICTURES = {"convergence": convergence, "solvers": solvers, "radius": radius, "early": early}


def draw(comparisons: Mapping[str, Comparison]) -> "dict[str, Figure | None]":
    """Returns name -> picture; None for one whose rows there are not."""
    return {name: make(comparisons) for name, make in PICTURES.items()}


def _log_panel(
    axes: "Axes",
    curves: Mapping[str, Curve | None],
    label: str,
    look: Callable[[str], Mapping[str, Any]],
) -> None:
    for name, curve in curves.items():
        if curve is not None:
            _draw(axes, curve, label=name, style=look(name), every=max(1, len(curve.x) // 8))
    means = [value for curve in curves.values() if curve is not None for value in curve.mean]
    axes.set_yscale("log")
    if means:  # few runs have bands of many decades
        axes.set_ylim(min(means) / 3, max(means) * 3)
    axes.set_ylabel(label, fontsize=9)


def _draw(axes: "Axes", curve: Curve, *, label: str, style: Mapping[str, Any], every: int) -> None:
    shape = {"linewidth": 1.3, "markersize": 4, "markevery": every}
    axes.plot(curve.x, curve.mean, label=label, **shape, **style)
    axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.08, linewidth=0)
