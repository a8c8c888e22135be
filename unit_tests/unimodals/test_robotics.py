"""Encoders and decoders of a robot's sensors: shapes, formulas, and how they are drawn."""

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.unimodals.robotics import decoders, encoders, layers, models_utils

Z = 5


def leaky(x):
    return torch.where(x > 0, x, 0.1 * x)


def images(batch=2):
    return torch.rand(batch, 128, 128, 3) * 255


def test_images_come_channels_first_and_scaled():
    image = torch.rand(2, 4, 5, 3) * 255
    scaled = models_utils.rescaleImage(image)
    wanted = np.moveaxis(image.numpy(), -1, 1) / 255
    np.testing.assert_allclose(scaled.numpy(), wanted, rtol=1e-6)


def test_depths_out_of_reach_are_zero():
    depth = torch.tensor([-1.0, 0.0, 1e-8, 0.5, 1.99, 2.0, 7.0])
    assert models_utils.filter_depth(depth).tolist() == pytest.approx([0, 0, 0, 0.5, 1.99, 0, 0])


def test_kernels_are_drawn_anew_in_order_and_biases_zeroed():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(2, 2), nn.BatchNorm2d(3), nn.Conv1d(2, 2, 1))
    net[2].weight.data.fill_(7)
    others = [net[1].weight.clone(), net[3].weight.clone()]
    torch.manual_seed(5)
    models_utils.init_weights(net.modules())
    torch.manual_seed(5)
    wanted = torch.randn(3, 2, 3, 3) * (2 / 18) ** 0.5  # He et al.: 2 over what goes in
    torch.testing.assert_close(net[0].weight.data, wanted)
    assert net[0].bias.eq(0).all() and net[2].weight.eq(1).all()
    assert torch.equal(net[1].weight, others[0]) and torch.equal(net[3].weight, others[1])


@pytest.mark.parametrize("kernel, stride, dilation", [(2, 2, 1), (3, 1, 2), (3, 2, 1), (4, 3, 1)])
@pytest.mark.parametrize("steps", [7, 8])
def test_a_causal_convolution_is_one_of_the_past(kernel, stride, dilation, steps, double):
    causal = layers.CausalConv1D(2, 3, kernel, stride, dilation)
    x = torch.randn(2, 2, steps)
    wanted = []
    for t in range(0, steps, stride):
        total = causal.bias.repeat(2, 1)
        for tap in range(kernel):
            past = t - (kernel - 1 - tap) * dilation
            if past >= 0:
                total = total + x[:, :, past] @ causal.weight[:, :, tap].T
        wanted.append(total)
    torch.testing.assert_close(causal(x), torch.stack(wanted, -1))


def test_layers():
    x = torch.randn(2, 3, 8, 8)
    assert layers.conv2d(3, 4, kernel_size=5, dilation=2)(x).shape == (2, 4, 8, 8)
    assert layers.deconv(3, 4)(x).shape == (2, 4, 16, 16)
    assert layers.predict_flow(3)(x).shape == (2, 2, 8, 8)
    assert torch.equal(layers.crop_like(x, torch.zeros(1, 1, 5, 6)), x[:, :, :5, :6])
    assert torch.equal(layers.Flatten()(x), x.flatten(1))
    assert layers.View((2, -1))(x).shape == (2, 192)


def test_a_residual_block_adds_to_its_input_and_leaves_it_as_it_is():
    block, x = layers.ResidualBlock(3).eval(), torch.randn(2, 3, 4, 4)
    before = x.clone()
    out = leaky(block.bn1(leaky(block.conv1[0](leaky(x)))))
    wanted = block.bn2(leaky(block.conv2[0](out))) + x
    torch.testing.assert_close(block(x), wanted)
    assert torch.equal(x, before)


def test_the_proprioception_encoder_is_four_layers():
    encoder, x = encoders.ProprioEncoder(Z, alpha=0.5), torch.randn(3, 8)
    out = 0.5 * x
    for linear in encoder.proprio_encoder[::2]:
        out = leaky(out @ linear.weight.T + linear.bias)
    torch.testing.assert_close(encoder(x), out[:, :, None])
    assert out.shape == (3, 2 * Z)


def test_the_force_encoder_halves_the_time_five_times():
    encoder = encoders.ForceEncoder(Z, alpha=0.5)
    x = torch.randn(3, 6, 32)
    assert encoder(x).shape == (3, 2 * Z, 1)
    torch.testing.assert_close(encoder(x), encoder.frc_encoder(x / 2))


@pytest.mark.parametrize(
    "kind, x, scaled",
    [
        (encoders.ImageEncoder, images(), lambda x: x.permute(0, 3, 1, 2) / 255),
        (encoders.DepthEncoder, torch.rand(2, 1, 128, 128) * 3, lambda x: x * (x < 2)),
    ],
)
def test_images_and_depths_go_through_six_convolutions(kind, x, scaled):
    encoder = kind(Z, alpha=0.5)
    feature, maps = encoder(x)
    prefix = "img" if kind is encoders.ImageEncoder else "depth"
    out = 0.5 * scaled(x)
    for i, given in enumerate(maps, 1):
        out = leaky(getattr(encoder, f"{prefix}_conv{i}")[0](out))
        torch.testing.assert_close(given, out)
    assert [m.shape[-1] for m in maps] == [64, 32, 16, 8, 4, 2]
    linear = getattr(encoder, f"{prefix}_encoder")
    torch.testing.assert_close(feature, linear(out.flatten(1))[:, :, None])
    assert feature.shape == (2, 2 * Z, 1)


def test_as_drawn_or_drawn_anew():
    torch.manual_seed(2)
    plain = encoders.ImageEncoder(Z, 1.0, initialize_weights=False)
    torch.manual_seed(2)
    anew = encoders.ImageEncoder(Z, 1.0)
    models_utils.init_weights([])  # draws nothing
    assert not torch.equal(plain.img_conv1[0].weight, anew.img_conv1[0].weight)
    assert torch.equal(plain.img_encoder.weight, anew.img_encoder.weight)
    assert anew.img_conv1[0].bias.eq(0).all()


def test_actions():
    encoder = encoders.ActionEncoder(4)
    x = torch.randn(3, 4)
    first, second = encoder.action_encoder[0], encoder.action_encoder[2]
    wanted = leaky(second(leaky(first(x))))
    torch.testing.assert_close(encoder(x), wanted)
    assert wanted.shape == (3, 32)
    assert encoder(None) is None


def test_the_flow_is_masked_and_of_the_second_maps_size():
    maps = encoders.ImageEncoder(Z, 1.0)(images())[1]
    decoder, tiled = decoders.OpticalFlowDecoder(Z), torch.randn(2, Z, 2, 2)
    flow, mask = decoder(tiled, maps)
    assert flow.shape == (2, 2, 32, 32) and mask.shape == (2, 1, 32, 32)
    seen = []
    decoder.predict_optical_flow2.register_forward_hook(lambda *a: seen.append(a[2]))
    decoder(tiled, maps)
    torch.testing.assert_close(flow, seen[0] / (1 + torch.exp(-mask)))
    flow.square().mean().backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_the_flow_decoders_layers_are_drawn_in_multibenchs_order():
    names = [name for name, _ in decoders.OpticalFlowDecoder(Z).named_children()]
    assert names == [
        "optical_flow_conv",
        *(f"img_deconv{i}" for i in (6, 5, 4, 3, 2)),
        *(f"predict_optical_flow{i}" for i in (6, 5, 4, 3, 2)),
        *(f"upsampled_optical_flow{i}_to_{i - 1}" for i in (6, 5, 4, 3)),
        "predict_optical_flow2_mask",
    ]


def test_the_hand_moves_by_four_layers():
    decoder, x = decoders.EeDeltaDecoder(Z, 3), torch.randn(2, Z)
    *hidden, last = decoder.ee_delta_decoder[::2]
    out = x
    for linear in hidden:
        out = leaky(linear(out))
    torch.testing.assert_close(decoder(x), last(out))
    assert last(out).shape == (2, 3)


@pytest.mark.parametrize("deterministic, items", [(True, 4), (False, 8)])
def test_contact_is_told_from_the_second_item(deterministic, items):
    decoder, joined = decoders.ContactDecoder(Z, deterministic, head=2), torch.randn(3, Z)
    given = [None, joined, *[None] * (items - 2)]
    torch.testing.assert_close(decoder(given), decoder.contact_fc[0](joined))
    for wrong in given[:-1], joined:
        with pytest.raises(ValueError, match=f"takes the {items} items"):
            decoder(wrong)
