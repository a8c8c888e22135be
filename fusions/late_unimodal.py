"""Late fusion whose modalities are trained by losses of their own, and classes built on it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equilibrium import checks
from .modalities import check_widths, class_labels, finite, without_absent


def _squared(outputs: Tensor, truth: Tensor) -> Tensor:
    return (outputs - truth).square().mean(-1)


def _absolute(outputs: Tensor, truth: Tensor) -> Tensor:
    return (outputs - truth).abs().mean(-1)


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return -outputs.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def _binary(outputs: Tensor, truth: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, truth, reduction="none").mean(-1)


# (outputs of a modality, (..., K), truth) -> losses (...)
CRITERIA: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary,
    "squared": _squared,
    "absolute": _absolute,
}


class Kept(NamedTuple):
    """One training forward as its losses need it.

    Attributes:
        features: (..., d_i) for each modality, zeros where it is absent.
        outputs: (..., N, K) of each modality's head.
        here: (..., N) bool, which modalities are present.
    """

    features: list[Tensor]
    outputs: Tensor
    here: Tensor


class LateUnimodal(nn.Module):
    """Averages the outputs of one linear head for each modality, each trained on its own as well.

        l_i = W_i x_i + b_i,    prediction = sum_i w_i l_i,    w_i = 1 / N
        loss = L(prediction) + sum_i L(l_i)

    The sums are over the modalities that are present, and the losses' mean over samples. The
    first term is the training's own objective, the others are `supervised_loss`, which `fit` and
    `WithAuxiliaryLoss` add of themselves. It is the static control of QMF (Zhang et al., 2023,
    arXiv:2306.02050), and tells what of a dynamic late fusion is due to those losses alone.

    Args:
        input_dims: width of each modality's features.
        outputs: K, the number of classes, or of predicted values.
        criterion: L of a modality: "cross_entropy", "binary_cross_entropy" (several labels at
            once), "squared" or "absolute" error. With the first the prediction is
            log-probabilities.
    """

    def __init__(
        self, input_dims: Sequence[int], outputs: int, *, criterion: str = "cross_entropy"
    ) -> None:
        super().__init__()
        check_widths(input_dims, outputs=outputs)
        checks.check_choice("criterion", criterion, CRITERIA)
        if criterion == "cross_entropy" and outputs < 2:
            raise ValueError(
                f"cross_entropy must have at least 2 outputs (classes), got {outputs}; pass "
                "another criterion for a single value"
            )
        self.input_dims, self.outputs, self.criterion = tuple(input_dims), outputs, criterion
        self.heads = nn.ModuleList(nn.Linear(width, outputs) for width in input_dims)
        self._last: Kept | None = None  # what supervised_loss needs

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to (..., outputs).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (..., N) bool, the modalities that a sample has, one at least.
        """
        features = without_absent(self, features, self.input_dims, present)
        outputs = [head(x) for head, x in zip(self.heads, features, strict=True)]
        stacked = torch.stack(outputs, -2).to(next(self.parameters()).dtype)  # under autocast too
        here = present
        if here is None:
            here = torch.ones(stacked.shape[:-1], dtype=torch.bool, device=stacked.device)
        kept = Kept(features, stacked, here)
        weights = self.weights(kept).masked_fill(~here, 0).unsqueeze(-1)  # (..., N, 1)
        joint = (weights * stacked.masked_fill(~here.unsqueeze(-1), 0)).sum(-2)
        self._last = kept if self.training and torch.is_grad_enabled() else None
        return finite(joint.log_softmax(-1) if self.criterion == "cross_entropy" else joint)

    def weights(self, kept: Kept) -> Tensor:
        """Returns the weights of the modalities, (..., N); those of absent ones do not matter."""
        shares = kept.here.to(kept.outputs.dtype)
        return shares / shares.sum(-1, keepdim=True)

    def supervised_loss(self, truth: Tensor) -> Tensor:
        """Returns the losses of the modalities in the last training forward, a scalar.

        Args:
            truth: class indices, (...) or (..., 1); otherwise values or labels, (..., outputs),
                or (...) of one output.

        Raises:
            RuntimeError: if the last forward was not one of training, with gradients.
            ValueError: for a truth that does not fit.
        """
        if self._last is None:
            raise RuntimeError(
                "supervised_loss must follow a forward in training mode with gradients, got "
                "none; call train() and the module first"
            )
        kept = self._last
        losses = self._losses(kept.outputs, self._fitting(truth, kept.outputs)).where(kept.here, 0)
        return losses.sum(-1).mean() + self.further_loss(kept, losses)

    def further_loss(self, kept: Kept, losses: Tensor) -> Tensor | float:
        """Returns what else is minimised; `losses` are the modalities', (..., N), 0 if absent."""
        return 0.0

    def _losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        return torch.stack([CRITERIA[self.criterion](x, truth) for x in outputs.unbind(-2)], -1)

    def _fitting(self, truth: Tensor, outputs: Tensor) -> Tensor:
        """Returns the truth as the criterion takes it, if it can be."""
        leading = outputs.shape[:-2]
        if self.criterion != "cross_entropy":
            if truth.shape not in {(*leading, self.outputs), leading if self.outputs == 1 else ()}:
                raise ValueError(
                    f"truth must have shape {(*leading, self.outputs)}, a value for each output "
                    f"of the last forward, got {tuple(truth.shape)}"
                )
            return truth.reshape(*leading, self.outputs).to(outputs.dtype)
        return class_labels(truth, leading, self.outputs)

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled
        return {**self.__dict__, "_last": None}
