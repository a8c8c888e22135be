"""The pictures of the gate's shares, a panel for each injection."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from deq_fusion.examples.studies.drawing import legend_above, make_figure, styles
from deq_fusion.examples.studies.gates.summary import (
    ALL,
    AS_IT_IS,
    AT_INFERENCE,
    THROUGHOUT,
    Point,
    points_of,
)
from deq_fusion.training_structures.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL, THIN = "share of the gate (%)", {"linewidth": 0.5, "alpha": 0.7}


def draw(comparisons: Mapping[str, Comparison]) -> "dict[str, Figure]":
    """Returns name -> picture; those of the fusion without noise only if it was trained."""
    return draw_points(points_of(comparisons))


def draw_points(points: Sequence[Point]) -> "dict[str, Figure]":
    """Returns the pictures of these points."""
    last = max(point.step for point in points)
    usual = [p for p in points if p.condition == AS_IT_IS]
    noisy = [p for p in points if p.group == ALL and p.step == last]
    found = {}
    if usual:
        found["gates"] = draw_steps([p for p in usual if p.group == ALL])
        found["gates_classes"] = draw_rows([p for p in usual if p.step == last], "group")
    if any(p.condition != AS_IT_IS for p in noisy):
        found["gates_noise"] = draw_rows(noisy, "condition")
    return found


def draw_steps(points: Sequence[Point]) -> "Figure":
    """Returns every modality's share against the steps, with the band of its interval."""
    injections = _values(points, "injection")
    figure, panels = make_figure(len(injections), sharex=True)
    for axes, injection in zip(panels, injections, strict=True):
        there = [point for point in points if point.injection == injection]
        modalities = _values(there, "modality")
        for modality, style in zip(modalities, styles(), strict=False):
            curve = [point for point in there if point.modality == modality]
            x, every = [p.step for p in curve], max(1, len(curve) // 8)
            own = {"label": modality, "linewidth": 1.3, "markersize": 4, "markevery": every}
            axes.plot(x, [p.mean for p in curve], **own, **style)
            bounds = [p.low for p in curve], [p.high for p in curve]
            axes.fill_between(x, *bounds, color=style["color"], alpha=0.12, linewidth=0)
            for bound in bounds:  # of bands that lie on one another, too
                axes.plot(x, bound, color=style["color"], linestyle=style["linestyle"], **THIN)
        _even(axes.axhline, modalities)
        axes.set_ylim(0, 100)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(LABEL, fontsize=8)
        axes.set_title(f"{injection} injection: share by step", fontsize=9, loc="left")
    panels[-1].set_xlabel("step of the joint solve", fontsize=8)
    legend_above(figure, panels[0])
    return figure


def draw_rows(points: Sequence[Point], by: str) -> "Figure":
    """Returns a row for each value of an attribute, in it every modality's share."""
    injections, rows = _values(points, "injection"), _values(points, by)
    height = 0.9 + len(rows) * max(0.3, 0.09 * len(_values(points, "modality")))
    figure, panels = make_figure(len(injections), height, sharex=True)
    for axes, injection in zip(panels, injections, strict=True):
        there = [point for point in points if point.injection == injection]
        _draw_panel(axes, there, rows, by)
        what = "share by class" if by == "group" else "share where one is noise"
        axes.set_title(f"{injection} injection: {what}", fontsize=9, loc="left")
    panels[-1].set_xlim(0, 100)
    note = "\n(hollow: the modality that is noise)" if by == "condition" else ""
    label = f"{LABEL} at step {points[0].step}: mean, 95 % interval{note}"
    panels[-1].set_xlabel(label, fontsize=8)
    legend_above(figure, panels[0])
    return figure


def _draw_panel(axes: "Axes", points: Sequence[Point], rows: Sequence[str], by: str) -> None:
    modalities = _values(points, "modality")
    looks = dict(zip(modalities, islice(styles(), len(modalities)), strict=True))
    for look in looks.values():
        del look["linestyle"]
    for number, point in enumerate(points):
        index, look = modalities.index(point.modality), looks[point.modality]
        at = rows.index(getattr(point, by)) + 0.7 * ((index + 0.5) / len(modalities) - 0.5)
        axes.plot([point.low, point.high], [at, at], color=look["color"], linewidth=1.3)
        noise = point.condition in (AT_INFERENCE + point.modality, THROUGHOUT + point.modality)
        hollow = {"markerfacecolor": "white"} if noise else {}
        label = {"label": point.modality} if number < len(modalities) else {}
        axes.plot(point.mean, at, markersize=4, linestyle="none", **look, **hollow, **label)
    _even(axes.axvline, modalities)
    axes.grid(False, axis="y")
    named = {getattr(point, by): point for point in reversed(points)}
    axes.set_yticks(range(len(rows)), [_name(named.get(r), r) for r in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for between in range(1, len(rows)):
        axes.axhline(between - 0.5, color="#d1d5db", linewidth=0.4)


def _name(point: Point | None, row: str) -> str:
    """Returns how a row is named: a group with the number of its samples."""
    by_condition = row == AS_IT_IS or row.startswith((AT_INFERENCE, THROUGHOUT))
    return row if by_condition or point is None else f"{row} ({point.samples:.0f})"


def _even(line: Callable, modalities: Sequence[str]) -> None:
    """Draws where all shares would be the same."""
    line(100 / len(modalities), color="black", linewidth=0.6, zorder=1)


def _values(points: Sequence[Point], name: str) -> list[str]:
    return list(dict.fromkeys(getattr(point, name) for point in points))
