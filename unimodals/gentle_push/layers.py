"""Encoders of Gentle Push's positions, forces, images and controls.

Those of Lee et al., "Multimodal Sensor Fusion with Differentiable Filters" (2020), with
MultiBench's names. Their residual blocks, which MultiBench takes from the package fannypack, are
here, under that package's names of parameters.
"""

import torch
from torch import Tensor, nn

state_dim = 2
control_dim = 7
obs_pos_dim = 3
obs_sensors_dim = 7


class _Residual(nn.Module):
    """Two layers of one width around a ReLU, added to their input, and a ReLU."""

    def __init__(self, block1: nn.Module, block2: nn.Module) -> None:
        super().__init__()
        self.block1 = block1
        self.block2 = block2
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.block2(self.activation(self.block1(x))) + x)


def control_layers(units: int) -> nn.Sequential:
    """Returns an encoder of controls, (..., 7) to (..., units)."""
    return _vector_layers(control_dim, units)


def observation_pos_layers(units: int) -> nn.Sequential:
    """Returns an encoder of the hand's positions, (..., 3) to (..., units)."""
    return _vector_layers(obs_pos_dim, units)


def observation_sensors_layers(units: int) -> nn.Sequential:
    """Returns an encoder of forces and torques, (..., 7) to (..., units)."""
    return _vector_layers(obs_sensors_dim, units)


def observation_image_layers(units: int, spanning_avg_pool: bool = False) -> nn.Sequential:
    """Returns an encoder of images (batch, 1, 32, 32), to (batch, units).

    Args:
        units: width of the feature.
        spanning_avg_pool: average pairs of rows and pairs of columns, each over the whole image,
            in place of keeping every position.
    """
    channels = 2 if spanning_avg_pool else 8
    convolutions = [
        nn.Conv2d(1, 32, kernel_size=5, padding=2),
        nn.ReLU(inplace=True),
        _Residual(*(nn.Conv2d(32, 32, kernel_size=3, padding=1) for _ in range(2))),
        nn.Conv2d(32, 16, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, channels, kernel_size=3, padding=1),
    ]
    flat: nn.Module = nn.Flatten()
    width = channels * 32 * 32
    if spanning_avg_pool:
        flat = _DualSpanningAvgPool(rows=32, cols=32, reduce_size=2)
        width = channels * (32 // 2) * 2
    return nn.Sequential(*convolutions, flat, *_vector_layers(width, units))


def _vector_layers(width: int, units: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, units),
        nn.ReLU(inplace=True),
        _Residual(nn.Linear(units, units), nn.Linear(units, units)),
    )


class _DualSpanningAvgPool(nn.Module):
    """Averages over whole columns, and over whole rows, of images, side by side.

    Args:
        rows: height of the images.
        cols: width of the images.
        reduce_size: how many columns, or rows, one average takes in.
    """

    def __init__(self, rows: int, cols: int, reduce_size: int = 1) -> None:
        super().__init__()
        self.pool_h = nn.Sequential(nn.AvgPool2d((rows, reduce_size)), nn.Flatten())
        self.pool_w = nn.Sequential(nn.AvgPool2d((reduce_size, cols)), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.pool_h(x), self.pool_w(x)], dim=-1)
