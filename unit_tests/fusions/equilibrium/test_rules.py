"""Rules: the methods are what their papers define, tell samples apart, and can be told later."""

import pytest
import torch

from deq_fusion.fusions.equilibrium import Anderson, Broyden, Picard, find_fixed_point
from unit_tests.fusions.equilibrium.affine import affine


@pytest.mark.parametrize("solver", ["anderson", "broyden"])
def test_methods_with_memory_solve_a_rotation_on_which_picard_fails(double, solver):
    rotation = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    b = torch.tensor([[1.0, 2.0]])
    found = find_fixed_point(lambda z: z @ rotation.T + b, torch.zeros(1, 2), solver=solver)
    expected = torch.linalg.solve(torch.eye(2) - rotation, b.T).T
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-6)
    picard = find_fixed_point(lambda z: z @ rotation.T + b, torch.zeros(1, 2), solver="picard")
    assert not picard.converged.any()


@pytest.mark.parametrize("rule", [Anderson, Broyden])
def test_linear_problems_end_after_about_as_many_steps_as_dimensions(double, rule):
    f, start, _ = affine(size=5, radius=0.99)
    found = find_fixed_point(f, start, solver=lambda: rule(memory=12), tol=1e-9, max_steps=60)
    # GMRES needs 5 products, Broyden's method 2 * 5 (Gay, 1979, theorem 2.2); plus the ends
    assert found.steps.max() <= (7 if rule is Anderson else 12)


@pytest.mark.parametrize("memory", [1, 2, 5])
def test_anderson_is_the_affine_combination_of_smallest_residual(double, memory):
    """Against the definition of Walker and Ni (2011): min |sum a_i r_i| with sum a_i = 1."""
    f, z, _ = affine(batch=2, size=10)
    rule, points, images = Anderson(memory=memory, ridge=0.0), [], []
    for _ in range(7):
        fz = f(z)
        points, images = [*points, z][-memory - 1 :], [*images, fz][-memory - 1 :]
        residuals = torch.stack(images, 1) - torch.stack(points, 1)  # (batch, m, size)
        gram = residuals @ residuals.mT
        ones = torch.ones(2, len(points), 1)
        weights = torch.linalg.solve(gram, ones)
        weights = weights / weights.sum(1, keepdim=True)
        expected = (weights * torch.stack(images, 1)).sum(1)
        z = rule(z, fz)
        torch.testing.assert_close(z, expected, rtol=1e-6, atol=1e-8)


def test_broyden_satisfies_the_secant_equation_and_changes_nothing_else(double):
    """H dg = dz, and H x is unchanged for x with dz^T H x = 0 (Broyden, 1965, method 1)."""
    f, z, _ = affine(batch=1, size=6)
    rule = Broyden()

    def matrix():
        columns = torch.eye(6)
        return torch.stack([rule._apply(c[None], rule._left, rule._right)[0] for c in columns], 1)

    before, previous = -torch.eye(6), None
    for _ in range(4):
        g = f(z) - z
        step = rule(z, f(z))
        if previous is not None:
            dz, dg = (z - previous[0])[0], (g - previous[1])[0]
            torch.testing.assert_close(matrix() @ dg, dz)
            row = dz @ before
            x = torch.randn(6)
            x = x - row * (row @ x) / (row @ row)
            torch.testing.assert_close(matrix() @ x, before @ x)
            before = matrix()
        previous, z = (z, g), step


def walk(rule, f, z, steps, rows=None, at=None):
    """The iterates of a rule, of which only `rows` are left after step `at`."""
    states = []
    for step in range(steps):
        if step == at:
            rule.narrow(rows)
            z = z[rows]
        z = rule(z, f(z) if len(z) == 4 else f(whole(z, rows))[rows])
        states.append(z)
    return states


def whole(z, rows):
    return torch.zeros(4, z.shape[1]).index_copy(0, rows, z)


@pytest.mark.parametrize("rule", [Anderson, Broyden, Picard])
@pytest.mark.parametrize("at", [0, 1, 2, 5])
def test_samples_that_are_left_go_on_as_among_all(double, rule, at):
    f, z, _ = affine(size=20, radius=0.9)
    rows = torch.tensor([1, 3])
    every, some = walk(rule(), f, z, 8), walk(rule(), f, z, 8, rows, at)
    for step in range(at, 8):
        torch.testing.assert_close(some[step], every[step][rows], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("plain", [1, 3, 9])
def test_anderson_may_be_told_of_plain_steps_afterwards(double, plain):
    f, z, _ = affine(size=20)
    seen = []
    for _ in range(plain):
        seen.append((z, f(z)))
        z = seen[-1][1]
    told, asked = Anderson(), Anderson()
    for pair in seen:
        told.recall(*pair)
    for pair in seen:
        asked(*pair)
    torch.testing.assert_close(told(z, f(z)), asked(z, f(z)), rtol=0, atol=0)


@pytest.mark.parametrize("rule", [Anderson, Broyden, Picard])
def test_parts_of_a_sample_are_solved_apart(double, rule):
    """(parts, batch, size) as one, and part by part."""
    f, z, _ = affine(batch=6, size=10)

    def shaped(z):
        return f(z.flatten(0, 1)).view(3, 2, 10)

    flat, parted, z_flat, z_parted = rule(), rule(), z, z.view(3, 2, 10)
    for _ in range(6):
        z_flat, z_parted = flat(z_flat, f(z_flat)), parted(z_parted, shaped(z_parted))
        torch.testing.assert_close(z_parted.flatten(0, 1), z_flat, rtol=1e-9, atol=1e-12)
