"""Metrics of a whole set: (prediction, truth) on the CPU to named numbers, undefined ones NaN.

A truth that a metric cannot score is a ValueError that names its rows.
"""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from sklearn import config_context
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)
from torch import Tensor

from .labels import IGNORED, as_labels, check_classes, check_finite, refuse
from .objectives import check_same_entries


def classification(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns accuracy and F1 of logits (n, classes) against labels (n,) or (n, 1).

    With two classes there is also `auc`, the area under the ROC curve of class 1. Samples with
    the label -100, which torch's losses ignore, are left out, with a warning.
    """
    prediction, labels = _labelled(prediction, truth)
    guess = prediction.argmax(dim=1).numpy()
    with config_context(skip_parameter_validation=True):  # every epoch asks for it
        *_, f1, counts = precision_recall_fscore_support(labels, guess, zero_division=0)
    scores = {
        "accuracy": float((labels == guess).mean()),
        "f1_weighted": float(np.average(f1, weights=counts)),
        "f1_macro": float(np.average(f1)),
    }
    if prediction.shape[1] == 2:
        both = len(np.unique(labels)) == 2
        scores["auc"] = float(roc_auc_score(labels, _second(prediction))) if both else float("nan")
    return scores


def average_precision(prediction: Tensor, truth: Tensor) -> float:
    """Returns the area under the precision-recall curve of class 1, from logits (n, 2)."""
    prediction, labels = _labelled(prediction, truth)
    if prediction.shape[1] != 2:
        raise ValueError(
            f"average precision takes logits of two classes, (n, 2), got {tuple(prediction.shape)}"
        )
    if not labels.any():
        return float("nan")
    return float(average_precision_score(labels, _second(prediction)))


def multilabel(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns F1 of logits (n, labels) against 0 or 1; a positive logit is a probability > 1/2."""
    prediction = _finite(prediction)
    if prediction.dim() != 2 or prediction.shape != truth.shape:
        raise ValueError(
            "prediction and truth must both have shape (n, labels), "
            f"got {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    refuse((truth != 0) & (truth != 1), truth, "the truth of several labels must be 0 or 1")
    guess, labels = (prediction > 0).numpy(), (truth > 0).numpy()
    return {
        f"f1_{average}": float(f1_score(labels, guess, average=average, zero_division=0))
        for average in ("micro", "macro")
    }


def regression(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns the errors and Pearson's correlation, over all entries."""
    check_same_entries(prediction, truth)
    check_finite(truth)
    guess, labels = _finite(prediction).double().flatten(), truth.double().flatten()
    error = guess - labels
    centred = torch.stack([guess - guess.mean(), labels - labels.mean()])
    spread = centred.norm(dim=1).prod()
    varied = guess.max() > guess.min() and labels.max() > labels.min() and spread > 0
    return {
        "mse": float(error.square().mean()),
        "mae": float(error.abs().mean()),
        "corr": float(centred.prod(dim=0).sum() / spread) if varied else float("nan"),
    }


def posneg(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns how often the first column is positive where the truth is, without and with zeros."""
    if len(prediction) != len(truth) or truth.numel() != len(truth):
        raise ValueError(
            "prediction and truth must have shape (n, ...) and (n,) or (n, 1), "
            f"got {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    check_finite(truth)
    guess, labels = _finite(prediction).reshape(len(truth), -1)[:, 0], truth.reshape(len(truth))
    right = ((guess > 0) == (labels > 0)).double()
    return {"accuracy_nonzero": float(right[labels != 0].mean()), "accuracy": float(right.mean())}


def sentiment(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns what is reported of sentiment in [-3, 3] (CMU-MOSI): n predictions, n truths.

    - `mae`, `corr`: mean absolute error and Pearson's correlation.
    - `acc7`: equal when clipped to [-3, 3] and rounded, halves to the even neighbour.
    - `acc2`, `f1`: positive (> 0) against the rest, over all samples, as CM-BERT has it (Yang et
      al., 2020): a truth of 0 counts as negative.
    - `acc2_nonzero`, `f1_nonzero`: the same without the samples whose truth is 0, as MulT's
      script has it (Tsai et al., 2019).
    - `acc2_nonnegative`, `f1_nonnegative`: >= 0 against the rest, over all samples, as MFN
      has it (Zadeh et al., 2018): 0 counts as positive, in the truth and in the prediction.
    - `f1_swapped`, `f1_nonzero_swapped`: to compare with published figures only. The released
      codes of MulT, CM-BERT and MultiBench pass prediction and truth the other way round, which
      weights F1 by the classes' shares of the prediction.

    Every other F1 is weighted by the classes' shares of the truth.
    """
    errors = regression(prediction, truth)
    refuse(truth.abs() > 3, truth, "a truth of sentiment must be in [-3, 3]")
    guess, labels = prediction.flatten(), truth.flatten()
    near = guess.clamp(-3, 3).round() == labels.clamp(-3, 3).round()
    scores = {"mae": errors["mae"], "corr": errors["corr"], "acc7": float(near.double().mean())}
    kept = labels != 0
    said, is_so = guess > 0, labels > 0
    scores["acc2"], scores["f1"] = _binary(said, is_so)
    scores["acc2_nonzero"], scores["f1_nonzero"] = _binary(said[kept], is_so[kept])
    scores["acc2_nonnegative"], scores["f1_nonnegative"] = _binary(guess >= 0, labels >= 0)
    scores["f1_swapped"] = _binary(is_so, said)[1]
    scores["f1_nonzero_swapped"] = _binary(is_so[kept], said[kept])[1]
    return scores


def answer_accuracy(prediction: Tensor, truth: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the official accuracy of VQA (Antol et al., 2015), overall and by type of answer.

    Args:
        prediction: (n, answers) logits; the answer given is the largest.
        truth: `answer` (n, K), numbers of answers, -1 for none; `accuracy` (n, K), how right
            each of these is in [0, 1], all others not at all; `type` (n,), 0 for yes/no, 1 for
            numbers, 2 for others.
    """
    _check_answers(prediction, truth)
    given = _finite(prediction).argmax(dim=1, keepdim=True)
    right = (truth["accuracy"].double() * (truth["answer"] == given)).sum(dim=1)
    scores = {"accuracy": float(right.mean())}
    for number, kind in enumerate(("yes_no", "number", "other")):
        asked = truth["type"] == number
        if asked.any():
            scores[f"accuracy_{kind}"] = float(right[asked].mean())
    return scores


def _binary(guess: Tensor, labels: Tensor) -> tuple[float, float]:
    """Returns accuracy and weighted F1 of bools (n,), NaN if there is no sample."""
    if not len(labels):
        return float("nan"), float("nan")
    said, is_so = guess.numpy(), labels.numpy()
    f1 = f1_score(is_so, said, average="weighted", zero_division=0)
    return float(accuracy_score(is_so, said)), float(f1)


def _finite(prediction: Tensor) -> Tensor:
    """Returns the prediction, if there is one and it is finite."""
    if not len(prediction):
        raise ValueError("metrics need at least one sample, got none")
    bad = int((~torch.isfinite(prediction)).sum())
    if bad:
        raise FloatingPointError(
            f"predictions must be finite, but {bad} of {prediction.numel()} are not; "
            "did training diverge?"
        )
    return prediction


def _labelled(prediction: Tensor, truth: Tensor) -> tuple[Tensor, np.ndarray]:
    """Returns logits and labels (n,) of the samples whose label is not ignored."""
    if prediction.dim() != 2 or truth.numel() != len(prediction):
        raise ValueError(
            "logits must have shape (n, classes) and labels (n,) or (n, 1), "
            f"got {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    labels = as_labels(truth.reshape(-1))
    check_classes(labels, prediction.shape[1])
    counted = labels != IGNORED
    if not counted.all():
        warnings.warn(
            f"{int((~counted).sum())} of {len(labels)} labels are {IGNORED}: their samples are "
            "left out of the scores",
            stacklevel=3,
        )
        prediction, labels = prediction[counted], labels[counted]
    return _finite(prediction), labels.numpy()


def _check_answers(prediction: Tensor, truth: Mapping[str, Tensor]) -> None:
    """Raises ValueError for a truth that `answer_accuracy` would count wrongly."""
    answers, accuracy, kinds = truth["answer"], truth["accuracy"], truth["type"]
    n, columns = prediction.shape
    if not (answers.dim() == 2 and len(answers) == n) or answers.shape != accuracy.shape:
        raise ValueError(
            f"answer and accuracy must both have shape ({n}, K), "
            f"got {tuple(answers.shape)} and {tuple(accuracy.shape)}"
        )
    if kinds.shape != (n,):
        raise ValueError(f"type must have shape ({n},), got {tuple(kinds.shape)}")
    wrong = (answers < -1) | (answers >= columns)
    refuse(wrong, answers, f"answers must be numbers up to {columns - 1}, or -1 for none")
    refuse(~((accuracy >= 0) & (accuracy <= 1)), accuracy, "accuracy must be in [0, 1]")
    refuse((kinds < 0) | (kinds > 2), kinds, "type must be 0, 1 or 2")
    ordered = answers.sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    refuse(twice, ordered[:, 1:], "every answer must be there once")


def _second(logits: Tensor) -> np.ndarray:
    return logits.double().softmax(dim=1)[:, 1].numpy()
