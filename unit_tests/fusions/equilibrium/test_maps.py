"""AutogradMap serves any function; residuals of any size tell how near a state is."""

import pytest
import torch

from deq_fusion.fusions.equilibrium import AutogradMap
from deq_fusion.fusions.equilibrium.maps import Adjoint, normal_residual, relative_residual


def posed(shape=(3, 2, 4)):
    weight = torch.randn(4, 4).requires_grad_()
    x = torch.randn(shape).requires_grad_()
    f = AutogradMap(
        lambda z, x, w, none: torch.tanh(z @ w + x), torch.zeros(shape), (x, weight, None)
    )
    return f, x, weight


def test_a_function_becomes_a_map_of_rows(double):
    f, x, weight = posed()
    z = torch.randn(3, 8)
    assert f.start().equal(torch.zeros(3, 8)) and f.trace == () and not f.narrows
    image = f(z)
    assert not image.requires_grad
    torch.testing.assert_close(image, torch.tanh(z.view(3, 2, 4) @ weight + x).flatten(1).detach())


def test_products_and_gradients_are_those_of_the_dense_jacobian(double):
    f, x, weight = posed()
    z, u, plus = torch.randn(3, 3, 8)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: torch.tanh(z.view(3, 2, 4) @ weight + x).flatten(), z
    ).view(24, 24)
    linear = f.at(z)
    for _ in range(2):  # any number of times
        pulled = (jacobian.T @ u.flatten()).view(3, 8) + plus
        torch.testing.assert_close(linear.pull(u, plus), pulled.detach())
    scale = torch.rand(3, 1) + 0.5
    image = torch.tanh(z.view(3, 2, 4) @ weight + x)
    expected = torch.autograd.grad(image, (x, weight), (u * scale).view_as(image))
    *ours, none = linear.gradients(u, scale, latest=True)
    assert none is None
    for got, want in zip(ours, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_a_function_that_ignores_its_state_has_no_jacobian(double):
    x = torch.randn(3, 2).requires_grad_()
    linear = AutogradMap(lambda z, x: x * 2, torch.zeros(3, 2), (x,)).at(torch.randn(3, 2))
    u = torch.randn(3, 2)
    torch.testing.assert_close(linear.pull(u, u), u, rtol=0, atol=0)
    torch.testing.assert_close(
        linear.gradients(u, torch.ones(3, 1), latest=False)[0], 2 * u, rtol=0, atol=0
    )
    constant = AutogradMap(lambda z: torch.ones(3, 2), torch.zeros(3, 2), ()).at(torch.randn(3, 2))
    torch.testing.assert_close(constant.pull(u, u), u, rtol=0, atol=0)


def test_an_adjoint_is_the_map_whose_fixed_point_is_the_cotangent(double):
    f, x, weight = posed((1, 4))
    with torch.no_grad():
        weight *= 0.1
    z, g = torch.randn(1, 4), torch.randn(1, 4)
    adjoint = Adjoint(f.at(z), g, f)
    u = adjoint.start()
    torch.testing.assert_close(u, g, rtol=0, atol=0)
    for _ in range(60):
        u = adjoint(u)
    jacobian = torch.autograd.functional.jacobian(lambda z: torch.tanh(z @ weight + x)[0], z)[:, 0]
    torch.testing.assert_close(u[0], torch.linalg.solve(torch.eye(4) - jacobian.T, g[0]).detach())


residuals = pytest.mark.parametrize("residual", [relative_residual, normal_residual])


@residuals
def test_a_residual_is_the_change_relative_to_the_image(double, residual):
    z, fz = torch.randn(2, 3, 5, 4)
    expected = (fz - z).norm(dim=-1) / fz.norm(dim=-1)
    torch.testing.assert_close(residual(z, fz), expected)
    assert (residual(fz, fz) == 0).all()
    zero = torch.zeros(2, 3)
    assert (residual(zero, zero) == 0).all()
    assert (residual(torch.ones(2, 3), zero) > 1e3).all()


@residuals
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_has_no_residual_that_converges(residual, value):
    z, fz = torch.randn(2, 3, 4)
    fz[1, 2] = value
    found = residual(z, fz)
    assert found.isfinite().tolist() == [True, False, True] and not found[1] <= 1e30
    if residual is relative_residual:
        assert found[1].isnan()


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-25, 1e25, 3e37])
def test_the_relative_residual_holds_at_any_scale(scale):
    """Squares of such float32 numbers underflow or overflow; against float64."""
    z, fz = (torch.randn(2, 3, 4) * scale).unbind()
    wide = (fz.double() - z.double()).norm(dim=-1) / fz.double().norm(dim=-1)
    torch.testing.assert_close(relative_residual(z, fz).double(), wide, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e20, 1e30, 3e37])
def test_the_normal_residual_of_what_is_large_comes_out_larger(scale):
    z, fz = (torch.randn(2, 3, 4) * scale).unbind()
    wide = (fz.double() - z.double()).norm(dim=-1) / fz.double().norm(dim=-1)
    assert (normal_residual(z, fz).double() >= wide * 0.99).all()
