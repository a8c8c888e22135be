"""Pictures of a comparison: each a function that returns a figure, narrow enough for a phone."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from .methods import SINGLE
from .recipe import Score
from .table import Row
from .text import in_picture

BASELINE, SUBJECT, OTHER = "#0072b2", "#d55e00", "#6b7280"  # told apart by the colour-blind, too
OTHERS = "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
WIDTH = 5.2  # inches; about a phone's width at the text size used


@dataclass(frozen=True)
class Shown:
    """What every picture needs.

    Attributes:
        rows: best first.
        results: the runs behind them.
        score: what is shown.
        select: the validation score that training selected by.
        baseline, subject: the methods to set off by colour.
    """

    rows: Sequence[Row]
    results: Sequence[Mapping[str, Any]]
    score: Score
    select: str
    baseline: str | None
    subject: str | None

    def colour(self, method: str) -> str:
        return {self.baseline: BASELINE, self.subject: SUBJECT}.get(method, OTHER)

    def value(self, score: float) -> float:
        return 100 * score if self.score.percent else score

    @property
    def label(self) -> str:
        return f"{in_picture(self.score.name)}{' (%)' if self.score.percent else ''}"

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
    figure, axes = _figure(0.3 * len(shown.rows) + 0.9)
    for i, row in enumerate(shown.rows):
        colour, main = shown.colour(row.method), row.scores[shown.score.name]
        runs = [r["scores"][shown.score.name] for r in shown.results if r["method"] == row.method]
        axes.plot([shown.value(x) for x in runs], [i] * len(runs), "o", color=colour, alpha=0.2)
        _bar(axes, i, *(shown.value(x) for x in (main.mean, main.low, main.high)), colour)
    _name(axes, shown, [row.method for row in shown.rows])
    axes.set_xlabel(shown.label)
    return figure


def differences(shown: Shown) -> Any:
    """Each fusion's score minus the baseline's in the same runs: mean and 95 % interval."""
    rows = [row for row in shown.rows if row.test is not None and not _single(row)]
    if not rows:
        return None
    figure, axes = _figure(0.3 * len(rows) + 0.9)
    axes.axvline(0, color=BASELINE, linewidth=1)
    for i, row in enumerate(rows):
        bounds = (row.test.difference, row.test.low, row.test.high)
        _bar(axes, i, *(shown.value(x) for x in bounds), shown.colour(row.method))
    _name(axes, shown, [row.method for row in rows])
    axes.set_xlabel(f"{shown.label}, minus {in_picture(str(shown.baseline))}")
    return figure


def costs(shown: Shown) -> Any:
    """The score, better upwards, against training time and parameters; named is what no other
    fusion beats in both."""
    figure, panels = _figure(6.6, panels=2)
    for axes, cost, label in zip(
        panels, ("seconds", "parameters"), ("seconds of training", "parameters"), strict=True
    ):
        cheapest, named = math.inf, 0
        for row in shown.rows:  # best first
            spent = row.costs[cost]
            if spent is None or _single(row):
                continue
            point = spent, shown.value(row.scores[shown.score.name].mean)
            colour = shown.colour(row.method)
            axes.plot(*point, "o", color=colour)
            if spent < cheapest or colour != OTHER:
                named += 1  # above and below in turn, for neighbours' sake
                place = {"xytext": (0, 5 if named % 2 else -11), "textcoords": "offset points"}
                axes.annotate(
                    in_picture(row.method), point, color=colour, fontsize=7, ha="center", **place
                )
            cheapest = min(cheapest, spent)
        axes.set_xscale("log")
        axes.margins(x=0.15, y=0.12)
        if shown.score.lower:
            axes.invert_yaxis()  # up is better
        axes.set_xlabel(f"{label} (logarithmic)")
        axes.set_ylabel(shown.label)
    return figure


def learning(shown: Shown) -> Any:
    """The validation score over the epochs, the mean over the runs that were still training."""
    key = f"valid_{shown.select}"
    trained = [row.method for row in shown.rows if shown.curves(row.method, key).size]
    chosen = [m for m in (shown.subject, shown.baseline) if m in trained]
    chosen += [method for method in trained if method not in chosen][: len(OTHERS)]
    if not chosen:
        return None
    figure, axes = _figure(3.4)
    spare = cycle(OTHERS)
    for method in trained:
        curve = _mean(shown.curves(method, key))
        style = {"color": "#d1d5db", "linewidth": 0.8}
        if method in chosen:
            colour = shown.colour(method)
            colour = next(spare) if colour == OTHER else colour
            style = {"color": colour, "label": in_picture(method), "zorder": 3}
        axes.plot(np.arange(1, len(curve) + 1), curve, **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {in_picture(shown.select)}")
    axes.legend(frameon=False, fontsize=7)
    return figure


def convergence(shown: Shown) -> Any:
    """Of methods that solve an equilibrium: steps a solve, and the share of unconverged samples."""
    solving = [r.method for r in shown.rows if np.isfinite(_steps(shown, r.method)).any()]
    if not solving:
        return None
    figure, panels = _figure(4.6, panels=2)
    spare = cycle(OTHERS)
    for method in solving:
        colour = shown.colour(method)
        colour = next(spare) if colour == OTHER else colour
        share = 100 * (1 - _mean(shown.curves(method, "solver_converged")))
        for axes, curve in zip(panels, (_mean(_steps(shown, method)), share), strict=True):
            axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, label=in_picture(method))
    panels[0].set_ylabel("solver steps")
    panels[1].set_ylabel("samples that did\nnot converge (%)")
    panels[1].set_ylim(bottom=0)
    panels[1].set_xlabel("epoch")
    panels[0].legend(frameon=False, fontsize=7)
    return figure


def absence(shown: Shown) -> Any:
    """The score with every modality there, and with each of them missing when it is used."""
    rows = [row for row in shown.rows if row.missing]
    if not rows:
        return None
    figure, axes = _figure(0.3 * len(rows) + 1.3)
    for i, row in enumerate(rows):
        complete = shown.value(row.scores[shown.score.name].mean)
        axes.plot(complete, i, "D", color="black", label="all there" if not i else None)
        for j, (modality, without) in enumerate(row.missing.items()):
            label = f"without {in_picture(modality)}" if not i else None
            colour = OTHERS[j % len(OTHERS)]
            axes.plot(shown.value(without.mean), i, "o", color=colour, label=label)
    _name(axes, shown, [row.method for row in rows])
    axes.set_xlabel(shown.label)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=7)
    return figure


PICTURES: Mapping[str, Callable[[Shown], Any]] = {
    "Scores": scores,
    "Differences": differences,
    "Costs": costs,
    "Learning": learning,
    "Convergence": convergence,
    "Missing modalities": absence,
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
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bar(axes: Any, at: int, mean: float, low: float, high: float, colour: str) -> None:
    if np.isfinite(low):
        axes.plot([low, high], [at, at], "-", color=colour, linewidth=2)
    axes.plot(mean, at, "D", color=colour, markersize=5)


def _name(axes: Any, shown: Shown, methods: Sequence[str]) -> None:
    axes.set_yticks(range(len(methods)), map(in_picture, methods), fontsize=8)
    for tick, method in zip(axes.get_yticklabels(), methods, strict=True):
        tick.set_color(shown.colour(method) if shown.colour(method) != OTHER else "black")
    axes.set_ylim(len(methods) - 0.5, -0.5)


def _single(row: Row) -> bool:
    return row.kind == SINGLE


def _steps(shown: Shown, method: str) -> np.ndarray:
    return shown.curves(method, "solver_steps")


def _mean(curves: np.ndarray) -> np.ndarray:
    return np.nanmean(curves, axis=0)
