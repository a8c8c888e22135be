"""A module that helps to put an encoder together."""

from torch import Tensor, nn


class Sequential2(nn.Module):
    """Two modules, one after the other, as `nn.Sequential` of them in the attribute `model`.

    Args:
        a: the first; gets the input.
        b: the second; gets what the first returns.
    """

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(a, b)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)
