"""MultiBench's MCTN against its formulas in numpy, step by step, and what training tells it."""

import inspect
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deq_fusion.fusions.MCTN import L2_MCTN, MCTN, Attention, Decoder, Encoder, Seq2Seq

STEPS, BATCH, WIDTH, HIDDEN = 4, 3, 5, 2


@pytest.fixture(autouse=True)
def _double(double):
    """All of it in float64."""


def array(x):
    return x.detach().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_step(gru, x, h, suffix="l0"):
    """PyTorch's own documentation of a GRU, one step."""
    gates = ("weight_ih_", x, "bias_ih_"), ("weight_hh_", h, "bias_hh_")
    parts = []
    for weight, value, bias in gates:
        w, b = array(getattr(gru, weight + suffix)), array(getattr(gru, bias + suffix))
        parts.append(np.split(value @ w.T + b, 3, axis=1))
    (ri, zi, ni), (rh, zh, nh) = parts
    r, z = sigmoid(ri + rh), sigmoid(zi + zh)
    return (1 - z) * np.tanh(ni + r * nh) + z * h


def encoded(encoder, x):
    """States, and the last of the forward and of the backward direction."""
    forward, backward = [], []
    h = g = np.zeros((x.shape[1], HIDDEN))
    for t in range(len(x)):
        h = gru_step(encoder.gru, x[t], h)
        g = gru_step(encoder.gru, x[len(x) - 1 - t], g, "l0_reverse")
        forward.append(h)
        backward.insert(0, g)
    return np.array(forward) + np.array(backward), [h, g]


def attended(attention, h, states):
    """(batch, steps): softmax over the steps in each entry, weighted by v, cut at zero."""
    w, b, v = map(array, (attention.attn.weight, attention.attn.bias, attention.v))
    energy = np.array([np.concatenate([h, e], 1) @ w.T + b for e in states])
    shares = np.exp(energy) / np.exp(energy).sum(0)
    return np.maximum((shares * v).sum(2), 0).T


def decoded(decoder, y, h, states):
    a = attended(decoder.attention, h, states)
    context = sum(a[:, t, None] * states[t] for t in range(len(states)))
    h = gru_step(decoder.gru, np.concatenate([y, context], 1), h)
    o = np.concatenate([h, context], 1) @ array(decoder.out.weight).T + array(decoder.out.bias)
    return o - np.log(np.exp(o).sum(1, keepdims=True)), h, a


def translated(seq2seq, source, told=lambda t: None):
    """The translation, with whatever the decoder is told of each step before the next."""
    states, (h, _) = encoded(seq2seq.encoder, source)
    y, found = np.zeros((source.shape[1], seq2seq.decoder.output_size)), []
    for t in range(len(source)):
        y, h, _ = decoded(seq2seq.decoder, y, h, states)
        found.append(y)
        y = y if told(t) is None else told(t)
    return np.array(found), states


def translation(input_size=WIDTH, output_size=WIDTH):
    return Seq2Seq(Encoder(input_size, HIDDEN), Decoder(HIDDEN, output_size))


def sequences(count=1):
    return [torch.randn(STEPS, BATCH, WIDTH) for _ in range(count)]


def two_levels(p=0.2):
    parts = translation(), translation(HIDDEN)
    return L2_MCTN(*parts, nn.GRU(HIDDEN, 3), nn.Linear(3, 1), p)


def predicted(model, joint):
    h = np.zeros((BATCH, 3))
    for state in joint:
        h = gru_step(model.regression, state, h)
    return h @ array(model.head.weight).T + array(model.head.bias)


def test_an_encoder_sums_both_directions():
    encoder, (x,) = Encoder(WIDTH, HIDDEN), sequences()
    states, last = encoder(x)
    expected, ends = encoded(encoder, array(x))
    assert_close(states, torch.from_numpy(expected))
    assert_close(last, torch.from_numpy(np.array(ends)))
    start = torch.randn(2, BATCH, HIDDEN)
    assert_close(encoder(x, start)[0], sum(encoder.gru(x, start)[0].split(HIDDEN, 2)))


def test_attention_and_a_step_of_the_decoder():
    decoder, states = Decoder(HIDDEN, WIDTH), torch.randn(STEPS, BATCH, HIDDEN)
    y, h = torch.randn(BATCH, WIDTH), torch.randn(1, BATCH, HIDDEN)
    decoder.attention.v.data.abs_()  # or all of it may be cut off
    found = decoder(y, h, states)
    output, hidden, attention = decoded(decoder, array(y), array(h[0]), array(states))
    expected = [output, hidden[None], attention[:, None]]
    assert attention.max() > 0
    for ours, by_hand in zip(found, expected, strict=True):
        assert_close(ours, torch.from_numpy(by_hand))
    nn.init.constant_(decoder.attention.v, -1.0)
    assert not decoder.attention(h[0], states).any()


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_a_translation_is_told_the_target_as_pythons_generator_says(ratio):
    model, (x, y) = translation(), sequences(2)
    random.seed(2)
    told = [random.random() < ratio for _ in range(STEPS)]
    assert ratio != 0.5 or len(set(told)) == 2
    random.seed(2)
    found, states = model(x, y, ratio)
    expected = translated(model, array(x), lambda t: array(y[t]) if told[t] else None)
    assert_close([found, states], [torch.from_numpy(part) for part in expected])


def test_one_level_there_and_back_and_the_prediction():
    model = MCTN(translation(), nn.GRU(HIDDEN, 3), nn.Linear(3, 1), p=0.0)
    x, y = sequences(2)
    random.seed(2)
    told = [random.random() < 0.5 for _ in range(2 * STEPS)]
    there, _ = translated(model.seq2seq, array(x), lambda t: array(y[t]) if told[t] else None)
    more = told[STEPS:]
    back, joint = translated(model.seq2seq, there, lambda t: array(x[t]) if more[t] else None)
    random.seed(2)
    expected = [there, back, predicted(model, joint)]
    assert_close([*model(x, y)], [torch.from_numpy(part) for part in expected])
    there, _ = translated(model.seq2seq, array(x))
    found, none, prediction = model.eval()(x)
    assert none is None
    assert_close(found, torch.from_numpy(there))
    joint, _ = encoded(model.seq2seq.encoder, there)
    assert_close(prediction, torch.from_numpy(predicted(model, joint)))


def test_two_levels_in_training():
    model, (x, y, z) = two_levels(p=0.0), sequences(3)
    random.seed(2)
    told = np.array([random.random() < 0.5 for _ in range(3 * STEPS)]).reshape(3, STEPS)
    targets = [array(part) for part in (y, x, z)]
    source, expected = array(x), []
    for level, (part, target, row) in enumerate(
        zip((model.seq2seq0, model.seq2seq0, model.seq2seq1), targets, told, strict=True)
    ):

        def teacher(t, target=target, row=row):
            return target[t] if row[t] else None

        found, joint = translated(part, source, teacher)
        expected.append(found)
        source = joint if level else found
    random.seed(2)
    expected.append(predicted(model, joint))
    assert_close([*model(x, y, z)], [torch.from_numpy(part) for part in expected])


def test_two_levels_predict_from_the_states_that_they_learnt_from():
    """The encoders' states of all steps, where MultiBench takes the last ones of each direction."""
    model, (x,) = two_levels().eval(), sequences()
    there, _ = translated(model.seq2seq0, array(x))
    joint, _ = encoded(model.seq2seq1.encoder, encoded(model.seq2seq0.encoder, there)[0])
    found = model(x)
    assert found[1] is None and found[2] is None
    assert_close(found[0], torch.from_numpy(there))
    assert_close(found[3], torch.from_numpy(predicted(model, joint)))


def test_gradients_reach_all_that_has_an_effect():
    """A bias shifts all steps of a softmax over them alike, as the decoder's state does."""
    model, (x, y, z) = two_levels(), sequences(3)
    for part in model.modules():
        if isinstance(part, Attention):
            part.v.data.abs_()
    targets = y, x, z
    random.seed(2)
    *found, prediction = model(x, y, z)
    errors = [(a - b).square().mean() for a, b in zip(found, targets, strict=True)]
    (sum(errors) + prediction.square().mean()).backward()
    least = {name: p.grad.abs().max().item() for name, p in model.named_parameters()}
    silent = {name for name, gradient in least.items() if gradient < 1e-12}
    assert silent == {f"seq2seq{i}.decoder.attention.attn.bias" for i in range(2)}
    attention = model.seq2seq0.decoder.attention
    assert attention.attn.weight.grad[:, :HIDDEN].abs().max() < 1e-12


def test_dropout_is_on_states_and_prediction_in_training_alone():
    model, (x, y, z) = two_levels(p=0.5), sequences(3)
    predictions = torch.stack([model(x, y, z)[-1] for _ in range(20)])
    assert (predictions == 0).any() and (predictions != 0).any()
    model.eval()
    assert_close(model(x)[-1], model(x)[-1], rtol=0, atol=0)


def test_a_seed_draws_the_weights_in_multibenchs_order():
    torch.manual_seed(5)
    encoder, decoder = Encoder(WIDTH, HIDDEN), Decoder(HIDDEN, WIDTH)
    torch.manual_seed(5)
    gru, attention = nn.GRU(WIDTH, HIDDEN, bidirectional=True), nn.Linear(2 * HIDDEN, HIDDEN)
    torch.rand(HIDDEN)
    v = torch.empty(HIDDEN).uniform_(-1 / HIDDEN**0.5, 1 / HIDDEN**0.5)
    cell, out = nn.GRU(HIDDEN + WIDTH, HIDDEN), nn.Linear(2 * HIDDEN, WIDTH)
    expected = {f"gru.{name}": p for name, p in gru.state_dict().items()}
    assert_close(dict(encoder.state_dict()), expected, rtol=0, atol=0)
    expected = {"attention.v": v}
    for name, part in {"attention.attn": attention, "gru": cell, "out": out}.items():
        expected |= {f"{name}.{key}": p for key, p in part.state_dict().items()}
    assert decoder.state_dict().keys() == expected.keys()
    for name, weight in expected.items():
        assert_close(decoder.state_dict()[name], weight, rtol=0, atol=0)


def test_keeps_multibenchs_names_order_and_defaults():
    expected = {
        Encoder: "input_size hidden_size n_layers=1 dropout=0.2",
        Attention: "hidden_size",
        Decoder: "hidden_size output_size n_layers=1 dropout=0.2",
        Seq2Seq: "encoder decoder",
        MCTN: "seq2seq regression_encoder head p=0.2",
        L2_MCTN: "seq2seq_0 seq2seq_1 regression_encoder head p=0.2",
        Seq2Seq.forward: "self src trg teacher_forcing_ratio=0.5",
        MCTN.forward: "self src trg=None",
        L2_MCTN.forward: "self src trg0=None trg1=None",
    }
    for function, names in expected.items():
        parameters = inspect.signature(function).parameters.values()
        found = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
        assert " ".join(found) == names
    names = ["seq2seq0", "seq2seq1", "dropout", "regression", "head"]
    assert [name for name, _ in two_levels().named_children()] == names


def test_layers_have_dropout_between_them():
    encoder = Encoder(WIDTH, HIDDEN, n_layers=2, dropout=0.5)
    assert encoder.gru.dropout == 0.5
    model = Seq2Seq(encoder, Decoder(HIDDEN, WIDTH, n_layers=2)).eval()
    (x,) = sequences()
    assert model(x, None, 0.0)[0].shape == x.shape


def test_training_needs_targets():
    (x,) = sequences()
    with pytest.raises(ValueError, match="needs its target trg in training, got None"):
        two_levels()(x)
    with pytest.raises(ValueError, match="teacher_forcing_ratio=0"):
        translation().eval()(x, None)
