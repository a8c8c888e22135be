"""The X of an estimator as one view a modality, and which rows have which of them."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from .columns import as_view, present_rows

ALL = "all"  # the name of a matrix's single modality

Picked = dict[str, list[int]]
"""Name of a modality -> the numbers of its columns in a matrix."""


def pick_columns(X: Any, modalities: Mapping[str, Any] | None) -> Picked:
    """Returns the columns of each modality of a matrix or frame.

    Args:
        X: (rows, columns).
        modalities: name -> a slice, or the numbers, names or a mask of columns; None: one.

    Raises:
        ValueError: for columns that are not there, or none.
    """
    if modalities is None:
        return {ALL: list(range(X.shape[1]))}
    if not isinstance(modalities, Mapping) or not modalities:
        raise ValueError(
            'modalities must be a dict such as {"rna": slice(0, 200), "clinical": ["age"]}, got '
            f"{modalities!r}"
        )
    return {str(name): _numbers(X, name, chosen) for name, chosen in modalities.items()}


def _numbers(X: Any, name: str, chosen: Any) -> list[int]:
    width = X.shape[1]
    if isinstance(chosen, slice):
        numbers = list(range(*chosen.indices(width)))
    else:
        columns = np.atleast_1d(np.asarray(chosen, dtype=object if _named(chosen) else None))
        if columns.dtype == bool and len(columns) == width:
            columns = np.flatnonzero(columns)
        numbers = [_number(X, name, column) for column in columns.tolist()]
    if not numbers:
        raise ValueError(f"modality {name!r} must have a column, but {chosen!r} are none")
    return numbers


def _named(chosen: Any) -> bool:
    return isinstance(chosen, str) or any(isinstance(c, str) for c in chosen)


def _number(X: Any, name: str, column: Any) -> int:
    width = X.shape[1]
    if isinstance(column, str):
        known = list(map(str, getattr(X, "columns", ())))
        if column in known:
            return known.index(column)
        said = f"has none of that name ({known[:5]} ...)" if known else "is an array"
        raise ValueError(f"modality {name!r} must have columns of X, but {column!r}: X {said}")
    if isinstance(column, bool) or not isinstance(column, int) or not 0 <= column < width:
        raise ValueError(f"modality {name!r} must have columns from 0 to {width - 1}, got {column}")
    return column


def matrix_views(X: Any, picked: Picked) -> dict[str, Any]:
    """Returns each modality's columns of a matrix or frame."""
    if hasattr(X, "iloc"):
        return {name: X.iloc[:, numbers] for name, numbers in picked.items()}
    return {name: X[:, numbers] for name, numbers in picked.items()}


def dict_views(X: Mapping[str, Any], known: list[str] | None = None) -> dict[str, Any]:
    """Returns the views of a dict, checked; None for a modality that no row has.

    Args:
        X: name -> frame or array.
        known: names that it must have, in the order of the result; None: its own.

    Raises:
        ValueError: for other names, different numbers of rows, or no view at all.
    """
    if known is not None and set(X) != set(known):
        raise ValueError(
            f"X must have the modalities {known} that it was fitted with, got {list(X)}; give None "
            "for one that no row has"
        )
    names = list(X) if known is None else known
    views = {str(n): None if X[n] is None else as_view(X[n], str(n)) for n in names}
    lengths = {name: len(view) for name, view in views.items() if view is not None}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            "X must have a modality, and all of them the same rows, got rows "
            f"{lengths}; join the tables first, with rows of NaN for what is absent"
        )
    _check_order({name: view for name, view in views.items() if hasattr(view, "iloc")})
    if known is None and len(lengths) < len(views):
        raise ValueError("to fit, X must have a view of every modality, but one is None")
    return views


def _check_order(frames: Mapping[str, Any]) -> None:
    """Raises ValueError if two frames name the same rows in different orders."""
    for (one, first), (other, second) in combinations(frames.items(), 2):
        if _differ(first.index, second.index):
            raise ValueError(
                f"X must have the same rows in one order, but the index of {one} and of {other} "
                "say different ones; give them one order, as X[name].loc[index], or reset_index()"
            )


def check_told(views: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Raises ValueError if y, groups or weights have an index that names the rows of a view in
    another order.

    Args:
        views: name -> frame or array, of one order.
        told: name of an argument -> its values, or None.
    """
    frames = {name: view for name, view in views.items() if hasattr(view, "iloc")}
    for what, values in told.items():
        for name, frame in frames.items():
            if hasattr(values, "iloc") and _differ(frame.index, values.index):
                raise ValueError(
                    f"{what} must be in the order of X, but its index says another one than that "
                    f"of {name}; give it that order, as {what}.loc[X[{name!r}].index], or without "
                    f"an index, as {what}.to_numpy()"
                )


def _differ(mine: Any, theirs: Any) -> bool:
    """Says whether two indices name the same rows in different orders."""
    if mine.equals(theirs) or not (mine.is_unique and theirs.is_unique):
        return False
    return len(mine) == len(theirs) and bool(mine.isin(theirs).all())


def presence(views: Mapping[str, Any]) -> np.ndarray:
    """Returns (rows, modalities) bool: where a row has a cell that is not missing.

    Raises:
        ValueError: for a row without any modality.
    """
    rows = next(len(view) for view in views.values() if view is not None)
    nowhere = np.zeros(rows, bool)
    present = np.stack(
        [nowhere if view is None else present_rows(view) for view in views.values()], axis=1
    )
    empty = np.flatnonzero(~present.any(axis=1))
    if len(empty):
        raise ValueError(
            f"every row must have a modality, but {len(empty)} of {rows} have none, row {empty[0]} "
            "first; leave these rows out"
        )
    return present
