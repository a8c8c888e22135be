"""What the adapters of sets that fit into memory share: stratified splits and loaders."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data import (
    BatchSampler,
    DataLoader,
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


def make_loader(dataset: TensorDataset, *, batch_size: int | None, shuffle: bool) -> DataLoader:
    """Returns a loader whose batches [x_1, ..., x_M, y] are indexed at once, never item by item.

    Shuffling draws from torch's global generator, so that a training loop that restores the
    generator's state meets the same batches again.

    Args:
        dataset: one tensor a modality, then the labels; the first dimension counts samples.
        batch_size: samples a batch, the last one may be smaller; None puts all into one.
        shuffle: whether each pass has a new order.
    """
    sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(
        sampler, len(dataset) if batch_size is None else batch_size, drop_last=False
    )
    return DataLoader(dataset, sampler=batches, batch_size=None)


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
