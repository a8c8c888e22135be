"""How a network for own data is trained: the defaults, in one place, and the validation part."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from deq_fusion.datasets.loaders import stratified_split


@dataclass(frozen=True)
class Training:
    """What decides a training besides the data and the fusion; `DEFAULTS` are these.

    Attributes:
        width: of every modality's feature, and of the fused one.
        dropout: share of an encoder's entries left out in training.
        lr, weight_decay: of AdamW.
        epochs: at most.
        patience: epochs without a better validation loss after which it ends.
        batch_size: samples a step.
        validation_fraction: share of the samples that it is stopped by.
    """

    width: int = 64
    dropout: float = 0.2
    lr: float = 2e-3
    weight_decay: float = 1e-2
    epochs: int = 200
    patience: int = 20
    batch_size: int = 64
    validation_fraction: float = 0.15

    @property
    def optimizer(self) -> partial:
        """Builds the optimiser of a list of parameters."""
        return partial(torch.optim.AdamW, lr=self.lr, weight_decay=self.weight_decay)


DEFAULTS = Training()


def cut_validation(
    count: int, classes: np.ndarray | None, *, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted numbers of (the rows to learn from, the rows to stop by).

    Both have the classes in the same shares, as nearly as they go. Where there are too few of
    them for that, rows are drawn as they come; where there are fewer than ten rows, or `fraction`
    is 0, none is held out.

    Args:
        count: rows.
        classes: (rows,) integers; None where there are none.
        fraction: share to hold out, from 0 to below 1.
        seed: the same seed gives the same parts.
    """
    rows, held_out = np.arange(count), max(1, round(fraction * count))
    if count < 10 or not fraction:
        return rows, rows[:0]
    if classes is not None:
        _, sizes = np.unique(classes, return_counts=True)
        held_out = max(held_out, np.count_nonzero(sizes > 1))
        try:
            return stratified_split(classes, held_out=held_out, seed=seed)
        except ValueError:  # too few of them
            held_out = max(1, round(fraction * count))
    kept, held = train_test_split(rows, test_size=held_out, random_state=seed)
    return np.sort(kept), np.sort(held)
