"""The multimodal transformer: who attends to whom, what is seen, and how many parameters."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deq_fusion.fusions import mult
from deq_fusion.fusions.mult import MULTModel, TransformerEncoder
from unit_tests.fusions.transformer_reference import affine

FEATURES = (4, 3)


class Small(MULTModel.DefaultHyperParams):
    num_heads = 1
    layers = 1
    embed_dim = 4
    output_dim = 2


def variant(**settings):
    return type("Settings", (Small,), settings)


def make(**settings):
    """A model, in evaluation, whose parameters all differ."""
    model = MULTModel(len(FEATURES), FEATURES, variant(**settings))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def sequences(steps=5, batch=3):
    return [torch.randn(batch, steps, width) for width in FEATURES]


def expected_output(model, x):
    """Every pair of modalities in turn, on top of the encoders, for all steps."""
    weights = [projection.weight[..., 0] for projection in model.proj]
    steps = [torch.einsum("btf,ef->tbe", v, w) for v, w in zip(x, weights, strict=True)]
    results = []
    for i, target in enumerate(steps):
        attended = [model.trans[i][j](target, source, source) for j, source in enumerate(steps)]
        results.append(model.trans_mems[i](torch.cat(attended, dim=-1)))
    h = torch.cat(results, dim=-1).transpose(0, 1)
    residual = affine(model.proj2, affine(model.proj1, h).clamp_min(0))
    return affine(model.out_layer, h + residual)


@pytest.mark.parametrize("attn_mask", [True, False])
def test_every_modality_attends_to_every_modality(double, attn_mask):
    model, x = make(attn_mask=attn_mask), sequences()
    assert [len(row) for row in model.trans] == [2, 2]
    assert_close(model(x), expected_output(model, x)[:, -1])
    model.all_steps = True
    assert_close(model(x), expected_output(model, x))


def test_encoders_have_their_widths_depths_and_dropouts():
    settings = variant(attn_dropout_modalities=[0.1, 0.2, 0.3], attn_dropout=0.4, relu_dropout=0.5)
    settings.res_dropout, settings.embed_dropout = 0.6, 0.7
    model = MULTModel(2, FEATURES, settings)
    for row in model.trans:
        for encoder, dropout in zip(row, [0.1, 0.2], strict=True):
            (layer,) = encoder.layers
            assert (layer.self_attn.embed_dim, layer.self_attn.dropout) == (4, dropout)
            assert (layer.relu_dropout, layer.res_dropout) == (0.5, 0.6)
            assert encoder.dropout == 0.7
    for encoder in model.trans_mems:
        assert len(encoder.layers) == 3
        for layer in encoder.layers:
            assert (layer.self_attn.embed_dim, layer.self_attn.dropout) == (8, 0.4)
    assert len(MULTModel(2, FEATURES, variant(layers=4)).trans_mems[0].layers) == 4


def count(features, embed_dim, layers, output_dim):
    """Parameters, from the widths alone."""

    def encoder(e, depth):
        attention, network, norm = 4 * e * e + 4 * e, 8 * e * e + 5 * e, 2 * e
        return depth * (attention + network + 2 * norm) + norm

    m = len(features)
    combined = embed_dim * m * m
    ends = 2 * (combined * combined + combined) + output_dim * (combined + 1)
    between = m * m * encoder(embed_dim, layers) + m * encoder(m * embed_dim, max(layers, 3))
    return sum(features) * embed_dim + between + ends


@pytest.mark.parametrize(
    "settings, published",
    [
        ({"embed_dim": 40, "num_heads": 8, "layers": 4, "output_dim": 1}, 3_076_961),
        ({"embed_dim": 9, "num_heads": 3, "layers": 4, "output_dim": 1}, 165_007),
        ({"embed_dim": 9, "num_heads": 3, "layers": 2, "output_dim": 5}, None),
    ],
)
def test_it_has_multibenchs_parameters(settings, published):
    model = MULTModel(3, [20, 5, 300], variant(**settings))
    expected = count(
        [20, 5, 300], settings["embed_dim"], settings["layers"], settings["output_dim"]
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert published in (None, expected)


def test_the_defaults_are_multibenchs():
    model = MULTModel(3, [20, 5, 300])
    assert sum(p.numel() for p in model.parameters()) == count([20, 5, 300], 9, 3, 1)
    assert model([torch.randn(2, 7, width) for width in (20, 5, 300)]).shape == (2, 1)
    settings = MULTModel.DefaultHyperParams
    values = {name: value for name, value in vars(settings).items() if name[0] != "_"}
    assert list(values.pop("attn_dropout_modalities")) == [0.0] * 1000
    assert values == {
        "num_heads": 3,
        "layers": 3,
        "attn_dropout": 0.1,
        "relu_dropout": 0.1,
        "res_dropout": 0.1,
        "out_dropout": 0.0,
        "embed_dropout": 0.25,
        "embed_dim": 9,
        "attn_mask": True,
        "output_dim": 1,
        "all_steps": False,
    }


def test_hyperparameters_may_be_a_class_or_an_object():
    torch.manual_seed(1)
    from_class = MULTModel(2, FEATURES, Small)
    torch.manual_seed(1)
    from_object = MULTModel(2, FEATURES, Small())
    pairs = zip(from_class.parameters(), from_object.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("changed", [0, 1])
def test_the_mask_hides_the_future_of_every_source(double, changed):
    x = sequences()
    later = [v.clone() for v in x]
    later[changed][:, 3:] += 1
    model = make(all_steps=True)
    before, after = model(x), model(later)
    assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:], atol=1e-5)
    model = make(all_steps=True, attn_mask=False)
    assert not torch.allclose(model(later)[:, :3], model(x)[:, :3], atol=1e-5)


def test_samples_do_not_see_each_other(double):
    model, x = make(), sequences()
    alone = [model([v[row : row + 1] for v in x]) for row in range(3)]
    assert_close(model(x), torch.cat(alone))


def test_evaluation_is_deterministic_and_training_is_not():
    model, x = make(), sequences()
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x), rtol=0, atol=0)
        model.train()
        assert not torch.equal(model(x), model(x))


def test_the_output_is_dropped_in_training_only():
    quiet = {"attn_dropout": 0.0, "relu_dropout": 0.0, "res_dropout": 0.0, "embed_dropout": 0.0}
    model, x = make(**quiet, out_dropout=0.5), sequences()
    evaluated = model(x)
    assert not torch.allclose(model.train()(x), evaluated)
    model.out_dropout = 0.0
    assert_close(model(x), evaluated)


def test_gradients():
    model = make(embed_dim=2).double()
    x = [v.double().requires_grad_() for v in sequences(steps=3, batch=1)]
    parameters = list(model.named_parameters())
    names = ["proj.0.weight", "out_layer.weight", "trans.1.0.layers.0.self_attn.in_proj_bias"]
    assert set(names) < {name for name, _ in parameters}
    chosen = [parameter for name, parameter in parameters if name in names]
    names = [name for name, _ in parameters if name in names]

    def call(first, second, *tensors):
        given = dict(zip(names, tensors, strict=True))
        return torch.func.functional_call(model, given, ([first, second],))

    assert call(*x, *chosen).dtype == torch.float64
    assert torch.autograd.gradcheck(call, (*x, *chosen))


def test_every_parameter_gets_a_gradient():
    model = make(all_steps=True)
    model(sequences()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_draws_come_in_multibenchs_order():
    torch.manual_seed(1)
    model = MULTModel(2, FEATURES, Small)
    torch.manual_seed(1)
    parts = [nn.Conv1d(width, 4, 1, bias=False) for width in FEATURES]
    parts += [TransformerEncoder(4, 1, 1) for _ in range(4)]
    parts += [TransformerEncoder(8, 1, 3) for _ in range(2)]
    parts += [nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)]
    expected = [parameter for part in parts for parameter in part.parameters()]
    torch.testing.assert_close([*model.parameters()], expected, rtol=0, atol=0)


def test_files_cross_to_and_from_multibench():
    names = {key.split(".")[0] for key in make().state_dict()}
    assert names == {"proj", "trans", "trans_mems", "proj1", "proj2", "out_layer"}


def test_it_can_be_saved_copied_and_pickled_at_any_time():
    model, x = make(), sequences()
    result = model(x)  # with its graph
    other = make()
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin.eval()(x), result, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name",
    ["MULTModel", "TransformerEncoder", "TransformerEncoderLayer", "SinusoidalPositionalEmbedding"],
)
def test_whole_model_files_find_every_part_under_multibenchs_path(name):
    assert getattr(mult, name).__module__ == "deq_fusion.fusions.mult"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="each of 3 modalities, got 2 and 3"):
        MULTModel(3, FEATURES, Small)
    with pytest.raises(ValueError, match="each of 2 modalities, got 2 and 1"):
        MULTModel(2, FEATURES, variant(attn_dropout_modalities=[0.1]))
    with pytest.raises(ValueError, match="multiple of num_heads=3, got 4"):
        MULTModel(2, FEATURES, variant(num_heads=3))
    x, y = sequences()
    for wrong in ([x, y[:, :4]], [x], [y, x], [x, y[:, 0]], [x, y[:1]]):
        with pytest.raises(ValueError, match=r"\(batch, time, n\) with n = \[4, 3\] and one"):
            make()(wrong)
