"""Cross fusion (Hong et al., 2020, arXiv:2008.05457): encoders that read each other's features."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equilibrium import checks
from .modalities import check_widths, finite, without_absent


class CrossFusion(nn.Module):
    """Fuses features that the encoder of every modality has read, its own and the others'.

        z   = J([sum_k E_1(h_k); ...; sum_k E_N(h_k)])          the fused feature
        z_k = J([E_1(h_k); ...; E_N(h_k)])                      the same from modality k alone

    h_k is the feature of modality k, projected to width dim where its own differs; E_i and J
    are linear, batch norm and ReLU. In training the z_k are drawn to z:

        auxiliary_loss = consistency * sum_k mean (z_k - z)^2

    the mean over samples and entries. For two modalities these are the sums and the two terms
    of the paper, which has them on the logits, here they are on the fused feature; for more
    the sums run over all. As in the authors' release the linear maps of E_i and of J are shared
    by all their inputs, while every input is normalised by statistics, a scale and a shift of
    its own. A training batch needs two samples.

    Args:
        input_dims: width of each modality's features.
        dim: width of the encoders and of the fused feature.
        consistency: weight of the auxiliary loss.
    """

    def __init__(self, input_dims: Sequence[int], dim: int, *, consistency: float = 1.0) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        checks.check_range("consistency", consistency, 0, math.inf)
        n = len(input_dims)
        self.input_dims, self.consistency = tuple(input_dims), consistency
        self.projections = nn.ModuleList(
            nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
            for width in input_dims
        )
        # all E_i as one map, and one channel for each entry of each E_i(h_k), z and z_k
        self.encoders, self.encoder_norm = nn.Linear(dim, n * dim), nn.BatchNorm1d(n * n * dim)
        self.joint, self.joint_norm = nn.Linear(n * dim, dim), nn.BatchNorm1d((n + 1) * dim)
        self._penalty: Tensor | None = None

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        In training the batch statistics are over all leading dimensions.
        """
        features = without_absent(self, features, self.input_dims, normed=True)
        h = torch.stack([p(x) for p, x in zip(self.projections, features, strict=True)], -2)
        encoded = _normalised(self.encoders(h), self.encoder_norm)  # (..., k, all E_i(h_k))
        blocks = torch.cat([encoded.sum(-2, keepdim=True), encoded], -2)
        z = _normalised(self.joint(blocks), self.joint_norm)  # (..., 1 + N, dim): z, all z_k
        fused = finite(z[..., 0, :])
        self._penalty = None
        if self.training and torch.is_grad_enabled() and self.consistency:
            square = (z[..., 1:, :] - z[..., :1, :]).square()
            self._penalty = self.consistency * len(features) * square.mean()
        return fused

    @property
    def auxiliary_loss(self) -> Tensor:
        """Weighted consistency loss of the last training forward, a scalar; otherwise zero."""
        if self._penalty is not None:
            return self._penalty
        return self.joint.weight.new_zeros(())

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled
        return {**self.__dict__, "_penalty": None}


def _normalised(x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """Returns the ReLU of x (..., groups, width), every entry of a sample normalised."""
    rows = x.reshape(-1, norm.num_features)
    if norm.training and len(rows) == 1:
        assert norm.running_mean is not None and norm.running_var is not None
        # copies, which a later batch's update cannot change under this one's backward
        running = norm.running_mean.clone(), norm.running_var.clone()
        y = F.batch_norm(rows, *running, norm.weight, norm.bias, eps=norm.eps)
    else:
        y = norm(rows)
    return y.relu().view(x.shape)
