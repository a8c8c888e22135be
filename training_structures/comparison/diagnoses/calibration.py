"""Calibration of classifiers: whether they are as sure as they are right.

Logits are (n, classes), labels (n,) integers; probabilities are the softmax of the logits, divided
by a temperature. A sample's confidence is the largest of its probabilities.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor

from ...labels import IGNORED

BINS = 15  # of the same width, over confidences from 0 to 1
COLDEST, HOTTEST = 0.01, 100.0  # temperatures that are tried


class Undiagnosed(ValueError):
    """A diagnosis cannot be made; the message says why, in words that follow the method's name."""


@dataclass(frozen=True)
class Classified:
    """Predictions of classes, and the truth.

    Attributes:
        logits: (n, classes) float64.
        labels: (n,) integers.
    """

    logits: np.ndarray
    labels: np.ndarray

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """Returns (n, classes) probabilities at a temperature."""
        return softmax(self.logits / temperature, axis=1)


def classified(prediction: Any, truth: Any, task: str) -> Classified:
    """Returns predictions and truth as logits and labels; those of ignored samples are left out.

    Of "multilabel" every label of a sample is a problem of two classes of its own.

    Args:
        prediction: (n, classes), or (n, labels) of "multilabel".
        truth: (n,) or (n, 1) classes, or (n, labels) of 0 and 1.
        task: one of `TASKS`.

    Raises:
        Undiagnosed: for what has no classes, one of them, or what is not finite.
    """
    if task == "regression":
        raise Undiagnosed("predicts numbers, and calibration is of classes")
    if not isinstance(prediction, Tensor) or not isinstance(truth, Tensor) or prediction.dim() != 2:
        raise Undiagnosed("predicts no (samples, classes) against one label each")
    logits, labels = prediction.double().numpy(), truth.numpy()
    if task == "multilabel":
        logits = np.stack([np.zeros(logits.size), logits.reshape(-1)], axis=1)
    labels = labels.reshape(-1)
    if len(labels) != len(logits):
        raise Undiagnosed("predicts no (samples, classes) against one label each")
    kept = labels != IGNORED
    logits, labels = logits[kept], labels[kept].astype(int)
    if logits.shape[1] < 2 or len(np.unique(labels)) < 2:
        raise Undiagnosed("was scored on samples of one class, and calibration takes two")
    if np.isnan(logits).any() or np.isposinf(logits).any():
        raise Undiagnosed("predicts what is not finite")
    return Classified(logits, labels)


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns (BINS, 3): samples, mean confidence and accuracy of each bin of confidence, the last
    two 0 where there is no sample; a confidence on an edge is of the lower bin.

    Args:
        probabilities: (n, classes).
        labels: (n,).
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    samples = np.bincount(places, minlength=BINS)
    sums = [np.bincount(places, weights=x, minlength=BINS) for x in (sure, right)]
    return np.stack([samples, *(x / np.maximum(samples, 1) for x in sums)], axis=1)


def expected_calibration_error(bins: np.ndarray) -> float:
    """Returns the mean distance of confidence and accuracy over bins, by their samples (Naeini et
    al., 2015; Guo et al., 2017).

    Args:
        bins: of `reliability`.
    """
    samples, sure, right = bins.T
    return float((samples * abs(sure - right)).sum() / samples.sum())


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean squared distance of probabilities from the truth, summed over the classes:
    0 is perfect, 2 the worst (Brier, 1950).

    Args:
        probabilities: (n, classes).
        labels: (n,).
    """
    truth = np.zeros_like(probabilities)
    truth[np.arange(len(labels)), labels] = 1
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def log_loss(found: Classified, temperature: float) -> float:
    """Returns the mean negative log-likelihood at a temperature."""
    logs = log_softmax(found.logits / temperature, axis=1)
    return float(-logs[np.arange(len(found.labels)), found.labels].mean())


def fitted_temperature(found: Classified) -> float:
    """Returns the temperature of the least `log_loss`, between `COLDEST` and `HOTTEST`: above 1
    of a model that is too sure (Guo et al., 2017)."""

    def loss(log_temperature: float) -> float:  # convex in 1 / temperature, so it has one minimum
        return log_loss(found, float(np.exp(log_temperature)))

    bounds = np.log(COLDEST), np.log(HOTTEST)
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def calibration(scored: Classified, valid: Classified | None) -> dict[str, Any]:
    """Returns what JSON can hold: `bins`, `ece`, `brier`, `surplus` (mean confidence minus
    accuracy); with validation data also `temperature`, fitted there, and `ece_scaled` and
    `brier_scaled`, the scored part's at it.

    Args:
        scored: of the part that is scored.
        valid: of the validation part; None if that is what is scored.
    """
    found = _errors(scored, 1.0)
    if valid is not None:
        found["temperature"] = fitted_temperature(valid)
        scaled = _errors(scored, found["temperature"])
        found |= {f"{name}_scaled": scaled[name] for name in ("ece", "brier")}
    return found


def _errors(scored: Classified, temperature: float) -> dict[str, Any]:
    probabilities, labels = scored.probabilities(temperature), scored.labels
    bins = reliability(probabilities, labels)
    samples, sure, right = bins.T
    return {
        "bins": bins.tolist(),
        "ece": expected_calibration_error(bins),
        "brier": brier(probabilities, labels),
        "surplus": float((samples * (sure - right)).sum() / samples.sum()),
    }
