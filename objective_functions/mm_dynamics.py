"""The loss of MM-Dynamics (Han et al., 2022, section 3.3)."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor


def mm_dynamics_loss(
    prediction: Tensor,
    truth: Tensor,
    extras: Mapping[str, Sequence[Tensor]],
    *,
    growth: float = 1.0,
    balanced: bool = False,
) -> Tensor:
    """Cross-entropy of the fused logits, and for every view three terms of weight 1.

    These are the mean of its feature gates (sparsity), the cross-entropy of its own logits,
    and the squared error of its confidence against the probability that these give to the
    true class. That probability is not detached, as in the published code.

    With another `growth` r, the fused logits' term has the weight r^V and those of view v have
    r^(V - v): for three views and the 1.5 of the release of Ni et al. (2023) these are 3.375,
    2.25, 1.5 and 1.

    Args:
        prediction: (batch, classes) fused logits.
        truth: (batch,) class indices.
        extras: `gates`, `view_logits` and `confidences` of `MMDynamics.forward`.
        growth: multiplies what is summed so far before each view's terms are added.
        balanced: whether the classes that a batch has count alike in the cross-entropies, and
            not by how many of its samples they have.

    Raises:
        ValueError: for labels that are no classes; none is ignored, for every view is judged.
    """
    classes = prediction.shape[1]
    if ((truth < 0) | (truth >= classes)).any():
        raise ValueError(
            f"labels must be classes from 0 to {classes - 1}, got {truth.min().item()} to "
            f"{truth.max().item()}"
        )
    weight = None
    if balanced:  # a class that the batch lacks weighs nothing, whatever the number
        weight = 1 / truth.bincount(minlength=classes).clamp_min(1).to(prediction.dtype)
    loss = F.cross_entropy(prediction, truth, weight)
    views = zip(extras["gates"], extras["view_logits"], extras["confidences"], strict=True)
    for gates, logits, confidence in views:
        true_class = logits.softmax(1).gather(1, truth.unsqueeze(1)).squeeze(1)
        loss = growth * loss + gates.mean() + F.mse_loss(confidence, true_class)
        loss = loss + F.cross_entropy(logits, truth, weight)
    return loss
