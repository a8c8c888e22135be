"""What the adapters of sequences share: padding, masks, scaling, batches and loaders.

However a file pads, a sequence starts at step 0 here and is followed by zeros.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..loaders import make_loader

PARTS = ("train", "valid", "test")


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
        """Returns the first steps of every sequence, or adds zeros: (samples, steps, features)."""
        extra = max(0, steps - self.values.shape[1])
        values = np.pad(self.values[:, :steps], ((0, 0), (0, extra), (0, 0)))
        return self._replace(values=values, lengths=np.minimum(self.lengths, steps))


class Part(NamedTuple):
    """One part of a split.

    Attributes:
        views: the modalities, in the order of a batch.
        labels: (samples, 1), float32 or, for classification, int64.
        ids, texts: a sample's name and its transcript, where the file has them.
    """

    views: dict[str, Sequences]
    labels: np.ndarray
    ids: list[str] | None = None
    texts: list[str] | None = None


class Layout(NamedTuple):
    """How a batch is laid out; views are those of `Part`, in its order.

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
    moved = np.take_along_axis(values, np.minimum(steps, values.shape[1] - 1)[..., None], axis=1)
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


def standardise(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Returns the parts with mean 0 and deviation 1 in every feature of train's unpadded steps.

    The other parts follow train's scale. What is constant in train becomes 0; padding stays 0.
    """
    scaled = {name: dict(part.views) for name, part in parts.items()}
    for key, view in parts["train"].views.items():
        known = view.values[view.mask()].astype(np.float64)
        if not len(known):
            raise ValueError(f"train must have {key} to be scaled by, got none; use scale=False")
        varies = known.max(axis=0) > known.min(axis=0)  # a rounded deviation need not be 0
        mean, spread = known.mean(axis=0), np.where(varies, known.std(axis=0), np.inf)
        for name, part in parts.items():
            mask, values = part.views[key].mask(), np.zeros_like(part.views[key].values)
            values[mask] = (part.views[key].values[mask] - mean) / spread
            scaled[name][key] = part.views[key]._replace(values=values)
    return {name: part._replace(views=scaled[name]) for name, part in parts.items()}
