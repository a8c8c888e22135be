"""The pictures of the study, each a panel or two for each injection."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.convergence.curves import (
    Curve,
    early_curve,
    measured_rows,
    radius_curve,
    trace_curve,
)
from examples.drawing import COLOURS, MARKERS, legend_above, make_figure, styles
from training_structures.comparison.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIFFERENCE = r"$\|z^{(k+1)}-z^{(k)}\|\,/\,\|z^{(k)}\|$"
RESIDUAL = "relative residual\nof the joint state"
OWN_SOLVE = {"tied": "joint picard", "tied_released_start": "joint picard"}
"""How a row is solved as it was trained; the others by the joint solve with Anderson."""


def convergence(reports: Mapping[str, Report]) -> "Figure":
    """The paper's Figure 4: the change of z_fuse, and the residual, against steps."""
    panels = [(i, q) for i in reports for q in ("difference", "residual")]
    figure, axes = make_figure(len(panels), 2.1, sharex=True)
    for each, (injection, quantity) in zip(axes, panels, strict=True):
        curves = {
            row: trace_curve(found, OWN_SOLVE.get(row, "joint anderson"), quantity)
            for row, found in measured_rows(reports[injection]).items()
        }
        _log_panel(each, curves, DIFFERENCE if quantity == "difference" else RESIDUAL)
        each.set_title(f"{injection} injection", fontsize=9, loc="left")
    axes[-1].set_xlabel("step of the solver", fontsize=9)
    legend_above(figure, axes[0])
    return figure


def solvers(reports: Mapping[str, Report]) -> "Figure":
    """The residual of the joint state of DEQ fusion, by solver, for both ways to solve."""
    figure, axes = make_figure(len(reports), 2.6, sharex=True)
    for each, (injection, report) in zip(axes, reports.items(), strict=True):
        found = measured_rows(report).get("full")
        solves = found.runs[0]["traces"] if found else ()
        curves = {solve: trace_curve(found, solve, "residual") for solve in solves}
        _log_panel(each, curves, RESIDUAL)
        each.set_title(f"{injection} injection, row full", fontsize=9, loc="left")
    axes[-1].set_xlabel("step of the solver (block-wise: of the solve of z_fuse)", fontsize=9)
    legend_above(figure, axes[0])
    return figure


def radius(reports: Mapping[str, Report]) -> "Figure":
    """The spectral radius of the trained map at its equilibrium: plain iteration needs < 1."""
    figure, axes = make_figure(len(reports), 2.1, sharex=True)
    for each, (injection, report) in zip(axes, reports.items(), strict=True):
        rows = measured_rows(report)
        for at, found in enumerate(rows.values()):
            curve = radius_curve(found, "largest")
            largest = int(np.argmax(curve.mean[:-1]))  # of the z_i; the last is z_fuse
            for i, (state, name) in enumerate(((largest, "largest of the z_i"), (-1, "z_fuse"))):
                place, label = at + 0.25 * (i - 0.5), None if at else name
                bounds = curve.low[state], curve.high[state]
                each.plot(bounds, [place, place], color=COLOURS[i], linewidth=1.5)
                look = {"color": COLOURS[i], "markersize": 4, "label": label}
                each.plot(curve.mean[state], place, MARKERS[i], **look)
        each.axvline(1, color="black", linewidth=0.8)
        each.set_yticks(range(len(rows)), rows, fontsize=8)
        each.set_ylim(len(rows) - 0.5, -0.5)
        each.set_xscale("log")
        each.set_xlim(0.03, 30)
        each.set_title(f"{injection} injection", fontsize=9, loc="left")
    axes[-1].set_xlabel("spectral radius, the largest of all samples", fontsize=9)
    legend_above(figure, axes[0])
    return figure


def early(reports: Mapping[str, Report]) -> "Figure":
    """What the validation score loses when a trained model's solve ends early."""
    figure, axes = make_figure(2, 2.4)
    score = next(iter(reports.values())).score
    for each, kind in zip(axes, ("limit", "tolerance"), strict=True):
        style, ticks = styles(), []
        for injection, report in reports.items():
            rows = measured_rows(report)
            for row in ("full", "tied"):
                own = next(style)
                curve = early_curve(rows[row], kind, score) if row in rows else None
                if curve is not None:
                    _draw(each, curve, f"{row}, {injection}", own, every=1)
                    ticks = curve.x
        each.set_xscale("log")
        each.set_xticks(ticks, [f"{x:g}" for x in ticks], minor=False)
        each.set_xticks([], minor=True)
        each.set_ylabel(
            f"validation {score.name},\nminus converged{' (points)' * score.percent}", fontsize=9
        )
    axes[0].set_xlabel("step limit at inference, without tolerance", fontsize=9)
    axes[1].set_xlabel("tolerance at inference", fontsize=9)
    axes[1].invert_xaxis()  # more exact to the right in both
    legend_above(figure, axes[0])
    return figure


PICTURES = {"convergence": convergence, "solvers": solvers, "radius": radius, "early": early}


def _log_panel(axes: "Axes", curves: Mapping[str, Curve | None], label: str) -> None:
    for (name, curve), style in zip(curves.items(), styles(), strict=False):
        if curve is not None:
            _draw(axes, curve, name, style, every=max(1, len(curve.x) // 8))
    means = [value for curve in curves.values() if curve is not None for value in curve.mean]
    axes.set_yscale("log")
    if means:  # few runs have bands of many decades
        axes.set_ylim(min(means) / 3, max(means) * 3)
    axes.set_ylabel(label, fontsize=9)


def _draw(axes: "Axes", curve: Curve, label: str, style: Mapping[str, Any], *, every: int) -> None:
    shape = {"linewidth": 1.3, "markersize": 4, "markevery": every}
    axes.plot(curve.x, curve.mean, label=label, **shape, **style)
    axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.18, linewidth=0)
