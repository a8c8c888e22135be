"""Encoders to a code and decoders from one: formulas computed again, names, seeded draws."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deq_fusion.unimodals.common_models import LeNet
from deq_fusion.unimodals.MVAE import DeLeNet, LeNetEncoder, MLPEncoder, TSDecoder, TSEncoder


def gru_step(gru, x, state):
    """One step of one sample (Cho et al., 2014)."""
    ri, zi, ni = (gru.weight_ih_l0 @ x + gru.bias_ih_l0).chunk(3)
    rh, zh, nh = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
    update = (zi + zh).sigmoid()
    return (1 - update) * (ni + (ri + rh).sigmoid() * nh).tanh() + update * state


def test_mlp_encoder_is_two_layers_cut_in_halves(double):
    model, x = MLPEncoder(5, 7, 3), torch.randn(4, 5)
    hidden = (x @ model.fc.weight.T + model.fc.bias).clamp(min=0)
    both = hidden @ model.fc2.weight.T + model.fc2.bias
    assert_close(model(x), (both[:, :3], both[:, 3:]))


@pytest.mark.parametrize("batch_first", [False, True])
def test_series_encoder_runs_over_the_time_of_each_sample(double, batch_first):
    model, x = TSEncoder(4, 5, 3, 6, batch_first=batch_first), torch.randn(2, 6, 4)
    codes = []
    for sample in x:
        state, states = torch.zeros(5), []
        for step in sample:
            state = gru_step(model.gru, step, state)
            states.append(state)
        codes.append(model.linear.weight @ torch.cat(states) + model.linear.bias)
    codes = torch.stack(codes)
    assert_close(model(x), (codes[:, :3], codes[:, 3:]))
    assert_close(model(x.flatten(1)), model(x))
    alone = TSEncoder(4, 5, 3, 6, returnvar=False, batch_first=batch_first)
    alone.gru.load_state_dict(model.gru.state_dict())
    with torch.no_grad():
        alone.linear.weight.copy_(model.linear.weight[:3])
        alone.linear.bias.copy_(model.linear.bias[:3])
    assert_close(alone(x), codes[:, :3])


def test_series_decoder_reads_its_own_states(double):
    model, z = TSDecoder(4, 99, 3, 5), torch.randn(2, 3)
    made = []
    for code in z:
        state, x, steps = model.linear.weight @ code + model.linear.bias, torch.zeros(4), []
        for _ in range(5):
            x = state = gru_step(model.gru, x, state)
            steps.append(state)
        made.append(torch.cat(steps))
    assert_close(model(z), torch.stack(made))


def transposed(x, layer):
    """A transposed convolution of one image, each pixel painting the kernel (numpy's loops)."""
    stride, padding, weight = layer.stride[0], layer.padding[0], layer.weight
    size, kernel = (x.shape[1] - 1) * stride + weight.shape[2], weight.shape[2]
    image = x.new_zeros(weight.shape[1], size, size)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            top, left = row * stride, column * stride
            paint = (x[:, row, column, None, None, None] * weight).sum(0)
            image[:, top : top + kernel, left : left + kernel] += paint
    return image[:, padding : size - padding, padding : size - padding]


def test_image_decoder_paints_with_transposed_convolutions(double):
    model, z = DeLeNet(1, 2, 2, 3).eval(), torch.randn(2, 3)
    with torch.no_grad():
        for norm in model.bns:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    images = []
    for code in z:
        x = (model.linear.weight @ code + model.linear.bias)[:, None, None]
        for deconv, norm in zip(model.deconvs, model.bns, strict=False):
            x = transposed(x, deconv) - norm.running_mean[:, None, None]
            x = x / (norm.running_var + norm.eps).sqrt()[:, None, None]
        images.append(transposed(x, model.deconvs[-1]))
    assert_close(model(z), torch.stack(images))


@pytest.mark.parametrize("layers, size", [(0, 6), (3, 34), (5, 130)])
def test_image_decoder_makes_the_documented_size(layers, size):
    assert DeLeNet(1, 2, layers, 3)(torch.randn(2, 3)).shape == (2, 1, size, size)


def test_image_encoder_is_lenet_and_a_linear_map():
    model, x = LeNetEncoder(1, 2, 3, 5), torch.randn(2, 1, 28, 28)
    features = model.lenet(x)
    assert features.shape == (2, 16)
    both = features @ model.linear.weight.T + model.linear.bias
    assert_close(model(x), (both[:, :5], both[:, 5:]))
    assert LeNetEncoder(1, 2, 3, 5, twooutput=False)(x).shape == (2, 5)
    assert LeNetEncoder(1, 2, 3, 5).eval()(x[:1])[0].shape == (1, 5)


def widths_of(layers):
    return [2 * 2**i for i in range(layers, -1, -1)]


def delenet(layers=2):
    parts = [nn.Linear(3, widths_of(layers)[0])]
    for width in widths_of(layers)[:-1]:
        parts.append(nn.ConvTranspose2d(width, width // 2, 4, bias=False))
    return [*parts, nn.ConvTranspose2d(2, 1, 8, bias=False)]


@pytest.mark.parametrize(
    "build, parts",
    [
        (lambda: MLPEncoder(5, 7, 3), lambda: [nn.Linear(5, 7), nn.Linear(7, 6)]),
        (lambda: TSEncoder(4, 5, 3, 6), lambda: [nn.GRU(4, 5), nn.Linear(30, 6)]),
        (lambda: TSEncoder(4, 5, 3, 6, False), lambda: [nn.GRU(4, 5), nn.Linear(30, 3)]),
        (lambda: TSDecoder(4, 9, 3, 6), lambda: [nn.GRU(4, 4), nn.Linear(3, 4)]),
        (lambda: LeNetEncoder(1, 2, 3, 5), lambda: [LeNet(1, 2, 3), nn.Linear(16, 10)]),
        (lambda: DeLeNet(1, 2, 2, 3), delenet),
    ],
)
def test_parameters_are_drawn_in_multibenchs_order(build, parts):
    torch.manual_seed(3)
    ours = {tuple(p.flatten().tolist()) for p in build().parameters() if p.std() > 0}
    torch.manual_seed(3)
    drawn = [p for part in parts() for p in part.parameters() if p.std() > 0]  # no batch norm's
    assert ours == {tuple(p.flatten().tolist()) for p in drawn}


@pytest.mark.parametrize(
    "model, names",
    [
        (MLPEncoder(5, 7, 3), {"fc", "fc2"}),
        (TSEncoder(4, 5, 3, 6), {"gru", "linear"}),
        (TSDecoder(4, 9, 3, 6), {"gru", "linear"}),
        (LeNetEncoder(1, 2, 3, 5), {"lenet", "linear"}),
        (DeLeNet(1, 2, 2, 3), {"linear", "deconvs", "bns"}),
    ],
)
def test_state_dicts_have_multibenchs_names(model, names):
    assert {name.partition(".")[0] for name in model.state_dict()} == names


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"6 steps of 4, got shape \(2, 7, 4\)"):
        TSEncoder(4, 5, 3, 6)(torch.zeros(2, 7, 4))
    with pytest.raises(ValueError, match=r"\(56, 56\) at \(3, 3\)"):
        LeNetEncoder(1, 2, 3, 5)(torch.zeros(2, 1, 56, 56))
