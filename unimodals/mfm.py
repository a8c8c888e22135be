"""MFM (Tsai et al., 2019, arXiv:1806.06176): factors that explain the label, and each modality."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .aligned import Aligned, AlignedModel, align, check_dims, check_weights, masked_mse, run_lstm


class SequenceEncoder(nn.Module):
    """A sequence as a linear map of an LSTM's last state.

    Args:
        input_dim: width of a step.
        code_dim: width of the state and of the code.
    """

    def __init__(self, input_dim: int, code_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_dim, code_dim, batch_first=True)
        self.output = nn.Linear(code_dim, code_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps (batch, steps, input_dim) and (batch, steps) to (batch, code_dim)."""
        _, last = run_lstm(self.lstm, x, mask)
        return self.output(last)


class SequenceDecoder(nn.Module):
    """A sequence made from a code, by an LSTM that reads its own states.

        h_1, c_1 = LSTM(code; 0, 0),   h_t, c_t = LSTM(h_{t-1}; h_{t-1}, c_{t-1}),   y_t = O h_t + o

    Args:
        code_dim: width of the code and of the states.
        output_dim: width of the y_t.
    """

    def __init__(self, code_dim: int, output_dim: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(code_dim, code_dim)
        self.output = nn.Linear(code_dim, output_dim)

    def forward(self, code: Tensor, steps: int) -> Tensor:
        """Maps (batch, code_dim) to (batch, steps, output_dim)."""
        cell = self.cell
        bias = cell.bias_ih + cell.bias_hh
        both = cell.weight_ih + cell.weight_hh  # the input is the state: one product for the two
        gates, c = F.linear(code, cell.weight_ih, bias), torch.zeros_like(code)
        states: list[Tensor] = []
        for step in range(steps):
            if step:
                gates = F.linear(states[-1], both, bias)
            i, f, g, o = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            states.append(o.sigmoid() * c.tanh())
        return self.output(torch.stack(states, 1))


class MFM(AlignedModel):
    """Predicts from a code of all modalities, which with a code of each must make it anew.

        z_m = encoder_m(x_m),   z_y = linear(fusion([x_1, ..., x_M]))       codes
        f = ReLU(linear(Dropout(ReLU(linear(z)))))                          factors, of each code
        prediction = linear(Dropout(ReLU(linear(f_y))))
        x^_m = decoder_m([f_y; f_m])

    In training,

        auxiliary_loss = sum_m w_m mean (x^_m - x_m)^2 + matching * sum_z MMD(z, N(0, I))

    with the mean over the steps that are there, and all codes z matched to a normal distribution,
    see `mmd_to_normal`. Outside training neither modality is encoded alone, nor decoded.

    Published with the memory fusion network as its fusion. As in the authors' release
    (github.com/pliang279/factorized) training is that of the joint objective from the start; the
    surrogate of the codes for a missing modality is left out.

    Args:
        input_dims: width of each modality's steps.
        outputs: width of the prediction.
        fusion: maps sequences without padding, a list of (batch, steps, d_m), to (batch,
            fused_dim). It is called for all samples of one length at once.
        fused_dim: width of the fused feature.
        code_dims: widths of z_y, z_1, ..., z_M; one number for all.
        factor_dims: widths of f_y, f_1, ..., f_M; one number for all.
        dropout: share left out between the two layers to the f and to the prediction.
        reconstruction: weights w_m; one number for all.
        matching: weight of the codes' distances to a normal distribution.

    Raises:
        ValueError: for fewer than two modalities, or arguments that make no sense.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        outputs: int,
        fusion: nn.Module,
        fused_dim: int,
        *,
        code_dims: int | Sequence[int] = 32,
        factor_dims: int | Sequence[int] = 32,
        dropout: float = 0.2,
        reconstruction: float | Sequence[float] = 0.1,
        matching: float = 1.0,
    ) -> None:
        super().__init__(input_dims)
        count = len(input_dims)
        codes = _listed("code_dims", code_dims, count + 1)
        factors = _listed("factor_dims", factor_dims, count + 1)
        widths = {"code_dims": min(codes), "factor_dims": min(factors)}
        check_dims(input_dims, outputs=outputs, fused_dim=fused_dim, **widths)
        self.reconstruction = _listed("reconstruction", reconstruction, count)
        for weight in self.reconstruction:
            check_weights(reconstruction=weight, matching=matching)
        self.matching = matching
        self._hidden: int | None = None
        self.fusion, self.to_code = fusion, nn.Linear(fused_dim, codes[0])
        pairs = list(zip(codes, factors, strict=True))
        self.factors = nn.ModuleList(
            nn.Sequential(_two_layers(code, factor, factor, dropout), nn.ReLU())
            for code, factor in pairs
        )
        self.predictor = _two_layers(factors[0], factors[0], outputs, dropout)
        self.encoders = nn.ModuleList(
            SequenceEncoder(d, code) for d, code in zip(input_dims, codes[1:], strict=True)
        )
        self.decoders = nn.ModuleList(
            SequenceDecoder(factors[0] + factor, d)
            for d, factor in zip(input_dims, factors[1:], strict=True)
        )

    def forward(self, inputs: Sequence) -> Tensor:
        """Maps a batch, see `align`, to the prediction (batch, outputs)."""
        batch = align(inputs, self.input_dims)
        if self._hidden is not None:
            batch.values[self._hidden] = torch.zeros_like(batch.values[self._hidden])
        code = self.to_code(self._fused(batch))
        factor = self.factors[0](code)
        self._own_loss = None
        if self.training and torch.is_grad_enabled():
            self._own_loss = self._loss(batch, code, factor)
        return self.predictor(factor)

    @contextmanager
    def without(self, modality: int) -> Iterator[None]:
        """Lets it predict as if that modality had not come: with zeros in its place."""
        self._hidden = modality
        try:
            yield
        finally:
            self._hidden = None

    def _fused(self, batch: Aligned) -> Tensor:
        """Returns the fused feature of every sample, without its padding, (batch, fused_dim)."""
        if batch.mask.all():
            return self.fusion(batch.values)
        lengths, fused = batch.mask.sum(1), []
        distinct = lengths.unique()
        for length in distinct:
            fused.append(self.fusion([x[lengths == length, :length] for x in batch.values]))
        order = torch.cat([(lengths == length).nonzero()[:, 0] for length in distinct])
        return torch.cat(fused)[order.argsort()]

    def _loss(self, batch: Aligned, code: Tensor, factor: Tensor) -> Tensor:
        loss, steps = mmd_to_normal(code) * self.matching, batch.mask.shape[1]
        parts = zip(
            *(batch.values, batch.masks, self.encoders, self.factors[1:], self.decoders),
            self.reconstruction,
            strict=True,
        )
        for x, mask, encoder, to_factor, decoder, weight in parts:
            own = encoder(x, batch.mask)
            made = decoder(torch.cat([factor, to_factor(own)], 1), steps)
            loss = loss + weight * masked_mse(made, x, mask) + self.matching * mmd_to_normal(own)
        return loss


def mmd_to_normal(code: Tensor) -> Tensor:
    """Returns the squared maximum mean discrepancy of a batch of codes and a normal distribution.

    With as many draws g from N(0, I) as there are codes z, it is

        mean k(g, g') + mean k(z, z') - 2 mean k(g, z),   k(a, b) = exp(-||a - b||^2 / d^2)

    with all pairs in the means, a code with itself, too (Gretton et al., 2012, equation 5). The
    kernel's width is that of the authors' release.

    Args:
        code: (batch, d).
    """
    draws = torch.randn_like(code)
    return (
        _kernel(draws, draws).mean() + _kernel(code, code).mean() - 2 * _kernel(draws, code).mean()
    )


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    square = a.square().sum(1).unsqueeze(1) + b.square().sum(1) - 2 * a @ b.t()
    return (-square / a.shape[1] ** 2).exp()


def _two_layers(width: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
    )


def _listed(name: str, value: float | Sequence[float], count: int) -> list:
    """Returns the numbers, one for each of `count`; one number is taken for all."""
    numbers = list(value) if isinstance(value, Sequence) else [value] * count
    if len(numbers) != count:
        raise ValueError(f"{name} must be one number, or {count} of them, got {numbers}")
    return numbers
