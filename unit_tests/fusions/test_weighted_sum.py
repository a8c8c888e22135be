"""WeightedSum is sum_i w_i P_i x_i, with a projection P_i where the width differs."""

import pytest
import torch
from torch import nn

from fusions.weighted_sum import WeightedSum


def test_starts_as_the_plain_sum():
    x, y = torch.randn(2, 4, 6)
    torch.testing.assert_close(WeightedSum([6, 6], 6)([x, y]), x + y)


def test_weighs_and_projects_every_modality():
    fusion = WeightedSum([6, 3], 6)
    assert isinstance(fusion.projections[0], nn.Identity)
    assert fusion.projections[1].weight.shape == (6, 3)
    with torch.no_grad():
        fusion.weights.copy_(torch.tensor([2.0, -0.5]))
    x, y = torch.randn(2, 4, 6), torch.randn(2, 4, 3)
    expected = 2.0 * x - 0.5 * y @ fusion.projections[1].weight.T
    torch.testing.assert_close(fusion([x, y]), expected)


def test_gradient_of_a_weight_is_the_modality_against_the_cotangent():
    fusion = WeightedSum([6, 6], 6)
    features = [torch.randn(4, 6, requires_grad=True) for _ in range(2)]
    cotangent = torch.randn(4, 6)
    fusion(features).backward(cotangent)
    expected = torch.stack([(x * cotangent).sum() for x in features])
    torch.testing.assert_close(fusion.weights.grad, expected)
    for x in features:
        torch.testing.assert_close(x.grad, cotangent)  # w_i = 1


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"input_dims\[1\] must be an integer of at least 1"):
        WeightedSum([6, 0], 6)
    fusion = WeightedSum([6, 3], 6)
    with pytest.raises(ValueError, match="a list of 2 tensors, one for each of .* got 1"):
        fusion([torch.randn(4, 6)])
    with pytest.raises(ValueError, match=r"features\[1\] must have shape \(batch, ..., 3\)"):
        fusion([torch.randn(4, 6), torch.randn(4, 4)])
