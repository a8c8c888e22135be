"""Convolutional encoders; `common_models` offers them under MultiBench's import path."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class GlobalPooling2D(nn.Module):
    """The mean over all positions, (batch, channels, ...) -> (batch, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1).mean(dim=2)


class LeNet(nn.Module):
    """Blocks of convolution, batch normalisation, ReLU and pooling (after LeCun et al., 1998).

    Each of the 1 + n blocks halves the image, (batch, in_channels, height, width) ->
    (batch, 2^n C, height / 2^(1 + n), width / 2^(1 + n)), rounded down; all but the first double
    the channels. Spatial dimensions of size 1 are dropped, so 28 x 28 images with n = 3 become
    (batch, 8 C). MultiBench drops a batch of size 1, too, and applies `linear` along the width
    of the image.

    Args:
        in_channels: channels of the image.
        args_channels: C, channels of the first block.
        additional_layers: n, number of blocks after the first.
        output_each_layer: return [mean over the positions of every block's output, ..., output].
        linear: (inputs, outputs), widths of a linear layer on the flattened output.
        squeeze_output: drop spatial dimensions of size 1.
    """

    def __init__(
        self,
        in_channels: int,
        args_channels: int,
        additional_layers: int,
        output_each_layer: bool = False,
        linear: Sequence[int] | None = None,
        squeeze_output: bool = True,
    ) -> None:
        super().__init__()
        if additional_layers < 0:
            raise ValueError(f"additional_layers must be at least 0, got {additional_layers}")
        widths = [args_channels * 2**i for i in range(additional_layers + 1)]
        self.convs = nn.ModuleList(
            [nn.Conv2d(in_channels, args_channels, kernel_size=5, padding=2, bias=False)]
        )
        for width in widths[:-1]:
            self.convs.append(nn.Conv2d(width, 2 * width, kernel_size=3, padding=1, bias=False))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.gps = nn.ModuleList(GlobalPooling2D() for _ in widths)
        self.linear = None if linear is None else nn.Linear(*linear)
        self.output_each_layer = output_each_layer
        self.sq_out = squeeze_output
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        smallest = 2 ** len(self.convs)
        if x.dim() != 4 or min(x.shape[2:]) < smallest:
            raise ValueError(
                f"images must have shape (batch, channels, height, width) of at least {smallest} x "
                f"{smallest}, got {tuple(x.shape)}; enlarge them, or take fewer additional_layers"
            )
        pooled = []
        for conv, norm, mean in zip(self.convs, self.bns, self.gps, strict=True):
            x = F.max_pool2d(norm(conv(x)).relu(), 2)
            pooled.append(mean(x))
        if self.linear is not None:
            x = self.linear(x.flatten(1))
        elif self.sq_out:
            x = x.squeeze((2, 3))
        return [*pooled, x] if self.output_each_layer else x
