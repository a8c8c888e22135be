"""The pictures of the study: what fusions reach set by set, and by the samples to learn from."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from deq_fusion.examples.studies.drawing import legend_above, looks_of, make_figure
from deq_fusion.examples.studies.structures.summary import CEILING, of_reachable
from deq_fusion.examples.studies.tables import Spread, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 7  # methods in a panel of curves, which can be told apart
Scores = dict[tuple[int, str], dict[str, Spread]]  # (samples to learn from, set) -> by method


def draw(scores: Table) -> "dict[str, Figure | None]":
    """Returns name -> picture, of the table `structures`; `sizes` is None of one number of samples.

    The table has its methods in the order in which they are shown.
    """
    found = _read(scores)
    sets = Counter(samples for samples, _ in found)
    usual = max(sets, key=lambda samples: (sets[samples], -samples))
    own = {key: methods for key, methods in found.items() if key[0] == usual}
    return {"structures": shares(own), "sizes": curves(found) if len(sets) > 1 else None}


def _read(scores: Table) -> Scores:
    sets = [column.name for column in scores.columns[scores.keys :]]
    found: Scores = {}
    for samples, method, *cells in scores.rows:
        for name, cell in zip(sets, cells, strict=True):
            if isinstance(cell, Spread):
                found.setdefault((int(samples), name), {})[str(method)] = cell
    return found


def shares(found: Scores) -> "Figure | None":
    """A field of what every method reaches of what can be reached, from a coin to the best rule."""
    means = {key: {m: value.mean for m, value in own.items()} for key, own in found.items()}
    reach = {key: own for key, mean in means.items() if (own := of_reachable(mean))}
    if not reach:
        return None
    sets = [name for _, name in reach]
    methods = [m for m in dict.fromkeys(m for own in found.values() for m in own) if m != CEILING]
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


def curves(found: Scores) -> "Figure":
    """Accuracy against the samples to learn from, a panel for each set that has several sizes."""
    sizes: dict[str, list[int]] = {}
    for samples, name in found:
        sizes.setdefault(name, []).append(samples)
    several = {name: sorted(own) for name, own in sizes.items() if len(own) > 1}
    there = dict.fromkeys(m for own in found.values() for m in own)
    looks = looks_of([m for m in there if m != CEILING][: SHOWN + 1])
    figure, panels = make_figure(len(several), 1.7, sharex=True)
    for axes, (name, own) in zip(panels, several.items(), strict=True):
        for method in there:
            points = [(n, found[n, name][method]) for n in own if method in found[n, name]]
            x = [n for n, _ in points]
            mean = np.array([100 * value.mean for _, value in points])
            sd = np.array([100 * (value.sd or 0.0) for _, value in points])
            if method == CEILING:
                axes.plot(x, mean, color="grey", linewidth=1, label="best possible")
            elif method in looks:
                axes.plot(x, mean, label=method, markersize=3, linewidth=1.1, **looks[method])
                band = mean - sd, mean + sd
                axes.fill_between(x, *band, color=looks[method]["color"], alpha=0.1)
        axes.set(xscale="log", ylim=(45, 101))
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_ylabel("accuracy (%), ± sd", fontsize=8)
    every = sorted({samples for own in several.values() for samples in own})
    panels[-1].minorticks_off()
    panels[-1].set_xticks(every, [f"{samples:,}" for samples in every])
    panels[-1].set_xlabel("samples to learn from", fontsize=8)
    legend_above(figure, panels[0], columns=3)
    return figure
