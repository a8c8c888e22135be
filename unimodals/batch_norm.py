"""Batch normalisation that takes a leftover batch of a single sample."""

import torch.nn.functional as F
from torch import Tensor, nn


def batch_normalised(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Returns norm(x), x of shape (batch, features).

    In training a single sample, which has no statistics of its own, takes the running ones and
    leaves them as they are.
    """
    if not norm.training or len(x) > 1:
        return norm(x)
    # copies, which a later batch's update cannot change under this one's backward
    running = norm.running_mean.clone(), norm.running_var.clone()
    return F.batch_norm(x, *running, norm.weight, norm.bias, eps=norm.eps)
