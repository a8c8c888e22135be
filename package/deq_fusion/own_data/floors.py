"""Floors of own data: what a fusion must beat to have learnt anything.

As the recipe has them: functions of the loaders to learn from and the loader to predict, that
return what a network would have: logits, or numbers.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.utils.data import DataLoader

from deq_fusion.training_structures.comparison import About

from ..target import OBJECTIVES

FLOORS: Mapping[str, About] = {
    "linear": About(
        "logistic or ridge regression, its penalty chosen on validation data",
        "classical",
        "all columns, sequences as their means",
        "columns",
    ),
    "most frequent": About("the shares of the classes", "classical", "nothing", "none"),
    "mean": About("the mean, or each label's share", "classical", "nothing", "none"),
}
"""Those of one's own data, for lists: the second of classes, the third of labels and numbers."""
STRENGTHS = (0.01, 0.1, 1.0)  # C of logistic regression, of columns with variance 1
PENALTIES = (300.0, 30.0, 3.0)  # alpha of ridge regression, likewise
CLIP = 1e-7  # probabilities are at least that


def linear(task: str, outputs: int, known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """Logistic or ridge regression on all columns, sequences as their means over time, and on
    which modalities are there.

    Where train and valid may both be learnt from, how strongly it is penalised is chosen on valid
    by its own loss, and it is fitted to both.
    """
    parts = [_part(loader) for loader in known]
    strengths = STRENGTHS if task != "regression" else PENALTIES
    chosen = strengths[1]  # where no part is left to choose by
    if len(parts) == 2:
        (x, y, weight), (held, truth, counts) = parts
        losses = []
        for strength in strengths:
            output = _predict(_fit(task, strength, x, y, weight), task, outputs, held)
            losses.append(_loss(task, output, truth, counts))
        chosen = strengths[int(np.argmin(losses))]
    x, y, weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _predict(_fit(task, chosen, x, y, weight), task, outputs, _part(scored)[0])


def constant(task: str, outputs: int, known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """One prediction for all rows: the shares of the classes or labels, or the mean, of what may
    be learnt from."""
    parts = [_part(loader) for loader in known]
    _, y, weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if task == "classification":
        y = np.eye(outputs)[y]
    rows = np.zeros((len(y), 1))
    model = DummyRegressor().fit(rows, y, weight)
    count = len(_part(scored)[1])
    mean = model.predict(np.zeros((count, 1))).reshape(count, -1)
    return torch.from_numpy(_logits(task, mean)).float()


def _part(loader: DataLoader) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns columns (rows, d), truth and weights of a part."""
    *inputs, truth = loader.dataset.tensors
    columns, weight = [], np.ones(len(truth))
    for tensor in inputs:
        if tensor.dim() == 1:
            weight = tensor.double().numpy()
        else:
            columns.append(tensor.double().mean(dim=1) if tensor.dim() == 3 else tensor.double())
    return torch.cat(columns, 1).numpy(), truth.numpy(), weight


def _fit(
    task: str, strength: float, x: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> list[BaseEstimator]:
    """Returns a model; of several labels one for each, None where it has one value alone."""
    if task == "regression":
        return [Ridge(alpha=strength).fit(x, y, weight)]
    models = []
    for column in [y] if task == "classification" else y.T:
        if len(np.unique(column)) < 2:
            models.append(float(column[0]))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough, for a floor
            model = LogisticRegression(C=strength, max_iter=1000)
            models.append(model.fit(x, column, weight))
    return models


def _predict(models: list, task: str, outputs: int, x: np.ndarray) -> Tensor:
    if task == "regression":
        return torch.from_numpy(models[0].predict(x).reshape(len(x), -1)).float()
    if task == "classification":
        shares = np.zeros((len(x), outputs))
        shares[:, models[0].classes_] = models[0].predict_proba(x)
    else:
        each = [m if isinstance(m, float) else m.predict_proba(x)[:, 1] for m in models]
        shares = np.stack([np.broadcast_to(share, len(x)) for share in each], 1)
    return torch.from_numpy(_logits(task, shares)).float()


def _logits(task: str, values: np.ndarray) -> np.ndarray:
    """Returns shares as logits, and numbers as they are."""
    if task == "regression":
        return values
    shares = np.clip(values, CLIP, 1 - CLIP)
    return np.log(shares) - (np.log(1 - shares) if task == "multilabel" else 0)


def _loss(task: str, output: Tensor, truth: np.ndarray, weight: np.ndarray) -> float:
    counts = torch.from_numpy(weight).float()
    counts = counts if task != "regression" else counts[:, None]
    return float(OBJECTIVES[task](output, torch.from_numpy(truth), counts))
