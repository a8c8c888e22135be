"""The columns of a table as blocks of numbers, so that thousands of them are looked at together."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from .tables import View, words_of

WORDS = 32  # that have a number each; the rarer ones of a column share the last


def blocks(view: View, size: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields names and numbers (rows, k) of a few columns at a time, NaN where missing.

    Args:
        view: a table; of sequences each number of each step is a column.
        size: how many columns at a time, at most.
    """
    if isinstance(view, pd.DataFrame):
        words = words_of(view)
        numbers = view.drop(columns=words)
        names = [*numbers.columns, *words]
        codes = [_codes(view[name]) for name in words]
        values = np.column_stack([numbers.to_numpy(dtype=float), *codes])
    else:
        values = view.reshape(len(view), -1)
        places = (list(place) for place in np.ndindex(*view.shape[1:]))
        names = [f"column {str(place).strip('[]')}" for place in places]
    for start in range(0, len(names), size):
        yield names[start : start + size], values[:, start : start + size].astype(float)


def _codes(column: pd.Series) -> np.ndarray:
    """Returns numbers of words, the most frequent first."""
    rank = {word: number for number, word in enumerate(column.value_counts().index)}
    return column.map(rank).clip(upper=WORDS - 1).to_numpy(dtype=float)
