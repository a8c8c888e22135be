"""Helpers of the robotics networks: how they start, and how images and depths come to them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def init_weights(modules: Iterable[nn.Module]) -> None:
    """Draws the kernels of 2-D convolutions anew (He et al., 2015), and zeroes their biases.

    Scales of batch normalisation become 1, and their biases 0.

    Args:
        modules: a network's `modules()`, in whose order the kernels are drawn.
    """
    for module in modules:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def rescaleImage(  # MultiBench's name
    image: Tensor, output_size: int = 128, scale: float = 1 / 255.0
) -> Tensor:
    """Returns images (batch, height, width, channels) times `scale`, channels first.

    Args:
        image: the images.
        output_size: not used, as in MultiBench: the size stays.
        scale: factor of every entry.
    """
    return (image * scale).permute(0, 3, 1, 2)


def filter_depth(depth_image: Tensor) -> Tensor:
    """Returns depths with those outside of (1e-7, 2) set to zero."""
    inside = (depth_image > 1e-7) & (depth_image < 2)
    return torch.where(inside, depth_image, 0)
