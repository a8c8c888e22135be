"""A small network that holds a DEQ fusion, for tests of what PyTorch's tools make of it."""

from torch import Tensor, nn

from deq_fusion.fusions.deq import DEQFusion

WIDTHS = (5, 7)


class Host(nn.Module):
    """Encoders, the fusion, and a head."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(4, 5), nn.Linear(16, 3)
        self.fusion = DEQFusion(WIDTHS, 16, **options)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.fusion([self.encoder(x).tanh(), y]))
