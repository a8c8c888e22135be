"""The loss of MOGONET (Wang et al., 2021)."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def mogonet_loss(prediction: Tensor, truth: Tensor, extras: Mapping[str, Any]) -> Tensor:
    """Cross-entropy of all logits that are trained, where classes weigh by how often they come.

        sum_l (1 / batch) sum_i share(y_i) CE(logits_l,i, y_i)

    The share of a class among the patients of training is its weight, as in the published code:
    **frequent classes count more**, which is the opposite of balancing them.

    Args:
        prediction: (batch, classes) logits, judged as far as they are among `trained`.
        truth: (batch,) class indices.
        extras: `trained` and `class_shares` of `MOGONET.forward`.

    Raises:
        ValueError: for labels that are no classes.
    """
    shares = extras["class_shares"]
    if ((truth < 0) | (truth >= len(shares))).any():
        raise ValueError(
            f"labels must be classes from 0 to {len(shares) - 1}, got {truth.min().item()} to "
            f"{truth.max().item()}"
        )
    weights = shares[truth]
    losses = [
        (weights * F.cross_entropy(logits, truth, reduction="none")).mean()
        for logits in extras["trained"]
    ]
    return sum(losses[1:], losses[0])
