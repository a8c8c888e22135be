"""Image features of VQA: (regions, dim) an image, from NumPy archives or from HDF5 files.

Whatever the file, `features[image_ids]` is an (images, regions, dim) array, as precise as it was
stored. An image with fewer regions ends in rows of zeros: a row whose absolute values sum to 0 is
padding, as MCAN reads it (Yu et al., 2019). The README beside this file describes the layouts.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..files.hdf5 import Rows
from .image_files import find_images, read_npz
from .image_rows import MOST_NUMBERS, check_offsets, check_regions, check_rows, read_index

MOST_REGIONS = 100  # of the bottom-up features
HELP = "extract them, or leave those questions out"


class Features:
    """What all sources share: finding images and refusing numbers that are not finite.

    Attributes:
        source: the file or folder.
        image_ids: (images,) int64, in the source's order, each once.
        regions: rows an image is cut or padded to.
        dim: width of a row.
    """

    def __init__(self, source: Path, image_ids: np.ndarray, *, regions: int, dim: int) -> None:
        if regions < 1:
            raise ValueError(f"regions must be at least 1, got {regions}; or None for all")
        if not 0 < regions * dim <= MOST_NUMBERS:
            raise ValueError(
                f"an image of {source} must have 1 to {MOST_NUMBERS:,} numbers, got {regions:,} "
                f"regions of width {dim:,}; pass regions= to cut or pad to fewer"
            )
        self.source, self.regions, self.dim = source, regions, dim
        self.image_ids = np.asarray(image_ids, dtype=np.int64)
        self._order = np.argsort(self.image_ids)
        self._sorted = self.image_ids[self._order]
        repeated = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        if len(repeated):
            raise ValueError(
                f"{source} must hold every image once, but image {repeated[0]} is there twice; "
                "leave one of them out"
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, image_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(image_ids, dtype=np.int64)
        array = self._read(self._order[self._find(wanted)])
        # One sum tells whether anything is wrong, at a fraction of the cost of looking.
        if (
            array.dtype.kind == "f"
            and not torch.from_numpy(array).sum(dtype=torch.float32).isfinite()
        ):
            self._check_finite(array, wanted)
        return array

    def check(self, image_ids: Sequence[int] | np.ndarray) -> None:
        """Raises a ValueError that counts the images that are not there and names the first."""
        asked = np.unique(image_ids)
        missing = np.setdiff1d(asked, self.image_ids, assume_unique=True)
        if len(missing):
            raise ValueError(
                f"{self.source} must hold every image that is asked about, but of {len(asked)} "
                f"images {len(missing)} have no features, the first is image {missing[0]}; {HELP}"
            )

    def _find(self, wanted: np.ndarray) -> np.ndarray:
        found = np.searchsorted(self._sorted, wanted)
        if not np.array_equal(self._sorted.take(found, mode="clip"), wanted):
            self.check(wanted)
        return found

    def _check_finite(self, array: np.ndarray, image_ids: np.ndarray) -> None:
        bad = ~np.isfinite(array).all(axis=(1, 2))
        if bad.any():
            raise ValueError(
                f"every feature in {self.source} must be finite, those of image "
                f"{image_ids[bad][0]} are not; extract them again"
            )

    def _read(self, places: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class NpzFeatures(Features):
    """A `.npz` an image, as MCAN keeps them: `x` of shape (dim, n), n regions.

    Args:
        folder: holds the files, or a folder of them for every split; an image's id is the integer
            after the last underscore: `COCO_train2014_000000000009.jpg.npz` is image 9.
        regions: rows an image is cut or padded to; None takes 100.

    Raises:
        FileNotFoundError: if there are no such files.
        ValueError: names a file without an id, or, when it is read, one that is damaged.
    """

    def __init__(self, folder: str | Path, *, regions: int | None = None) -> None:
        self.paths = find_images(folder, (".npz",))
        dim = read_npz(next(iter(self.paths.values()))).shape[1]
        super().__init__(
            Path(folder),
            np.array(list(self.paths)),
            regions=MOST_REGIONS if regions is None else regions,
            dim=dim,
        )

    def _read(self, places: np.ndarray) -> np.ndarray:
        paths = [self.paths[image] for image in self.image_ids[places].tolist()]
        images = [read_npz(path, dim=self.dim) for path in paths]
        dtype = np.result_type(np.float16, *images)
        array = np.zeros((len(places), self.regions, self.dim), dtype)
        for row, image in zip(array, images, strict=True):
            row[: len(image)] = image[: self.regions]
        return array


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
        arrays = read_index(path)
        self._rows = Rows(path, "image_features" if "rows" in arrays else "features")
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


class JoinedFeatures(Features):
    """Several sources as one, such as a file for train and one for validation."""

    def __init__(self, sources: Sequence[Features]) -> None:
        self._sources = list(sources)
        dims = {source.dim for source in sources}
        if len(dims) != 1:
            raise ValueError(
                f"the features in {[str(s.source) for s in sources]} must be equally wide, got "
                f"{sorted(dims)}; choose one file by `features`"
            )
        super().__init__(
            sources[0].source.parent,
            np.concatenate([source.image_ids for source in sources]),
            regions=max(source.regions for source in sources),
            dim=dims.pop(),
        )
        sizes = [len(source) for source in sources]
        self._owner = np.repeat(np.arange(len(sources)), sizes)

    def _read(self, places: np.ndarray) -> np.ndarray:
        owner, image_ids = self._owner[places], self.image_ids[places]
        parts = {k: self._sources[k][image_ids[owner == k]] for k in np.unique(owner)}
        array = np.zeros(
            (len(places), self.regions, self.dim), np.result_type(np.float16, *parts.values())
        )
        for k, part in parts.items():
            array[owner == k, : part.shape[1]] = part
        return array


def open_features(path: str | Path, *, regions: int | None = None) -> Features:
    """Opens features: an HDF5 file, a folder of HDF5 files, or one of `.npz` files.

    Args:
        path: the file or folder.
        regions: rows an image is cut or padded to; None: see the classes.

    Raises:
        FileNotFoundError: if there is nothing there.
        ValueError: names the file that is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        return HDF5Features(path, regions=regions)
    files = sorted(file for ending in ("hdf5", "h5") for file in path.glob(f"*.{ending}"))
    if not files:
        return NpzFeatures(path, regions=regions)
    sources = [HDF5Features(file, regions=regions) for file in files]
    return sources[0] if len(sources) == 1 else JoinedFeatures(sources)
