"""Encoders of a robot's sensors and of its action, each with MultiBench's names and states.

A sensor's feature has width 2 z_dim, in which a fusion finds a mean and a variance, and a last
dimension of one.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from .layers import CausalConv1D, Flatten, conv2d
from .models_utils import filter_depth, init_weights, rescaleImage


class ProprioEncoder(nn.Module):
    """Four layers from positions and velocities (batch, 8) to (batch, 2 z_dim, 1).

    Args:
        z_dim: half the width of the feature.
        alpha: factor of the input.
        initialize_weights: not used: there are no convolutions to draw anew.
    """

    def __init__(self, z_dim: int, alpha: float, initialize_weights: bool = True) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.alpha = alpha
        widths = (8, 32, 64, 128, 2 * z_dim)
        self.proprio_encoder = _alternating(nn.Linear(i, o) for i, o in _steps(widths))

    def forward(self, proprio: Tensor) -> Tensor:
        return self.proprio_encoder(self.alpha * proprio).unsqueeze(2)


class ForceEncoder(nn.Module):
    """Five causal convolutions that halve the time: (batch, 6, 32) to (batch, 2 z_dim, 1).

    Args:
        z_dim: half the width of the feature.
        alpha: factor of the input.
        initialize_weights: not used: only 2-D convolutions are drawn anew.
    """

    def __init__(self, z_dim: int, alpha: float, initialize_weights: bool = True) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.alpha = alpha
        channels = (6, 16, 32, 64, 128, 2 * z_dim)
        self.frc_encoder = _alternating(
            CausalConv1D(i, o, kernel_size=2, stride=2) for i, o in _steps(channels)
        )

    def forward(self, force: Tensor) -> Tensor:
        return self.frc_encoder(self.alpha * force)


class ImageEncoder(nn.Module):
    """Six convolutions of images (batch, 128, 128, 3) with entries up to 255.

    Returns (batch, 2 z_dim, 1), and the maps of every convolution, which an `OpticalFlowDecoder`
    takes.

    Args:
        z_dim: half the width of the feature.
        alpha: factor of the input.
        initialize_weights: draw the kernels by `init_weights`, and not as torch does.
    """

    def __init__(self, z_dim: int, alpha: float, initialize_weights: bool = True) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.alpha = alpha
        self.img_conv1 = conv2d(3, 16, kernel_size=7, stride=2)
        self.img_conv2 = conv2d(16, 32, kernel_size=5, stride=2)
        self.img_conv3 = conv2d(32, 64, kernel_size=5, stride=2)
        self.img_conv4 = conv2d(64, 64, stride=2)
        self.img_conv5 = conv2d(64, 128, stride=2)
        self.img_conv6 = conv2d(128, z_dim, stride=2)
        self.img_encoder = nn.Linear(4 * z_dim, 2 * z_dim)
        self.flatten = Flatten()
        if initialize_weights:
            init_weights(self.modules())

    def forward(self, vis_in: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        layers = [getattr(self, f"img_conv{i}") for i in range(1, 7)]
        maps = _maps(layers, self.alpha * rescaleImage(vis_in))
        return self.img_encoder(self.flatten(maps[-1])).unsqueeze(2), maps


class DepthEncoder(nn.Module):
    """Six convolutions of depths (batch, 1, 128, 128), of which those outside (0, 2) count as 0.

    Returns (batch, 2 z_dim, 1), and the maps of every convolution.

    Args:
        z_dim: half the width of the feature.
        alpha: factor of the input.
        initialize_weights: draw the kernels by `init_weights`, and not as torch does.
    """

    def __init__(self, z_dim: int, alpha: float, initialize_weights: bool = True) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.alpha = alpha
        self.depth_conv1 = conv2d(1, 32, stride=2)
        self.depth_conv2 = conv2d(32, 64, stride=2)
        self.depth_conv3 = conv2d(64, 64, kernel_size=4, stride=2)
        self.depth_conv4 = conv2d(64, 64, stride=2)
        self.depth_conv5 = conv2d(64, 128, stride=2)
        self.depth_conv6 = conv2d(128, z_dim, stride=2)
        self.depth_encoder = nn.Linear(4 * z_dim, 2 * z_dim)
        self.flatten = Flatten()
        if initialize_weights:
            init_weights(self.modules())

    def forward(self, depth_in: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        layers = [getattr(self, f"depth_conv{i}") for i in range(1, 7)]
        maps = _maps(layers, self.alpha * filter_depth(depth_in))
        return self.depth_encoder(self.flatten(maps[-1])).unsqueeze(2), maps


class ActionEncoder(nn.Module):
    """Two layers from an action (batch, action_dim) to (batch, 32); None stays None.

    Args:
        action_dim: width of the action.
    """

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self.action_encoder = _alternating(nn.Linear(i, o) for i, o in _steps((action_dim, 32, 32)))

    def forward(self, action: Tensor | None) -> Tensor | None:
        return None if action is None else self.action_encoder(action)


def _steps(widths: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(widths, widths[1:], strict=False))


def _alternating(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Returns the layers, a leaky ReLU after each."""
    return nn.Sequential(*(m for layer in layers for m in (layer, nn.LeakyReLU(0.1, inplace=True))))


def _maps(layers: list[nn.Module], x: Tensor) -> tuple[Tensor, ...]:
    """Returns what every layer gives, each called with the one before's."""
    maps = []
    for layer in layers:
        x = layer(x)
        maps.append(x)
    return tuple(maps)
