"""Encoders and heads under MultiBench's names, signatures and attribute names.

Parameters are drawn in MultiBench's order, so a seed gives the same ones, and state_dicts
cross in both directions. Dropout is off in evaluation.

The encoders of images and videos stand on torchvision's networks, which they alone need. Trained
weights (ImageNet) come from torchvision's cache, or are downloaded when an encoder with
pretrained=True is constructed. Images are (batch, 3, height, width).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence


class Linear(nn.Module):
    """One linear layer, (..., indim) -> (..., outdim).

    Args:
        indim: width of the input.
        outdim: width of the output.
        xavier_init: normal weights (Glorot and Bengio, 2010) and no bias at the start, in place
            of PyTorch's own initialisation.
    """

    def __init__(self, indim: int, outdim: int, xavier_init: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(indim, outdim)
        if xavier_init:
            nn.init.xavier_normal_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Squeeze(nn.Module):
    """Drops dimension `dim` if its size is 1; with None every such dimension, the batch's too."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze() if self.dim is None else x.squeeze(self.dim)


class Sequential(nn.Sequential):
    """`nn.Sequential` that accepts, and ignores, the `training` that MultiBench's callers pass."""

    def forward(self, input, training: bool | None = None):
        return super().forward(input)


class Reshape(nn.Module):
    """Gives the input the shape `shape`, batch dimension included."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.shape)


class Transpose(nn.Module):
    """Swaps the dimensions `dim0` and `dim1`."""

    def __init__(self, dim0: int, dim1: int) -> None:
        super().__init__()
        self.dim0, self.dim1 = dim0, dim1

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(self.dim0, self.dim1)


class MLP(nn.Module):
    """Two linear layers with a ReLU between them, (..., indim) -> (..., outdim).

    Args:
        indim: width of the input.
        hiddim: width of the hidden layer.
        outdim: width of the output.
        dropout: drop entries of the hidden layer and of the output in training. (MultiBench
            returns the hidden layer then; here it is the output.)
        dropoutp: share of the entries that is dropped.
        output_each_layer: return [0, input, hidden, leaky ReLU of the output] instead.
    """

    def __init__(
        self,
        indim: int,
        hiddim: int,
        outdim: int,
        dropout: bool = False,
        dropoutp: float = 0.1,
        output_each_layer: bool = False,
    ) -> None:
        super().__init__()
        self.fc = nn.Linear(indim, hiddim)
        self.fc2 = nn.Linear(hiddim, outdim)
        self.dropout_layer = nn.Dropout(dropoutp)
        self.dropout = dropout
        self.output_each_layer = output_each_layer
        self.lklu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor | list:
        hidden = self.fc(x).relu()
        if self.dropout:
            hidden = self.dropout_layer(hidden)
        output = self.fc2(hidden)
        if self.dropout:
            output = self.dropout_layer(output)
        return [0, x, hidden, self.lklu(output)] if self.output_each_layer else output


def _padded_pair(x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the padded batch and its lengths, if x is both."""
    if not isinstance(x, (list, tuple)) or len(x) != 2:
        came = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"{type(x).__name__}"
        raise TypeError(
            f"has_padding=True takes [padded, lengths], got {came}; "
            "pass both, or construct the encoder with has_padding=False"
        )
    padded, lengths = x
    return padded, torch.as_tensor(lengths)


def _pack(x: Sequence[Tensor], batch_first: bool = True) -> PackedSequence:
    """Packs [padded, lengths], so that a recurrent layer ends with each sample."""
    padded, lengths = _padded_pair(x)
    lengths = lengths.cpu()  # where PyTorch wants them, whatever the device of the batch
    return pack_padded_sequence(padded, lengths, batch_first=batch_first, enforce_sorted=False)


class GRU(nn.Module):
    """A gated recurrent unit, (batch, time, indim) -> (batch, time, hiddim).

    Args:
        indim: width of the input.
        hiddim: width of the state.
        dropout: drop entries of the result in training, `last_only` excepted.
        dropoutp: share of the entries that is dropped.
        flatten: return (batch, time * hiddim).
        has_padding: take [padded, lengths] and return the states at the ends, (batch, hiddim).
        last_only: return the last states, (batch, hiddim).
        batch_first: layout of a padded input; without padding the batch always comes first.
    """

    def __init__(
        self,
        indim: int,
        hiddim: int,
        dropout: bool = False,
        dropoutp: float = 0.1,
        flatten: bool = False,
        has_padding: bool = False,
        last_only: bool = False,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(indim, hiddim, batch_first=True)
        self.dropout = dropout
        self.dropout_layer = nn.Dropout(dropoutp)
        self.flatten = flatten
        self.has_padding = has_padding
        self.last_only = last_only
        self.batch_first = batch_first

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        if self.has_padding:
            out = self.gru(_pack(x, batch_first=self.batch_first))[1][-1]
        elif self.last_only:
            return self.gru(x)[1][-1]
        else:
            out = self.gru(x)[0]
        if self.dropout:
            out = self.dropout_layer(out)
        return out.flatten(1) if self.flatten else out


class GRUWithLinear(nn.Module):
    """A gated recurrent unit and a linear layer, (time, batch, indim) -> (time, batch, outdim).

    Args:
        indim: width of the input.
        hiddim: width of the state.
        outdim: width of the output.
        dropout: drop entries of the states in training.
        dropoutp: share of the entries that is dropped.
        flatten: flatten the output from its second dimension on.
        has_padding: take [padded (batch, time, indim), lengths] and return (batch, outdim), from
            the states at the ends.
        output_each_layer: return [0, input, states, leaky ReLU of the output], flattened.
        batch_first: without padding, the input and the output are (batch, time, width).
    """

    def __init__(
        self,
        indim: int,
        hiddim: int,
        outdim: int,
        dropout: bool = False,
        dropoutp: float = 0.1,
        flatten: bool = False,
        has_padding: bool = False,
        output_each_layer: bool = False,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(indim, hiddim, batch_first=batch_first)
        self.linear = nn.Linear(hiddim, outdim)
        self.dropout = dropout
        self.dropout_layer = nn.Dropout(dropoutp)
        self.flatten = flatten
        self.has_padding = has_padding
        self.output_each_layer = output_each_layer
        self.lklu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor | list:
        hidden = self.gru(_pack(x))[1][-1] if self.has_padding else self.gru(x)[0]
        if self.dropout:
            hidden = self.dropout_layer(hidden)
        out = self.linear(hidden)
        if self.flatten:
            out = out.flatten(1)
        if self.output_each_layer:
            steps = x[0] if self.has_padding else x
            return [0, steps.flatten(1), hidden.flatten(1), self.lklu(out)]
        return out


class LSTM(nn.Module):
    """The last state of an LSTM, (batch, time, indim) or (batch, time) -> (batch, hiddim).

    Args:
        indim: width of the input; 1 for an input (batch, time).
        hiddim: width of the state.
        linear_layer_outdim: width of a linear layer on the state, returned in its place.
        dropout: drop entries of the state in training.
        dropoutp: share of the entries that is dropped.
        flatten: kept for MultiBench's callers; the state is flat already.
        has_padding: take [padded, lengths]; the state is then the one at each sample's end.
    """

    def __init__(
        self,
        indim: int,
        hiddim: int,
        linear_layer_outdim: int | None = None,
        dropout: bool = False,
        dropoutp: float = 0.1,
        flatten: bool = False,
        has_padding: bool = False,
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(indim, hiddim, batch_first=True)
        if linear_layer_outdim is not None:
            self.linear = nn.Linear(hiddim, linear_layer_outdim)
        self.dropout_layer = nn.Dropout(dropoutp)
        self.dropout = dropout
        self.flatten = flatten
        self.has_padding = has_padding
        self.linear_layer_outdim = linear_layer_outdim

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        if self.has_padding:
            x = _pack(x)
        elif x.ndim == 2:
            x = x.unsqueeze(2)
        out = self.lstm(x)[1][0][-1]
        if self.dropout:
            out = self.dropout_layer(out)
        return out if self.linear_layer_outdim is None else self.linear(out)


class TwoLayersLSTM(nn.Module):
    """Two LSTM layers, (batch, time, indim) -> (batch, time, directions * hiddim).

    MultiBench's second layer takes inputs of width 2 * indim; here it takes the states of the
    first. The parameters are the same where MultiBench's run: bidirectional, indim = hiddim.

    Args:
        indim: width of the input.
        hiddim: width of the states of a direction.
        dropout: drop entries of the result in training.
        dropoutp: share of the entries that is dropped.
        flatten: return (batch, time * directions * hiddim).
        has_padding: take [padded, lengths] and return the last state of each direction, that of
            a sample's end and, read backwards, that of its start: (batch, directions * hiddim).
        LayNorm: with padding, normalise the states between the layers. Without padding
            MultiBench never does, nor does this.
        isBidirectional: read in both directions, not forwards alone.
    """

    def __init__(
        self,
        indim: int,
        hiddim: int,
        dropout: bool = False,
        dropoutp: float = 0.1,
        flatten: bool = False,
        has_padding: bool = False,
        LayNorm: bool = True,
        isBidirectional: bool = True,
    ) -> None:
        super().__init__()
        width = 2 * hiddim if isBidirectional else hiddim
        self.lstm_0 = nn.LSTM(indim, hiddim, batch_first=True, bidirectional=isBidirectional)
        self.lstm_1 = nn.LSTM(width, hiddim, batch_first=True, bidirectional=isBidirectional)
        self.layer_norm = nn.LayerNorm(width)
        self.dropout_layer = nn.Dropout(dropoutp)
        self.dropout = dropout
        self.flatten = flatten
        self.has_padding = has_padding
        self.LayerNorm = LayNorm

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        if self.has_padding:
            states = self.lstm_0(_pack(x))[0]
            if self.LayerNorm:
                states = PackedSequence(self.layer_norm(states.data), *states[1:])
            last = self.lstm_1(states)[1][0]  # (directions, batch, hiddim)
            out = last.transpose(0, 1).flatten(1)
        else:
            out = self.lstm_1(self.lstm_0(x)[0])[0]
        if self.dropout:
            out = self.dropout_layer(out)
        return out.flatten(1) if self.flatten else out


class DAN(nn.Module):
    """Linear layers on the sum of embedded steps, (batch, time, indim) -> (batch, hiddim).

        h = A_n ... A_1 sum_t (E x_t + b)

    with affine maps A_i and no nonlinearity between them. Deep averaging networks (Iyyer et al.,
    2015, section 3) take the mean; the sum is that of Deep Sets (Zaheer et al., 2017, theorem 2).

    Args:
        indim: width of the input.
        hiddim: width of the embedding and of every layer.
        dropout: drop entries of the embedded steps and of every layer in training.
        dropoutp: share of the entries that is dropped.
        nlayers: number of layers after the sum.
        has_padding: take [padded, lengths]; steps beyond a sample's length do not count.
    """

    def __init__(
        self,
        indim: int,
        hiddim: int,
        dropout: bool = False,
        dropoutp: float = 0.25,
        nlayers: int = 3,
        has_padding: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(indim, hiddim)
        self.mlp = nn.ModuleList(nn.Linear(hiddim, hiddim) for _ in range(nlayers))
        self.dropout_layer = nn.Dropout(dropoutp)
        self.dropout = dropout
        self.nlayers = nlayers
        self.has_padding = has_padding

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        steps, lengths = _padded_pair(x) if self.has_padding else (x, None)
        embedded = self.embedding(steps)
        if self.dropout:
            embedded = self.dropout_layer(embedded)
        if lengths is not None:
            embedded = embedded.masked_fill(_beyond(lengths, steps).unsqueeze(2), 0)
        out = embedded.sum(dim=1)
        for layer in self.mlp:
            out = layer(out)
            if self.dropout:
                out = self.dropout_layer(out)
        return out


def _beyond(lengths: Tensor, steps: Tensor) -> Tensor:
    """Returns which steps are padding, (batch, time)."""
    if lengths.shape != steps.shape[:1]:
        raise ValueError(
            f"lengths must have shape ({len(steps)},), one for each sample of the padded batch, "
            f"got {tuple(lengths.shape)}"
        )
    times = torch.arange(steps.shape[1], device=steps.device)
    return times >= lengths.to(steps.device).unsqueeze(1)


_HEADS = _LAYERS = 5  # MultiBench's


class Transformer(nn.Module):
    """The last step of a transformer encoder, (batch, time, n_features) -> (batch, dim).

    Every step is projected to `dim`, without bias, and passes five layers of five heads (Vaswani
    et al., 2017, section 3.1). There is no code of positions: the order of the steps before the
    last makes no difference. Of a list, as in padded batches, the first item is the input; no
    padding is masked.

    Args:
        n_features: width of the input.
        dim: width of the output, divisible by 5.
    """

    def __init__(self, n_features: int, dim: int) -> None:
        super().__init__()
        if dim % _HEADS:
            raise ValueError(f"dim must be divisible by the {_HEADS} heads, got {dim}")
        self.embed_dim = dim
        self.conv = nn.Conv1d(n_features, dim, kernel_size=1, bias=False)
        layer = nn.TransformerEncoderLayer(dim, nhead=_HEADS)
        self.transformer = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        steps = x[0] if isinstance(x, (list, tuple)) else x
        embedded = self.conv(steps.transpose(1, 2)).permute(2, 0, 1)  # (time, batch, dim)
        return self.transformer(embedded)[-1]


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
        return *pooled, self.classifier(_batch_normalised(self.bn4, pooled[-1]))


class ResNetLSTMEnc(nn.Module):
    """An LSTM over ResNet-18's output for each frame, -> (batch, hiddim).

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


def _batch_normalised(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Returns norm(x), x of shape (batch, features).

    In training a single sample, which has no statistics of its own, takes the running ones and
    leaves them as they are.
    """
    if not norm.training or len(x) > 1:
        return norm(x)
    assert norm.running_mean is not None and norm.running_var is not None
    # copies, which a later batch's update cannot change under this one's backward
    running = norm.running_mean.clone(), norm.running_var.clone()
    return F.batch_norm(x, *running, norm.weight, norm.bias, eps=norm.eps)


class Maxout(nn.Module):
    """The largest of `k` linear maps, (..., d) -> (..., m) (Goodfellow et al., 2013).

    Args:
        d: width of the input.
        m: width of the output.
        k: linear maps an output entry has to choose from.
    """

    def __init__(self, d: int, m: int, k: int) -> None:
        super().__init__()
        self.d_in, self.d_out, self.pool_size = d, m, k
        self.lin = nn.Linear(d, m * k)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.lin(inputs).unflatten(-1, (self.d_out, self.pool_size))
        return maps.max(dim=-1).values


class MaxOut_MLP(nn.Module):
    """Two maxout layers of two maps each, (batch, number_input_feats) -> (batch, num_outputs).

    The input and every hidden layer is normalised over the batch, a single sample in training by
    the running statistics; three tenths of each hidden layer are dropped in training.

    Args:
        num_outputs: width of the output; unused without `linear_layer`.
        first_hidden: width of the first layer.
        number_input_feats: width of the input.
        second_hidden: width of the second layer; that of the first if None.
        linear_layer: end in a linear layer; otherwise the output is (batch, second_hidden).
    """

    def __init__(
        self,
        num_outputs: int,
        first_hidden: int = 64,
        number_input_feats: int = 300,
        second_hidden: int | None = None,
        linear_layer: bool = True,
    ) -> None:
        super().__init__()
        second_hidden = first_hidden if second_hidden is None else second_hidden
        self.op0 = nn.BatchNorm1d(number_input_feats, eps=1e-4)
        self.op1 = Maxout(number_input_feats, first_hidden, 2)
        self.op2 = nn.Sequential(nn.BatchNorm1d(first_hidden), nn.Dropout(0.3))
        self.op3 = Maxout(first_hidden, second_hidden, 2)
        self.op4 = nn.Sequential(nn.BatchNorm1d(second_hidden), nn.Dropout(0.3))
        self.hid2val = nn.Linear(second_hidden, num_outputs) if linear_layer else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = _batch_normalised(self.op0, x)
        for maxout, (norm, dropout) in ((self.op1, self.op2), (self.op3, self.op4)):
            hidden = dropout(_batch_normalised(norm, maxout(hidden)))
        return hidden if self.hid2val is None else self.hid2val(hidden)


class Constant(nn.Module):
    """Zeros of shape (out_dim,), without a batch dimension, whatever the input."""

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        self.out_dim = out_dim

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype if x.is_floating_point() else None  # None is the default one
        return torch.zeros(self.out_dim, dtype=dtype, device=x.device)


class Identity(nn.Module):
    """Returns its input, of any kind."""

    def forward(self, x):
        return x
