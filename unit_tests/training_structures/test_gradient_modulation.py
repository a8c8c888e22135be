"""OGM-GE: which parameters are an encoder's, the scores by counting, the gradients by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.training_structures.gradient_modulation import (
    apart,
    coefficients,
    modulate,
    parameters_behind,
    probability_of_truth,
)


def test_parameters_behind_a_feature_are_those_that_it_was_computed_from():
    first, second, after = nn.Linear(3, 4), nn.GRU(4, 5), nn.Linear(5, 2)
    second.weight_hh_l0.requires_grad_(False)
    feature, _ = second(first(torch.randn(6, 3)).tanh())
    after(feature)
    expected = {*first.parameters()} | {p for p in second.parameters() if p.requires_grad}
    found = parameters_behind(feature)
    assert len(found) == len(expected) == 5 and set(found) == expected


def test_what_was_not_learnt_has_none_behind_it():
    assert parameters_behind(torch.randn(2)) == []
    assert parameters_behind(torch.randn(2, requires_grad=True) * 2) == []
    assert parameters_behind(nn.Linear(2, 2)(torch.randn(1, 2)).detach()) == []


def test_parameters_of_several_are_nobodys():
    a, b, c = (nn.Parameter(torch.randn(2)) for _ in range(3))
    found = apart([[a, b], [b, c], []])
    assert [[id(p) for p in group] for group in found] == [[id(a)], [id(c)], []]


def test_scores_by_counting():
    logits, truth = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    total = 0.0
    for row, label in zip(logits.numpy(), truth.tolist(), strict=True):
        total += math.exp(row[label]) / sum(math.exp(x) for x in row)
    for shape in (truth, truth[:, None]):
        assert float(probability_of_truth(logits, shape)) == pytest.approx(total / 5)
    marks, total = torch.tensor([[1, 0, 1]] * 2 + [[0, 0, 1]] * 3), 0.0
    for row, marked in zip(logits.numpy(), marks.tolist(), strict=True):
        for x, mark in zip(row, marked, strict=True):
            p = 1 / (1 + math.exp(-x))
            total += p if mark else 1 - p
    assert float(probability_of_truth(logits, marks, labels=True)) == pytest.approx(total / 15)
    assert probability_of_truth(logits[:0], truth[:0]).isnan()


@pytest.mark.parametrize("scores", [[0.8, 0.4], [0.2, 0.3], [0.5, 0.5], [0.9, 0.2, 0.4]])
def test_only_who_leads_is_reduced(scores):
    expected = []
    for m, score in enumerate(scores):
        others = scores[:m] + scores[m + 1 :]
        ratio = score / (sum(others) / len(others))
        expected.append(1 - math.tanh(0.3 * ratio) if ratio > 1 else 1.0)
    found = coefficients(torch.tensor(scores, dtype=torch.float64), 0.3)
    np.testing.assert_allclose(found, expected)
    assert any(k < 1 for k in expected) == (len(set(scores)) > 1)


def test_a_score_that_is_not_there_counts_for_nobody():
    found = coefficients(torch.tensor([0.8, math.nan, 0.4]), 0.3)
    torch.testing.assert_close(found, torch.tensor([1 - math.tanh(0.6), 1.0, 1.0]))


def gradients(change):
    """Gradients of two layers, whose weights `change` gets before the backward."""
    torch.manual_seed(0)
    layers = [nn.Linear(3, 4).double(), nn.Linear(4, 1).double()]
    loss = F.softplus(layers[1](layers[0](torch.randn(6, 3).double()).tanh())).sum()
    handles = change([list(layer.parameters()) for layer in layers])
    loss.backward()
    kept = [p.grad.clone() for layer in layers for p in layer.parameters()]
    for handle in handles:
        handle.remove()
    return kept


def test_gradients_are_multiplied_and_noised():
    plain = gradients(lambda groups: [])
    factors = torch.tensor([0.25, 1.0], dtype=torch.float64)
    found = gradients(lambda groups: modulate(groups, factors, noise=False))
    expected = [plain[0] / 4, plain[1] / 4, *plain[2:]]
    torch.testing.assert_close(found, expected)
    drawn = [gradients(noised(factors, seed)) for seed in range(400)]
    for i, (gradient, mean) in enumerate(zip(plain, expected, strict=True)):
        noise = torch.stack([each[i] - mean for each in drawn]).numpy()
        spread = np.std(gradient.numpy())
        assert np.std(noise) == pytest.approx(spread, rel=0.1)
        assert abs(np.mean(noise)) <= 0.2 * spread
    assert torch.equal(drawn[0][3], plain[3])  # a bias of one number


def noised(factors, seed):
    def change(groups):
        torch.manual_seed(seed)
        return modulate(groups, factors)

    return change
