"""How well each column tells the target alone, as what was known only after the fact does.

A column is cut into bins, and each bin tells one answer, learnt from four fifths of the rows and
scored on the last, fifth by fifth; rows of one group are in one of them. The score is what a
comparison is judged by, balanced accuracy (of classes, and of each label) or R2 (of numbers). To
compare the two, it is counted from chance, 0, to perfect, 1: the column's *way*.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .blocks import WORDS, blocks
from .tables import View

TELLING = 1 / 3  # of the way, from which on a column alone is worth a word
LEAKING = 0.7  # of the way, from which on it may be the target in disguise
FOLDS = 5
LEAST_ROWS, MOST_ROWS = 300, 2000  # that are looked at, if there are so many
CELLS = 10_000_000  # that are looked at, so that it takes a second or two
MOST_BINS = WORDS  # of a column, besides that of missing cells
IN_BIN = 10  # rows, so that a bin's answer means something
IN_VALUE = 3  # rows on average, so that each value may have a bin
SHOWN = 5  # columns that a sentence names
BLOCK = 200  # columns that are looked at together


@dataclass(frozen=True)
class Alone:
    """A column that tells the target alone.

    Attributes:
        column: its name.
        table: where it is.
        measure: "balanced accuracy", or "R2".
        score: by it.
        way: how far that is from chance, 0, to perfect, 1.
    """

    column: str
    table: str
    measure: str
    score: float
    way: float

    def __str__(self) -> str:
        score = f"{self.score:.2f}" if self.measure == "R2" else f"{100 * self.score:.0f} %"
        return f"{self.column} of {self.table} ({score})"


def telling(
    views: Mapping[str, View],
    truth: np.ndarray,
    task: str,
    groups: np.ndarray | None = None,
) -> list[Alone]:
    """Returns the columns that go a third of the way from chance to perfect alone, the best first.

    Those are left out that are no better than the best of as many columns of noise might be. Of
    several labels or numbers, a column has the score of the one that it tells best.

    Args:
        views: the tables.
        truth: (rows,) classes, or (rows, outputs) labels or numbers.
        task: "classification", "multilabel" or "regression".
        groups: (rows,), or None.
    """
    rows = _looked_at(len(truth), sum(math.prod(view.shape[1:]) for view in views.values()))
    truth = truth[rows].reshape(len(rows), -1).astype(float)
    fold = _folds(len(rows), truth, task, None if groups is None else groups[rows])
    differing = [values for values in truth.T if len(np.unique(values)) > 1]
    if not differing:  # in the rows that are looked at
        return []
    found, looked = [], 0
    numbers = task == "regression"
    score, measure = (_r2, "R2") if numbers else (_balanced_accuracy, "balanced accuracy")
    for table, view in views.items():
        for names, block in blocks(view, BLOCK):
            bins = _bins(block[rows].T)
            each = [score(bins, fold, values) for values in differing]
            best = np.argmax([way for _, way, _ in each], axis=0)
            scores, ways, noise = (np.choose(best, list(kind)) for kind in zip(*each, strict=True))
            looked += len(names)
            found += [
                (Alone(name, table, measure, float(s), float(w)), float(n))
                for name, s, w, n in zip(names, scores, ways, noise, strict=True)
                if w >= TELLING
            ]
    chance = math.sqrt(2 * math.log(max(looked, 2)))  # of the best of so many normal numbers
    kept = [alone for alone, noise in found if alone.way > chance * noise]
    return sorted(kept, key=lambda alone: -alone.way)


def _looked_at(count: int, columns: int) -> np.ndarray:
    """Returns the numbers of the rows that are looked at: all of them, if there are few cells."""
    most = min(max(CELLS // columns, LEAST_ROWS), MOST_ROWS)
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _folds(count: int, truth: np.ndarray, task: str, groups: np.ndarray | None) -> np.ndarray:
    """Returns the fold of each row, (rows,): classes share out evenly, groups stay together."""
    order = np.random.default_rng(0).permutation(count)
    fold = np.empty(count, int)
    if groups is None:
        if task == "classification":
            order = order[np.argsort(truth[order, 0], kind="stable")]
        fold[order] = np.arange(count) % FOLDS
        return fold
    group, _ = pd.factorize(groups, use_na_sentinel=False)
    sizes = np.bincount(group)
    filled, home = np.zeros(FOLDS), np.empty(len(sizes), int)
    for number in np.argsort(-sizes, kind="stable"):  # the largest first, where there is most room
        home[number] = filled.argmin()
        filled[home[number]] += sizes[number]
    return home[group]


def _bins(columns: np.ndarray) -> np.ndarray:
    """Returns the bin of each cell, (columns, rows): a value each where there are few, else equal
    shares of the rows; equal cells are in one bin, and missing ones have the last."""
    width, count = columns.shape
    most = _bins_of(count)
    order = np.argsort(columns, axis=1)  # what is missing comes last
    ordered = np.take_along_axis(columns, order, 1)
    new = np.ones(ordered.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    there = ~np.isnan(ordered)
    values = np.cumsum(new, axis=1) - 1
    known = there.sum(axis=1, keepdims=True)
    distinct = (new & there).sum(axis=1, keepdims=True)
    first = np.maximum.accumulate(np.where(new, np.arange(count), 0), axis=1)
    shares = first * most // np.maximum(known, 1)
    alike = (distinct <= MOST_BINS) & (IN_VALUE * distinct <= known)
    few = np.where(alike, values, shares)
    found = np.empty((width, count), int)
    np.put_along_axis(found, order, np.where(there, few, MOST_BINS), 1)
    return found


def _bins_of(count: int) -> int:
    """Returns how many bins of equal shares so many rows have."""
    return int(np.clip(count // IN_BIN, 4, MOST_BINS))


def _sums(bins: np.ndarray, fold: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Returns how many rows, or the sum of their values, (columns, folds, bins)."""
    width = len(bins)
    cells = FOLDS * (MOST_BINS + 1)
    place = (np.arange(width)[:, None] * cells + fold * (MOST_BINS + 1) + bins).ravel()
    weights = None if values is None else np.broadcast_to(values, bins.shape).ravel()
    found = np.bincount(place, weights, minlength=width * cells)
    return found.reshape(width, FOLDS, MOST_BINS + 1)


Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(columns,) each: the score, its way from chance to perfect, and the way's standard error where
nothing is told."""


def _balanced_accuracy(bins: np.ndarray, fold: np.ndarray, classes: np.ndarray) -> Scored:
    """Returns the balanced accuracy of each column alone; a bin that was not there to learn from
    tells nothing."""
    names, sizes = np.unique(classes, return_counts=True)
    held = np.stack([_sums(bins, fold, 1.0 * (classes == name)) for name in names])
    known = held.sum(axis=2, keepdims=True) - held
    whole = known.sum(axis=3, keepdims=True)
    shares = known / np.maximum(whole, 1)  # so that every class counts the same
    told = np.where(shares.max(axis=0) > 0, shares.argmax(axis=0), -1)
    right = [(held[number] * (told == number)).sum(axis=(1, 2)) for number in range(len(names))]
    score = np.mean(np.stack(right) / sizes[:, None], axis=0)
    chance = 1 / len(names)
    variance = 2 * chance * (1 - chance) / sizes  # twice: a bin's rows are right or wrong together
    noise = math.sqrt(variance.sum()) / len(names) / (1 - chance)
    return score, (score - chance) / (1 - chance), np.full(len(score), noise)


def _r2(bins: np.ndarray, fold: np.ndarray, numbers: np.ndarray) -> Scored:
    """Returns the R2 of each column alone: a bin tells the mean of what was there to learn from."""
    numbers = (numbers - numbers.mean()) / (numbers.std() or 1)
    count, total = _sums(bins, fold), _sums(bins, fold, numbers)
    known, learnt = (x.sum(axis=1, keepdims=True) - x for x in (count, total))
    mean = learnt.sum(axis=2, keepdims=True) / known.sum(axis=2, keepdims=True)
    told = np.where(known > 0, learnt / np.maximum(known, 1), mean)
    gain = (2 * told * total - count * told**2).sum(axis=(1, 2))
    score = gain / len(numbers)  # of squares that are 1 a row
    noise = math.sqrt(5 * _bins_of(len(numbers))) / len(numbers)  # a fold learns from 4 / 5
    return score, score, np.full(len(score), noise)


def described(found: Sequence[Alone]) -> list[str]:
    """Returns a sentence on the best of the columns that tell the target alone, if any does."""
    if not found:
        return []
    best = ", ".join(map(str, found[:SHOWN]))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return [
        f"columns that alone go a third of the way from chance to perfect, or more, by "
        f"{found[0].measure} on rows held out: {best}{more}; was each known before the target?"
    ]
