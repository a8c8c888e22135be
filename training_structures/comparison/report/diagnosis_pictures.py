"""Pictures of diagnoses: what modalities bring, interaction, and reliability diagrams."""

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import numpy as np

from .diagnoses import Diagnosed
from .pictures import OTHER, OTHERS, SMALL, Shown, _chosen, _figure, _name, _short, _single

BAR = 0.16  # inches of a bar
FEW = 0.01  # share of the samples from which a bin is drawn


def brought(shown: Shown) -> Any:
    """By how much each modality makes the score better, its fair share over all orders in which
    they may come (Shapley value): the longer the bar, the more it brings; left of 0 it does harm.
    Lines are 95 % intervals over the runs."""
    rows = [row for row in shown.diagnosed if row.brought]
    if not rows:
        return None
    modalities = max((list(row.brought) for row in rows), key=len)
    figure, axes = _figure((BAR * len(modalities) + 0.1) * len(rows) + 1.1)
    height, colours = 0.8 / len(modalities), cycle(OTHERS)
    for place, (modality, colour) in enumerate(zip(modalities, colours, strict=False)):
        for i, row in enumerate(rows):
            if modality not in row.brought:
                continue
            value, at = row.brought[modality], i - 0.4 + (place + 0.5) * height
            label = _short(modality) if i == 0 else None
            axes.barh(at, shown.value(value.mean), 0.9 * height, color=colour, label=label)
            if np.isfinite(value.low):
                ends = [shown.value(value.low), shown.value(value.high)]
                axes.plot(ends, [at, at], color="black", linewidth=0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    _name(axes, shown, [row.method for row in rows])
    unit = "points of " if shown.score.percent else ""
    less = ", less of it" if shown.score.lower else ""
    axes.set_xlabel(f"{unit}{_short(shown.score.name)}{less} that it brings")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=SMALL)
    return figure


def interaction(shown: Shown) -> Any:
    """How much of what a model does takes two modalities at once (InterSHAP): at 0 it adds up what
    each says alone, at 100 no modality says anything alone. Lines are 95 % intervals over the
    runs."""
    rows = [row for row in shown.diagnosed if row.interaction is not None]
    rows = [row for row in rows if row.interaction and np.isfinite(row.interaction.mean)]
    if not rows:
        return None
    figure, axes = _figure(0.22 * len(rows) + 0.9)
    for i, row in enumerate(rows):
        value = row.interaction
        assert value is not None
        axes.barh(i, 100 * value.mean, 0.7, color=shown.colour(row.method))
        if np.isfinite(value.low):
            ends = np.clip([100 * value.low, 100 * value.high], 0, 100)
            axes.plot(ends, [i, i], color="black", linewidth=0.8)
    _name(axes, shown, [row.method for row in rows])
    axes.set_xlim(left=0)
    axes.set_xlabel("interaction (% of what it does)")
    return figure


def reliability(shown: Shown) -> Any:
    """How often models are right when they are so sure: on the dashed line as often as they say;
    below it they are too sure, above it not sure enough. A dot is a bin of confidence, and the
    larger the more samples it holds, of all runs; bins with less than 1 % of them are left out."""
    rows = {row.method: row for row in shown.diagnosed if row.bins is not None}
    best = [row.method for row in shown.rows if row.method in rows and not _single(row)]
    chosen = _chosen(shown, best or list(rows))
    if not chosen:
        return None
    figure, axes = _figure(4.4)
    axes.plot([0, 100], [0, 100], "--", color=OTHER, linewidth=1)
    axes.text(97, 4, "too sure", ha="right", color=OTHER, fontsize=SMALL)
    axes.text(3, 94, "not sure enough", color=OTHER, fontsize=SMALL)
    spare = cycle(OTHERS)
    for method in chosen:
        colour = shown.colour(method)
        colour = next(spare) if colour == OTHER else colour
        _draw_reliability(axes, rows[method], colour)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("how sure it is: confidence (%)")
    axes.set_ylabel("how often it is right: accuracy (%)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=SMALL)
    return figure


def _draw_reliability(axes: Any, row: Diagnosed, colour: str) -> None:
    assert row.bins is not None
    share = row.bins[:, 0] / row.bins[:, 0].sum()
    kept = share >= FEW
    sure, right = 100 * row.bins[kept, 1], 100 * row.bins[kept, 2]
    axes.plot(sure, right, color=colour, linewidth=1, label=_short(row.method), clip_on=False)
    sizes = 8 + 150 * share[kept]
    axes.scatter(sure, right, s=sizes, color=colour, alpha=0.6, zorder=3, clip_on=False)


DIAGNOSES: Mapping[str, Callable[[Shown], Any]] = {
    "What each modality brings": brought,
    "Interaction of modalities": interaction,
    "Reliability": reliability,
}
