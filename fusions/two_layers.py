"""A network of one hidden layer, as the recurrent fusions have several of."""

from torch import Tensor, nn


class TwoLayers(nn.Module):
    """Two affine maps with rectified units, some of them dropped in training, between them.

    Args:
        width: of the input.
        hidden: number of units.
        outputs: width of the result.
        dropout: share of the units that is dropped.
    """

    def __init__(self, width: int, hidden: int, outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(self.first(x).relu()))
