"""Turns MCAN's `.npz` an image into one HDF5 file, which is read many times faster.

``deq-fusion prepare vqa --npz FOLDER --output FILE.hdf5`` does so from the command line.

The file holds `features` (regions of all images, dim) float16, `offsets` (images + 1,) int64 and
`image_ids` (images,) int64, ascending: the regions of image i are rows offsets[i] to
offsets[i + 1]. Bottom-up features of 123,287 images take about 18 GB. A run that was stopped is
resumed by the same call.
"""

import hashlib
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from ..files.hdf5_build import build_file
from .features import MOST_REGIONS
from .image_files import find_images, npz_shape, read_npz


def convert_npz(
    folder: str | Path,
    output: str | Path,
    *,
    regions: int = MOST_REGIONS,
    batch_size: int = 64,
    progress: bool = True,
) -> None:
    """Writes the features of a folder of `.npz` files (see `NpzFeatures`) into one file.

    Args:
        folder: the files, or a folder of them for every split.
        output: the HDF5 file, which has its name only once it is complete.
        regions: keep at most so many of an image.
        batch_size: images between two notes of the progress, which is what a stop can cost.
        progress: whether to show bars.

    Raises:
        FileNotFoundError: if there are no such files.
        ValueError: names the file that is damaged, has another width, or holds what is not finite
            or too large for float16; or says that an unfinished output has other settings.
    """
    files = find_images(folder, (".npz",))
    paths = list(files.values())
    shapes = [npz_shape(path) for path in tqdm(paths, desc="sizes", disable=not progress)]
    dim = shapes[0][1]
    counts = [min(count, regions) for count, _ in shapes]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ids = np.array(list(files), dtype=np.int64)

    def create(file: h5py.File) -> None:
        file.create_dataset("features", (int(offsets[-1]), dim), np.float16)
        file["offsets"] = offsets
        file["image_ids"] = ids

    def fill(file: h5py.File, start: int, stop: int) -> None:
        rows = np.concatenate([_read(path, dim, regions) for path in paths[start:stop]])
        file["features"][offsets[start] : offsets[stop]] = rows

    build_file(
        output,
        len(paths),
        create,
        fill,
        settings={
            "source": str(Path(folder).resolve()),
            "images": hashlib.sha256(ids.tobytes() + offsets.tobytes()).hexdigest(),
            "dim": str(dim),
            "regions": str(regions),
        },
        batch_size=batch_size,
        progress=progress,
        desc="images",
    )


def _read(path: Path, dim: int, regions: int) -> np.ndarray:
    features = read_npz(path, dim=dim)[:regions]
    with np.errstate(over="ignore"):  # what float16 cannot hold is infinite, see below
        narrow = features.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise ValueError(
            f"every feature in {path} must be finite and at most 65504, which float16 can hold, "
            f"got {features[~np.isfinite(narrow)][0]}; get it again"
        )
    return narrow
