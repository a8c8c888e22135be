"""MultiBench's MCTN (after Pham et al., 2019, arXiv:1812.07809): a modality translated into others.

Sequences have their steps first, (steps, batch, width), and a source and its targets the same
steps and, where one decoder serves both directions, the same width. What predicts is the states of
an encoder on a translation, so that prediction needs the source alone. `unimodals/mctn.py` follows
the authors more closely: a linear output in place of log-probabilities, attention that sums to 1,
and no padding among what is learnt.
"""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Encoder(nn.Module):
    """States of a bidirectional GRU, the sum of both directions.

    Args:
        input_size: width of a step.
        hidden_size: width of a state.
        n_layers: of the GRU.
        dropout: between these layers, so without effect in a single one.
    """

    def __init__(
        self, input_size: int, hidden_size: int, n_layers: int = 1, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.gru = nn.GRU(
            input_size,
            hidden_size,
            n_layers,
            dropout=_between(n_layers, dropout),
            bidirectional=True,
        )

    def forward(self, src: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps (steps, batch, input_size) to the states, and to the last of layers and directions.

        Args:
            src: the sequence.
            hidden: (2 n_layers, batch, hidden_size), the states to start from; None: zeros.

        Returns:
            (steps, batch, hidden_size) and (2 n_layers, batch, hidden_size).
        """
        states, hidden = self.gru(src, hidden)
        return states[..., : self.hidden_size] + states[..., self.hidden_size :], hidden


class Attention(nn.Module):
    """Weights of the states e_1..e_T of an encoder, given a state h of a decoder.

        a_t = max(0, sum_k v_k softmax_t(W [h, e_t] + b)_k)

    The softmax is over the steps, in each of the hidden_size entries, so that h and b, which shift
    all steps alike, are without effect; the a_t need not sum to 1.

    Args:
        hidden_size: width of the states, the decoder's and the encoder's.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.attn = nn.Linear(2 * hidden_size, hidden_size)
        self.v = nn.Parameter(torch.rand(hidden_size))  # drawn twice, as MultiBench draws
        bound = 1 / math.sqrt(hidden_size)
        nn.init.uniform_(self.v, -bound, bound)

    def forward(self, hidden: Tensor, encoder_outputs: Tensor) -> Tensor:
        """Maps (batch, hidden_size) and (steps, batch, hidden_size) to (batch, 1, steps)."""
        states = encoder_outputs.transpose(0, 1)  # (batch, steps, hidden_size)
        query = hidden.unsqueeze(1).expand(-1, states.shape[1], -1)
        energy = self.attn(torch.cat([query, states], 2)).softmax(1)
        return (energy @ self.v).relu().unsqueeze(1)


class Decoder(nn.Module):
    """One step of a GRU that reads an encoder's states by attention.

        c_t = sum_s a_s e_s,
        h_t = GRU([y_{t-1}, c_t]; h_{t-1}),   y_t = log softmax(O [h_t, c_t] + o)

    Args:
        hidden_size: width of the states, its own and the encoder's.
        output_size: width of the y_t.
        n_layers: of the GRU.
        dropout: between these layers, so without effect in a single one.
    """

    def __init__(
        self, hidden_size: int, output_size: int, n_layers: int = 1, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.output_size = output_size
        self.n_layers = n_layers
        self.dropout = nn.Dropout(dropout, inplace=True)  # not used, as in MultiBench
        self.attention = Attention(hidden_size)
        width = hidden_size + output_size
        self.gru = nn.GRU(width, hidden_size, n_layers, dropout=_between(n_layers, dropout))
        self.out = nn.Linear(2 * hidden_size, output_size)

    def forward(
        self, input: Tensor, last_hidden: Tensor, encoder_outputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Takes a step.

        Args:
            input: (batch, output_size), what it gave last.
            last_hidden: (n_layers, batch, hidden_size), its states.
            encoder_outputs: (steps, batch, hidden_size).

        Returns:
            y_t, (batch, output_size); its states; and the attention, (batch, 1, steps).
        """
        attention = self.attention(last_hidden[-1], encoder_outputs)
        context = attention.bmm(encoder_outputs.transpose(0, 1)).transpose(0, 1)
        output, hidden = self.gru(torch.cat([input.unsqueeze(0), context], 2), last_hidden)
        output = self.out(torch.cat([output[0], context[0]], 1))
        return F.log_softmax(output, dim=1), hidden, attention

    def translating(self, encoder: nn.Module) -> "Seq2Seq":
        """Returns the translation by this decoder of what the encoder reads."""
        return Seq2Seq(encoder, self)


class Seq2Seq(nn.Module):
    """A sequence translated step by step into another.

    Args:
        encoder: an `Encoder`, or what is called as one.
        decoder: a `Decoder`, or what is called as one, with its sizes.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self, src: Tensor, trg: Tensor | None, teacher_forcing_ratio: float = 0.5
    ) -> tuple[Tensor, Tensor]:
        """Translates.

        Args:
            src: (steps, batch, d), the source.
            trg: (steps, batch, output_size), the target, which is read in training, and where
                there is a teacher.
            teacher_forcing_ratio: probability that the decoder is told a step of the target, in
                place of its own, before the next; by Python's `random`, once a step.

        Returns:
            The translation, (steps, batch, output_size), and the encoder's states.

        Raises:
            ValueError: without a target where one is needed.
        """
        if trg is None and (self.training or teacher_forcing_ratio > 0):
            raise ValueError(
                "a translation needs its target trg in training, got None; call eval() first, and "
                "pass teacher_forcing_ratio=0"
            )
        states, hidden = self.encoder(src)
        hidden = hidden[: self.decoder.n_layers]
        output = torch.zeros_like(trg[0] if self.training and trg is not None else src[0])
        outputs = []
        for step in range(len(src)):
            output, hidden, _ = self.decoder(output, hidden, states)
            outputs.append(output)
            told = random.random() < teacher_forcing_ratio  # drawn whether or not there is a target
            if told and trg is not None:
                output = trg[step].detach()
        return torch.stack(outputs), states

    def before(
        self, other: "Seq2Seq", regression_encoder: nn.Module, head: nn.Module, p: float
    ) -> "L2_MCTN":
        """Returns the model in which another translation follows this one, see `L2_MCTN`."""
        return L2_MCTN(self, other, regression_encoder, head, p)


class MCTN(nn.Module):
    """A prediction from a source, learnt by translating it into a target and back.

    Args:
        seq2seq: the translation; both directions have it.
        regression_encoder: (steps, batch, hidden_size) -> (anything, states), as a GRU.
        head: the states of the first layer of these -> the prediction.
        p: probability of dropout on the states, and on the prediction.
    """

    seq2seq: Seq2Seq

    def __init__(
        self, seq2seq: Seq2Seq, regression_encoder: nn.Module, head: nn.Module, p: float = 0.2
    ) -> None:
        super().__init__()
        self.seq2seq = seq2seq
        self.dropout = nn.Dropout(p)
        self.regression = regression_encoder
        self.head = head

    def forward(
        self, src: Tensor, trg: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Maps a source, and in training the target, both (steps, batch, d).

        Returns:
            The translation; what it is translated back to, None outside of training; and the
            prediction, (batch, outputs).
        """
        back = None
        if self.training:
            there, _ = self.seq2seq(src, trg)
            back, joint = self.seq2seq(there, src)
        else:
            there, _ = self.seq2seq(src, trg, teacher_forcing_ratio=0.0)
            joint, _ = self.seq2seq.encoder(there)
        return there, back, _predicted(self, joint)


class L2_MCTN(nn.Module):
    """MCTN of two levels: what the first translation has taught is translated into a second target.

    Args:
        seq2seq_0: the translation of the source into the first target, and back.
        seq2seq_1: that of the states of the way back into the second target.
        regression_encoder: (steps, batch, hidden_size) -> (anything, states), as a GRU.
        head: the states of the first layer of these -> the prediction.
        p: probability of dropout on the states, and on the prediction.
    """

    def __init__(
        self,
        seq2seq_0: Seq2Seq,
        seq2seq_1: Seq2Seq,
        regression_encoder: nn.Module,
        head: nn.Module,
        p: float = 0.2,
    ) -> None:
        super().__init__()
        self.seq2seq0 = seq2seq_0
        self.seq2seq1 = seq2seq_1
        self.dropout = nn.Dropout(p)
        self.regression = regression_encoder
        self.head = head

    def forward(
        self, src: Tensor, trg0: Tensor | None = None, trg1: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
        """Maps a source, and in training two targets, all (steps, batch, d).

        Returns:
            The first translation; what it is translated back to, and the second translation, None
            outside of training; and the prediction, (batch, outputs).
        """
        back = second = None
        if self.training:
            there, _ = self.seq2seq0(src, trg0)
            back, joint = self.seq2seq0(there, src)
            second, joint = self.seq2seq1(joint, trg1)
        else:
            there, _ = self.seq2seq0(src, trg0, teacher_forcing_ratio=0.0)
            joint, _ = self.seq2seq1.encoder(self.seq2seq0.encoder(there)[0])
        return there, back, second, _predicted(self, joint)


def _predicted(model: MCTN | L2_MCTN, joint: Tensor) -> Tensor:
    """Returns the prediction from the states of the last encoder, (steps, batch, hidden_size)."""
    _, states = model.regression(joint)
    return model.dropout(model.head(model.dropout(states))[0])


def _between(layers: int, dropout: float) -> float:
    return dropout if layers > 1 else 0.0  # of which torch warns in a single one
