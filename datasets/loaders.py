"""Splits, parts that can be trained on, and loaders, as all adapters share them."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
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


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Puts the file or folder in front of what a ValueError says of its numbers."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def cut_parts(
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    rows: Sequence[np.ndarray],
    *,
    source: str | Path | None = None,
) -> tuple[Part, Part, Part]:
    """Returns (train, valid, test), each the rows of all views and of the labels.

    Warns of a view that is the same for all samples of train: it teaches nothing.

    Args:
        views: (samples, features_m) float32 each, as they are to be served.
        labels: (samples, ...) float32 or int64.
        rows: the row numbers of the three parts.
        source: the file or folder that the warning names.

    Raises:
        ValueError: see `check_part`.
    """
    train, valid, test = (([view[part] for view in views], labels[part]) for part in rows)
    for name, part in (("train", train), ("validation", valid), ("test", test)):
        check_part(part, name)
    for number, view in enumerate(train[0], start=1):
        if len(view) > 1 and (view == view[0]).all():
            named = "" if source is None else f"{source}: "
            warnings.warn(
                f"{named}view {number} is the same for all {len(view)} samples of train, so that "
                "nothing can be learnt from it; leave it out, or look at its file",
                UserWarning,
                stacklevel=3,
            )
    return train, valid, test


def check_part(part: Part, name: str) -> None:
    """Checks that nothing leaves which no model can train on.

    Raises:
        ValueError: names part, view and row, if a view is not of finite float32, the labels are
            not int64 or finite float32, or there is no sample.
    """
    views, labels = part
    if not len(labels):
        raise ValueError(f"{name} must have a sample, got none; split otherwise")
    for number, array in enumerate((*views, labels), start=1):
        what = f"view {number} of {name}" if number <= len(views) else f"labels of {name}"
        if len(array) != len(labels):
            raise ValueError(f"{what} must have {len(labels)} rows, as labels, got {len(array)}")
        if array.dtype != np.float32 and not (array is labels and array.dtype == np.int64):
            raise ValueError(
                f"{what} must be float32, or int64 for classes, got {array.dtype}; convert it"
            )
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            raise ValueError(
                f"{what} must be finite, but its row {bad[0][0]}, entry {bad[0][1:].tolist()}, is "
                f"{array[tuple(bad[0])]}: in the files it is finite, and so its scale differs too "
                "much from train's for float32; rescale the files, or look for a wrong value"
            )


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

    Raises:
        ValueError: if there is no sample, or `batch_size` or `workers` makes no sense.
    """
    if not len(dataset):
        raise ValueError("a part must have a sample, got none; look at what was left out of it")
    if batch_size is not None and (not isinstance(batch_size, Integral) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number from 1 up, or None, got {batch_size}")
    if not isinstance(workers, Integral) or workers < 0:
        raise ValueError(f"workers must be a whole number from 0 up, got {workers}")
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
    """Returns the loaders of (train, valid, test), see `make_loader`; only train is shuffled.

    Raises:
        ValueError: see `check_part` and `make_loader`.
    """
    parts = list(parts)
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        check_part(part, name)
    train, valid, test = (
        TensorDataset(*map(torch.from_numpy, (*views, labels))) for views, labels in parts
    )
    return (
        make_loader(train, batch_size=batch_size, shuffle=True),
        make_loader(valid, batch_size=batch_size, shuffle=False),
        make_loader(test, batch_size=batch_size, shuffle=False),
    )
