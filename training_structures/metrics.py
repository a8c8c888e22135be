"""Metrics of a whole set: (prediction, truth) on the CPU to named numbers, undefined ones NaN."""

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score
from torch import Tensor


def classification(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns accuracy and F1 of logits (n, classes) against labels (n,) or (n, 1).

    With two classes there is also `auc`, the area under the ROC curve of class 1.
    """
    labels = _labels(prediction, truth)
    guess = _finite(prediction).argmax(dim=1).numpy()
    scores = {
        "accuracy": float(accuracy_score(labels, guess)),
        "f1_weighted": float(f1_score(labels, guess, average="weighted", zero_division=0)),
        "f1_macro": float(f1_score(labels, guess, average="macro", zero_division=0)),
    }
    if prediction.shape[1] == 2:
        both = len(np.unique(labels)) == 2
        scores["auc"] = float(roc_auc_score(labels, _second(prediction))) if both else float("nan")
    return scores


def average_precision(prediction: Tensor, truth: Tensor) -> float:
    """Returns the area under the precision-recall curve of class 1, from logits (n, 2)."""
    labels = _labels(prediction, truth)
    if not labels.any():
        return float("nan")
    return float(average_precision_score(labels, _second(_finite(prediction))))


def multilabel(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns F1 of logits (n, labels) against 0 or 1; a positive logit is a probability > 1/2."""
    guess, labels = (_finite(prediction) > 0).numpy(), truth.numpy() > 0
    return {
        f"f1_{average}": float(f1_score(labels, guess, average=average, zero_division=0))
        for average in ("micro", "macro")
    }


def regression(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns the errors and Pearson's correlation, over all entries."""
    if prediction.numel() != truth.numel():
        raise ValueError(
            "prediction and truth must have equally many entries, "
            f"got {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    guess, labels = _finite(prediction).double().flatten(), truth.double().flatten()
    error = guess - labels
    centred = torch.stack([guess - guess.mean(), labels - labels.mean()])
    spread = centred.norm(dim=1).prod()
    return {
        "mse": float(error.square().mean()),
        "mae": float(error.abs().mean()),
        "corr": float(centred.prod(dim=0).sum() / spread) if spread > 0 else float("nan"),
    }


def posneg(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns how often the first column is positive where the truth is, without and with zeros."""
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
    - `acc2_nonnegative`, `f1_nonnegative`: >= 0 against the rest, over all samples, as MFN has
      it (Zadeh et al., 2018): 0 counts as positive, in the truth and in the prediction.
    - `f1_swapped`, `f1_nonzero_swapped`: to compare with published figures only. The released
      codes of MulT, CM-BERT and MultiBench pass prediction and truth the other way round, which
      weights F1 by the classes' shares of the prediction.

    Every other F1 is weighted by the classes' shares of the truth.
    """
    errors = regression(prediction, truth)
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
    bad = int((~torch.isfinite(prediction)).sum())
    if bad:
        raise FloatingPointError(
            f"predictions must be finite, but {bad} of {prediction.numel()} are not; "
            "did training diverge?"
        )
    return prediction


def _labels(prediction: Tensor, truth: Tensor) -> np.ndarray:
    if prediction.dim() != 2 or truth.numel() != len(prediction):
        raise ValueError(
            "logits must have shape (n, classes) and labels (n,) or (n, 1), "
            f"got {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    return truth.reshape(-1).long().numpy()


def _second(logits: Tensor) -> np.ndarray:
    return logits.double().softmax(dim=1)[:, 1].numpy()
