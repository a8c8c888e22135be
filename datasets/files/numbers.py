"""Numbers of a file as float32: finite in the file, and still finite once converted."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .reading import shown

INT64 = range(-(1 << 63), 1 << 63)
EMPTY = 1 << 26  # bytes of all but the empty dimensions of an empty array


def as_float32(array: np.ndarray, what: str, *, rows: Sequence[str] | None = None) -> np.ndarray:
    """Returns numbers as float32, without a copy if they are that already.

    Args:
        array: (rows, ...) numbers of any dtype, or a single one.
        what: what they are, as "audio in FILE", for the error message.
        rows: names of the rows, if they have some; else they are counted from 0.

    Raises:
        ValueError: names the rows that are not finite, or that float32 cannot hold: beyond
            3.4e38 they would become infinite.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what} must be numbers, got {array.dtype}")
    _check_finite(array, what, "finite, but {} not; fill in or leave out what is missing", rows)
    with np.errstate(over="ignore"):
        result = array.astype(np.float32, copy=False)
    if array.dtype != np.float32 and not (held := np.isfinite(result)).all():
        value = f"{np.atleast_1d(array[~held])[0]:.3g}"
        rule = f"within 3.4e38, as float32 is, but {{}} not: {value} is finite, and too large"
        _check_finite(result, what, f"{rule}; rescale it", rows)
    return result


def _check_finite(array: np.ndarray, what: str, rule: str, rows: Sequence[str] | None) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    table = np.atleast_1d(array)
    bad = np.flatnonzero(~np.isfinite(table.reshape(len(table), -1)).all(axis=1))
    names = [_row(row, rows) for row in bad[:5].tolist()]
    count = f"row{'s' if len(bad) > 1 else ''} {', '.join(names)}"
    more = f" and {len(bad) - 5} more are" if len(bad) > 5 else " are" if len(bad) > 1 else " is"
    raise ValueError(f"{what} must be {rule.format(count + more)}")


def as_int64(
    values: np.ndarray | Sequence[int], what: str, *, rows: Sequence[str] | None = None
) -> np.ndarray:
    """Returns whole numbers as int64.

    Args:
        values: integers, or floats without a fraction, in an array of any shape or a list.
        what: what they are, as "labels in FILE", for the error message.
        rows: names of the rows, if they have some; else they are counted from 0.

    Raises:
        ValueError: names the first row that is no whole number, or that int64 cannot hold: beyond
            9.2e18 it would become another number.
    """
    if isinstance(values, (list, tuple)):  # as an array, 2**63 beside -1 would be a float
        for row, value in enumerate(values):
            whole = isinstance(value, (int, np.integer)) and type(value) is not bool
            if not whole or int(value) not in INT64:
                _refuse_integer(what, row, rows, value)
        return np.array(values, dtype=np.int64)
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{what} must be whole numbers, got {array.dtype}")
    if array.dtype.kind == "f":
        wide = array.astype(np.promote_types(array.dtype, np.float64), copy=False)
        fits = (wide == np.trunc(wide)) & (wide >= -(2.0**63)) & (wide < 2.0**63)
    else:
        fits = array < INT64.stop if array.dtype == np.uint64 else np.True_
    if not fits.all():
        place = tuple(np.argwhere(~fits)[0])
        _refuse_integer(what, int(place[0]) if place else 0, rows, array[place])
    return array.astype(np.int64, copy=False)


def _refuse_integer(what: str, row: int, rows: Sequence[str] | None, value: Any) -> None:
    raise ValueError(
        f"{what} must be whole numbers within 9.2e18, as int64 is, but row {_row(row, rows)} has "
        f"{shown(value)}; correct it"
    )


def _row(row: int, rows: Sequence[str] | None) -> str:
    return str(row) if rows is None else shown(str(rows[row]))[1:-1]


def count_bytes(shape: Any, itemsize: int) -> int:
    """Returns the bytes of an array of a foreign file.

    Raises:
        ValueError: if the shape is none: not a tuple of at most 32 sizes, or larger than a
            machine; or if it is empty and yet so wide that a sum over its rows would not fit.
    """
    if type(shape) is not tuple or len(shape) > 32:
        raise ValueError(f"an array's shape must be whole numbers, at most 32, got {shown(shape)}")
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise ValueError(f"an array's shape must be whole numbers, got {shown(size)} in it")
    if 0 in shape and itemsize * math.prod(size for size in shape if size) > EMPTY:
        raise ValueError(f"an array's shape must not be {shape}, which is empty and yet huge")
    return itemsize * math.prod(shape)
