"""How seldom the host asks whether all have converged changes nothing of what a solve finds."""

import pytest
import torch

from deq_fusion.fusions.equilibrium import SOLVERS, find_fixed_point

solver = pytest.mark.parametrize("solver", sorted(SOLVERS))
asking = pytest.mark.parametrize("ask", [2, 4, 8])
RATES = (0.0, 0.05, 0.3, 0.6, 0.8, 0.93)


class Contractions:
    """z -> a_i z + b_i with |a_i| a rate of its own, entry by entry: no sample sees another."""

    def __init__(self, size=40, rates=RATES):
        self.a = torch.tensor(rates).unsqueeze(1) * (0.3 + 0.7 * torch.rand(len(rates), size))
        self.a[:, 0] = torch.tensor(rates)  # the rate is reached
        self.b = torch.randn(len(rates), size)
        self.expected, self.start = self.b / (1 - self.a), torch.zeros(len(rates), size)
        self.calls = 0

    def __call__(self, z):
        self.calls += 1
        return self.a * z + self.b


class Leaving(Contractions):
    """The same, and what has converged leaves."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def narrow(self, rows):
        self.a, self.b = self.a[rows], self.b[rows]
        self.sizes.append(len(rows))


def found(kind, ask, **options):
    torch.manual_seed(3)
    f, seen = kind(), []
    solution = find_fixed_point(
        f, f.start, ask_every=ask, observe=lambda *step: seen.append(step), **options
    )
    return f, solution, seen


@solver
@asking
@pytest.mark.parametrize("max_steps", [7, 200])
def test_the_result_is_the_same_to_the_last_bit_where_nobody_leaves(double, solver, ask, max_steps):
    options = {"solver": solver, "tol": 1e-6, "max_steps": max_steps}
    f, seldom, shown = found(Contractions, ask, **options)
    _, often, all_shown = found(Contractions, 1, **options)
    assert often.converged.all() == (max_steps == 200)
    assert f.calls <= max_steps
    for name in ("value", "residual", "converged", "steps", "failed"):
        mine, theirs = getattr(seldom, name), getattr(often, name)
        assert mine.equal(theirs) if isinstance(mine, torch.Tensor) else mine == theirs, name
    if often.converged.all():
        error = (seldom.value - f.expected).norm(dim=1) / f.expected.norm(dim=1)
        assert (error <= 1e-6 / (1 - torch.tensor(RATES))).all()
    # who looks on sees the same steps, too
    assert [step for step, *_ in shown] == [step for step, *_ in all_shown]
    for (_, *mine), (_, *theirs) in zip(shown, all_shown, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@solver
@asking
def test_the_result_is_the_same_to_rounding_where_samples_leave(double, solver, ask):
    options = {"solver": solver, "tol": 1e-10, "max_steps": 300}
    _, whole, _ = found(Contractions, 1, **options)
    for every in (1, ask):
        f, seldom, _ = found(Leaving, every, **options)
        assert f.sizes and seldom.converged.all()
        torch.testing.assert_close(seldom.steps, whole.steps, rtol=0, atol=0)
        torch.testing.assert_close(seldom.value, whole.value, rtol=1e-12, atol=0)
        torch.testing.assert_close(seldom.residual, whole.residual, rtol=1e-3, atol=1e-15)


@pytest.mark.parametrize("ask", [1, 2, 4, 8])
def test_plain_iteration_takes_the_steps_that_its_rate_demands(double, ask):
    """z_k = (1 - r^k) c for z -> r z + (1 - r) c, so step k + 1 has (1 - r) r^k / (1 - r^(k+1))."""
    rates = torch.tensor([0.1, 0.5, 0.7, 0.9])
    r = rates.unsqueeze(1)
    c = torch.randn(4, 3)
    limits = {"solver": "picard", "tol": 1e-4, "max_steps": 100}
    solution = find_fixed_point(
        lambda z: r * z + (1 - r) * c, torch.zeros(4, 3), **limits, ask_every=ask
    )
    k = torch.arange(100).unsqueeze(1)
    residual = (1 - rates) * rates**k / (1 - rates ** (k + 1))
    first = (residual <= 1e-4).int().argmax(0)
    assert solution.steps.tolist() == (first + 1).tolist()
    torch.testing.assert_close(solution.residual, residual.gather(0, first.unsqueeze(0))[0])
    torch.testing.assert_close(solution.value, (1 - r ** first.unsqueeze(1)) * c)


@solver
@pytest.mark.parametrize("ask", [1, 2, 4, 8])
def test_a_sample_beside_one_that_takes_many_steps_is_as_alone(double, solver, ask):
    f = Contractions(rates=(0.02, 0.97))
    limits = {"solver": solver, "tol": 1e-9, "max_steps": 60}
    both = find_fixed_point(f, f.start, **limits, ask_every=ask)
    f.a, f.b = f.a[:1], f.b[:1]
    alone = find_fixed_point(f, f.start[:1], **limits, ask_every=1)
    assert both.steps[0] * 2 < both.steps[1]
    for name in ("value", "residual", "converged", "steps"):
        assert getattr(both, name)[:1].equal(getattr(alone, name)), name


@solver
@pytest.mark.parametrize("ask", [1, 2, 4, 8])
def test_what_a_sample_would_do_after_it_has_converged_does_not_matter(double, solver, ask):
    """The first leaves the range of float64 within three more steps, and is never held to it."""
    runs_away = torch.tensor([[True], [False]])

    def f(z):
        return torch.where(runs_away, torch.where(z == 1, 1 + 1e-9, z * 1e200), 0.9 * z + 1)

    limits = {"solver": solver, "tol": 1e-6, "max_steps": 200}
    solution = find_fixed_point(f, torch.ones(2, 1), **limits, ask_every=ask)
    assert solution.converged.all() and solution.steps[0] == 1 < solution.steps[1]
    torch.testing.assert_close(solution.value, torch.tensor([[1.0], [10.0]]), rtol=1e-4, atol=0)
    assert solution.residual[0] == pytest.approx(1e-9)


@solver
@asking
def test_the_first_value_that_is_not_finite_is_found_afterwards(double, solver, ask):
    """From the fifth step on, for the second and the fourth of the samples."""
    bad = torch.tensor([[False], [True], [False], [True]])

    class Failing(Contractions):
        def __call__(self, z):
            image = super().__call__(z)
            return torch.where(bad & (self.calls >= 5), torch.inf, image)

    f = Failing(rates=(0.5, 0.6, 0.9, 0.95))
    with pytest.raises(FloatingPointError, match=r"at step 5 of 40 for 2 of 4 .*\[1, 3\]"):
        find_fixed_point(f, f.start, solver=solver, tol=1e-12, ask_every=ask)


@pytest.mark.parametrize(
    "ask",
    [1, 2, 4, 8],
)
def test_what_converged_before_it_left_the_range_is_not_blamed(double, ask):
    """The first converges at once, and is infinite three steps later; the second is NaN at last."""

    def f(z):
        first = torch.where(z[0] == 1, 1 + 1e-9, z[0] * 1e200)
        return torch.stack([first, torch.where(z[1] >= 5, torch.nan, z[1] + 1)])

    with pytest.raises(FloatingPointError, match=r"at step 5 of 16 for 1 of 2 .*\[1\]"):
        limits = {"solver": "picard", "tol": 1e-6, "max_steps": 16}
        find_fixed_point(f, torch.ones(2, 1), **limits, ask_every=ask)
