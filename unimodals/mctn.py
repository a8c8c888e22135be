"""MCTN (Pham et al., 2019, arXiv:1812.07809): what a text says, learnt by translating it.

A network translates text into another modality and back, and the states of its encoder, which
need the text alone, predict.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .aligned import (
    Aligned,
    AlignedModel,
    align,
    check_dims,
    check_weights,
    masked_mse,
    run_lstm,
    with_a_step,
)


class Encoder(nn.Module):
    """States of a bidirectional LSTM, the sum of both directions.

    Args:
        input_dim: width of a step.
        dim: width of a state.
    """

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_dim, dim, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps (batch, steps, input_dim) and (batch, steps) to (batch, steps, dim)."""
        states, _ = run_lstm(self.lstm, x, mask)
        return states.unflatten(2, (2, -1)).sum(2)


class Decoder(nn.Module):
    """A sequence read from the states e_1..e_T of an encoder by attention (Bahdanau et al., 2015).

        a_ts = softmax_s(v^T tanh(W e_s + U h_{t-1} + b)),   over the steps that are there
        h_t, c_t = LSTM(sum_s a_ts e_s; h_{t-1}, c_{t-1}),   h_0 = c_0 = 0
        y_t = O h_t + o

    As in the authors' release no output is fed back, so training needs no teacher forcing.

    Args:
        dim: width of the states, its own and the encoder's.
        output_dim: width of the y_t.
    """

    def __init__(self, dim: int, output_dim: int) -> None:
        super().__init__()
        self.keys, self.query = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.score = nn.Linear(dim, 1, bias=False)
        self.cell = nn.LSTMCell(dim, dim)
        self.output = nn.Linear(dim, output_dim)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Maps (batch, steps, dim) and (batch, steps) to (batch, steps, output_dim)."""
        keys = self.keys(states)
        absent = ~mask
        h = c = states.new_zeros(states.shape[0], states.shape[2])
        decoded = []
        for _ in range(states.shape[1]):
            energy = self.score((keys + self.query(h).unsqueeze(1)).tanh()).squeeze(2)
            attention = energy.masked_fill(absent, -torch.inf).softmax(1)
            context = torch.bmm(attention.unsqueeze(1), states).squeeze(1)
            h, c = self.cell(context, (h, c))
            decoded.append(h)
        return self.output(torch.stack(decoded, 1))


class Predictor(nn.Module):
    """A prediction from the states e_1..e_T of an encoder.

        h_t = LSTM(e_t; h_{t-1}),   a_t = softmax_t(tanh(w^T h_t + b)),   y = V sum_t a_t h_t + v

    Args:
        dim: width of the e_t and of the h_t.
        outputs: width of the prediction.
    """

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.attention = nn.Linear(dim, 1)
        self.output = nn.Linear(dim, outputs)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Maps (batch, steps, dim) and (batch, steps) to (batch, outputs)."""
        states, _ = run_lstm(self.lstm, states, mask)
        energy = self.attention(states).squeeze(2).tanh()
        attention = energy.masked_fill(~mask, -torch.inf).softmax(1)
        return self.output(torch.bmm(attention.unsqueeze(1), states).squeeze(1))


class MCTN(AlignedModel):
    """Translates a source modality into the others, and predicts from what that has taught it.

    With the source s, the targets x_1..x_K, encoders E_k and decoders D_k:

        e_1 = E_1(s),         x^_1 = D_1(e_1),     s^ = D_1(E_1(x^_1))      there and back
        e_k = E_k(e_{k-1}),   x^_k = D_k(e_k),     k = 2..K
        prediction = Predictor(e_K)

    In training, with the means over the steps that are there,

        auxiliary_loss = translation * sum_k mean (x^_k - x_k)^2 + cycle * mean (s^ - s)^2
                         + decay * ||V||^2

    where V is the prediction's last map. A prediction reads the source alone: outside training
    nothing else is looked at, so that a sample without the source is one step of zeros there,
    whatever else it has.

    One encoder and one decoder serve both directions of the first translation, so the narrower
    of s and x_1 is padded with zeros at the end of each step, which count in no loss. Against the
    authors' release (github.com/hainow/MCTN): the attention's score is not linear, for then the
    decoder's state shifts all scores of a step alike and is without effect; the decoder's forget
    gate is its own, where the release computes it from the input gate's weights; decoders end in
    a linear map, not in tanh, for standardised features go beyond 1.

    Args:
        input_dims: width of each modality's steps.
        outputs: width of the prediction.
        order: numbers of the modalities, the source first, then the targets as they follow each
            other; by default as they come.
        dim: width of all states.
        translation: weight of the translations.
        cycle: weight of the way back.
        decay: weight of the square of the last map.

    Raises:
        ValueError: for fewer than two modalities, or arguments that make no sense.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        outputs: int,
        *,
        order: Sequence[int] | None = None,
        dim: int = 32,
        translation: float = 0.1,
        cycle: float = 0.1,
        decay: float = 0.01,
    ) -> None:
        super().__init__(input_dims)
        check_dims(input_dims, outputs=outputs, dim=dim)
        check_weights(translation=translation, cycle=cycle, decay=decay)
        self.order = tuple(range(len(input_dims)) if order is None else order)
        if sorted(self.order) != list(range(len(input_dims))):
            raise ValueError(
                f"order must name each of the {len(input_dims)} modalities once, by number from "
                f"0 on, got {list(self.order)}"
            )
        self.translation, self.cycle, self.decay = translation, cycle, decay
        source, first, *others = (input_dims[m] for m in self.order)
        self.width = max(source, first)
        widths = [self.width, *[dim] * len(others)]
        self.encoders = nn.ModuleList(Encoder(width, dim) for width in widths)
        self.decoders = nn.ModuleList(Decoder(dim, width) for width in (self.width, *others))
        self.predictor = Predictor(dim, outputs)

    def forward(self, inputs: Sequence) -> Tensor:
        """Maps a batch, see `align`, to the prediction (batch, outputs)."""
        batch = align(inputs, self.input_dims)
        source, states = self.order[0], []
        mask = batch.mask if self.training else with_a_step(batch.masks[source])
        state = self._padded(batch.values[source])
        for encoder in self.encoders:
            state = encoder(state, mask)
            states.append(state)
        self._own_loss = None
        if self.training and torch.is_grad_enabled():
            self._own_loss = self._loss(batch, states)
        return self.predictor(state, mask)

    def _loss(self, batch: Aligned, states: list[Tensor]) -> Tensor:
        source, *targets = ((batch.values[m], batch.masks[m]) for m in self.order)
        decoded = [d(state, batch.mask) for d, state in zip(self.decoders, states, strict=True)]
        width = targets[0][0].shape[2]
        decoded[0] = decoded[0][..., :width]
        loss = self.decay * self.predictor.output.weight.square().sum()
        if self.translation:
            errors = [masked_mse(y, *target) for y, target in zip(decoded, targets, strict=True)]
            loss = loss + self.translation * sum(errors)
        if self.cycle:
            # padding of the text is no part of what is translated back
            there = decoded[0].masked_fill(~batch.mask.unsqueeze(2), 0)
            back = self.decoders[0](self.encoders[0](self._padded(there), batch.mask), batch.mask)
            loss = loss + self.cycle * masked_mse(back[..., : source[0].shape[2]], *source)
        return loss

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.width - x.shape[2]))
