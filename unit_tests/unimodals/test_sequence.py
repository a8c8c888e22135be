"""TwoLayersLSTM, DAN and Transformer: computed again step by step, with and without padding."""

import copy
import pickle
from math import sqrt

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from deq_fusion.unimodals.common_models import DAN, Transformer, TwoLayersLSTM

LENGTHS = torch.tensor([2, 7, 4])


def lstm_states(lstm, x, reverse=False):
    """Every state of one sample (time, width) in one direction, step by step."""
    end = "_reverse" if reverse else ""
    weights = [getattr(lstm, f"{n}_l0{end}") for n in ("weight_ih", "weight_hh")]
    biases = [getattr(lstm, f"{n}_l0{end}") for n in ("bias_ih", "bias_hh")]
    state = cell = x.new_zeros(lstm.hidden_size)
    states = []
    for step in x.flip(0) if reverse else x:
        gates = weights[0] @ step + weights[1] @ state + sum(biases)
        i, f, g, o = gates.chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        states.append(state)
    states = torch.stack(states)
    return states.flip(0) if reverse else states


def both(lstm, x):
    parts = [lstm_states(lstm, x)]
    if lstm.bidirectional:
        parts.append(lstm_states(lstm, x, reverse=True))
    return torch.cat(parts, dim=1)


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


directions = pytest.mark.parametrize("bidirectional", [True, False])


@directions
def test_two_layers_lstm_returns_every_state_of_the_second(double, bidirectional):
    model = TwoLayersLSTM(4, 6, isBidirectional=bidirectional)
    x = torch.randn(3, 7, 4)
    expected = torch.stack([both(model.lstm_1, both(model.lstm_0, sample)) for sample in x])
    assert_close(model(x), expected)
    model.flatten = True
    assert_close(model(x), expected.reshape(3, -1))


@directions
@pytest.mark.parametrize("normalised", [True, False])
def test_padded_two_layers_lstm_ends_with_each_sample(double, bidirectional, normalised):
    model = TwoLayersLSTM(4, 6, has_padding=True, LayNorm=normalised, isBidirectional=bidirectional)
    nn.init.normal_(model.layer_norm.weight)
    nn.init.normal_(model.layer_norm.bias)
    x = torch.randn(3, 7, 4)
    expected = []
    for sample, length in zip(x, LENGTHS, strict=True):
        states = both(model.lstm_0, sample[:length])
        states = layer_norm(states, model.layer_norm) if normalised else states
        states = both(model.lstm_1, states)
        expected.append(torch.cat([states[-1, :6], states[0, 6:]]))  # forwards, backwards
    assert_close(model([x, LENGTHS]), torch.stack(expected))


def test_dan_sums_embedded_steps_and_maps_them(double):
    model, x = DAN(4, 6, nlayers=2), torch.randn(3, 7, 4)
    first, second = model.mlp
    expected = torch.einsum("btd,hd->bh", x, model.embedding.weight) + 7 * model.embedding.bias
    expected = expected @ first.weight.T + first.bias
    assert_close(model(x), expected @ second.weight.T + second.bias)


def test_padded_dan_counts_only_the_steps_of_a_sample(double):
    model, x = DAN(4, 6, has_padding=True), torch.randn(3, 7, 4)
    bare = DAN(4, 6)
    bare.load_state_dict(model.state_dict())
    rows = zip(x, LENGTHS, strict=True)
    expected = torch.cat([bare(sample[None, :length]) for sample, length in rows])
    assert_close(model([x, LENGTHS]), expected)
    assert_close(model([x, LENGTHS.tolist()]), expected)
    for sample, length in zip(x, LENGTHS, strict=True):
        sample[length:] = torch.nan
    assert_close(model([x, LENGTHS]), expected)


def attention(layer, x):
    """Self-attention of one sample, (time, dim), by head (Vaswani et al., 2017, section 3.2)."""
    dim = x.shape[1]
    queries, keys, values = (x @ layer.in_proj_weight.T + layer.in_proj_bias).split(dim, dim=1)
    heads = []
    for head in range(5):
        part = slice(head * dim // 5, (head + 1) * dim // 5)
        q, k, v = queries[:, part], keys[:, part], values[:, part]
        weights = torch.exp(torch.einsum("sd,td->st", q, k) / sqrt(dim / 5))
        heads.append(weights / weights.sum(1, keepdim=True) @ v)
    return torch.cat(heads, 1) @ layer.out_proj.weight.T + layer.out_proj.bias


def encoder_layer(layer, x):
    x = layer_norm(x + attention(layer.self_attn, x), layer.norm1)
    hidden = (x @ layer.linear1.weight.T + layer.linear1.bias).clamp_min(0)
    return layer_norm(x + hidden @ layer.linear2.weight.T + layer.linear2.bias, layer.norm2)


def stirred_transformer():
    """One whose five layers differ, unlike at the start, in evaluation mode."""
    model = Transformer(4, 10).eval()
    for parameter in model.transformer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def test_transformer_returns_the_last_step_of_five_layers(double):
    model, x = stirred_transformer(), torch.randn(3, 7, 4)
    assert len(model.transformer.layers) == 5
    expected = []
    for sample in x:
        states = sample @ model.conv.weight[:, :, 0].T
        for layer in model.transformer.layers:
            states = encoder_layer(layer, states)
        expected.append(states[-1])
    assert_close(model(x), torch.stack(expected))
    assert_close(model([x, LENGTHS]), torch.stack(expected))


def test_transformer_knows_no_positions_but_the_last(double):
    model, x = stirred_transformer(), torch.randn(3, 7, 4)
    order = [3, 0, 5, 2, 1, 4]
    assert_close(model(x[:, [*order, 6]]), model(x))
    assert not torch.allclose(model(x[:, [6, *order]]), model(x))
    assert_close(model(x)[1:2], model(x[1:2]))  # no sample sees another


def test_parameters_are_drawn_in_multibenchs_order():
    for kind, sizes, parts in [
        (DAN, (4, 6), [(nn.Linear, 4, 6)] + 3 * [(nn.Linear, 6, 6)]),
        (Transformer, (4, 10), [(nn.Conv1d, 4, 10, 1, 1, 0, 1, 1, False)]),
    ]:
        torch.manual_seed(1)
        ours = list(kind(*sizes).parameters())
        torch.manual_seed(1)
        expected = [p for part, *widths in parts for p in part(*widths).parameters()]
        if kind is Transformer:
            expected += 5 * list(nn.TransformerEncoderLayer(10, 5).parameters())
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    torch.manual_seed(1)
    ours = list(TwoLayersLSTM(6, 6).parameters())
    torch.manual_seed(1)
    first, second = (nn.LSTM(n, 6, batch_first=True, bidirectional=True) for n in (6, 12))
    expected = [*first.parameters(), *second.parameters(), torch.ones(12), torch.zeros(12)]
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


MODELS = {
    "lstm": lambda **options: TwoLayersLSTM(4, 6, **options),
    "dan": lambda **options: DAN(4, 6, **options),
    "transformer": lambda **options: Transformer(4, 10),
}
every = pytest.mark.parametrize("name", MODELS)


@every
@pytest.mark.parametrize("padded", [True, False])
def test_gradients(double, name, padded):
    model = MODELS[name](has_padding=padded).eval()
    names, weights = zip(*model.named_parameters(), strict=True)
    x = torch.randn(3, 7, 4, requires_grad=True)

    def run(x, *weights):
        inputs = [x, LENGTHS] if padded else x
        return functional_call(model, dict(zip(names, weights, strict=True)), (inputs,))

    if name == "lstm" and not padded:  # the normalisation takes no part
        weights = [w.detach() if "norm" in n else w for n, w in zip(names, weights, strict=True)]
    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("name", ["lstm", "dan"])
def test_dropout_is_random_in_training_and_off_in_evaluation(name):
    model = MODELS[name](dropout=True, dropoutp=0.5)
    plain, x = MODELS[name](), torch.randn(3, 7, 4)
    plain.load_state_dict(model.state_dict())
    assert not torch.equal(model.train()(x), model(x))
    torch.testing.assert_close(model.eval()(x), plain(x), rtol=0, atol=0)


def test_dan_drops_the_embedded_steps_and_every_layer():
    model, x = DAN(4, 6, dropout=True, dropoutp=0.5, nlayers=2), torch.randn(3, 7, 4)
    torch.manual_seed(1)
    out = model(x)
    torch.manual_seed(1)
    expected = nn.functional.dropout(model.embedding(x), 0.5).sum(1)
    for layer in model.mlp:
        expected = nn.functional.dropout(layer(expected), 0.5)
    assert_close(out, expected)


@every
def test_files_and_copies(name):
    model, x = MODELS[name]().eval(), torch.randn(3, 7, 4)
    with torch.no_grad():
        other = MODELS[name]().eval()
        assert not torch.equal(other(x), model(x))
        other.load_state_dict(model.state_dict())
        for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)
        assert model.double()(x.double()).dtype == torch.float64
    parts = {"lstm": "lstm_0 lstm_1 layer_norm", "dan": "embedding mlp"}
    expected = parts.get(name, "conv transformer").split()
    assert {key.split(".")[0] for key in model.state_dict()} == set(expected)
    assert type(model).__module__ == "deq_fusion.unimodals.common_models"


def test_says_what_is_wrong():
    for kind in (DAN, TwoLayersLSTM):
        with pytest.raises(TypeError, match=r"takes \[padded, lengths\], got shape \(3, 7, 4\)"):
            kind(4, 6, has_padding=True)(torch.randn(3, 7, 4))
    with pytest.raises(ValueError, match=r"lengths must have shape \(3,\).* got \(1,\)"):
        DAN(4, 6, has_padding=True)([torch.randn(3, 7, 4), LENGTHS[:1]])
    with pytest.raises(ValueError, match="dim must be divisible by the 5 heads, got 12"):
        Transformer(4, 12)
