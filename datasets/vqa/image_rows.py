"""Which rows of an HDF5 file of image features belong to which image."""

from pathlib import Path

import numpy as np

from ..files.hdf5 import find_dataset, open_file
from ..files.restricted_pickle import load


def read_index(path: Path) -> dict[str, np.ndarray]:
    """Returns `image_ids`, and where the file has them `offsets` or, from the pickle, `rows`.

    Raises:
        FileNotFoundError: if the file, or its pickle, is missing.
        ValueError: names the file that is damaged or lacks an array.
    """
    with open_file(path) as file:
        there = sorted(file)
        if "image_features" in there:
            return _read_rows(path)
        names = [name for name in ("image_ids", "offsets") if name in there]
        arrays = {name: find_dataset(file, name)[()] for name in names}
    if "image_ids" not in arrays:
        raise ValueError(
            f"{path} must hold features and image_ids, or image_features, got {there}; write it "
            "again, as README.md says"
        )
    if any(np.ndim(array) != 1 or array.dtype.kind not in "iu" for array in arrays.values()):
        raise ValueError(f"{sorted(arrays)} in {path} must be lists of integers; write it again")
    return {name: array.astype(np.int64) for name, array in arrays.items()}


def _read_rows(path: Path) -> dict[str, np.ndarray]:
    index = path.with_name(f"{path.stem}_imgid2idx.pkl")
    if not index.is_file():
        raise FileNotFoundError(
            f"no file {index}, which must say which row of {path.name} is of which image; it is "
            "published beside that file, and must be named after it"
        )
    table = load(index)
    if not isinstance(table, dict) or not all(
        isinstance(number, int) and number >= 0 for pair in table.items() for number in pair
    ):
        raise ValueError(f"{index} must be a dict of image ids and their rows; get it again")
    return {
        "image_ids": np.array(list(table), dtype=np.int64),
        "rows": np.array(list(table.values()), dtype=np.int64),
    }


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
