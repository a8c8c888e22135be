"""View correlation discovery network against its formula, with loops."""

from itertools import product

import numpy as np
import pytest
import torch

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.fusions.vcdn import VCDN, VCDNFusion


def expected(module, logits):
    """The network on V times (batch, K) arrays, product by product."""
    each = [1 / (1 + np.exp(-x.numpy())) for x in logits]
    classes, rows = each[0].shape[1], []
    for i in range(len(each[0])):
        rows.append(
            [
                np.prod([share[i, k] for share, k in zip(each, index, strict=True)])
                for index in product(range(classes), repeat=len(each))
            ]
        )
    hidden = np.array(rows) @ module.hidden.weight.detach().numpy().T
    hidden = hidden + module.hidden.bias.detach().numpy()
    hidden = np.where(hidden > 0, hidden, 0.25 * hidden)
    weight, bias = module.output.weight.detach().numpy(), module.output.bias.detach().numpy()
    return hidden @ weight.T + bias


def shares(module, logits):
    """The logarithms of the probabilities that the network's logits are."""
    joint = expected(module, logits)
    return joint - np.log(np.exp(joint).sum(1, keepdims=True))


def moved(module):
    """The module with biases other than zero."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize(("views", "classes"), [(1, 3), (2, 4), (3, 2), (4, 3)])
def test_it_is_a_network_on_all_products(double, views, classes):
    module = moved(VCDN(views, classes))
    logits = [torch.randn(5, classes) for _ in range(views)]
    np.testing.assert_allclose(module(logits).detach().numpy(), expected(module, logits))


def test_the_fusion_has_a_head_for_each_modality(double):
    fusion = moved(VCDNFusion([3, 5], 4))
    features = [torch.randn(6, 3), torch.randn(6, 5)]
    logits = [head(x).detach() for head, x in zip(fusion.heads, features, strict=True)]
    np.testing.assert_allclose(fusion(features).detach().numpy(), shares(fusion.joint, logits))


def test_an_absent_view_says_a_half_of_every_class(double):
    fusion = moved(VCDNFusion([3, 5], 4))
    features = [torch.randn(2, 3), torch.full((2, 5), torch.nan)]
    present = torch.tensor([[True, False]] * 2)
    logits = [fusion.heads[0](features[0]).detach(), torch.zeros(2, 4)]
    fused = fusion(features, present=present)
    np.testing.assert_allclose(fused.detach().numpy(), shares(fusion.joint, logits))


def test_sizes_are_as_published():
    """K^V inputs, a layer as wide, K outputs."""
    assert VCDN(3, 5).hidden.weight.shape == (125, 125)
    assert VCDN(3, 2).hidden.weight.shape == (8, 8)
    assert VCDN(3, 10).hidden.weight.shape == (256, 1000)  # wider than published sizes go
    assert VCDN(3, 5, hidden=7).output.weight.shape == (5, 7)


def test_refuses_a_tensor_that_explodes():
    with pytest.raises(ValueError, match=r"must be at most 65536, got 41\^3; take fewer views"):
        VCDN(3, 41)
    with pytest.raises(ValueError, match=r"got 9\^6"):
        FUSIONS["vcdn"]([4] * 6, 8, outputs=9, task="classification")
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        VCDN(2, 1)
    with pytest.raises(ValueError, match="integer of at least 1, got 0"):
        VCDN(0, 2)
