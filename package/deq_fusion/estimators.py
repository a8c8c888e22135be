"""Any fusion as a scikit-learn estimator: `FusionClassifier` and `FusionRegressor`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted
from torch import nn

from . import saving
from .fusion_estimator import FusionEstimator
from .target import as_target
from .training import DEFAULTS


class FusionClassifier(ClassifierMixin, FusionEstimator):
    """A classifier of several modalities: an encoder for each, a fusion, a linear head.

    X is a dict {modality: frame or array}, or one matrix or frame with `modalities`. Numbers are
    scaled, missing cells filled in, and text encoded by what the rows to learn from have (see
    `columns.Columns`); a row of a dict that is all NaN is an absent modality, which fusions are
    told of. Arrays of three dimensions are sequences. y are classes of any type, or a matrix of
    several labels, 0 and 1.

    `cross_validate`, `GridSearchCV` and `Pipeline` take the matrix form: scikit-learn cannot cut
    the rows of a dict. Behind a step that returns arrays, as StandardScaler does, `modalities` are
    slices; names of columns need its `set_output(transform="pandas")`.

    Args:
        fusion: a name ("deq", "concat", ...: `deq-fusion list`), or one's own class or function
            (input_dims, dim, **options) -> nn.Module or (nn.Module, width).
        fusion_options: keywords of it, in place of `training.FUSION_OPTIONS`.
        modalities: of a matrix, {name: slice, or numbers or names of columns}; None: one.
        width: of every modality's feature, and of the fused one.
        dropout: share of an encoder's entries left out in training.
        lr: learning rate of AdamW.
        weight_decay: of AdamW, too.
        epochs: at most.
        batch_size: rows a step.
        patience: epochs without a better validation loss after which training ends.
        validation_fraction: share of the rows that training is stopped by; 0 takes all epochs.
        class_weight: None, "balanced", or {class: weight}.
        encoders: {modality: nn.Module (batch, ...) -> (batch, any width)}, of which copies are
            trained; the others get an MLP, or a GRU where they are sequences.
        device: where to train, and where predictions are made.
        random_state: a number makes a fit repeatable.
        verbose: whether a bar is shown, on a terminal.

    Attributes:
        classes_: the classes, sorted; of several labels their numbers.
        network_: the trained `network.FusionNetwork`, in evaluation mode.
        columns_: {modality: `columns.Columns`}.
        target_: the `target.Target`; its `described` says how y was understood.
        history_: a record an epoch, see `training_structures.run.History`.
        best_epoch_: the one whose weights these are.
        n_features_in_: number of columns, of all modalities.
        feature_names_in_: names of the columns, of a frame with such.
    """

    def __init__(
        self,
        fusion: str | Callable[..., Any] = "deq",
        *,
        fusion_options: Mapping[str, Any] | None = None,
        modalities: Mapping[str, Any] | None = None,
        width: int = DEFAULTS.width,
        dropout: float = DEFAULTS.dropout,
        lr: float = DEFAULTS.lr,
        weight_decay: float = DEFAULTS.weight_decay,
        epochs: int = DEFAULTS.epochs,
        batch_size: int = DEFAULTS.batch_size,
        patience: int = DEFAULTS.patience,
        validation_fraction: float = DEFAULTS.validation_fraction,
        class_weight: str | Mapping[Any, float] | None = None,
        encoders: Mapping[str, nn.Module] | None = None,
        device: str | torch.device = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            fusion,
            fusion_options=fusion_options,
            modalities=modalities,
            width=width,
            dropout=dropout,
            lr=lr,
            weight_decay=weight_decay,
            epochs=epochs,
            batch_size=batch_size,
            patience=patience,
            validation_fraction=validation_fraction,
            encoders=encoders,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @property
    def classes_(self) -> np.ndarray:
        """The classes, sorted; of several labels their numbers."""
        check_is_fitted(self, "network_")
        target = self.target_
        return np.arange(target.outputs) if target.classes is None else target.classes

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probability (rows, classes) of each class, or (rows, labels) of each label,
        in the order of `classes_`."""
        outputs = self._outputs(X)
        return self.target_.probabilities(outputs)

    def _task(self, y: Any) -> str:
        return "multilabel" if as_target(y).ndim == 2 else "classification"

    def _class_weights(self, y: Any) -> np.ndarray | None:
        if self.class_weight is None:
            return None
        return compute_sample_weight(self.class_weight, as_target(y))


class FusionRegressor(RegressorMixin, FusionEstimator):
    """A regression on several modalities: an encoder for each, a fusion, a linear head.

    y are numbers, (rows,) or (rows, k), in any units: the network works in multiples of their
    spread. X, all other arguments and the attributes are those of `FusionClassifier`, but for
    classes and their weights.
    """

    def _task(self, y: Any) -> str:
        return "regression"


def load(
    path: str | Path,
    *,
    fusion: Callable[..., Any] | None = None,
    encoders: Mapping[str, nn.Module] | None = None,
) -> FusionClassifier | FusionRegressor:
    """Returns whichever estimator was saved in a file; see `FusionClassifier.load`."""
    kinds = FusionClassifier, FusionRegressor
    return saving.load(path, kinds, fusion=fusion, encoders=encoders)
