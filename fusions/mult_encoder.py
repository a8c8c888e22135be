"""Transformers that attend from one sequence to another; `mult` offers them under its path.

Axis letters: B samples, T steps of the queries, S of the keys, E = embed_dim.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fill_with_neg_inf(t: Tensor) -> Tensor:
    """Returns minus infinity in the shape, dtype and place of `t`."""
    return torch.full_like(t, -math.inf)


def buffered_future_mask(tensor: Tensor, tensor2: Tensor | None = None) -> Tensor:
    """Returns what to add to attention scores so that no step sees a later one.

    Nothing is buffered; the name is MultiBench's.

    Args:
        tensor: queries, (T, ...).
        tensor2: keys, (S, ...); None for the queries. Where S is not T, step t sees the keys
            up to t + |S - T|.
    """
    queries, keys = len(tensor), len(tensor if tensor2 is None else tensor2)
    blocked = fill_with_neg_inf(tensor.new_empty(queries, keys))
    return blocked.triu(1 + abs(keys - queries))


def Linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """A linear layer with uniform weights (Glorot and Bengio, 2010) and no bias at the start."""
    layer = nn.Linear(in_features, out_features, bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def LayerNorm(embedding_dim: int) -> nn.LayerNorm:
    """A layer normalisation of the last dimension."""
    return nn.LayerNorm(embedding_dim)


def make_positions(tensor: Tensor, padding_idx: int, left_pad: int | bool) -> Tensor:
    """Numbers the steps of sequences, (B, T), from padding_idx + 1 on.

    Entries equal to padding_idx are padding and get that number. With `left_pad` the count of
    a sequence starts after as many steps as it has padding; otherwise at its first step.
    """
    real = tensor != padding_idx
    positions = torch.arange(tensor.shape[1], device=tensor.device) + padding_idx + 1
    if left_pad:
        positions = positions - (~real).sum(dim=1, keepdim=True)
    return torch.where(real, positions, padding_idx)


class SinusoidalPositionalEmbedding(nn.Module):
    """Sines and cosines of the position of each step (Vaswani et al., 2017, section 3.5).

    Args:
        embedding_dim: width E; the sines come first, and a zero last if it is odd.
        padding_idx: the entry that means padding, whose embedding is zero.
        left_pad: whether padding comes before the sequence.
    """

    def __init__(self, embedding_dim: int, padding_idx: int = 0, left_pad: int | bool = 0) -> None:
        super().__init__()
        self.embedding_dim, self.padding_idx, self.left_pad = embedding_dim, padding_idx, left_pad
        self.register_buffer("_float_tensor", torch.zeros(1))  # for MultiBench's files only

    @staticmethod
    def get_embedding(
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Returns the embeddings of the first positions, (num_embeddings, embedding_dim)."""
        half = embedding_dim // 2
        step = -math.log(10000) / max(half - 1, 1)
        frequencies = torch.exp(torch.arange(half, device=device) * step)
        angles = torch.arange(num_embeddings, device=device)[:, None] * frequencies
        table = F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, embedding_dim % 2))
        if padding_idx is not None:
            table[padding_idx] = 0
        return table

    def forward(self, input: Tensor) -> Tensor:
        """Maps the entries that tell padding from steps, (B, T), to (B, T, E)."""
        table = self.get_embedding(
            self.padding_idx + 1 + input.shape[1],
            self.embedding_dim,
            self.padding_idx,
            input.device,
        )
        positions = make_positions(input, self.padding_idx, self.left_pad)
        return table.to(input)[positions] if input.is_floating_point() else table[positions]


class TransformerEncoderLayer(nn.Module):
    """Attention and a feed-forward network of width 4 E, each normalised before and residual.

    Args:
        embed_dim: width E, a multiple of `num_heads`.
        num_heads: attention heads.
        attn_dropout: share of the attention weights that is dropped in training.
        relu_dropout: that of the entries of the hidden layer.
        res_dropout: that of the entries of what is added to the residual.
        attn_mask: let no step attend to a later one.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 4,
        attn_dropout: float = 0.1,
        relu_dropout: float = 0.1,
        res_dropout: float = 0.1,
        attn_mask: bool = False,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"the width must be a multiple of num_heads={num_heads}, got {embed_dim}; "
                "choose another embed_dim or num_heads"
            )
        self.self_attn = nn.MultiheadAttention(embed_dim, num_heads, dropout=attn_dropout)
        self.relu_dropout, self.res_dropout = relu_dropout, res_dropout
        self.attn_mask = attn_mask
        self.fc1 = Linear(embed_dim, 4 * embed_dim)
        self.fc2 = Linear(4 * embed_dim, embed_dim)
        self.layer_norms = nn.ModuleList(LayerNorm(embed_dim) for _ in range(2))

    def forward(self, x: Tensor, x_k: Tensor | None = None, x_v: Tensor | None = None) -> Tensor:
        """Maps x, (T, B, E), to its shape; keys and values, (S, B, E), are x where None."""
        before_attention, before_network = self.layer_norms
        query = before_attention(x)
        key, value = (query if y is None else before_attention(y) for y in (x_k, x_v))
        mask = buffered_future_mask(query, key) if self.attn_mask else None
        # asked for the weights, attention can be differentiated twice; its fused kernels cannot
        attended, _ = self.self_attn(
            query, key, value, attn_mask=mask, need_weights=True, average_attn_weights=False
        )
        x = x + F.dropout(attended, self.res_dropout, self.training)
        hidden = F.dropout(self.fc1(before_network(x)).relu(), self.relu_dropout, self.training)
        return x + F.dropout(self.fc2(hidden), self.res_dropout, self.training)


class TransformerEncoder(nn.Module):
    """Layers of self-attention, or of attention to another sequence, and a normalisation.

    A step whose first feature is exactly 0 counts as padding and gets no position.

    Args:
        embed_dim: width E, a multiple of `num_heads`.
        num_heads: attention heads.
        layers: number of layers.
        attn_dropout, relu_dropout, res_dropout, attn_mask: those of the layers.
        embed_dropout: share of the entries of the embedded input dropped in training.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        layers: int,
        attn_dropout: float = 0.0,
        relu_dropout: float = 0.0,
        res_dropout: float = 0.0,
        embed_dropout: float = 0.0,
        attn_mask: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = embed_dropout
        self.embed_scale = math.sqrt(embed_dim)
        self.embed_positions = SinusoidalPositionalEmbedding(embed_dim)
        dropouts = attn_dropout, relu_dropout, res_dropout
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(embed_dim, num_heads, *dropouts, attn_mask)
            for _ in range(layers)
        )
        self.register_buffer("version", torch.tensor([2.0]))  # for MultiBench's files only
        self.layer_norm = LayerNorm(embed_dim)

    def forward(
        self, x_in: Tensor, x_in_k: Tensor | None = None, x_in_v: Tensor | None = None
    ) -> Tensor:
        """Maps x_in, (T, B, E), to its shape; keys and values, (S, B, E), are x where None."""
        x = self._embed(x_in)
        k, v = (None if y is None else self._embed(y) for y in (x_in_k, x_in_v))
        for layer in self.layers:
            x = layer(x, k, v)
        return self.layer_norm(x)

    def _embed(self, x: Tensor) -> Tensor:
        positions = self.embed_positions(x[..., 0].T).transpose(0, 1)
        return F.dropout(self.embed_scale * x + positions, self.dropout, self.training)
