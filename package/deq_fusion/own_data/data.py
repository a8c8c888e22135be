"""Joined rows as loaders: what is scaled, filled in and encoded is learnt from train alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from deq_fusion.training_structures.comparison import Loaders

from ..columns import Columns
from ..network import make_loader
from ..training import DEFAULTS
from .splits import Splits
from .tables import View, words_of


@dataclass(frozen=True, repr=False)
class Data:
    """All rows of one's own data, in memory.

    Attributes:
        views: modality -> its rows, NaN where missing.
        present: (rows, modalities), whether it is there; None: all are.
        truth: (rows,) int64, or (rows, outputs) float32.
        weight: (rows,), what each counts in the loss; None: all the same.
        balanced: whether every class counts the same in the loss, besides.
        splits: the parts of a run.
        test: rows to test on that are a set of their own.
    """

    views: dict[str, View]
    present: np.ndarray | None
    truth: np.ndarray
    weight: np.ndarray | None
    balanced: bool
    splits: Splits
    test: "Data | None" = None

    def __repr__(self) -> str:
        return f"Data({len(self.truth)} rows of {', '.join(self.views)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets it be pickled and compared by its cells alone, not by how pandas keeps them."""
        views = {name: _packed(view) for name, view in self.views.items()}
        rest = self.present, self.truth, self.weight, self.balanced, self.splits, self.test
        return _unpacked, (views, *rest)

    def quick(self) -> "Data":
        """Returns the data with arrays in place of frames of numbers alone."""
        views = {
            name: view.to_numpy() if isinstance(view, pd.DataFrame) and not words_of(view) else view
            for name, view in self.views.items()
        }
        return replace(self, views=views)

    def taken(self, rows: np.ndarray) -> "Data":
        """Returns some of the rows."""

        def cut(value: Any) -> Any:
            if value is None:
                return None
            return value.iloc[rows] if isinstance(value, pd.DataFrame) else value[rows]

        views = {name: cut(view) for name, view in self.views.items()}
        here = {"present": cut(self.present), "weight": cut(self.weight)}
        return replace(self, views=views, truth=self.truth[rows], **here)

    def present_in(self, modality: str) -> np.ndarray | None:
        """Returns (rows,) bool, or None if it is there in all of them."""
        return None if self.present is None else self.present[:, list(self.views).index(modality)]


def load(
    data: Data, run: int, modalities: Sequence[str], *, batch_size: int = DEFAULTS.batch_size
) -> Loaders:
    """Returns the loaders of a run, of batches [x_1, ..., x_N, (present), (weight), truth]."""
    quick = data.quick()
    train, valid, test = (quick.taken(rows) for rows in data.splits(run))
    test = test if data.test is None else data.test.quick()
    fitted = {
        name: Columns(name).fit(train.views[name], train.present_in(name)) for name in modalities
    }
    scale = None if weights(train) is None else weights(train).mean()
    how: dict[str, Any] = {"scale": scale, "balance": train, "batch_size": batch_size}
    loaders = [_loader(part, fitted, shuffle=part is train, **how) for part in (train, valid, test)]
    loaders[0].dataset.modalities = tuple(modalities)
    return tuple(loaders)


def weights(part: Data, balance: Data | None = None) -> np.ndarray | None:
    """Returns what the rows of a part count, (rows,) float64; None: all the same.

    Args:
        part: the rows.
        balance: the rows whose classes' shares are balanced; by default its own.
    """
    if part.weight is None and not part.balanced:
        return None
    own = np.ones(len(part.truth)) if part.weight is None else part.weight
    if not part.balanced:
        return own
    known = balance or part
    counts = np.bincount(known.truth, known.weight)  # 0 of a class all of whose rows weigh 0
    return own / np.maximum(counts, np.finfo(float).tiny)[part.truth]


def _loader(
    part: Data,
    fitted: dict[str, Columns],
    *,
    scale: float | None,
    balance: Data,
    batch_size: int,
    shuffle: bool,
) -> DataLoader:
    present, counts = None, weights(part, balance)
    if part.present is not None:
        present = np.stack([part.present_in(name) for name in fitted], axis=1)
    return make_loader(
        [columns.transform(part.views[n], part.present_in(n)) for n, columns in fitted.items()],
        torch.from_numpy(part.truth),
        present=present,
        weight=None if counts is None else counts / scale,
        batch_size=batch_size,
        shuffle=shuffle,
    )


def _packed(view: View) -> Any:
    """Returns a frame as its numbers, (rows, k), and lists of words, None where missing."""
    if isinstance(view, np.ndarray):
        return view
    numeric = view.dtypes == np.float64
    words = {
        name: [word if there else None for word, there in zip(column, column.notna(), strict=True)]
        for name, column in view.loc[:, ~numeric].items()
    }
    return list(view.columns), view.loc[:, numeric].to_numpy(), words


def _unpacked(views: dict[str, Any], *rest: Any) -> Data:
    return Data({name: _view(view) for name, view in views.items()}, *rest)


def _view(packed: Any) -> View:
    if isinstance(packed, np.ndarray):
        return packed
    names, numbers, words = packed
    numeric = [name for name in names if name not in words]
    series = [pd.Series(column, name=name, dtype=object) for name, column in words.items()]
    return pd.concat([pd.DataFrame(numbers, columns=numeric), *series], axis=1)[names]
