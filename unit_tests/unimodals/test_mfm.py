"""MFM against its formulas, sample by sample, and its distance to a normal distribution."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.unimodals.mfm import MFM, mmd_to_normal
from unit_tests.unimodals.generative_reference import (
    array,
    cell,
    linear,
    lstm,
    mean_square,
    numbers,
    padded,
    weights_of,
)

param = pytest.mark.parametrize
LENGTHS, WIDTH = (3, 1, 5, 3), 3
ABSENT = [(0, 1)]


class Steps(nn.Module):
    """A fusion to test with: tanh of a linear map of the sum over steps."""

    def __init__(self, dims):
        super().__init__()
        self.map = nn.Linear(sum(dims), WIDTH)

    def forward(self, features):
        return self.map(torch.cat(features, 2).sum(1)).tanh()


def build(dims, outputs=1, **options):
    options = {"code_dims": 3, "factor_dims": 12, "dropout": 0.0} | options
    return MFM(dims, outputs, Steps(dims), WIDTH, **options)


def relu(x):
    return np.maximum(x, 0)


def factor(layers, code):
    (first, _, _, last), _ = layers
    return relu(linear(last, relu(linear(first, code))))


def make(decoder, code, steps):
    weights = weights_of(decoder.cell)
    h = c = np.zeros(len(code))
    made, x = [], code
    for _ in range(steps):
        h, c = cell(weights, x, h, c)
        made.append(linear(decoder.output, h))
        x = h
    return np.array(made)


def discrepancy(codes, draws):
    def mean(a, b):
        pairs = [(x, y) for x in a for y in b]
        return np.mean([np.exp(-np.mean((x - y) ** 2) / len(x)) for x, y in pairs])

    return mean(draws, draws) + mean(codes, codes) - 2 * mean(draws, codes)


def expected(model, values, masks, seed):
    """Predictions and the loss beside them, of numpy; the draws follow from the seed."""
    data, there = numbers(values, masks), [mask.any(1).tolist() for mask in masks]
    batch, pairs, codes, predictions = len(values[0]), [], [], []
    for b in range(batch):
        fused = np.tanh(linear(model.fusion.map, np.hstack([x[b] for x in data]).sum(0)))
        label = linear(model.to_code, fused)
        label_factor = factor(model.factors[0], label)
        first, _, _, last = model.predictor
        predictions.append(linear(last, relu(linear(first, label_factor))))
        codes.append([label])
        pairs.append([])
        for m, encoder in enumerate(model.encoders):
            state = lstm(weights_of(encoder.lstm, "_l0"), data[m][b])[-1]
            codes[b].append(linear(encoder.output, state))
            own = factor(model.factors[m + 1], codes[b][-1])
            made = make(model.decoders[m], np.hstack([label_factor, own]), len(data[m][b]))
            pairs[b].append((made, data[m][b]))
    torch.manual_seed(seed)
    loss = 0
    for one_kind in zip(*codes, strict=True):
        draws = array(torch.randn(batch, len(one_kind[0])))
        loss += model.matching * discrepancy(one_kind, draws)
    for m, weight in enumerate(model.reconstruction):
        loss += weight * mean_square([pairs[b][m] for b in range(batch) if there[m][b]])
    return np.array(predictions), loss


@param("dims", [(4, 3), (2, 4, 3)])
def test_the_formulas(double, dims):
    weights = [0.3, 0.7, 0.2][: len(dims)]
    widths = {
        "code_dims": [3, 2, 4, 5][: len(dims) + 1],
        "factor_dims": [9, 3, 2, 1][: len(dims) + 1],
    }
    model = build(dims, 2, reconstruction=weights, matching=0.6, **widths)
    values, masks = padded(dims, LENGTHS, absent=ABSENT)
    torch.manual_seed(5)
    prediction = model([values, masks])
    wanted, loss = expected(model, values, masks, seed=5)
    assert (wanted.std(0) > 1e-3).all()
    torch.testing.assert_close(prediction, torch.from_numpy(wanted))
    torch.testing.assert_close(model.auxiliary_loss, torch.tensor(loss))


def test_vectors(double):
    model = build((4, 3))
    x = [torch.randn(5, d) for d in (4, 3)]
    torch.manual_seed(5)
    prediction = model(x)
    masks = [torch.ones(5, 1, dtype=bool)] * 2
    wanted, loss = expected(model, [v[:, None] for v in x], masks, seed=5)
    torch.testing.assert_close(prediction, torch.from_numpy(wanted))
    torch.testing.assert_close(model.auxiliary_loss, torch.tensor(loss))


def test_the_distance_to_a_normal_distribution(double):
    code = torch.randn(7, 3) + 2
    torch.manual_seed(1)
    distance = mmd_to_normal(code)
    torch.manual_seed(1)
    draws = torch.randn(7, 3)
    torch.testing.assert_close(distance, torch.tensor(discrepancy(array(code), array(draws))))
    assert mmd_to_normal(torch.randn(400, 3)) < 0.01 < mmd_to_normal(torch.randn(400, 3) * 3)
    assert torch.isfinite(mmd_to_normal(code[:1]))


def test_gradients(double):
    model = build((2, 1), code_dims=2, factor_dims=2)
    values, masks = padded((2, 1), (2, 1, 2), absent=[(0, 1)])
    names = [name for name, _ in model.named_parameters()]

    def both(x, y, *parameters):
        torch.manual_seed(3)
        given = dict(zip(names, parameters, strict=True))
        prediction = torch.func.functional_call(model, given, ([[x, y], masks],))
        return prediction, model._own_loss

    inputs = [x.requires_grad_() for x in values]
    parameters = [p.detach().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(both, (*inputs, *parameters), fast_mode=True)


def test_padding_changes_nothing():
    dims = (4, 3)
    model = build(dims)
    values, masks = padded(dims, LENGTHS, absent=ABSENT)
    there = zip(values, masks, strict=True)
    other = [torch.where(m[..., None], x, torch.randn_like(x) * 1e3) for x, m in there]
    longer = [[F.pad(x, (0, 0, 0, 4)) for x in values], [F.pad(m, (0, 4)) for m in masks]]
    results = []
    for inputs in ([values, masks], [other, masks], longer):
        torch.manual_seed(1)
        results.append((model(inputs), model.auxiliary_loss))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])
    alone = [[x[1:2, :1] for x in values], [m[1:2, :1] for m in masks]]
    torch.testing.assert_close(model.eval()(alone), results[0][0][1:2])


def test_outside_training_nothing_is_made_or_drawn():
    model = build((4, 3))
    x = [torch.randn(5, d) for d in (4, 3)]
    prediction = model(x)
    assert model.auxiliary_loss > 0
    before = torch.get_rng_state()
    assert torch.equal(model.eval()(x), prediction) and model.auxiliary_loss == 0
    with torch.no_grad():
        model.train()(x)
    assert model.auxiliary_loss == 0 and torch.equal(torch.get_rng_state(), before)


@param("modality", [0, 1])
def test_without_a_modality_it_predicts_from_zeros(modality):
    model = build((4, 3)).eval()
    values, masks = padded((4, 3), LENGTHS)
    zeros = [x * (m != modality) for m, x in enumerate(values)]
    before = model([values, masks])
    with model.without(modality):
        assert torch.equal(model([values, masks]), model([zeros, masks]))
    assert torch.equal(model([values, masks]), before)
    assert not torch.allclose(model([zeros, masks]), before)


@param("training", [True, False])
def test_it_is_repeatable_bit_for_bit(training):
    model = build((4, 3), dropout=0.5).train(training)
    inputs, results = padded((4, 3), LENGTHS), []
    for _ in range(2):
        torch.manual_seed(7)
        results.append((model(inputs), model.auxiliary_loss))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@param("dtype", [torch.bfloat16, torch.float16])
@param("lengths", [LENGTHS, (4, 4, 4)])
def test_it_trains_in_half_precision_where_autocast_says_so(dtype, lengths):
    model, inputs, results = build((4, 3, 2)), padded((4, 3, 2), lengths), []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            results.append((model(inputs).float(), model.auxiliary_loss.float()))
    torch.testing.assert_close(results[1], results[0], rtol=0.05, atol=0.03)
    sum(x.square().mean() for x in results[1]).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_sample_with_nothing_at_all_is_finite():
    model = build((4, 3))
    inputs = padded((4, 3), LENGTHS, absent=[(1, 0), (1, 1)])
    (model(inputs).square().mean() + model.auxiliary_loss).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_it_learns_a_small_batch_to_the_end():
    model = build((5, 4), code_dims=8, factor_dims=16, reconstruction=1.0, matching=0.1)
    inputs, truth = padded((5, 4), (2, 2, 1, 2)), torch.randn(4, 1)
    optimizer, own = torch.optim.Adam(model.parameters(), lr=0.02), []
    for _ in range(80):
        optimizer.zero_grad()
        loss = F.l1_loss(model(inputs), truth)
        own.append(model.auxiliary_loss.item())
        (loss + model.auxiliary_loss).backward()
        optimizer.step()
    assert loss < 0.1 and own[-1] < 0.5 * own[0]


def test_the_number_of_parameters():
    """Sizes of the release on CMU-MOSI, but for the fusion."""
    dims, z, f = (300, 5, 20), (32, 32, 8, 80), (16, 88, 8, 8)
    model = MFM(dims, 1, nn.Identity(), 264, code_dims=z, factor_dims=f)
    encoders = sum(4 * c * (d + c + 2) + c * (c + 1) for d, c in zip(dims, z[1:], strict=True))
    factors = sum((c + 1) * g + (g + 1) * g for c, g in zip(z, f, strict=True))
    widths = [f[0] + g for g in f[1:]]
    decoders = sum(4 * w * (2 * w + 2) + (w + 1) * d for w, d in zip(widths, dims, strict=True))
    heads = 265 * z[0] + 17 * 16 + 17
    assert sum(p.numel() for p in model.parameters()) == encoders + factors + decoders + heads


def test_save_load_and_copy(tmp_path):
    model, other = (build((4, 3), 2).eval() for _ in range(2))
    x = [torch.randn(5, d) for d in (4, 3)]
    before = model(x)
    torch.save(model.state_dict(), tmp_path / "weights")
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    model.train()(x)  # leaves a loss with its graph
    assert torch.equal(other(x), before) and torch.equal(copy.deepcopy(model).eval()(x), before)


@param(
    "change, message",
    [
        ({"dims": (4,)}, "two modalities or more"),
        ({"outputs": 0}, "outputs must be at least 1"),
        ({"code_dims": (3, 3)}, "code_dims must be one number, or 3"),
        ({"factor_dims": 0}, "factor_dims must be at least 1"),
        ({"reconstruction": (0.1,)}, "reconstruction must be one number, or 2"),
        ({"reconstruction": -0.1}, "reconstruction must be at least 0"),
        ({"matching": float("inf")}, "matching must be at least 0"),
    ],
)
def test_arguments_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        build(**{"dims": (4, 3)} | change)
