"""Products and norms of states, and their transposes: torch's own, in any precision."""

import pytest
import torch
import torch.nn.functional as F

from deq_fusion.fusions.equilibrium.fusion_map.products import Norm, NormAt, Product, pace
from unit_tests.fusions.equilibrium.fusion_map.oracle import bfloat16_products, near

N, BATCH, DIM = 3, 4, 12
shape = pytest.mark.parametrize("shape", [(N,), ()], ids=["cells", "cell"])


@shape
@pytest.mark.parametrize("factor", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("bias", ["none", "shared", "by sample"])
def test_a_product_its_transpose_and_its_gradient_are_autograds(double, shape, factor, bias):
    weight = torch.randn(*shape, DIM, DIM).requires_grad_()
    b = {
        "none": None,
        "shared": torch.randn(*shape, 1, DIM) if shape else torch.randn(DIM),
        "by sample": torch.randn(*shape, BATCH, DIM),
    }[bias]
    x, u, plus = torch.randn(3, *shape, BATCH, DIM)
    x = x.requires_grad_()
    expected = factor * x @ weight + (0 if b is None else b)
    of_x, of_weight = torch.autograd.grad(expected, (x, weight), u)
    ours = Product(weight.detach(), factor, b)
    torch.testing.assert_close(ours(x.detach()), expected.detach())
    torch.testing.assert_close(ours.pull(u), of_x)
    torch.testing.assert_close(ours.pull(u, plus), of_x + plus)
    torch.testing.assert_close(ours.gradient(x.detach(), u), of_weight)


@shape
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_products_are_rounded_and_nothing_else_is(shape, dtype):
    weight, x = torch.randn(*shape, DIM, DIM), torch.randn(*shape, BATCH, DIM)
    bias = 1e4 * torch.randn(*shape, BATCH, DIM)  # whose rounding would show
    with torch.autocast("cpu", dtype=dtype):
        ours = Product(weight, 0.5, bias)
        came, pulled, gradient = ours(x), ours.pull(x), ours.gradient(x, bias)
    for got, want in ((came - bias, 0.5 * x @ weight), (pulled, 0.5 * x @ weight.mT)):
        assert got.dtype == torch.float32
        near(got, want, 0.02)
    assert not pulled.equal(0.5 * x @ weight.mT)
    near(gradient.float(), 0.5 * x.mT @ bias, 0.02)


def test_a_product_with_factor_zero_is_zero_whatever_was_in_the_memory():
    x, product = torch.randn(2, 4, 16), Product(torch.randn(2, 16, 16), 0.0)
    with_bias = Product(torch.randn(2, 16, 16), 0.0, torch.randn(2, 1, 16))
    for _ in range(20):
        for rough, dtype in ((True, torch.bfloat16), (False, torch.float32)):
            dirty = [torch.full((2, 16, 16), torch.nan, dtype=dtype) for _ in range(4)]
            del dirty
            assert not product(x, rough).any() and not product.pull(x, None, rough).any()
            torch.testing.assert_close(
                with_bias(x, rough), with_bias.bias.expand(2, 4, 16), rtol=0, atol=0
            )


@pytest.mark.parametrize("groups", [1, 3])
@shape
def test_a_norm_and_its_transpose_are_those_of_torch(double, shape, groups):
    x = torch.randn(*shape, BATCH, DIM).requires_grad_()
    scale, shift = torch.randn(2, *shape, *((1, DIM) if shape else (DIM,)))
    u = torch.randn(x.shape)
    plain = F.group_norm(x.reshape(-1, DIM), groups).view(x.shape)
    y, mean, rstd = Norm(groups, scale, shift)(x.detach())
    torch.testing.assert_close(y, (plain * scale + shift).detach())
    at = NormAt(x.detach(), mean, rstd, groups)
    torch.testing.assert_close(at.normalised(), plain.detach())
    (expected,) = torch.autograd.grad(plain, x, u)
    torch.testing.assert_close(at.pull(at.grouped(u)).view(x.shape), expected)


def test_lower_precision_is_taken_where_it_pays_and_full_precision_is_not_asked_for():
    with bfloat16_products():
        assert pace(torch.zeros(2, 8)).rough
        assert not pace(torch.zeros(2, 8, dtype=torch.float64)).rough
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not pace(torch.zeros(2, 8)).rough
    with bfloat16_products(False):
        assert not pace(torch.zeros(2, 8)).rough


def test_where_a_step_is_dear_every_step_asks_and_elsewhere_few_do():
    """Of `pace`: four steps are enough as a rule, five of few entries."""
    dear = torch.zeros(1).expand(4096, 64, 64)  # which takes no memory
    for state, first, then in ((dear, 1, 1), (dear[:1], 5, 4), (torch.zeros(2, 256), 4, 4)):
        assert pace(state)[:2] == (first, then)
        assert pace(state.to("meta"))[:2] == ((4 if state.shape[-1] >= 256 else 5), 4)
