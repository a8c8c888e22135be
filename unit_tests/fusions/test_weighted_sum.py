"""WeightedSum is sum_i w_i P_i x_i, with a projection P_i where the width differs; Sum has no w."""

import pytest
import torch
from torch import nn

from deq_fusion.fusions.weighted_sum import Sum, WeightedSum


def test_the_plain_sum_has_no_parameters_unless_widths_differ():
    x, y, z = torch.randn(4, 6), torch.randn(4, 6), torch.randn(4, 3)
    fusion = Sum([6, 6], 6)
    torch.testing.assert_close(fusion([x, y]), x + y, rtol=0, atol=0)
    assert not list(fusion.parameters())
    fusion = Sum([6, 3], 6)
    (weight,) = fusion.parameters()
    assert weight.shape == (6, 3)
    torch.testing.assert_close(fusion([x, z]), x + z @ weight.T)


def test_the_sum_is_over_the_modalities_that_a_sample_has():
    x, y = torch.randn(2, 3, 6)
    present = torch.tensor([[True, False], [False, True], [True, True]])
    for fusion, weights in ((Sum([6, 6], 6), (1.0, 1.0)), (WeightedSum([6, 6], 6), (2.0, -0.5))):
        if isinstance(fusion, WeightedSum):
            fusion.weights.data.copy_(torch.tensor(weights))
        a, b = weights
        expected = torch.stack([a * x[0], b * y[1], a * x[2] + b * y[2]])
        torch.testing.assert_close(fusion([x, y], present=present), expected)


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
