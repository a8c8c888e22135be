"""Hyperparameters searched on validation data, with the same number of trials for every fusion."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sklearn.model_selection import ParameterGrid, ParameterSampler

from ..run import Callback
from .methods import Method

Choice = dict[str, Mapping[str, Any]]
"""A setting to try: `options` of the fusion and keywords of the `optimizer`, besides its own."""

Space = dict[tuple[str, str], Any]
"""("options" or "optimizer", name) -> values to choose from, or a distribution of scipy."""

OWN: Choice = {"options": {}, "optimizer": {}}
INSTALL = "pip install optuna"


class Search:
    """The trials of a method's run, one after the other: the recipe's own setting, then draws.

    The draws differ from each other, and depend on the number of the run alone.
    """

    def __init__(self, method: Method, run: int, trials: int) -> None:
        self._left = [OWN]
        if trials > 1:
            drawn = ParameterSampler(space_of(method), trials - 1, random_state=run)
            self._left += [choice_of(each) for each in drawn]

    def ask(self) -> Choice:
        """Returns the setting to try next; `tell` then says how it went."""
        return self._left.pop(0)

    def tell(self, score: float | None, curve: Sequence[float], *, pruned: bool = False) -> None:
        """Takes what a trial reached on validation data.

        Args:
            score: of its best epoch; None if it diverged.
            curve: the score of each of its epochs.
            pruned: whether one of `callbacks` ended it.
        """

    @property
    def callbacks(self) -> list[Callback]:
        """What is to watch the training of the trial that was asked for, and may end it."""
        return []


def search(method: Method, run: int, trials: int, *, prune: bool = False) -> Search:
    """Returns what chooses the settings of a method's run: Optuna's, where it is installed.

    Args:
        trials: their number.
        prune: whether trials may be ended early, see `tpe.TPE`.
    """
    if trials == 1 or optuna_version() is None:
        return Search(method, run, trials)
    from .tpe import TPE  # which itself needs what is here

    return TPE(method, run, prune=prune)


def searched_by(trials: int, *, prune: bool = False) -> str | None:
    """Returns in words what searches here, for it decides what is tried; None if nothing is.

    Raises:
        ValueError: if trials are to be pruned of which there is one, or without Optuna.
    """
    found = optuna_version()
    if prune and trials == 1:
        raise ValueError("prune ends trials of a search, so ask for more of them (--search 10)")
    if prune and found is None:
        raise ValueError(f"pruning trials needs Optuna: {INSTALL}")
    if trials == 1:
        return None
    if found is None:
        return "random draws"
    return f"Optuna {found}, TPE" + (" and median pruning" if prune else "")


def told(trials: int, by: str) -> str:
    """Returns a sentence on a search, to be said once; `by` is of `searched_by`."""
    better = "" if by.startswith("Optuna") else f"; Optuna would learn from the trials: {INSTALL}"
    return f"every fusion tries {trials} settings in each run, found by {by}{better}"


def optuna_version() -> str | None:
    """Returns the version of Optuna; None if it is not installed."""
    try:
        return version("optuna")
    except PackageNotFoundError:
        return None


def check_search(method: Method, trials: int) -> None:
    """Makes sure that there are as many settings as trials, and that they can be searched.

    Raises:
        ValueError: if not.
    """
    if trials == 1:
        return
    space = space_of(method)
    for (_, name), values in space.items():
        distribution = hasattr(values, "rvs")
        if distribution and not (hasattr(values, "ppf") and hasattr(values, "cdf")):
            raise ValueError(
                f"{name} of {method.name} must be searched among values, or in a frozen "
                f"distribution of scipy.stats such as loguniform(1e-4, 1e-2), got {values!r}"
            )
    points = grid_of(space)
    if points is not None and len(points) < trials - 1:
        raise ValueError(
            f"{trials} trials need {trials - 1} settings besides the recipe's own, but "
            f"{method.name} has {len(points)} to choose from; ask for fewer trials"
        )


def space_of(method: Method) -> Space:
    """Returns the optimiser's values in `Recipe.search`, and the fusion's own in its attribute
    `search`, if it has one."""
    own = getattr(method.fusion, "search", {})
    optimizer = {("optimizer", name): values for name, values in method.recipe.search.items()}
    return optimizer | {("options", name): values for name, values in own.items()}


def grid_of(space: Space) -> Sequence[dict[tuple[str, str], Any]] | None:
    """Returns all points of a space; None if there is no end to them."""
    if any(hasattr(values, "rvs") for values in space.values()):
        return None
    return ParameterGrid(space) if space else []


def choice_of(point: Mapping[tuple[str, str], Any]) -> Choice:
    """Returns a point of the space as the setting that it is."""
    choice: dict[str, dict[str, Any]] = {"options": {}, "optimizer": {}}
    for (kind, name), value in point.items():
        choice[kind][name] = value.item() if hasattr(value, "item") else value
    return choice
