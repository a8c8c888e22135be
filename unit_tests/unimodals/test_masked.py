"""The state after the last step, by the equations of a GRU; padding changes nothing."""

import torch

from deq_fusion.unimodals.masked import MaskedGRU

LENGTHS = torch.tensor([3, 1, 5])
MASK = torch.arange(5) < LENGTHS[:, None]


def test_the_state_is_that_after_the_last_step():
    encoder, x = MaskedGRU(4, 3).eval(), torch.randn(3, 5, 4)
    gru = encoder.gru
    for row, length, result in zip(x, LENGTHS, encoder(x, MASK), strict=True):
        state = torch.zeros(3)
        for step in row[:length]:
            inside = gru.weight_ih_l0 @ step + gru.bias_ih_l0
            before = gru.weight_hh_l0 @ state + gru.bias_hh_l0
            reset, update = (
                (a + b).sigmoid()
                for a, b in zip(inside[:6].split(3), before[:6].split(3), strict=True)
            )
            new = (inside[6:] + reset * before[6:]).tanh()
            state = (1 - update) * new + update * state
        torch.testing.assert_close(result, state)


def test_padding_and_batch_mates_change_nothing():
    encoder, x = MaskedGRU(4, 3).eval(), torch.randn(3, 5, 4)
    other = torch.where(MASK[:, :, None], x, torch.randn(3, 5, 4))
    torch.testing.assert_close(encoder(other, MASK), encoder(x, MASK))
    torch.testing.assert_close(encoder(x[1:2, :1], MASK[1:2, :1]), encoder(x, MASK)[1:2])


def test_a_sequence_without_steps_and_the_dtype():
    encoder = MaskedGRU(4, 3).double()
    out = encoder(torch.zeros(2, 5, 4).double(), torch.zeros(2, 5, dtype=torch.bool))
    assert out.dtype == torch.float64 and torch.isfinite(out).all()
    (out * torch.randn_like(out)).sum().backward()
    assert encoder.gru.bias_ih_l0.grad.abs().sum() > 0
