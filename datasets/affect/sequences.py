"""Sequences of a set's parts: padding, masks, scaling, batches and loaders.

However a file pads, a sequence starts at step 0 here and is followed by zeros.
"""

from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..loaders import make_loader

PARTS = ("train", "valid", "test")
BLOCK = 16  # samples scaled at once


class Sequences(NamedTuple):
    """One modality of all samples of a part.

    Attributes:
        values: (samples, steps, features) float32, zero after each sequence's end.
        lengths: (samples,) int64, at least 1.
        present: (samples,) bool, whether the sample has the modality at all. Where it has not,
            its values are zero, its length is that of the rest of the sample, or 1, and all of
            its mask is False.
    """

    values: np.ndarray
    lengths: np.ndarray
    present: np.ndarray

    def mask(self) -> np.ndarray:
        """Returns (samples, steps) bool, True where there is a step of a present modality."""
        steps = np.arange(self.values.shape[1])
        return (steps < self.lengths[:, None]) & self.present[:, None]

    def resized(self, steps: int) -> "Sequences":
        """Returns the first steps of every sequence, or adds zeros: (samples, steps, features).

        Raises:
            ValueError: if `steps` is not a whole number from 1 up.
        """
        check_steps_wanted(steps, "steps")
        extra = max(0, steps - self.values.shape[1])
        values = np.pad(self.values[:, :steps], ((0, 0), (0, extra), (0, 0)))
        return self._replace(values=values, lengths=np.minimum(self.lengths, steps))


class Part(NamedTuple):
    """One part of a split.

    Attributes:
        views: the modalities, in the order of a batch.
        labels: (samples, 1), float32 or, for classification, int64.
        ids: the samples' names, where the file has them.
        texts: their transcripts, where the file has them.
    """

    views: dict[str, Sequences]
    labels: np.ndarray
    ids: list[str] | None = None
    texts: list[str] | None = None


class Layout(NamedTuple):
    """The layout of a batch; views are those of `Part`, in its order.

    Attributes:
        steps: every view is cut or padded to so many; None takes the longest of the batch.
        masks: (views, masks, labels) instead of the below.
        lengths: (views, lengths, row numbers (samples, 1), labels) instead of (*views, labels).
    """

    steps: int | None = None
    masks: bool = False
    lengths: bool = False


class SequenceDataset(Dataset):
    """A part that is indexed with a list of row numbers and returns their batch, see `Layout`."""

    def __init__(self, part: Part, layout: Layout):
        self.layout = layout
        views = part.views.values()
        if layout.steps is not None:
            views = [view.resized(layout.steps) for view in views]
        self.values = [torch.from_numpy(view.values) for view in views]
        self.lengths = [torch.from_numpy(view.lengths) for view in views]
        self.masks = [torch.from_numpy(view.mask()) for view in views]
        self.labels = torch.from_numpy(part.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: list[int]) -> list[Any]:
        lengths = [length[rows] for length in self.lengths]
        views, masks = self._padded(self.values, rows), self._padded(self.masks, rows)
        if self.layout.masks:
            return [views, masks, self.labels[rows]]
        if self.layout.lengths:
            return [views, lengths, torch.tensor(rows)[:, None], self.labels[rows]]
        return [*views, self.labels[rows]]

    def _padded(self, tensors: list[Tensor], rows: list[int]) -> list[Tensor]:
        if self.layout.steps is not None:
            return [tensor[rows] for tensor in tensors]
        ends = [int(length[rows].max()) for length in self.lengths]
        # the shorter steps first: whole rows of a long modality are never copied
        return [tensor[:, :end][rows] for tensor, end in zip(tensors, ends, strict=True)]


def make_part_loaders(
    parts: Mapping[str, Part],
    layout: Layout,
    *,
    batch_size: int | None,
    shuffle: bool = True,
    workers: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); `shuffle` is of train, the others never are."""
    train, valid, test = (SequenceDataset(parts[name], layout) for name in PARTS)
    options = {"batch_size": batch_size, "workers": workers}
    return (
        make_loader(train, shuffle=shuffle, **options),
        make_loader(valid, shuffle=False, **options),
        make_loader(test, shuffle=False, **options),
    )


def summarise(parts: Mapping[str, Part]) -> dict[str, dict[str, Any]]:
    """Returns, for every part, what to print of it.

    `samples`; and by modality `features` (how many), `longest` (steps), `mean_length` and
    `absent` (samples without the modality).
    """
    return {
        name: {
            "samples": len(part.labels),
            "features": {key: view.values.shape[-1] for key, view in part.views.items()},
            "longest": {key: int(view.lengths.max()) for key, view in part.views.items()},
            "mean_length": {key: float(view.lengths.mean()) for key, view in part.views.items()},
            "absent": {key: int((~view.present).sum()) for key, view in part.views.items()},
        }
        for name, part in parts.items()
    }


def from_starts(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns (samples, steps, features), step starts[i] of sample i moved to 0, zeros behind."""
    steps = np.arange(values.shape[1]) + starts[:, None]
    # whole steps are copied, which is much faster than np.take_along_axis
    moved = values[np.arange(len(values))[:, None], np.minimum(steps, values.shape[1] - 1)]
    moved[steps >= values.shape[1]] = 0
    return moved


def cut_after(values: np.ndarray, lengths: np.ndarray) -> Sequences:
    """Returns sequences from step 0 on; one without a step, or of zeros only, is absent.

    Args:
        values: (samples, steps, features) float32.
        lengths: (samples,); more than there are steps means that the sequence was cut.
    """
    lengths = np.clip(lengths.astype(np.int64), 0, values.shape[1])
    kept = np.arange(values.shape[1]) < lengths[:, None]
    values = np.where(kept[..., None], values, np.float32(0))
    return Sequences(values, np.maximum(lengths, 1), values.any(axis=(1, 2)))


def standardise(parts: Mapping[str, Part], path: str | Path = "it") -> dict[str, Part]:
    """Returns the parts with mean 0 and deviation 1 in every feature of train's unpadded steps.

    The other parts follow train's scale. What is constant in train becomes 0; padding stays 0.

    Args:
        parts: "train" and any others.
        path: the file that they come from, for errors.

    Raises:
        ValueError: if train never has a modality, or a part's scale differs too much for float32.
    """
    scaled = {name: dict(part.views) for name, part in parts.items()}
    for key, view in parts["train"].views.items():
        if not view.present.any():
            raise ValueError(
                f"train must have {key} to be scaled by, {path} has none; use scale=False"
            )
        mean, spread = _fit_scale(view)
        for name, part in parts.items():
            values = np.zeros_like(part.views[key].values)
            for rows, mask, steps in _blocks(part.views[key]):
                with np.errstate(over="ignore"):
                    steps = ((steps - mean) / spread).astype(np.float32)
                if not np.isfinite(steps).all():
                    raise ValueError(
                        f"{key} of {name} in {path} must be finite once scaled by train, but rows "
                        f"{rows.start} to {rows.start + len(mask) - 1} are not: their scale "
                        "differs too much from train's for float32; look for a wrong value"
                    )
                values[rows][mask] = steps
            scaled[name][key] = part.views[key]._replace(values=values)
    return {name: part._replace(views=scaled[name]) for name, part in parts.items()}


def check_steps_wanted(steps: int, name: str) -> None:
    """Raises a ValueError unless a sequence can be cut or padded to so many steps."""
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"{name} must be a whole number from 1 up, got {steps!r}")


def _fit_scale(view: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Returns each feature's mean and deviation, infinite where the feature is constant."""
    count, total, squares = 0, 0.0, 0.0
    low, high = np.inf, -np.inf
    for _, _, steps in _blocks(view):
        count, total = count + len(steps), total + steps.sum(axis=0)
        low = np.minimum(low, steps.min(axis=0, initial=np.inf))
        high = np.maximum(high, steps.max(axis=0, initial=-np.inf))
    mean = total / count
    for _, _, steps in _blocks(view):
        squares = squares + np.square(steps - mean).sum(axis=0)
    varies = high > low  # a rounded deviation need not be 0
    return mean, np.where(varies, np.sqrt(squares / count), np.inf)


def _blocks(view: Sequences) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields rows, their mask, and its steps, (steps, features) float64, a few rows at a time.

    A copy of all in float64 would cost more time, for its memory, than all sums.
    """
    mask = view.mask()
    for start in range(0, len(mask), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, mask[rows], view.values[rows][mask[rows]].astype(np.float64)
