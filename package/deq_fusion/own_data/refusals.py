"""Refusals of data that no comparison can be made of, and warnings of what spoils one.

Refused: too few rows, classes or groups. Warned of: a column that is the same everywhere, one that
goes far towards the target on its own, as what was known only after the fact does, and one whose
words may name groups.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from ..target import Target
from .alone import LEAKING, Alone
from .blocks import blocks
from .splits import PARTS
from .tables import View

ROWS = 30  # the fewest that are compared on
EACH = 5  # rows of every class: one for each part of the splits
NAMED = 3  # columns that a warning names
MANY = 10  # words, and a twentieth of the rows, from which on a column may name groups
CALLED = re.compile(  # how columns are called that name groups
    r"(?<![a-z])(id|patient|subject|participant|person|donor|animal|family|user|customer|speaker|"
    r"video|group|site|hospital|clinic|ward|cent(er|re)|batch|plate|session)(?![a-z])",
    re.IGNORECASE,
)
BLOCK = 1000  # columns that are looked at together


class Leak(UserWarning):
    """A column alone goes far towards the target."""


class MayBeGroups(UserWarning):
    """A column may tell which rows belong together, and no groups were named."""


def check_rows(target: Target, truth: np.ndarray) -> None:
    """Raises ValueError for fewer than ROWS rows, or EACH of a class, or one number alone."""
    if len(truth) < ROWS:
        raise ValueError(
            f"there must be at least {ROWS} rows to train and to score on, got {len(truth)}; get "
            "more, for nothing could be told from these"
        )
    if target.task == "regression" and (truth == truth[0]).all():
        raise ValueError(
            f"y must differ between rows to be predicted, but is {truth.flat[0]:g} in all of them"
        )
    target.units(torch.from_numpy(truth))  # which refuses some
    if target.task != "classification":
        return
    counts = np.bincount(truth, minlength=target.outputs)
    if counts.min() < EACH:
        raise ValueError(
            f"every class must have at least {EACH} rows, so that each part has one, got "
            f"{counts.min()} of {target.classes[counts.argmin()]}; leave its rows out, or merge it "
            "with another class"
        )


def check_groups(groups: np.ndarray, classes: np.ndarray | None, folds: int | None) -> None:
    """Raises ValueError for missing groups, or fewer than there are parts or folds."""
    missing = pd.isna(groups)
    if missing.any():
        raise ValueError(
            f"groups must be known of every row, but {missing.sum()} rows have none, first row "
            f"{np.flatnonzero(missing)[0]}; fill them in, or name a file that has them all"
        )
    groups = groups.astype(str)
    count, needed = len(np.unique(groups)), max(PARTS, folds or 0)
    if count < needed:
        raise ValueError(
            f"there must be at least {needed} groups, so that no part shares one with another, got "
            f"{count}; name a finer one{', or take fewer folds' * (needed > PARTS)}"
        )
    for name in [] if classes is None else np.unique(classes):
        of_class = len(np.unique(groups[classes == name]))
        if of_class < 3:
            raise ValueError(
                "every class must be in at least 3 groups, one for each part, but "
                f"{name} is in {of_class}; merge it with another class, or name a finer group"
            )


def check_folds(folds: int, count: int, classes: np.ndarray | None) -> None:
    """Raises ValueError for a number of folds that the rows do not have."""
    most = count if classes is None else int(np.unique(classes, return_counts=True)[1].min())
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= most:
        raise ValueError(
            f"folds must be a number from 2 to {most}, the rows"
            f"{' of the rarest class' * (classes is not None)}, got {folds!r}"
        )


def check_weights(weights: np.ndarray) -> np.ndarray:
    """Returns the weights as floats; raises ValueError unless all are finite and none negative."""
    try:
        found = np.asarray(weights, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights must be numbers, but are not: {error}") from error
    wrong = ~(np.isfinite(found) & (found >= 0))
    if wrong.any() or not found.sum() > 0:
        row = int(wrong.argmax())
        raise ValueError(
            f"weights must be finite, not negative and not all 0, got {found[row]:g} in row {row}; "
            "a row that is not to count has 0"
        )
    return found


def warn_of_constants(views: Mapping[str, View]) -> list[str]:
    """Warns of columns that are the same in all rows, and returns what it said."""
    found = []
    for table, view in views.items():
        for names, block in blocks(view, BLOCK):
            there = ~pd.isna(block)
            low, high = (
                np.where(there, block, np.inf).min(0),
                np.where(there, block, -np.inf).max(0),
            )
            constant = ~there.any(0) | ((low == high) & there.all(0))
            found += [f"{names[i]} of {table}" for i in np.flatnonzero(constant)]
    return _warned(
        UserWarning,
        found,
        "a column must differ between rows to teach anything, but {} "
        f"{'does' if len(found) == 1 else 'do'} not; leave it out (drop, --drop COLUMN)",
    )


def warn_of_leaks(told: Sequence[Alone], allow: Sequence[str] = ()) -> list[str]:
    """Warns of columns that alone go far towards the target, but for those that are allowed, and
    returns what it said.

    Args:
        told: what `telling` found.
        allow: columns that are known to be fine.
    """
    if not told:
        return []
    found = [str(a) for a in told if a.way >= LEAKING and a.column not in allow]
    return _warned(
        Leak,
        found,
        f"THE TARGET MAY LEAK: no column should go {100 * LEAKING:.0f} % of the way from chance to "
        f"perfect alone, but by {told[0].measure} {{}} "
        f"{'does' if len(found) == 1 else 'do'}; leave it out (drop, --drop COLUMN) if it is known "
        "only with the target, or say that it is fine (allow, --allow COLUMN)",
    )


def warn_of_groups(
    views: Mapping[str, View],
    beside: Mapping[str, np.ndarray],
    groups: np.ndarray | None = None,
) -> list[str]:
    """Warns of columns that may name groups, as of patients with several samples each, and
    returns what it said.

    Suspected are words that come again, if there are many; and whole numbers that do, if the
    column is called as groups are. Of what stands beside the target, which is no feature, a few
    are enough if it is called so. Where groups are named, a column whose every value is in one of
    them, as a patient in a hospital, splits no rows; it is warned of if it is a feature.

    Args:
        views: the tables.
        beside: the other columns of the target's file.
        groups: (rows,) those that are named, if any.
    """
    apart, inside, drops = [], [], False
    for place, column, feature in _suspects(views, beside):
        if groups is None or not _is_inside(column, groups):
            apart.append(place)
            drops |= feature
        elif feature:
            inside.append(place)
    out = "leave it out (drop, --drop COLUMN) or say that it is a feature"
    other = "say that it names none"
    text = "then say so (groups, --group COLUMN)"
    if groups is not None:
        text = "the groups that are named do not keep its rows together: name it (groups, --group "
        text += "COLUMN) if it should"
    return _warned(
        MayBeGroups,
        apart,
        f"rows of one group must not be in two parts, and {{}} may name groups: {text}; else "
        f"{out if drops else other} (allow, --allow COLUMN)",
    ) + _warned(
        MayBeGroups,
        inside,
        "a feature must be known of new groups, too, and {} may name groups within those that "
        f"are named, of which a model learns by heart: {out} (allow, --allow COLUMN)",
    )


def _suspects(
    views: Mapping[str, View], beside: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, pd.Series, bool]]:
    """Yields of each column that may name groups in words where it is, itself, and whether it is
    a feature."""
    frames = {name: view for name, view in views.items() if isinstance(view, pd.DataFrame)}
    for table, frame in frames.items():
        for name, column in frame.items():
            if what := _repeated(name, column, feature=True):
                yield f"{name} of {table} ({what})", column, True
    for name, values in beside.items():
        column = pd.Series(values)
        if what := _repeated(name, column, feature=False):
            yield f"{name} beside the target ({what})", column, False


def _is_inside(column: pd.Series, groups: np.ndarray) -> bool:
    """Says whether all rows of each of a column's values are in one group."""
    return bool(pd.Series(groups).groupby(column.to_numpy()).nunique().max() <= 1)


def _repeated(name: str, column: pd.Series, *, feature: bool) -> str | None:
    """Returns in words how often a column's values come again, if it may name groups."""
    called = CALLED.search(re.sub("(?<=[a-z])(?=[A-Z])", "_", name)) is not None
    there = column.dropna().infer_objects()
    numbers = pd.api.types.is_numeric_dtype(there)
    if numbers and not (called and (there.astype(float) % 1 == 0).all()):
        return None
    rows, count = len(there), there.nunique()
    enough = PARTS if called and not feature else max(MANY, rows / 20)
    if not enough <= count < rows:
        return None
    return f"{count} {'numbers' if numbers else 'words'} in {rows} rows"


def _warned(kind: type[Warning], found: Sequence[str], text: str) -> list[str]:
    """Warns of what was found, if anything was, and returns the sentence."""
    if not found:
        return []
    sentence = text.format(_listed(found))
    warnings.warn(sentence, kind, stacklevel=5)  # whoever calls own_data
    return [sentence]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
