"""MUTAN, Tucker fusion with slices of bounded rank (Ben-younes et al., 2017, arXiv:1705.06676)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from .equilibrium import checks
from .modalities import check_widths, finite, still_finite, without_absent


class Mutan(nn.Module):
    """Fuses features by a sum of R products of linear maps.

        h_m = tanh(W_m dropout(x_m) + b_m),    z = sum_{r=1..R} prod_m (A_{r,m} h_m + a_{r,m})

    Two modalities as published, with the biases a of the authors' release; the product over
    more of them is the natural extension. (The release without attention has hidden = dim =
    360, R = 10 and dropout = 0.5; that with attention embeds outside: hidden = None, dim = 510,
    R = 5.)

    Args:
        input_dims: width of each modality's features.
        dim: width of the fused feature.
        hidden: width of every h_m; None: features are embedded already, h_m = dropout(x_m).
        rank: R, the number of products.
        dropout: probability of dropout, in training, on the features.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        hidden: int | None = 360,
        rank: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim, rank=rank)
        if hidden is not None:
            checks.check_count("hidden", hidden)
        checks.check_range("dropout", dropout, 0, 1)
        self.input_dims, self.rank = tuple(input_dims), rank
        self.dropout = nn.Dropout(dropout)
        self.projections = None
        if hidden is not None:
            self.projections = nn.ModuleList(nn.Linear(width, hidden) for width in input_dims)
            input_dims = [hidden] * len(input_dims)
        self.factors = nn.ModuleList(nn.Linear(width, rank * dim) for width in input_dims)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim)."""
        features = without_absent(self, features, self.input_dims)
        embedded = [self.dropout(x) for x in features]  # which scales what it keeps
        embedded = still_finite(features, embedded)
        if self.projections is not None:
            layers = zip(self.projections, embedded, strict=True)
            embedded = [project(x).tanh() for project, x in layers]
        terms = math.prod(factor(h) for factor, h in zip(self.factors, embedded, strict=True))
        return finite(terms.unflatten(-1, (self.rank, -1)).sum(-2))
