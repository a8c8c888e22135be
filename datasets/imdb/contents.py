"""What a file of MM-IMDB's layout holds: how many films, which genres, and which parts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..files.hdf5 import find_dataset, open_file

FILE = "multimodal_imdb.hdf5"
GENRES, IDS = "genres", "imdb_ids"  # datasets of the file
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


def find_file(path: str | Path) -> Path:
    """Returns the file, of which the folder will do as well."""
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not path.is_file():
        folder = path.parent if path.name == FILE else path
        raise FileNotFoundError(
            f"no file {path}; get it with: python -m datasets.imdb.prepare --data-dir {folder}"
        )
    return path


def read_contents(path: str | Path, *, splits: Sequence[int] | None = None) -> Contents:
    """Reads what a file holds, without its features; see `get_data.get_dataloader`.

    Args:
        path: the file, or its folder.
        splits: films in train, validation and test; None takes what the file says.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, has no genres, has a film twice, or does not say its split.
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
        shapes = {
            name: item.shape[1:]
            for name, item in file.items()
            if isinstance(item, h5py.Dataset) and item.shape and len(item) == films
        }
        if IDS in shapes:
            _check_ids(path, file[IDS][()])
        return Contents(films, _read_names(file, genres), _read_parts(file, films, splits), shapes)


def _check_ids(path: Path, ids: np.ndarray) -> None:
    """A film that is in two parts, or twice in test, would count as what it is not."""
    names, first, repeats = np.unique(ids, return_index=True, return_counts=True)
    if len(names) < len(ids):
        again = repeats.argmax()
        rows = np.flatnonzero(ids == names[again])[:2].tolist()
        raise ValueError(
            f"every film in {path} must occur once, but {IDS} has {_decode(ids[first[again]])} in "
            f"the rows {rows}; leave the copies out"
        )


def _read_names(file: h5py.File, genres: h5py.Dataset) -> list[str]:
    names = genres.attrs.get("target_names", file.attrs.get("target_names"))
    if names is None:
        return [str(column) for column in range(genres.shape[1])]
    try:
        listed = json.loads(names) if isinstance(names, str | bytes) else names
        decoded = [_decode(name) for name in listed]
    except (TypeError, ValueError):
        decoded = []
    if len(decoded) != genres.shape[1]:
        raise ValueError(
            f"target_names in {file.filename} must name the {genres.shape[1]} columns of {GENRES}, "
            f"as a list or JSON, got {len(decoded)} names: {names!r:.80}"
        )
    return decoded


def _read_parts(
    file: h5py.File, films: int, splits: Sequence[int] | None
) -> tuple[range, range, range]:
    if splits is not None:
        bounds = _count_up(splits)
    elif "splits" in file.attrs or "split" in file.attrs:
        bounds = _read_bounds(file)
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


def _read_bounds(file: h5py.File) -> list[tuple[int, int]]:
    """Returns where train, validation and test start and stop, as the file says."""
    try:
        if "splits" in file.attrs:
            return _count_up(_in_order(json.loads(file.attrs["splits"])))
        # Fuel's array has a record for each part and dataset; all datasets are split alike.
        records = [record for record in file.attrs["split"] if _decode(record["source"]) == GENRES]
        pairs = {_decode(r["split"]): (int(r["start"]), int(r["stop"])) for r in records}
        return _in_order(pairs)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"the attribute 'splits' of {file.filename} must be JSON counts, or 'split' Fuel's "
            f"records, of train, dev (or valid) and test, but {error}; pass splits=(train, valid, "
            "test)"
        ) from error


def _in_order(named: Mapping[str, Any]) -> list[Any]:
    found = {NAMES[name]: value for name, value in named.items() if name in NAMES}
    if len(found) < 3:
        raise ValueError(f"it has {sorted(named)}")
    return [found[part] for part in range(3)]


def _count_up(counts: Iterable[int]) -> list[tuple[int, int]]:
    counts = list(counts)
    if len(counts) != 3 or not all(isinstance(count, int | np.integer) for count in counts):
        raise ValueError(f"splits must be three counts, (train, valid, test), got {counts}")
    ends = np.cumsum(counts).tolist()
    return list(zip([0, *ends], ends, strict=False))


def _decode(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
