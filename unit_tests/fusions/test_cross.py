"""Cross fusion, encoder by encoder and modality by modality."""

import pytest
import torch
from torch import nn

from deq_fusion.fusions.cross import CrossFusion

DIM, BATCH = 4, 7


def make(widths, **options):
    """A fusion with affine parameters and running statistics that are not the initial ones."""
    fusion = CrossFusion(widths, DIM, **options)
    for norm in (fusion.encoder_norm, fusion.joint_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for _ in range(3):
        fusion([2 + 3 * torch.randn(BATCH, width) for width in widths])
    return fusion, [torch.randn(BATCH, width) for width in widths]


def layer(x, linear, norm, block, rows=slice(None)):
    """Linear, batch norm and ReLU, with block number `block` of the norm's channels."""
    y = x @ linear.weight[rows].T + linear.bias[rows]
    channels = slice(block * DIM, (block + 1) * DIM)
    if norm.training:
        mean = y.sum(0) / len(y)
        var = ((y - mean) ** 2).sum(0) / len(y)
    else:
        mean, var = norm.running_mean[channels], norm.running_var[channels]
    scaled = (y - mean) / (var + norm.eps).sqrt()
    return (scaled * norm.weight[channels] + norm.bias[channels]).clamp_min(0)


def by_hand(fusion, features):
    """The fused feature and the consistency loss without its weight."""
    n = len(features)
    h = [
        x if isinstance(p, nn.Identity) else x @ p.weight.T
        for p, x in zip(fusion.projections, features, strict=True)
    ]
    a = {
        (i, k): layer(
            h[k],
            fusion.encoders,
            fusion.encoder_norm,
            k * n + i,
            rows=slice(i * DIM, (i + 1) * DIM),
        )
        for i in range(n)
        for k in range(n)
    }
    sums = torch.cat([sum(a[i, k] for k in range(n)) for i in range(n)], 1)
    z = layer(sums, fusion.joint, fusion.joint_norm, 0)
    loss = 0.0
    for k in range(n):
        own = torch.cat([a[i, k] for i in range(n)], 1)
        loss = loss + ((layer(own, fusion.joint, fusion.joint_norm, 1 + k) - z) ** 2).mean()
    return z, loss


@pytest.mark.parametrize("widths", [[3], [3, 5], [DIM, 3, 2]])
@pytest.mark.parametrize("training", [True, False])
def test_follows_the_formulas(double, widths, training):
    fusion, features = make(widths, consistency=0.5)
    fused = fusion.train(training)(features)
    expected, loss = by_hand(fusion, features)
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(fusion.auxiliary_loss, 0.5 * loss if training else torch.zeros(()))


def test_only_widths_that_differ_are_projected():
    kinds = [type(p) for p in CrossFusion([DIM, 3], DIM).projections]
    assert kinds == [nn.Identity, nn.Linear]


def test_the_auxiliary_loss_is_differentiated(double):
    fusion, features = make([3, 5])
    fusion(features)
    found = torch.autograd.grad(fusion.auxiliary_loss, fusion.parameters())
    expected = torch.autograd.grad(by_hand(fusion, features)[1], fusion.parameters())
    torch.testing.assert_close(found, expected)


def test_there_is_no_auxiliary_loss_but_of_the_last_training_forward():
    fusion, features = make([3, 5])
    assert fusion.auxiliary_loss.requires_grad
    with torch.no_grad():
        fusion(features)
    assert fusion.auxiliary_loss == 0 and not fusion.auxiliary_loss.requires_grad
    fusion(features)
    fusion.eval()(features)
    assert fusion.auxiliary_loss == 0
    without, features = make([3, 5], consistency=0.0)
    without(features)
    assert not without.auxiliary_loss.requires_grad


def test_leading_dimensions_share_the_statistics(double):
    fusion, _ = make([3, 5])
    features = [torch.randn(4, 3, width) for width in (3, 5)]
    expected, loss = by_hand(fusion, [x.flatten(0, 1) for x in features])
    torch.testing.assert_close(fusion(features).flatten(0, 1), expected)
    torch.testing.assert_close(fusion.auxiliary_loss, loss)


@pytest.mark.parametrize("consistency", [-0.1, float("nan")])
def test_refuses_a_weight_that_makes_no_sense(consistency):
    with pytest.raises(ValueError, match="consistency must be at least 0"):
        CrossFusion([3, 5], DIM, consistency=consistency)
