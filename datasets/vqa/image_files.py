"""Image features as they lie in files: which image is where, and how much of it there may be.

`Features` is the base of all sources; `read_index` tells the rows of an HDF5 file's images, and
`NpzFeatures` reads an archive an image. A file is named after its image: `image_id`.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ..files import npz
from ..files.hdf5 import read_whole, whole
from ..files.numbers import INT64
from ..files.reading import shown
from ..files.restricted_pickle import load

KEY = "x"
MOST_NUMBERS = 1 << 22
"""Regions times width of an image: 2,048 regions of width 2,048."""
MANY = 128
"""Regions of an image from which on they are taken for its width, if they are more than that."""
MOST_REGIONS = 100  # of the bottom-up features
HELP = "extract them, or leave those questions out"


class Features:
    """The base of all sources: finds images, and refuses numbers that are not finite.

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
        self.source = source
        self.regions = regions
        self.dim = dim
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


def read_npz(path: Path, *, dim: int | None = None) -> np.ndarray:
    """Reads an image's features, (regions, dim); the file has them the other way round.

    Args:
        path: the archive.
        dim: the width that they must have; None takes any.

    Raises:
        ValueError: names the file, if it is damaged, `x` is not what it should be or has more
            than `MOST_NUMBERS`, or seems to have the regions first, see `check_regions`.
    """
    return _check_npz(path, npz.read_npz(path, [KEY], limit=8 * MOST_NUMBERS)[KEY], dim).T


def _check_npz(path: Path, features: np.ndarray, dim: int | None) -> np.ndarray:
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
    return features


def find_rows(file: h5py.File) -> str:
    """Returns the name of the features in an HDF5 file: "features", or "image_features".

    Raises:
        ValueError: names the file that is damaged, lacks the images' ids, or holds two layouts at
            once.
    """
    with whole(file, "the list of datasets"):
        there = sorted(file)
    if "image_features" in there and "features" not in there:
        return "image_features"
    if "image_ids" not in there or "image_features" in there:
        found = ", ".join(map(shown, there[:9]))
        raise ValueError(
            f"{file.filename} must hold features and image_ids, or image_features, got [{found}]; "
            "write it again, as README.md says"
        )
    return "features"


def read_index(path: Path, file: h5py.File, name: str) -> dict[str, np.ndarray]:
    """Returns `image_ids`, and where the file has them `offsets` or, from the pickle, `rows`.

    Args:
        path: the HDF5 file.
        file: the same, opened.
        name: of its features, see `find_rows`.

    Raises:
        FileNotFoundError: if its pickle is missing.
        ValueError: names the file that is damaged.
    """
    if name == "image_features":
        return _read_rows(path)
    with whole(file, "the list of datasets"):
        names = {"image_ids", "offsets"}.intersection(file)
    arrays = {name: read_whole(file, name) for name in sorted(names)}
    for name, array in arrays.items():
        if np.ndim(array) != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"{sorted(arrays)} in {path} must be lists of integers, but {name} is "
                f"{array.dtype} {array.shape}; write it again"
            )
        if len(array) and int(array.max()) not in INT64:
            raise ValueError(f"{name} in {path} must be numbers that int64 holds; write it again")
    return {name: array.astype(np.int64) for name, array in arrays.items()}


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
