"""MM-IMDB: a film's genres, any of 23, from its plot and its poster (Arevalo et al., 2017).

Reads `multimodal_imdb.hdf5` or a file in its layout: one row a film, in the order train,
validation, test. The README beside this file says what it holds and where it comes from.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..files.hdf5 import MEMORY, Rows, open_file
from ..files.numbers import as_float32
from ..files.reading import shown
from ..loaders import make_loader
from ..noise import Noise, lose_entries
from .contents import FILE, Contents, find_file, has_ids, read_contents, read_ids
from .noisy import kept_films, noisy_films
from .splits import GENRES, STANDARD

__all__ = ["FILE", "STANDARD", "Contents", "FilmRows", "get_dataloader", "read_contents"]

MODALITIES = ("text", "image")
TEXT, IMAGE = "features", "vgg_features"  # datasets of the file
WIDEST = 1 << 20
"""Numbers of a film in one dataset: a poster of 256 x 160 has 122,880."""


class FilmRows(Dataset):
    """Films of a file; `rows[[3, 1]]` is the batch [x_1, ..., x_M, genres], all float32.

    Args:
        rows: the films, by their rows in the file.
        views: a dataset of the file for each modality, which parts of it may share.
        labels: the dataset of the genres.

    Attributes:
        widths: features a film, a number for each modality.
        genres: (films, genres) float32, 0 or 1.
    """

    def __init__(self, rows: range, views: Sequence[Rows], labels: Rows) -> None:
        self.rows, self.views = rows, list(views)
        self.widths = tuple(math.prod(view.shape[1:]) for view in self.views)
        self.genres = _read_genres(labels, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Sequence[int]) -> list[Tensor]:
        indices = np.asarray(indices, dtype=np.intp)
        rows = indices + self.rows.start
        return [*(self._read(view, rows) for view in self.views), self.genres[indices]]

    def _read(self, view: Rows, rows: np.ndarray) -> Tensor:
        stored = view[rows]
        values = torch.from_numpy(stored).float()
        # One pass: a sum is finite only if all are, but for an overflow, which this look finds.
        if not values.sum().isfinite():
            as_float32(stored, f"{view.name} in {view.path}", rows=self._names(view.path, rows))
        return values

    def _names(self, path: Path, rows: np.ndarray) -> list[str]:
        with open_file(path) as file:
            ids = read_ids(file) if has_ids(file) else None
        return [f"{row} (film {shown(ids[row])})" if ids else str(row) for row in rows.tolist()]


def get_dataloader(
    path: str | Path,
    test_path: str | Path | None = None,
    num_workers: int | None = None,
    train_shuffle: bool = True,
    batch_size: int = 128,
    vgg: bool | None = None,
    skip_process: bool = False,
    no_robust: bool | None = None,
    *,
    modalities: Sequence[str] = MODALITIES,
    text: str = TEXT,
    image: str = IMAGE,
    workers: int = 0,
    splits: Sequence[int] | None = None,
    memory: int = MEMORY,
    noise: Noise = lose_entries,
    seed: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader | dict[str, list[DataLoader]]]:
    """Returns the loaders of (train, valid, test); a batch is the modalities, then the genres.

    The arguments before the star are MultiBench's, for calls written for it, but for other
    defaults (there: `vgg=False`, batches of 40, 8 workers) and all as float32 (there: genres and
    images int32). Its noisy test sets (`no_robust=False`) have noise in the features; there it is
    in plots and posters, whose features are then computed anew by models to be had elsewhere. Such
    features are read where MultiBench has kept them (`skip_process`).

    Args:
        path: the file, or the folder of `multimodal_imdb.hdf5`.
        test_path: MultiBench's, of the raw films: a folder where `skip_process` looks first.
        num_workers: MultiBench's name of `workers`.
        train_shuffle: whether train has a new order each pass.
        batch_size: films a batch.
        vgg: MultiBench's choice of `image`: "vgg_features" if true, "images" if false.
        skip_process: whether noisy test sets are those whose features MultiBench has kept,
            `vgg_features_0.npy` to `vgg_features_10.npy` and `text_features_0.npy` to
            `text_features_10.npy`, in test_path or the current folder.
        no_robust: whether test is the plain test set; else it is a dict of noisy ones, "text" and
            "image" -> a loader for each level 0, 0.1, ... 1, the other modality clean. None: if
            there is no test_path, which calls written for MultiBench have, whose default is False.
        modalities: different names out of "text" and "image", in the order wanted.
        text: the dataset of the text, (films, 300); or one of your own.
        image: that of the images, (films, 4096) or, for "images", (films, 3, 256, 160); or one of
            your own.
        workers: processes that read ahead.
        splits: films in train, validation and test; None takes the file's attribute `splits`
            (JSON counts) or `split` (Fuel's), else, for 25,959 films, MM-IMDB's own.
        memory: bytes of a compressed dataset that are read whole.
        noise: of the noisy test sets, (features of a film, level, generator) -> the same noised;
            by default each is 0 with the level as its probability.
        seed: of the noise.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, lacks a dataset, does not say its split, has a film twice,
            datasets of different lengths, genres other than 0 and 1, more than `WIDEST` numbers
            a film or `contents.MOST_LABELS` labels; or an argument makes no sense. A batch with a
            feature that is not finite, in the file or as float32, raises it, naming dataset, row
            and film.

    Warns:
        UserWarning: if the file's split leaves films out, most films of a part have no genre, or
            a dataset is as wide as it is long, which hides whether its rows are the films.
    """
    plain = test_path is None if no_robust is None else no_robust
    if skip_process and plain:
        raise ValueError("skip_process is of the noisy test sets: it needs no_robust=False")
    if vgg is not None:
        image = IMAGE if vgg else "images"
    datasets = dict(zip(MODALITIES, (text, image), strict=True))
    chosen = list(modalities)
    if not chosen or set(chosen) - set(datasets) or len(set(chosen)) < len(chosen):
        raise ValueError(f"modalities must be different names out of {MODALITIES}, got {chosen}")
    path = find_file(path)
    workers = workers if num_workers is None else num_workers
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers}
    fixed = {**options, "shuffle": False}
    parts = read_contents(path, splits=splits).parts
    labels = Rows(path, GENRES, memory=memory)
    views = [Rows(path, datasets[key], memory=memory) for key in chosen]
    for view in views:
        _check_view(view, len(labels))
    train, valid, test = (FilmRows(rows, views, labels) for rows in parts)
    loaders = make_loader(train, shuffle=train_shuffle, **options), make_loader(valid, **fixed)
    if plain:
        return *loaders, make_loader(test, **fixed)
    folders = [Path(folder) for folder in (test_path, ".") if folder is not None]
    sets = (
        kept_films(test, chosen, folders)
        if skip_process
        else noisy_films(test, chosen, noise, seed)
    )
    # so many loaders would keep too many processes
    fixed["workers"] = 0
    noisy = {name: [make_loader(one, **fixed) for one in levels] for name, levels in sets.items()}
    return *loaders, noisy


def _check_view(view: Rows, films: int) -> None:
    shape, name = view.shape, f"{view.name} in {view.path}"
    if len(view) != films or len(shape) < 2 or view.dtype.kind not in "iuf":
        turned = len(shape) == 2 and shape[1] == films
        raise ValueError(
            f"{name} must hold numbers, a row for each of the {films} rows of {GENRES}, got "
            f"{view.dtype} {shape}{', which looks transposed' if turned else ''}"
        )
    if not 0 < math.prod(shape[1:]) <= WIDEST or view.dtype.itemsize > 8:
        raise ValueError(
            f"{name} must hold 1 to {WIDEST:,} numbers a film, of at most 8 bytes each, got "
            f"{view.dtype} {shape}; write it anew"
        )
    if len(shape) == 2 and shape[1] == films:
        warnings.warn(
            f"{name} is as wide as it is long, {films}: its rows are taken for the films; "
            "transpose it if these are its columns",
            UserWarning,
            stacklevel=3,
        )


def _read_genres(labels: Rows, rows: range) -> Tensor:
    """Returns the rows' genres, (films, genres) float32."""
    values = labels[np.asarray(rows)]
    wrong = ((values != 0) & (values != 1)).any(axis=1)  # as stored: 1e-50 is no 0
    if wrong.any():
        raise ValueError(
            f"{GENRES} in {labels.path} must be 0 or 1, row {rows[int(wrong.argmax())]} is not"
        )
    without = int((values == 0).all(axis=1).sum())
    if 2 * without > len(rows):
        warnings.warn(
            f"{without:,} of the {len(rows):,} films from row {rows.start} on of {labels.path} "
            f"have no genre at all; look whether {GENRES} is whole",
            UserWarning,
            stacklevel=4,
        )
    return torch.from_numpy(values.astype(np.float32))
