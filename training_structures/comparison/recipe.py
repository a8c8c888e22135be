"""What a benchmark is: the one place for everything that its fusions share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

Fusion = Callable[..., tuple[nn.Module, int]]  # (input_dims, dim, **options) -> (fusion, width)
Loaders = tuple[DataLoader, DataLoader, DataLoader]


@dataclass(frozen=True)
class Recipe:
    """Everything that a benchmark fixes, and that all fusions share.

    Attributes:
        name: names the benchmark in tables.
        load: run number -> (train, valid, test) loaders.
        build: (fusion, train loader) -> model; `fusion(input_dims, dim)` returns the fusion and
            its width.
        objective: the loss, as `fit` calls it.
        metrics: (prediction, truth) of a whole part -> named scores, more is better; the first
            is the one that pictures show.
        epochs: the most epochs a run may take.
        select, patience: the validation score that chooses the epoch and stops (see `fit`).
        optimizer: builds the optimiser from parameter groups.
        resplit: whether every run is a fresh split of one set (see `compare_paired`).
        fusion_options: fusion -> options of its constructor.
        fusion_lr: fusion -> learning rate of its own parameters; by default the optimiser's.
        floors: name -> function of the loaders to learn from and the loader to predict that
            returns the prediction: what a fusion must beat to have learnt anything.
        part: what is scored: "test", or "valid" to choose hyperparameters by, when the test part
            is not read.
    """

    name: str
    load: Callable[[int], Loaders]
    build: Callable[[Fusion, DataLoader], nn.Module]
    objective: Callable[..., Tensor]
    metrics: Callable[[Tensor, Tensor], dict[str, float]]
    epochs: int
    select: str = "loss"
    patience: int | None = None
    optimizer: Callable[[list], torch.optim.Optimizer] = partial(torch.optim.Adam, lr=1e-3)
    resplit: bool = False
    fusion_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fusion_lr: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    part: str = "test"

    def settings(self, method: str) -> dict[str, str]:
        """What decides a run of `method` besides its number, as text."""
        names = "name load build objective metrics epochs select patience optimizer resplit part"
        shared = {name: _described(getattr(self, name)) for name in names.split()}
        own = {"options": repr(dict(self.fusion_options.get(method, {})))}
        return shared | own | {"fusion_lr": repr(self.fusion_lr.get(method))}


def _described(value: Any) -> str:
    """Returns a text that is the same in every process, which repr of a function is not."""
    if isinstance(value, partial):
        given = [repr(x) for x in value.args] + [f"{k}={v!r}" for k, v in value.keywords.items()]
        return f"{_described(value.func)}({', '.join(given)})"
    named = hasattr(value, "__qualname__")
    return f"{value.__module__}.{value.__qualname__}" if named else repr(value)
