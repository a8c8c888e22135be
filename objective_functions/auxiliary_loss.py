"""The losses that modules keep for themselves, added to an objective."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn


class WithAuxiliaryLoss:
    """Adds every submodule's `auxiliary_loss` and `supervised_loss(truth)` while training.

    The former is a scalar, the latter a method that returns one from the truth. For loops that
    know nothing of such losses, as MultiBench's:

        train(..., objective=WithAuxiliaryLoss(nn.CrossEntropyLoss()), objective_args_dict={})

    The truth is cast and moved as that loop does for the objectives it knows (cross-entropy, mean
    squared and absolute error, binary cross-entropy with logits). Another objective is called
    with all three arguments.

    Attributes:
        adds_auxiliary_loss: tells our own loop not to add it once more.
    """

    adds_auxiliary_loss = True

    def __init__(self, objective: Callable[..., Tensor]) -> None:
        self.objective = objective
        self.__wrapped__ = objective  # what decides how much a batch counts beside others

    def __call__(self, prediction: Tensor, truth: Tensor, args: Mapping[str, Any] | None) -> Tensor:
        if args is None or "training" not in args:
            raise ValueError(
                "the arguments must have `training` and `model`, "
                f"got {args if args is None else sorted(args)}; pass objective_args_dict={{}}"
            )
        loss = self._plain(prediction, truth, args)
        if not args["training"]:
            return loss
        modules = list(args["model"].modules())
        values = [getattr(module, "auxiliary_loss", None) for module in modules]
        distinct = {id(value): value for value in values if value is not None}  # hosts pass them on
        methods = dict.fromkeys(getattr(module, "supervised_loss", None) for module in modules)
        supervised = [f(truth.to(prediction.device)) for f in methods if callable(f)]
        return loss + sum(distinct.values()) + sum(supervised)

    def _plain(self, prediction: Tensor, truth: Tensor, args: Mapping[str, Any]) -> Tensor:
        kind = type(self.objective)
        if kind is nn.CrossEntropyLoss:
            labels = truth.squeeze(-1) if truth.dim() == prediction.dim() else truth
            return self.objective(prediction, labels.long().to(prediction.device))
        if kind in (nn.MSELoss, nn.L1Loss, nn.BCEWithLogitsLoss):
            return self.objective(prediction, truth.float().to(prediction.device))
        return self.objective(prediction, truth, args)
