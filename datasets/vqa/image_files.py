"""Files that are named after images, and the NumPy archives among them that hold features."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

KEY = "x"
DAMAGE = OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error
"""What reading a damaged archive raises."""


def image_id(path: Path) -> int:
    """Returns the integer after the last underscore: of `7.jpg` and `COCO_a_0007.jpg.npz`, 7.

    Raises:
        ValueError: if there is none.
    """
    digits = path.name.partition(".")[0].rpartition("_")[2]
    if not digits.isdecimal():
        raise ValueError(
            f"{path} must be named after its image, as COCO_train2014_000000000009.jpg, with the "
            "id after the last underscore; rename it, or move it away"
        )
    return int(digits)


def find_images(folder: str | Path, endings: Sequence[str]) -> dict[int, Path]:
    """Returns the files of a folder and of the folders in it, by image id, ids ascending.

    Args:
        folder: where to look.
        endings: lower-case ends of the names wanted, such as ".npz".

    Raises:
        FileNotFoundError: if there are none.
        ValueError: names a file without an id, or two with the same.
    """
    folder = Path(folder)
    files: dict[int, Path] = {}
    for path in (*folder.glob("*.*"), *folder.glob("*/*.*")):
        if path.name.lower().endswith(tuple(endings)):
            image = image_id(path)
            if image in files:
                raise ValueError(
                    f"every image must have one file, but {files[image]} and {path} are both of "
                    f"image {image}; move one away"
                )
            files[image] = path
    if not files:
        raise FileNotFoundError(
            f"no file that ends in {' or '.join(endings)} in {folder} or the folders in it"
        )
    return dict(sorted(files.items()))


def npz_shape(path: Path) -> tuple[int, int]:
    """Returns the (regions, dim) of an archive from its header alone.

    Raises:
        ValueError: names the file, if it is damaged or `x` is not what it should be.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{KEY}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if version > (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
    except DAMAGE as error:
        raise _damaged(path, error) from error
    return _check_shape(path, shape, dtype)


def read_npz(path: Path, *, dim: int | None = None) -> np.ndarray:
    """Reads an image's features, (regions, dim); the file has them the other way round.

    Args:
        path: the archive.
        dim: the width that they must have; None takes any.

    Raises:
        ValueError: names the file, if it is damaged or `x` is not what it should be.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{KEY}.npy") as file:
            features = np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGE as error:
        raise _damaged(path, error) from error
    _, width = _check_shape(path, features.shape, features.dtype)
    if dim not in (None, width):
        raise ValueError(
            f"{KEY} in {path} must be as wide as the other files, {dim}, got {width}; get it again"
        )
    return features.T


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} must be an npz file with an array {KEY} of numbers, but {error}; get it again"
    )


def _check_shape(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int]:
    if len(shape) != 2 or dtype.kind != "f":
        raise ValueError(
            f"{KEY} in {path} must be floating, of shape (dim, regions), got {dtype} {shape}; "
            "get it again"
        )
    return shape[1], shape[0]
