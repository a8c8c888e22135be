"""Loaders of MM-IMDB's films as they were collected, see `films`: word pieces and posters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..files.hdf5 import Rows, open_file
from ..files.images import cache_images, read_image
from ..files.numbers import as_float32
from ..files.reading import shown
from ..files.text import WordPieces
from ..loaders import make_loader
from .contents import find_file, read_ids
from .films import PARTS, Films, read_films
from .get_data import IMAGE, MODALITIES, WIDEST


class FilmDataset(Dataset):
    """One part of the films; a list of row numbers gives a batch, the modalities, then the genres.

    Args:
        films: all films.
        rows: those of this part, as numbers of `films`.
        modalities: "text" and "image", or one of them, in the order wanted.
        tokens: splits the plots.
        length: the most tokens a plot.
        size: of the posters, in pixels.
        images: a row a film, the decoded posters or features; None decodes posters every time.
    """

    def __init__(
        self,
        films: Films,
        rows: range,
        *,
        modalities: Sequence[str] = MODALITIES,
        tokens: WordPieces,
        length: int,
        size: int,
        images: Rows | None = None,
    ) -> None:
        self.films, self.rows, self.modalities = films, rows, tuple(modalities)
        self.tokens, self.length, self.size, self.images = tokens, length, size, images

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Sequence[int]) -> list[Tensor]:
        chosen = [self.rows[row] for row in rows]
        read = {"text": self._tokens, "image": self._images}
        arrays = [read[modality](chosen) for modality in self.modalities]
        return [torch.from_numpy(array) for array in (*arrays, self.films.labels[chosen])]

    def _tokens(self, films: Sequence[int]) -> np.ndarray:
        return self.tokens.encode([self.films.plots[film] for film in films], length=self.length)

    def _images(self, films: Sequence[int]) -> np.ndarray:
        if self.images is None:
            return np.stack([read_image(self.films.posters[film], self.size) for film in films])
        images = self.images[films]
        if images.dtype == np.uint8:
            return images
        names = [self.films.ids[film] for film in films]
        return as_float32(images, f"{self.images.name} in {self.images.path}", rows=names)


def train_tokens(films: Films, *, vocabulary: int = 8000) -> WordPieces:
    """Returns word pieces learnt from the plots of train, at most `vocabulary` of them."""
    return WordPieces.train(films.plots[: films.sizes[0]], size=vocabulary)


def get_dataloader(
    folder: str | Path,
    *,
    modalities: Sequence[str] = MODALITIES,
    genres: Sequence[str] | None = None,
    tokens: WordPieces | None = None,
    vocabulary: int = 8000,
    length: int = 512,
    size: int = 224,
    batch_size: int = 16,
    workers: int = 0,
    cache: str | Path | None = None,
    features: str | Path | None = None,
    progress: bool = True,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); only train is shuffled.

    A batch is [tokens (films, longest) int64, images (films, 3, size, size) uint8, genres
    (films, labels) float32], its plots padded with 0 to the longest of the batch.

    Args:
        folder: see `read_films`.
        modalities: "text" and "image", or one of them, in the order wanted.
        genres: see `read_films`.
        tokens: splits the plots; it must be the one of the text encoder's weights. None learns
            word pieces from train's plots, the loaders' `dataset.tokens` has them.
        vocabulary: the most word pieces to learn.
        length: the most tokens a plot; the rest is cut off.
        size: the posters' short side is scaled to it, and the middle square is taken.
        batch_size: films a batch, the last one may be smaller.
        workers: processes that read batches ahead; 0 reads them in this one.
        cache: HDF5 file that keeps the decoded posters, 3 * size * size bytes a film; it is
            made if it is not there, which an interruption does not undo. None decodes the
            posters in every epoch.
        features: HDF5 file in MM-IMDB's layout; its `vgg_features`, (films, features) floating,
            take the place of the images, as float32.
        progress: show a bar while the cache is made.

    Raises:
        FileNotFoundError: see `read_films`.
        ValueError: see `read_films`; or the cache is of other posters, or the features of other
            films. A poster that cannot be read, or a film whose features are not finite, is named
            when its batch is.
        ImportError: if Pillow or tokenizers is not installed.
    """
    if not modalities or set(modalities) - set(MODALITIES):
        raise ValueError(
            f"modalities must be different names out of {list(MODALITIES)}, got {list(modalities)}"
        )
    films = read_films(folder, genres=genres)
    tokens = train_tokens(films, vocabulary=vocabulary) if tokens is None else tokens
    images = None
    if features is not None:
        images = _read_features(Path(features), films)
    elif cache is not None and "image" in modalities:
        images = cache_images(cache, films.posters, size=size, progress=progress)
    options = {"modalities": modalities, "tokens": tokens, "length": length, "size": size}
    starts = (0, *np.cumsum(films.sizes).tolist())
    train, valid, test = (
        make_loader(
            FilmDataset(films, range(start, end), images=images, **options),
            batch_size=batch_size,
            shuffle=part == "train",
            workers=workers,
        )
        for part, start, end in zip(PARTS, starts, starts[1:], strict=False)
    )
    return train, valid, test


def _read_features(path: Path, films: Films) -> Rows:
    """Returns the image features of a file, once its rows are certain to be these films."""
    path = find_file(path)
    with open_file(path) as file:
        ids = read_ids(file)
    if len(ids) != len(films.ids):
        raise ValueError(
            f"imdb_ids in {path} must be the {len(films.ids)} films of split.json, got "
            f"{len(ids)}; take both from one release of the data"
        )
    wrong = [row for row, film in enumerate(films.ids) if ids[row] != film]
    if wrong:
        raise ValueError(
            f"imdb_ids in {path} must be the films of split.json, in its order, but row "
            f"{wrong[0]} is {shown(ids[wrong[0]])}, not {shown(films.ids[wrong[0]])}; take both "
            "from one release of the data"
        )
    rows = Rows(path, IMAGE)
    # uint8 would pass for the pixels of posters
    plain = len(rows.shape) == 2 and rows.dtype.kind == "f" and rows.dtype.itemsize <= 8
    if not plain or len(rows) != len(ids) or not 0 < rows.shape[1] <= WIDEST:
        raise ValueError(
            f"{IMAGE} in {path} must be floating, ({len(ids)}, 1 to {WIDEST:,}), a row a film, got "
            f"{rows.dtype} {rows.shape}; take the features that go with these films"
        )
    return rows
