"""Encoders of sets and sequences without recurrence; `common_models` offers them as MultiBench."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .recurrent import padded_pair

HEADS = LAYERS = 5  # MultiBench's


class DAN(nn.Module):
    """Linear layers on the sum of embedded steps, (batch, time, indim) -> (batch, hiddim).

        h = A_n ... A_1 sum_t (E x_t + b)

    with affine maps A_i and no nonlinearity between them. Deep averaging networks (Iyyer et al.,
    2015, section 3) take the mean; the sum is that of Deep Sets (Zaheer et al., 2017, theorem 2).

    Args:
        indim: width of the input.
        hiddim: width of the embedding and of every layer.
        dropout: drop entries of the embedded steps and of every layer in training.
        dropoutp: share of the entries that is dropped.
        nlayers: number of layers after the sum.
        has_padding: take [padded, lengths]; steps beyond a sample's length do not count.
    """

    def __init__(
        self,
        indim: int,
        hiddim: int,
        dropout: bool = False,
        dropoutp: float = 0.25,
        nlayers: int = 3,
        has_padding: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(indim, hiddim)
        self.mlp = nn.ModuleList(nn.Linear(hiddim, hiddim) for _ in range(nlayers))
        self.dropout_layer = nn.Dropout(dropoutp)
        self.dropout = dropout
        self.nlayers = nlayers
        self.has_padding = has_padding

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        steps, lengths = padded_pair(x) if self.has_padding else (x, None)
        embedded = self.embedding(steps)
        if self.dropout:
            embedded = self.dropout_layer(embedded)
        if lengths is not None:
            embedded = embedded.masked_fill(_beyond(lengths, steps).unsqueeze(2), 0)
        out = embedded.sum(dim=1)
        for layer in self.mlp:
            out = layer(out)
            if self.dropout:
                out = self.dropout_layer(out)
        return out


def _beyond(lengths: Tensor, steps: Tensor) -> Tensor:
    """Returns which steps are padding, (batch, time)."""
    if lengths.shape != steps.shape[:1]:
        raise ValueError(
            f"lengths must have shape ({len(steps)},), one for each sample of the padded batch, "
            f"got {tuple(lengths.shape)}"
        )
    times = torch.arange(steps.shape[1], device=steps.device)
    return times >= lengths.to(steps.device).unsqueeze(1)


class Transformer(nn.Module):
    """The last step of a transformer encoder, (batch, time, n_features) -> (batch, dim).

    Every step is projected to `dim`, without bias, and passes five layers of five heads (Vaswani
    et al., 2017, section 3.1). There is no code of positions: the order of the steps before the
    last makes no difference. Of a list, as in padded batches, the first item is the input; no
    padding is masked.

    Args:
        n_features: width of the input.
        dim: width of the output, divisible by 5.
    """

    def __init__(self, n_features: int, dim: int) -> None:
        super().__init__()
        if dim % HEADS:
            raise ValueError(f"dim must be divisible by the {HEADS} heads, got {dim}")
        self.embed_dim = dim
        self.conv = nn.Conv1d(n_features, dim, kernel_size=1, bias=False)
        layer = nn.TransformerEncoderLayer(dim, nhead=HEADS)
        self.transformer = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        steps = x[0] if isinstance(x, (list, tuple)) else x
        embedded = self.conv(steps.transpose(1, 2)).permute(2, 0, 1)  # (time, batch, dim)
        return self.transformer(embedded)[-1]
