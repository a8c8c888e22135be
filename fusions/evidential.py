"""Trusted multi-view classification (Han et al., 2021, arXiv:2102.02051).

Every view gives evidence e >= 0 for each of K classes: a Dirichlet distribution with
alpha = e + 1 and strength S = sum_k alpha_k, or, the same thing, an opinion with beliefs
b = e / S and uncertainty u = K / S. Dempster's rule joins opinions:

    b_k ~ b_k^1 b_k^2 + b_k^1 u^2 + b_k^2 u^1,    u ~ u^1 u^2

Since b_k / u = e_k / K, the rule multiplies the terms 1 + e_k / K, whatever the common factor.
So with l_k = log(1 + e_k / K) views are joined by adding their l: in any order, without an
overflow, and a vacuous opinion (e = 0) adds nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modalities import check_widths, class_labels, finite, without_absent

_LARGE = 16.0  # from here on Stirling's series is exact to 2e-12


@dataclass(frozen=True)
class Opinions:
    """The opinions of every view, in order, and last the joint one.

    Attributes:
        beliefs: (..., N + 1, classes) belief masses.
        uncertainty: (..., N + 1) what is left of 1; 1 for an absent view.
    """

    beliefs: Tensor
    uncertainty: Tensor


class EvidentialFusion(nn.Module):
    """Fuses the opinions of views into log-probabilities, log(alpha_k / S) of the joint one.

    The evidence of view v is softplus(W_v x_v + b_v). Cross-entropy on the result is the
    negative log-likelihood of the expected probabilities; the loss of the paper is
    `supervised_loss`, which `fit` and `WithAuxiliaryLoss` add of themselves.

    Args:
        input_dims: width of each view's features.
        num_classes: K, at least 2.
        anneal_steps: training forwards until the regulariser of `supervised_loss` has its full
            weight. (The paper counts 50 epochs.)

    Attributes:
        opinions: `Opinions` of the last forward, detached; None before.
        training_steps: training forwards so far, part of the state.
    """

    training_steps: Tensor

    def __init__(
        self, input_dims: Sequence[int], num_classes: int, *, anneal_steps: int = 50
    ) -> None:
        super().__init__()
        check_widths(input_dims, num_classes=num_classes, anneal_steps=anneal_steps)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.input_dims, self.num_classes = tuple(input_dims), num_classes
        self.anneal_steps = anneal_steps
        self.heads = nn.ModuleList(nn.Linear(width, num_classes) for width in input_dims)
        self.register_buffer("training_steps", torch.zeros((), dtype=torch.long))
        self.opinions: Opinions | None = None
        self._last: tuple[Tensor, Tensor | None] | None = None  # what supervised_loss needs

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each view, to log-probabilities (..., classes).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (..., N) bool, the views that a sample has, one at least; the opinion of
                the others is vacuous.
        """
        features = without_absent(self, features, self.input_dims, present)
        outputs = [head(x) for head, x in zip(self.heads, features, strict=True)]
        outputs = torch.stack(outputs, -2).to(self.heads[0].weight.dtype)  # no half of autocast
        views = (F.softplus(outputs) / self.num_classes).log1p()  # l_k, (..., N, classes)
        if present is not None:
            views = views.masked_fill(~present.unsqueeze(-1), 0)
        joined = torch.cat([views, views.sum(-2, keepdim=True)], -2)
        log_alpha = joined + (-(self.num_classes - 1) * (-joined).expm1()).log1p()
        fused = finite(log_alpha[..., -1, :].log_softmax(-1))
        self.opinions = _opinions(joined.detach(), log_alpha.detach())
        self._last = None
        if self.training and torch.is_grad_enabled():
            self.training_steps += 1
            self._last = log_alpha, present
        return fused

    def supervised_loss(self, truth: Tensor) -> Tensor:
        """Returns the loss of the last training forward, the mean over samples, a scalar.

        It is the sum over every view that is present, and the joint opinion, of

            psi(S) - psi(alpha_y) + lambda KL(Dir(alpha~) || Dir(1))

        with alpha~ that is alpha but for 1 at the true class y, and lambda = min(1, t /
        anneal_steps) at the t-th training forward.

        Args:
            truth: (...) or (..., 1) class indices.

        Raises:
            RuntimeError: if the last forward was not one of training, with gradients.
            ValueError: for a truth that does not fit.
        """
        if self._last is None:
            raise RuntimeError(
                "supervised_loss must follow a forward in training mode with gradients, got "
                "none; call train() and the module first"
            )
        log_alpha, present = self._last
        labels = class_labels(truth, log_alpha.shape[:-2], self.num_classes).unsqueeze(-1)
        true = F.one_hot(labels, self.num_classes).bool()  # (..., 1, classes)
        log_true = (log_alpha * true).sum(-1)
        fit = _digamma(log_alpha.logsumexp(-1)) - _digamma(log_true)
        weight = (self.training_steps / self.anneal_steps).clamp(max=1)
        loss = fit + weight.to(fit) * _kl_to_uniform(log_alpha.masked_fill(true, 0))
        if present is not None:
            loss = loss.masked_fill(F.pad(~present, (0, 1), value=False), 0)
        return loss.sum(-1).mean()

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled
        return {**self.__dict__, "opinions": None, "_last": None}


def _opinions(joined: Tensor, log_alpha: Tensor) -> Opinions:
    """Returns the opinions with 1 + e / K = exp(joined), both arguments (..., N + 1, classes)."""
    log_u = math.log(joined.shape[-1]) - log_alpha.logsumexp(-1)  # u = K / S
    beliefs = -(-joined).expm1() * (joined + log_u.unsqueeze(-1)).exp()  # b = u e / K
    return Opinions(beliefs, log_u.exp())


# The strengths may lie beyond the range of the dtype, so psi and the KL divergence are taken
# from their logarithms; what grows like x log x in the latter cancels on paper, not in floats.


def _split(log_x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns where x >= 1 is large, x for where it is not, and 1 / x for where it is."""
    edge = math.log(_LARGE)
    return log_x > edge, log_x.clamp(max=edge).exp(), (-log_x.clamp(min=edge)).exp()


def _gap(i: Tensor) -> Tensor:
    """Returns x (log x - psi(x)) by Stirling's series in i = 1 / x."""
    s = i * i
    return 0.5 + i / 12 * (1 - s / 10 * (1 - s * 10 / 21))


def _digamma(log_x: Tensor) -> Tensor:
    """Returns psi(x) for x >= 1."""
    large, x, i = _split(log_x)
    return torch.where(large, log_x - i * _gap(i), x.digamma())


def _term(log_x: Tensor, k: int) -> Tensor:
    """Returns log Gamma(x) - (x - k) psi(x) + x for x >= 1."""
    large, x, i = _split(log_x)
    s = i * i
    binet = i / 12 * (1 - s / 30 * (1 - s * 2 / 7))
    series = (k - 0.5) * log_x + 0.5 * math.log(2 * math.pi) + binet + (1 - k * i) * _gap(i)
    return torch.where(large, series, x.lgamma() - (x - k) * x.digamma() + x)


def _kl_to_uniform(log_alpha: Tensor) -> Tensor:
    """Returns KL(Dir(alpha) || Dir(1, ..., 1)), (..., classes) -> (...), for alpha >= 1."""
    k = log_alpha.shape[-1]
    return _term(log_alpha.logsumexp(-1), k) - _term(log_alpha, 1).sum(-1) - math.lgamma(k)
