"""implicit_fixed_point: the gradient is that of the fixed point, wherever it is taken."""

import gc
import weakref
from functools import partial

import pytest
import torch

from deq_fusion.fusions.equilibrium import AutogradMap, implicit_fixed_point
from deq_fusion.fusions.equilibrium.solve import solve as solve_map


def f(z, x, weight):
    return torch.tanh(z @ weight.T + x)


def inputs(batch=3, size=5):
    weight = torch.randn(size, size)
    weight = 0.7 * weight / torch.linalg.matrix_norm(weight, 2)
    return torch.randn(batch, size).requires_grad_(), weight.requires_grad_()


def solve(x, weight, *, tol=1e-13, f=f):
    run = partial(solve_map, solver="anderson", tol=tol, max_steps=200)

    def make(*inputs):
        return AutogradMap(f, torch.zeros_like(inputs[0]), inputs)

    return implicit_fixed_point(make, (x, weight), solve=run, solve_adjoint=run)


def unrolled(x, weight, steps=200):
    z = torch.zeros_like(x)
    for _ in range(steps):
        z = f(z, x, weight)
    return z


def test_equals_the_gradient_through_unrolled_steps(double):
    x, weight = inputs()
    cotangent = torch.randn(3, 5)
    implicit = torch.autograd.grad(solve(x, weight), (x, weight), cotangent)
    expected = torch.autograd.grad(unrolled(x, weight), (x, weight), cotangent)
    for ours, theirs in zip(implicit, expected, strict=True):
        assert theirs.abs().max() > 1e-2
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_equals_a_dense_solve(double):
    x, weight = inputs(batch=1)
    z = solve(x, weight)
    cotangent = torch.randn(1, 5)
    jacobian = torch.autograd.functional.jacobian(lambda z: f(z[None], x, weight)[0], z.detach()[0])
    u = torch.linalg.solve(torch.eye(5) - jacobian.T, cotangent[0])
    expected = torch.autograd.grad(f(z.detach(), x, weight), (x, weight), u[None])
    for ours, theirs in zip(torch.autograd.grad(z, (x, weight), cotangent), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_passes_gradcheck(double):
    assert torch.autograd.gradcheck(solve, inputs(), atol=1e-7)


def test_two_forwards_may_be_differentiated_in_either_order(double):
    (x, weight), (y, _) = inputs(), inputs()
    g = torch.randn(3, 5)
    expected = [torch.autograd.grad(solve(v, weight), weight, g)[0] for v in (x, y)]
    for order in ((0, 1), (1, 0)):
        results = [solve(x, weight), solve(y, weight)]
        for i in order:
            (gradient,) = torch.autograd.grad(results[i], weight, g)
            torch.testing.assert_close(gradient, expected[i])


def test_may_be_used_twice_in_one_graph(double):
    x, weight = inputs()
    g = torch.randn(3, 5)
    twice = torch.autograd.grad(solve(solve(x, weight), weight), (x, weight), g)
    expected = torch.autograd.grad(unrolled(unrolled(x, weight), weight), (x, weight), g)
    for ours, theirs in zip(twice, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("scale", [1e-24, 1.0, 1e24])
def test_cotangents_of_any_scale_give_the_scaled_gradient(scale):
    x, weight = inputs()
    g = torch.randn(3, 5) * torch.tensor([[1.0], [0.0], [1e-6]])  # mixed within the batch, too
    z = solve(x, weight, tol=1e-6)
    (unit,) = torch.autograd.grad(z, x, g, retain_graph=True)
    (scaled,) = torch.autograd.grad(z, x, g * scale)
    torch.testing.assert_close(scaled / scale, unit, rtol=1e-5, atol=0)
    assert (scaled[1] == 0).all()
    assert scaled[2].abs().max() > 0


def test_a_cotangent_that_is_not_finite_passes_through():
    x, weight = inputs()
    g = torch.randn(3, 5)
    z = solve(x, weight, tol=1e-6)
    (clean,) = torch.autograd.grad(z, x, g, retain_graph=True)
    g[1, 2] = torch.inf
    through, through_weight = torch.autograd.grad(z, (x, weight), g)
    torch.testing.assert_close(through[[0, 2]], clean[[0, 2]])
    assert not through[1].isfinite().all()
    assert not through_weight.isfinite().all()


def test_a_second_derivative_raises_only_when_it_is_taken(double):
    x, weight = inputs()
    first = torch.autograd.grad(solve(x, weight), x, torch.randn(3, 5), create_graph=True)[0]
    assert first.requires_grad
    with pytest.raises(RuntimeError, match="can be taken once.*differentiate through unrolled"):
        torch.autograd.grad(first.square().sum(), weight)


def test_inputs_without_gradient_get_none(double):
    x, weight = inputs()
    z = solve(x.detach(), weight)
    z.backward(torch.ones_like(z))
    assert x.grad is None
    assert weight.grad.abs().max() > 0
    assert not solve(x.detach(), weight.detach()).requires_grad
    with torch.no_grad():
        assert not solve(x, weight).requires_grad


def test_a_map_that_ignores_its_state_is_differentiated(double):
    x, weight = inputs()
    z = solve(x, weight, f=lambda z, x, weight: x @ weight)
    g = torch.randn(3, 5)
    torch.testing.assert_close(torch.autograd.grad(z, x, g)[0], g @ weight.T)


def test_f_is_evaluated_with_gradients_once_and_only_in_the_backward_pass(double):
    recorded = []

    def counting(z, x, weight):
        recorded.append(torch.is_grad_enabled())
        return f(z, x, weight)

    x, weight = inputs()
    z = solve(x, weight, f=counting)
    assert not any(recorded)
    z.backward(torch.randn(3, 5))
    assert sum(recorded) == 1


def test_nothing_outlives_the_backward_pass():
    x, weight = inputs()
    activation = x * 2
    alive = weakref.ref(activation)
    z = solve(activation, weight, tol=1e-6)
    loss = z.square().sum()
    loss.backward()
    del activation, z
    gc.collect()
    assert loss.requires_grad  # kept by a loop that sums losses with their graph
    assert alive() is None


def test_parameters_changed_before_the_backward_pass_are_noticed(double):
    x, weight = inputs()
    z = solve(x, weight)
    with torch.no_grad():
        weight.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward(torch.randn(3, 5))


def test_the_map_keeps_its_autocast_state_in_the_backward_pass():
    dtypes = []

    def watching(z, x, weight):
        product = z @ weight.T
        dtypes.append(product.dtype)
        return torch.tanh(product.float() + x)

    x, weight = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = solve(x, weight, f=watching, tol=1e-2)
    z.backward(torch.randn(3, 5))
    assert z.dtype == torch.float32
    assert set(dtypes) == {torch.bfloat16}


@pytest.mark.parametrize("growth", [1.5, 0.9])
def test_what_does_not_converge_is_the_iterate_that_solves_best_and_not_one_that_has_grown(
    double, growth
):
    weight = torch.randn(5, 5)
    weight = growth * weight / torch.linalg.eigvals(weight).abs().max()
    x, g, steps = torch.randn(3, 5).requires_grad_(), torch.randn(3, 5), 12
    run = partial(solve_map, solver="picard", tol=0.0, max_steps=steps)

    def make(*inputs):
        return AutogradMap(lambda z, x, w: z @ w.T + x, torch.zeros_like(x), inputs)

    z = implicit_fixed_point(make, (x, weight), solve=run, solve_adjoint=run)
    (found,) = torch.autograd.grad(z, x, g)
    iterates = [g]
    for _ in range(steps):
        iterates.append(iterates[-1] @ weight + g)
    missing = [(b - a).norm(dim=1) for a, b in zip(iterates, iterates[1:], strict=False)]
    best = torch.stack(missing).argmin(0)
    expected = torch.stack([iterates[k][row] for row, k in enumerate(best)])
    torch.testing.assert_close(found, expected)
    assert (best.max() < steps - 1) == (growth > 1)
