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
    return len(first_tensor(batch))


def first_tensor(batch: Any) -> Tensor:
    """Returns the first tensor.

    Raises:
        TypeError: if there is none, or it has no dimension for the samples.
    """
    while isinstance(batch, (list, tuple, dict)) and batch:
        batch = next(iter(batch.values() if isinstance(batch, dict) else batch))
    if not isinstance(batch, Tensor) or not batch.dim():
        got = "a tensor without dimensions" if isinstance(batch, Tensor) else type(batch).__name__
        raise TypeError(
            "predictions and truths must be tensors of samples, or lists, tuples or dicts of "
            f"them, got {got}"
        )
    return batch


def move(batch: Any, device: torch.device | str) -> Any:
    """Returns the batch with whatever can be moved on the device."""
    return _mapped(batch, lambda item: item.to(device))


def widened(batch: Any) -> Any:
    """Returns the batch with float32 in place of half precision."""
    halves = (torch.float16, torch.bfloat16)
    return _mapped(batch, lambda x: x.float() if getattr(x, "dtype", None) in halves else x)


def as_float(x: Tensor, name: str) -> Tensor:
    """Returns `x` as float32.

    Raises:
        ValueError: if a number that is finite is not so any more; the message has the name.
    """
    narrow = x.float()
    if x.dtype == torch.float64:
        lost = narrow.isinf() & ~x.isinf()
        if lost.any():
            raise ValueError(
                f"{name} must fit in float32, up to 3.4e38, but holds {x[lost][0].item():.3g} "
                f"({int(lost.sum())} of {x.numel()} numbers are beyond it); scale it down"
            )
    return narrow


def _mapped(batch: Any, function: Callable[[Any], Any]) -> Any:
    if hasattr(batch, "to"):
        return function(batch)
    if isinstance(batch, dict):
        return {name: _mapped(item, function) for name, item in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(_mapped(item, function) for item in batch)
    return batch


def join(batches: list[Any]) -> Any:
    """Returns the batches as one.

    Raises:
        TypeError: for what are no tensors, or lists, tuples or dicts of them.
        ValueError: for batches that are not alike in structure and, but for their number of
            samples, in shape.
    """
    first = _layout(batches[0])
    for number, batch in enumerate(batches, start=1):
        if (layout := _layout(batch)) != first:
            raise ValueError(
                "all batches must be alike but for their number of samples, but where the first "
                f"has {first}, batch {number} has {layout}"
            )
    return _joined(batches)


def _layout(batch: Any) -> Any:
    """Returns what batches must have in common to be joined, as it is shown in an error."""
    if isinstance(batch, dict):
        return {name: _layout(item) for name, item in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [_layout(item) for item in batch]
    return f"({', '.join(map(str, ('n', *first_tensor(batch).shape[1:])))})"


def _joined(batches: list[Any]) -> Any:
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat(batches)
    if isinstance(first, dict):
        return {name: _joined([batch[name] for batch in batches]) for name in first}
    return type(first)(_joined(list(items)) for items in zip(*batches, strict=True))
