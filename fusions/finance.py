"""MultiBench's transformers for finance; `common_fusions` offers them under its import path."""

from torch import Tensor, nn

_HEADS, _LAYERS = 3, 3


def _encoder(embed_dim: int) -> nn.TransformerEncoder:
    """Three post-norm layers that attend in both directions, (time, batch, embed_dim)."""
    layer = nn.TransformerEncoderLayer(embed_dim, nhead=_HEADS)
    return nn.TransformerEncoder(layer, num_layers=_LAYERS, enable_nested_tensor=False)


class EarlyFusionTransformer(nn.Module):
    """A transformer over fused sequences, such as `Stack`'s, that ends in one number.

    It has no positional encoding: the order of the steps before the last is not seen.

    Args:
        n_features: width of a step.
    """

    embed_dim = 9

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_features, self.embed_dim, kernel_size=1, bias=False)
        self.transformer = _encoder(self.embed_dim)
        self.linear = nn.Linear(self.embed_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps one tensor (batch, time, n_features) to (batch, 1)."""
        if x.ndim != 3:
            raise ValueError(
                "EarlyFusionTransformer takes a tensor (batch, time, n_features), "
                f"got shape {tuple(x.shape)}"
            )
        steps = self.conv(x.transpose(1, 2)).permute(2, 0, 1)  # (time, batch, embed_dim)
        return self.linear(self.transformer(steps)[-1])


class LateFusionTransformer(nn.Module):
    """A transformer over one modality's entries, each a step, for fusion afterwards.

    Args:
        embed_dim: width of the result, a multiple of 3, the number of heads.
    """

    def __init__(self, embed_dim: int = 9) -> None:
        super().__init__()
        if embed_dim % _HEADS:
            raise ValueError(f"embed_dim must be a multiple of {_HEADS}, got {embed_dim}")
        self.embed_dim = embed_dim
        self.conv = nn.Conv1d(1, embed_dim, kernel_size=1, bias=False)
        self.transformer = _encoder(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps one tensor (batch, ...) to (batch, embed_dim)."""
        steps = self.conv(x.reshape(len(x), 1, -1)).permute(2, 0, 1)  # (time, batch, embed_dim)
        return self.transformer(steps)[-1]
