"""Pictures for print and screen, which colour-blind readers can tell, too; numbers as CSV."""

import io
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
WIDTH, PANEL = 5.2, 2.9  # inches: a column of print, a phone held upright
DPI = 300


def styles() -> Any:
    """Returns an endless iterator of line styles, as keywords of `plot`."""
    return cycle(
        {"color": c, "marker": m, "linestyle": d}
        for c, m, d in zip(COLOURS, MARKERS, DASHES, strict=True)
    )


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
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=8
    )


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
