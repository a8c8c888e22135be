"""Residual networks of videos: as many parameters as Tran et al. count, and both shortcuts."""

import pytest
import torch
from torch import nn

from deq_fusion.unimodals.res3d import BasicBlock, Bottleneck, ResNet, generate_model

SMALL = {"n_classes": 3, "widen_factor": 1 / 16}


def conv_parameters(model):
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv3d))


@pytest.mark.parametrize("planes, out", [(8, 8), (8, 16), (64, 128)])
def test_space_and_time_apart_have_no_more_parameters_than_together(planes, out):
    block = BasicBlock(planes, out)
    apart = block.conv1_s.weight.numel() + block.conv1_t.weight.numel()
    together = planes * out * 27
    one_channel = planes * 9 + out * 3
    assert together - one_channel < apart <= together


@pytest.mark.parametrize("depth, layers", [(10, 1), (18, 2)])
def test_a_networks_depth_counts_its_layers(depth, layers):
    model = generate_model(depth, **SMALL)
    blocks = [m for m in model.modules() if isinstance(m, (BasicBlock, Bottleneck))]
    assert len(blocks) == 4 * layers
    assert 2 * len(blocks) + 2 == depth  # two a block, the stem and the last one
    assert model(torch.randn(2, 3, 4, 32, 32)).shape == (2, 3)


def test_bottlenecks_from_fifty_layers_on():
    model = generate_model(50, **SMALL)
    blocks = [m for m in model.modules() if isinstance(m, Bottleneck)]
    assert 3 * len(blocks) + 2 == 50
    assert model(torch.randn(1, 3, 4, 32, 32).repeat(2, 1, 1, 1, 1)).shape == (2, 3)


def test_an_unknown_depth_is_refused():
    with pytest.raises(ValueError, match=r"must be one of \[10, 18, 34, 50, 101, 152, 200\]"):
        generate_model(12)


def test_a_block_adds_to_its_input():
    block, x = BasicBlock(4, 4).eval(), torch.randn(2, 4, 3, 5, 5)
    for name in "bn1_s", "bn1_t", "bn2_s", "bn2_t":
        getattr(block, name).running_var.fill_(1 - 1e-5)  # so that evaluation changes nothing
    out = block.conv1_t(block.conv1_s(x).relu()).relu()
    out = block.conv2_t(block.conv2_s(out).relu())
    torch.testing.assert_close(block(x), (out + x).relu())


def test_a_shortcut_without_parameters_carries_the_gradient():
    model = ResNet(BasicBlock, [1] * 4, [4, 8, 8, 8], shortcut_type="A", n_classes=3)
    shortcut = model.layer2[0].downsample
    x = torch.randn(2, 4, 4, 6, 6, requires_grad=True)
    out = shortcut(x)
    wanted = torch.cat([x[:, :, ::2, ::2, ::2], torch.zeros(2, 4, 2, 3, 3)], 1)
    assert torch.equal(out, wanted)
    assert torch.autograd.grad(out.sum(), x)[0].sum() == wanted[:, :4].numel()
    apart = ResNet(BasicBlock, [1] * 4, [4, 8, 8, 8], n_classes=3)
    assert conv_parameters(apart) - conv_parameters(model) == 4 * 8 + 8 * 8 + 8 * 8
    assert model(torch.randn(2, 3, 4, 32, 32)).shape == (2, 3)
