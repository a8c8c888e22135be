"""What the adapters share: stratified splits and loaders."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

Part = tuple[Sequence[np.ndarray], np.ndarray]
"""One part of a split: the views, each (samples, features_m), and the labels, (samples,)."""


def stratified_split(
    labels: np.ndarray, *, held_out: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits samples in two parts with the same shares of the classes, as nearly as they go.

    A class with a single sample cannot be shared out; its sample is kept.

    Args:
        labels: (samples,) classes, integers.
        held_out: size of the second part, in samples.
        seed: the same seed gives the same split.

    Returns:
        The sorted indices (kept, held out).

    Raises:
        ValueError: if either part would have fewer samples than there are classes to share out.
    """
    _, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(counts[class_of] > 1)
    classes = np.count_nonzero(counts > 1)
    if not classes <= held_out <= len(shared) - classes:
        raise ValueError(
            f"a stratified split needs a sample of each of the {classes} classes in both parts, "
            f"got {held_out} of {len(shared)} samples to hold out; hold out another share"
        )
    _, held = train_test_split(
        shared, test_size=held_out, stratify=class_of[shared], random_state=seed
    )
    return np.setdiff1d(np.arange(len(labels)), held), np.sort(held)


def grouped_split(groups: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits samples in two parts that share no group, such as a video or an image.

    Args:
        groups: (samples,) names or numbers.
        share: the second part's share of the groups, in (0, 1).
        seed: the same seed gives the same split.

    Returns:
        The sorted indices (kept, held out).

    Raises:
        ValueError: if `share` is not in (0, 1), or leaves a part no group.
    """
    if not 0 < share < 1:
        raise ValueError(f"valid_share must lie between 0 and 1, got {share}; try 0.1")
    count = len(np.unique(groups))
    held_out = round(share * count)
    if not 0 < held_out < count:
        raise ValueError(
            f"train and validation must have a video or image each, but valid_share {share} puts "
            f"{held_out} of {count} into validation; choose another share"
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=held_out, random_state=seed)
    kept, held = next(splitter.split(groups, groups=groups))
    return np.sort(kept), np.sort(held)


class Loader(DataLoader):
    """A DataLoader that draws as much from torch's global generator whatever its workers.

    Each pass draws a seed for the workers and one for the order. Workers that outlive a pass are
    seeded in the first alone; what later passes would then not draw is drawn here, so that a run
    shuffles alike with and without workers, and when it is resumed.
    """

    _started = False

    def __iter__(self) -> Iterator[Any]:
        if self._started and self.persistent_workers:
            torch.empty((), dtype=torch.int64).random_()
        self._started = True
        return super().__iter__()


def make_loader(
    dataset: Dataset, *, batch_size: int | None, shuffle: bool, workers: int = 0
) -> DataLoader:
    """Returns a loader whose batches [x_1, ..., x_M, y] are indexed at once, never item by item.

    Shuffling draws from torch's global generator, so that a training loop that restores the
    generator's state meets the same batches again.

    Args:
        dataset: has a length and, indexed with a list of row numbers, returns their batch.
        batch_size: samples a batch, the last one may be smaller; None puts all into one.
        shuffle: whether each pass has a new order.
        workers: processes that read ahead; they stay for all passes. The batches are the same.
    """
    sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(
        sampler, len(dataset) if batch_size is None else batch_size, drop_last=False
    )
    return Loader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def make_loaders(
    parts: Iterable[Part], *, batch_size: int | None
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test), see `make_loader`; only train is shuffled."""
    train, valid, test = (
        TensorDataset(*map(torch.from_numpy, (*views, labels))) for views, labels in parts
    )
    return (
        make_loader(train, batch_size=batch_size, shuffle=True),
        make_loader(valid, batch_size=batch_size, shuffle=False),
        make_loader(test, batch_size=batch_size, shuffle=False),
    )
