"""find_fixed_point: it finds known fixed points, sample by sample, and reports honestly."""

import math

import pytest
import torch

from deq_fusion.fusions.equilibrium import SOLVERS, Anderson, Broyden, find_fixed_point
from deq_fusion.fusions.equilibrium.maps import Pace, relative_residual
from deq_fusion.fusions.equilibrium.solve import solve
from unit_tests.fusions.equilibrium.affine import affine

solver = pytest.mark.parametrize("solver", sorted(SOLVERS))


def cosine():
    """z -> cos z, whose only fixed point is the Dottie number, here by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.cos(middle) > middle else (low, middle)
    return torch.cos, torch.rand(3, 2), torch.full((3, 2), low)


@solver
@pytest.mark.parametrize("problem", [affine, cosine])
def test_reaches_the_known_fixed_point(double, solver, problem):
    f, start, expected = problem()
    found = find_fixed_point(f, start, solver=solver, tol=1e-12, max_steps=300)
    assert found.converged.all()
    assert found.residual.max() <= 1e-12
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-10)


@solver
def test_states_may_have_any_shape(double, solver):
    f, start, expected = affine(size=24)
    found = find_fixed_point(
        lambda z: f(z.flatten(1)).view_as(z), start.view(4, 2, 3, 4), solver=solver, tol=1e-10
    )
    torch.testing.assert_close(found.value, expected.view(4, 2, 3, 4), rtol=0, atol=1e-8)


@solver
def test_a_sample_does_not_depend_on_its_batch_mates(double, solver):
    f, start, _ = affine(batch=5)
    together = find_fixed_point(f, start, solver=solver, tol=1e-6)
    hard = torch.tensor([1.0, 1e6, 1.0, 1.0, 1e-6]).view(-1, 1)
    scaled = find_fixed_point(lambda z: hard * f(z / hard), start, solver=solver, tol=1e-6)
    torch.testing.assert_close(scaled.value, together.value * hard, rtol=1e-9, atol=0)
    assert scaled.steps.tolist() == together.steps.tolist()
    for i in range(5):
        one = find_fixed_point(
            lambda z, i=i: f(z.expand(5, -1))[i : i + 1], start[:1], solver=solver, tol=1e-6
        )
        torch.testing.assert_close(one.value[0], together.value[i], rtol=1e-9, atol=1e-12)
        assert one.steps[0] == together.steps[i]


@solver
def test_statistics_are_those_of_the_value(double, solver):
    f, start, _ = affine()
    for max_steps in (1, 2, 5):
        found = find_fixed_point(f, start, solver=solver, tol=1e-3, max_steps=max_steps)
        image = f(found.value)
        residual = (image - found.value).norm(dim=1) / image.norm(dim=1)
        torch.testing.assert_close(found.residual, residual)
        assert found.converged.tolist() == (residual <= 1e-3).tolist()
        assert (found.steps <= max_steps).all()
        assert (found.steps[~found.converged] == max_steps).all()


def test_the_best_iterate_is_returned_when_the_iteration_runs_away(double):
    found = find_fixed_point(lambda z: 2 * z - 1, torch.tensor([[1.01]]), solver="picard")
    assert found.value.item() == pytest.approx(1.01)
    assert not found.converged.any()


def test_a_converged_sample_is_left_alone(double):
    # z = 0 is an unstable fixed point of the first sample: rounding must not drive it away
    seen = []
    slope = torch.tensor([[5.0], [0.9]])
    b = torch.tensor([[0.0], [1.0]])
    find_fixed_point(
        lambda z: slope * z + b,
        torch.zeros(2, 1),
        solver="picard",
        max_steps=30,
        observe=lambda step, z, residual: seen.append(z[0].item()),
    )
    assert len(seen) == 30
    assert set(seen) == {0.0}


@solver
def test_observe_sees_every_step_and_no_more(double, solver):
    f, start, _ = affine()
    trace = []
    found = find_fixed_point(
        f, start, solver=solver, observe=lambda *seen: trace.append(seen), tol=1e-5
    )
    assert [step for step, _, _ in trace] == list(range(1, int(found.steps.max()) + 1))
    for _, z, residual in trace:
        torch.testing.assert_close(residual, (f(z) - z).norm(dim=1) / f(z).norm(dim=1))


@solver
def test_stops_at_the_first_value_that_is_not_finite(solver):
    def f(z):
        f.calls += 1
        return torch.where(torch.tensor([[False], [f.calls == 3]]), torch.nan, z / 2 + 1)

    f.calls = 0
    with pytest.raises(FloatingPointError, match=r"at step 3 of 40 for 1 of 2 samples.*\[1\]"):
        find_fixed_point(f, torch.zeros(2, 1), solver=solver, tol=0)


@solver
def test_a_map_to_zero_is_solved(solver):
    found = find_fixed_point(torch.zeros_like, torch.ones(2, 3), solver=solver)
    assert found.converged.all()
    assert (found.value == 0).all()


@solver
@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25, 1e30])
def test_states_of_any_scale_are_solved(solver, scale):
    """Squares of such float32 numbers underflow or overflow."""
    found = find_fixed_point(lambda z: z / 2 + scale, torch.zeros(2, 3), solver=solver, tol=1e-5)
    assert found.converged.all() and found.steps.min() > 1
    torch.testing.assert_close(found.value, torch.full((2, 3), 2 * scale), rtol=1e-4, atol=0)


@solver
def test_gradients_are_not_recorded(solver):
    weight = torch.full((3,), 0.5, requires_grad=True)
    found = find_fixed_point(lambda z: weight * z + 1, torch.zeros(2, 3), solver=solver)
    assert not found.value.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "newton"}, r"unknown solver 'newton'; choose from \['anderson', 'broyden'"),
        ({"tol": -1.0}, "tol must be at least 0 and below inf, got -1"),
        ({"tol": math.nan}, "tol must be at least 0 and below inf, got nan"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1, got 0"),
        ({"max_steps": 2.5}, "max_steps must be an integer of at least 1, got 2.5"),
        ({"solver": lambda: Anderson(memory=0)}, "memory must be an integer of at least 1, got 0"),
        ({"solver": lambda: Broyden(memory=0)}, "memory must be an integer of at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        find_fixed_point(torch.cos, torch.zeros(1, 1), **options)


class Narrowing:
    """z -> A z + b for each sample, of which some can leave."""

    def __init__(self, a, b):
        self.a, self.b, self.sizes = a, b, [len(b)]

    def __call__(self, z):
        assert len(z) == len(self.b)
        return (self.a @ z.unsqueeze(2)).squeeze(2) + self.b

    def narrow(self, rows):
        self.a, self.b = self.a[rows], self.b[rows]
        self.sizes.append(len(rows))


@solver
def test_converged_samples_leave_a_map_that_can_narrow(double, solver):
    a = torch.randn(12, 24, 24)
    radius = torch.linspace(0.05, 0.9, 12)[torch.randperm(12)]  # who leaves first is anywhere
    a = radius.view(-1, 1, 1) * a / torch.linalg.matrix_norm(a, 2).view(-1, 1, 1)
    b = torch.randn(12, 24)
    f = Narrowing(a, b)
    limits = {"solver": solver, "tol": 1e-11, "max_steps": 300}
    found = find_fixed_point(f, torch.zeros(12, 24), **limits)
    assert len(f.sizes) > 2 and f.sizes == sorted(f.sizes, reverse=True)
    expected = torch.linalg.solve(torch.eye(24) - a, b)
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-9)
    whole = find_fixed_point(Narrowing(a, b).__call__, torch.zeros(12, 24), **limits)
    torch.testing.assert_close(found.steps, whole.steps, rtol=0, atol=0)
    torch.testing.assert_close(found.residual, whole.residual, rtol=1e-3, atol=0)


def test_after_narrowing_the_samples_keep_their_numbers():
    class Failing(Narrowing):
        def __call__(self, z):
            return super().__call__(z) * (torch.nan if len(self.sizes) > 1 else 1.0)

    slopes = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.9]).view(6, 1, 1)
    with pytest.raises(FloatingPointError, match=r"for 1 of 6 samples \(first: \[5\]\)"):
        find_fixed_point(Failing(slopes, torch.ones(6, 1)), torch.zeros(6, 1), solver="picard")


@solver
def test_who_looks_on_sees_all_samples_and_keeps_none(double, solver):
    a = torch.tensor([0.0, 0.3, 0.0, 0.9]).view(4, 1, 1) * torch.linspace(0.3, 1, 30).diag()
    b, found, seen = torch.randn(4, 30), [], []
    for observe in (None, lambda *step: seen.append(step)):
        f = Narrowing(a, b)
        limits = {"solver": solver, "tol": 1e-8, "max_steps": 300}
        found.append((find_fixed_point(f, torch.zeros(4, 30), **limits, observe=observe), f.sizes))
    (unseen, sizes), (solution, same_sizes) = found
    assert len(sizes) > 1 and sizes == same_sizes
    for name in ("value", "residual", "converged", "steps"):
        assert getattr(solution, name).equal(getattr(unseen, name)), name
    assert [step for step, *_ in seen] == list(range(1, int(solution.steps.max()) + 1))
    for step, state, residual in seen:
        image = (a @ state.unsqueeze(2)).squeeze(2) + b
        expected = (image - state).norm(dim=1) / image.norm(dim=1)
        torch.testing.assert_close(residual, expected, rtol=1e-6, atol=1e-15)
        done = solution.steps <= step
        torch.testing.assert_close(
            state[done], solution.value[done], rtol=0, atol=0
        )  # it stays as it was


@solver
@pytest.mark.parametrize("most", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("ask", [None, 4])
def test_the_map_is_evaluated_as_often_as_it_may_be_and_no_more(double, solver, most, ask):
    f, start, _ = affine(size=30, radius=0.99)
    calls = []

    def counted(z):
        calls.append(len(z))
        return f(z)

    found = find_fixed_point(
        counted, start, solver=solver, tol=1e-14, max_steps=most, ask_every=ask
    )
    assert len(calls) == most and found.steps.tolist() == [most] * 4
    assert found.failed == 4 and not found.converged.any()


@pytest.mark.parametrize(
    ("start", "came"),
    [
        (torch.zeros(3), r"torch.float32 of shape \(3,\)"),
        (torch.zeros(3, 2).long(), "torch.int64 of shape"),
        ([[0.0]], "list"),
    ],
)
def test_a_start_that_is_no_batch_of_states_is_refused(start, came):
    with pytest.raises(ValueError, match=rf"start must be a floating-point tensor .*, got {came}"):
        find_fixed_point(torch.cos, start)


def test_images_and_steps_of_another_shape_are_refused():
    start = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"f must return .*\(3, 2\) .* in a row, got \(3, 1\)"):
        find_fixed_point(lambda z: z[:, :1] + 1, start)  # would broadcast
    with pytest.raises(ValueError, match=r"the solver's rule must return .* got \(2,\)"):
        find_fixed_point(torch.cos, start, solver=lambda: lambda z, fz: fz[0])


@pytest.mark.parametrize("scale", [1e-7, 1e-5, 1e4])
def test_half_precision_converges_at_any_scale(scale):
    c = torch.tensor([[1.0, -2.0, 0.5]]) * scale
    solution = find_fixed_point(lambda z: (0.5 * z.float() + c).half(), torch.zeros(1, 3).half())
    assert solution.converged.all()
    torch.testing.assert_close(solution.value.float(), 2 * c, rtol=0.02, atol=2e-7)


@solver
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_tolerance_below_what_half_precision_resolves_is_raised_to_that(solver, dtype):
    c, eps = torch.tensor([[1.0, -2.0, 0.5]]), torch.finfo(dtype).eps

    def solved(tol):
        f, start = (lambda z: (0.4 * z.float() + c).to(dtype)), torch.zeros(1, 3, dtype=dtype)
        return find_fixed_point(f, start, solver=solver, tol=tol)

    with pytest.warns(UserWarning, match=rf"{dtype} resolve {eps:.1e} .*tol=1e-06 is") as warned:
        raised = solved(1e-6)
    assert len(warned) == 1
    least = solved(eps)  # nothing is warned of
    assert raised.value.equal(least.value) and raised.steps.equal(least.steps)
    assert raised.converged.all() and raised.residual.max() <= eps


def test_the_tolerance_of_wider_states_is_as_given(double):
    found = find_fixed_point(torch.cos, torch.zeros(1, 2), tol=1e-15, max_steps=100)
    assert found.residual.max() <= 1e-15


@solver
def test_no_samples_are_solved(solver):
    found = find_fixed_point(torch.cos, torch.zeros(0, 2, 3), solver=solver)
    assert found.value.shape == (0, 2, 3) and not found.failed
    assert found.residual.shape == found.converged.shape == found.steps.shape == (0,)


@pytest.mark.parametrize("pace", [Pace(), Pace(first=3, then=2)])
def test_a_part_that_is_not_finite_names_its_sample_once(pace):
    class Parted:
        """Two parts of five samples; of the third both are NaN from the second step on."""

        narrows, trace, residual = False, (), staticmethod(relative_residual)

        def __init__(self):
            self.pace = pace

        def start(self):
            return torch.zeros(2, 5, 3)

        def __call__(self, z):
            image = z + 1
            image[:, 2] = torch.where(z[:, 2] > 0, torch.nan, 1)
            return image

    told = r"at step 2 of 40 for 1 of 5 samples \(first: \[2\]\)"
    with pytest.raises(FloatingPointError, match=told):
        solve(Parted(), solver="picard", tol=1e-3, max_steps=40)
