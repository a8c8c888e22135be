"""The gated cell: the written-out map is the plain one, and it starts as documented."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from deq_fusion.fusions.equilibrium import SOLVERS, spectral_radius
from deq_fusion.fusions.equilibrium.fusion_map.gated import GatedCell
from unit_tests.fusions.equilibrium.fusion_map import oracle
from unit_tests.fusions.equilibrium.fusion_map.oracle import BATCH, DIM, GROUPS, N, Posed

# "gate masks": every entry of a gate has a factor of its own, as dropout makes them
CASES = {
    f"{order}, {gate}{', dropped' * dropped}": (order, gate, dropped)
    for order, gate, dropped in product(
        ("relu_norm", "norm_relu"), ("gate", "gate masks", "no gate"), (False, True)
    )
}
case = pytest.mark.parametrize("case", CASES)


def posed(case, *, std=0.5, scale=0.5):
    order, gate, dropped = CASES[case]
    options = {"norm_order": order, "gate": gate != "no gate", "recurrent_scale": scale}
    cell = oracle.moved(GatedCell(N, DIM, groups=GROUPS, **options), std)
    masks = (torch.rand(N, BATCH, DIM) > 0.3) * 1.5 if gate == "gate masks" else None
    states = torch.randn(N, BATCH, DIM)
    context = cell.context(states, masks, cell.inputs()[0])
    constants = [
        *(x if x is None else x.detach() for x in context),
        torch.full((1, 1), float(N)) if masks is None else masks.sum(0),
        (torch.rand(BATCH, DIM) > 0.3) * 1.5 if dropped else None,
        torch.randn(BATCH, DIM),
    ]
    return Posed(cell, constants, learnt=(0, 1, 4))  # masks and their sum are given


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
    oracle.check_solve(posed(case, std=0.05, scale=0.05), solver)


@case
def test_some_samples_alone_are_as_among_all(double, case):
    oracle.check_narrowing(posed(case))


@case
def test_lower_precision_is_near_and_keeps_the_dtype(case):
    oracle.check_lower_precision(posed(case, std=0.1), pulls="no gate" not in case)


@pytest.mark.parametrize("masked", [False, True])
def test_a_step_is_the_sum_over_the_gates_one_by_one(double, masked):
    """Against equations (9) to (11) of Ni et al. (2023), written out for each modality."""
    cell = GatedCell(3, 12, groups=3, norm_order="relu_norm", gate=True, recurrent_scale=0.5)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    z, states, x = torch.randn(4, 12), torch.randn(3, 4, 12), torch.randn(4, 12)
    masks = torch.rand(3, 4, 12) if masked else torch.ones(3, 4, 12)
    gate, gate_bias, weight, bias, scale, shift = cell.tensors()
    s = sum(m * ((z + z_i) @ gate.T + gate_bias) * z for m, z_i in zip(masks, states, strict=True))
    expected = F.group_norm(F.relu(s @ weight.T + bias + x), 3, scale, shift)
    context = cell.context(states, masks if masked else None, gate)
    image, _ = cell.map(*context, masks.sum(0), None, x, *cell.inputs()).step(z)
    torch.testing.assert_close(image, expected)


def rms(x):
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("dim", [64, 256])
def test_the_recurrent_term_is_half_of_a_fraction_of_unit_injection(n, dim):
    cell = GatedCell(n, dim, groups=4, norm_order="relu_norm", gate=True, recurrent_scale=0.2)
    z, states = torch.randn(500, dim), torch.randn(n, 500, dim)
    s = (cell.gates(z, states) * z.unsqueeze(1)).sum(1)
    assert rms(s @ cell.tensors()[2].T) == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("norm_order", ["relu_norm", "norm_relu"])
def test_an_untrained_cell_contracts_at_its_fixed_point(norm_order):
    cell = GatedCell(3, 128, groups=4, norm_order=norm_order, gate=True, recurrent_scale=0.1)
    states, x = torch.randn(3, 20, 128), torch.randn(20, 128)
    context = cell.context(states, None, cell.tensors()[0])
    f = cell.map(*context, torch.full((1, 1), 3.0), None, x, *cell.inputs())
    z = torch.zeros(20, 128)
    for _ in range(20):
        z = f(z)
    assert spectral_radius(lambda z: f.step(z)[0], z.detach()).max() < 0.5
