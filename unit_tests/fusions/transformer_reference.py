"""Attention and its neighbours, written a second time for the tests: one sample, one head a time.

Sequences are (T, B, E), as PyTorch's attention has them without batch_first.
"""

import torch
from torch import Tensor, nn


def affine(layer: nn.Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def attention(module: nn.MultiheadAttention, query, key, value, causal=False) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V; a causal query t sees the keys up to t."""
    weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    width = module.embed_dim // module.num_heads
    result = torch.zeros_like(q)
    for sample in range(q.shape[1]):
        for first in range(0, module.embed_dim, width):
            head = slice(first, first + width)
            for t in range(len(q)):
                seen = t + 1 if causal else len(k)
                scores = k[:seen, sample, head] @ q[t, sample, head] / width**0.5
                shares = scores.exp() / scores.exp().sum()
                result[t, sample, head] = shares @ v[:seen, sample, head]
    return affine(module.out_proj, result)


def post_norm_layer(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """Self-attention and a network, each normalised after its residual, without dropout."""
    x = layer_norm(layer.norm1, x + attention(layer.self_attn, x, x, x))
    hidden = affine(layer.linear1, x).clamp_min(0)
    return layer_norm(layer.norm2, x + affine(layer.linear2, hidden))
