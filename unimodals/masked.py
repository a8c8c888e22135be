"""Encoders of sequences of which a mask tells what is there."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class MaskedGRU(nn.Module):
    """A sequence as the state of a GRU after its last step (Cho et al., 2014).

    Args:
        input_dim: width of a step's features.
        dim: width of the state.
        dropout: share of the features left out in training.
    """

    def __init__(self, input_dim: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(input_dim, dim, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps (batch, steps, input_dim) to (batch, dim).

        Args:
            x: sequences, padded on the right.
            mask: (batch, steps) bool, true where a step is none of padding. A sequence without
                steps counts as one of a single step of padding.
        """
        lengths = mask.sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            self.dropout(x), lengths, batch_first=True, enforce_sorted=False
        )
        _, state = self.gru(packed)
        return state[-1]
