"""The training of a network for own data: the defaults, in one place, and the validation part."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from deq_fusion.datasets.loaders import stratified_split

PENALISED = {"jacobian_weight": 1.0}
FUSION_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # without a penalty the fused map leaves contraction now and then, and the loss jumps
    name: PENALISED
    for name in ("deq", "deq_one_step", "deq_neumann", "deq_paper")
}
"""Options of a fusion unless others are given."""


@dataclass(frozen=True)
class Training:
    """The settings of a training, besides the data and the fusion; `DEFAULTS` are these.

    Attributes:
        width: of every modality's feature, and of the fused one.
        dropout: share of an encoder's entries left out in training.
        lr: learning rate of AdamW.
        weight_decay: of AdamW, too.
        epochs: at most.
        patience: epochs without a better validation loss after which it ends.
        batch_size: samples a step.
        validation_fraction: share of the samples that it is stopped by; 0 takes all epochs.

    Raises:
        ValueError: for a number that is out of range.
    """

    width: int = 64
    dropout: float = 0.2
    lr: float = 2e-3
    weight_decay: float = 1e-2
    epochs: int = 200
    patience: int = 20
    batch_size: int = 64
    validation_fraction: float = 0.15

    def __post_init__(self) -> None:
        for name, least in (("width", 2), ("epochs", 1), ("patience", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number from {least} up, got {value!r}")
        for name, end in (("dropout", 1), ("validation_fraction", 1), ("weight_decay", np.inf)):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value < end:
                raise ValueError(f"{name} must be at least 0 and below {end}, got {value!r}")
        if not isinstance(self.lr, Real) or not 0 < self.lr < np.inf:
            raise ValueError(f"lr must be a positive number, got {self.lr!r}")

    @property
    def described(self) -> str:
        """A sentence on the network and its training, but for `validation_fraction`."""
        return (
            f"every network: width {self.width}, dropout {self.dropout:g} in the encoders; AdamW, "
            f"lr {self.lr:g}, weight_decay {self.weight_decay:g}, batch_size {self.batch_size}, at "
            f"most {self.epochs} epochs, ended after {self.patience} (patience) without a better "
            "validation loss"
        )

    @property
    def optimizer(self) -> partial:
        """Builds the optimiser of a list of parameters."""
        return partial(torch.optim.AdamW, lr=self.lr, weight_decay=self.weight_decay)


DEFAULTS = Training()
SETTINGS = "width", "dropout", "lr", "weight_decay", "batch_size", "patience"
"""Those of one's own data that can be set in a comparison, besides the bound on the epochs."""


def cut_validation(
    count: int,
    classes: np.ndarray | None,
    *,
    fraction: float,
    seed: int,
    groups: Any = None,
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
        groups: (rows,) none of them is in both parts; classes then share out as they come.
    """
    rows = np.arange(count)
    if count < 10 or not fraction:
        return rows, rows[:0]
    if groups is not None:
        if len(np.unique(groups)) < 2:
            raise ValueError("groups must be two at least, one of which is held out, got one")
        cut = GroupShuffleSplit(1, test_size=fraction, random_state=seed)
        return next(cut.split(rows, groups=groups))
    held_out = min(max(1, round(fraction * count)), count - 1)
    if classes is not None:
        _, sizes = np.unique(classes, return_counts=True)
        least = max(held_out, np.count_nonzero(sizes > 1))  # one of each class that can spare it
        try:
            return stratified_split(classes, held_out=least, seed=seed)
        except ValueError:  # too few of them
            pass
    kept, held = train_test_split(rows, test_size=held_out, random_state=seed)
    return np.sort(kept), np.sort(held)
