"""Digests of data: of what the loaders of a run give, part by part.

Tensors in memory are digested whole: rows, order, labels, types. Of what a dataset reads only when
it is asked, blocks of rows are digested, evenly spread, at most `BYTES` a part, besides all that it
holds itself: labels and row numbers, say, and of files that it names by their `Path` the contents,
1 GiB of them in all; of what is beyond the size and when they were written. So a few changed rows
in a file that it names otherwise may not be seen, and a large file that was copied is another.
Which rows are shuffled how is the run's number, and the code's.
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
BYTES = 1 << 22  # of rows of a part that are read to be digested
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
    """Yields rows; `together`, if it is asked for lists of them.

    Where they are more than are read, blocks of neighbours, evenly spread: files are read so.
    """
    count = len(dataset)
    yield count
    if not count:
        return
    size = max(1, _size(dataset[[0]] if together else dataset[0]))
    blocks = -(-count // ROWS)
    wanted = min(blocks, max(2, BYTES // (size * ROWS)))
    for block in np.unique(np.linspace(0, blocks - 1, wanted).astype(int)).tolist():
        asked = list(range(block * ROWS, min(count, (block + 1) * ROWS)))
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
