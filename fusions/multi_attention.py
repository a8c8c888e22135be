"""MARN: hybrid memories of the modalities, whose code is made by several attentions at once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .aligned import aligned_steps, checked_width, widths_or_shares
from .equilibrium import checks
from .lsthm import LSTHM, lstm_step
from .modalities import check_widths, finite
from .two_layers import TwoLayers


class MultiAttentionRecurrence(nn.Module):
    """The multi-attention recurrent network: K attentions find what the modalities share.

    Each modality has an LSTHM, an LSTM that reads the code z_{t-1}, too (see `LSTHM`). Of their
    outputs h_t = [h_t^1; ...; h_t^N], of width H together, the multi-attention block makes the
    next code:

        a^1, ..., a^K = softmax of each of the K slices of A(h_t)      each of width H
        s^m = relu(C_m [(a^1 h_t)^m; ...; (a^K h_t)^m])                of the entries of modality m
        z_t = tanh(G [s^1; ...; s^N])
        fused = relu(W [h_T; z_T] + b)

    (Zadeh et al., 2018, "Multi-attention Recurrent Network for Human Communication
    Comprehension", algorithm 1.) The paper leaves the layers of A, C_m and G open: A has one
    hidden layer, C_m and G are affine maps with the nonlinearities above.

    Args:
        input_dims: width of each modality's steps.
        dim: width of the result.
        hidden: width of each modality's LSTHM; None shares out `dim`.
        attentions: their number, K.
        attention: hidden width of A; None: `dim`.
        local: width of each modality's s; None: as `hidden`.
        code: width of z; None: that of all states, H, as in the paper.
        dropout: share dropped of A's hidden layer and of the result, in training.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        hidden: Sequence[int] | None = None,
        attentions: int = 4,
        attention: int | None = None,
        local: Sequence[int] | None = None,
        code: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        hidden = widths_or_shares("hidden", hidden, dim, input_dims)
        local = widths_or_shares("local", hidden if local is None else local, dim, input_dims)
        width = sum(hidden)
        checks.check_width("attentions", attentions)
        attention = checked_width("attention", attention, dim)
        code = checked_width("code", code, width)
        self.input_dims, self.attentions = tuple(input_dims), attentions
        self.lsthm = LSTHM(input_dims, hidden, code)
        self.attention = TwoLayers(width, attention, attentions * width, dropout=dropout)
        self.local = nn.ParameterList(
            torch.empty(s, attentions, h) for h, s in zip(hidden, local, strict=True)
        )
        self.local_bias = nn.ParameterList(torch.empty(s) for s in local)
        for weight, bias in zip(self.local, self.local_bias, strict=True):
            bound = weight[0].numel() ** -0.5  # as in nn.Linear
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)
        self.code = nn.Sequential(nn.Linear(sum(local), code), nn.Tanh())
        self.output = nn.Sequential(nn.Linear(width + code, dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps sequences (batch, time, d_i), or vectors (batch, d_i), to (batch, dim).

        Every step counts, padding as well: there is no mask.
        """
        inputs = self.lsthm.inputs_of(aligned_steps(self, features, self.input_dims))
        matrix, local = self.lsthm.matrix(), self._local()
        c = self.lsthm.start(inputs)
        state = c.new_zeros(len(c), len(matrix))  # [h_0; z_0]
        for x in inputs:
            h, c = lstm_step(torch.addmm(x, state, matrix), c)
            state = torch.cat([h, self._code(h, *local)], -1)
        return finite(self.output(state))

    def _code(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Returns z_t, (batch, code), for h_t, (batch, H)."""
        scores = self.attention(h).unflatten(-1, (self.attentions, -1))  # (batch, K, H)
        attended = scores.softmax(-1) * h.unsqueeze(1)
        return self.code(torch.addmm(bias, attended.flatten(1), weight).relu())

    def _local(self) -> tuple[Tensor, Tensor]:
        """Returns all C_m as one matrix, (K H, sum of local), and its bias.

        The rows of an attention lie together, as what it attended to does, and among them those of
        modality m have a block in the columns of s^m.
        """
        blocks = [torch.block_diag(*(w[:, k] for w in self.local)) for k in range(self.attentions)]
        return torch.cat(blocks, 1).t(), torch.cat(list(self.local_bias))
