"""Tensor fusion is an outer product, entry by entry; its low-rank form is a map of it."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from deq_fusion.fusions.common_fusions import LowRankTensorFusion, TensorFusion

WIDTHS = (3, 2, 4)


def rows_with_one(modalities, index=()):
    """[1, x_m] of one sample, as lists."""
    return [[1.0, *x[index].tolist()] for x in modalities]


def outer_product(modalities, index):
    """Products of one entry a modality, the last modality's index running fastest."""
    rows = rows_with_one(modalities, index)
    return torch.tensor([math.prod(entries) for entries in itertools.product(*rows)])


def low_rank(model, modalities, index):
    """One sample, by the sum over ranks."""
    rows = [torch.tensor(row) for row in rows_with_one(modalities, index)]
    out = model.fusion_bias[0].clone()
    for r in range(model.rank):
        term = torch.ones_like(out)
        for row, factor in zip(rows, model.factors, strict=True):
            term = term * (row @ factor[r])
        out = out + model.fusion_weights[0, r] * term
    return out


@pytest.mark.parametrize("leading", [(5,), (2, 3)])
def test_tensor_fusion_is_the_outer_product(double, leading):
    modalities = [torch.randn(*leading, width) for width in WIDTHS]
    fused = TensorFusion()(modalities)
    assert fused.shape == (*leading, 4 * 3 * 5)
    for index in itertools.product(*map(range, leading)):
        assert_close(fused[index], outer_product(modalities, index))


def test_tensor_fusion_returns_one_modality_as_it_is():
    x = torch.randn(4, 3)
    assert TensorFusion()([x]) is x


def test_tensor_fusion_has_no_parameters_and_the_right_gradient():
    assert not TensorFusion().state_dict()
    inputs = [torch.randn(2, w, dtype=torch.float64, requires_grad=True) for w in WIDTHS]
    assert gradcheck(lambda *xs: TensorFusion()(xs), inputs)


def test_tensor_fusion_refuses_nothing_and_other_batches():
    with pytest.raises(ValueError, match="at least one modality, got none"):
        TensorFusion()([])
    with pytest.raises(ValueError, match=r"same leading dimensions, got shapes \[\(4, 3\), \(1, 3"):
        TensorFusion()([torch.randn(4, 3), torch.randn(1, 3)])


@pytest.mark.parametrize("batch, output_dim, rank", [(5, 6, 3), (1, 1, 1)])
def test_low_rank_is_the_sum_over_ranks(double, batch, output_dim, rank):
    model = LowRankTensorFusion(WIDTHS, output_dim, rank)
    nn.init.normal_(model.fusion_bias)
    modalities = [torch.randn(batch, width) for width in WIDTHS]
    expected = [low_rank(model, modalities, row) for row in range(batch)]
    assert_close(model(modalities), torch.stack(expected))


def test_low_rank_is_a_linear_map_of_the_outer_product(double):
    model = LowRankTensorFusion(WIDTHS, 6, 3)
    modalities = [torch.randn(5, width) for width in WIDTHS]
    weight = torch.einsum("r,rao,rbo,rco->abco", model.fusion_weights[0], *model.factors)
    expected = TensorFusion()(modalities) @ weight.flatten(0, 2) + model.fusion_bias
    assert_close(model(modalities), expected)


def test_low_rank_flattens_or_keeps_leading_dimensions(double):
    model = LowRankTensorFusion((6, 2), 4, 3)
    x, y = torch.randn(5, 3, 2), torch.randn(5, 2)
    assert_close(model([x, y]), model([x.reshape(5, 6), y]))
    kept = LowRankTensorFusion((6, 2), 4, 3, flatten=False)
    x, y = torch.randn(5, 7, 6), torch.randn(5, 7, 2)
    for step in range(7):
        assert_close(kept([x, y])[:, step], kept([x[:, step], y[:, step]]))


def test_low_rank_draws_factors_then_weights():
    torch.manual_seed(1)
    model = LowRankTensorFusion(WIDTHS, 6, 3)
    torch.manual_seed(1)
    for width, factor in zip(WIDTHS, model.factors, strict=True):
        std = (2 / ((width + 1) * 6 + 3 * 6)) ** 0.5  # fans of a tensor (rank, d + 1, out)
        assert_close(factor.detach(), std * torch.randn(3, width + 1, 6))
    std = (2 / (1 + 3)) ** 0.5
    assert_close(model.fusion_weights.detach(), std * torch.randn(1, 3))
    assert (model.fusion_bias == 0).all()


def test_low_rank_factors_are_trained_and_saved():
    model = LowRankTensorFusion(WIDTHS, 6, 3)
    modalities = [torch.randn(5, width) for width in WIDTHS]
    names = {"factors.0", "factors.1", "factors.2", "fusion_weights", "fusion_bias"}
    assert {name for name, _ in model.named_parameters()} == set(model.state_dict()) == names
    other = LowRankTensorFusion(WIDTHS, 6, 3)
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(modalities), model(modalities), rtol=0, atol=0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(modalities).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_low_rank_gradients():
    model = LowRankTensorFusion(WIDTHS, 2, 3).double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    inputs = [torch.randn(2, w, dtype=torch.float64, requires_grad=True) for w in WIDTHS]

    def call(*tensors):
        given = dict(zip(names, tensors[3:], strict=True))
        return torch.func.functional_call(model, given, (tensors[:3],))

    assert gradcheck(call, (*inputs, *parameters))


def test_low_rank_refuses_other_widths_and_numbers():
    model = LowRankTensorFusion(WIDTHS, 2, 3)
    with pytest.raises(ValueError, match=r"widths \[3, 2, 4\], got shapes \[\(5, 3\), \(5, 2\)\]"):
        model([torch.randn(5, 3), torch.randn(5, 2)])
    with pytest.raises(ValueError, match=r"got shapes \[\(5, 3\), \(5, 2\), \(5, 5\)\]"):
        model([torch.randn(5, 3), torch.randn(5, 2), torch.randn(5, 5)])
