"""The transformers for finance: a second computation, and what they see of a sequence."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deq_fusion.fusions.common_fusions import EarlyFusionTransformer, LateFusionTransformer, Stack
from unit_tests.fusions.transformer_reference import affine, post_norm_layer

both = pytest.mark.parametrize(
    "kind, size, shape",
    [(EarlyFusionTransformer, 4, (2, 5, 4)), (LateFusionTransformer, 6, (2, 5))],
)


def scatter(model):
    """Makes all parameters differ, so that no layer can stand for another."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_early_fusion_ends_in_a_number_from_the_last_step(double):
    model, x = scatter(EarlyFusionTransformer(4)), torch.randn(2, 5, 4)
    steps = torch.einsum("btf,ef->tbe", x, model.conv.weight[..., 0])
    for layer in model.transformer.layers:
        steps = post_norm_layer(layer, steps)
    assert_close(model(x), affine(model.linear, steps[-1]))


def test_late_fusion_takes_every_entry_as_a_step(double):
    model, x = scatter(LateFusionTransformer(6)), torch.randn(2, 3, 2)
    steps = torch.einsum("bt,e->tbe", x.reshape(2, 6), model.conv.weight[:, 0, 0])
    for layer in model.transformer.layers:
        steps = post_norm_layer(layer, steps)
    assert_close(model(x), steps[-1])


def test_shapes_defaults_and_sizes():
    assert EarlyFusionTransformer.embed_dim == LateFusionTransformer().embed_dim == 9
    stacked = Stack()([torch.randn(3, 5), torch.randn(3, 5)])
    assert EarlyFusionTransformer(2)(stacked).shape == (3, 1)
    assert LateFusionTransformer()(torch.randn(3, 5)).shape == (3, 9)
    layers = EarlyFusionTransformer(2).transformer.layers
    assert [(layer.self_attn.num_heads, layer.linear1.out_features) for layer in layers] == [
        (3, 2048)
    ] * 3


def test_files_cross_to_and_from_multibench():
    names = {key.split(".")[0] for key in EarlyFusionTransformer(2).state_dict()}
    assert names == {"conv", "transformer", "linear"}
    names = {key.split(".")[0] for key in LateFusionTransformer().state_dict()}
    assert names == {"conv", "transformer"}


@both
def test_evaluation_is_deterministic_and_training_is_not(kind, size, shape):
    model, x = scatter(kind(size)), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x), rtol=0, atol=0)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)
        model.train()
        assert not torch.equal(model(x), model(x))


@both
def test_gradients_by_finite_differences(kind, size, shape):
    model = scatter(kind(size)).double()
    x = torch.randn(shape, dtype=torch.float64)
    cotangent = torch.randn_like(model(x))
    names = [name for name in model.state_dict() if "layers" not in name or "layers.1" in name]
    tensors = {name: model.state_dict()[name] for name in names} | {"x": x}
    directions = {name: torch.randn_like(tensor) for name, tensor in tensors.items()}

    def value(step):
        moved = {name: t + step * directions[name] for name, t in tensors.items()}
        inputs = moved.pop("x")
        return (torch.func.functional_call(model, moved, (inputs,)) * cotangent).sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(step), step)
    assert_close(slope, (value(1e-6) - value(-1e-6)).detach() / 2e-6, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="multiple of 3, got 10"):
        LateFusionTransformer(10)
    with pytest.raises(ValueError, match=r"\(batch, time, n_features\), got shape \(4, 5\)"):
        EarlyFusionTransformer(5)(torch.randn(4, 5))
