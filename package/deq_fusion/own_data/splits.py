"""Train, valid and test parts of one's own rows: stratified, by group, and by the run alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import (
    GroupShuffleSplit,
    KFold,
    StratifiedKFold,
    train_test_split,
)

SMALL = 1000  # rows from which on fewer runs are enough
PARTS = 5  # of which one is test, one is valid, and three are train
DRAWS = 5  # of groups, of which the one is taken whose parts are most like the whole
FEW = 20  # groups below which they are too few to tell fusions apart, which is then said
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Splits:
    """Run number -> the sorted row numbers of (train, valid, test), 60/20/20 by default.

    Classes have the same shares in all parts, as nearly as they go, and no group is in two. Which
    groups are tested is drawn anew in every run: a split that is as even as can be (scikit-learn's
    StratifiedGroupKFold) tests the same groups in each, if there are few.

    Attributes:
        count: of the rows.
        classes: (rows,) names to stratify by, or None.
        groups: (rows,) names that parts must not share, or None.
        folds: of a cross-validation, of which each run tests one; after the last of them the rows
            are shuffled anew. None: every run is a fresh split.
        official: whether test is a set of its own; it then has no rows here.
    """

    count: int
    classes: np.ndarray | None = None
    groups: np.ndarray | None = None
    folds: int | None = None
    official: bool = False

    def __repr__(self) -> str:
        told = [f"{self.count} rows"]
        told += ["by class"] * (self.classes is not None) + ["by group"] * (self.groups is not None)
        told += [f"{self.folds} folds"] * (self.folds is not None)
        return f"Splits({', '.join(told + ['own test set'] * self.official)})"

    def __call__(self, run: int) -> Rows:
        """Returns the rows of a run.

        Raises:
            ValueError: if train lacks a class.
        """
        rest, test = np.arange(self.count), np.arange(0)
        if self.folds is not None:
            rest, test = self._fold(self.folds, run)
        elif not self.official:
            rest, test = self._cut(rest, 1 / PARTS, run)
        share = 1 / PARTS if self.official else 1 / (PARTS - 1)
        train, valid = self._cut(rest, share, run)
        self._check(train, run)
        return train, valid, test

    @property
    def runs(self) -> int:
        """The number of runs by default."""
        if self.folds is not None:
            return self.folds
        if self.count >= SMALL:
            return 5
        return 10 if self.official else 20

    def _fold(self, folds: int, run: int) -> tuple[np.ndarray, np.ndarray]:
        repeat, fold = divmod(run, folds)
        if self.groups is not None:  # GroupKFold would not shuffle
            draws = self._folds_of_groups(self.groups, folds, repeat)
            return min(draws, key=self._unevenness)[fold]
        options = {"n_splits": folds, "shuffle": True, "random_state": repeat}
        rows = np.arange(self.count)
        kind = KFold if self.classes is None else StratifiedKFold
        return list(kind(**options).split(rows, self.classes))[fold]

    def _folds_of_groups(
        self, groups: np.ndarray, folds: int, repeat: int
    ) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        """Yields draws of all folds."""
        rows = np.arange(self.count)
        names, group_of = np.unique(groups, return_inverse=True)
        for draw in range(DRAWS):
            splitter = KFold(folds, shuffle=True, random_state=DRAWS * repeat + draw)
            inside = [np.isin(group_of, held) for _, held in splitter.split(names)]
            yield [(rows[~held], rows[held]) for held in inside]

    def _unevenness(self, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        """Returns by how much the (kept, held out) rows differ in size from each other, and in
        the shares of classes from all of them; what lacks a class to learn from comes last."""
        sizes = [len(held) for _, held in parts]
        uneven = (max(sizes) - min(sizes)) / self.count
        if self.classes is None:
            return uneven
        for kept, held in parts:
            among = np.concatenate([kept, held])
            names, whole = np.unique(self.classes[among], return_counts=True)
            found = np.array([np.count_nonzero(self.classes[held] == name) for name in names])
            uneven += float(np.abs(found / max(len(held), 1) - whole / len(among)).sum())
            uneven += len(names) * np.count_nonzero(found == whole)
        return uneven

    def _cut(self, rows: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the sorted rows (kept, held out); about `share` of them are held out."""
        classes = None if self.classes is None else self.classes[rows]
        if self.groups is None:
            kept, held = train_test_split(
                rows, test_size=share, stratify=classes, random_state=seed
            )
            return np.sort(kept), np.sort(held)
        groups = self.groups[rows]
        count = len(np.unique(groups))
        if count < 2:
            raise ValueError(
                f"train and valid must have a group each, but run {seed} leaves them {count} in "
                "all; take more folds, or name a finer group"
            )
        splitter = GroupShuffleSplit(DRAWS, test_size=share, random_state=seed)
        draws = [(rows[kept], rows[held]) for kept, held in splitter.split(rows, groups=groups)]
        return min(draws, key=lambda parts: self._unevenness([parts]) + self._off(parts, share))

    def _off(self, parts: tuple[np.ndarray, np.ndarray], share: float) -> float:
        kept, held = parts
        return abs(len(held) / (len(kept) + len(held)) - share)

    def _check(self, train: np.ndarray, run: int) -> None:
        if self.classes is None:
            return
        lost = np.setdiff1d(self.classes, self.classes[train])
        if len(lost):
            raise ValueError(
                f"train must have a row of every class, but in run {run} it has none of "
                f"{lost[0]}, whose rows are in few groups; merge it with another class"
            )
