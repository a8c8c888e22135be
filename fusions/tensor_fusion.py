"""Tensor fusion and its low-rank form; `common_fusions` offers them under MultiBench's path."""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modalities import check_tensors, finite


def _with_one(x: Tensor) -> Tensor:
    """Prepends a 1 to every row, (..., d) -> (..., d + 1)."""
    return F.pad(x, (1, 0), value=1.0)


class TensorFusion(nn.Module):
    """The outer product of the rows [1, x_1], ..., [1, x_M] (Zadeh et al., 2017).

    It holds the product of every subset of the modalities, flattened with the first modality's
    index slowest. One modality alone is returned as it is.
    """

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        """Maps tensors (..., d_i) to (..., product of the d_i + 1)."""
        modalities = check_tensors(modalities)
        if not modalities:
            raise ValueError("TensorFusion takes at least one modality, got none")
        if len(modalities) == 1:
            return modalities[0]
        if len({x.shape[:-1] for x in modalities}) > 1:
            raise ValueError(
                "modalities must have the same leading dimensions, "
                f"got shapes {[tuple(x.shape) for x in modalities]}; flatten or pool them first"
            )
        return reduce(
            lambda fused, x: (fused.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2),
            map(_with_one, modalities),
        )


class LowRankTensorFusion(nn.Module):
    """A linear map of the outer product of the [1, x_m], by factors of low rank.

        out = sum_r w_r prod_m ([1, x_m] F_m[r]) + bias

    (Liu et al., 2018), without forming the product. (MultiBench keeps the factors F_m in a list
    that no optimiser sees; here they are parameters, and are trained.)

    Args:
        input_dims: width of each modality, after flattening.
        output_dim: width of the result.
        rank: number of terms of the sum.
        flatten: flatten every modality from dimension 1 first; otherwise leading dimensions
            are kept.
    """

    def __init__(
        self, input_dims: Sequence[int], output_dim: int, rank: int, flatten: bool = True
    ) -> None:
        super().__init__()
        self.input_dims, self.output_dim, self.rank = input_dims, output_dim, rank
        self.flatten = flatten
        self.factors = nn.ParameterList(
            nn.init.xavier_normal_(torch.empty(rank, width + 1, output_dim)) for width in input_dims
        )
        self.fusion_weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank)))
        self.fusion_bias = nn.Parameter(torch.zeros(1, output_dim))

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        """Maps a tensor (batch, ...) or, unflattened, (..., d_m) each to (..., output_dim)."""
        features = check_tensors(modalities, like=self.fusion_bias)
        features = [x.flatten(1) for x in features] if self.flatten else features
        if [x.shape[-1] for x in features] != list(self.input_dims):
            raise ValueError(
                f"modalities must have the widths {list(self.input_dims)}, "
                f"got shapes {[tuple(x.shape) for x in features]}; see input_dims and flatten"
            )
        terms = (
            torch.einsum("...i,rio->...ro", _with_one(x), factor)
            for x, factor in zip(features, self.factors, strict=True)
        )
        weighed = torch.einsum("...ro,r->...o", reduce(torch.mul, terms), self.fusion_weights[0])
        return finite(weighed + self.fusion_bias[0])
