"""The equilibrium beside what it is made of: a fusion that can always fall back on that."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deq_fusion.examples.studies.candidates.depth import SHALLOW, UNROLLED, Candidate

GAMMA = 0.1  # at the start


class AddedToSum(Candidate):
    """The weighted sum of the features with the equilibrium added: s + gamma z, s = sum_i w_i y_i.

    gamma is a learnt vector, 0.1 at the start; with gamma = 0 this is the weighted sum. The
    y_i = P_i x_i and the w_i are those of x_fuse in DEQ fusion (Ni et al., 2023, equation 12), and
    not brought to unit scale in s.

    Args:
        input_dims: width of each modality's features.
        dim: width of the fused feature.
        options: of `DEQFusion`.
    """

    def __init__(self, input_dims: Sequence[int], dim: int, **options: Any) -> None:
        super().__init__(input_dims, dim, **options)
        self.gamma = nn.Parameter(torch.full((dim,), GAMMA))

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: see `DEQFusion.forward`.
            present: (..., N) bool, the modalities that a sample has; others add nothing.
        """
        y, weights = self.projected(features, present), self.deq.weights
        weighted = y if weights is None else [w * x for w, x in zip(weights, y, strict=True)]
        return sum(weighted) + self.gamma * self.equilibrium(features, present)


class AddedToSumUnrolled(AddedToSum):
    """Its control with the map unrolled."""

    depth = UNROLLED


class AddedToSumShallow(AddedToSum):
    """Its control without recurrence."""

    depth = SHALLOW


class BesideFeatures(Candidate):
    """Features and equilibrium side by side: [x_1; ...; x_N; z]; without z, concatenation.

    It is wider than dim, the width of z; `beside_features` builds it, and says how wide. Its
    options are those of `DEQFusion`.
    """

    @property
    def width(self) -> int:
        """The width of the fused feature, sum_i d_i + dim."""
        return sum(self.input_dims) + self.dim

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to (..., sum_i d_i + dim).

        Args:
            features: see `DEQFusion.forward`.
            present: (..., N) bool, the modalities that a sample has; others are zeros.
        """
        z = self.equilibrium(features, present)
        if present is not None:
            here = present.unsqueeze(-1).unbind(-2)
            features = [torch.where(p, x, 0) for p, x in zip(here, features, strict=True)]
        return torch.cat([*features, z], -1)


class BesideFeaturesUnrolled(BesideFeatures):
    """Its control with the map unrolled."""

    depth = UNROLLED


class BesideFeaturesShallow(BesideFeatures):
    """Its control without recurrence."""

    depth = SHALLOW


def beside_features(
    input_dims: Sequence[int], dim: int, **options: Any
) -> tuple[BesideFeatures, int]:
    """Returns a `BesideFeatures` and its width."""
    fusion = BesideFeatures(input_dims, dim, **options)
    return fusion, fusion.width


def beside_features_unrolled(
    input_dims: Sequence[int], dim: int, **options: Any
) -> tuple[BesideFeatures, int]:
    """Returns a `BesideFeaturesUnrolled` and its width."""
    fusion = BesideFeaturesUnrolled(input_dims, dim, **options)
    return fusion, fusion.width


def beside_features_shallow(
    input_dims: Sequence[int], dim: int, **options: Any
) -> tuple[BesideFeatures, int]:
    """Returns a `BesideFeaturesShallow` and its width."""
    fusion = BesideFeaturesShallow(input_dims, dim, **options)
    return fusion, fusion.width
