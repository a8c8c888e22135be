"""Gradient blending (Wang et al., 2020), compared whole: a recipe's network with more heads.

Every modality has a linear head on what reaches the fusion of it, and all heads are trained
together, weighted as `training_structures/blending.py` says. The prediction is the network's own.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deq_fusion.examples.paradigms.around import named
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.blending import BLEND, Heads, fit_blended
from deq_fusion.training_structures.comparison import Fusion, Recipe, System
from deq_fusion.training_structures.comparison.missing import without
from deq_fusion.training_structures.evaluation import call
from deq_fusion.training_structures.fit import fit

EVERY, SHARE = 20, 0.1  # epochs between estimates of the weights; share of train for these


class Blended(nn.Module):
    """A model around a fusion, and a linear head on each feature that reaches the fusion.

    Of a sequence, (batch, time, d), a head sees the mean over the time.

    Args:
        host: the model; in training it must call the fusion once, with the list of features.
        fusion: the fusion in it.
        input_dims: widths of the features.
        outputs: width of a prediction.
    """

    weights: Tensor

    def __init__(
        self, host: nn.Module, fusion: nn.Module, input_dims: Sequence[int], outputs: int
    ) -> None:
        super().__init__()
        self.host = host
        self.place = next(name for name, module in host.named_modules() if module is fusion)
        self.heads = nn.ModuleList(nn.Linear(width, outputs) for width in input_dims)
        count = len(self.heads) + 1
        self.register_buffer("weights", torch.full((count,), 1 / count))
        self.round: str | None = None

    def forward(self, inputs: Any) -> Any:
        """Returns what the host returns, when blending with the predictions of the heads."""
        if self.round != BLEND:
            return self.host(inputs)
        seen: list[Sequence[Tensor]] = []
        fusion = self.host.get_submodule(self.place)
        with fusion.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
            prediction, *extras = call(self.host, inputs)
        if len(seen) != 1:
            raise ValueError(
                "gradient blending needs a model that calls its fusion once a batch, but "
                f"{type(self.host).__name__} called it {len(seen)} times"
            )
        others = [head(pooled(x)) for head, x in zip(self.heads, seen[0], strict=True)]
        return prediction, Heads(others, self.weights, tuple(extras))

    def alone(self, k: int) -> "Alone":
        """Returns a copy that predicts by the head of modality k."""
        host = deepcopy(self.host)
        host.set_submodule(self.place, _End())
        return Alone(host, deepcopy(self.heads[k]), k)

    def without(self, modality: int) -> AbstractContextManager[None]:
        """Returns a context in which the fusion works as if that modality had not come."""
        return without([self.host.get_submodule(self.place)], modality)


class Alone(nn.Module):
    """A model up to its fusion, and the head of one modality: nothing behind it is computed.

    Args:
        host: the model, with an end in its fusion's place.
        head: of the modality.
        k: its number.
    """

    def __init__(self, host: nn.Module, head: nn.Module, k: int) -> None:
        super().__init__()
        self.host, self.head, self.k = host, head, k

    def forward(self, inputs: Any) -> Tensor:
        """Returns the head's prediction."""
        try:
            self.host(inputs)
        except _Reached as reached:
            return self.head(pooled(reached.features[self.k]))
        raise ValueError(
            "gradient blending needs a model that calls its fusion once a batch, but "
            f"{type(self.host).__name__} did not"
        )


class _Reached(Exception):
    """The features have reached the place of the fusion."""

    def __init__(self, features: Sequence[Tensor]) -> None:
        super().__init__()
        self.features = features


class _End(nn.Module):
    """A stand-in for a fusion, at which a model ends."""

    def forward(self, features: Sequence[Tensor], **options: Any) -> Tensor:
        raise _Reached(features)


def pooled(feature: Tensor) -> Tensor:
    """Returns a feature, (batch, ..., d), as (batch, d): the mean over what is between."""
    return feature.flatten(1, -2).mean(1) if feature.dim() > 2 else feature


def blended(
    fusion: str = "concat",
    *,
    every: int = EVERY,
    share: float = SHARE,
    of_heads: Callable[..., Tensor] | None = None,
) -> System:
    """Returns gradient blending of a recipe's network around a fusion, as a system to compare.

    Args:
        fusion: its name in the registry.
        every: epochs between estimates of the weights.
        share: of the training part, that is held out for these.
        of_heads: the loss of the heads, of (prediction, truth); by default the recipe's, which
            does if it takes no more.

    Raises:
        ValueError: for a fusion that there is not, or one that predicts on its own.
    """
    if fusion not in FUSIONS or FUSIONS[fusion].predicts:
        named = sorted(name for name, entry in FUSIONS.items() if not entry.predicts)
        raise ValueError(
            f"fusion must be one that a head can follow, of {', '.join(named)}; got {fusion!r}"
        )
    least, most = FUSIONS[fusion].modalities
    return System(
        partial(meet, of_heads, fusion=fusion, every=every, share=share),
        f"{fusion} and a head a modality, weighted by how they generalise (gradient blending)",
        "Wang et al., 2020",
        f"{max(2, least)} or more: {' or '.join(FUSIONS[fusion].features)}",
        f"{fusion}'s, and N d outputs; trials as long as the training for each of N + 1 heads",
        modalities=(max(2, least), most),
    )


def meet(
    of_heads: Callable[..., Tensor] | None,
    recipe: Recipe,
    *,
    fusion: str,
    every: int,
    share: float,
) -> Recipe:
    """Returns the recipe as gradient blending meets it: its own but for model and training.

    Raises:
        ValueError: for a recipe that the fusion cannot take, or that is trained another way.
    """
    chosen = named(fusion, recipe, headed=True)
    if recipe.train is not fit:
        raise ValueError("blends the losses of a plain training, and this recipe has another")
    own = recipe.parameters
    return replace(
        recipe,
        build=partial(build, chosen, recipe.build),
        train=partial(fit_blended, every=every, share=share, of_heads=of_heads),
        parameters=None if own is None else partial(groups, own),
    )


def build(
    entry: Fusion,
    host: Callable[[Fusion, DataLoader], nn.Module],
    fusion: Fusion,
    train: DataLoader,
) -> Blended:
    """Returns a recipe's model around a fusion of the registry, with heads; nothing of `fusion`.

    Raises:
        ValueError: unless it has one fusion, which is part of it.
    """
    made: list[tuple[nn.Module, Sequence[int], int]] = []

    def make(input_dims: Sequence[int], dim: int, outputs: int) -> tuple[nn.Module, int | None]:
        module, width = entry(input_dims, dim, outputs)
        made.append((module, input_dims, outputs))
        return module, width

    model = host(make, train)
    if len(made) != 1:
        raise ValueError(f"gradient blending needs a model with one fusion, got {len(made)}")
    module, input_dims, outputs = made[0]
    return Blended(model, module, input_dims, outputs)


def groups(
    own: Callable[[nn.Module], list[dict[str, Any]]], model: Blended
) -> list[dict[str, Any]]:
    """Returns a recipe's own parameter groups of its model, and one of the heads."""
    return [*own(model.host), {"params": list(model.heads.parameters())}]
