"""Image features of VQA: (regions, dim) an image, from HDF5 files or from NumPy archives.

Whatever the file, `features[image_ids]` is an (images, regions, dim) array, as precise as it was
stored. An image with fewer regions ends in rows of zeros: a row whose absolute values sum to 0 is
padding, as MCAN reads it (Yu et al., 2019). The README beside this file describes the layouts.
"""

import hashlib
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from ..files.hdf5 import Rows, open_file
from ..files.hdf5_build import build_file
from .image_files import (
    MOST_REGIONS,
    Features,
    JoinedFeatures,
    NpzFeatures,
    check_offsets,
    check_regions,
    check_rows,
    find_images,
    find_rows,
    read_index,
    read_npz,
)


class HDF5Features(Features):
    """All images in one file, in one of three layouts, told apart by what is there.

    - `features` (total regions, dim), `offsets` (images + 1,), `image_ids` (images,): the rows of
      image i are offsets[i] to offsets[i + 1]; what `convert_npz` writes;
    - `features` (images, regions, dim), `image_ids` (images,);
    - `image_features` (images, regions, dim), and beside the file a pickle of the rows,
      {image id: row}, as in `train36.hdf5` with `train36_imgid2idx.pkl`.

    Args:
        path: the file.
        regions: rows an image is cut or padded to; None takes those of the image with the most.

    Raises:
        FileNotFoundError: if the file, or the pickle, is missing.
        ValueError: names the file, if it is damaged, its arrays do not fit each other, an image has
            more than `MOST_NUMBERS`, or the regions seem to come last, see `check_regions`.

    Warns:
        UserWarning: if rows belong to no image.
    """

    def __init__(self, path: str | Path, *, regions: int | None = None) -> None:
        path = Path(path)
        with open_file(path) as file:
            self._rows = Rows(file, find_rows(file))
            arrays = read_index(path, file, self._rows.name)
        shape, image_ids = self._rows.shape, arrays["image_ids"]
        ragged = "offsets" in arrays
        what = f"{self._rows.name} in {path}"
        real = self._rows.dtype.kind in "fiu" and self._rows.dtype.itemsize <= 8
        if len(shape) != 3 - ragged or not real:
            raise ValueError(
                f"{what} must be real numbers, (images, regions, dim), or (regions of all images, "
                f"dim) with offsets, got {self._rows.dtype} {shape}; write it again"
            )
        if ragged:
            check_offsets(path, arrays["offsets"], total=shape[0], images=len(image_ids))
            self._starts, self._counts = arrays["offsets"][:-1], np.diff(arrays["offsets"])
            most = int(self._counts.max(initial=1))
        else:
            rows, most = arrays.get("rows"), shape[1]
            check_rows(what, rows, shape=shape, images=len(image_ids))
            if regions != most:
                check_regions(what, most, shape[2], layout="(images, regions, dim)")
            self._starts, self._counts = np.arange(shape[0]) if rows is None else rows, None
        super().__init__(
            path, image_ids, regions=most if regions is None else regions, dim=shape[-1]
        )
        self._counts = None if self._counts is None else self._counts.clip(max=self.regions)

    def _read(self, places: np.ndarray) -> np.ndarray:
        starts = self._starts[places]
        if self._counts is None:
            return self._fit(self._rows[starts])
        counts = self._counts[places]
        total = int(counts.sum())
        first = np.cumsum(counts) - counts  # where an image's rows begin among those of the batch
        rows = self._rows[np.repeat(starts - first, counts) + np.arange(total)]
        if total == counts.size * self.regions:
            return rows.reshape(-1, self.regions, self.dim)
        array = np.zeros((counts.size, self.regions, self.dim), rows.dtype)
        array[np.arange(self.regions) < counts[:, None]] = rows
        return array

    def _fit(self, array: np.ndarray) -> np.ndarray:
        """Cuts or pads (images, any, dim) to `regions`."""
        lacking = self.regions - array.shape[1]
        if lacking <= 0:
            return np.ascontiguousarray(array[:, : self.regions])
        return np.pad(array, ((0, 0), (0, lacking), (0, 0)))


def find_features(data_dir: str | Path) -> Path | None:
    """Returns what `get_dataloader` takes for a folder's image features, None if there are none."""
    folder = Path(data_dir)
    if any(folder.glob("*.hdf5")) or any(folder.glob("*.h5")):
        return folder
    return folder / "features" if (folder / "features").is_dir() else None


def open_for(data_dir: str | Path, features: str | Path | None, regions: int | None) -> Features:
    """Opens the features named, or else those in a folder: see `find_features`.

    Raises:
        FileNotFoundError: if there are none there.
        ValueError: see `open_features`.
    """
    path = features or find_features(data_dir)
    if path is None:
        raise FileNotFoundError(
            f"no image features in {data_dir}, neither *.hdf5 nor a folder `features`; say by "
            "`features` where they are, or make them with: "
            "python -m deq_fusion.examples.vqa.extract_features --help"
        )
    return open_features(path, regions=regions)


def open_features(path: str | Path, *, regions: int | None = None) -> Features:
    """Opens features: an HDF5 file, a folder of HDF5 files, or one of `.npz` files.

    Args:
        path: the file or folder.
        regions: rows an image is cut or padded to; None: see the classes.

    Raises:
        FileNotFoundError: if there is nothing there.
        ValueError: names the file that is damaged.
    """
    path, files = Path(path), [Path(path)]
    if path.is_dir():
        files = sorted(file for ending in ("hdf5", "h5") for file in path.glob(f"*.{ending}"))
    if files:
        sources = [HDF5Features(file, regions=regions) for file in files]
        return sources[0] if len(sources) == 1 else JoinedFeatures(sources)
    return NpzFeatures(path, regions=regions)


def convert_npz(
    folder: str | Path,
    output: str | Path,
    *,
    regions: int = MOST_REGIONS,
    batch_size: int = 64,
    progress: bool = True,
) -> None:
    """Writes the features of a folder of `.npz` files, as MCAN's, into one file, read much faster.

    The file holds `features` (regions of all images, dim) float16, `offsets` (images + 1,) int64
    and `image_ids` (images,) int64, ascending: the regions of image i are rows offsets[i] to
    offsets[i + 1]. Bottom-up features of 123,287 images take about 18 GB. A run that was stopped
    is resumed by the same call; ``deq-fusion prepare vqa --npz FOLDER --output FILE.hdf5`` makes
    it.

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
    shapes = [read_npz(path).shape for path in tqdm(paths, desc="sizes", disable=not progress)]
    dim = shapes[0][1]
    counts = [min(count, regions) for count, _ in shapes]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ids = np.array(list(files), dtype=np.int64)

    def create(file: h5py.File) -> None:
        file.create_dataset("features", (int(offsets[-1]), dim), np.float16)
        file["offsets"] = offsets
        file["image_ids"] = ids

    def fill(file: h5py.File, start: int, stop: int) -> None:
        rows = np.concatenate([_read_narrow(path, dim, regions) for path in paths[start:stop]])
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


def _read_narrow(path: Path, dim: int, regions: int) -> np.ndarray:
    features = read_npz(path, dim=dim)[:regions]
    with np.errstate(over="ignore"):  # what float16 cannot hold is infinite, see below
        narrow = features.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise ValueError(
            f"every feature in {path} must be finite and at most 65504, which float16 can hold, "
            f"got {features[~np.isfinite(narrow)][0]}; get it again"
        )
    return narrow
