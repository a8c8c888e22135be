"""MM-IMDB: a film's genres, any of 23, from its plot and its poster (Arevalo et al., 2017).

Reads `multimodal_imdb.hdf5` or a file in its layout: one row a film, in the order train,
validation, test. The README beside this file says what it holds and where it comes from.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..hdf5 import MEMORY, Rows, find_dataset, open_file
from ..loaders import make_loader

FILE = "multimodal_imdb.hdf5"
MODALITIES = ("text", "image")
TEXT, IMAGE, GENRES = "features", "vgg_features", "genres"  # datasets of the file
STANDARD = (15552, 2608, 7799)
"""Films in train, validation and test of MM-IMDB, for a file that does not say."""
NAMES = {"train": 0, "valid": 1, "dev": 1, "val": 1, "test": 2}


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
        films: number of rows.
        genres: names of the columns of `genres`, "0", "1", ... if the file has none.
        parts: the rows of train, validation and test.
        shapes: of a film in every dataset that has a row for each, (300,) for `features`.
    """

    films: int
    genres: list[str]
    parts: tuple[range, range, range]
    shapes: dict[str, tuple[int, ...]]


def read_contents(path: str | Path, *, splits: Sequence[int] | None = None) -> Contents:
    """Reads what a file holds, without its features; arguments and errors: `get_dataloader`."""
    path = _find_file(path)
    with open_file(path) as file:
        genres = find_dataset(file, GENRES)
        if genres.ndim != 2 or genres.dtype.kind not in "iufb":
            raise ValueError(
                f"{GENRES} in {path} must be numbers of shape (films, genres), got "
                f"{genres.dtype} {genres.shape}"
            )
        films, columns = genres.shape
        names = _read_names(file, genres)
        if len(names) != columns:
            raise ValueError(
                f"target_names in {path} must name the {columns} columns of {GENRES}, got "
                f"{len(names)} names"
            )
        datasets = (item for item in file.values() if isinstance(item, h5py.Dataset))
        shapes = {item.name.strip("/"): item.shape[1:] for item in datasets if item.len() == films}
        return Contents(films, names, _read_parts(file, films, splits), shapes)


class FilmRows(Dataset):
    """Films of a file; `rows[[3, 1]]` is the batch [x_1, ..., x_M, genres], all float32.

    Args:
        path: the file.
        rows: the films, by their rows in the file.
        names: datasets of the modalities.
        memory: bytes of a compressed dataset that are read whole, see `hdf5.Rows`.

    Attributes:
        widths: features a film, a number for each modality.
        genres: (films, genres) float32, 0 or 1.
    """

    def __init__(
        self, path: str | Path, rows: range, *, names: Sequence[str], memory: int = MEMORY
    ):
        self.rows = rows
        self.views = [Rows(path, name, memory=memory) for name in names]
        labels = Rows(path, GENRES, memory=memory)
        for view in self.views:
            if len(view) != len(labels) or len(view.shape) < 2 or view.dtype.kind not in "iuf":
                raise ValueError(
                    f"{view.name} in {path} must hold numbers, a row for each of the "
                    f"{len(labels)} rows of {GENRES}, got {view.dtype} {view.shape}"
                )
        self.widths = tuple(int(np.prod(view.shape[1:])) for view in self.views)
        self.genres = _to_float(labels, np.asarray(rows))
        wrong = ((self.genres != 0) & (self.genres != 1)).any(dim=1)
        if wrong.any():
            raise ValueError(
                f"{GENRES} in {path} must be 0 or 1, row {rows[int(wrong.int().argmax())]} is not"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Sequence[int]) -> list[Tensor]:
        indices = np.asarray(indices, dtype=np.intp)
        rows = indices + self.rows.start
        return [*(_to_float(view, rows) for view in self.views), self.genres[indices]]


def get_dataloader(
    path: str | Path,
    test_path: str | Path | None = None,
    num_workers: int | None = None,
    train_shuffle: bool = True,
    batch_size: int = 128,
    vgg: bool | None = None,
    skip_process: bool = False,
    no_robust: bool = True,
    *,
    modalities: Sequence[str] = MODALITIES,
    text: str = TEXT,
    image: str = IMAGE,
    workers: int = 0,
    splits: Sequence[int] | None = None,
    memory: int = MEMORY,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); a batch is the modalities, then the genres.

    The arguments before the star are MultiBench's, for calls written for it; its noisy test sets
    (`test_path`, `skip_process`, `no_robust=False`) are not offered.

    Args:
        path: the file, or the folder of `multimodal_imdb.hdf5`.
        num_workers, vgg: MultiBench's `workers` and `image` (whether "vgg_features").
        train_shuffle: whether train has a new order each pass.
        batch_size: films a batch.
        modalities: different names out of "text" and "image", in the order wanted.
        text, image: the datasets read: (films, 300) and (films, 4096) or, for `image="images"`,
            (films, 3, 256, 160); or others of your own.
        workers: processes that read ahead.
        splits: films in train, validation and test; None takes the file's attribute `splits`
            (JSON counts) or `split` (Fuel's), else, for 25,959 films, MM-IMDB's own.
        memory: bytes of a compressed dataset that are read whole.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, lacks a dataset, does not say its split, has datasets of
            different lengths or genres other than 0 and 1; or an argument makes no sense. A batch
            with a feature that is not finite raises it, naming dataset and row.
    """
    if skip_process or not no_robust:
        raise ValueError(
            "no_robust must be True and skip_process False: MultiBench's noisy test sets are not "
            "offered; add noise to the batches of the test loader instead"
        )
    if vgg is not None:
        image = IMAGE if vgg else "images"
    datasets = dict(zip(MODALITIES, (text, image), strict=True))
    chosen = list(modalities)
    if not chosen or set(chosen) - set(datasets) or len(set(chosen)) < len(chosen):
        raise ValueError(f"modalities must be different names out of {MODALITIES}, got {chosen}")
    path = _find_file(path)
    names = [datasets[modality] for modality in chosen]
    workers = workers if num_workers is None else num_workers
    options = {"batch_size": batch_size, "workers": workers}
    train, valid, test = (
        FilmRows(path, rows, names=names, memory=memory)
        for rows in read_contents(path, splits=splits).parts
    )
    return (
        make_loader(train, shuffle=train_shuffle, **options),
        make_loader(valid, shuffle=False, **options),
        make_loader(test, shuffle=False, **options),
    )


def _decode(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _find_file(path: str | Path) -> Path:
    return Path(path) / FILE if Path(path).is_dir() else Path(path)


def _read_names(file: h5py.File, genres: h5py.Dataset) -> list[str]:
    names = genres.attrs.get("target_names", file.attrs.get("target_names"))
    if names is None:
        return [str(column) for column in range(genres.shape[1])]
    if isinstance(names, str | bytes):
        names = json.loads(names)
    return [_decode(name) for name in names]


def _read_parts(
    file: h5py.File, films: int, splits: Sequence[int] | None
) -> tuple[range, range, range]:
    if splits is not None:
        bounds = _count_up(splits)
    elif "splits" in file.attrs:
        bounds = _count_up(_in_order(file, json.loads(file.attrs["splits"])))
    elif "split" in file.attrs:
        # Fuel's array has a record for each part and dataset; all datasets are split alike.
        records = [record for record in file.attrs["split"] if _decode(record["source"]) == GENRES]
        pairs = {_decode(r["split"]): (int(r["start"]), int(r["stop"])) for r in records}
        bounds = _in_order(file, pairs)
    elif films == sum(STANDARD):
        bounds = _count_up(STANDARD)
    else:
        raise ValueError(
            f"{file.filename} must say its split in an attribute 'splits' or 'split', or have "
            f"MM-IMDB's {sum(STANDARD)} films, it has {films}; pass splits=(train, valid, test)"
        )
    parts = [range(*pair) for pair in bounds]
    rows = np.concatenate(parts)
    if not all(parts) or len(np.unique(rows)) < len(rows) or rows.min() < 0 or rows.max() >= films:
        raise ValueError(
            f"train, valid and test must be three separate parts of the {films} rows of "
            f"{file.filename}, got {parts}; pass splits=(train, valid, test)"
        )
    return parts[0], parts[1], parts[2]


def _count_up(counts: Sequence[int]) -> list[tuple[int, int]]:
    if len(counts) != 3:
        raise ValueError(f"splits must be three counts, (train, valid, test), got {counts}")
    ends = np.cumsum(counts).tolist()
    return list(zip([0, *ends], ends, strict=False))


def _in_order(file: h5py.File, named: Mapping[str, Any]) -> list[Any]:
    found = {NAMES[name]: value for name, value in named.items() if name in NAMES}
    if len(found) < 3:
        raise ValueError(
            f"the split of {file.filename} must have train, dev (or valid) and test, got "
            f"{sorted(named)}; pass splits=(train, valid, test)"
        )
    return [found[part] for part in range(3)]


def _to_float(view: Rows, rows: np.ndarray) -> Tensor:
    values = torch.from_numpy(view[rows]).float()
    # One pass: a sum is finite only if all are, but for an overflow, which the second look finds.
    if not values.sum().isfinite():
        finite = values.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            raise ValueError(
                f"{view.name} in {view.path} must be finite, row {rows[int(finite.int().argmin())]}"
                " is not; fill in or leave out what is missing first"
            )
    return values
