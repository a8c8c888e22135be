"""Fusion by self-attention over one token for each modality (Vaswani et al., 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .equilibrium import checks
from .modalities import check_widths, finite, without_absent


class TokenAttention(nn.Module):
    """Fuses features by a transformer encoder that a learnt token reads them with.

    The tokens are t_0, a learnt one, and t_i = P_i x_i + p_i with a learnt position p_i. They
    pass `layers` encoder layers (multi-head attention and two linear maps of hidden width
    4 dim with a ReLU between, each after a layer norm and added to its input) and a last layer
    norm; what t_0 has become is the fused feature. (arXiv:1706.03762, equation 1 and section
    3, with the norm before each part, not behind it.)

    Args:
        input_dims: width of each modality's features.
        dim: width of the tokens and of the fused feature.
        heads: of the attention; they divide dim.
        layers: encoder layers.
        dropout: probability of dropout, in training, inside the layers.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        heads: int = 4,
        layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim, layers=layers)
        checks.check_groups("heads", heads, dim)
        checks.check_range("dropout", dropout, 0, 1)
        self.input_dims = tuple(input_dims)
        self.projections = nn.ModuleList(nn.Linear(d, dim, bias=False) for d in input_dims)
        self.positions = nn.Parameter(0.02 * torch.randn(len(input_dims), dim))
        self.token = nn.Parameter(0.02 * torch.randn(dim))
        # a list, since nn.TransformerEncoder copies one layer and its weights
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: floating-point tensors in the order of `input_dims`; every position of
                their leading dimensions is a sample of its own.
            present: (..., N) bool, the modalities that a sample has, one at least; no token
                attends to the others.
        """
        features = without_absent(self, features, self.input_dims, present, normed=True)
        leading = features[0].shape[:-1]
        projected = [p(x) for p, x in zip(self.projections, features, strict=True)]
        tokens = (torch.stack(projected, -2) + self.positions).flatten(0, -3)  # (B, N, dim)
        tokens = torch.cat([self.token.expand(len(tokens), 1, -1), tokens], 1)
        absent = None
        if present is not None:
            absent = nn.functional.pad(~present.flatten(0, -2), (1, 0), value=False)
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=absent)
        return finite(self.norm(tokens[:, 0]).view(*leading, -1))
