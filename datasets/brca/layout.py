"""Checks of MOGONET's files: no header and no index of numbers is taken for patients or features.

Nothing in a file of plain numbers says what they are. A line of column numbers would be one more
patient, and a column that counts the patients one more feature, which tells the classes apart
wherever the rows lie by class. Features that look like either are next to impossible.
"""

import hashlib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FEWEST_ROWS = 4  # of the train part: fewer may count by chance
SURELY_A_HEADER = 5  # columns
NUMBER = re.compile("0|[1-9][0-9]*")


def find_views(folder: Path) -> list[int]:
    """Returns the numbers of the views in the folder, ascending, by `1_tr.csv` or `1_te.csv`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a number is written otherwise than 1, 2, ...: as 01, or in another script.
    """
    found = set()
    for path in folder.glob("*_t[re].csv"):
        name = path.name.removesuffix("_tr.csv").removesuffix("_te.csv")
        if name.isdigit() and not NUMBER.fullmatch(name):
            raise ValueError(
                f"views in {folder} must be numbered 1, 2, ..., got {ascii(path.name)}; rename it"
            )
        if name.isdigit():
            found.add(int(name))
    if not found:
        raise FileNotFoundError(f"no file 1_tr.csv in the folder {folder}; {advice(folder)}")
    return sorted(found)


def advice(folder: Path) -> str:
    """Returns how to get the files."""
    return f"get it with: deq-fusion prepare brca --data-dir {folder}"


def check_header(table: np.ndarray, path: Path) -> None:
    """Refuses a table whose first line numbers the columns, from 0 or from 1.

    Warns only, if there are few columns and all values are whole, as of mutations.

    Raises:
        ValueError: says to take the line out.
    """
    first, columns = table[0], np.arange(table.shape[1])
    if len(columns) == 1 or not (_same(first, columns) or _same(first, columns + 1)):
        return
    told = (
        f"the first line of {path} numbers the columns, {first[0]:g} to {first[-1]:g}, as a header "
        "does; if it is one, take it out. If it is a patient, exchange it for another line"
    )
    if len(columns) >= SURELY_A_HEADER or not _whole(table[1:]).all():
        raise ValueError(told)
    if len(columns) > 2:
        warnings.warn(told, UserWarning, stacklevel=2)


def check_index(train: np.ndarray, test: np.ndarray, where: str) -> None:
    """Refuses a view whose first or last column counts the patients, in any order.

    It does if it holds n numbers in a row, each once, in train or in both parts joined; unless
    every column does, as ranks do. Warns if it alone among all columns holds whole numbers, all
    different, as ids do.

    Raises:
        ValueError: says to take the column out.
    """
    if len(train) < FEWEST_ROWS or train.shape[1] < 2:
        return
    for name, column in (("first", 0), ("last", -1)):
        values = np.concatenate([train[:, column], test[:, column]])
        counts = _counts(values, len(train))
        if not counts and not (_whole(values).all() and _all_differ(values)):
            continue
        both = np.concatenate([train, test])
        varying = both[:, (both != both[0]).any(axis=0)].T
        if all(_counts(other, len(train)) for other in varying):
            continue
        if counts:
            raise ValueError(
                f"the {name} column of {where} counts the rows, and looks like an index; take it "
                "out. If it is a feature, divide it by the number of patients"
            )
        if sum(_whole(other).all() for other in varying) == 1:
            warnings.warn(
                f"the {name} column of {where} has another whole number for every patient, and no "
                "other column is whole: if it holds patients' numbers, take it out",
                UserWarning,
                stacklevel=2,
            )


def _counts(values: np.ndarray, train_count: int) -> bool:
    """Whether train's values, or all, are numbers in a row, each once, in any order."""
    return any(
        _whole(part).all() and np.ptp(part) == len(part) - 1 and _all_differ(part)
        for part in (values[:train_count], values)
    )


def _all_differ(values: np.ndarray) -> bool:
    return len(np.unique(values)) == len(values)


def _whole(values: np.ndarray) -> np.ndarray:
    return values == np.floor(values)


def _same(values: np.ndarray, others: np.ndarray) -> bool:
    return bool((values == others).all())


def check_labels(labels: np.ndarray, path: Path) -> None:
    """Raises a ValueError if (rows, columns) float64 are no classes, 0, 1, ..., one a line."""
    if labels.shape[1] > 1:
        raise ValueError(
            f"{path} must hold one integer >= 0 a line, got {labels.shape[1]} columns; leave out "
            "any but the classes"
        )
    good = (labels[:, 0] >= 0) & (labels[:, 0] < 2**24) & (labels[:, 0] % 1 == 0)
    if not good.all():
        row = np.flatnonzero(~good)[0]
        raise ValueError(
            f"{path} must hold one integer >= 0 a line, as 3 or 3.0, and below 16,777,216; label "
            f"{row + 1} is {float(labels[row, 0])!r}; get it again"
        )
    if len(labels) >= FEWEST_ROWS and len(np.unique(labels)) == len(labels):
        raise ValueError(
            f"{path} has another class on each of its {len(labels)} lines, as an index does; it "
            "must hold the classes"
        )


def warn_of_copies(views: Sequence[np.ndarray], train_count: int, folder: Path) -> None:
    """Warns of test patients whose rows are, in all views, those of a train patient."""
    rows = [
        hashlib.blake2b(b"".join(view[row].tobytes() for view in views)).digest()
        for row in range(len(views[0]))
    ]
    known = set(rows[:train_count])
    if copies := sum(row in known for row in rows[train_count:]):
        warnings.warn(
            f"{copies} of the {len(rows) - train_count} test patients in {folder} have the rows of "
            "a train patient in all views: test scores are too good by them",
            UserWarning,
            stacklevel=2,
        )
