"""MCTN against its formulas, sample by sample; what it reads, and when."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deq_fusion.unimodals.mctn import MCTN
from unit_tests.unimodals.generative_reference import (
    array,
    cell,
    linear,
    lstm,
    mean_square,
    numbers,
    padded,
    softmax,
    weights_of,
)

param = pytest.mark.parametrize
LENGTHS = (3, 1, 5)
ABSENT = [(0, 1)]  # the first sample's second modality


def encode(encoder, xs):
    back = lstm(weights_of(encoder.lstm, "_l0_reverse"), xs[::-1])[::-1]
    return lstm(weights_of(encoder.lstm, "_l0"), xs) + back


def decode(decoder, states):
    h = c = np.zeros(states.shape[1])
    made = []
    for _ in states:
        energies = [
            linear(decoder.score, np.tanh(linear(decoder.keys, e) + linear(decoder.query, h)))[0]
            for e in states
        ]
        context = sum(a * e for a, e in zip(softmax(np.array(energies)), states, strict=True))
        h, c = cell(weights_of(decoder.cell), context, h, c)
        made.append(linear(decoder.output, h))
    return np.array(made)


def predict(predictor, states):
    hidden = lstm(weights_of(predictor.lstm, "_l0"), states)
    energies = np.array([np.tanh(linear(predictor.attention, h))[0] for h in hidden])
    pooled = sum(a * h for a, h in zip(softmax(energies), hidden, strict=True))
    return linear(predictor.output, pooled)


def widened(xs, width):
    return np.hstack([xs, np.zeros((len(xs), width - xs.shape[1]))])


def expected(model, values, masks):
    """Predictions and the loss beside them, of numpy."""
    data, there = numbers(values, masks), [mask.any(1).tolist() for mask in masks]
    source, *targets = model.order
    errors, back, predictions = [[] for _ in targets], [], []
    for b in range(len(values[0])):
        state = widened(data[source][b], model.width)
        for k, target in enumerate(targets):
            state = encode(model.encoders[k], state)
            made = decode(model.decoders[k], state)[:, : model.input_dims[target]]
            if there[target][b]:
                errors[k].append((made, data[target][b]))
            if k == 0 and there[source][b]:
                again = encode(model.encoders[0], widened(made, model.width))
                made = decode(model.decoders[0], again)[:, : model.input_dims[source]]
                back.append((made, data[source][b]))
        predictions.append(predict(model.predictor, state))
    loss = model.translation * sum(map(mean_square, errors)) + model.cycle * mean_square(back)
    return np.array(predictions), loss + model.decay * (
        array(model.predictor.output.weight) ** 2
    ).sum()


@param(
    "dims, order", [((4, 3), None), ((3, 4), (0, 1)), ((2, 4, 3), (1, 2, 0)), ((4, 3, 2, 3), None)]
)
def test_the_formulas(double, dims, order):
    model = MCTN(dims, 2, dim=3, order=order, translation=0.3, cycle=0.7, decay=0.05)
    values, masks = padded(dims, LENGTHS, absent=ABSENT)
    prediction = model([values, masks])
    wanted, loss = expected(model, values, masks)
    assert (wanted.std(0) > 1e-3).all()
    torch.testing.assert_close(prediction, torch.from_numpy(wanted))
    torch.testing.assert_close(model.auxiliary_loss, torch.tensor(loss))


def test_vectors(double):
    model = MCTN((4, 3), 1, dim=3)
    x = [torch.randn(5, d) for d in (4, 3)]
    prediction = model(x)
    wanted, loss = expected(model, [v[:, None] for v in x], [torch.ones(5, 1, dtype=bool)] * 2)
    torch.testing.assert_close(prediction, torch.from_numpy(wanted))
    torch.testing.assert_close(model.auxiliary_loss, torch.tensor(loss))


def test_gradients(double):
    model = MCTN((2, 1, 1), 1, dim=2, order=(1, 0, 2))
    values, masks = padded((2, 1, 1), (2, 1), absent=[(0, 2)])
    names = [name for name, _ in model.named_parameters()]

    def both(x, y, z, *parameters):
        given = dict(zip(names, parameters, strict=True))
        prediction = torch.func.functional_call(model, given, ([[x, y, z], masks],))
        return prediction, model._own_loss

    inputs = [x.requires_grad_() for x in values]
    parameters = [p.detach().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(both, (*inputs, *parameters), fast_mode=True)


@param("training", [True, False])
def test_only_the_source_is_read_to_predict(training):
    model = MCTN((4, 3, 2), 1, dim=3, order=(0, 2, 1)).train(training)
    values, masks = padded((4, 3, 2), LENGTHS)
    other = [values[0], *(torch.randn_like(x) for x in values[1:])]
    assert torch.equal(model([values, masks]), model([other, masks]))
    if not training:
        assert model.auxiliary_loss == 0
        moved = [values[0] + 1, *values[1:]]
        assert not torch.allclose(model([values, masks]), model([moved, masks]))


def test_to_predict_without_others_is_to_predict_with_them():
    """Where a sample has no source its steps are not told by the others' either."""
    model = MCTN((4, 3, 2), 2, dim=3).eval()
    values, masks = padded((4, 3, 2), LENGTHS, absent=[(2, 0)])
    nothing = [masks[0], *map(torch.zeros_like, masks[1:])]
    hidden = [values[0], *map(torch.zeros_like, values[1:])]
    assert torch.equal(model([values, masks]), model([hidden, nothing]))


@param("target", [1, 2])
def test_every_modality_teaches(target):
    model = MCTN((4, 3, 2), 1, dim=3)
    values, masks = padded((4, 3, 2), LENGTHS)
    gradients = []
    for shift in (0, 1):
        changed = [x + shift * (m == target) for m, x in enumerate(values)]
        model.zero_grad()
        (model([changed, masks]).square().mean() + model.auxiliary_loss).backward()
        gradients.append([p.grad.clone() for p in model.encoders[0].parameters()])
    assert any(not torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


def test_padding_and_batch_mates_change_nothing():
    dims = (4, 3, 2)
    model = MCTN(dims, 1, dim=3)
    values, masks = padded(dims, LENGTHS, absent=ABSENT)
    there = zip(values, masks, strict=True)
    other = [torch.where(m[..., None], x, torch.randn_like(x) * 1e3) for x, m in there]
    first = model([values, masks])
    loss = model.auxiliary_loss
    torch.testing.assert_close(model([other, masks]), first)
    torch.testing.assert_close(model.auxiliary_loss, loss)
    longer = [[F.pad(x, (0, 0, 0, 4)) for x in values], [F.pad(m, (0, 4)) for m in masks]]
    torch.testing.assert_close(model(longer), first)
    torch.testing.assert_close(model.auxiliary_loss, loss)
    alone = [[x[1:2, :1] for x in values], [m[1:2, :1] for m in masks]]
    torch.testing.assert_close(model(alone), first[1:2])


@param("dtype", [torch.bfloat16, torch.float16])
@param("lengths", [LENGTHS, (4, 4, 4)])
def test_it_trains_in_half_precision_where_autocast_says_so(dtype, lengths):
    model, inputs, results = MCTN((4, 3, 2), 1, dim=3), padded((4, 3, 2), lengths), []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            results.append((model(inputs).float(), model.auxiliary_loss.float()))
    torch.testing.assert_close(results[1], results[0], rtol=0.05, atol=0.03)
    sum(x.square().mean() for x in results[1]).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_sample_with_nothing_at_all_is_finite():
    model = MCTN((4, 3), 1, dim=3)
    values, masks = padded((4, 3), LENGTHS, absent=[(1, 0), (1, 1)])
    (model([values, masks]).square().mean() + model.auxiliary_loss).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_it_learns_a_small_batch_to_the_end():
    model = MCTN((5, 4, 3), 1, dim=12, decay=0.0)
    values, masks = padded((5, 4, 3), (2, 2, 1, 2))
    truth = torch.randn(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    own = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.l1_loss(model([values, masks]), truth)
        own.append(model.auxiliary_loss.item())
        (loss + model.auxiliary_loss).backward()
        optimizer.step()
    assert loss < 0.1 and own[-1] < 0.7 * own[0]


def test_the_number_of_parameters():
    """Sizes of the release on CMU-MOSI: text 300, vision 47, audio 34 wide, states of 32."""
    h, d = 32, 300
    model = MCTN((300, 47, 34), 1)
    encoders = 2 * 4 * h * (d + h + 2) + 2 * 4 * h * (h + h + 2)
    decoders = 2 * (2 * h * h + h + h + 4 * h * (h + h + 2)) + (h + 1) * (300 + 34)
    predictor = 4 * h * (h + h + 2) + h + 1 + h + 1
    assert sum(p.numel() for p in model.parameters()) == encoders + decoders + predictor


def test_save_load_and_copy(tmp_path):
    model, other = (MCTN((4, 3), 2, dim=3) for _ in range(2))
    x = [torch.randn(5, d) for d in (4, 3)]
    before = model(x)
    torch.save(model.state_dict(), tmp_path / "weights")
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    assert torch.equal(other(x), before) and torch.equal(copy.deepcopy(model)(x), before)
    assert torch.equal(model.auxiliary_loss, other.auxiliary_loss)


@param(
    "change, message",
    [
        ({"input_dims": (4,)}, "two modalities or more"),
        ({"input_dims": (4, 0)}, "at least 1"),
        ({"order": (0, 0)}, "order must name each of the 2"),
        ({"order": (1,)}, "order must name each of the 2"),
        ({"dim": 0}, "dim must be at least 1"),
        ({"cycle": -1.0}, "cycle must be at least 0"),
        ({"translation": float("nan")}, "translation must be at least 0"),
    ],
)
def test_arguments_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        MCTN(**{"input_dims": (4, 3), "outputs": 1} | change)
