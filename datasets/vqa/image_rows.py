"""Which rows of an HDF5 file of image features belong to which image."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files.hdf5 import open_file, read_whole, whole
from ..files.reading import shown
from ..files.restricted_pickle import load
from .annotations import INT64

MOST_NUMBERS = 1 << 22
"""Regions times width of an image: 2,048 regions of width 2,048."""
MANY = 128
"""Regions of an image from which on they are taken for its width, if they are more than that."""


def read_index(path: Path) -> dict[str, np.ndarray]:
    """Returns `image_ids`, and where the file has them `offsets` or, from the pickle, `rows`.

    Raises:
        FileNotFoundError: if the file, or its pickle, is missing.
        ValueError: names the file that is damaged, lacks an array, or holds two layouts at once.
    """
    with open_file(path) as file:
        with whole(file, "the list of datasets"):
            there = sorted(file)
        if "image_features" in there and "features" not in there:
            return _read_rows(path)
        names = [name for name in ("image_ids", "offsets") if name in there]
        arrays = {name: read_whole(file, name) for name in names}
    if "image_ids" not in arrays or "image_features" in there:
        found = ", ".join(map(shown, there[:9]))
        raise ValueError(
            f"{path} must hold features and image_ids, or image_features, got [{found}]; write it "
            "again, as README.md says"
        )
    for name, array in arrays.items():
        if np.ndim(array) != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"{sorted(arrays)} in {path} must be lists of integers, but {name} is "
                f"{array.dtype} {array.shape}; write it again"
            )
        if len(array) and int(array.max()) not in INT64:
            raise ValueError(f"{name} in {path} must be numbers that int64 holds; write it again")
    return {name: array.astype(np.int64) for name, array in arrays.items()}


def check_regions(what: str, regions: int, dim: int, *, layout: str) -> None:
    """Raises a ValueError for an image's features that are none, too many, or seem transposed.

    Regions are fewer than the numbers of each. Where it is the other way round and they are
    `MANY`, the axes are taken to be swapped: 36 regions of width 2,048 are common, 2,048 regions
    of width 36 are not.
    """
    if not 0 < regions * dim <= MOST_NUMBERS:
        raise ValueError(
            f"{what} must have 1 to {MOST_NUMBERS:,} numbers an image, got {regions:,} regions of "
            f"width {dim:,}; keep fewer"
        )
    if regions >= MANY and regions > dim:
        raise ValueError(
            f"{what} must be {layout}, which makes {regions:,} regions of width {dim:,}: it looks "
            f"as if the two were swapped, {dim:,} regions of width {regions:,}; transpose it, or "
            f"say by regions={regions} that it is right (of HDF5 files)"
        )


def _read_rows(path: Path) -> dict[str, np.ndarray]:
    index = path.with_name(f"{path.stem}_imgid2idx.pkl")
    if not index.exists():
        raise FileNotFoundError(
            f"no file {index}, which must say which row of {path.name} is of which image; it is "
            "published beside that file, and must be named after it"
        )
    table = load(index)
    if not isinstance(table, dict):
        raise ValueError(
            f"{index} must be a dict of image ids and their rows, got {shown(table)}; get it again"
        )
    _check_table(index, table)
    return {
        "image_ids": np.array([int(image) for image in table], dtype=np.int64),
        "rows": np.array([int(row) for row in table.values()], dtype=np.int64),
    }


def _check_table(index: Path, table: Mapping[Any, Any]) -> None:
    for image, row in table.items():
        for number in (image, row):
            whole_number = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if not whole_number or number < 0 or int(number) not in INT64:
                raise ValueError(
                    f"{index} must be a dict of image ids and their rows, whole numbers from 0 on "
                    f"that int64 holds, but it has {shown(image)}: {shown(row)}, of types "
                    f"{type(image).__name__} and {type(row).__name__}; write it with such numbers"
                )
    owner: dict[int, Any] = {}
    for image, row in table.items():
        if owner.setdefault(int(row), image) != image:
            raise ValueError(
                f"{index} must give every image a row of its own, but images {owner[int(row)]} and "
                f"{image} both have row {row}; get it again"
            )


def check_rows(what: str, rows: np.ndarray | None, *, shape: tuple[int, ...], images: int) -> None:
    """Raises a ValueError unless `shape` has a row for each image; `rows` names them, if any."""
    last = len(rows) and int(rows.max()) if rows is not None else shape[0] - 1
    if (rows is None and shape[0] != images) or last >= shape[0]:
        raise ValueError(
            f"{what} must have a row for each of its {images} images, got shape {shape}; write it "
            "again"
        )
    if images < shape[0]:
        warnings.warn(
            f"{shape[0] - images:,} of the {shape[0]:,} rows of {what} belong to no image, and are "
            "left out; look whether its pickle is that of another file",
            UserWarning,
            stacklevel=4,
        )


def check_offsets(path: Path, offsets: np.ndarray, *, total: int, images: int) -> None:
    """Raises a ValueError unless `offsets` cut `total` rows into pieces, one an image."""
    expected = images + 1
    if (
        len(offsets) != expected
        or offsets[0]
        or offsets[-1] != total
        or (np.diff(offsets) < 0).any()
    ):
        raise ValueError(
            f"offsets in {path} must be {expected} numbers that rise from 0 to {total}, the rows "
            f"of features, got {len(offsets)} from {offsets[:1]} to {offsets[-1:]}; write it again"
        )
