"""RMFE: every modality is to matter to the prediction (Gat et al., 2020, arXiv:2010.10802).

How much one does is measured by its functional Fisher information, which bounds the functional
entropy from above: how a loss f between predictions from noisy and from plain inputs changes with
the inputs x_m of a modality m,

    I_m = E[||df/dx_m||^2 / f]

and the regulariser is by default the norm of all 1 / I_m. It differentiates a gradient, which a
model must allow.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

ESTIMATIONS = "ent", "var", "dif_ent"
OF_NUMBERS = (nn.MSELoss, nn.L1Loss)  # whose predictions are no logits


class Perturbation:
    """Noisy copies of a batch, and what the model predicted for the originals as often."""

    @classmethod
    def perturb_tensor(cls, tens: Tensor, n_samples: int, perturbation: bool = True) -> Tensor:
        """Returns n copies of each sample, one after the other, with noise, to differentiate by.

        The noise is normal, with the standard deviation that each feature has in the batch.

        Args:
            tens: (batch, ...); whole numbers become floats if noise is added.
            n_samples: n.
            perturbation: whether to add noise.

        Returns:
            (batch * n, ...), which requires a gradient if it can have one.
        """
        copies = tens.repeat_interleave(n_samples, 0)
        if perturbation:
            copies = copies if copies.is_floating_point() else copies.float()
            flat = copies.reshape(len(copies), -1)
            if len(flat) > 1:  # else they have no deviation
                flat = flat + torch.randn_like(flat) * flat.std(0)
            copies = flat.reshape(copies.shape)
        return copies.requires_grad_() if copies.is_floating_point() else copies

    @classmethod
    def get_expanded_logits(cls, logits: Tensor, n_samples: int, logits_flg: bool = True) -> Tensor:
        """Returns every prediction n times, one after the other, (batch * n, outputs).

        Args:
            logits: (batch, outputs).
            n_samples: n.
            logits_flg: whether they are logits, to be turned into probabilities.
        """
        predictions = logits.softmax(1) if logits_flg else logits
        return predictions.repeat_interleave(n_samples, 0)


class Regularization:
    """The measures of how much modalities matter, and the regularisers made of them."""

    @classmethod
    def get_batch_statistics(cls, loss: Tensor, n_samples: int, estimation: str = "ent") -> Tensor:
        """Returns how much losses f of n copies of each sample vary, a scalar.

            "ent"       E[f log f] - E[f] log E[f], of losses that sum to 1 for each sample
            "var"       the mean over the samples of the variance over the copies
            "dif_ent"   -sum f log f

        Args:
            loss: samples * n positive numbers, the copies of a sample one after the other.
            n_samples: n.
            estimation: one of these.

        Raises:
            NotImplementedError: for another one.
        """
        _check_estimation(estimation)
        loss = loss.reshape(-1, n_samples)
        if estimation == "var":
            return loss.var(1).mean()
        if estimation == "dif_ent":
            return -torch.xlogy(loss, loss).sum()
        loss = F.normalize(loss, p=1, dim=1)
        return torch.xlogy(loss, loss).mean() - torch.xlogy(loss.mean(), loss.mean())

    @classmethod
    def get_batch_norm(
        cls, grad: Tensor, loss: Tensor | None = None, estimation: str = "ent"
    ) -> Tensor:
        """Returns the mean squared norm of gradients, for "ent" each divided by the loss, a scalar.

        The norm is that of all of a sample's features, whatever their shape. (MultiBench's leaves
        out all but the first dimension after the batch's, over which it takes a mean.)

        Args:
            grad: (batch, ...), of the loss by the inputs.
            loss: a number a sample, or one for all; needed for "ent".
            estimation: as of `get_batch_statistics`.

        Raises:
            NotImplementedError: for another one.
            ValueError: for "ent" without a loss.
        """
        _check_estimation(estimation)
        squares = grad.reshape(len(grad), -1).square().sum(1)
        if estimation == "ent":
            if loss is None:
                raise ValueError('estimation "ent" divides by the loss, but got none')
            squares = squares / loss
        return squares.mean()

    @classmethod
    def get_regularization_term(
        cls, inf_scores: Tensor, norm: float = 2.0, optim_method: str = "max_ent"
    ) -> Tensor:
        """Returns what to minimise, a scalar, given how much each modality matters.

            "max_ent"         ||1 / I||, so that none is left out
            "max_ent_minus"   0.1 - ||I||
            "min_ent"         ||I||

        Args:
            inf_scores: I, one a modality.
            norm: which norm, 1 or 2.
            optim_method: one of these.

        Raises:
            NotImplementedError: for another one.
        """
        if optim_method == "max_ent":
            return torch.linalg.vector_norm(1 / inf_scores, norm)
        if optim_method == "min_ent":
            return torch.linalg.vector_norm(inf_scores, norm)
        if optim_method == "max_ent_minus":
            return 0.1 - torch.linalg.vector_norm(inf_scores, norm)
        raise NotImplementedError(
            f"unknown optim_method {optim_method!r}; choose from "
            "['max_ent', 'max_ent_minus', 'min_ent']"
        )


@dataclass
class RegParameters:
    """The options of a `RegularizationLoss`, its attribute `reg_params`.

    Attributes:
        lambda_: accepted, and not used: the weight is that of the loss.
        norm: which norm of the modalities' scores, 1 or 2.
        estimation: the measure, see `Regularization.get_batch_norm`.
        optim_method: the regulariser, see `Regularization.get_regularization_term`.
        n_samples: noisy copies of each sample.
        grad: accepted, and not used.
    """

    lambda_: float = 1e-10
    norm: float = 2.0
    estimation: str = "ent"
    optim_method: str = "max_ent"
    n_samples: int = 10
    grad: bool = True


class RegularizationLoss(nn.Module):
    """The weighted regulariser of any number of modalities.

    f is the criterion's mean over ten noisy copies of every sample of the batch, against the
    probabilities predicted without noise (against the predictions themselves for squared and
    absolute errors). As in the authors' release the gradient is that of this mean, so that I_m
    falls with the square of their number, and the usual weights are small.

    The model runs in the mode in which it is, and keeps nothing of the noisy pass: neither
    statistics of batch norms nor features or losses of its own. Kernels that cannot be
    differentiated twice (cuDNN's recurrent layers, fused attention) are not used in it.

    Args:
        loss: the criterion, (predictions, probabilities) -> a scalar.
        model: maps the inputs to logits.
        delta: weight.
        is_pack: whether inputs are ([x_1, ...], [lengths_1, ...]), and not [x_1, ...].
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        model: nn.Module,
        delta: float = 1e-10,
        is_pack: bool = True,
    ) -> None:
        super().__init__()
        self.reg_params = RegParameters()
        self.criterion = loss
        self.model = model
        self.delta = delta
        self.pack = is_pack

    def forward(self, logits: Tensor, inputs: Sequence) -> Tensor:
        """Returns delta times the regulariser.

        Args:
            logits: (batch, outputs), the model's prediction for the inputs.
            inputs: as the model takes them, see `is_pack`; cast and moved as the logits are.

        Raises:
            ValueError: for a modality without influence on the prediction.
            RuntimeError: without gradients, as under `torch.no_grad()`.
        """
        options = self.reg_params
        features = self._copies(inputs[0] if self.pack else inputs, logits, noise=True)
        given: Any = features
        if self.pack:
            given = [features, self._copies(inputs[1], logits, noise=False)]
        plain = not isinstance(self.criterion, OF_NUMBERS)
        wanted = Perturbation.get_expanded_logits(logits, options.n_samples, plain)
        with _unchanged(self.model), _twice_differentiable():
            buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
            loss = self.criterion(functional_call(self.model, buffers, (given,)), wanted)
            found = torch.autograd.grad(loss, features, create_graph=True, materialize_grads=True)
        scores = torch.stack(
            [Regularization.get_batch_norm(g, loss, options.estimation) for g in found]
        )
        term = Regularization.get_regularization_term(scores, options.norm, options.optim_method)
        if not term.isfinite():
            raise ValueError(
                "every modality must have influence on the prediction, whose inverse is the "
                f"regulariser, got {[f'{score:.3g}' for score in scores.tolist()]}; leave out a "
                "modality that has none, and batches of one sample, which get no noise"
            )
        return self.delta * term

    def _copies(self, inputs: Sequence, logits: Tensor, *, noise: bool) -> list[Tensor]:
        number, dtype = self.reg_params.n_samples, torch.promote_types(logits.dtype, torch.float32)
        copies = [Perturbation.perturb_tensor(torch.as_tensor(x), number, noise) for x in inputs]
        return [x.to(logits.device, dtype) if noise else x for x in copies]


def _check_estimation(estimation: str) -> None:
    if estimation not in ESTIMATIONS:
        raise NotImplementedError(
            f"unknown estimation {estimation!r}; choose from {sorted(ESTIMATIONS)}"
        )


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Gives all modules back, at the end, the attributes that they have now."""
    kept = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in kept:
            vars(module).clear()
            vars(module).update(attributes)


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Leaves out kernels whose gradient has no derivative."""
    with ExitStack() as stack:
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
