"""The gated multimodal unit (Arevalo et al., 2017, arXiv:1702.01992)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .modalities import check_widths, finite, without_absent


class GatedMultimodalUnit(nn.Module):
    """Fuses features by gates that see all modalities, x = [x_1; ...; x_N].

        two modalities:  h = z * tanh(W_1 x_1) + (1 - z) * tanh(W_2 x_2),    z = sigmoid(W_z x)
        otherwise:       h = sum_i z_i * tanh(W_i x_i),                    z_i = sigmoid(W_zi x)

    No map has a bias, as the paper writes them: a zero feature adds nothing to h and moves no
    gate. An absent modality is a zero feature. Of two modalities the other one then still
    passes its gate, so that h differs from that of a unit without the absent one by z alone.

    Args:
        input_dims: width of each modality's features.
        dim: width of the fused feature.
    """

    def __init__(self, input_dims: Sequence[int], dim: int) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        self.input_dims = tuple(input_dims)
        self.gates = 1 if len(input_dims) == 2 else len(input_dims)
        self.projections = nn.ModuleList(nn.Linear(d, dim, bias=False) for d in input_dims)
        self.gate = nn.Linear(sum(input_dims), self.gates * dim, bias=False)

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (..., N) bool, the modalities that a sample has, one at least.
        """
        features = without_absent(self, features, self.input_dims, present)
        h = [p(x).tanh() for p, x in zip(self.projections, features, strict=True)]
        z = self.gate(torch.cat(features, -1)).sigmoid().chunk(self.gates, -1)
        if len(h) == 2:
            return finite(z[0] * h[0] + (1 - z[0]) * h[1])
        return finite(sum(gate * x for gate, x in zip(z, h, strict=True)))
