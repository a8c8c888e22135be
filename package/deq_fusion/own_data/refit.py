"""The best method, trained anew on all rows: an estimator for use."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison.methods import only

from ..estimators import FusionClassifier, FusionRegressor
from ..target import Target
from ..training import DEFAULTS
from .data import Data


def refit(
    data: Data,
    target: Target,
    encoders: Mapping[str, nn.Module],
    name: str,
    fusion: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    modalities: Sequence[str] | None = None,
    epochs: int = DEFAULTS.epochs,
    **settings: Any,
) -> FusionClassifier | FusionRegressor:
    """Returns a fitted estimator; a test set of its own is not learnt from.

    Args:
        data: the recipe's.
        target: likewise.
        encoders: likewise, by modality.
        name: of the method.
        fusion: what it fuses with; one of the registry goes by its name, so that the estimator
            can be saved and loaded, and a single modality by that of concatenation.
        options: of the fusion.
        modalities: those that it takes; None: all. Rows without any of them are left out.
        epochs: at most; the estimator holds out rows of its own to stop by.
        **settings: lr, width and so on, in place of the defaults.
    """
    names, groups = tuple(modalities or data.views), data.splits.groups
    if data.present is not None:
        here = np.stack([data.present_in(modality) for modality in names], axis=1).any(axis=1)
        data = data.taken(np.flatnonzero(here))
        groups = None if groups is None else groups[here]
    truth = data.truth
    if target.task == "classification":
        truth = target.classes[truth]
    elif target.flat:
        truth = truth[:, 0]
    named = "concat" if fusion is only else name  # which leaves a single modality as it is
    kind = FusionRegressor if target.task == "regression" else FusionClassifier
    asked: dict[str, Any] = {"class_weight": "balanced"} if data.balanced else {}
    estimator = kind(
        named if fusion in (only, FUSIONS.get(name)) else fusion,
        fusion_options=dict(options),
        encoders={modality: encoders[modality] for modality in names if modality in encoders},
        epochs=epochs,
        random_state=0,
        **(asked | settings),
    )
    views = {modality: data.views[modality] for modality in names}
    return estimator.fit(views, truth, data.weight, groups)
