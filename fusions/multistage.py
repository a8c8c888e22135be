"""RMFN: hybrid memories of the modalities, whose code is fused in several stages."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .aligned import aligned_steps, checked_width, widths_or_shares
from .equilibrium import checks
from .lsthm import LSTHM, lstm_step
from .modalities import check_widths, finite


class MultistageRecurrence(nn.Module):
    """The recurrent multistage fusion network: at each step K stages highlight, then fuse.

    Each modality has an LSTHM, an LSTM that reads the code z_{t-1}, too (see `LSTHM`). Of their
    outputs h = h_t, of width H together, K stages make the next code. HIGHLIGHT is an LSTM over
    the stages, whose output is an attention over h and whose memory starts from h; FUSE is an LSTM
    over what was highlighted; SUMMARIZE reads all its outputs:

        a^k = softmax(LSTM_H(x^{k-1}, a^{k-1})),   x^k = a^k h,   from x^0 = h, a^0 = 0
        s^k = LSTM_F(x^k, s^{k-1}),                               from s^0 = 0
        z_t = tanh(S [s^1; ...; s^K])
        fused = relu(W [h_T; z_T] + b)

    with the memory of LSTM_H from tanh(M h), that of LSTM_F from zero (Liang et al., 2018,
    "Multimodal Language Analysis with Recurrent Multistage Fusion", section 3). The layers of M and
    S, and what the memory of LSTM_F starts from, are our choice.

    Args:
        input_dims: width of each modality's steps.
        dim: width of the result.
        hidden: width of each modality's LSTHM; None shares out `dim`.
        stages: their number, K.
        code: width of z; None: that of all states, H.
        dropout: share dropped of the result, in training.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        hidden: Sequence[int] | None = None,
        stages: int = 3,
        code: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        hidden = widths_or_shares("hidden", hidden, dim, input_dims)
        width = sum(hidden)
        checks.check_width("stages", stages)
        code = checked_width("code", code, width)
        self.input_dims, self.stages = tuple(input_dims), stages
        self.lsthm = LSTHM(input_dims, hidden, code)
        self.start = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.highlight = LSTHM([width], [width])
        self.fuse = LSTHM([width], [width])
        self.code = nn.Sequential(nn.Linear(stages * width, code), nn.Tanh())
        self.output = nn.Sequential(nn.Linear(width + code, dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps sequences (batch, time, d_i), or vectors (batch, d_i), to (batch, dim).

        Every step counts, padding as well: there is no mask.
        """
        inputs = self.lsthm.inputs_of(aligned_steps(self, features, self.input_dims))
        matrix, highlight, fuse = (
            system.matrix() for system in (self.lsthm, self.highlight, self.fuse)
        )
        c = self.lsthm.start(inputs)
        state = c.new_zeros(len(c), len(matrix))  # [h_0; z_0]
        for x in inputs:
            h, c = lstm_step(torch.addmm(x, state, matrix), c)
            fused = self._fused(self._highlighted(h, highlight), fuse)
            state = torch.cat([h, self.code(torch.cat(fused, -1))], -1)
        return finite(self.output(state))

    def _highlighted(self, h: Tensor, matrix: Tensor) -> list[Tensor]:
        """Returns x^1 to x^K, (batch, H) each."""
        memory, x, attention, found = self.start(h), h, torch.zeros_like(h), []
        for _ in range(self.stages):
            gates = torch.addmm(self.highlight.inputs_of([x]), attention, matrix)
            output, memory = lstm_step(gates, memory)
            attention = output.softmax(-1)
            x = attention * h
            found.append(x)
        return found

    def _fused(self, highlighted: list[Tensor], matrix: Tensor) -> list[Tensor]:
        """Returns s^1 to s^K, (batch, H) each."""
        inputs = self.fuse.inputs_of([torch.stack(highlighted)])
        s = memory = torch.zeros_like(highlighted[0])
        found = []
        for x in inputs:
            s, memory = lstm_step(torch.addmm(x, s, matrix), memory)
            found.append(s)
        return found
