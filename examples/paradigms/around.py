"""A recipe's network around a fusion that a system names: what such systems share.

Which fusion that is, is an option of the system: `--option ogm_ge.fusion=deq`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import Fusion, Recipe
from deq_fusion.training_structures.comparison.methods import unsuited
from deq_fusion.training_structures.comparison.missing import without
from deq_fusion.training_structures.comparison.sized import sized
from deq_fusion.training_structures.fit import fit


class Around(nn.Module):
    """A model around a fusion, as a system that changes how it is trained, or what is fused.

    Args:
        host: the model.
        fusion: the fusion in it.
    """

    def __init__(self, host: nn.Module, fusion: nn.Module) -> None:
        super().__init__()
        self.host = host
        self.place = next(name for name, module in host.named_modules() if module is fusion)

    @property
    def fusion(self) -> nn.Module:
        """The fusion."""
        return self.host.get_submodule(self.place)

    def fusions(self) -> list[nn.Module]:
        """Returns the modules that learn at a fusion's rate, where it has one of its own."""
        return [self.fusion]

    def forward(self, inputs: Any) -> Any:
        """Returns what the host returns."""
        return self.host(inputs)

    def without(self, modality: int) -> AbstractContextManager[None]:
        """Returns a context in which the fusion works as if that modality had not come."""
        return without([self.fusion], modality)


@dataclass(frozen=True)
class Named:
    """A fusion of the registry as a recipe builds it; called as recipes call a `Fusion`.

    Attributes:
        name: its name; the settings of a run have it as text.
        options: those that the recipe gives it.
        task: the recipe's.
        rate: learning rate of its own parameters; None: the optimiser's.
    """

    name: str
    options: dict[str, Any]
    task: str
    rate: float | None

    def __call__(
        self, input_dims: Sequence[int], dim: int, outputs: int
    ) -> tuple[nn.Module, int | None]:
        """Returns the fusion, and the width of its result."""
        entry = FUSIONS[self.name]
        told = {"outputs": outputs, "task": self.task} if entry.predicts else {}
        return sized(entry(input_dims, dim, **(told | self.options)), dim)


def named(fusion: str, recipe: Recipe, *, headed: bool = False) -> Named:
    """Returns the fusion of that name, for this recipe.

    Args:
        fusion: its name in the registry.
        recipe: a benchmark's.
        headed: whether a head is to follow it.

    Raises:
        ValueError: for a fusion that there is not, or that cannot take the recipe; where a head
            is to follow, also for one that predicts on its own.
    """
    able = [name for name, entry in FUSIONS.items() if not (headed and entry.predicts)]
    if fusion not in able:
        which = " that a head can follow" if headed else ""
        raise ValueError(f"fusion must be one{which}, of {', '.join(sorted(able))}; got {fusion!r}")
    entry = FUSIONS[fusion]
    reason = unsuited(entry, len(recipe.modalities), recipe.features, recipe.task)
    if reason is not None:
        raise ValueError(f"{fusion} {reason}")
    options = dict(recipe.fusion_options.get(fusion, {}))
    return Named(fusion, options, recipe.task, recipe.fusion_lr.get(fusion))


Wrap = Callable[[nn.Module, nn.Module, Sequence[int], int], Around]
"""(model, the fusion in it, widths of the features, width of a prediction) -> the system's."""


def recipe_around(recipe: Recipe, fusion: Fusion, wrap: Wrap, rate: float | None) -> Recipe:
    """Returns the recipe with its model built around a fusion, and wrapped.

    Args:
        recipe: a benchmark's.
        fusion: (widths of the features, width wanted, outputs) -> fusion and width.
        wrap: what the system makes of the model.
        rate: learning rate of what `Around.fusions` has; None: the optimiser's.

    Raises:
        ValueError: for a recipe that is trained another way, to which the model may not be known.
    """
    if recipe.train is not fit:
        raise ValueError("takes a plain training, and this benchmark has another")
    own = recipe.parameters
    apart = own is not None or rate is not None
    return replace(
        recipe,
        build=partial(build, fusion, wrap, recipe.build),
        fusion_lr={},
        parameters=partial(groups, own, rate) if apart else None,
    )


def build(
    make: Fusion,
    wrap: Wrap,
    host: Callable[[Fusion, DataLoader], nn.Module],
    fusion: Fusion,
    train: DataLoader,
) -> Around:
    """Returns a recipe's model around what `make` makes, wrapped; nothing is made of `fusion`.

    Raises:
        ValueError: unless it has one fusion.
    """
    made: list[tuple[nn.Module, Sequence[int], int]] = []

    def make_one(input_dims: Sequence[int], dim: int, outputs: int) -> tuple[nn.Module, int | None]:
        module, width = make(input_dims, dim, outputs)
        made.append((module, input_dims, outputs))
        return module, width

    model = host(make_one, train)
    if len(made) != 1:
        raise ValueError(f"the system needs a model with one fusion, got {len(made)}")
    return wrap(model, *made[0])


def groups(
    own: Callable[[nn.Module], list[dict[str, Any]]] | None, rate: float | None, model: Around
) -> list[dict[str, Any]]:
    """Returns parameter groups: a recipe's own of its model, or the fusions apart; and the rest."""
    if own is not None:
        found, grouped = own(model.host), list(model.host.parameters())
    else:
        grouped = [p for module in model.fusions() for p in module.parameters()]
        found = [{"params": grouped, "lr": rate}] if grouped else []
    known = {id(p) for p in grouped}
    rest = [p for p in model.parameters() if id(p) not in known]
    return [*found, {"params": rest}] if rest else found
