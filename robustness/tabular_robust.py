"""Noise for tables: entries that are lost, and neighbours that are exchanged.

Names, arguments and defaults are MultiBench's (Liang et al., 2021). Its results differ in two
points: what is swapped is exchanged (there one entry is copied over the other), and draws come
from a generator of their own.
"""

from typing import Any

import numpy as np

from .drawing import Seed, check_level


def add_tabular_noise(
    tests: Any,
    noise_level: float = 0.3,
    drop: bool = True,
    swap: bool = True,
    *,
    seed: Seed = None,
) -> np.ndarray:
    """Returns a table of which entries are lost, and then neighbours exchanged.

    Args:
        tests: (rows, columns), or (rows, columns, ...), whose entries are arrays; it is left as
            it is.
        noise_level: probability in [0, 1] of each, for every entry.
        drop: whether entries become 0, see `drop_entry`.
        swap: whether neighbours are exchanged, see `swap_entry`.
        seed: a seed, a generator, or None, see `drawing.Seed`.

    Raises:
        ValueError: for another level, or what has no rows and columns.
    """
    generator = np.random.default_rng(seed)
    noisy = _table(tests)
    if drop:
        noisy = drop_entry(noisy, noise_level, seed=generator)
    if swap:
        noisy = swap_entry(noisy, noise_level, seed=generator)
    return noisy


def drop_entry(data: Any, p: float, *, seed: Seed = None) -> np.ndarray:
    """Returns a table of which each entry is 0 with probability p.

    Args:
        data: (rows, columns, ...).
        p: the probability, in [0, 1].
        seed: see `drawing.Seed`.
    """
    noisy = _table(data)
    lost = np.random.default_rng(seed).random(noisy.shape[:2]) < check_level(p, "p")
    noisy[lost] = 0
    return noisy


def swap_entry(data: Any, p: float, *, seed: Seed = None) -> np.ndarray:
    """Returns a table whose neighbours in a row are exchanged, each pair with probability p.

    Pairs are met from left to right, so that an entry may travel: at p = 1 the first one ends as
    the last.

    Args:
        data: (rows, columns, ...).
        p: the probability, in [0, 1].
        seed: see `drawing.Seed`.
    """
    table = _table(data)
    rows, columns = table.shape[:2]
    # swaps[:, j]: columns j - 1 and j are exchanged; the first has none before it
    swaps = np.zeros((rows, columns + 1), dtype=bool)
    draws = np.random.default_rng(seed).random((rows, max(columns - 1, 0)))
    swaps[:, 1:columns] = draws < check_level(p, "p")
    # a run of swaps carries the entry before it to its end, and moves the others one to the left
    place = np.arange(columns)
    carried = np.maximum.accumulate(np.where(swaps[:, :-1], 0, place), axis=1)
    source = np.where(swaps[:, 1:], place + 1, carried)
    return table[np.arange(rows)[:, None], source]


def _table(data: Any) -> np.ndarray:
    """Returns a copy; raises ValueError unless it has rows and columns."""
    table = np.array(np.asarray(data))  # of a tensor, too
    if table.ndim < 2:
        raise ValueError(f"a table must be (rows, columns), got the shape {table.shape}")
    return table
