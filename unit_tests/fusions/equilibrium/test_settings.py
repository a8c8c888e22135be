"""Equilibrium: settings are used, failures are reported, gradients are those asked for."""

import inspect
import re

import pytest
import torch

from deq_fusion import DEQFusion
from deq_fusion.fusions.equilibrium import AutogradMap, ConvergenceWarning, Equilibrium, SolveRecord


def maker(f, start):
    """Makes maps z -> f(z, *inputs)."""
    return lambda *inputs: AutogradMap(f, start, inputs)


def solve(equilibrium, slopes, **options):
    """Solves z = a z + 1 for a slope a for each sample, and returns z and the record."""
    record = SolveRecord([len(slopes)])
    a = torch.tensor(slopes).view(-1, 1).requires_grad_()
    z = equilibrium.solve(
        maker(lambda z, a: a * z + 1, torch.zeros(len(slopes), 1)),
        (a,),
        record=record,
        names=["z"],
        **options,
    )
    return z, a, record


def test_forward_and_backward_follow_their_own_limits(double):
    settings = Equilibrium("picard", tol=1e-9, max_steps=99, backward_tol=1e-2)
    z, a, record = solve(settings, [0.5])
    z.backward(torch.ones_like(z))
    # |z_k - z| halves each step, from the start: 2^-k <= tol
    assert record.forward["z"].steps.item() == pytest.approx(31, abs=1)
    assert record.backward["z"].steps.item() == pytest.approx(7, abs=1)
    torch.testing.assert_close(z.detach(), torch.tensor([[2.0]]), rtol=1e-8, atol=0)
    torch.testing.assert_close(a.grad, torch.tensor([[4.0]]), rtol=1e-1, atol=0)


def test_failures_are_warned_of_raised_or_ignored(double):
    options = {"solver": "picard", "max_steps": 5}
    with pytest.warns(ConvergenceWarning, match="forward solve of z .5 steps.*tol=0.001"):
        solve(Equilibrium(**options), [0.0, 0.9])
    with pytest.raises(RuntimeError, match=r"every sample must reach tol=0.001, but 1 of 2"):
        solve(Equilibrium(**options, on_failure="raise"), [0.0, 0.9])
    _, _, record = solve(Equilibrium(**options, on_failure="ignore"), [0.0, 0.9])
    assert record.converged.flatten().tolist() == [True, False]


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 6, 7, 8])
def test_it_is_told_how_many_failed(double, failing):
    """Exactly by an error; by a warning to the last power of two, for texts differ seldom then."""
    options = {"solver": "picard", "max_steps": 5}
    slopes = [0.9] * failing + [0.0] * (8 - failing)
    with pytest.raises(RuntimeError, match=f"but {failing} of 8 did not .worst residual"):
        solve(Equilibrium(**options, on_failure="raise"), slopes)
    with pytest.warns(ConvergenceWarning) as warned:
        solve(Equilibrium(**options), slopes)
    (text,) = [str(w.message) for w in warned]
    some = {1: "1", 2: "2 to 3", 3: "2 to 3", 8: "8"}.get(failing, "4 to 7")
    # z_5 = 10 (1 - 0.9^5): |z_5 - z_4| / |z_5| is 0.16
    told = rf"{some} of 8 samples did not reach tol=0.001 .worst residual below 1.; raise max_st"
    assert re.search(rf": {told}", text)


def test_a_warning_points_at_the_line_that_called_the_fusion():
    fusion = DEQFusion([5, 7], 16, max_steps=1, tol=1e-9, backward_tol=1e-9, backward_max_steps=1)
    network = torch.nn.Sequential(fusion, torch.nn.Linear(16, 1))
    with pytest.warns(ConvergenceWarning) as warned:
        here = inspect.currentframe().f_lineno
        loss = network([torch.randn(3, 5), torch.randn(3, 7)]).square().sum()
        loss.backward()
    assert {(w.filename, w.lineno) for w in warned} == {(__file__, here + 1), (__file__, here + 2)}


def test_an_error_tells_the_worst_residual(double):
    with pytest.raises(RuntimeError) as raised:
        solve(Equilibrium("picard", max_steps=5, on_failure="raise"), [0.9, 0.5, 0.0])
    # z_k = 10 (1 - 0.9^k): |z_5 - z_4| / |z_5|
    assert f"(worst residual {0.9**4 / (10 * (1 - 0.9**5)):.1e})" in str(raised.value)


def test_a_failed_adjoint_solve_is_reported_too(double):
    settings = Equilibrium("picard", max_steps=200, backward_max_steps=3)
    z, _, record = solve(settings, [0.9])
    with pytest.warns(ConvergenceWarning, match="backward solve of z"):
        z.backward(torch.ones_like(z))
    assert not record.backward["z"].converged.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "newton"}, "unknown solver 'newton'"),
        ({"on_failure": "panic"}, r"unknown on_failure 'panic'; choose from \['ignore'"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1"),
        ({"backward_tol": -1.0}, "backward_tol must be at least 0"),
        ({"backward_max_steps": 0}, "backward_max_steps must be an integer of at least 1"),
        ({"gradient": "two_step"}, "unknown gradient 'two_step'; choose from"),
        ({"ask_every": 0}, "ask_every must be an integer of at least 1, got 0"),
        ({"neumann_terms": 0}, "neumann_terms must be an integer of at least 1, got 0"),
        ({"neumann_damping": 0.0}, "neumann_damping must be above 0 and at most 1, got 0"),
        ({"neumann_damping": 1.5}, "neumann_damping must be above 0 and at most 1, got 1.5"),
    ],
)
def test_bad_settings_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        Equilibrium(**options)


def contraction(batch=3, size=4):
    """A map z -> tanh(A z + x) with |A| < 1, its fixed point, its Jacobians and a cotangent."""
    a = torch.randn(size, size)
    a = (0.6 * a / torch.linalg.matrix_norm(a, 2)).requires_grad_()
    x = torch.randn(batch, size).requires_grad_()

    def f(z, a, x):
        return torch.tanh(z @ a.T + x)

    with torch.no_grad():
        z = torch.zeros(batch, size)
        for _ in range(200):
            z = f(z, a, x)
    jacobians = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda z, i=i: f(z[None], a, x[i])[0], z[i])
            for i in range(batch)
        ]
    )
    return f, (a, x), z, jacobians, torch.randn(batch, size)


@pytest.mark.parametrize(
    ("options", "terms", "damping"),
    [
        ({"gradient": "one_step"}, 1, 1.0),
        ({"gradient": "one_step", "neumann_terms": 7, "neumann_damping": 0.5}, 1, 1.0),
        ({"gradient": "neumann"}, 3, 1.0),
        ({"gradient": "neumann", "neumann_terms": 6}, 6, 1.0),
        ({"gradient": "neumann", "neumann_terms": 5, "neumann_damping": 0.4}, 5, 0.4),
    ],
)
def test_approximate_gradients_are_the_sums_they_stand_for(double, options, terms, damping):
    f, inputs, z, jacobians, g = contraction()
    record = SolveRecord([len(z)])
    settings = Equilibrium(tol=1e-13, max_steps=200, **options)
    ours = settings.solve(maker(f, torch.zeros_like(z)), inputs, record=record, names=["z"])
    got = torch.autograd.grad(ours, inputs, g)
    power = damping * jacobians.mT + (1 - damping) * torch.eye(z.shape[1])
    u = damping * sum(
        (torch.linalg.matrix_power(power, k) @ g.unsqueeze(2)).squeeze(2) for k in range(terms)
    )
    for ours, expected in zip(got, torch.autograd.grad(f(z, *inputs), inputs, u), strict=True):
        torch.testing.assert_close(ours, expected)
    assert record.forward["z"].converged.all() and not record.backward  # nothing was solved


def test_the_neumann_series_tends_to_the_exact_gradient(double):
    f, inputs, z, _, g = contraction()

    def gradient(**options):
        settings = Equilibrium(tol=1e-13, max_steps=200, **options)
        record = SolveRecord([len(z)])
        solved = settings.solve(maker(f, torch.zeros_like(z)), inputs, record=record, names=["z"])
        return torch.autograd.grad(solved, inputs, g)

    exact = gradient()
    errors = [
        sum((a - b).norm() for a, b in zip(exact, gradient(**options), strict=True))
        for options in (
            {"gradient": "one_step"},
            {"gradient": "neumann", "neumann_terms": 4},
            {"gradient": "neumann", "neumann_terms": 100},
            {"gradient": "neumann", "neumann_terms": 200, "neumann_damping": 0.5},
        )
    ]
    assert errors[0] > errors[1] > 1e-6
    assert max(errors[2:]) < 1e-10
