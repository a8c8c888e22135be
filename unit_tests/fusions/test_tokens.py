"""Vectors and sequences as tokens: what becomes of them, and what is refused."""

import math

import pytest
import torch
from torch import nn

from deq_fusion.fusions.tokens import as_tokens, sinusoids

MODULE, WIDTHS = nn.Linear(1, 1), [3, 2]


@pytest.mark.parametrize("width", [1, 5, 6])
def test_places_are_sines_and_cosines_in_turn(double, width):
    table = sinusoids(7, torch.empty(0, width))
    for t in range(7):
        for k in range(width):
            wave = math.cos if k % 2 else math.sin
            expected = wave(t / 10000 ** (2 * (k // 2) / width))
            assert table[t, k].item() == pytest.approx(expected, abs=1e-12)


def test_vectors_are_one_step_and_the_absent_are_zeros():
    vector, sequence = torch.randn(2, 3), torch.randn(2, 4, 2)
    present = torch.tensor([[True, False], [False, True]])
    odd = [vector.clone(), sequence.clone()]
    odd[0][1], odd[1][0] = math.nan, math.inf
    first, second = as_tokens(MODULE, odd, WIDTHS, present)
    vector[1], sequence[0] = 0, 0
    torch.testing.assert_close(first, vector.unsqueeze(1), rtol=0, atol=0)
    torch.testing.assert_close(second, sequence, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(2, 3), "a list of 2 tensors.*got Tensor"),
        ([torch.ones(2, 3)], "a list of 2 tensors.*got 1"),
        ([torch.ones(2, 3), torch.ones(2, 4)], r"features\[1\] must have shape \(batch, 2\)"),
        ([torch.ones(2, 1, 1, 3), torch.ones(2, 2)], r"\(batch, time, 3\), got \(2, 1, 1, 3\)"),
        ([torch.ones(2, 3), torch.ones(4, 2)], r"one batch size, got \[2, 4\]"),
        ([torch.ones(2, 3), torch.ones(2, 0, 2)], r"must hold a number, got shape \(2, 0, 2\)"),
        ([torch.full((2, 3), math.nan), torch.ones(2, 2)], "features must be finite"),
        ([torch.full((2, 3), 1e20), torch.ones(2, 2)], "normalised or attended to"),
    ],
)
def test_what_does_not_fit_is_refused(features, message):
    with pytest.raises(ValueError, match=message):
        as_tokens(MODULE, features, WIDTHS)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match=r"features\[0\] must be a floating-point tensor"):
        as_tokens(MODULE, [torch.ones(2, 3).long(), torch.ones(2, 2)], WIDTHS)
