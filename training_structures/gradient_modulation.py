"""OGM-GE (Peng et al., 2022, arXiv:2203.15332): encoders that lead learn more slowly.

In a network that is trained as a whole, the modality that predicts better takes over, and the
encoders of the others stop learning. So in every step the gradient g of each encoder's parameters
becomes (equations 8 to 12)

    k_m g + noise,   k_m = 1 - tanh(alpha rho_m) if rho_m > 1, else 1
    rho_m = s_m / (mean of the other modalities' s),   s_m = mean probability that is right

where s_m is that of modality m alone, and the noise is Gaussian with the standard deviation of
the entries of g, a tensor at a time, as in the authors' release. For two modalities rho_m is the
paper's; for more, which the paper does not treat, the mean is our choice: 1 is balance then, too.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

LEAF = "AccumulateGrad"  # the node of the graph that keeps the gradient of a leaf


def parameters_behind(feature: Tensor) -> list[nn.Parameter]:
    """Returns the parameters that a tensor was computed from, as far as they learn.

    They are read off the graph that autograd keeps for its backward, so that of any network those
    before some place are known, however it names them.
    """
    found: list[nn.Parameter] = []
    left: list[Node | None] = [feature.grad_fn]
    seen: set[Node] = set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None) if type(node).__name__ == LEAF else None
        if isinstance(leaf, nn.Parameter):
            found.append(leaf)
        left += [before for before, _ in node.next_functions]
    return found


def apart(groups: Iterable[Sequence[nn.Parameter]]) -> list[list[nn.Parameter]]:
    """Returns the groups without the parameters that several of them have."""
    groups = list(groups)
    times: dict[int, int] = {}
    for parameter in (p for group in groups for p in group):
        times[id(parameter)] = times.get(id(parameter), 0) + 1
    return [[p for p in group if times[id(p)] == 1] for group in groups]


def probability_of_truth(prediction: Tensor, truth: Tensor, *, labels: bool = False) -> Tensor:
    """Returns the mean probability that is given to what is true, a scalar; NaN of no sample.

    Args:
        prediction: logits (batch, classes), or (batch, labels).
        truth: classes (batch,) or (batch, 1); or (batch, labels) of 0 and 1.
        labels: whether these are labels that may hold together, which the paper does not have.
    """
    if labels:
        right = prediction.sigmoid()
        return torch.where(truth > 0.5, right, 1 - right).mean()
    return prediction.softmax(1).gather(1, truth.reshape(-1, 1).long()).mean()


def coefficients(scores: Tensor, alpha: float) -> Tensor:
    """Returns k_m of every modality, (N,), by its score, (N,).

    A score that is NaN counts for no other modality, and its own coefficient is 1.
    """
    others = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    ratios = scores / torch.stack([scores[row].nanmean() for row in others])
    return torch.where(ratios > 1, 1 - torch.tanh(alpha * ratios), torch.ones_like(ratios))


def modulate(
    groups: Iterable[Sequence[nn.Parameter]], factors: Iterable[Tensor], *, noise: bool = True
) -> list[RemovableHandle]:
    """Lets the gradients of parameters be multiplied, and noised, in the next backward.

    Args:
        groups: of parameters, one for each factor.
        factors: what the gradients of a group are multiplied with, scalars.
        noise: whether Gaussian noise is added, of the standard deviation of the gradient before.

    Returns:
        Handles: whoever called removes them after the backward.
    """
    pairs = zip(groups, factors, strict=True)
    return [
        p.register_hook(partial(_modulated, factor, noise))
        for group, factor in pairs
        for p in group
    ]


def _modulated(factor: Tensor, noise: bool, gradient: Tensor) -> Tensor:
    result = factor.to(gradient) * gradient
    if noise:  # of a single number there is no deviation, and no noise
        result = result + gradient.std(correction=0) * torch.randn_like(gradient)
    return result
