"""The pictures of what was measured: training steps by problem and by size, and memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deq_fusion.examples.studies.cost.measure import Group
from deq_fusion.examples.studies.cost.rows import MEMORY
from deq_fusion.examples.studies.cost.summary import shape_of
from deq_fusion.examples.studies.drawing import COLOURS, legend_above, look_of, make_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = "training step (ms, median)"


def draw(groups: Sequence[Group]) -> "dict[str, Figure]":
    """Returns name -> picture, for the parts that have one."""
    found = {}
    for part, make in {"cases": draw_cases, "sweeps": draw_sweeps, "memory": draw_memory}.items():
        chosen = [group for group in groups if group[0]["part"] == part]
        if chosen:
            found[part] = make(chosen)
    return found


def draw_cases(groups: Sequence[Group]) -> "Figure":
    """Returns every method's training step, a line for each problem; times span decades."""
    figure, (axes,) = make_figure(1, 1.4 + 0.3 * len(groups))
    for at, group in enumerate(groups):
        for row in group:
            look = look_of(row["method"]) | {"linestyle": "none"}
            axes.plot(row["train_ms"], at, markersize=4, label=row["method"], **look)
    axes.set_xscale("log")
    axes.set_yticks(range(len(groups)), [shape_of(group[0]) for group in groups], fontsize=8)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_title("training step by (batch, modalities, width)", fontsize=9, loc="left")
    axes.set_xlabel(f"{STEP}, logarithmic", fontsize=8)
    legend_above(figure, axes)
    return figure


def draw_sweeps(groups: Sequence[Group]) -> "Figure":
    """Returns the training step against every size that was changed, both logarithmic."""
    figure, panels = make_figure(len(groups), 2.2)
    for axes, group in zip(panels, groups, strict=True):
        sweep, values = group[0]["sweep"], [row["value"] for row in group]
        for method in group[0]["times"]:
            times = [row["times"][method] for row in group]
            axes.plot(values, times, markersize=4, label=method, **look_of(method))
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(values, [f"{value:g}" for value in values], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_title(f"training step by {sweep}", fontsize=9, loc="left")
        axes.set_xlabel("tolerance" if sweep == "tol" else sweep, fontsize=8)
        axes.set_ylabel(STEP, fontsize=8)
    legend_above(figure, max(panels, key=lambda axes: len(axes.lines)), columns=3)
    return figure


def draw_memory(groups: Sequence[Group]) -> "Figure":
    """Returns the peak memory of every block, for every step limit, beside its bound."""
    rows, bound = [row for group in groups for row in group], 2 * MEMORY + 10
    figure, (axes,) = make_figure(1, 0.9 + 0.3 * len(rows))
    axes.barh(range(len(rows)), [row["states"] for row in rows], 0.6, color=COLOURS[0])
    axes.axvline(bound, color="black", linewidth=0.8)
    names = [f"{row['method']}, {row['limit']} steps" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.05 * max(bound, *(row["states"] for row in rows)))
    axes.set_title("peak memory of a block's solves", fontsize=9, loc="left")
    axes.set_xlabel(f"states (line: 2m + 10 = {bound})", fontsize=8)
    return figure
