"""EmbraceNet (Choi and Lee, 2019, arXiv:1904.09078): every entry comes from one modality."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .modalities import check_widths, finite, without_absent


class EmbraceNet(nn.Module):
    """Fuses features by taking each entry from a modality that is drawn for it.

        d_i = relu(W_i x_i + b_i)                       the docking layers
        fused[j] = d_{k_j}[j],    k_j drawn from the modalities that are present, each as likely

    Every sample draws anew, in training; so each modality must learn to do without the others.
    In evaluation the fused feature is its expectation, the mean of the d_i that are present: the
    authors draw then, too, and the same sample would not get the same prediction twice.

    Args:
        input_dims: width of each modality's features.
        dim: width of the fused feature.
    """

    def __init__(self, input_dims: Sequence[int], dim: int) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        self.input_dims, self.dim = tuple(input_dims), dim
        self.docking = nn.ModuleList(nn.Linear(width, dim) for width in input_dims)

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (..., N) bool, the modalities that a sample has, one at least.
        """
        features = without_absent(self, features, self.input_dims, present)
        docked = [dock(x).relu() for dock, x in zip(self.docking, features, strict=True)]
        d = torch.stack(docked, -1).to(next(self.parameters()).dtype)  # (..., dim, N)
        chances = torch.ones_like(d[..., 0, :]) if present is None else present.to(d.dtype)
        if not self.training:
            shares = chances / chances.sum(-1, keepdim=True)
            return finite((d * shares.unsqueeze(-2)).sum(-1))
        rows = chances.reshape(-1, len(features))
        drawn = torch.multinomial(rows, self.dim, replacement=True).view(d.shape[:-1])
        return finite(d.gather(-1, drawn.unsqueeze(-1)).squeeze(-1))
