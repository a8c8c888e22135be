"""Scores of sentiment from -3 to 3, CMU-MOSI's and CMU-MOSEI's, as MultiBench computes them.

Of F1 MultiBench swaps prediction and truth, so that classes are weighted by how often they are
predicted; here it is how often they occur.
"""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor


def multiclass_acc(preds: ArrayLike, truths: ArrayLike) -> float:
    """Returns the share of predictions (n,) that round to what the truth (n,) rounds to."""
    return float(np.mean(np.round(np.asarray(preds)) == np.round(np.asarray(truths))))


def weighted_accuracy(test_preds_emo: ArrayLike, test_truth_emo: ArrayLike) -> float:
    """Returns the mean of the recalls of what is positive and what is not.

    Raises:
        ValueError: unless both occur in the truth.
    """
    predicted, true = np.asarray(test_preds_emo) > 0, np.asarray(test_truth_emo) > 0
    if true.all() or not true.any():
        raise ValueError(
            "weighted_accuracy needs truths that are positive and ones that are not, "
            f"got {int(true.sum())} positive of {true.size}"
        )
    return float((predicted[true].mean() + (~predicted[~true]).mean()) / 2)


def eval_mosei_senti_return(
    results: Tensor, truths: Tensor, exclude_zero: bool = False
) -> tuple[float, float, float, float, float]:
    """Returns the mean absolute error, correlation, accuracy of 7 classes, F1 and accuracy of 2.

    The two classes are positive and not; F1 is the mean over both, weighted by how often they
    occur. The seven are what rounding leaves, from -3 to 3.

    Args:
        results: predictions, of any shape.
        truths: of as many entries.
        exclude_zero: leave samples whose truth is 0 out of the two classes.
    """
    mae, corr, seven, _, f1, accuracy = _sentiment(results, truths, exclude_zero).values()
    return mae, corr, seven, f1, accuracy


def eval_mosei_senti(results: Tensor, truths: Tensor, exclude_zero: bool = False) -> None:
    """Prints what `eval_mosei_senti_return` returns, and the accuracy of 5 classes, -2 to 2."""
    for name, value in _sentiment(results, truths, exclude_zero).items():
        print(f"{name}: ", value)
    print("-" * 50)


def eval_mosi(results: Tensor, truths: Tensor, exclude_zero: bool = False) -> None:
    """Prints what `eval_mosei_senti` prints."""
    eval_mosei_senti(results, truths, exclude_zero)


def _sentiment(results: Tensor, truths: Tensor, exclude_zero: bool) -> dict[str, float]:
    """Returns the scores by the names that are printed, in that order."""
    predicted, true = (x.detach().reshape(-1).cpu().numpy() for x in (results, truths))
    if len(predicted) != len(true):
        raise ValueError(
            f"results and truths must have as many entries, got {len(predicted)} and {len(true)}"
        )
    counted = true != 0 if exclude_zero else np.ones(len(true), bool)
    if not counted.any():
        raise ValueError("exclude_zero=True needs a truth that is not 0, but all of them are")
    positive = true[counted] > 0, predicted[counted] > 0
    within = {k: [np.clip(x, -k, k) for x in (predicted, true)] for k in (2, 3)}
    return {
        "MAE": float(np.mean(np.abs(predicted - true))),
        "Correlation Coefficient": float(np.corrcoef(predicted, true)[0, 1]),
        "mult_acc_7": multiclass_acc(*within[3]),
        "mult_acc_5": multiclass_acc(*within[2]),
        "F1 score": float(f1_score(*positive, average="weighted")),
        "Accuracy": float(accuracy_score(*positive)),
    }
