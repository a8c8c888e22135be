"""Small modules of the architecture searches that MultiBench draws on, under its names.

Those with `planes` or `in_planes` map images (batch, channels, height, width). The cells are those
of efficient neural architecture search (Pham et al., 2018) and progressive search (Liu et al.,
2018).
"""

from collections.abc import Sequence
from random import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Identity(nn.Module):
    """The map that returns its input."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


class IdentityModule(Identity):
    """The map that returns its input."""


class Tensor1DLateralPadding(nn.Module):
    """Zeros after the columns, (batch, d) -> (batch, d + pad).

    Args:
        pad: number of zeros.
    """

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, inputs: Tensor) -> Tensor:
        return F.pad(inputs, (0, self.pad))


class ChannelPadding(nn.Module):
    """Channels of zeros after the others, (batch, c, h, w) -> (batch, c + pad, h, w).

    Args:
        pad: number of channels.
    """

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, inputs: Tensor) -> Tensor:
        return F.pad(inputs, (0, 0, 0, 0, 0, self.pad))


class GlobalPooling2D(nn.Module):
    """The mean over all positions, (batch, channels, ...) -> (batch, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


class GlobalPooling1D(nn.Module):
    """The mean over the third dimension, (batch, channels, time, ...) -> (batch, channels, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


class Maxout(nn.Module):
    """The largest of k linear maps, an entry at a time (Goodfellow et al., 2013).

    Args:
        d: width of the input (..., d).
        m: width of the output (..., m).
        k: number of maps.
    """

    def __init__(self, d: int, m: int, k: int) -> None:
        super().__init__()
        self.d_in, self.d_out, self.pool_size = d, m, k
        self.lin = nn.Linear(d, m * k)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.lin(inputs).unflatten(-1, (self.d_out, self.pool_size)).amax(-1)


class AlphaScalarMultiplication(nn.Module):
    """One learned weight between two features: x times s and y times 1 - s, s = sigmoid(alpha_x).

    Args:
        size_alpha_x: width of x.
        size_alpha_y: width of y.
    """

    def __init__(self, size_alpha_x: int, size_alpha_y: int) -> None:
        super().__init__()
        self.size_alpha_x, self.size_alpha_y = size_alpha_x, size_alpha_y
        self.alpha_x = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        share = self.alpha_x.sigmoid()
        return x * share, y * (1 - share)


class AlphaVectorMultiplication(nn.Module):
    """A learned weight for every entry, (..., size_alpha): x times sigmoid(alpha).

    Args:
        size_alpha: width of x.
    """

    def __init__(self, size_alpha: int) -> None:
        super().__init__()
        self.size_alpha = size_alpha
        self.alpha = nn.Parameter(torch.zeros(1, size_alpha))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha[0].sigmoid()


class WeightedCrossEntropyWithLogits(nn.Module):
    """The mean binary cross-entropy of logits, that of ones times a weight.

    It is computed from the logits, so that sure ones give no infinite loss, as MultiBench's do.

    Args:
        pos_weight: a weight for every label, (labels,).
    """

    def __init__(self, pos_weight: Any) -> None:
        super().__init__()
        self.w = pos_weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of logits and targets, (batch, labels) each."""
        weight = torch.as_tensor(self.w, dtype=logits.dtype, device=logits.device)
        return F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), pos_weight=weight
        )


class DropPath(nn.Module):
    """Drops a path as a whole, at random in training; returns it and whether it was dropped.

    What is kept is divided by `keep_prob`. The draw is Python's global one.

    Args:
        keep_prob: probability to keep it.
    """

    def __init__(self, keep_prob: float = 0.9) -> None:
        super().__init__()
        self.keep_prob = keep_prob

    def forward(self, x: Tensor, other_dropped: bool = False) -> tuple[Tensor, bool]:
        """Drops `x`, but not where another path was dropped."""
        if not self.training:
            return x, False
        if random() <= self.keep_prob or other_dropped:
            return x / self.keep_prob, False
        return torch.zeros_like(x), True


class CellBlock(nn.Module):
    """The sum of an operation on one image and another on a second; at most one is dropped.

    Args:
        op1_type: the first operation, see `CreateOp`.
        op2_type: the second.
        args: an object with `planes`, the channels, and `drop_path`, the probability to drop.
    """

    def __init__(self, op1_type: int | str, op2_type: int | str, args: Any) -> None:
        super().__init__()
        self.args = args
        self.op1 = CreateOp(op1_type, args.planes, args.planes)
        self.op2 = CreateOp(op2_type, args.planes, args.planes)
        self.op1_type, self.op2_type = op1_type, op2_type
        self.dp1 = DropPath(1 - args.drop_path)
        self.dp2 = DropPath(1 - args.drop_path)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        first, dropped = self.dp1(self.op1(x1))
        second, _ = self.dp2(self.op2(x2), dropped)
        return first + second


class _Cell(nn.Module):
    """Blocks, each on two of the inputs and earlier blocks; what no block uses is the result."""

    def __init__(
        self,
        operation_labels: Sequence[int | str],
        configuration_indexes: Sequence[Sequence[int]],
        connections: Sequence[Sequence[int]],
        args: Any,
    ) -> None:
        super().__init__()
        self._args, self._planes = args, args.planes
        self._configuration, self._connections = configuration_indexes, connections
        self._operation_labels = operation_labels
        self.blocks = nn.ModuleList(
            CellBlock(operation_labels[first], operation_labels[second], args)
            for first, second in configuration_indexes
        )
        used = {source for pair in connections for source in pair}
        self.block_used = [block in used for block in range(len(connections))]
        self.num_concatenations = self.block_used.count(False)

    def unused(self, x1: Tensor, x2: Tensor) -> list[Tensor]:
        """Returns the outputs of the blocks that no other block uses."""
        outputs = [x1, x2]  # the sources -2 and -1
        for block, (first, second) in zip(self.blocks, self._connections, strict=True):
            outputs.append(block(outputs[first + 2], outputs[second + 2]))
        return [x for x, used in zip(outputs[2:], self.block_used, strict=True) if not used]


class Cell(_Cell):
    """A cell of the search: the sum of the blocks that no other uses, with batch normalisation.

    Args:
        operation_labels: the operations there are, see `CreateOp`.
        configuration_indexes: of every block its two operations, by number.
        connections: of every block its two sources: a block before it, by number from 0, or an
            input, -2 or -1.
        args: see `CellBlock`.
    """

    def __init__(
        self,
        operation_labels: Sequence[int | str],
        configuration_indexes: Sequence[Sequence[int]],
        connections: Sequence[Sequence[int]],
        args: Any,
    ) -> None:
        super().__init__(operation_labels, configuration_indexes, connections, args)
        self.bn = nn.BatchNorm2d(self._planes, eps=1e-3)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self.bn(sum(self.unused(x1, x2)))


class FixedCell(_Cell):
    """A cell that was found: the blocks that no other uses, concatenated and mapped by 1 x 1.

    Args:
        operation_labels: as of `Cell`.
        configuration_indexes: as of `Cell`.
        connections: as of `Cell`. (MultiBench's cell fails on them.)
        args: as of `Cell`.
    """

    def __init__(
        self,
        operation_labels: Sequence[int | str],
        configuration_indexes: Sequence[Sequence[int]],
        connections: Sequence[Sequence[int]],
        args: Any,
    ) -> None:
        super().__init__(operation_labels, configuration_indexes, connections, args)
        planes = args.planes
        self.dim_reduc = nn.Sequential(
            nn.Conv2d(self.num_concatenations * planes, planes, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(planes),
        )

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self.dim_reduc(torch.cat(self.unused(x1, x2), dim=1))


class FactorizedReduction(nn.Module):
    """Half the height and width, in two halves of the channels that see other pixels.

    Args:
        in_planes: channels of the input.
        out_planes: those of the output, an even number.
        stride: 1 leaves height and width.
    """

    def __init__(self, in_planes: int, out_planes: int, stride: int = 2) -> None:
        super().__init__()
        if out_planes % 2:
            raise ValueError(f"out_planes must be even, as each half is a path, got {out_planes}")
        self.in_planes, self.out_planes, self.stride = in_planes, out_planes, stride
        if stride == 1:
            self.fr = nn.Sequential(
                nn.Conv2d(in_planes, out_planes, kernel_size=1, bias=False),
                nn.BatchNorm2d(out_planes),
            )
            return
        self.path1 = self._path()
        self.path2 = self._path()
        self.bn = nn.BatchNorm2d(out_planes)

    def _path(self) -> nn.Sequential:
        return nn.Sequential(
            nn.AvgPool2d(1, stride=self.stride),
            nn.Conv2d(self.in_planes, self.out_planes // 2, kernel_size=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return self.fr(x)
        # the second path sees the pixels below and to the right, and zeros beyond the edge
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.bn(torch.cat([self.path1(x), self.path2(shifted)], dim=1))


class PoolBranch(nn.Module):
    """A 1 x 1 convolution, batch normalisation and ReLU, then pooling over 3 x 3.

    Args:
        in_planes: channels of the input.
        out_planes: those of the output.
        avg_or_max: "avg" or "max".
    """

    def __init__(self, in_planes: int, out_planes: int, avg_or_max: str) -> None:
        super().__init__()
        kinds = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
        if avg_or_max not in kinds:
            raise ValueError(f"avg_or_max must be one of {list(kinds)}, got {avg_or_max!r}")
        self.in_planes, self.out_planes, self.avg_or_max = in_planes, out_planes, avg_or_max
        self.conv1 = _normalised(nn.Conv2d(in_planes, out_planes, 1, bias=False), out_planes)
        self.pool = kinds[avg_or_max](kernel_size=3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv1(x))


class ConvBranch(nn.Module):
    """A 1 x 1 convolution and a larger one, each with batch normalisation and ReLU.

    Args:
        in_planes: channels of the input.
        out_planes: those of the output.
        kernel_size: of the larger one: 1, 3, 5 or 7.
        separable: whether that is one channel at a time, then 1 x 1.
    """

    def __init__(
        self, in_planes: int, out_planes: int, kernel_size: int, separable: bool = False
    ) -> None:
        super().__init__()
        if kernel_size not in (1, 3, 5, 7):
            raise ValueError(f"kernel_size must be 1, 3, 5 or 7, got {kernel_size}")
        self.in_planes, self.out_planes = in_planes, out_planes
        self.kernel_size, self.separable = kernel_size, separable
        self.inp_conv1 = _normalised(nn.Conv2d(in_planes, out_planes, 1, bias=False), out_planes)
        if separable:
            larger: nn.Module = SeparableConvOld(out_planes, out_planes, kernel_size)
        else:
            padding = (kernel_size - 1) // 2
            larger = nn.Conv2d(out_planes, out_planes, kernel_size, padding=padding, bias=False)
        self.out_conv = _normalised(larger, out_planes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_conv(self.inp_conv1(x))


class SeparableConvOld(nn.Module):
    """A convolution of one channel at a time, and one of 1 x 1 over all of them.

    Args:
        in_planes: channels of the input.
        out_planes: those of the output.
        kernel_size: of the first, an odd number.
        bias: whether they have biases.
    """

    def __init__(
        self, in_planes: int, out_planes: int, kernel_size: int, bias: bool = False
    ) -> None:
        super().__init__()
        self.depthwise = _depthwise(in_planes, kernel_size, bias)
        self.pointwise = nn.Conv2d(in_planes, out_planes, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class SeparableConv(nn.Module):
    """Two separable convolutions, each with batch normalisation and ReLU.

    Args:
        in_planes: channels of the input.
        out_planes: those of the output.
        kernel_size: an odd number.
        bias: whether all but the last convolution have biases.
    """

    def __init__(
        self, in_planes: int, out_planes: int, kernel_size: int, bias: bool = False
    ) -> None:
        super().__init__()
        self.op = nn.Sequential(
            _depthwise(in_planes, kernel_size, bias),
            nn.Conv2d(in_planes, out_planes, kernel_size=1, bias=bias),
            nn.BatchNorm2d(out_planes, eps=1e-3),
            nn.ReLU(),
            _depthwise(out_planes, kernel_size, bias),
            nn.Conv2d(out_planes, out_planes, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_planes, eps=1e-3),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


OPERATIONS = (
    "I",
    *("1x1 conv", "3x3 conv", "5x5 conv", "7x7 conv"),
    *("3x3 depthconv", "5x5 depthconv", "7x7 depthconv"),
    *("3x3 maxpool", "3x3 avgpool"),
)
"""The names of operations, in the order of their numbers."""


def CreateOp(conv_type: int | str, input_planes: int = 64, output_planes: int = 64) -> nn.Module:
    """Returns an operation on images that leaves height and width.

    Args:
        conv_type: the name of one of `OPERATIONS`, or its number there.
        input_planes: channels of the input.
        output_planes: those of the output.

    Raises:
        NotImplementedError: for another one.
    """
    if conv_type not in (*OPERATIONS, *range(len(OPERATIONS))):
        raise NotImplementedError(
            f"conv_type must be one of {list(OPERATIONS)}, or its number, got {conv_type!r}"
        )
    number = OPERATIONS.index(conv_type) if isinstance(conv_type, str) else conv_type
    if number == 0:
        conv = nn.Conv2d(input_planes, output_planes, kernel_size=1, bias=False)
        return nn.Sequential(_normalised(conv, output_planes), IdentityModule())
    if number >= 8:
        return PoolBranch(input_planes, output_planes, "max" if number == 8 else "avg")
    kernel_size = (1, 3, 5, 7, 3, 5, 7)[number - 1]
    return ConvBranch(input_planes, output_planes, kernel_size, separable=number >= 5)


class AuxiliaryHead(nn.Module):
    """A classifier of images of at least 7 x 7 in the midst of a network, (..., h, w) -> classes.

    Args:
        num_classes: their number.
        filters: channels of the image.
    """

    def __init__(self, num_classes: int, filters: int = 96) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.AvgPool2d(5, stride=2, padding=0, count_include_pad=False),
            nn.Conv2d(filters, filters * 2, 1, bias=False),
            nn.BatchNorm2d(filters * 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(filters * 2, filters * 6, 2, bias=False),
            nn.BatchNorm2d(filters * 6),
            nn.ReLU(inplace=True),
        )
        self.global_avg_pool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(filters * 6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.global_avg_pool(self.features(x)).flatten(1))


def _normalised(conv: nn.Module, planes: int) -> nn.Sequential:
    """Returns a convolution with batch normalisation and ReLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(planes), nn.ReLU())


def _depthwise(planes: int, kernel_size: int, bias: bool) -> nn.Conv2d:
    """Returns a convolution of one channel at a time that leaves height and width."""
    padding = (kernel_size - 1) // 2
    return nn.Conv2d(planes, planes, kernel_size, padding=padding, groups=planes, bias=bias)
