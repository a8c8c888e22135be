"""Digests of data: of what the loaders of a run give, part by part.

Tensors in memory are digested whole: rows, order, labels, types. What a dataset reads only when
it is asked is digested in rows that are evenly spread, at most `BYTES` a part, besides all that
it holds itself (labels and row numbers, say): a change of a few rows among many more is not seen
there. Which rows are shuffled how is the run's number, and the code's.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from ...checkpoint import seeded
from .code import Code
from .values import Values

PARTS = "train", "valid", "test"
BYTES = 1 << 26  # of rows of a part that are read to be digested
ROWS = 64  # that are asked for at once


def data_digests(loaders: Sequence[Iterable[Any]], scored: str) -> dict[str, str]:
    """Returns part -> digest; the random generators are left as they were.

    Args:
        loaders: of train, valid and test.
        scored: "test", or "valid": then the test part is not read.
    """
    values = Values(Code(), paths=False, strict=False)
    parts = dict(zip(PARTS, loaders, strict=True))
    if scored != "test":
        del parts["test"]
    with seeded(0):  # a dataset may draw what it gives
        return {
            name: values.digest([_batching(loader), *_contents(loader)]).hex()
            for name, loader in parts.items()
        }


def _batching(loader: Iterable[Any]) -> list[Any]:
    """Returns what else of a loader decides its batches, as far as it can be told."""
    inner = [loader, getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)]
    return [[getattr(each, name, None) for name in ("batch_size", "drop_last")] for each in inner]


def _contents(loader: Iterable[Any]) -> Iterator[Any]:
    dataset = getattr(loader, "dataset", loader)
    if isinstance(dataset, Dataset) and not isinstance(dataset, IterableDataset):
        yield from _dataset(dataset, loader)
    else:
        yield from _stream(dataset)


def _dataset(dataset: Dataset, loader: Iterable[Any]) -> Iterator[Any]:
    """Yields what tells a dataset from another: all of it where it is in memory."""
    if isinstance(dataset, TensorDataset):
        yield from dataset.tensors
    elif isinstance(dataset, Subset):
        yield list(dataset.indices)
        yield from _dataset(dataset.dataset, loader)
    elif isinstance(dataset, ConcatDataset):
        for inner in dataset.datasets:
            yield from _dataset(inner, loader)
    else:
        yield dataset
        together = _batched(loader)
        yield from _rows(dataset, together)


def _batched(loader: Iterable[Any]) -> bool:
    """Says whether the dataset is indexed with lists of row numbers."""
    sampler, size = getattr(loader, "sampler", None), getattr(loader, "batch_size", None)
    return size is None and isinstance(sampler, BatchSampler)


def _rows(dataset: Dataset, together: bool) -> Iterator[Any]:
    """Yields rows that are evenly spread; `together`, if it is asked for lists of them."""
    count = len(dataset)
    yield count
    if not count:
        return
    size = max(1, _size(dataset[[0]] if together else dataset[0]))
    rows = np.unique(np.linspace(0, count - 1, min(count, max(1, BYTES // size))).astype(int))
    for start in range(0, len(rows), ROWS):
        asked = rows[start : start + ROWS].tolist()
        yield dataset[asked] if together else [dataset[row] for row in asked]


def _stream(batches: Iterable[Any]) -> Iterator[Any]:
    """Yields the first batches of what can be gone through again."""
    iterator, left = iter(batches), BYTES
    if iterator is batches:  # what is read here would be missing in training
        return
    for batch in iterator:
        yield batch
        left -= _size(batch)
        if left < 0:
            return


def _size(value: Any) -> int:
    """Returns the bytes of the tensors and texts in it."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.nbytes
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value))
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return len(value) if isinstance(value, (str, bytes)) else 8
