"""Pictures for print and screen, which colour-blind readers can tell, too; numbers as CSV."""

import io
from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deq_fusion.training_structures.comparison import Score
from deq_fusion.training_structures.comparison.paired import estimate
from deq_fusion.training_structures.files import save_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, the darkest first; every one has a marker and a dash of its own, so that
# a picture printed in grey can be read, too
COLOURS = "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9"
MARKERS = "o", "s", "^", "D", "v", "P", "X"
DASHES = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (4, 1, 1, 1)),
    (0, (2, 2)),
    (0, (6, 1, 1, 1, 1, 1)),
    "-",
)
METHODS = {  # -> its place among colours, markers and dashes
    "deq": 0,
    "full": 0,
    "no_penalty": 0,
    "no_penalty, iterated": 6,
    "penalty": 1,
    "released_start": 4,
    "released_start_penalty": 5,
    "tied": 3,
    "tied_released_start": 2,
    "deq_paper": 1,
    "concat": 2,
    "deq, one step": 6,
    "torchdeq, joint": 4,
    "unrolled": 3,
    "concat + linear": 2,
    "fusion part": 5,
}
WIDTH, PANEL = 5.2, 2.9  # inches: a column of print, a phone held upright
DPI = 300


def styles() -> Any:
    """Returns an endless iterator of line styles, as keywords of `plot`."""
    return cycle(
        {"color": c, "marker": m, "linestyle": d}
        for c, m, d in zip(COLOURS, MARKERS, DASHES, strict=True)
    )


def look_of(name: str) -> dict[str, Any]:
    """Returns the line style of a method, the same in every picture, as keywords of `plot`."""
    return _look(METHODS[name])


def _look(at: int) -> dict[str, Any]:
    return {"color": COLOURS[at], "marker": MARKERS[at], "linestyle": DASHES[at]}


def looks_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns name -> line style; methods that `METHODS` lacks get what the others leave."""
    names = list(names)
    taken = {METHODS[name] for name in names if name in METHODS}
    free = cycle([at for at in range(len(COLOURS)) if at not in taken] or range(len(COLOURS)))
    return {name: _look(METHODS[name] if name in METHODS else next(free)) for name in names}


def label(score: Score) -> str:
    """Returns a score's name, with its unit, and which way is better where that is down."""
    return f"{score.name}{' (%)' * score.percent}{' (less is better)' * score.lower}"


def from_zero(panels: "Iterable[Axes]", score: Score, axis: str = "x") -> None:
    """Lets axes of scores in their unit begin at 0; those of a share end at 100 %.

    Args:
        panels: whose axes they are.
        score: what is shown.
        axis: "x" or "y".
    """
    low, high = _reached(panels, axis)
    limits = (0, 100) if score.percent else (min(0, 1.05 * low), max(0, 1.05 * high))
    for panel in panels:
        panel.set(**{f"{axis}lim": limits})


def around_zero(
    panels: "Iterable[Axes]", score: Score, axis: str = "x", least: float = 1.0
) -> None:
    """Lets axes of differences have 0 in their middle, alike, and draws a line there.

    Args:
        panels: whose axes they are.
        score: what they are differences of, in its unit.
        axis: "x" or "y".
        least: of a score in percent, the points that an axis goes to either side, so that
            differences that do not matter look small.
    """
    reach = 1.05 * max(map(abs, _reached(panels, axis)))
    reach = max(reach, least) if score.percent else reach
    for panel in panels:
        (panel.axvline if axis == "x" else panel.axhline)(0, color="black", linewidth=0.8)
        panel.set(**{f"{axis}lim": (-reach, reach)} if reach else {})


def _reached(panels: "Iterable[Axes]", axis: str) -> tuple[float, float]:
    """Returns the least and the largest of what is drawn; 0 of nothing."""
    bounds = [bound for panel in panels for bound in getattr(panel.dataLim, f"interval{axis}")]
    there = [bound for bound in bounds if np.isfinite(bound)] or [0.0]
    return min(there), max(there)


def make_figure(panels: int, height: float = PANEL, **options: Any) -> "tuple[Figure, list[Axes]]":
    """Returns a figure of panels one below the other, `height` inches each."""
    from matplotlib.figure import Figure  # not pyplot: it keeps global state

    figure = Figure(figsize=(WIDTH, height * panels), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(panels, 1, **options)))
    for each in axes:
        each.grid(alpha=0.3, linewidth=0.5)
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8)
    return figure, axes


def legend_above(figure: "Figure", axes: "Axes", columns: int = 2) -> None:
    """Puts the legend of an axes above all panels, where no curve can be."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    told = {"ncols": columns, "frameon": False, "fontsize": 8}
    figure.legend(once.values(), once.keys(), loc="outside upper center", **told)


def mean_band(
    curves: np.ndarray, test_share: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean and 95 % interval of the mean over runs, (points,) each, of (runs, points).

    Runs that have no value at a point (NaN) do not count there; the interval is NaN of fewer
    than two.

    Args:
        test_share: see `estimate`.
    """
    columns = np.asarray(curves, dtype=float).T
    there = [x[np.isfinite(x)] for x in columns]
    found = [estimate(x if len(x) else [np.nan], test_share=test_share) for x in there]
    return tuple(np.array([getattr(e, name) for e in found]) for name in ("mean", "low", "high"))


def save_all(folder: Path, figures: "Mapping[str, Figure | None]") -> list[str]:
    """Writes the figures that there are as name.png and name.svg; returns their names.

    Every file is written whole or not at all.
    """
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    for name, figure in drawn.items():
        for kind in ("png", "svg"):
            stream = io.BytesIO()
            # no date and no random ids: the same numbers make the same file
            dated = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": DPI}
            with matplotlib.rc_context({"svg.hashsalt": name}):
                figure.savefig(stream, format=kind, **dated)
            save_atomically(folder / f"{name}.{kind}", lambda f, s=stream: f.write(s.getvalue()))
    return list(drawn)


def write_text(path: Path, text: str) -> None:
    """Writes a text, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_atomically(path, lambda file: file.write(text.encode()))
