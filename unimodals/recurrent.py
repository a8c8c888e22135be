"""GRU and LSTM encoders; `common_models` offers them under MultiBench's import path."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence


def padded_pair(x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns padded and lengths, of what an encoder with has_padding=True is called with."""
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
    padded, lengths = padded_pair(x)
    lengths = lengths.cpu()  # where PyTorch wants them, whatever padded is on
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
