"""The cells start as contractions of the documented strength, whatever their size."""

import pytest
import torch
import torch.nn.functional as F

from fusions.equilibrium import GatedCell, ResidualCells, spectral_radius


def rms(x):
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dim", [64, 256])
def test_the_recurrent_term_of_a_residual_cell_is_a_fraction_of_unit_injection(n, dim):
    cells = ResidualCells(n, dim, groups=4, kind="two_layer", residual=False, recurrent_scale=0.2)
    w1, _, w2, *_ = cells.tensors()
    h = F.relu(F.group_norm((torch.randn(n, 500, dim) @ w1).flatten(0, 1), 4)).view(n, 500, dim)
    assert rms(h @ w2) == pytest.approx(0.2, rel=0.1)


def test_the_recurrent_term_of_a_one_layer_cell_is_a_fraction_of_unit_injection():
    cells = ResidualCells(2, 128, groups=4, kind="one_layer", residual=False, recurrent_scale=0.2)
    w1, _, w2, *_ = cells.tensors()
    assert rms(torch.randn(2, 500, 128) @ w1) == pytest.approx(0.2, rel=0.1)
    assert rms(F.relu(torch.randn(2, 500, 128) @ w2)) == pytest.approx(1, rel=0.1)  # the state


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("dim", [64, 256])
def test_the_recurrent_term_of_a_gated_cell_is_half_that_fraction(n, dim):
    cell = GatedCell(n, dim, groups=4, norm_order="relu_norm", gate=True, recurrent_scale=0.2)
    z, states = torch.randn(500, dim), torch.randn(n, 500, dim)
    s = (cell.gates(z, states) * z.unsqueeze(1)).sum(1)
    assert rms(s @ cell.tensors()[2].T) == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("norm_order", GatedCell.NORM_ORDERS)
def test_an_untrained_cell_contracts_at_its_fixed_point(norm_order):
    cell = GatedCell(3, 128, groups=4, norm_order=norm_order, gate=True, recurrent_scale=0.1)
    states, x = torch.randn(3, 20, 128), torch.randn(20, 128)
    context = cell.context(states, None, cell.tensors()[0])

    def step(z):
        return cell.step(z, *context, torch.full((1, 1), 3.0), None, x, *cell.tensors())

    z = torch.zeros(20, 128)
    for _ in range(20):
        z = step(z)
    assert spectral_radius(step, z.detach()).max() < 0.5


@pytest.mark.parametrize("masked", [False, True])
def test_a_gated_step_is_the_sum_over_the_gates_one_by_one(double, masked):
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
    ours = cell.step(z, *context, masks.sum(0), None, x, *cell.tensors())
    torch.testing.assert_close(ours, expected)
