"""MultiBench's metrics, each scikit-learn's: truth and prediction to a number."""

from collections.abc import Iterable, Sequence

import numpy as np
import sklearn.metrics
from torch import Tensor


def ptsort(tu: Sequence) -> float:
    """Returns the first item, a key to sort pairs of score and label by."""
    return tu[0]


def AUPRC(pts: Iterable[Sequence]) -> float:  # MultiBench's name
    """Returns the area under the precision-recall curve, NaN if no label is 1.

    Args:
        pts: pairs of the score of class 1 and the label, 0 or 1.
    """
    scores, labels = zip(*((pair[0], int(pair[1])) for pair in pts), strict=True)
    if not any(labels):
        return float("nan")
    return float(sklearn.metrics.average_precision_score(labels, scores))


def f1_score(truth: Tensor, pred: Tensor, average: str | None) -> float:
    """Returns F1, a class that is neither there nor predicted counting as 0.

    Args:
        truth: labels (n,), or 0 and 1 (n, labels).
        pred: predictions of the same shape.
        average: "micro", "macro", "weighted", "binary" or "samples".
    """
    said, labels = _array(pred), _array(truth)
    return sklearn.metrics.f1_score(labels, said, average=average, zero_division=0)


def accuracy(truth: Tensor, pred: Tensor) -> float:
    """Returns the share of samples whose prediction is their label."""
    return sklearn.metrics.accuracy_score(_array(truth), _array(pred))


def eval_affect(
    truths: Tensor | np.ndarray, results: Tensor | np.ndarray, exclude_zero: bool = True
) -> float:
    """Returns how often a prediction is positive where its truth is, NaN of no samples.

    Args:
        truths: sentiment (n,) or (n, 1), negative to positive.
        results: predictions, as many.
        exclude_zero: leave out samples whose truth is 0, which otherwise count as not positive.
    """
    truth, result = _array(truths).reshape(-1), _array(results).reshape(-1)
    if len(truth) != len(result):
        raise ValueError(
            f"truths and results must be as many, one a sample, got {len(truth)} and {len(result)}"
        )
    kept = (truth != 0) | (not exclude_zero)
    if not kept.any():
        return float("nan")
    return float(((truth > 0) == (result > 0))[kept].mean())


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
