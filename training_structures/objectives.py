"""Objectives of batches: the truth in the shape that they need, a batch's weight beside others.

Of torch's own losses both are known, as functions and as modules, also in a `partial` and behind
`__wrapped__` (as functools.wraps has it). Any other objective is called with the truth as it is,
and its batches count by their samples, unless it says otherwise:

    objective.batch_weight(truth)   what a batch counts, in any unit; None if its losses add up
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .batches import count
from .labels import IGNORED, as_labels, check_classes

Objective = Callable[..., Tensor]
OF_CLASSES = {nn.CrossEntropyLoss: F.cross_entropy, nn.NLLLoss: F.nll_loss}
OF_ENTRIES = {
    nn.MSELoss: F.mse_loss,
    nn.L1Loss: F.l1_loss,
    nn.SmoothL1Loss: F.smooth_l1_loss,
    nn.HuberLoss: F.huber_loss,
    nn.BCELoss: F.binary_cross_entropy,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    nn.KLDivLoss: F.kl_div,
    nn.PoissonNLLLoss: F.poisson_nll_loss,
    nn.SoftMarginLoss: F.soft_margin_loss,
}
MODULES = OF_CLASSES | OF_ENTRIES


@dataclass(frozen=True)
class TorchLoss:
    """One of torch's own losses, and those of its options that decide what a batch counts.

    Attributes:
        function: None if nothing but its reduction is known of it.
    """

    function: Callable[..., Tensor] | None
    weight: Tensor | None = None
    ignore_index: int = IGNORED
    reduction: str = "mean"

    @property
    def of_classes(self) -> bool:
        """Whether its truth is classes, and not as many numbers as the prediction."""
        return self.function in OF_CLASSES.values()


def weight_of(objective: Objective, truth: Any) -> float | None:
    """Returns what a batch counts when its loss is averaged with those of other batches.

    With these weights the mean is the loss of the one batch that they make up: the number of
    samples; where labels are ignored or weighted by class, the share of them that counts in
    that; 0 for a batch that teaches nothing. None of losses that are sums, and add up.

    Raises:
        ValueError: for a `batch_weight` that is no weight, or labels that are none.
    """
    objective, options = _unwrapped(objective)
    if hasattr(objective, "batch_weight"):
        weight = objective.batch_weight(truth)
        if weight is not None and not 0 <= float(weight) < math.inf:
            raise ValueError(f"batch_weight must be at least 0 and finite, got {weight}")
        return weight if weight is None else float(weight)
    loss, size = _torch_loss(objective, options), count(truth)
    if loss is None or not isinstance(truth, Tensor):
        return size
    if loss.reduction == "sum":
        return None
    if not loss.of_classes or (truth.is_floating_point() and truth.numel() > size):
        return size  # numbers, or probabilities of classes
    labels = as_labels(truth)
    counted = labels != loss.ignore_index
    if loss.weight is None:
        return size * torch.count_nonzero(counted).item() / labels.numel()
    check_classes(labels, len(loss.weight), loss.ignore_index)
    weights = loss.weight.detach().double()[labels[counted].to(loss.weight.device)]
    return size * weights.sum().item() / labels.numel()


def loss_of(objective: Objective, prediction: Any, truth: Any, *extras: Any) -> Tensor:
    """Returns the objective of a batch, a scalar, with the truth in the shape that it needs.

    Raises:
        ValueError: if prediction and truth do not fit, or the result is no scalar.
    """
    loss = objective(prediction, fitted(objective, prediction, truth), *extras)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"an objective must return a tensor of one number, got {got}")
    return loss


def fitted(objective: Objective, prediction: Any, truth: Any) -> Any:
    """Returns the truth as one of torch's own losses needs it; for any other as it is.

    Labels may have a last dimension of size 1, and be floats that are whole numbers; numbers may
    lack, or have, such a dimension that the prediction has, or lacks.

    Raises:
        ValueError: for other shapes, or labels that are not among the prediction's columns.
    """
    loss = _torch_loss(*_unwrapped(objective))
    if loss is None or loss.function is None:
        return truth
    if not (isinstance(prediction, Tensor) and isinstance(truth, Tensor)):
        return truth
    if loss.of_classes:
        return _fitted_labels(loss, prediction, truth)
    if truth.shape != prediction.shape:
        check_same_entries(prediction, truth)
        truth = truth.reshape(prediction.shape)
    return truth if truth.is_floating_point() else truth.to(_real(prediction.dtype))


def check_same_entries(prediction: Tensor, truth: Tensor) -> None:
    """Raises ValueError unless the shapes are the same but for last dimensions of size 1."""
    shapes = [list(x.shape) for x in (prediction, truth)]
    for shape in shapes:
        while shape and shape[-1] == 1:
            shape.pop()
    if shapes[0] != shapes[1]:
        raise ValueError(
            "prediction and truth must have equally many entries, of one shape, "
            f"got {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )


class NoPairs(TorchFunctionMode):
    """Refuses to pair every prediction with every truth, as (n, 1) and (n,) broadcast to (n, n).

    Active while an objective of the user's own is called. What follows from the prediction is
    known by its gradient, or as the prediction's own memory.
    """

    def __init__(self, prediction: Any) -> None:
        super().__init__()
        self.memory = prediction.data_ptr() if isinstance(prediction, Tensor) else None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        a, b, *_ = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)] + [None] * 2
        if b is None or a.numel() != b.numel() or a.dim() == b.dim():
            return func(*args, **kwargs)
        if func in OF_ENTRIES.values():
            self._refuse(a, b)  # what it returns does not tell
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.numel() > a.numel():
            if self._is_predicted(a) != self._is_predicted(b):
                self._refuse(a, b)
        return result

    def _is_predicted(self, x: Tensor) -> bool:
        try:
            return x.requires_grad or x.data_ptr() == self.memory
        except RuntimeError:  # what torch.func's transformations see has no memory
            return False

    def _refuse(self, a: Tensor, b: Tensor) -> None:
        raise ValueError(
            f"the objective combines {tuple(a.shape)} and {tuple(b.shape)}, which pairs every "
            "prediction with every truth; give both one shape (where pairs are meant, give both "
            "the same number of dimensions)"
        )


def _fitted_labels(loss: TorchLoss, prediction: Tensor, truth: Tensor) -> Tensor:
    many = prediction.dim() > 1 and prediction.shape[1] > 1
    if many and truth.is_floating_point() and truth.shape == prediction.shape:
        return truth  # probabilities
    labels = truth
    if truth.dim() == prediction.dim() and truth.shape[-1] == 1:
        labels = truth.squeeze(-1)
    if prediction.dim() < 2 or labels.shape != prediction.shape[:1] + prediction.shape[2:]:
        raise ValueError(
            "logits must have shape (n, classes, ...) and labels (n, ...), or (n, ..., 1), "
            f"got {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    if loss.weight is not None and len(loss.weight) != prediction.shape[1]:
        raise ValueError(
            f"the objective must weigh each of the {prediction.shape[1]} classes of the "
            f"prediction, but has {len(loss.weight)} weights"
        )
    labels = as_labels(labels)
    check_classes(labels, prediction.shape[1], loss.ignore_index)
    return labels


def _unwrapped(objective: Objective) -> tuple[Objective, dict[str, Any]]:
    """Returns what decides an objective's result, and the keywords it is given on the way."""
    options = {}
    while not hasattr(objective, "batch_weight"):
        if hasattr(objective, "__wrapped__"):
            objective = objective.__wrapped__
        elif isinstance(objective, partial) and not objective.args:
            objective, options = objective.func, objective.keywords | options
        else:
            break
    return objective, options


def _torch_loss(objective: Objective, options: dict[str, Any]) -> TorchLoss | None:
    # a subclass with a forward of its own may do anything
    own = getattr(type(objective), "forward", None)
    if isinstance(objective, nn.modules.loss._Loss) and own.__module__ == nn.modules.loss.__name__:
        options = vars(objective) | dict(objective.named_buffers())
        function = next((f for kind, f in MODULES.items() if isinstance(objective, kind)), None)
    elif getattr(objective, "__module__", None) == F.__name__:
        function = objective if objective in MODULES.values() else None
    else:
        return None
    names = ("weight", "ignore_index", "reduction")
    return TorchLoss(function, **{name: options[name] for name in names if name in options})


def _real(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
