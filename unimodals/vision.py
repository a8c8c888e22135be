"""Encoders of images and videos on torchvision's networks, which they alone need.

`common_models` offers them under MultiBench's import path. Trained weights (ImageNet) come from
torchvision's cache, or are downloaded when an encoder with pretrained=True is constructed.
Images are (batch, 3, height, width).
"""

from torch import Tensor, nn

from .batch_norm import batch_normalised
from .convolutional import GlobalPooling2D


def _torchvision(name: str, pretrained: bool) -> nn.Module:
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            f"this encoder is built on torchvision's {name}, but torchvision cannot be imported; "
            "install it with `pip install torchvision`"
        ) from error
    return getattr(models, name)(weights="IMAGENET1K_V1" if pretrained else None)


class _OneLinear(nn.Module):
    """A VGG network with one linear layer as its classifier, and dropout after every ReLU."""

    def __init__(
        self, name: str, hiddim: int, dropout: bool, dropoutp: float, pretrained: bool, share: float
    ) -> None:
        super().__init__()
        if not 1 / 64 <= share <= 1:  # the narrowest layer has 64 channels
            raise ValueError(f"prune_factor must be between 1/64 and 1, got {share}")
        self.hiddim = hiddim
        self.model = _torchvision(name, pretrained)
        self.model.classifier = nn.Linear(int(512 * share) * 7 * 7, hiddim)
        layers = []
        for layer in self.model.features:
            layers.append(layer if share == 1 else _narrowed(layer, share))
            if dropout and isinstance(layer, nn.ReLU):
                layers.append(nn.Dropout(dropoutp))
        self.model.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _narrowed(layer: nn.Module, share: float) -> nn.Module:
    """Returns an untrained layer with this share of the channels, those of the image excepted."""
    if isinstance(layer, nn.Conv2d):
        inputs = 3 if layer.in_channels == 3 else int(layer.in_channels * share)
        outputs = int(layer.out_channels * share)
        return nn.Conv2d(inputs, outputs, layer.kernel_size, padding=layer.padding)
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(int(layer.num_features * share))
    return layer


class VGG16(nn.Module):
    """VGG-16 with batch normalisation (Simonyan and Zisserman, 2015), -> (batch, hiddim).

    Args:
        hiddim: width of the last linear layer, which is new.
        pretrained: start from trained weights.
    """

    def __init__(self, hiddim: int, pretrained: bool = True) -> None:
        super().__init__()
        self.hiddim = hiddim
        self.model = _torchvision("vgg16_bn", pretrained)
        self.model.classifier[6] = nn.Linear(4096, hiddim)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class VGG16Slim(_OneLinear):
    """VGG-16 with a single linear layer after its features, -> (batch, hiddim).

    Args:
        hiddim: width of that layer.
        dropout: drop entries after every ReLU in training.
        dropoutp: share of the entries that is dropped.
        pretrained: start from trained features.
    """

    def __init__(
        self, hiddim: int, dropout: bool = True, dropoutp: float = 0.2, pretrained: bool = True
    ) -> None:
        super().__init__("vgg16_bn", hiddim, dropout, dropoutp, pretrained, share=1)


class VGG11Slim(_OneLinear):
    """VGG-11 with a single linear layer after its features, -> (batch, hiddim).

    Args:
        hiddim: width of that layer.
        dropout: drop entries after every ReLU in training.
        dropoutp: share of the entries that is dropped.
        pretrained: start from trained features.
        freeze_features: train the linear layer alone.
    """

    def __init__(
        self,
        hiddim: int,
        dropout: bool = True,
        dropoutp: float = 0.2,
        pretrained: bool = True,
        freeze_features: bool = True,
    ) -> None:
        super().__init__("vgg11_bn", hiddim, dropout, dropoutp, pretrained, share=1)
        self.model.features.requires_grad_(not freeze_features)


class VGG11Pruned(_OneLinear):
    """An untrained VGG-11 of fewer channels and one linear layer, -> (batch, hiddim).

    MultiBench leaves the channels as they are without dropout, and its linear layer then does not
    fit; here they are always fewer.

    Args:
        hiddim: width of the linear layer.
        dropout: drop entries after every ReLU in training.
        prune_factor: share of the channels that is left, rounded down.
        dropoutp: share of the entries that is dropped.
    """

    def __init__(
        self, hiddim: int, dropout: bool = True, prune_factor: float = 0.25, dropoutp: float = 0.2
    ) -> None:
        super().__init__("vgg11_bn", hiddim, dropout, dropoutp, False, share=prune_factor)


class VGG16Pruned(_OneLinear):
    """As `VGG11Pruned`, of VGG-16."""

    def __init__(
        self, hiddim: int, dropout: bool = True, prune_factor: float = 0.25, dropoutp: float = 0.2
    ) -> None:
        super().__init__("vgg16_bn", hiddim, dropout, dropoutp, False, share=prune_factor)


class VGG(nn.Module):
    """VGG-19's features at four depths, and logits from the deepest.

    Returns the means over all positions of what the ninth, twelfth and fifteenth ReLU and the
    fifth pooling give, (batch, 512) each, and logits (batch, num_outputs) of the last of them,
    normalised over the batch, a single image in training by the running statistics.

    Args:
        num_outputs: number of logits.
        pretrained: start from trained features, as MultiBench always does.
    """

    def __init__(self, num_outputs: int, *, pretrained: bool = True) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(_torchvision("vgg19", pretrained).features)
        self.gp1, self.gp2, self.gp3, self.gp4 = (GlobalPooling2D() for _ in range(4))
        self.bn4 = nn.BatchNorm1d(512)
        self.classifier = nn.Linear(512, num_outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        taps = {20: self.gp1, 26: self.gp2, 33: self.gp3, 36: self.gp4}
        pooled = []
        for index, layer in enumerate(self.vgg):
            x = layer(x)
            if index in taps:
                pooled.append(taps[index](x))
        return *pooled, self.classifier(batch_normalised(self.bn4, pooled[-1]))


class ResNetLSTMEnc(nn.Module):
    """An LSTM over what ResNet-18 makes of each frame, -> (batch, hiddim).

    Videos are (batch, 3, time, height, width), of any length and size; MultiBench takes no frames
    but those of 112 x 112.

    Args:
        hiddim: width of the LSTM's state, whose last one is returned.
        dropout: drop entries of it in training.
        dropoutp: share of the entries that is dropped.
        pretrained: start from a trained ResNet (He et al., 2016), as MultiBench always does.
    """

    def __init__(
        self, hiddim: int, dropout: bool = False, dropoutp: float = 0.1, *, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.enc = _torchvision("resnet18", pretrained)
        self.lstm = nn.LSTM(1000, hiddim, batch_first=True)
        self.dropout_layer = nn.Dropout(dropoutp)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        frames = self.enc(x.transpose(1, 2).flatten(0, 1))  # (batch * time, 1000)
        out = self.lstm(frames.unflatten(0, (x.shape[0], x.shape[2])))[1][0][-1]
        return self.dropout_layer(out) if self.dropout else out
