"""MM-IMDB: a film's genres, any of 23, from its plot and its poster (Arevalo et al., 2017).

Reads `multimodal_imdb.hdf5` or a file in its layout: one row a film, in the order train,
validation, test. The README beside this file says what it holds and where it comes from.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..files.hdf5 import MEMORY, Rows
from ..loaders import make_loader
from .contents import FILE, GENRES, STANDARD, Contents, find_file, read_contents

__all__ = ["FILE", "STANDARD", "Contents", "FilmRows", "get_dataloader", "read_contents"]

MODALITIES = ("text", "image")
TEXT, IMAGE = "features", "vgg_features"  # datasets of the file


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

    The arguments before the star are MultiBench's, for calls written for it, but for other
    defaults (there: `vgg=False`, batches of 40, 8 workers) and all as float32 (there: genres and
    images int32). Its noisy test sets (`test_path`, `skip_process`, `no_robust=False`) are not
    offered.

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
        ValueError: if it is damaged, lacks a dataset, does not say its split, has a film twice,
            datasets of different lengths or genres other than 0 and 1; or an argument makes no
            sense. A batch with a feature that is not finite raises it, naming dataset and row.
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
    path = find_file(path)
    workers = workers if num_workers is None else num_workers
    options = {"batch_size": batch_size, "workers": workers}
    train, valid, test = (
        FilmRows(path, rows, names=[datasets[key] for key in chosen], memory=memory)
        for rows in read_contents(path, splits=splits).parts
    )
    return (
        make_loader(train, shuffle=train_shuffle, **options),
        make_loader(valid, shuffle=False, **options),
        make_loader(test, shuffle=False, **options),
    )


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
