"""Files that are named after images, and the NumPy archives among them that hold features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import npz
from .annotations import INT64
from .image_rows import MOST_NUMBERS, check_regions

KEY = "x"


def image_id(path: Path) -> int:
    """Returns the integer after the last underscore: of `7.jpg` and `COCO_a_0007.jpg.npz`, 7.

    Raises:
        ValueError: if there is none that int64 holds; digits of other scripts are none.
    """
    digits = path.name.partition(".")[0].rpartition("_")[2]
    if not (digits.isascii() and digits.isdecimal() and int(digits) in INT64):
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
    """Returns the (regions, dim) of an archive; raises as `read_npz` does."""
    return read_npz(path).shape


def read_npz(path: Path, *, dim: int | None = None) -> np.ndarray:
    """Reads an image's features, (regions, dim); the file has them the other way round.

    Args:
        path: the archive.
        dim: the width that they must have; None takes any.

    Raises:
        ValueError: names the file, if it is damaged, `x` is not what it should be or has more
            than `MOST_NUMBERS`, or seems to have the regions first, see `check_regions`.
    """
    features = npz.read_npz(path, [KEY], limit=8 * MOST_NUMBERS)[KEY]
    if features.ndim != 2 or features.dtype.kind != "f" or features.dtype.itemsize > 8:
        raise ValueError(
            f"{KEY} in {path} must be floating, of shape (dim, regions), got {features.dtype} "
            f"{features.shape}; get it again"
        )
    width, regions = features.shape
    check_regions(f"{KEY} in {path}", regions, width, layout="(dim, regions)")
    if dim not in (None, width):
        raise ValueError(
            f"{KEY} in {path} must be as wide as the other files, {dim}, got {width}; get it again"
        )
    return features.T
