"""Residual cells: the written-out map is the plain one, and it starts as documented."""

import pytest
import torch
import torch.nn.functional as F

from deq_fusion.fusions.equilibrium import SOLVERS
from deq_fusion.fusions.equilibrium.fusion_map.residual import ResidualCells
from unit_tests.fusions.equilibrium.fusion_map import oracle
from unit_tests.fusions.equilibrium.fusion_map.oracle import BATCH, DIM, GROUPS, N, Posed

CASES = {
    f"{name}{', masked' * masked}": {**options, "masked": masked}
    for name, options in {
        "two_layer": {"kind": "two_layer", "residual": False},
        "two_layer, residual": {"kind": "two_layer", "residual": True},
        "one_layer": {"kind": "one_layer", "residual": False},
    }.items()
    for masked in (False, True)
}
case = pytest.mark.parametrize("case", CASES)


def posed(case, *, std=0.5, scale=0.5):
    options = dict(CASES[case])
    masked = options.pop("masked")
    cells = ResidualCells(N, DIM, groups=GROUPS, recurrent_scale=scale, **options)
    mask = (torch.rand(N, BATCH, 1) > 0.3).to(torch.get_default_dtype()) if masked else None
    return Posed(oracle.moved(cells, std), [torch.randn(N, BATCH, DIM), mask], learnt=(0,))


@case
def test_a_solve_starts_at_the_image_of_zero(double, case):
    oracle.check_start_and_images(posed(case))


@case
def test_products_and_gradients_are_those_of_the_plain_map(double, case):
    oracle.check_linearisation(posed(case))


@case
def test_the_penalty_is_that_of_the_plain_map(double, case):
    oracle.check_penalty(posed(case))


@case
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_it_is_solved_and_differentiated_as_the_plain_map(double, case, solver):
    p = posed(case, std=0.05, scale=0.05)
    if p.cell.residual:  # a state as large as what is injected feeds itself
        with torch.no_grad():
            p.cell.norm_weight[-1] *= 0.3
    oracle.check_solve(p, solver)


@case
def test_some_samples_alone_are_as_among_all(double, case):
    oracle.check_narrowing(posed(case))


@case
def test_lower_precision_is_near_and_keeps_the_dtype(case):
    oracle.check_lower_precision(posed(case, std=0.1))


@case
def test_a_step_is_the_written_one_for_each_modality(double, case):
    """Against equation 8 of Ni et al. (2023), or the release's, one modality at a time."""
    p = posed(case)
    cells, (x, mask) = p.cell, p.constants
    w1, b1, w2, b2, scales, shifts = cells.tensors()
    z = torch.randn(N, BATCH, DIM)
    image = p.map()(z)
    for i in range(N):

        def norm(y, k, i=i):
            return F.group_norm(y, GROUPS, scales[k, i, 0], shifts[k, i, 0])

        if cells.kind == "one_layer":
            expected = F.relu(norm(z[i] @ w1[i] + b1[i] + x[i], 0) @ w2[i] + b2[i])
        else:
            h = F.relu(norm(z[i] @ w1[i] + b1[i], 0))
            inner = norm(h @ w2[i] + b2[i] + x[i], 1)
            expected = norm(F.relu(inner + z[i] if cells.residual else inner), 2)
        expected = expected if mask is None else expected * mask[i]
        torch.testing.assert_close(image[i], expected.detach())


def rms(x):
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dim", [64, 256])
def test_the_recurrent_term_is_a_fraction_of_unit_injection(n, dim):
    cells = ResidualCells(n, dim, groups=4, kind="two_layer", residual=False, recurrent_scale=0.2)
    w1, _, w2, *_ = cells.tensors()
    h = F.relu(F.group_norm((torch.randn(n, 500, dim) @ w1).flatten(0, 1), 4)).view(n, 500, dim)
    assert rms(h @ w2) == pytest.approx(0.2, rel=0.1)


def test_the_recurrent_term_of_one_layer_is_a_fraction_of_unit_injection():
    cells = ResidualCells(2, 128, groups=4, kind="one_layer", residual=False, recurrent_scale=0.2)
    w1, _, w2, *_ = cells.tensors()
    assert rms(torch.randn(2, 500, 128) @ w1) == pytest.approx(0.2, rel=0.1)
    assert rms(F.relu(torch.randn(2, 500, 128) @ w2)) == pytest.approx(1, rel=0.1)  # the state
