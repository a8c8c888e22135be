"""The weighted sum, the baseline of the ablations of Ni et al. (2023), Table 5."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .modalities import check_widths, without_absent


class WeightedSum(nn.Module):
    """Fuses features by sum_i w_i x_i with learnt scalars w_i, all 1 at the start.

    Args:
        input_dims: width of each modality's features.
        dim: width of the sum. Features of another width are projected, without bias, first.
    """

    def __init__(self, input_dims: Sequence[int], dim: int) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        self.input_dims = tuple(input_dims)
        self.projections = nn.ModuleList(
            nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
            for width in input_dims
        )
        self.weights = nn.Parameter(torch.ones(len(input_dims)))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to their sum, (..., dim)."""
        features = without_absent(self, features, self.input_dims)
        projected = zip(self.weights, self.projections, features, strict=True)
        return sum(weight * projection(x) for weight, projection, x in projected)
