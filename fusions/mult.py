"""The multimodal transformer (Tsai et al., 2019), under MultiBench's names and signatures.

Parameters are drawn in MultiBench's order, so a seed gives the same ones, and state_dicts
cross in both directions. Dropout is off in evaluation.

Axis letters: B samples, T steps of the queries, S of the keys, E = embed_dim, M modalities.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modalities import check_tensors


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
        attn_dropout: share of the attention weights that is dropped in training.
        relu_dropout: that of the entries of the hidden layers.
        res_dropout: that of the entries of what is added to the residuals.
        embed_dropout: that of the entries of the embedded input.
        attn_mask: let no step attend to a later one.
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


def _encoder(dim: int, layers: int, attn_dropout: float, hyp_params: Any) -> TransformerEncoder:
    """An encoder of this width and depth, with the settings that all of them share."""
    return TransformerEncoder(
        dim,
        hyp_params.num_heads,
        layers,
        attn_dropout=attn_dropout,
        relu_dropout=hyp_params.relu_dropout,
        res_dropout=hyp_params.res_dropout,
        embed_dropout=hyp_params.embed_dropout,
        attn_mask=hyp_params.attn_mask,
    )


class MULTModel(nn.Module):
    """Fuses sequences of equal length: each attends to each, itself included, then to itself.

    Every modality is mapped to width E. For modality i, M transformers attend from it to the
    modalities j = 1, ..., M; their results, concatenated, pass a transformer of width M E that
    attends to itself. The last steps h of the M results, of width M^2 E together, give
    out(h + W_2 relu(W_1 h)).

    Args:
        n_modalities: number of modalities, M.
        n_features: width of each modality's steps.
        hyp_params: a class or an object with the attributes of `DefaultHyperParams`.
    """

    class DefaultHyperParams:
        """MultiBench's settings; derive from it to change some.

        Attributes:
            num_heads: attention heads; they must divide embed_dim.
            layers: layers of a cross-modal transformer; the last ones have at least 3.
            attn_dropout: share of attention weights dropped in the last transformers.
            attn_dropout_modalities: that in the transformers that attend to modality j.
            relu_dropout: share dropped of a hidden layer.
            res_dropout: that of what is added to a residual.
            out_dropout: that of the hidden layer before the output.
            embed_dropout: that of an embedded input.
            embed_dim: width E.
            attn_mask: let no step attend to a later one.
            output_dim: width of the output.
            all_steps: return the output of every step, not of the last one.
        """

        num_heads = 3
        layers = 3
        attn_dropout = 0.1
        attn_dropout_modalities = [0.0] * 1000
        relu_dropout = 0.1
        res_dropout = 0.1
        out_dropout = 0.0
        embed_dropout = 0.25
        embed_dim = 9
        attn_mask = True
        output_dim = 1
        all_steps = False

    def __init__(
        self, n_modalities: int, n_features: Sequence[int], hyp_params: Any = DefaultHyperParams
    ) -> None:
        super().__init__()
        source_dropouts = hyp_params.attn_dropout_modalities[:n_modalities]
        if not len(n_features) == len(source_dropouts) == n_modalities:
            raise ValueError(
                "n_features and attn_dropout_modalities must have an entry for each of "
                f"{n_modalities} modalities, got {len(n_features)} and {len(source_dropouts)}"
            )
        self.out_dropout, self.all_steps = hyp_params.out_dropout, hyp_params.all_steps
        width, layers = hyp_params.embed_dim, hyp_params.layers
        joint, combined = n_modalities * width, n_modalities**2 * width
        self.proj = nn.ModuleList(
            nn.Conv1d(features, width, kernel_size=1, bias=False) for features in n_features
        )
        self.trans = nn.ModuleList(
            nn.ModuleList(
                _encoder(width, layers, dropout, hyp_params) for dropout in source_dropouts
            )
            for _ in range(n_modalities)
        )
        self.trans_mems = nn.ModuleList(
            _encoder(joint, max(layers, 3), hyp_params.attn_dropout, hyp_params)
            for _ in range(n_modalities)
        )
        self.proj1 = nn.Linear(combined, combined)
        self.proj2 = nn.Linear(combined, combined)
        self.out_layer = nn.Linear(combined, hyp_params.output_dim)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Maps tensors (B, T, n_features[i]) to (B, output_dim); with all_steps, (B, T, ...)."""
        x = check_tensors(x)
        self._check(x)
        steps = [
            proj(v.transpose(1, 2)).permute(2, 0, 1)  # (T, B, E)
            for proj, v in zip(self.proj, x, strict=True)
        ]
        fused = []
        for target, across, memory in zip(steps, self.trans, self.trans_mems, strict=True):
            attended = [
                encode(target, source, source) for encode, source in zip(across, steps, strict=True)
            ]
            fused.append(memory(torch.cat(attended, dim=2)))
        last = torch.cat(fused, dim=2).transpose(0, 1)  # (B, T, M^2 E)
        if not self.all_steps:
            last = last[:, -1]
        hidden = F.dropout(self.proj1(last).relu(), self.out_dropout, self.training)
        return self.out_layer(last + self.proj2(hidden))

    def _check(self, x: Sequence[Tensor]) -> None:
        shapes, widths = [tuple(v.shape) for v in x], [proj.in_channels for proj in self.proj]
        if (
            any(len(shape) != 3 for shape in shapes)
            or [shape[2] for shape in shapes] != widths
            or len({shape[:2] for shape in shapes}) > 1
        ):
            raise ValueError(
                f"modalities must be (batch, time, n) with n = {widths} and one "
                f"batch and time for all, got shapes {shapes}; pad or align them first"
            )
