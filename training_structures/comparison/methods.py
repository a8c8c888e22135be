"""The methods of a comparison: floors, single modalities, systems, fusions that take the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..choices import FEATURES, TASKS
from .recipe import Fusion, Recipe, described
from .systems import SHARED, System, is_system

FLOOR, SINGLE, SYSTEM, FUSION = KINDS = "floor", "single modality", "system", "fusion"
BASELINE = "concat"  # what the others are tested against unless another is named


@dataclass(frozen=True)
class Method:
    """A method of a comparison, which is a row of its table.

    Attributes:
        name: its name in tables.
        recipe: the benchmark as this method meets it.
        fusion: the fusion, or the system; None for a floor.
        kind: one of `KINDS`; a floor is one without a fusion.
    """

    name: str
    recipe: Recipe
    fusion: Fusion | System | None
    kind: str = FUSION

    def __post_init__(self) -> None:
        if self.fusion is None:
            object.__setattr__(self, "kind", FLOOR)

    @property
    def system(self) -> System | None:
        """The system that it is; None if it is none."""
        return self.fusion if is_system(self.fusion) else None

    def settings(self) -> dict[str, str]:
        """Returns the settings of its runs, besides their number, as text for a reader."""
        floor = self.recipe.floors.get(self.name) if self.fusion is None else None
        return self.recipe.settings(self.name) | {"floor": described(floor)}

    def changed(self, options: Mapping[str, Any], optimizer: Mapping[str, Any]) -> "Method":
        """Returns the method with more options of its fusion, and of the optimiser."""
        recipe = self.recipe
        merged = {**recipe.fusion_options.get(self.name, {}), **options}
        return replace(self, recipe=recipe.tuned(self.name, merged, optimizer))


class Only(nn.Module):
    """The features of the first modality, unfused."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return features[0]


def only(input_dims: Sequence[int], dim: int) -> tuple[nn.Module, int]:
    """A single modality on its own."""
    return Only(), input_dims[0]


def single(recipe: Recipe, modality: str) -> Method:
    """Returns the method that is a modality of a recipe on its own."""
    return Method(f"only {modality}", recipe.restricted([modality]), only, SINGLE)


def gather(
    recipe: Recipe, fusions: Mapping[str, Fusion | System], *, unimodal: bool
) -> tuple[list[Method], dict[str, str]]:
    """Returns the methods in order, and of what cannot take the recipe the reason.

    Raises:
        TypeError: for a system that is not compared under the same protocol, see `met`.
        ValueError: if two methods have the same name.
    """
    recipe = replace(recipe, systems={})  # they are among the fusions, if they are wanted
    methods = [Method(name, recipe, None) for name in recipe.floors]
    if unimodal and len(recipe.modalities) > 1:
        methods += [single(recipe, name) for name in recipe.modalities]
    reasons = {}
    for name, fusion in fusions.items():
        found = _suited(name, fusion, recipe)
        if isinstance(found, Method):
            methods.append(found)
        else:
            reasons[name] = found
    names = [method.name for method in methods]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"every method needs a name of its own, got {sorted(twice)} twice")
    return methods, reasons


def _suited(name: str, fusion: Fusion | System, recipe: Recipe) -> Method | str:
    """Returns the method, or why there is none."""
    reason = refusal(fusion, recipe)
    if reason is not None or not is_system(fusion):
        return reason or Method(name, recipe, fusion)
    try:
        return Method(name, met(name, fusion, recipe), fusion, SYSTEM)
    except ValueError as error:
        return str(error)


def met(name: str, system: System, recipe: Recipe) -> Recipe:
    """Returns the recipe as a system meets it, with the options that the recipe has for it.

    Raises:
        TypeError: for a system that changes what all methods share, or returns no recipe.
        ValueError: as the system does for what it cannot take, and for options that it lacks.
    """
    options = recipe.fusion_options.get(name, {})
    if unknown := [option for option in options if option not in system.options]:
        there = ", ".join(system.options) or "none"
        raise ValueError(f"has no option {', '.join(unknown)}; its options are: {there}")
    found = system.meet(recipe, **options)
    if not hasattr(found, "modalities"):
        raise TypeError(f"meet of the system {name} must return a Recipe, got {found!r}")
    changed = [what for what in SHARED if getattr(found, what) != getattr(recipe, what)]
    if changed:
        raise TypeError(
            f"the system {name} must leave {', '.join(SHARED)} as they are, or it is not compared "
            f"under the same protocol, but changes {', '.join(changed)}"
        )
    return found


def refusal(fusion: Fusion | System, recipe: Recipe) -> str | None:
    """Returns why a fusion or system cannot take a recipe, by what it declares; None if it can.

    A fusion may have the attributes `modalities`, (least, most) of their number, most None
    without a bound; `features`, which of "vectors" and "sequences" it takes; and `tasks`.
    """
    return unsuited(fusion, len(recipe.modalities), recipe.features, recipe.task)


def unsuited(fusion: Fusion | System, count: int, features: str, task: str) -> str | None:
    """Returns the same of so many modalities, of these `features`, for this task."""
    least, most = getattr(fusion, "modalities", (1, None))
    if count < least or (most is not None and count > most):
        return f"takes {bounds(least, most)}, and there {'are' if count > 1 else 'is'} {count}"
    if features not in getattr(fusion, "features", FEATURES):
        return f"does not take {features}"
    if task not in getattr(fusion, "tasks", TASKS):
        return f"does not do {task}"
    return None


def bounds(least: int, most: int | None) -> str:
    """Returns how many modalities a fusion takes, as text."""
    if least == most:
        return f"{least} modalit{'y' if least == 1 else 'ies'}"
    return f"{least} or more modalities" if most is None else f"{least} to {most} modalities"
