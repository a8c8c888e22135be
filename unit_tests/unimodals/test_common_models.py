"""MultiBench's small encoders: names, signatures, shapes, and the formulas computed again."""

import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deq_fusion.unimodals.common_models import (
    GRU,
    LSTM,
    MLP,
    Constant,
    GlobalPooling2D,
    GRUWithLinear,
    Identity,
    Linear,
    Maxout,
    MaxOut_MLP,
    Reshape,
    Sequential,
    Squeeze,
    Transpose,
)

LENGTHS = torch.tensor([2, 7, 4])
padded = pytest.mark.parametrize(
    "kind, sizes", [(GRU, (4, 6)), (GRUWithLinear, (4, 6, 3)), (LSTM, (4, 6))]
)


def gru_states(gru, x):
    """Every state of one sample (time, width), step by step (Cho et al., 2014)."""
    state, states = x.new_zeros(gru.hidden_size), []
    for step in x:
        ri, zi, ni = (gru.weight_ih_l0 @ step + gru.bias_ih_l0).chunk(3)
        rh, zh, nh = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
        update = (zi + zh).sigmoid()
        state = (1 - update) * (ni + (ri + rh).sigmoid() * nh).tanh() + update * state
        states.append(state)
    return torch.stack(states)


def lstm_state(lstm, x):
    """The last state of one sample (time, width), step by step."""
    state = cell = x.new_zeros(lstm.hidden_size)
    for step in x:
        gates = lstm.weight_ih_l0 @ step + lstm.bias_ih_l0
        i, f, g, o = (gates + lstm.weight_hh_l0 @ state + lstm.bias_hh_l0).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
    return state


def test_linear_is_affine(double):
    model, x = Linear(4, 3), torch.randn(5, 4)
    assert_close(model(x), x @ model.fc.weight.T + model.fc.bias)


def test_xavier_init_draws_glorots_weights_and_no_bias():
    torch.manual_seed(1)
    model = Linear(400, 100, xavier_init=True)
    assert (model.fc.bias == 0).all()
    assert model.fc.weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.03)


def test_shape_modules_do_what_torch_does():
    x = torch.randn(2, 1, 3)
    assert_close(Squeeze()(x), x[:, 0])
    assert_close(Squeeze(1)(x), x[:, 0])
    assert Squeeze(0)(x).shape == (2, 1, 3)
    assert_close(Reshape((3, 2))(x), x.flatten().view(3, 2))
    assert_close(Transpose(0, 2)(x), x.permute(2, 1, 0))


def test_sequential_swallows_the_training_keyword():
    model, x = Sequential(Linear(4, 3), Squeeze(0)), torch.randn(1, 4)
    assert_close(model(x, training=True), model[0](x)[0])


def test_mlp_is_two_layers_with_a_relu(double):
    model, x = MLP(4, 6, 3), torch.randn(5, 4)
    hidden = (x @ model.fc.weight.T + model.fc.bias).clamp_min(0)
    output = hidden @ model.fc2.weight.T + model.fc2.bias
    assert_close(model(x), output)
    model.output_each_layer = True
    zero, first, second, last = model(x)
    assert zero == 0
    assert_close((first, second, last), (x, hidden, torch.where(output > 0, output, output / 5)))


def test_mlp_with_dropout_returns_its_output_and_drops_both_layers():
    model, x = MLP(4, 6, 3, dropout=True, dropoutp=0.5), torch.randn(5, 4)
    torch.manual_seed(1)
    output = model(x)
    torch.manual_seed(1)
    hidden = nn.functional.dropout(model.fc(x).relu(), 0.5)
    assert_close(output, nn.functional.dropout(model.fc2(hidden), 0.5))
    assert output.shape == (5, 3)


@pytest.mark.parametrize(
    "kind, sizes", [(MLP, (4, 6, 3)), (GRU, (4, 6)), (GRUWithLinear, (4, 6, 3)), (LSTM, (4, 6, 3))]
)
def test_dropout_is_random_in_training_and_off_in_evaluation(kind, sizes):
    model = kind(*sizes, dropout=True, dropoutp=0.5)
    x = torch.randn((5, 4) if kind is MLP else (5, 7, 4))
    assert not torch.equal(model.train()(x), model(x))
    torch.testing.assert_close(model.eval()(x), model(x), rtol=0, atol=0)


def test_gru_follows_its_recurrence(double):
    model, x = GRU(4, 6), torch.randn(3, 7, 4)
    expected = torch.stack([gru_states(model.gru, sample) for sample in x])
    assert_close(model(x), expected)
    model.flatten = True
    assert_close(model(x), expected.reshape(3, 42))
    model.last_only = True
    assert_close(model(x), expected[:, -1])


@pytest.mark.parametrize("batch_first", [True, False])
def test_gru_with_linear_maps_every_state(double, batch_first):
    model, x = GRUWithLinear(4, 6, 3, batch_first=batch_first), torch.randn(5, 7, 4)
    by_sample = x if batch_first else x.transpose(0, 1)
    states = torch.stack([gru_states(model.gru, s) for s in by_sample], dim=0 if batch_first else 1)
    expected = states @ model.linear.weight.T + model.linear.bias
    assert_close(model(x), expected)
    model.output_each_layer = model.flatten = True
    zero, first, second, last = model(x)
    assert zero == 0
    assert_close((first, second), (x.reshape(5, 28), states.reshape(5, 42)))
    assert_close(last, torch.where(expected > 0, expected, expected / 5).reshape(5, 21))


def test_lstm_returns_its_last_state(double):
    model, x = LSTM(4, 6), torch.randn(3, 7, 4)
    assert_close(model(x), torch.stack([lstm_state(model.lstm, sample) for sample in x]))


def test_lstm_takes_scalars_a_step_and_ends_in_a_linear_layer(double):
    model, x = LSTM(1, 6, linear_layer_outdim=3), torch.randn(5, 7)
    states = torch.stack([lstm_state(model.lstm, sample[:, None]) for sample in x])
    assert_close(model(x), states @ model.linear.weight.T + model.linear.bias)


@padded
def test_padding_leaves_no_trace(kind, sizes):
    model = kind(*sizes, has_padding=True)
    x = torch.randn(3, 7, 4)
    changed = x.clone()
    for sample, length in zip(changed, LENGTHS, strict=True):
        sample[length:] = 100.0
    assert_close(model([changed, LENGTHS]), model([x, LENGTHS]))
    for sample, length, row in zip(x, LENGTHS, model([x, LENGTHS]), strict=True):
        assert_close(model([sample[None, :length], length[None]])[0], row)


def test_padded_gru_ends_with_each_sample_in_either_layout(double):
    model, x = GRU(4, 6, has_padding=True, batch_first=False), torch.randn(3, 7, 4)
    ends = [gru_states(model.gru, s[:n])[-1] for s, n in zip(x, LENGTHS, strict=True)]
    assert_close(model([x.transpose(0, 1), LENGTHS]), torch.stack(ends))


def test_padded_gru_with_linear_can_return_every_layer():
    model, x = (
        GRUWithLinear(4, 6, 3, has_padding=True, output_each_layer=True),
        torch.randn(3, 7, 4),
    )
    _, first, second, last = model([x, LENGTHS])
    assert_close(first, x.reshape(3, 28))
    assert_close(last, nn.functional.leaky_relu(model.linear(second), 0.2))


@padded
def test_a_padded_encoder_refuses_a_bare_tensor(kind, sizes):
    model = kind(*sizes, has_padding=True)
    with pytest.raises(TypeError, match=r"takes \[padded, lengths\], got shape \(3, 7, 4\)"):
        model(torch.randn(3, 7, 4))
    with pytest.raises(TypeError, match="got list"):
        model([torch.randn(3, 7, 4)])


def test_maxout_takes_the_largest_of_k_maps(double):
    model, x = Maxout(4, 3, 5), torch.randn(2, 7, 4)
    rows = model.lin.weight.reshape(3, 5, 4), model.lin.bias.reshape(3, 5)
    expected = torch.stack([(x @ w.T + b).amax(-1) for w, b in zip(*rows, strict=True)], dim=-1)
    assert_close(model(x), expected)


@pytest.mark.parametrize("linear_layer", [True, False])
def test_maxout_mlp_normalises_and_maxes_twice(double, linear_layer):
    model = MaxOut_MLP(3, 6, 4, 5, linear_layer)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    for _ in range(3):
        model(2 + 3 * torch.randn(16, 4))  # moves the running statistics
    x = torch.randn(7, 4)

    def normalise(y, norm):
        scaled = (y - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        return scaled * norm.weight + norm.bias

    hidden = normalise(model.op1(normalise(x, model.op0)), model.op2[0])
    hidden = normalise(model.op3(hidden), model.op4[0])
    assert model.op0.eps == 1e-4
    assert_close(model.eval()(x), model.hid2val(hidden) if linear_layer else hidden)


def test_maxout_mlp_takes_the_running_statistics_of_a_single_sample(double):
    model = MaxOut_MLP(3, 6, 4)
    for norm in (model.op0, model.op2[0], model.op4[0]):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    for layer in (model.op2, model.op4):
        layer[1].p = 0.0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(1, 4, requires_grad=True)
    out = model(x)
    assert_close(out, model.eval()(x))
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)  # nothing is counted
    assert torch.autograd.gradcheck(model.train(), x)
    (out.sum() + model(torch.randn(5, 4)).sum()).backward()  # the second moves the statistics
    assert x.grad.any()


def test_maxout_mlp_drops_three_tenths_of_each_hidden_layer_in_training():
    model = MaxOut_MLP(3, 400, 4, 500, linear_layer=False)
    for layer in (model.op2, model.op4):
        width = layer[0].num_features
        assert (layer(torch.randn(64, width)) == 0).float().mean().item() == pytest.approx(
            0.3, abs=0.02
        )
        assert (layer.eval()(torch.randn(64, width)) != 0).all()


@pytest.mark.parametrize(
    "arguments, count",
    [((512, 512, 300, None, False), 836_184), ((512, 1024, 4096, 512, False), 9_451_520)],
)
def test_the_film_encoders_have_multibenchs_parameters(arguments, count):
    model = MaxOut_MLP(*arguments)
    assert sum(p.numel() for p in model.parameters()) == count
    assert model(torch.randn(2, arguments[2])).shape == (2, 512)


def test_global_pooling_averages_all_positions():
    x = torch.randn(2, 3, 4, 5)
    assert_close(GlobalPooling2D()(x), torch.einsum("bchw->bc", x) / 20)
    assert_close(GlobalPooling2D()(x[..., 0, 0]), x[..., 0, 0])


def test_constant_is_zeros_without_a_batch():
    for x, dtype in [(torch.ones(5, 2).double(), torch.float64), (torch.ones(5, 2).long(), None)]:
        assert_close(Constant(3)(x), torch.zeros(3, dtype=dtype))


def test_identity_returns_the_very_object():
    x = [torch.ones(2), torch.ones(2)]
    assert Identity()(x) is x


@pytest.mark.parametrize(
    "kind, sizes, parts",
    [
        (MLP, (4, 6, 3), [(nn.Linear, 4, 6), (nn.Linear, 6, 3)]),
        (GRU, (4, 6), [(nn.GRU, 4, 6)]),
        (GRUWithLinear, (4, 6, 3), [(nn.GRU, 4, 6), (nn.Linear, 6, 3)]),
        (LSTM, (4, 6, 3), [(nn.LSTM, 4, 6), (nn.Linear, 6, 3)]),
    ],
)
def test_parameters_are_drawn_in_multibenchs_order(kind, sizes, parts):
    torch.manual_seed(1)
    ours = list(kind(*sizes).parameters())
    torch.manual_seed(1)
    expected = [p for part, *widths in parts for p in part(*widths).parameters()]
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "kind, sizes, names",
    [
        (Linear, (4, 3), "fc"),
        (MLP, (4, 6, 3), "fc fc2"),
        (GRU, (4, 6), "gru"),
        (GRUWithLinear, (4, 6, 3), "gru linear"),
        (LSTM, (4, 6, 3), "lstm linear"),
        (Maxout, (4, 3, 2), "lin"),
        (MaxOut_MLP, (3, 6, 4), "op0 op1 op2 op3 op4 hid2val"),
    ],
)
def test_files_cross_to_and_from_multibench(kind, sizes, names):
    model = kind(*sizes)
    assert {key.split(".")[0] for key in model.state_dict()} == set(names.split())
    assert kind.__module__ == "deq_fusion.unimodals.common_models"
    assert pickle.loads(pickle.dumps(kind)) is kind  # whole-model files name classes this way
