"""Handwritten digits, each image cut into its four quadrants: the embedded default.

The set comes with scikit-learn (`load_digits`), so nothing is downloaded: 1,797 images of 8 x 8
pixels of ten digits, the test part of the "Optical Recognition of Handwritten Digits" data
(Alpaydin and Kaynak, 1998, UCI repository). Logistic regression gets about two digits in three
from one quadrant and 96 in a hundred from all four: a fusion has something to gain.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader

from ..loaders import Part, cut_parts, make_loaders, stratified_split

HELD_OUT_SHARE = 0.2  # of all samples, for validation and once more for test
FULL_SCALE = 16  # the brightest pixel
QUADRANTS = "top left", "top right", "bottom left", "bottom right"


def split_arrays(
    *, split_seed: int = 0, modalities: Sequence[str] = QUADRANTS
) -> tuple[Part, Part, Part]:
    """Returns (train, valid, test) as numpy arrays, each (views, labels), split 60/20/20.

    A part's views are the quadrants named in `modalities`, each (samples, 16) float32 in [0, 1];
    its labels are (samples,) int64. The split is stratified, and follows from `split_seed` alone.

    Raises:
        ValueError: for a quadrant that there is none of.
    """
    unknown = [name for name in modalities if name not in QUADRANTS]
    if unknown or not modalities:
        raise ValueError(f"modalities must be some of {list(QUADRANTS)}, got {list(modalities)}")
    digits = load_digits()
    images = (digits.images / FULL_SCALE).astype(np.float32)  # (samples, 8, 8)
    labels = digits.target.astype(np.int64)
    halves = slice(0, 4), slice(4, 8)
    quadrants = [images[:, rows, columns].reshape(-1, 16) for rows in halves for columns in halves]
    views = [quadrants[QUADRANTS.index(name)] for name in modalities]
    held_out = round(HELD_OUT_SHARE * len(labels))
    rest, test = stratified_split(labels, held_out=held_out, seed=split_seed)
    kept, held = stratified_split(labels[rest], held_out=held_out, seed=split_seed)
    return cut_parts(views, labels, (rest[kept], rest[held], test))


def get_dataloader(
    *,
    batch_size: int | None = 128,
    split_seed: int = 0,
    modalities: Sequence[str] = QUADRANTS,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); a batch is the quadrants and the labels.

    Args:
        batch_size: samples a batch; None puts a whole part into one.
        split_seed: chooses the split, see `split_arrays`.
        modalities: names of the quadrants, in the order wanted.
    """
    parts = split_arrays(split_seed=split_seed, modalities=modalities)
    return make_loaders(parts, batch_size=batch_size)
