"""The question encoder of Mutan: skip-thought's GRU with dropout that is fixed over time."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .vqa import PAD

GATES = 3  # reset, update and new state, in this order


class SkipThought(nn.Module):
    """A question as the state of a GRU after its last word (Kiros et al., 2015).

    With the word's vector x, the state h before it and dropout masks m, drawn once a forward,

        r = sigmoid(W_r (m_1 * x) + b_r + U_r (m_4 * h))
        i = sigmoid(W_i (m_2 * x) + b_i + U_i (m_5 * h))
        n = tanh(W_n (m_3 * x) + b_n + r * U_n (m_6 * h))
        h <- (1 - i) * n + i * h

    The masks are those of Gal and Ghahramani (2016), one for each matrix, which the release of
    Mutan adds (Ben-younes et al., 2017); sizes and dropout are its.

    Args:
        words: size of the vocabulary, padding included.
        dim: width of the state.
        embedding: width of a word's vector.
        dropout: probability of dropout, in training.
        weights: what to start from, arrays or tensors by the names and in the layout of the
            skip-thoughts release (`uni_skip.npz`): `encoder_W` (embedding, 2 dim) and
            `encoder_U` (dim, 2 dim), reset before update, with `encoder_b` (2 dim,); `encoder_Wx`
            (embedding, dim) and `encoder_Ux` (dim, dim) with `encoder_bx` (dim,); and beside
            them `embedding` (words, embedding), a row for each word of this vocabulary. Other
            names are left alone. None: drawn at random.

    Raises:
        ValueError: if `weights` lack one of these, or have it in another shape.
    """

    def __init__(
        self,
        words: int,
        dim: int = 2400,
        *,
        embedding: int = 620,
        dropout: float = 0.25,
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.words, self.dim = words, dim
        self.embedding = nn.Embedding(words, embedding, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.inputs = nn.ModuleList(nn.Linear(embedding, dim) for _ in range(GATES))
        self.recurrent = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(GATES))
        if weights is not None:
            self._load(weights)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (batch, length) int64 to (batch, dim).

        Padding, 0, is passed over wherever it stands; the state of a question without words is
        zero.

        Raises:
            ValueError: for tokens of another shape or type, or beyond the vocabulary.
        """
        _check_tokens(tokens, self.words)
        tokens = tokens[:, (tokens != PAD).any(dim=0)]  # no step for what pads every question
        kept, vectors = (tokens != PAD).unsqueeze(2), self.embedding(tokens)
        state = vectors.new_zeros(len(tokens), self.dim)
        inputs = _masked(self.inputs, vectors, self._masks(vectors[:, :1]))
        masks = self._masks(state)
        for t in range(tokens.shape[1]):
            x_r, x_i, x_n = (x[:, t] for x in inputs)
            h_r, h_i, h_n = _masked(self.recurrent, state, masks)
            reset, update = (x_r + h_r).sigmoid(), (x_i + h_i).sigmoid()
            new = (1 - update) * (x_n + reset * h_n).tanh() + update * state
            state = torch.where(kept[:, t], new, state)
        return state

    def _masks(self, like: Tensor) -> list[Tensor]:
        return [self.dropout(torch.ones_like(like)) for _ in range(GATES)]

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Any]) -> None:
        words, width, dim = *self.embedding.weight.shape, self.dim
        shapes = {
            "embedding": (words, width),
            "encoder_W": (width, 2 * dim),
            "encoder_U": (dim, 2 * dim),
            "encoder_b": (2 * dim,),
            "encoder_Wx": (width, dim),
            "encoder_Ux": (dim, dim),
            "encoder_bx": (dim,),
        }
        given = {name: torch.as_tensor(weights[name]) for name in shapes if name in weights}
        for name, shape in shapes.items():
            if name not in given or tuple(given[name].shape) != shape:
                came = f"of shape {tuple(given[name].shape)}" if name in given else "none"
                raise ValueError(
                    f"weights must have {name!r} of shape {shape}, got {came}; choose `words`, "
                    f"`embedding` and `dim` to fit the weights, which must have {list(shapes)}"
                )
        self.embedding.weight.copy_(given["embedding"])
        for layers, letter in ((self.inputs, "W"), (self.recurrent, "U")):
            gates = torch.cat([given[f"encoder_{letter}"], given[f"encoder_{letter}x"]], dim=1)
            for layer, weight in zip(layers, gates.T.split(dim), strict=True):
                layer.weight.copy_(weight)
        biases = torch.cat([given["encoder_b"], given["encoder_bx"]]).split(dim)
        for layer, bias in zip(self.inputs, biases, strict=True):
            layer.bias.copy_(bias)


def _masked(layers: nn.ModuleList, x: Tensor, masks: list[Tensor]) -> list[Tensor]:
    return [layer(x * mask) for layer, mask in zip(layers, masks, strict=True)]


def _check_tokens(tokens: Tensor, words: int) -> None:
    if tokens.dim() != 2 or tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"tokens must be (batch, length) integers, got {tuple(tokens.shape)} of "
            f"{tokens.dtype}; pass on the numbers of the words"
        )
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < words:
        raise ValueError(
            f"tokens must be from 0 to {words - 1}, one of `words`, got {int(tokens.min())} to "
            f"{int(tokens.max())}; encode the questions with the vocabulary the model is built for"
        )
