"""The target of a prediction, as it was understood, and what follows from that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, r2_score, recall_score
from sklearn.utils.multiclass import type_of_target
from torch import Tensor

from deq_fusion.training_structures import metrics
from deq_fusion.training_structures.choices import TASKS
from deq_fusion.training_structures.comparison import Score

MOST_CLASSES = 20  # of whole numbers; more of them may as well be amounts
SPREAD = 1e16  # of amounts, at most, and one over it at least
KINDS = {  # scikit-learn's word -> ours
    "binary": "classification",
    "multiclass": "classification",
    "multilabel-indicator": "multilabel",
    "continuous": "regression",
    "continuous-multioutput": "regression",
}


@dataclass(frozen=True, eq=False)
class Target:
    """A target as it was understood: the task, its classes, its objective and its metrics.

    `Target.of(y)` makes one. Truths are tensors: classes (rows,) int64, several labels (rows,
    labels) of 0 and 1, or numbers (rows, outputs), float32. Outputs of a network are logits, or
    numbers in the target's own units.

    Attributes:
        task: "classification", "multilabel" or "regression".
        outputs: how many numbers a network has to give: classes, labels, or values.
        classes: the classes, sorted, as they were given; None of another task.
        names: of the labels, or of the values; None of a single one or of an array.
        flat: whether y had one dimension, so that predictions have.
        described: a sentence that says how it was understood.
    """

    task: str
    outputs: int
    classes: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    flat: bool = True
    described: str = ""

    @classmethod
    def of(cls, y: Any, task: str | None = None) -> "Target":
        """Returns the target that y is, by scikit-learn's `type_of_target`.

        Args:
            y: (rows,) classes or numbers, or (rows, k) several labels of 0 and 1, or numbers.
            task: what it is, where that is not to be guessed.

        Raises:
            ValueError: for values that are missing or infinite, one class alone, whole numbers
                with more than 20 values and no task, or a y that does not suit the task.
        """
        if task not in (None, *TASKS):
            raise ValueError(f"task must be one of {list(TASKS)}, got {task!r}")
        names = _names(y)
        values = as_target(y)
        if values.ndim == 2:
            _check_columns(values, names)
        kind = _kind(values, task)
        flat = values.ndim == 1
        if kind == "classification":
            classes, counts = _classes(values)
            return cls(kind, len(classes), classes, described=_counted(classes, counts))
        if kind == "multilabel":
            shares = values.astype(float).mean(axis=0)
            said = f"{len(shares)} labels, each there or not: {shares.mean():.0%} of them are"
            return cls(kind, values.shape[1], names=names, flat=False, described=said)
        numbers = _numbers(values)
        outputs = 1 if flat else numbers.shape[1]
        low, high = numbers.min(), numbers.max()
        what = "a number" if outputs == 1 else f"{outputs} numbers"
        said = f"regression of {what} between {low:.4g} and {high:.4g}"
        return cls(kind, outputs, names=names, flat=flat, described=said)

    def encode(self, y: Any) -> Tensor:
        """Returns y as the truth that the objective and the metrics take.

        Raises:
            ValueError: for a class that is none of `classes`, or another number of columns.
        """
        values = as_target(y)
        if self.task == "classification":
            values = values.reshape(-1)
            known = np.isin(values, self.classes)
            if not known.all():
                raise ValueError(
                    f"classes must be those known, {_shown(self.classes)}, but "
                    f"{values[~known].tolist()[0]!r} is new"
                )
            return torch.from_numpy(np.searchsorted(self.classes, values).astype(np.int64))
        columns = values.reshape(len(values), -1)
        if columns.shape[1] != self.outputs:
            raise ValueError(f"y must have {self.outputs} columns, got shape {tuple(values.shape)}")
        return torch.from_numpy(_numbers(columns).astype(np.float32))

    def units(self, truth: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns the mean and spread (outputs,) of the truths to learn from; None unless these
        are amounts.

        Raises:
            ValueError: for a spread whose square no float32 holds.
        """
        if self.task != "regression":
            return None
        spread = truth.double().std(dim=0, correction=0)
        wrong = spread[(spread > 0) & ((spread < 1 / SPREAD) | (spread > SPREAD))]
        if len(wrong):
            raise ValueError(
                f"y must spread by {1 / SPREAD:g} to {SPREAD:g}, so that float32 holds squares of "
                f"it, but does by {wrong[0]:.3g}; give it in other units"
            )
        spread = torch.where(spread > 0, spread, 1.0)
        return truth.double().mean(dim=0).float(), spread.float()

    @property
    def objective(self) -> Callable[..., Tensor]:
        """The loss: (output, truth, weight) -> scalar. Each entry's loss counts `weight` times."""
        return OBJECTIVES[self.task]

    def metrics(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns named numbers of a whole part, those that `scores` names among them."""
        if self.task == "classification":
            return metrics.classification(output, truth) | self._recalls(output, truth)
        if self.task == "multilabel":
            each = f1_score(truth > 0, output > 0, average=None, zero_division=0)
            each = dict(zip(self._prefixed("f1"), map(float, each), strict=True))
            return metrics.multilabel(output, truth) | each
        errors = metrics.regression(output, truth)
        many = len(truth) > 1
        return {"r2": float(r2_score(truth, output)) if many else float("nan")} | errors

    @property
    def scores(self) -> list[Score]:
        """The scores that tables show, first of all the one that is compared by."""
        if self.task == "classification":
            return [Score(n) for n in ("balanced_accuracy", "accuracy", "f1_macro", "auc")]
        if self.task == "multilabel":
            return [Score("f1_macro"), Score("f1_micro")]
        plain = [Score("r2", percent=False), Score("mae", percent=False, lower=True)]
        return [*plain, Score("corr", percent=False)]

    def predict(self, output: Tensor) -> np.ndarray:
        """Returns an output as y was given: (rows,) classes or numbers, (rows, k) 0 and 1, ..."""
        output = output.detach().cpu()
        if self.task == "classification":
            return self.classes[output.argmax(dim=1).numpy()]
        if self.task == "multilabel":
            return (output > 0).numpy().astype(np.int64)
        numbers = output.double().numpy()
        return numbers[:, 0] if self.flat else numbers

    def probabilities(self, output: Tensor) -> np.ndarray:
        """Returns the probability (rows, classes), or (rows, labels), of each.

        Raises:
            ValueError: of numbers, which have none.
        """
        if self.task == "regression":
            raise ValueError("a regression has no probabilities, only predictions")
        output = output.detach().cpu().double()
        one = self.task == "classification"
        return (output.softmax(dim=1) if one else output.sigmoid()).numpy()

    def state(self) -> dict[str, Any]:
        """Returns what `of_state` makes an equal one of: text, numbers and lists."""
        classes = None
        if self.classes is not None:
            classes = [str(self.classes.dtype), self.classes.tolist()]
        return {
            "task": self.task,
            "outputs": self.outputs,
            "classes": classes,
            "names": None if self.names is None else list(self.names),
            "flat": self.flat,
            "described": self.described,
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> "Target":
        """Returns what `state` was of."""
        classes, names = state["classes"], state["names"]
        if classes is not None:
            classes = np.array(classes[1], dtype=np.dtype(classes[0]))
        names = None if names is None else tuple(names)
        return cls(
            state["task"], state["outputs"], classes, names, state["flat"], state["described"]
        )

    def _recalls(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns the share of each class that was found, and the mean over those there are."""
        guess, labels = output.argmax(dim=1).numpy(), truth.numpy()
        each = recall_score(
            labels, guess, labels=range(self.outputs), average=None, zero_division=np.nan
        )
        balanced = {"balanced_accuracy": float(np.nanmean(each))}
        return balanced | dict(zip(self._prefixed("recall"), map(float, each), strict=True))

    def _prefixed(self, score: str) -> list[str]:
        """Returns the names of a score of each class, or of each label."""
        names = self.names if self.classes is None else self.classes.tolist()
        return [f"{score} {name}" for name in (names or range(self.outputs))]


def as_target(y: Any) -> np.ndarray:
    """Returns y as an array, (rows,) or (rows, columns), without a missing value.

    Raises:
        ValueError: for other shapes, no row, or values that are missing.
    """
    if hasattr(y, "toarray"):  # scikit-learn's form of many labels
        y = y.toarray()
    if type(y).__module__.startswith("polars"):
        y = y.to_pandas()
    if getattr(getattr(y, "dtype", None), "kind", "") == "O" or not hasattr(y, "to_numpy"):
        values = np.asarray(y)
    else:
        values = y.to_numpy()
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise ValueError(
            "y must have a row for each sample, and one column or more, but has shape "
            f"{tuple(values.shape)}"
        )
    if values.dtype.kind in "mM":
        raise ValueError(f"y must hold labels or numbers, but holds {values.dtype}; convert them")
    missing = values != values if values.dtype.kind in "fcO" else np.zeros(values.shape, bool)
    if values.dtype.kind == "O":
        missing = missing | np.equal(values, None)
    if missing.any():
        rows = np.flatnonzero(missing.reshape(len(values), -1).any(axis=1))
        raise ValueError(
            f"y must have a value in every row, but Input y contains NaN or None in {len(rows)} "
            f"of {len(values)} rows, first in row {rows[0]}; leave these rows out"
        )
    return values


def _kind(values: np.ndarray, task: str | None) -> str:
    """Returns the task; refuses values that do not suit it, or leave it open."""
    if values.dtype.kind in "fc" and not np.isfinite(values).all():
        raise ValueError("y must be finite, but Input y contains infinity")
    try:
        with np.errstate(invalid="ignore"):  # of numbers too large to be whole
            found = type_of_target(values, raise_unknown=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"y must hold labels of one kind, or numbers, but does not: {error}"
        ) from error
    if task == "regression":
        return task
    if found == "multiclass-multioutput" or (task == "multilabel" and found not in KINDS):
        raise ValueError(
            "y of several columns must hold 0 and 1 (labels), or numbers with a fraction or "
            'task="regression", but holds whole numbers'
        )
    known = KINDS[found]
    if task is not None and known != task:
        raise ValueError(
            f"y must suit {task}. Unknown label type: {found}; that is {known}: use that, or "
            "turn y into labels"
        )
    whole = values.dtype.kind in "iuf" and known == "classification"
    count = len(np.unique(values)) if whole else 0
    if task is None and count > MOST_CLASSES:
        raise ValueError(
            f"y must be classes or amounts, but its {count} whole numbers could be either; say "
            'task="classification" or task="regression"'
        )
    return known


def _check_columns(values: np.ndarray, names: tuple[str, ...] | None) -> None:
    """Raises ValueError for a column of several that holds words, as ids do."""
    for number, column in enumerate(values.T):
        try:
            column.astype(float)
        except (TypeError, ValueError):
            name = number if names is None else repr(names[number])
            raise ValueError(
                "y of several columns must hold labels 0 and 1, or numbers, but its column "
                f"{name} holds words, such as {column[0]!r}; take the one that is to be predicted, "
                "and leave out an id"
            ) from None


def _classes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        classes, counts = np.unique(values, return_counts=True)
    except TypeError as error:
        raise ValueError(
            "classes must be all text or all numbers, but are both; turn them into text"
        ) from error
    if len(classes) < 2:
        raise ValueError(
            f"y must have two classes at least, but has one class alone, {classes.tolist()[0]!r}; "
            "there is nothing to tell apart"
        )
    return classes, counts


def _numbers(values: np.ndarray) -> np.ndarray:
    try:
        numbers = values.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y must hold numbers, but does not: {error}") from error
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():
        raise ValueError("y must be finite in float32, up to 3.4e38, but Input y has infinity")
    return numbers


def _names(y: Any) -> tuple[str, ...] | None:
    columns = getattr(y, "columns", None)
    return None if columns is None else tuple(map(str, columns))


def _counted(classes: np.ndarray, counts: np.ndarray) -> str:
    pairs = [f"{c} ({n})" for c, n in zip(classes.tolist(), counts, strict=True)]
    more = f" and {len(pairs) - 10} more" if len(pairs) > 10 else ""
    return f"classification into {len(pairs)} classes: {', '.join(pairs[:10])}{more}"


def _shown(classes: Sequence[Any]) -> str:
    return f"{classes[:10].tolist()}" + (" and more" if len(classes) > 10 else "")


def class_loss(output: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (rows, classes) and classes (rows,), each row `weight` times."""
    losses = F.cross_entropy(output, truth, reduction="none")
    return losses.mean() if weight is None else (losses * weight).mean()


def label_loss(output: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of logits and labels, both (rows, labels), each row `weight` times."""
    losses = F.binary_cross_entropy_with_logits(output, truth, reduction="none").mean(dim=1)
    return losses.mean() if weight is None else (losses * weight).mean()


def number_loss(output: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Squared error of (rows, outputs), each entry `weight`, of that shape or (rows, 1), times."""
    losses = (output - truth).square()
    return losses.mean() if weight is None else (losses * weight).mean()


OBJECTIVES = {"classification": class_loss, "multilabel": label_loss, "regression": number_loss}
