"""MFN: LSTMs side by side, attention to what changes in their memories, and a gated memory."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .aligned import aligned_steps, checked_width, widths_or_shares
from .equilibrium import checks
from .lsthm import LSTHM, lstm_step
from .modalities import check_widths, finite
from .two_layers import TwoLayers


class MemoryFusion(nn.Module):
    """The memory fusion network: a memory of what the modalities' LSTMs have in common.

    Each modality has an LSTM of its own; c_t and h_t are their memories and outputs side by side.

        c* = [c_{t-1}; c_t],      attended = softmax(A(c*)) c*
        gamma_j = sigmoid(G_j([attended; u_{t-1}]))        j = 1: keep, 2: admit
        u_t = gamma_1 u_{t-1} + gamma_2 tanh(D(attended))
        fused = relu(W [h_T; u_T] + b)

    where A, D, G_1 and G_2 are networks of one hidden layer (Zadeh et al., 2018, "Memory Fusion
    Network for Multi-view Sequential Learning"). The LSTMs do not read the memory u. So they run
    first, and what depends on them alone is computed for all steps at once.

    Of n entries the softmax leaves a share of 1/n each, so that D and G_j would see next to nothing
    of them at first; their weights for what is attended to are drawn n times larger for it.

    With a linear head behind it this is the published network. Its best sizes on CMU-MOSI: hidden
    (88, 48, 16), memory 128, attention 128, update 64, gates (256, 64), dim 64.

    Args:
        input_dims: width of each modality's steps.
        dim: width of the result.
        hidden: width of each modality's LSTM; None shares out `dim`.
        memory: width of u; None: `dim`.
        attention: hidden width of A; None: `dim`.
        update: hidden width of D; None: `dim`.
        gates: hidden widths of G_1 and G_2; None: `dim` each.
        dropout: share dropped of the hidden layers and of the result, in training.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        hidden: Sequence[int] | None = None,
        memory: int | None = None,
        attention: int | None = None,
        update: int | None = None,
        gates: Sequence[int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        hidden = widths_or_shares("hidden", hidden, dim, input_dims)
        memory = checked_width("memory", memory, dim)
        attention = checked_width("attention", attention, dim)
        update = checked_width("update", update, dim)
        gates = [dim, dim] if gates is None else gates
        checks.check_widths("gates", gates)
        if len(gates) != 2:
            raise ValueError(f"gates must list 2 widths, of G_1 and of G_2, got {list(gates)}")
        self.input_dims = tuple(input_dims)
        self.lstms = LSTHM(input_dims, hidden)
        seen = 2 * self.lstms.width
        self.attention = TwoLayers(seen, attention, seen, dropout=dropout)
        self.update = TwoLayers(seen, update, memory, dropout=dropout)
        self.keep, self.admit = (
            TwoLayers(seen + memory, gate, memory, dropout=dropout) for gate in gates
        )
        with torch.no_grad():
            for network in (self.update, self.keep, self.admit):
                network.first.weight[:, :seen] *= seen
        self.output = nn.Sequential(
            nn.Linear(self.lstms.width + memory, dim), nn.ReLU(), nn.Dropout(dropout)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps sequences (batch, time, d_i), or vectors (batch, d_i), to (batch, dim).

        Every step counts, padding as well: there is no mask.
        """
        h, memories = self._memories(aligned_steps(self, features, self.input_dims))
        pairs = torch.cat([memories[:-1], memories[1:]], -1)  # c* of all steps
        attended = self.attention(pairs).softmax(-1) * pairs
        u = self._remembered(attended, self.update(attended).tanh())
        return finite(self.output(torch.cat([h, u], -1)))

    def _memories(self, steps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns h_T, (batch, H), and the memories c_0 to c_T, (time + 1, batch, H)."""
        inputs, matrix = self.lstms.inputs_of(steps), self.lstms.matrix()
        h = c = self.lstms.start(inputs)
        memories = [c]
        for x in inputs:
            h, c = lstm_step(torch.addmm(x, h, matrix), c)
            memories.append(c)
        return h, torch.stack(memories)

    def _remembered(self, attended: Tensor, updates: Tensor) -> Tensor:
        """Returns u_T, (batch, memory), for what was attended and the updates of all steps.

        Both gates are one network of two layers: the hidden layers side by side, the second
        matrix with a block for each.
        """
        seen, keeps, admits = attended.shape[-1], self.keep, self.admit
        before = torch.cat([keeps.first.weight, admits.first.weight])
        seen_part = nn.functional.linear(
            attended, before[:, :seen], torch.cat([keeps.first.bias, admits.first.bias])
        )
        memory_part = before[:, seen:].t()
        after = torch.block_diag(keeps.second.weight, admits.second.weight).t()
        bias = torch.cat([keeps.second.bias, admits.second.bias])
        u = updates.new_zeros(updates.shape[1:])
        for x, update in zip(seen_part, updates, strict=True):
            hidden = keeps.dropout(torch.addmm(x, u, memory_part).relu())
            keep, admit = torch.addmm(bias, hidden, after).sigmoid().chunk(2, -1)
            u = torch.addcmul(keep * u, admit, update)
        return u
