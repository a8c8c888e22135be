"""Products in float16 keep in range, forward and for cotangents of any order."""

import pytest
import torch

from deq_fusion.fusions.equilibrium.half import affine, autocast_enabled, linear, product, wide


def close(got, want, tol=5e-3):
    for x, y in zip(got, want, strict=True):
        assert (x - y).abs().max() <= tol * y.abs().max()


SCALES = [
    (1.0, 1.0, 1.0),
    (1e-6, 1e-6, 1e-6),
    (1e6, 1.0, 1e9),
    (1e-30, 1e20, 1e-2),
    (1e30, 1e-38, 1),
]


@pytest.mark.parametrize("scales", SCALES, ids=str)
def test_a_product_has_any_scale_and_so_have_its_gradients(scales):
    a, b, g = (torch.randn(s, dtype=torch.float64) for s in [(2, 5, 7), (2, 7, 3), (2, 5, 3)])
    a, b, g = (x * scale for x, scale in zip((a, b, g), scales, strict=True))
    a[0, 1] *= 1e-5  # a row of its own scale
    pair = [x.float().requires_grad_() for x in (a, b)]
    got = product(*pair)
    grads = torch.autograd.grad(got, pair, g.float())
    assert got.dtype == torch.float32
    close([got.detach().double(), *(x.double() for x in grads)], [a @ b, g @ b.mT, a.mT @ g])
    close([got[0, 1].detach().double()], [(a @ b)[0, 1]])


def test_the_second_derivative_of_a_product_keeps_in_range():
    found = []
    for multiply in (product, torch.matmul):
        torch.manual_seed(0)
        a, b = torch.randn(5, 7).requires_grad_(), torch.randn(7, 3).requires_grad_()
        (grad,) = torch.autograd.grad(multiply(a, b), a, torch.full((5, 3), 1e7), create_graph=True)
        found.append([x.detach() for x in torch.autograd.grad(grad.square().sum(), b)])
    close(*found)


def test_autocast_to_float16_takes_such_products_and_nothing_else_does():
    x, w, bias = torch.randn(2, 4, 6) * 1e5, torch.randn(2, 6, 3), torch.randn(2, 1, 3)
    matrices = affine(x, w, bias)
    torch.testing.assert_close(matrices, torch.baddbmm(bias, x, w), rtol=0, atol=0)
    want = torch.nn.functional.linear(x, w[0].mT, bias[0, 0])
    torch.testing.assert_close(linear(x, w[0].mT, bias[0, 0]), want, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.float16):
        close([affine(x, w, bias), linear(x, w[0].mT, bias[0, 0])], [matrices, want])
        by_rows = torch.func.vmap(lambda row: linear(row.unsqueeze(0), w[0].mT))(x[0])
        close([by_rows[:, 0]], [linear(x[0], w[0].mT)])


def test_what_is_computed_with_is_float32_at_least():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert wide(torch.ones(1, dtype=dtype)).dtype == torch.float32
    x = torch.ones(1, dtype=torch.float64)
    assert wide(x) is x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert autocast_enabled("cpu") and not autocast_enabled("meta")
