"""SimBaMM, a simple baseline for multimodal learning (Rheude et al., 2025, arXiv:2512.22991).

The paper's comparison of nineteen methods found none that reliably beats it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .equilibrium import checks
from .modalities import check_widths, finite, without_absent
from .tokens import sinusoids


class SimBaMM(nn.Module):
    """Fuses features by a Transformer over one token for each modality and a learnt one.

    The tokens are t_0, learnt, and t_i = P_i x_i + b_i, to each of which the sines and cosines of
    its place i are added. They pass `layers` encoder layers, whose two parts (attention of
    several heads; two linear maps with a ReLU between) are each added to their input and
    normalised after that. What t_0 has become is the fused feature. An absent modality's token
    is masked: nothing attends to it.

    That is the variant with one token a modality, SimBaMM_CLS, and the authors' release. It
    differs from `TokenAttention` by the norm behind each part, fixed places, and its size.

    Args:
        input_dims: width of each modality's features.
        dim: width of the tokens and of the fused feature.
        heads: of the attention; they divide dim.
        layers: encoder layers.
        hidden: width between the two linear maps; by default half of dim, as released.
        dropout: probability of dropout, in training, inside the layers.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        heads: int = 4,
        layers: int = 4,
        hidden: int | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        hidden = max(1, dim // 2) if hidden is None and isinstance(dim, int) else hidden
        check_widths(input_dims, dim=dim, layers=layers, hidden=hidden)
        checks.check_groups("heads", heads, dim)
        checks.check_range("dropout", dropout, 0, 1)
        self.input_dims = tuple(input_dims)
        self.projections = nn.ModuleList(nn.Linear(width, dim) for width in input_dims)
        self.token = nn.Parameter(0.02 * torch.randn(dim))
        # a list, since nn.TransformerEncoder copies one layer and its weights
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, hidden, dropout, batch_first=True)
            for _ in range(layers)
        )

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: floating-point tensors in the order of `input_dims`; every position of
                their leading dimensions is a sample of its own.
            present: (..., N) bool, the modalities that a sample has, one at least.
        """
        features = without_absent(self, features, self.input_dims, present, normed=True)
        leading = features[0].shape[:-1]
        projected = [p(x) for p, x in zip(self.projections, features, strict=True)]
        tokens = torch.stack(projected, -2).flatten(0, -3)  # (B, N, dim)
        tokens = torch.cat([self.token.expand(len(tokens), 1, -1), tokens], 1)
        tokens = tokens + sinusoids(tokens.shape[1], tokens)
        absent = None
        if present is not None:
            absent = nn.functional.pad(~present.flatten(0, -2), (1, 0), value=False)
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=absent)
        return finite(tokens[:, 0].view(*leading, -1))
