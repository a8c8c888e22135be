"""The published protocols that select on test: the same runs, chosen by what they report."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.datasets.loaders import make_loader
from deq_fusion.training_structures.comparison import Loaders, Recipe

LABEL = "selected on test"


def selected_on_test(recipe: Recipe) -> Recipe:
    """Returns the recipe whose epoch, and end, is chosen by the part that is scored.

    Its scores are too good, by as much as the best of many looks is better than one: they are to
    be compared with what was published so, and with nothing else. Its name says so.
    """
    floors = {name: partial(without_test, floor) for name, floor in recipe.floors.items()}
    name, load = f"{recipe.name}, {LABEL}", partial(load_for_test, recipe.load)
    return replace(recipe, name=name, load=load, floors=floors)


def without_test(
    floor: Callable[..., Tensor], known: Sequence[DataLoader], scored: DataLoader
) -> Tensor:
    """A floor that learns from train alone: it selects nothing, and validation is the test part."""
    return floor(known[:1], scored)


def load_for_test(
    load: Callable[[int, Sequence[str]], Loaders], run: int, modalities: Sequence[str]
) -> Loaders:
    """Returns loaders of which the test part is validation, too.

    A validation part that was cut from train is learnt from, where both are in memory; where they
    are read from files it is left out.
    """
    train, valid, test = load(run, modalities)
    return _joined(train, valid), test, test


def _joined(train: DataLoader, valid: DataLoader) -> DataLoader:
    """Returns a loader of both parts' samples, in batches of train's size."""
    parts = [loader.dataset for loader in (train, valid)]
    if not all(isinstance(part, TensorDataset) for part in parts):
        return train
    joined = TensorDataset(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))
    size = train.sampler.batch_size
    return make_loader(joined, batch_size=None if size >= len(parts[0]) else size, shuffle=True)
