"""Residual networks of videos whose 3-D kernels are one in space and one in time, R(2+1)D.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition" (2018), with
MultiBench's names, after Hara et al.'s 3D-ResNets.
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {  # blocks of the four stages
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


class BasicBlock(nn.Module):
    """Two convolutions of videos, each apart in space and time, added to their input.

    Args:
        in_planes: channels of the input.
        planes: channels of the output.
        stride: of the first convolution, in space and time.
        downsample: maps the input to the output's shape; None where they are the same.
    """

    expansion = 1

    def __init__(
        self, in_planes: int, planes: int, stride: int = 1, downsample: Any = None
    ) -> None:
        super().__init__()
        middle = _middle(in_planes, planes)
        self.conv1_s = _conv1x3x3(in_planes, middle, stride)
        self.bn1_s = nn.BatchNorm3d(middle)
        self.conv1_t = _conv3x1x1(middle, planes, stride)
        self.bn1_t = nn.BatchNorm3d(planes)
        middle = _middle(planes, planes)
        self.conv2_s = _conv1x3x3(planes, middle)
        self.bn2_s = nn.BatchNorm3d(middle)
        self.conv2_t = _conv3x1x1(middle, planes)
        self.bn2_t = nn.BatchNorm3d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1_s(self.conv1_s(x)))
        out = self.relu(self.bn1_t(self.conv1_t(out)))
        out = self.relu(self.bn2_s(self.conv2_s(out)))
        out = self.bn2_t(self.conv2_t(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A convolution of videos, apart in space and time, between two of single positions.

    Args:
        in_planes: channels of the input.
        planes: channels within; the output has four times as many.
        stride: of the middle convolution, in space and time.
        downsample: maps the input to the output's shape; None where they are the same.
    """

    expansion = 4

    def __init__(
        self, in_planes: int, planes: int, stride: int = 1, downsample: Any = None
    ) -> None:
        super().__init__()
        self.conv1 = _conv1x1x1(in_planes, planes)
        self.bn1 = nn.BatchNorm3d(planes)
        middle = _middle(planes, planes)
        self.conv2_s = _conv1x3x3(planes, middle, stride)
        self.bn2_s = nn.BatchNorm3d(middle)
        self.conv2_t = _conv3x1x1(middle, planes, stride)
        self.bn2_t = nn.BatchNorm3d(planes)
        self.conv3 = _conv1x1x1(planes, planes * self.expansion)
        self.bn3 = nn.BatchNorm3d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2_s(self.conv2_s(out)))
        out = self.relu(self.bn2_t(self.conv2_t(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A stem and four stages of blocks, the mean over time and space, and logits.

    From videos (batch, channels, time, height, width) to (batch, n_classes).

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: blocks of each stage.
        block_inplanes: channels of each stage.
        n_input_channels: channels of the videos.
        conv1_t_size: steps of the stem's kernel in time.
        conv1_t_stride: stride of the stem in time.
        no_max_pool: leave out the pooling after the stem.
        shortcut_type: "A" pads the channels of a shortcut with zeros, and has no parameters; "B"
            maps them by a convolution.
        widen_factor: factor of `block_inplanes`.
        n_classes: number of logits.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: list[int],
        block_inplanes: list[int],
        n_input_channels: int = 3,
        conv1_t_size: int = 7,
        conv1_t_stride: int = 1,
        no_max_pool: bool = False,
        shortcut_type: str = "B",
        widen_factor: float = 1.0,
        n_classes: int = 400,
    ) -> None:
        super().__init__()
        planes = [int(width * widen_factor) for width in block_inplanes]
        self.in_planes = planes[0]
        self.no_max_pool = no_max_pool
        # as many parameters as 3-D kernels of three channels would have
        middle = (3 * planes[0] * conv1_t_size * 49) // (3 * 49 + conv1_t_size * planes[0])
        self.conv1_s = nn.Conv3d(
            n_input_channels, middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False
        )
        self.bn1_s = nn.BatchNorm3d(middle)
        self.conv1_t = nn.Conv3d(
            middle,
            planes[0],
            (conv1_t_size, 1, 1),
            (conv1_t_stride, 1, 1),
            (conv1_t_size // 2, 0, 0),
            bias=False,
        )
        self.bn1_t = nn.BatchNorm3d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)
        strides = 1, 2, 2, 2
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            self._make_layer(block, width, blocks, shortcut_type, stride)
            for width, blocks, stride in zip(planes, layers, strides, strict=True)
        )
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(planes[-1] * block.expansion, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _make_layer(
        self, block: Any, planes: int, blocks: int, shortcut_type: str, stride: int
    ) -> nn.Sequential:
        width = planes * block.expansion
        shortcut: Any = None
        if stride != 1 or self.in_planes != width:
            if shortcut_type == "A":
                shortcut = partial(_padded, planes=width, stride=stride)
            else:
                shortcut = nn.Sequential(
                    _conv1x1x1(self.in_planes, width, stride), nn.BatchNorm3d(width)
                )
        made = [block(self.in_planes, planes, stride, shortcut)]
        self.in_planes = width
        made += [block(width, planes) for _ in range(1, blocks)]
        return nn.Sequential(*made)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1_s(self.conv1_s(x)))
        x = self.relu(self.bn1_t(self.conv1_t(x)))
        if not self.no_max_pool:
            x = self.maxpool(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def generate_model(model_depth: int, **kwargs: Any) -> ResNet:
    """Returns the network of 10, 18, 34, 50, 101, 152 or 200 layers; `kwargs` are `ResNet`'s."""
    if model_depth not in DEPTHS:
        raise ValueError(f"model_depth must be one of {sorted(DEPTHS)}, got {model_depth}")
    block = BasicBlock if model_depth < 50 else Bottleneck
    return ResNet(block, list(DEPTHS[model_depth]), _get_inplanes(), **kwargs)


def _get_inplanes() -> list[int]:
    return [64, 128, 256, 512]


def _middle(planes: int, out: int) -> int:
    """Returns the channels between space and time that leave the parameters of a 3-D kernel."""
    return (planes * out * 27) // (planes * 9 + 3 * out)


def _padded(x: Tensor, planes: int, stride: int) -> Tensor:
    """Returns every `stride`-th position, with zeros for the channels that are missing."""
    x = x[:, :, ::stride, ::stride, ::stride]
    return F.pad(x, (0, 0, 0, 0, 0, 0, 0, planes - x.size(1)))


def _conv1x3x3(planes: int, out: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(planes, out, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)


def _conv3x1x1(planes: int, out: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(planes, out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)


def _conv1x1x1(planes: int, out: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(planes, out, 1, stride, bias=False)
