"""Long short-term hybrid memories (LSTHM): an LSTM for each modality, with a code that all read."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LSTHM(nn.Module):
    """A system of LSTMs, one a modality, that may read a code z of all modalities as well.

        i, f, o = sigmoid(W x_t + U h_{t-1} + V z_{t-1} + b)   a slice each
              g =    tanh(W x_t + U h_{t-1} + V z_{t-1} + b)
            c_t = f c_{t-1} + i g,    h_t = o tanh(c_t)

    for every modality m, with W, U, V, b of its own (Zadeh et al., 2018, "Multi-attention
    Recurrent Network for Human Communication Comprehension", section "Long-short Term Hybrid
    Memory"). Without a code these are plain LSTMs.

    The states of all modalities lie side by side. Their recurrent maps are one matrix for it,
    with the U of the modalities as blocks on the diagonal and V beside them, so that a step has
    one product; what the inputs add is computed for all steps before, see `inputs_of`.

    Args:
        input_dims: width of each modality's steps, d_m.
        hidden: width of each modality's state, h_m; H is their sum.
        code: width of z; 0: there is none.
    """

    def __init__(self, input_dims: Sequence[int], hidden: Sequence[int], code: int = 0) -> None:
        super().__init__()
        self.hidden, self.code_width = tuple(hidden), code
        pairs = zip(input_dims, hidden, strict=True)
        self.inputs = nn.ParameterList(torch.empty(4, h, d) for d, h in pairs)
        self.bias = nn.ParameterList(torch.empty(4, h) for h in hidden)
        self.recurrent = nn.ParameterList(torch.empty(4, h, h) for h in hidden)
        self.code = nn.ParameterList(torch.empty(4, h, code) for h in hidden if code)
        self.reset_parameters()

    @property
    def width(self) -> int:
        """Width H of all states together."""
        return sum(self.hidden)

    def reset_parameters(self) -> None:
        """Draws weights as torch's LSTM does; forget gates begin open, with a bias of 1."""
        for weight in (*self.inputs, *self.recurrent, *self.code):
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
        for bias in self.bias:
            nn.init.zeros_(bias)
            nn.init.ones_(bias[1])

    def inputs_of(self, steps: Sequence[Tensor]) -> Tensor:
        """Maps the inputs, (..., batch, d_m) each, to W x + b, (..., batch, 4 H), of all steps."""
        parts = [
            nn.functional.linear(x, w.flatten(0, 1), b.flatten()).unflatten(-1, b.shape)
            for x, w, b in zip(steps, self.inputs, self.bias, strict=True)
        ]
        return torch.cat(parts, -1).flatten(-2)

    def matrix(self) -> Tensor:
        """Returns [U V] of all modalities, transposed: (H + code, 4 H)."""
        blocks = [torch.block_diag(*gate) for gate in zip(*self.recurrent, strict=True)]
        u = torch.cat(blocks).t()  # (H, 4 H)
        if not self.code_width:
            return u
        return torch.cat([u, torch.cat(list(self.code), 1).flatten(0, 1).t()])

    def start(self, like: Tensor) -> Tensor:
        """Returns states of zeros, (batch, H), for inputs (time, batch, ...)."""
        return like.new_zeros(like.shape[1], self.width)


def lstm_step(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (h_t, c_t) of an LSTM for the sums [i f o g] of its gates, (..., 4 H)."""
    opened, candidate = gates.split([3 * c.shape[-1], c.shape[-1]], -1)
    i, f, o = opened.sigmoid().chunk(3, -1)
    c = torch.addcmul(i * candidate.tanh(), f, c)
    return o * c.tanh(), c
