"""The contents of a file in MM-IMDB's layout: how many films, which genres, and which parts."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from ..files.hdf5 import find_dataset, open_file, read_attribute, read_whole, whole
from ..files.reading import LIMIT, check_file, shown
from .splits import GENRES, read_parts, to_text

FILE = "multimodal_imdb.hdf5"
IDS = "imdb_ids"  # a dataset of the file
MOST_LABELS = LIMIT // 4
"""Films times genres of a file, whose labels are held in memory as float32: 1 GiB."""


class Contents(NamedTuple):
    """The contents of a file, without its features.

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


def find_file(path: str | Path) -> Path:
    """Returns the file, of which the folder will do as well."""
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    folder = path.parent if path.name == FILE else path
    return check_file(path, advice=f"get it with: deq-fusion prepare imdb --data-dir {folder}")


def read_contents(path: str | Path, *, splits: Sequence[int] | None = None) -> Contents:
    """Reads what a file holds, without its features; see `get_data.get_dataloader`.

    Args:
        path: the file, or its folder.
        splits: films in train, validation and test; None takes what the file says.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, has no genres or more than `MOST_LABELS`, has a film twice,
            or does not say its split.

    Warns:
        UserWarning: if the split that the file names leaves films out.
    """
    path = find_file(path)
    with open_file(path) as file:
        genres = find_dataset(file, GENRES)
        if genres.ndim != 2 or genres.dtype.kind not in "iufb":
            raise ValueError(
                f"{GENRES} in {path} must be numbers of shape (films, genres), got "
                f"{genres.dtype} {genres.shape}"
            )
        films = len(genres)
        if not 0 < genres.size <= MOST_LABELS:
            raise ValueError(
                f"{GENRES} in {path} must be 1 to {MOST_LABELS:,} numbers, films times genres, but "
                f"is declared to be {films:,} x {genres.shape[1]:,}; get the file again"
            )
        if has_ids(file):
            _check_ids(path, read_ids(file), films)
        names, parts = _read_names(file, genres.shape[1]), read_parts(file, films, splits)
        return Contents(films, names, parts, _read_shapes(file, films))


def has_ids(file: h5py.File) -> bool:
    """Says whether there are ids, be it damaged ones: `in` leaves those out."""
    with whole(file, "the list of datasets"):
        return IDS in set(file)


def read_ids(file: h5py.File) -> list[str]:
    """Returns the films' ids, in the order of the rows.

    Texts are taken as they are, whole numbers as IMDb writes them: 1 is "0000001".

    Raises:
        ValueError: if there are none, or they are anything else than a list of these.
    """
    ids = read_whole(file, IDS)
    if ids.ndim != 1 or ids.dtype.kind not in "SOiu":
        raise ValueError(
            f"{IDS} in {file.filename} must be a list of texts or of whole numbers, a film's each, "
            f"got {ids.dtype} {ids.shape}; write them as texts, such as '0000001'"
        )
    if ids.dtype.kind in "iu":
        if len(ids) and ids.min() < 0:
            raise ValueError(f"{IDS} in {file.filename} must be 0 or more, got {ids.min()}")
        return [f"{number:07d}" for number in ids.tolist()]
    try:
        return [to_text(name) for name in ids.tolist()]
    except ValueError as error:
        raise ValueError(
            f"{IDS} in {file.filename} must be UTF-8 texts, but {error}; write them anew"
        ) from error


def _check_ids(path: Path, ids: Sequence[str], films: int) -> None:
    """A film that is in two parts, or twice in test, would count as what it is not."""
    if len(ids) != films:
        raise ValueError(
            f"{IDS} in {path} must name each of its {films} films, but has {len(ids)} names; get "
            "the file again"
        )
    film, times = Counter(ids).most_common(1)[0]
    if times > 1:
        rows = [row for row, name in enumerate(ids) if name == film][:2]
        raise ValueError(
            f"every film in {path} must occur once, but {IDS} has {shown(film)} in the rows "
            f"{rows}; leave the copies out"
        )


def _read_names(file: h5py.File, columns: int) -> list[str]:
    names = read_attribute(file, f"{GENRES}/@target_names")
    names = read_attribute(file, "target_names") if names is None else names
    if names is None:
        return [str(column) for column in range(columns)]
    try:
        listed = json.loads(names) if isinstance(names, str | bytes) else names
        listed = listed.tolist() if isinstance(listed, np.ndarray) else listed
        decoded = [to_text(name) for name in listed] if isinstance(listed, list) else []
    except (ValueError, RecursionError):
        decoded = []
    if len(decoded) != columns or len(set(decoded)) < columns:
        raise ValueError(
            f"target_names in {file.filename} must name the {columns} columns of {GENRES}, each "
            f"its own, as a list or JSON, got {len(decoded)} names, {len(set(decoded))} of them "
            f"different: {shown(names)}"
        )
    return decoded


def _read_shapes(file: h5py.File, films: int) -> dict[str, tuple[int, ...]]:
    def is_here(name: str) -> bool:
        return isinstance(file.get(name, getlink=True), h5py.HardLink)

    with whole(file, "the list of datasets"):
        items = {name: file[name] for name in file if is_here(name)}
        return {
            name: item.shape[1:]
            for name, item in items.items()
            if isinstance(item, h5py.Dataset) and item.shape and len(item) == films
        }
