"""Attention bottlenecks, MBT (Nagrani et al., 2021, arXiv:2107.00135)."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .equilibrium import checks
from .modalities import check_widths, finite
from .tokens import as_tokens, sinusoids


class BottleneckTransformer(nn.Module):
    """Fuses sequences or vectors by Transformers that meet in a few shared tokens.

    A modality's tokens are z_i = [c_i; P_i x_i + b_i] plus the sines and cosines of their places,
    with a learnt c_i in front; a vector is one token beside it. A layer has a Transformer T_i
    for each modality. In the last `fusion_layers` layers each sees B bottleneck tokens b beside
    its own, learnt at the start, and what it makes of them is averaged:

        [z_i; b_i] = T_i([z_i; b]),    b = mean of b_i over the modalities that are present

    (equations 8 and 9). In the layers before, z_i = T_i(z_i). The result is the mean over
    those present of the c_i, normalised: a linear head on it is the mean of the heads that the
    paper has on each. T_i are attention of several heads and two linear maps of hidden width
    4 dim with a GELU between, each after a layer norm and added to its input.

    Args:
        input_dims: width of each modality's features.
        dim: width of the tokens and of the fused feature.
        bottlenecks: B.
        layers: of every modality's Transformer.
        fusion_layers: how many of them, the last, have the bottleneck; None: all.
        heads: of the attention; they divide dim.
        dropout: probability of dropout, in training, inside the layers.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        bottlenecks: int = 4,
        layers: int = 2,
        fusion_layers: int | None = None,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        fusion_layers = layers if fusion_layers is None else fusion_layers
        counts = {"bottlenecks": bottlenecks, "layers": layers, "fusion_layers": fusion_layers}
        check_widths(input_dims, dim=dim, **counts)
        if fusion_layers > layers:
            raise ValueError(
                f"fusion_layers must be at most layers (={layers}), got {fusion_layers}"
            )
        checks.check_groups("heads", heads, dim)
        checks.check_range("dropout", dropout, 0, 1)
        n = len(input_dims)
        self.input_dims, self.fusion_layers = tuple(input_dims), fusion_layers
        self.projections = nn.ModuleList(nn.Linear(width, dim) for width in input_dims)
        self.classes = nn.Parameter(0.02 * torch.randn(n, dim))
        self.bottleneck = nn.Parameter(0.02 * torch.randn(bottlenecks, dim))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                nn.TransformerEncoderLayer(
                    dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True
                )
                for _ in range(n)
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, (batch, d_i) or (batch, time_i, d_i) each, to (batch, dim).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (batch, N) bool, the modalities that a sample has, one at least; of a
                sequence all of it is absent.
        """
        sequences = as_tokens(self, features, self.input_dims, present)
        batch = len(sequences[0])
        z = [self._tokens(i, x) for i, x in enumerate(sequences)]
        share = z[0].new_ones(batch, len(z)) if present is None else present.to(z[0].dtype)
        share = share / share.sum(-1, keepdim=True)  # (batch, N), 0 where absent
        b = self.bottleneck.expand(batch, -1, -1)
        for depth, layer in enumerate(cast(Iterable[nn.ModuleList], self.layers)):
            if depth < len(self.layers) - self.fusion_layers:
                z = [transformer(x) for transformer, x in zip(layer, z, strict=True)]
                continue
            wide = [t(torch.cat([x, b], 1)) for t, x in zip(layer, z, strict=True)]
            counts = [x.shape[1] for x in z]
            z = [x[:, :count] for x, count in zip(wide, counts, strict=True)]
            b = _mean([x[:, count:] for x, count in zip(wide, counts, strict=True)], share)
        return finite(_mean([self.norm(x[:, :1]) for x in z], share).squeeze(1))

    def _tokens(self, i: int, x: Tensor) -> Tensor:
        """Returns the tokens of modality i, (batch, 1 + time, dim), of x (batch, time, d_i)."""
        first = self.classes[i].expand(len(x), 1, -1)
        tokens = torch.cat([first, self.projections[i](x)], 1)
        return tokens + sinusoids(tokens.shape[1], tokens)


def _mean(each: Sequence[Tensor], share: Tensor) -> Tensor:
    """Returns the mean of N tensors (batch, tokens, dim) with the shares (batch, N)."""
    return torch.einsum("nbtd,bn->btd", torch.stack(list(each)), share)
