"""The Jacobian penalty and the spectral radius, against dense Jacobians."""

import pytest
import torch

from deq_fusion.fusions.equilibrium import jacobian_penalty, spectral_radius


def test_the_penalty_is_the_mean_square_of_the_entries_of_a_linear_map(double):
    weight = torch.randn(6, 6)
    z = torch.randn(4, 6)
    estimate = jacobian_penalty(lambda z: z @ weight.T, z, probes=4000)
    # |J|_F^2 summed over samples, a state entry: 4 |W|^2 / (4 * 6)
    torch.testing.assert_close(estimate, weight.square().sum() / 6, rtol=0.05, atol=0)


def test_the_penalty_of_one_probe_is_the_square_of_its_product(double):
    weight = torch.randn(5, 5, requires_grad=True)
    z = torch.randn(3, 5)
    torch.manual_seed(7)
    penalty = jacobian_penalty(lambda z, w: torch.tanh(z @ w.T), z, (weight,))
    torch.manual_seed(7)
    v = torch.randn(3, 5)
    slope = 1 - torch.tanh(z @ weight.T).square()
    expected = ((v * slope) @ weight).square().mean()
    torch.testing.assert_close(penalty, expected)
    ours, theirs = (torch.autograd.grad(y, weight)[0] for y in (penalty, expected))
    assert theirs.abs().max() > 1e-2
    torch.testing.assert_close(ours, theirs)


def test_the_radius_equals_the_largest_eigenvalue_of_each_sample(double):
    matrices = torch.randn(5, 8, 8)
    expected = torch.linalg.eigvals(matrices).abs().amax(1)
    estimate = spectral_radius(lambda z: (matrices @ z.unsqueeze(2)).squeeze(2), torch.zeros(5, 8))
    torch.testing.assert_close(estimate, expected, rtol=0.05, atol=0)


def test_the_radius_is_taken_at_the_state(double):
    z = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    estimate = spectral_radius(torch.tanh, z)
    torch.testing.assert_close(estimate, 1 - torch.tanh(z[:, 0]).square())


def test_a_map_that_ignores_its_state_has_neither():
    x = torch.randn(3, 2)
    assert jacobian_penalty(lambda z: x, x) == 0
    assert (spectral_radius(lambda z: x, x) == 0).all()


def test_the_radius_needs_two_steps():
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        spectral_radius(torch.tanh, torch.zeros(1, 1), steps=1)
