"""Pictures of a comparison: each a function that returns a figure, narrow enough for a phone."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from ...run import more_is_better
from ..methods import SINGLE
from ..recipe import Score
from ..robustness import MISSING, NOISE, ZEROS
from .diagnoses import Diagnosed
from .labels import Label, place
from .robustness import Robust, title
from .table import Row
from .text import in_picture, printable

BASELINE, SUBJECT, OTHER = "#0072b2", "#d55e00", "#6b7280"  # told apart by the colour-blind, too
NAMED = 4  # learning curves
OTHERS = "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
WIDTH = 4.0  # inches: a phone's width, on which a point of text is more than a pixel
SMALL = 9  # points
LONGEST = 22  # characters of a name
COSTS = "seconds", "parameters"
LOWER = "lower is better"


@dataclass(frozen=True)
class Shown:
    """A comparison as its pictures need it.

    Attributes:
        rows: best first.
        results: the runs behind them.
        score: what is shown.
        select: the validation score that training selected by.
        baseline: the method of the paired tests, set off by colour.
        subject: the method that the comparison is about, set off by another.
        robust: of robustness, a row for each curve and method.
        diagnosed: of diagnoses, a row for each method.
    """

    rows: Sequence[Row]
    results: Sequence[Mapping[str, Any]]
    score: Score
    select: str
    baseline: str | None
    subject: str | None
    robust: Sequence[Robust] = ()
    diagnosed: Sequence[Diagnosed] = ()

    def colour(self, method: str) -> str:
        return {self.baseline: BASELINE, self.subject: SUBJECT}.get(method, OTHER)

    def value(self, score: float) -> float:
        return 100 * score if self.score.percent else score

    @property
    def label(self) -> str:
        """The score's name, with its unit, and the direction that a reader would not expect."""
        unit = ", ".join(["%"] * self.score.percent + [LOWER] * self.score.lower)
        return f"{_short(self.score.name)}{f' ({unit})' if unit else ''}"

    def curves(self, method: str, key: str) -> np.ndarray:
        """Returns a record of the epochs, (runs, epochs), NaN where a run had stopped."""
        runs = [r["curve"] for r in self.results if r["method"] == method and "curve" in r]
        longest = max((len(run) for run in runs), default=0)
        found = np.full((len(runs), longest), np.nan)
        for row, run in zip(found, runs, strict=True):
            row[: len(run)] = [epoch.get(key, np.nan) for epoch in run]
        return found


def scores(shown: Shown) -> Any:
    """Every run, with the mean and its 95 % interval."""
    figure, axes = _figure(0.22 * len(shown.rows) + 0.9)
    for i, row in enumerate(shown.rows):
        colour, main = shown.colour(row.method), row.scores[shown.score.name]
        runs = [r["scores"][shown.score.name] for r in shown.results if r["method"] == row.method]
        axes.plot([shown.value(x) for x in runs], [i] * len(runs), "o", color=colour, alpha=0.2)
        _bar(axes, i, colour, *(shown.value(x) for x in (main.mean, main.low, main.high)))
    _name(axes, shown, [row.method for row in shown.rows])
    axes.set_xlabel(shown.label)
    return figure


def differences(shown: Shown) -> Any:
    """Each method's score minus the baseline's in the same runs: mean and 95 % interval."""
    rows = [row for row in shown.rows if row.test is not None]
    if not rows:
        return None
    figure, axes = _figure(0.22 * len(rows) + 0.9)
    axes.axvline(0, color=BASELINE, linewidth=1)
    for i, row in enumerate(rows):
        bounds = (row.test.difference, row.test.low, row.test.high)
        _bar(axes, i, shown.colour(row.method), *(shown.value(x) for x in bounds))
    _name(axes, shown, [row.method for row in rows])
    axes.set_xlabel(f"{shown.label}, minus {_short(str(shown.baseline))}")
    return figure


def costs(shown: Shown) -> Any:
    """Every fusion's score, better upwards, against training time and parameters; named is what
    no other beats in both, and triangles lie further down. Single modalities, and floors such as
    linear, which have no parameters, are left out."""
    rows = [row for row in shown.rows if not _single(row) and row.costs["parameters"] is not None]
    if not rows:
        return None
    figure, panels = _figure(6.4, panels=2)
    panels[0].set_xlabel("seconds of training (logarithmic)")
    panels[1].set_xlabel("parameters (logarithmic)")
    drawn = [_cost(a, cost, shown, rows) for a, cost in zip(panels, COSTS, strict=True)]
    for axes, (labels, dots) in zip(panels, drawn, strict=True):  # once both have their size
        place(axes, labels, dots)
    return figure


def _cost(
    axes: Any, cost: str, shown: Shown, rows: Sequence[Row]
) -> tuple[list[Label], list[tuple[float, float]]]:
    """Draws the dots of a panel; returns the names to write and the dots, the subject's first."""
    values = [shown.value(row.scores[shown.score.name].mean) for row in rows]
    floor = _floor(values, lower=shown.score.lower)
    dots, labels, cheapest = [], [], math.inf
    for row, value in zip(rows, values, strict=True):  # best first
        below = value > floor if shown.score.lower else value < floor
        dots.append((row.costs[cost], floor if below else value))
        colour = shown.colour(row.method)
        axes.plot(*dots[-1], "v" if below else "o", color=colour, zorder=3)
        if row.costs[cost] < cheapest or colour != OTHER:
            labels.append(Label(_short(row.method), *dots[-1], colour))
        cheapest = min(cheapest, row.costs[cost])
    axes.margins(x=0.12, y=0.2)
    _logarithmic(axes, [x for x, _ in dots if x > 0])
    axes.set_ylabel(shown.label)
    if shown.score.lower:
        axes.invert_yaxis()  # up is better
    return sorted(labels, key=lambda label: label.colour == OTHER), dots


def _logarithmic(axes: Any, values: Sequence[float]) -> None:
    """Gives an axes a logarithmic scale with numbers that stand apart, however short it is."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    if not values:
        return
    decades = math.log10(max(values) / min(values))
    steps = (1,) if decades > 2 else (1, 3) if decades > 1 else (1, 2, 3, 5)
    plain = FuncFormatter(lambda x, _: f"{x:g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(plain if max(values) < 1000 else EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _floor(values: Sequence[float], *, lower: bool) -> float:
    """Returns how far down costs are shown: three times as far below the best as the median."""
    best, worst = (min(values), max(values)) if lower else (max(values), min(values))
    end = best + 3 * (float(np.median(values)) - best)
    return min(end, worst) if lower else max(end, worst)


def learning(shown: Shown) -> Any:
    """The validation score or loss that the epoch is selected by, the best so far, over the epochs,
    where the named methods differ: the mean over all runs, of which one that has ended keeps its
    best. Grey are the others."""
    key = f"valid_{shown.select}"
    curves = {row.method: shown.curves(row.method, key) for row in shown.rows}
    better = np.fmax if more_is_better(shown.select) else np.fmin  # which pass over NaN
    curves = {
        method: _mean(better.accumulate(curve, axis=1))
        for method, curve in curves.items()
        if curve.size
    }
    chosen = _chosen(shown, list(curves))
    if not chosen:
        return None
    figure, axes = _figure(3.9)
    spare = cycle(OTHERS)
    for method, curve in curves.items():
        style = {"color": "#d1d5db", "linewidth": 0.8}
        if method in chosen:
            colour = shown.colour(method)
            colour = next(spare) if colour == OTHER else colour
            style = {"color": colour, "label": _short(method), "zorder": 3, "linewidth": 1.2}
        axes.plot(np.arange(1, len(curve) + 1), curve, **style)
    # the first epochs, in which all of them rise alike, would make one band of the rest
    late = np.concatenate([curves[method][len(curves[method]) // 4 :] for method in chosen])
    low, high = np.nanmin(late), np.nanmax(late)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    _epochs(axes)
    lower = "" if more_is_better(shown.select) else f" ({LOWER})"
    axes.set_ylabel(f"validation {_short(shown.select)}{lower}")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=SMALL)
    return figure


def convergence(shown: Shown) -> Any:
    """Of methods that solve an equilibrium: steps a solve, and the share of unconverged samples,
    over the epochs, the means over the runs that were still training."""
    solving = [r.method for r in shown.rows if np.isfinite(_steps(shown, r.method)).any()]
    if not solving:
        return None
    figure, panels = _figure(5.0, panels=2)
    spare = cycle(OTHERS)
    for method in solving:
        colour = shown.colour(method)
        colour = next(spare) if colour == OTHER else colour
        share = 100 * (1 - _mean(shown.curves(method, "solver_converged")))
        for axes, curve in zip(panels, (_mean(_steps(shown, method)), share), strict=True):
            axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, label=_short(method))
    panels[0].set_ylabel("solver steps")
    panels[1].set_ylabel("samples that did\nnot converge (%)")
    panels[1].set_ylim(bottom=0)
    _epochs(panels[1])
    handles, names = panels[0].get_legend_handles_labels()
    how = {"loc": "outside upper center", "ncols": 2, "frameon": False, "fontsize": SMALL}
    figure.legend(handles, names, **how)
    return figure


def absence(shown: Shown) -> Any:
    """The score with every modality there, and with each of them missing when it is used."""
    rows = [row for row in shown.rows if row.missing]
    if not rows:
        return None
    figure, axes = _figure(0.22 * len(rows) + 1.5)
    modalities = max((list(row.missing) for row in rows), key=len)  # a system may have fewer
    colours = dict(zip(modalities, cycle(OTHERS), strict=False))
    for i, row in enumerate(rows):
        complete = shown.value(row.scores[shown.score.name].mean)
        axes.plot(complete, i, "D", color="black", label="all there" if not i else None)
        for modality, without in row.missing.items():
            axes.plot(shown.value(without.mean), i, "o", color=colours.get(modality, OTHER))
    for modality, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=f"without {_short(modality)}")
    _name(axes, shown, [row.method for row in rows])
    axes.set_xlabel(shown.label)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=SMALL)
    return figure


def noise(shown: Shown) -> Any:
    """The score under rising noise, in all modalities and in each: the mean over the runs, of the
    subject and the baseline with its 95 % interval. Grey are the others."""
    return _robust(shown, NOISE, "level of noise")


def lacking(shown: Shown) -> Any:
    """The score where a rising share of the samples lacks a modality, any one and each: the mean
    over the runs, of the subject and the baseline with its 95 % interval. Dashed: with zeros in
    its place, of a fusion that can be told. Grey are the others."""
    return _robust(shown, MISSING, "share of samples that lack it")


def _robust(shown: Shown, kind: str, over: str) -> Any:
    """Returns a panel for each of the curves of a kind."""
    rows = [row for row in shown.robust if row.kind == kind]
    if not rows:
        return None
    wheres = list(dict.fromkeys(row.where for row in rows))
    figure, panels = _figure(0.8 + 2.2 * len(wheres), panels=len(wheres))
    best = [row.method for row in shown.rows if not _single(row)]
    methods = {row.method for row in rows}
    chosen = _chosen(shown, [method for method in best if method in methods])
    spare = cycle(OTHERS)
    colours = {m: next(spare) if shown.colour(m) == OTHER else shown.colour(m) for m in chosen}
    for where, axes in zip(wheres, np.atleast_1d(panels), strict=True):
        axes.set_title(in_picture(title(kind, where)), fontsize=SMALL, loc="left")
        axes.set_ylabel(shown.label)
        for row in shown.robust:
            zeros = kind == MISSING and row.kind == ZEROS and row.method in colours
            if row.where == where and (row.kind == kind or zeros):
                _draw_robust(axes, shown, row, colours.get(row.method))
    np.atleast_1d(panels)[-1].set_xlabel(over)
    handles = [axes.plot([], [], color=colour)[0] for colour in colours.values()]
    how = {"loc": "outside upper center", "ncols": 2, "frameon": False, "fontsize": SMALL}
    figure.legend(handles, map(_short, colours), **how)
    return figure


def _draw_robust(axes: Any, shown: Shown, row: Robust, colour: str | None) -> None:
    style: dict[str, Any] = {"color": "#d1d5db", "linewidth": 0.8}
    if colour is not None:
        style = {"color": colour, "linewidth": 1.2, "zorder": 3}
    if row.kind == ZEROS:
        style["linestyle"] = "--"
    axes.plot(row.levels, [shown.value(point.mean) for point in row.curve], **style)
    if row.method in (shown.subject, shown.baseline) and row.kind != ZEROS:
        bounds = [[shown.value(x) for x in (point.low, point.high)] for point in row.curve]
        if np.isfinite(bounds).all():
            axes.fill_between(row.levels, *zip(*bounds, strict=True), color=colour, alpha=0.15)


def _chosen(shown: Shown, methods: Sequence[str]) -> list[str]:
    """Returns the methods that are named: the subject, the baseline, the first of the others."""
    chosen = [m for m in (shown.subject, shown.baseline) if m is not None and m in methods]
    return chosen + [m for m in methods if m not in chosen][: NAMED - len(chosen)]


PICTURES: Mapping[str, Callable[[Shown], Any]] = {
    "Scores": scores,
    "Differences": differences,
    "Costs": costs,
    "Learning": learning,
    "Convergence": convergence,
    "Missing modalities": absence,
    "Robustness to noise": noise,
    "Robustness to absence": lacking,
}


def as_svg(figure: Any) -> bytes:
    """Returns the figure as SVG, the same bytes for the same figure."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "comparison"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _figure(height: float, panels: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: it keeps global state

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(panels, 1)
    for each in np.atleast_1d(axes):
        each.grid(alpha=0.3)
        each.tick_params(labelsize=SMALL)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _epochs(axes: Any) -> None:
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)


def _short(name: str) -> str:
    """Returns a name as a picture may have it, which a long one would fill."""
    text = printable(name)
    return in_picture(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


def _bar(axes: Any, at: int, colour: str, mean: float, low: float, high: float) -> None:
    if np.isfinite(low):
        axes.plot([low, high], [at, at], "-", color=colour, linewidth=2)
    axes.plot(mean, at, "D", color=colour, markersize=5)


def _name(axes: Any, shown: Shown, methods: Sequence[str]) -> None:
    axes.set_yticks(range(len(methods)), map(_short, methods), fontsize=SMALL)
    for tick, method in zip(axes.get_yticklabels(), methods, strict=True):
        tick.set_color(shown.colour(method) if shown.colour(method) != OTHER else "black")
    axes.set_ylim(len(methods) - 0.5, -0.5)


def _single(row: Row) -> bool:
    return row.kind == SINGLE


def _steps(shown: Shown, method: str) -> np.ndarray:
    return shown.curves(method, "solver_steps")


def _mean(curves: np.ndarray) -> np.ndarray:
    return np.nanmean(curves, axis=0)
