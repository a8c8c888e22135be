"""Hyperparameters searched on validation data, with the same number of trials for every fusion."""

from importlib.metadata import PackageNotFoundError, version

from .methods import Method
from .space import Search, grid_of, space_of

INSTALL = "pip install optuna"


def search(method: Method, run: int, trials: int, *, prune: bool = False) -> Search:
    """Returns what chooses the settings of a method's run: Optuna's, where it is installed.

    Args:
        method: whose settings they are.
        run: its number.
        trials: how many settings are tried.
        prune: whether trials may be ended early, see `tpe.TPE`.
    """
    if trials == 1 or optuna_version() is None:
        return Search(method, run, trials)
    from .tpe import TPE  # which a comparison without Optuna need not read

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
