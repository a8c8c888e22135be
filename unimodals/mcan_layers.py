"""The layers of MCAN (Yu et al., 2019): attention over tokens of which a mask says what is there.

Linear maps start as torch starts them. Tokens that are not there are never attended to; what a
layer returns in their places means nothing.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Tokens(NamedTuple):
    """The words of a question or the regions of an image.

    Attributes:
        states: (batch, n, dim).
        kept: (batch, n) bool, true where a token is none of padding, of which each sample must
            have one.
    """

    states: Tensor
    kept: Tensor


class LayerNorm(nn.Module):
    """Normalises over the last axis, gain * (x - mean) / (std + eps) + bias.

    The standard deviation is the unbiased one, and eps is added to it, not to the variance: that
    is what the authors' release has where `torch.nn.LayerNorm` differs.

    Args:
        dim: width of the last axis, at least 2.
        eps: what is added to the standard deviation.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"dim must be at least 2, got {dim}: one number has no deviation")
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        deviation = x - x.mean(-1, keepdim=True)
        return self.gain * deviation / (x.std(-1, keepdim=True) + self.eps) + self.bias


class MultiHeadAttention(nn.Module):
    """Attends from tokens to others, which are keys and values (Vaswani et al., 2017, 3.2).

        head_j = Dropout(softmax(Q_j K_j^T / sqrt(dim / heads))) V_j,    result = W [head_1 ...]

    with Q, K, V affine maps of width `dim`, cut into the heads.

    Args:
        dim: width of the tokens and of the result, divisible by `heads`.
        heads: number of heads.
        dropout: probability of dropout on the weights of attention.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(
                f"heads must divide the width of the tokens, got {heads} heads of {dim} wide tokens"
            )
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.merge = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, states: Tensor, context: Tokens) -> Tensor:
        """Maps states, (batch, n, dim), to what they find in the context, (batch, n, dim)."""
        found = F.scaled_dot_product_attention(
            self._heads(self.query(states)),
            self._heads(self.key(context.states)),
            self._heads(self.value(context.states)),
            attn_mask=context.kept[:, None, None],  # (batch, 1, 1, m)
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.merge(found.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, n, dim / heads)


class AttentionLayer(nn.Module):
    """The units SA and SGA (Yu et al., 2019, sections 3.1 and 3.2).

        x = LN(x + Dropout(attention of x to x))
        x = LN(x + Dropout(attention of x to the guide))          SGA alone
        x = LN(x + Dropout(W_2 Dropout(ReLU(W_1 x))))             W_1 maps to 4 dim

    Args:
        dim: width of the tokens.
        heads: number of heads of each attention.
        dropout: probability of dropout, also on the weights of attention.
        guided: whether the layer is SGA and takes a guide.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.1, guided: bool = False) -> None:
        super().__init__()
        attentions = 2 if guided else 1
        self.attentions = nn.ModuleList(
            MultiHeadAttention(dim, heads, dropout=dropout) for _ in range(attentions)
        )
        self.feed_forward = _mlp(dim, 4 * dim, dim, dropout)
        self.norms = nn.ModuleList(LayerNorm(dim) for _ in range(attentions + 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens, guide: Tokens | None = None) -> Tokens:
        """Maps tokens to tokens of the same shape; the guide, that of SGA, may be of any length."""
        if (guide is not None) != (len(self.attentions) == 2):
            raise ValueError(
                f"a guide must be given to a layer with guided=True and to no other, got "
                f"{'none' if guide is None else 'one'}"
            )
        x, kept = tokens
        contexts = (tokens,) if guide is None else (tokens, guide)
        *attended, last = self.norms
        for attention, context, norm in zip(self.attentions, contexts, attended, strict=True):
            x = norm(x + self.dropout(attention(x, context)))
        return Tokens(last(x + self.dropout(self.feed_forward(x))), kept)


class AttentionFlattening(nn.Module):
    """Tokens as one vector, by attention without a query (Yu et al., 2019, section 4.3).

        a = softmax_n(w^T Dropout(ReLU(U x_n + u)) + c),    result = W sum_n a_n x_n + b

    Args:
        dim: width of the tokens.
        out: width of the vector.
        hidden: rows of U, 512 as published.
        dropout: probability of dropout inside the attention.
    """

    def __init__(self, dim: int, out: int, *, hidden: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        self.score = _mlp(dim, hidden, 1, dropout)
        self.merge = nn.Linear(dim, out)

    def forward(self, tokens: Tokens) -> Tensor:
        """Maps tokens to (batch, out)."""
        scores = self.score(tokens.states).masked_fill(~tokens.kept[:, :, None], -float("inf"))
        return self.merge((scores.softmax(1) * tokens.states).sum(1))


def _mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
    )
