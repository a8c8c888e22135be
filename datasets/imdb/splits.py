"""The rows of train, validation and test in a file of MM-IMDB's layout."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import h5py
import numpy as np

from ..files.hdf5 import read_attribute
from ..files.reading import shown

STANDARD = (15552, 2608, 7799)
"""Films in train, validation and test of MM-IMDB, for a file that does not say."""
NAMES = {"train": 0, "valid": 1, "dev": 1, "val": 1, "test": 2}
GENRES = "genres"  # the dataset of the labels
FIELDS = {"split", "source", "start", "stop"}  # of Fuel's records
ADVICE = "pass splits=(train, valid, test)"

Bounds = Sequence[tuple[int, int]]
"""Where train, validation and test start and stop."""


def read_parts(
    file: h5py.File, films: int, splits: Sequence[int] | None
) -> tuple[range, range, range]:
    """Returns the rows of train, validation and test.

    Args:
        file: the open file.
        films: how many rows it has.
        splits: films in each part; None takes what the file says, by its attribute `splits` (JSON
            counts) or `split` (Fuel's records), or `STANDARD` if it has that many films.

    Raises:
        ValueError: if the file does not say, or the parts are not three separate ones.

    Warns:
        UserWarning: if some rows are in none of the parts that the file names.
    """
    bounds = _count_up(splits) if splits is not None else _read_bounds(file, films)
    inside = all(0 <= start < stop <= films for start, stop in bounds)
    ordered = sorted(bounds)
    apart = all(one[1] <= two[0] for one, two in zip(ordered, ordered[1:], strict=False))
    if not (inside and apart):
        given = ", ".join(f"{shown(start)} to {shown(stop)}" for start, stop in bounds)
        raise ValueError(
            f"train, valid and test must be three separate parts of the {films} rows of "
            f"{file.filename}, got {given}; {ADVICE}"
        )
    train, valid, test = (range(*pair) for pair in bounds)
    left = films - len(train) - len(valid) - len(test)
    if left and splits is None:
        warnings.warn(
            f"{left:,} of the {films:,} films of {file.filename} are in none of the parts that it "
            f"names, and left out; if that is not meant, {ADVICE}",
            UserWarning,
            stacklevel=3,
        )
    return train, valid, test


def _read_bounds(file: h5py.File, films: int) -> Bounds:
    counts, records = read_attribute(file, "splits"), read_attribute(file, "split")
    try:
        if counts is not None:
            return _count_up(_in_order(_parse(counts)))
        if records is not None:
            return _in_order(_read_records(records))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"the attribute 'splits' of {file.filename} must be JSON counts, or 'split' Fuel's "
            f"records, of train, dev (or valid) and test, but {error}; {ADVICE}"
        ) from error
    if films != sum(STANDARD):
        raise ValueError(
            f"{file.filename} must say its split in an attribute 'splits' or 'split', or have "
            f"MM-IMDB's {sum(STANDARD)} films, it has {films}; {ADVICE}"
        )
    return _count_up(STANDARD)


def _parse(text: Any) -> Mapping[str, Any]:
    if not isinstance(text, str | bytes):
        raise ValueError(f"it is {shown(text)}")
    found = json.loads(text, object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError(f"it holds {shown(found)}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a name twice")
    return found


def _read_records(records: Any) -> dict[str, tuple[int, int]]:
    """Returns a part's rows; Fuel has a record for each part and dataset, which must agree."""
    dtype = getattr(records, "dtype", np.dtype("O"))
    if not FIELDS <= set(dtype.names or ()) or {dtype["start"].kind, dtype["stop"].kind} - {*"iu"}:
        raise ValueError(f"it is {shown(records)} without whole numbers as start and stop")
    found: dict[str, tuple[int, int]] = {}
    known = set()
    for record in np.ravel(records):
        part, pair = to_text(record["split"]), (int(record["start"]), int(record["stop"]))
        if "available" in dtype.names and not record["available"]:
            continue
        if "indices" in dtype.names and record["indices"]:
            raise ValueError(f"the rows of {shown(part)} are a list elsewhere, which is not read")
        if found.setdefault(part, pair) != pair:
            raise ValueError(
                f"{shown(part)} has the rows {found[part]} of one dataset and {pair} of another"
            )
        if to_text(record["source"]) == GENRES:
            known.add(part)
    return {part: pair for part, pair in found.items() if part in known}


def _in_order(named: Mapping[str, Any]) -> list[Any]:
    found = {NAMES[name]: value for name, value in named.items() if name in NAMES}
    known = sum(name in NAMES for name in named)
    if len(found) < 3 or known > 3:
        names = ", ".join(map(shown, sorted(named)[:9]))
        raise ValueError(f"it has [{names}]")
    return [found[part] for part in range(3)]


def _count_up(counts: Iterable[int]) -> Bounds:
    counts = list(counts)
    if len(counts) != 3 or not all(
        isinstance(count, int | np.integer) and not isinstance(count, bool) for count in counts
    ):
        given = ", ".join(map(shown, counts[:9]))
        raise ValueError(f"splits must be three counts, (train, valid, test), got [{given}]")
    ends = list(accumulate(map(int, counts)))
    return list(zip([0, *ends], ends, strict=False))


def to_text(value: Any) -> str:
    """Returns a text that h5py gave as bytes or as text; ValueError if it is neither."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError(f"it holds {shown(value)}, which is no text")
    return str(value)
