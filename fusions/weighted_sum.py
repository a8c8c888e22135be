"""Sums of features, plain and weighted."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .modalities import check_widths, finite, without_absent


class Sum(nn.Module):
    """Fuses features by their sum, the published fusion of MCAN (Yu et al., 2019).

    Args:
        input_dims: width of each modality's features.
        dim: width of the sum. Features of another width are projected, without bias, first;
            where all have it, the sum has no parameters.
    """

    def __init__(self, input_dims: Sequence[int], dim: int) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        self.input_dims = tuple(input_dims)
        self.projections = nn.ModuleList(
            nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
            for width in input_dims
        )

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to their sum, (..., dim).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (..., N) bool, the modalities that a sample has, one at least; the sum is
                over these.
        """
        return finite(sum(self._projected(features, present)))

    def _projected(self, features: Sequence[Tensor], present: Tensor | None) -> list[Tensor]:
        features = without_absent(self, features, self.input_dims, present)
        return [project(x) for project, x in zip(self.projections, features, strict=True)]


class WeightedSum(Sum):
    """Fuses features by sum_i w_i x_i with learnt scalars w_i, all 1 at the start.

    It is the baseline of the ablations of Ni et al. (2023), Table 5.

    Args:
        input_dims: see `Sum`.
        dim: likewise.
    """

    def __init__(self, input_dims: Sequence[int], dim: int) -> None:
        super().__init__(input_dims, dim)
        self.weights = nn.Parameter(torch.ones(len(input_dims)))

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features to their weighted sum, see `Sum.forward`."""
        projected = self._projected(features, present)
        return finite(sum(w * x for w, x in zip(self.weights, projected, strict=True)))
