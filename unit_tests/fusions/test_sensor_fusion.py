"""The robot's sensors: each fusion against its formula, on a batch and on one sample."""

import copy

import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.distributions import Normal

from deq_fusion.fusions import sensor_fusion
from deq_fusion.fusions.robotics import sensor_fusion as second_name
from deq_fusion.fusions.sensor_fusion import (
    SensorFusion,
    SensorFusionSelfSupervised,
    roboticsConcat,
)

Z = 6  # not the width of the hidden layers


def encoded(batch, action=True):
    feature = (torch.randn(batch, 2 * Z, 1) for _ in range(4))
    image, force, proprio, depth = feature
    maps = torch.randn(batch, Z, 2, 2)
    last = torch.randn(batch, 32) if action else None
    return [(image, (maps,)), force, proprio, (depth, (maps,)), last]


def features_of(x):
    return [x[0][0], x[1], x[2], x[3][0]]


def layer(sequential, x):
    linear = sequential[0]
    out = x @ linear.weight.T + linear.bias
    return torch.where(out > 0, out, 0.1 * out)


def test_parameters_are_drawn_in_multibenchs_order():
    torch.manual_seed(3)
    drawn = [nn.Linear(32 + Z, 128), nn.Linear(128, Z), nn.Linear(8 * Z, 128), nn.Linear(128, Z)]
    torch.manual_seed(3)
    made = SensorFusion("cpu", Z, deterministic=True).state_dict()
    names = ("st_fusion_fc1.0", "st_fusion_fc2.0", "fusion_fc1.0", "fusion_fc2.0")
    assert list(made) == [
        "z_prior_m",
        "z_prior_v",
        *(f"{name}.{kind}" for name in names for kind in ("weight", "bias")),
    ]
    for name, linear in zip(names, drawn, strict=True):
        assert torch.equal(made[f"{name}.weight"], linear.weight)
    assert made["z_prior_m"].eq(0).all() and made["z_prior_v"].eq(1).all()


def test_the_product_of_two_experts_is_the_product_of_their_densities():
    means, variances = torch.tensor([[[0.3, -1.0]]]), torch.tensor([[[0.5, 2.0]]])
    mean, variance = sensor_fusion.product_of_experts(means, variances)
    grid = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    density = norm.pdf(grid, 0.3, 0.5**0.5) * norm.pdf(grid, -1.0, 2**0.5)
    density = torch.from_numpy(density / density.sum())
    assert float(mean) == pytest.approx(float((density * grid).sum()), abs=1e-6)
    spread = (density * (grid - mean.double().squeeze()) ** 2).sum()
    assert float(variance) == pytest.approx(float(spread), abs=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_belief_is_that_of_the_sensors_and_a_standard_normal_prior(batch, double):
    x, fusion = encoded(batch), SensorFusionSelfSupervised("cpu", Z)
    torch.manual_seed(1)
    z, joined, tiled, maps, mean, variance, prior_mean, prior_variance = fusion(x)

    precision, weighted = torch.ones(batch, Z), torch.zeros(batch, Z)  # of the prior
    for feature in features_of(x):
        own = feature[:, :Z, 0], torch.log(1 + torch.exp(feature[:, Z:, 0])) + 1e-8
        precision += 1 / own[1]
        weighted += own[0] / own[1]
    torch.testing.assert_close(mean, weighted / precision)
    torch.testing.assert_close(variance, 1 / precision)
    torch.manual_seed(1)
    torch.testing.assert_close(z, mean + variance.sqrt() * Normal(0.0, 1.0).sample(mean.shape))

    both = torch.cat([z, x[4]], 1)
    torch.testing.assert_close(
        joined, layer(fusion.st_fusion_fc2, layer(fusion.st_fusion_fc1, both))
    )
    assert tiled.shape == (batch, Z, 2, 2)
    assert torch.equal(tiled, joined.view(batch, Z, 1, 1).repeat(1, 1, 2, 2))
    assert maps is x[0][1]
    assert prior_mean.shape == prior_variance.shape == (1, Z)


@pytest.mark.parametrize("batch", [1, 3])
def test_without_samples_the_latent_is_two_layers_of_all_features(batch):
    x, fusion = encoded(batch), SensorFusionSelfSupervised("cpu", Z, deterministic=True)
    z, joined, tiled, maps = fusion(x)
    flat = torch.cat(features_of(x), 1)[:, :, 0]
    torch.testing.assert_close(z, layer(fusion.fusion_fc2, layer(fusion.fusion_fc1, flat)))
    assert joined.shape == (batch, Z) and tiled.shape == (batch, Z, 2, 2)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("encoder", [False, True])
def test_without_an_action_or_as_an_encoder_it_gives_the_latent(encoder, deterministic):
    fusion = SensorFusionSelfSupervised("cpu", Z, encoder, deterministic)
    x = encoded(2, action=encoder)
    *rest, z = fusion(x)
    assert z.shape == (2, Z)
    if not deterministic:
        assert rest.pop(0) is x[0][1]
    assert all(a is b for a, b in zip(rest, features_of(x), strict=True))


def test_the_gradient_reaches_every_sensor_and_the_samples_every_dtype(double):
    x = encoded(2)
    leaves = [feature.requires_grad_() for feature in (*features_of(x), x[4])]
    z, joined, *_ = SensorFusionSelfSupervised("cpu", Z)(x)
    assert z.dtype == torch.float64
    joined.square().sum().backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)


def test_a_copy_and_a_loaded_state_keep_the_prior_with_the_parameters():
    fusion = SensorFusion("cpu", Z)
    other = copy.deepcopy(fusion)
    state = {name: value + 1 for name, value in fusion.state_dict().items()}
    other.load_state_dict(state, assign=True)
    assert other.z_prior[0].eq(1).all() and other.z_prior[1].eq(2).all()
    assert not any(p.requires_grad for p in other.z_prior)


def test_weights_and_biases_are_all_but_the_prior():
    fusion = SensorFusion("cpu", Z, deterministic=True)
    found = fusion.weight_parameters() + fusion.bias_parameters()
    assert len(found) == len(list(fusion.parameters())) - 2 == 8


@pytest.mark.parametrize("batch", [1, 3])
def test_sensors_side_by_side(batch):
    x = encoded(batch)
    image, force, proprio, depth = (feature[:, :, 0] for feature in features_of(x))
    action = x[4]
    wanted = torch.cat([image, force, proprio, depth, action], 1)
    assert torch.equal(roboticsConcat()(x), wanted)
    assert torch.equal(torch.cat(roboticsConcat("noconcat")(x), 1), wanted)
    assert torch.equal(
        roboticsConcat("image")([x[0], x[3], action]), torch.cat([image, depth, action], 1)
    )
    assert torch.equal(roboticsConcat("simple")([x[1], action]), torch.cat([force, action], 1))


def test_an_unknown_selection_is_refused():
    with pytest.raises(ValueError, match="'noconcat', 'image' or 'simple', got 'depth'"):
        roboticsConcat("depth")


def test_the_helpers():
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(sensor_fusion.duplicate(x, 3), torch.cat([x, x, x]))
    assert sensor_fusion.depth_deconv(3, 5)(torch.randn(2, 3, 4, 4)).shape == (2, 5, 8, 8)


def test_the_second_name_has_the_same_classes():
    for name in second_name.__all__:
        assert getattr(second_name, name) is getattr(sensor_fusion, name)
