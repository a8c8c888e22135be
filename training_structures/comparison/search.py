"""Hyperparameters searched on validation data, with the same number of trials for every fusion."""

from collections.abc import Mapping
from typing import Any

from sklearn.model_selection import ParameterGrid, ParameterSampler

from .methods import Method


def choices(method: Method, trials: int, run: int) -> list[dict[str, Mapping[str, Any]]]:
    """Returns the settings to try, each `{"options": ..., "optimizer": ...}`.

    The first is the recipe's own; the others, different from each other, are drawn, by the run's
    number, from the optimiser's values in `Recipe.search` and the fusion's own in its attribute
    `search`, if it has one.

    Raises:
        ValueError: if there are fewer settings than trials.
    """
    space = {("optimizer", name): values for name, values in method.recipe.search.items()}
    own = getattr(method.fusion, "search", {})
    space |= {("options", name): values for name, values in own.items()}
    tried = [{"options": {}, "optimizer": {}}]
    if trials > 1:
        finite = all(not hasattr(values, "rvs") for values in space.values())
        most = len(ParameterGrid(space)) * bool(space) if finite else None
        if most is not None and most < trials - 1:
            raise ValueError(
                f"{trials} trials need {trials - 1} settings besides the recipe's own, but "
                f"{method.name} has {most} to choose from; ask for fewer trials"
            )
        for drawn in ParameterSampler(space, trials - 1, random_state=run):
            choice = {"options": {}, "optimizer": {}}
            for (kind, name), value in drawn.items():
                choice[kind][name] = value.item() if hasattr(value, "item") else value
            tried.append(choice)
    return tried
