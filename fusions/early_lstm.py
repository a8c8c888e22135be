"""EF-LSTM: the modalities side by side at every step, and one LSTM over the steps."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from .aligned import aligned_steps
from .equilibrium.half import autocast_enabled
from .modalities import check_widths, finite


class EarlyLSTM(nn.Module):
    """Fuses aligned sequences early: an LSTM reads all modalities of a step as one vector.

        x_t = [x_t^1; ...; x_t^N],   h_t = LSTM(x_t, h_{t-1}),   fused = relu(W h_T + b)

    With a linear head behind it this is the early fusion LSTM of Zadeh et al. (2018, "Memory
    Fusion Network for Multi-view Sequential Learning", the baseline EF-LSTM), as their code has
    it; they took dim = 128 and a dropout of 0.5.

    Args:
        input_dims: width of each modality's steps.
        dim: width of the LSTM's state, and of the result.
        dropout: share of the result that is dropped in training.
    """

    def __init__(self, input_dims: Sequence[int], dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        self.input_dims = tuple(input_dims)
        self.lstm = nn.LSTM(sum(input_dims), dim)
        self.output = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps sequences (batch, time, d_i), or vectors (batch, d_i), to (batch, dim).

        Every step counts, padding as well: there is no mask.
        """
        steps = aligned_steps(self, features, self.input_dims)
        with _without_float16(steps[0]):
            states, _ = self.lstm(torch.cat(steps, -1))
        return finite(self.output(states[-1]))


def _without_float16(x: Tensor) -> torch.autocast | nullcontext:
    """Leaves autocast to float16 on a CPU, where torch has no LSTM for it."""
    device = x.device.type
    float16 = autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return torch.autocast("cpu", enabled=False) if device == "cpu" and float16 else nullcontext()
