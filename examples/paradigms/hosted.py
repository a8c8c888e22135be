"""A recipe's network with one more loss, of what its fusion is given and makes of it.

MultiBench's multimodal objectives are such losses. Its `train` hands them the encoders' outputs,
the fused feature and the inputs; here a wrapper around the network does, whatever the network is.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deq_fusion.training_structures.comparison import Fusion, Recipe
from deq_fusion.training_structures.comparison.missing import without
from deq_fusion.training_structures.evaluation import call


@dataclass(frozen=True)
class Step:
    """A training step, as a term of the loss sees it.

    Attributes:
        model: maps the inputs to the prediction.
        fusion: the fusion in it.
        prediction: (batch, outputs).
        inputs: a tensor a modality, (batch, ...).
        features: what reached the fusion, one a modality, (batch, d_i).
        fused: what left it, (batch, d).
    """

    model: nn.Module
    fusion: nn.Module
    prediction: Tensor
    inputs: Sequence[Tensor]
    features: Sequence[Tensor]
    fused: Tensor


@dataclass(frozen=True)
class Sizes:
    """Widths that a loss is built for.

    Attributes:
        inputs: numbers a sample, one for each modality.
        features: of what reaches the fusion, one for each modality.
        fused: of what leaves it.
    """

    inputs: Sequence[int]
    features: Sequence[int]
    fused: int


Term = Callable[[Step], Tensor]
"""A module with parameters of its own, or a function: the loss of a step, a scalar."""


class Hosted(nn.Module):
    """A model around a fusion, whose `auxiliary_loss` is a term of what the fusion sees and makes.

    The term is computed in training alone, of batches of two samples or more.

    Args:
        host: the model; it must call the fusion once a batch, with the list of features.
        fusion: the fusion in it.
        term: the loss.
    """

    def __init__(self, host: nn.Module, fusion: nn.Module, term: Term) -> None:
        super().__init__()
        self.host, self.term = host, term
        self.place = next(name for name, module in host.named_modules() if module is fusion)
        self.auxiliary_loss: Tensor | None = None

    def forward(self, inputs: Sequence[Tensor]) -> Any:
        """Returns what the host returns."""
        self.auxiliary_loss = None
        if not (self.training and torch.is_grad_enabled()) or len(inputs[0]) < 2:
            return self.host(inputs)
        seen: list[tuple[Sequence[Tensor], Tensor]] = []
        fusion = self.host.get_submodule(self.place)
        with fusion.register_forward_hook(lambda _, given, made: seen.append((given[0], made))):
            output = self.host(inputs)
        if len(seen) != 1:
            raise ValueError(
                "the loss needs a model that calls its fusion once a batch, but "
                f"{type(self.host).__name__} called it {len(seen)} times"
            )
        prediction = output[0] if type(output) is tuple else output
        model = Predicting(self.host)
        self.auxiliary_loss = self.term(Step(model, fusion, prediction, inputs, *seen[0]))
        return output

    def without(self, modality: int) -> AbstractContextManager[None]:
        """Returns a context in which the fusion works as if that modality had not come."""
        return without([self.host.get_submodule(self.place)], modality)


class Predicting(nn.Module):
    """A model without its extras: the prediction alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Returns the prediction, (batch, outputs)."""
        return call(self.model, inputs)[0]


Make = Callable[[Sequence[int], int], tuple[nn.Module, int]]
"""(widths of the features, width wanted) -> the fusion, and the width of its result."""


def meet(make: Make, term: Callable[[Sizes], Term], recipe: Recipe) -> Recipe:
    """Returns the recipe around a fusion, with one more loss; parameters of that learn as all do.

    Args:
        make: the fusion.
        term: sizes -> the loss.
        recipe: a benchmark's, whose batches are vectors, or images.

    Raises:
        ValueError: for a recipe that fuses sequences.
    """
    if recipe.features != "vectors":
        raise ValueError(f"takes vectors, and this benchmark fuses {recipe.features}")
    own = recipe.parameters
    return replace(
        recipe,
        build=partial(build, make, term, recipe.build),
        parameters=None if own is None else partial(groups, own),
    )


def build(
    make: Make,
    term: Callable[[Sizes], Term],
    host: Callable[[Fusion, DataLoader], nn.Module],
    fusion: Fusion,
    train: DataLoader,
) -> Hosted:
    """Returns a recipe's model around the fusion, with its loss; nothing is made of `fusion`.

    Raises:
        ValueError: unless the model has one fusion, and its batches are tensors.
    """
    made: list[tuple[nn.Module, Sequence[int], int]] = []

    def make_one(input_dims: Sequence[int], dim: int, outputs: int) -> tuple[nn.Module, int]:
        module, width = make(input_dims, dim)
        made.append((module, input_dims, width))
        return module, width

    model = host(make_one, train)
    if len(made) != 1:
        raise ValueError(f"the loss needs a model with one fusion, got {len(made)}")
    module, features, width = made[0]
    sizes = Sizes(input_widths(train), features, width)
    return Hosted(model, module, term(sizes))


def input_widths(train: DataLoader) -> list[int]:
    """Returns the numbers a sample that each modality has.

    Raises:
        ValueError: for modalities that are not tensors of one size.
    """
    views = train.dataset[[0]][:-1]
    if not all(isinstance(view, Tensor) for view in views):
        raise ValueError(
            "the loss is of inputs that are tensors, one a modality, got "
            f"{[type(view).__name__ for view in views]}"
        )
    return [view[0].numel() for view in views]


def groups(own: Callable[[nn.Module], list[dict[str, Any]]], model: Hosted) -> list[dict[str, Any]]:
    """Returns a recipe's own parameter groups of its model, and one of the loss's."""
    learnt = list(model.term.parameters()) if isinstance(model.term, nn.Module) else []
    return [*own(model.host), *([{"params": learnt}] if learnt else [])]


class Objective(nn.Module):
    """One of MultiBench's objectives as a term: the recipe has the supervised part.

    Args:
        objective: (prediction, truth, args) -> the loss, whose criterion is `nothing`.
        weight: of the term.
        modules: what `args` holds besides what the fusion sees and makes.
    """

    def __init__(
        self, objective: Callable[..., Tensor], weight: float, modules: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.objective, self.weight = objective, weight
        self.parts = nn.ModuleDict(modules)

    def forward(self, step: Step) -> Tensor:
        """Returns the weighted loss of a step."""
        args = {"reps": step.features, "fused": step.fused, "inputs": step.inputs}
        args |= {"training": True, **self.parts}
        return self.weight * self.objective(step.prediction, step.prediction, args)


def nothing(prediction: Tensor, truth: Tensor) -> Tensor:
    """Returns 0: a criterion for objectives whose supervised part is elsewhere."""
    return prediction.new_zeros(())
