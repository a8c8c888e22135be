"""Layers of the robotics networks."""

from torch import Tensor, nn


def crop_like(input: Tensor, target: Tensor) -> Tensor:
    """Returns maps (batch, channels, h, w) cut to the height and width of `target`."""
    return input[:, :, : target.size(2), : target.size(3)]


def deconv(in_planes: int, out_planes: int) -> nn.Sequential:
    """Returns a transposed convolution that doubles height and width, and a leaky ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_planes, out_planes, kernel_size=4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.1, inplace=True),
    )


def predict_flow(in_planes: int) -> nn.Conv2d:
    """Returns a convolution to the two channels of an optical flow, of the same size."""
    return nn.Conv2d(in_planes, 2, kernel_size=3, padding=1, bias=False)


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    bias: bool = True,
) -> nn.Sequential:
    """Returns a convolution and a leaky ReLU; of stride 1 and an odd kernel it keeps the size.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: of the filter, before its dilation.
        stride: of the filter.
        dilation: of the filter.
        bias: whether there is one.
    """
    spread = (kernel_size - 1) * dilation + 1
    padding = (spread - 1) // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias),
        nn.LeakyReLU(0.1, inplace=True),
    )


class View(nn.Module):
    """A view of another shape, as a layer.

    Args:
        size: the shape, the batch's size included.
    """

    def __init__(self, size: int | tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, tensor: Tensor) -> Tensor:
        return tensor.view(self.size)


class Flatten(nn.Module):
    """All dimensions after the first as one, as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), -1)


class CausalConv1D(nn.Conv1d):
    """A convolution over time that sees no later step: (batch, channels, t) -> (..., t / stride).

    The length is rounded up; MultiBench drops whole outputs where a stride is above 1 and does not
    divide it.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: steps of the filter.
        stride: steps from one output to the next.
        dilation: steps from one tap to the next.
        bias: whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        padding = (kernel_size - 1) * dilation
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = -(-x.size(-1) // self.stride[0])  # those that begin within the input
        return super().forward(x)[..., :outputs]


class ResidualBlock(nn.Module):
    """Two convolutions of maps (batch, channels, h, w), each normalised, added to them.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv2d(channels, channels, bias=False)
        self.conv2 = conv2d(channels, channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        # not in place: the input is added below
        out = nn.functional.leaky_relu(x, self.act.negative_slope)
        out = self.act(self.bn1(self.conv1(out)))
        return self.bn2(self.conv2(out)) + x
