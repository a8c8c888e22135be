"""Kernels: the cells' own steps and autograd's products, for any rows of any cell."""

import pytest
import torch

from fusions.equilibrium import GatedCell, ResidualCells
from fusions.equilibrium.kernels import make_kernel

N, BATCH, DIM = 3, 4, 12


def residual_cells(kind="two_layer", residual=False, masked=False):
    cells = ResidualCells(N, DIM, groups=3, kind=kind, residual=residual, recurrent_scale=0.5)
    mask = (torch.rand(N, BATCH, 1) > 0.3).to(torch.float64) if masked else None
    x = torch.randn(N, BATCH, DIM)

    def step(z, x, mask, *tensors):
        x, z = x.view(N, BATCH, DIM), z.view(N, BATCH, DIM)
        mask = None if mask is None else mask.view(N, BATCH, 1)
        return cells.step(z, x, mask, *scaled(cells, tensors)).flatten(0, 1)

    rows = [x.flatten(0, 1), None if mask is None else mask.flatten(0, 1)]
    return cells, step, rows, [BATCH] * N


def scaled(cell, tensors):
    """The weights of the map, of bare tensors: what `tensors` does, as a function."""
    if isinstance(cell, GatedCell):
        gate, gate_bias, weight, *others = tensors
        return gate, gate_bias, cell.scale * weight, *others
    w1, b1, w2, b2, *others = tensors
    return cell.scales[0] * w1, b1, cell.scales[1] * w2, b2, *others


def gated_cell(norm_order="relu_norm", gate=True, lifted=False, dropped=False):
    cell = GatedCell(N, DIM, groups=3, norm_order=norm_order, gate=gate, recurrent_scale=0.5)
    context = [torch.randn(BATCH, DIM), None]
    constants = [
        *(context[::-1] if lifted else context),
        torch.rand(BATCH, DIM if lifted else 1) + 1,
        (torch.rand(BATCH, DIM) > 0.3) * 1.5 if dropped else None,
        torch.randn(BATCH, DIM),
    ]

    def step(z, *inputs):
        constants, tensors = inputs[:5], inputs[5:]
        return cell.step(z, *constants, *scaled(cell, tensors))

    return cell, step, constants, [BATCH]


CASES = {
    "two_layer": lambda: residual_cells(),
    "two_layer, masked": lambda: residual_cells(masked=True),
    "two_layer, residual": lambda: residual_cells(residual=True),
    "one_layer": lambda: residual_cells("one_layer"),
    "one_layer, masked": lambda: residual_cells("one_layer", masked=True),
    "gated": lambda: gated_cell(),
    "gated, norm_relu": lambda: gated_cell("norm_relu"),
    "gated, dropout": lambda: gated_cell(lifted=True, dropped=True),
    "gated, dropped update": lambda: gated_cell("norm_relu", dropped=True),
    "without gate": lambda: gated_cell(gate=False),
}
case = pytest.mark.parametrize("case", CASES)


def posed(case):
    """A kernel, the map that it must equal, its rows and its parameters, none at its start."""
    cell, step, constants, sizes = CASES[case]()
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return make_kernel(cell), step, constants, sizes, [t for t in cell.bare_tensors()]


def prepared(kernel, parameters, precision=None):
    return kernel.prepare([t if t is None else t.detach() for t in parameters], precision)


@case
def test_an_image_is_the_step_of_the_cell(double, case):
    kernel, step, constants, sizes, parameters = posed(case)
    z = torch.randn(sum(sizes), DIM)
    image, _ = kernel.image(prepared(kernel, parameters), z, sizes, *constants)
    torch.testing.assert_close(image, step(z, *constants, *parameters).detach())


@case
def test_the_start_is_the_image_of_zero(double, case):
    kernel, step, constants, sizes, parameters = posed(case)
    start = kernel.start(prepared(kernel, parameters), sizes, *constants)
    zero = torch.zeros(sum(sizes), DIM)
    torch.testing.assert_close(start, step(zero, *constants, *parameters).detach())


@case
@pytest.mark.parametrize("kept", [[0], [3], [0, 2, 3]])
def test_some_rows_alone_are_as_among_all(double, case, kept):
    """With N = 3 cells: the first row of the first, the last of it, and rows of the first alone."""
    kernel, _, constants, sizes, parameters = posed(case)
    weights, u = prepared(kernel, parameters), torch.randn(sum(sizes), DIM)
    rows = torch.tensor(sorted({*kept, sum(sizes) - 1}))
    some = [sum(BATCH * i <= r < BATCH * (i + 1) for r in rows) for i in range(len(sizes))]
    z = torch.randn(sum(sizes), DIM)

    def product(rows, sizes):
        chosen = [c if c is None else c[rows] for c in constants]
        image, trace = kernel.image(weights, z[rows], sizes, *chosen)
        cuts = kernel.cuts(weights, u[rows], sizes, z[rows], chosen, trace)
        return image, kernel.product(weights, u[rows], sizes, chosen, trace, cuts)

    whole = product(torch.arange(sum(sizes)), sizes)
    for ours, expected in zip(product(rows, some), whole, strict=True):
        torch.testing.assert_close(ours, expected[rows])


@case
def test_products_and_gradients_are_autograds(double, case):
    kernel, step, constants, sizes, parameters = posed(case)
    z = torch.randn(sum(sizes), DIM).requires_grad_()
    u = torch.randn(sum(sizes), DIM)
    learnt = (0, 1, 4) if len(constants) == 5 else (0,)  # masks and their sum are given
    leaves = [
        c if c is None else c.clone().requires_grad_(i in learnt) for i, c in enumerate(constants)
    ]
    wanted = [t for t in (*leaves, *parameters) if t is not None and t.requires_grad]
    image = step(z, *leaves, *parameters)
    expected_z, *expected = torch.autograd.grad(
        image, [z, *wanted], u, allow_unused=True, materialize_grads=True
    )

    weights, z = prepared(kernel, parameters), z.detach()
    _, trace = kernel.image(weights, z, sizes, *constants)
    cuts = kernel.cuts(weights, u, sizes, z, constants, trace)
    product = kernel.product(weights, u, sizes, constants, trace, cuts)
    torch.testing.assert_close(product, expected_z)
    grads = kernel.gradients(weights, u, sizes, z, constants, trace, cuts)
    named = zip((*leaves, *parameters), (*grads[0], *grads[1]), strict=True)
    ours = [grad for leaf, grad in named if leaf is not None and leaf.requires_grad]
    for got, want, leaf in zip(ours, expected, wanted, strict=True):
        torch.testing.assert_close(got.view_as(leaf), want)


@case
def test_lower_precision_is_near_and_keeps_the_dtype(case):
    kernel, _, constants, sizes, parameters = posed(case)
    constants = [c if c is None else c.float() for c in constants]
    z = torch.randn(sum(sizes), DIM)
    exact, _ = kernel.image(prepared(kernel, parameters), z, sizes, *constants)
    rough, _ = kernel.image(prepared(kernel, parameters, torch.bfloat16), z, sizes, *constants)
    assert rough.dtype == torch.float32
    difference = (rough - exact).norm() / exact.norm()
    assert difference <= 0.05  # a few units of bfloat16's precision, 2^-8
    if "without" not in case:
        assert difference > 0
