"""Encoders and heads under MultiBench's names, signatures and attribute names.

Parameters are drawn in MultiBench's order, so a seed gives the same ones, and state_dicts
cross in both directions. Dropout is off in evaluation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .batch_norm import batch_normalised
from .convolutional import GlobalPooling2D, LeNet
from .recurrent import GRU, LSTM, GRUWithLinear, TwoLayersLSTM
from .sequence import DAN, Transformer
from .vision import (
    VGG,
    VGG16,
    ResNetLSTMEnc,
    VGG11Pruned,
    VGG11Slim,
    VGG16Pruned,
    VGG16Slim,
)

for _model in (
    *(GRU, GRUWithLinear, LSTM, TwoLayersLSTM, DAN, Transformer, GlobalPooling2D, LeNet),
    *(VGG, VGG11Pruned, VGG11Slim, VGG16, VGG16Pruned, VGG16Slim, ResNetLSTMEnc),
):
    _model.__module__ = __name__  # whole-model files name MultiBench's module, not ours


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
        hidden = batch_normalised(self.op0, x)
        for maxout, (norm, dropout) in ((self.op1, self.op2), (self.op3, self.op4)):
            hidden = dropout(batch_normalised(norm, maxout(hidden)))
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
