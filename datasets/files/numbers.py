"""Numbers of a file as float32: finite in the file, and still finite once converted."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .reading import shown

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
    names = [str(row if rows is None else rows[row]) for row in bad[:5].tolist()]
    count = f"row{'s' if len(bad) > 1 else ''} {', '.join(names)}"
    more = f" and {len(bad) - 5} more are" if len(bad) > 5 else " are" if len(bad) > 1 else " is"
    raise ValueError(f"{what} must be {rule.format(count + more)}")


def count_bytes(shape: Any, itemsize: int) -> int:
    """Returns the bytes of an array of a foreign file.

    Raises:
        ValueError: if the shape is none: not a tuple of at most 32 sizes, or larger than a
            machine; or if it is empty and yet so wide that a sum over its rows would not fit.
    """
    sizes = shape if type(shape) is tuple else ()
    if len(sizes) > 32 or type(shape) is not tuple:
        raise ValueError(f"an array's shape must be at most 32 whole numbers, got {shown(shape)}")
    if any(type(size) is not int or not 0 <= size < 1 << 63 for size in sizes):
        raise ValueError(f"an array's shape must be whole numbers, got {shown(list(sizes))}")
    if 0 in sizes and itemsize * math.prod(size for size in sizes if size) > EMPTY:
        raise ValueError("an array without rows must not be as wide as it is")
    return itemsize * math.prod(sizes)
