"""Batches: tensors in nested lists, tuples and dicts."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Split = Callable[[Any], tuple[Any, Any]]


@dataclass
class Spare:
    """A batch that another process counts already, for one that has no sample of its own."""

    batch: Any


def split_last(batch: list | tuple) -> tuple[list, Any]:
    """Splits [x_1, ..., x_M, y] into the inputs [x_1, ..., x_M] and the truth y."""
    if not isinstance(batch, (list, tuple)) or len(batch) < 2:
        raise TypeError(
            "a batch must be a list or tuple of inputs followed by the truth, "
            f"got {type(batch).__name__}; pass split_batch for another layout"
        )
    return list(batch[:-1]), batch[-1]


def split_all(loader: Iterable, split_batch: Split) -> Iterator[tuple[Any, Any, int]]:
    """Yields (inputs, truth, number of samples) for every batch; a `Spare` one has none.

    Raises:
        ValueError: for a batch without samples or a loader without batches.
    """
    size = None
    for batch in loader:
        spare = isinstance(batch, Spare)
        inputs, truth = split_batch(batch.batch if spare else batch)
        size = count(truth)
        if size == 0:
            raise ValueError("a batch must hold at least one sample, got an empty one")
        yield inputs, truth, 0 if spare else size
    if size is None:
        raise ValueError("a loader must give at least one batch, every time it is run through")


def count(batch: Any) -> int:
    """Returns the number of samples: the length of the first tensor."""
    while not isinstance(batch, Tensor):
        batch = next(iter(batch.values() if isinstance(batch, dict) else batch))
    return len(batch)


def move(batch: Any, device: torch.device | str) -> Any:
    """Returns the batch with whatever can be moved on the device."""
    return _mapped(batch, lambda item: item.to(device))


def widened(batch: Any) -> Any:
    """Returns the batch with float32 in place of half precision."""
    halves = (torch.float16, torch.bfloat16)
    return _mapped(batch, lambda x: x.float() if getattr(x, "dtype", None) in halves else x)


def _mapped(batch: Any, function: Callable[[Any], Any]) -> Any:
    if hasattr(batch, "to"):
        return function(batch)
    if isinstance(batch, dict):
        return {name: _mapped(item, function) for name, item in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(_mapped(item, function) for item in batch)
    return batch


def join(batches: list[Any]) -> Any:
    """Returns the batches, alike in structure, as one."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat(batches)
    if isinstance(first, dict):
        return {name: join([batch[name] for batch in batches]) for name in first}
    if isinstance(first, (list, tuple)):
        return type(first)(join(list(items)) for items in zip(*batches, strict=True))
    raise TypeError(
        "predictions and truths must be tensors, or lists, tuples or dicts of them, "
        f"got {type(first).__name__}"
    )
