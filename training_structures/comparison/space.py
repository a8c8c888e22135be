"""The settings that a search chooses among, and random draws of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.model_selection import ParameterGrid, ParameterSampler

from ..run import Callback
from .methods import Method

Choice = Mapping[str, Mapping[str, Any]]
"""A setting to try: `options` of the fusion and keywords of the `optimizer`, besides its own."""

Space = dict[tuple[str, str], Any]
"""("options" or "optimizer", name) -> values to choose from, or a distribution of scipy."""

OWN: Choice = {"options": {}, "optimizer": {}}


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
        """Callbacks that watch the training of the trial that was asked for, and may end it."""
        return []


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
