"""The small modules against what they say they are, computed another way."""

import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.utils import aux_models as aux

ARGS = SimpleNamespace(planes=4, drop_path=0.5)


@pytest.fixture(autouse=True)
def python_seeded():
    before = random.getstate()
    random.seed(0)
    yield
    random.setstate(before)


def test_padding_and_pooling():
    row, image = torch.randn(2, 3), torch.randn(2, 3, 4, 5)
    padded = aux.Tensor1DLateralPadding(2)(row)
    assert torch.equal(padded, torch.cat([row, torch.zeros(2, 2)], 1))
    channels = aux.ChannelPadding(2)(image)
    assert torch.equal(channels, torch.cat([image, torch.zeros(2, 2, 4, 5)], 1))
    torch.testing.assert_close(aux.GlobalPooling2D()(image), image.sum((2, 3)) / 20)
    torch.testing.assert_close(aux.GlobalPooling1D()(image), image.sum(2) / 4)
    for identity in (aux.Identity(), aux.IdentityModule()):
        assert identity(image) is image


def test_maxout_is_the_largest_of_k_maps():
    maxout, x = aux.Maxout(3, 4, 2), torch.randn(5, 6, 3)
    weight, bias = maxout.lin.weight.view(4, 2, 3), maxout.lin.bias.view(4, 2)
    maps = [x @ weight[:, i].T + bias[:, i] for i in range(2)]
    torch.testing.assert_close(maxout(x), torch.maximum(*maps))


def test_alphas_weigh_by_a_sigmoid():
    scalar, x, y = aux.AlphaScalarMultiplication(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    scalar.alpha_x.data.fill_(0.7)
    share = 1 / (1 + torch.exp(torch.tensor(-0.7)))
    torch.testing.assert_close(scalar(x, y), (share * x, (1 - share) * y))
    vector = aux.AlphaVectorMultiplication(3)
    vector.alpha.data.copy_(torch.tensor([[0.7, 0.0, -0.7]]))
    shares = torch.stack([share, torch.tensor(0.5), 1 - share])
    torch.testing.assert_close(vector(x), x * shares)


def test_weighted_cross_entropy_is_that_of_probabilities_and_stays_finite(double):
    loss, weight = aux.WeightedCrossEntropyWithLogits([2.0, 0.5]), torch.tensor([2.0, 0.5])
    logits, truth = torch.randn(6, 2), torch.randint(2, (6, 2))
    p = logits.sigmoid()
    expected = -(weight * truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    torch.testing.assert_close(loss(logits, truth), expected)
    sure = torch.tensor([[-800.0, 800.0]])
    torch.testing.assert_close(loss(sure, torch.tensor([[1, 0]])), torch.tensor((2 + 1) * 800 / 2))


def test_a_path_is_dropped_as_a_whole_unless_another_was():
    drop, x = aux.DropPath(0.8), torch.randn(2, 3)
    dropped = 0
    for _ in range(1000):
        out, was = drop(x)
        assert torch.equal(out, 0 * x if was else x / 0.8)
        dropped += was
        assert not drop(x, other_dropped=True)[1]
    assert abs(dropped - 200) < 4 * (1000 * 0.2 * 0.8) ** 0.5
    out, was = drop.eval()(x)
    assert out is x and not was


def normalised(x, conv):
    """A convolution, batch normalisation of a training step, and ReLU."""
    return F.relu(F.batch_norm(conv(x), None, None, training=True))


@pytest.mark.parametrize("number", range(10))
def test_operations_have_a_number_and_a_name(number):
    name, x = aux.OPERATIONS[number], torch.randn(3, 4, 8, 8)
    torch.manual_seed(1)
    by_name = aux.CreateOp(name, 4, 6)
    torch.manual_seed(1)
    by_number = aux.CreateOp(number, 4, 6)
    convs = [m for m in by_name.modules() if isinstance(m, nn.Conv2d)]
    expected = normalised(x, convs[0])
    if "depthconv" in name:
        size = int(name[0])
        assert convs[1].groups == 6 and convs[1].kernel_size == (size, size)
        expected = normalised(expected, nn.Sequential(*convs[1:]))
    elif name[-4:] == "conv":
        size = int(name[0])
        assert convs[1].groups == 1 and convs[1].kernel_size == (size, size)
        expected = normalised(expected, convs[1])
    elif "pool" in name:
        pool = {"max": F.max_pool2d, "avg": F.avg_pool2d}[name[4:7]]
        expected = pool(expected, 3, stride=1, padding=1)
    assert len(convs) == (1 if number in (0, 8, 9) else 3 if "depth" in name else 2)
    torch.testing.assert_close(by_name(x), expected)
    torch.testing.assert_close(by_number(x), expected)


@pytest.mark.parametrize("wrong", ["conv", 10, -1, None])
def test_other_operations_are_refused(wrong):
    with pytest.raises(NotImplementedError, match="must be one of"):
        aux.CreateOp(wrong)


def test_options_that_make_no_module_are_refused():
    with pytest.raises(ValueError, match="out_planes must be even"):
        aux.FactorizedReduction(2, 3)
    with pytest.raises(ValueError, match="must be one of"):
        aux.PoolBranch(2, 2, "min")
    with pytest.raises(ValueError, match="must be 1, 3, 5 or 7"):
        aux.ConvBranch(2, 2, 4)


def test_a_separable_convolution_is_one_of_each_channel_then_of_all():
    conv, x = aux.SeparableConvOld(2, 3, 3, bias=True), torch.randn(1, 2, 5, 5)
    kernels = conv.depthwise.weight, conv.depthwise.bias
    each = [
        F.conv2d(x[:, i : i + 1], kernels[0][i : i + 1], kernels[1][i : i + 1], padding=1)
        for i in range(2)
    ]
    weight, bias = conv.pointwise.weight[:, :, 0, 0], conv.pointwise.bias
    expected = torch.einsum("oc,bchw->bohw", weight, torch.cat(each, 1)) + bias[:, None, None]
    torch.testing.assert_close(conv(x), expected)
    twice = aux.SeparableConv(2, 3, 3).op
    first = normalised_slightly(twice[1](twice[0](torch.ones(1, 2, 5, 5) * x)))
    torch.testing.assert_close(twice(x), normalised_slightly(twice[5](twice[4](first))))


def normalised_slightly(x):
    return F.relu(F.batch_norm(x, None, None, training=True, eps=1e-3))


@pytest.mark.parametrize("size", [6, 7])
def test_a_reduction_sees_other_pixels_in_each_half(size):
    reduction, x = aux.FactorizedReduction(2, 4), torch.randn(3, 2, size, size)
    grown = F.pad(x, (0, 1, 0, 1))
    halves = [
        torch.einsum("oc,bchw->bohw", path[1].weight[:, :, 0, 0], pixels)
        for path, pixels in (
            (reduction.path1, x[:, :, ::2, ::2]),
            (reduction.path2, grown[:, :, 1::2, 1::2]),
        )
    ]
    halves = [half[:, :, : (size + 1) // 2, : (size + 1) // 2] for half in halves]
    expected = F.batch_norm(torch.cat(halves, 1), None, None, training=True)
    torch.testing.assert_close(reduction(x), expected)
    same = aux.FactorizedReduction(2, 4, stride=1)
    expected = F.batch_norm(same.fr[0](x), None, None, training=True)
    torch.testing.assert_close(same(x), expected)


def test_a_block_is_the_sum_of_its_operations():
    block, x, y = aux.CellBlock("I", "3x3 conv", ARGS).eval(), *torch.randn(2, 3, 4, 6, 6)
    torch.testing.assert_close(block(x, y), block.op1(x) + block.op2(y))
    block.train()
    outs = []
    for _ in range(30):
        a, b = block.op1(x) / 0.5, block.op2(y) / 0.5
        out = block(x, y)
        outs.append([i for i, z in enumerate((a, b, a + b)) if torch.allclose(out, z, atol=1e-5)])
    assert {tuple(kind) for kind in outs} == {(0,), (1,), (2,)}  # never none of both


def test_cells_end_in_the_blocks_that_no_other_uses():
    labels, which = ["I", "3x3 maxpool"], [(0, 1), (1, 0), (0, 0)]
    connections = [(-2, -1), (0, -2), (-1, -1)]  # the first block is used by the second
    x, y = torch.randn(2, 3, 4, 6, 6)
    cell = aux.Cell(labels, which, connections, ARGS).eval()
    first = cell.blocks[0](x, y)
    second, third = cell.blocks[1](first, x), cell.blocks[2](y, y)
    torch.testing.assert_close(cell(x, y), cell.bn(second + third))
    assert cell.block_used == [True, False, False]
    fixed = aux.FixedCell(labels, which, connections, ARGS).eval()
    first = fixed.blocks[0](x, y)
    parts = torch.cat([fixed.blocks[1](first, x), fixed.blocks[2](y, y)], 1)
    torch.testing.assert_close(fixed(x, y), fixed.dim_reduc(parts))
    assert fixed.dim_reduc[0].in_channels == 8


def test_the_auxiliary_head_classifies_images():
    head, x = aux.AuxiliaryHead(3, filters=2).eval(), torch.randn(5, 2, 9, 9)
    pooled = F.avg_pool2d(x, 5, 2)
    for conv, norm in ((head.features[1], head.features[2]), (head.features[4], head.features[5])):
        pooled = F.relu(norm(conv(pooled)))
    torch.testing.assert_close(head(x), head.classifier(pooled.mean((2, 3))))
