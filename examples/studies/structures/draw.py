"""The pictures of the study: what fusions reach set by set, and by the samples to learn from."""

from typing import TYPE_CHECKING

import numpy as np

from deq_fusion.examples.studies.drawing import legend_above, looks_of, make_figure
from deq_fusion.examples.studies.structures.summary import CEILING, Found, in_order, reached

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 7  # methods in a panel of curves, which can be told apart


def draw(found: Found) -> "dict[str, Figure | None]":
    """Returns name -> picture; `sizes` is None of one number of samples."""
    sizes = list(dict.fromkeys(samples for samples, _ in found))
    usual = max(sizes, key=lambda n: (len([1 for samples, _ in found if samples == n]), -n))
    own = {key: comparison for key, comparison in found.items() if key[0] == usual}
    return {"structures": shares(own), "sizes": curves(found) if len(sizes) > 1 else None}


def shares(found: Found) -> "Figure | None":
    """A field of what every method reaches of what can be reached, from a coin to the best rule."""
    reach = reached(found)
    if not reach:
        return None
    sets = [name for _, name in reach]
    methods = [name for name in in_order(found) if name != CEILING]
    values = np.array([[each.get(m, np.nan) for each in reach.values()] for m in methods])
    figure, (axes,) = make_figure(1, 0.17 * len(methods) + 1.5)
    axes.grid(visible=False)
    shown = axes.imshow(100 * values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = {"ha": "center", "va": "center", "fontsize": 4.5}
            axes.text(j, i, f"{100 * value:.0f}", color="black" if value > 0.6 else "white", **ink)
    axes.set_xticks(range(len(sets)), sets, fontsize=6, rotation=60, ha="right")
    axes.set_yticks(range(len(methods)), methods, fontsize=6)
    samples = next(iter(reach))[0]
    axes.set_title(f"what is reached with {samples:,} samples (%)", fontsize=9, loc="left")
    bar = figure.colorbar(shown, ax=axes, shrink=0.5, pad=0.02)
    bar.set_ticks([0, 50, 100], labels=["a coin", "half", "best rule"], fontsize=6)
    return figure


def curves(found: Found) -> "Figure":
    """Accuracy against the samples to learn from, a panel for each set that has several sizes."""
    sizes: dict[str, list[int]] = {}
    for samples, name in found:
        sizes.setdefault(name, []).append(samples)
    several = [name for name, numbers in sizes.items() if len(numbers) > 1]
    methods = [name for name in in_order(found) if name != CEILING][: SHOWN + 1]
    looks = looks_of(methods)
    figure, panels = make_figure(len(several), 1.7, sharex=True)
    for axes, name in zip(panels, several, strict=True):
        lines: dict[str, list[tuple[int, float, float, float]]] = {}
        for samples in sorted(sizes[name]):
            comparison = found[samples, name]
            for row in comparison.table():
                value = row.scores[comparison.score.name]
                lines.setdefault(row.method, []).append(
                    (samples, 100 * value.mean, 100 * value.low, 100 * value.high)
                )
        for method, points in lines.items():
            x, mean, low, high = np.array(points).T
            if method == CEILING:
                axes.plot(x, mean, color="grey", linewidth=1, label="best possible")
            elif method in looks:
                axes.plot(x, mean, label=method, markersize=3, linewidth=1.1, **looks[method])
                axes.fill_between(x, low, high, color=looks[method]["color"], alpha=0.1)
        axes.set(xscale="log", ylim=(45, 101))
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_ylabel("accuracy (%)", fontsize=8)
    every = sorted({samples for name in several for samples in sizes[name]})
    panels[-1].minorticks_off()
    panels[-1].set_xticks(every, [f"{samples:,}" for samples in every])
    panels[-1].set_xlabel("samples to learn from", fontsize=8)
    legend_above(figure, panels[0], columns=3)
    return figure
