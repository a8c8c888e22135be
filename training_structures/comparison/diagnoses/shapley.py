"""Shapley values and interactions of a game of modalities, exactly, from its value for every set.

A set is a number whose bit i says whether modality i is in it; a game has a value for each of the
2^M sets, which may be arrays of any shape, such as the outputs of a model for every sample.
"""

from math import factorial

import numpy as np


def shapley(values: np.ndarray) -> np.ndarray:
    """Returns each modality's Shapley value, (M, ...); they sum to the whole minus nothing.

    phi_i = sum over S without i of |S|! (M - |S| - 1)! / M! [v(S + i) - v(S)] (Shapley, 1953).

    Args:
        values: (2^M, ...) of every set.

    Raises:
        ValueError: unless there is a value for each set.
    """
    count = _count(values)
    weights = [factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)]
    found = np.zeros((count, *values.shape[1:]))
    for i in range(count):
        for without in _sets(count, i):
            gain = values[without | 1 << i] - values[without]
            found[i] += weights[without.bit_count()] * gain
    return found


def interactions(values: np.ndarray) -> np.ndarray:
    """Returns the interactions of pairs, (M, M, ...), with main effects on the diagonal.

    Off the diagonal it is half the Shapley interaction index of a pair (Grabisch and Roubens,
    1999), phi_ij = sum over S without i and j of |S|! (M - |S| - 2)! / (2 (M - 1)!)
    [v(S + ij) + v(S) - v(S + i) - v(S + j)]; on it phi_ii = Shapley value - sum_j phi_ij. So a row
    sums to a modality's Shapley value, and of a game that adds up its modalities nothing is off
    the diagonal.

    Args:
        values: (2^M, ...) of every set.

    Raises:
        ValueError: unless there is a value for each set.
    """
    count = _count(values)
    found = np.zeros((count, count, *values.shape[1:]))
    for i in range(count):
        for j in range(i):
            both = 1 << i | 1 << j
            for s in _sets(count, i, j):
                size = s.bit_count()
                weight = factorial(size) * factorial(count - size - 2) / (2 * factorial(count - 1))
                more = values[s | both] + values[s] - values[s | 1 << i] - values[s | 1 << j]
                found[i, j] += weight * more
            found[j, i] = found[i, j]
    for i, own in enumerate(shapley(values)):
        found[i, i] = own - found[i].sum(axis=0)
    return found


def intershap(strengths: np.ndarray) -> float:
    """Returns the share of a model's behaviour that is interaction, InterSHAP (Wenderoth et al.,
    2024): 0 of an additive model, 1 where nothing works alone; NaN where nothing has an effect.

    Args:
        strengths: (M, M) absolute interactions and, on the diagonal, main effects.
    """
    main, pairs = float(np.trace(strengths)), float(np.triu(strengths, 1).sum())
    return pairs / (pairs + main) if pairs + main > 0 else float("nan")


def _count(values: np.ndarray) -> int:
    count = len(values).bit_length() - 1
    if count < 1 or len(values) != 1 << count:
        raise ValueError(
            f"a game must have a value for each of the 2^M sets of M modalities, got {len(values)}"
        )
    return count


def _sets(count: int, *without: int) -> list[int]:
    """Returns the sets that have none of these."""
    return [s for s in range(1 << count) if not any(s >> i & 1 for i in without)]
