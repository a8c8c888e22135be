"""Scores of sentiment against loops written from their definitions."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.utils.AUPRC import AUPRC, ptsort
from deq_fusion.utils.evaluation_metric import (
    eval_mosei_senti,
    eval_mosei_senti_return,
    eval_mosi,
    multiclass_acc,
    weighted_accuracy,
)
from deq_fusion.utils.helper_modules import Sequential2


def data():
    draw = np.random.default_rng(0)
    truth = np.round(draw.uniform(-3.4, 3.4, 60), 1)
    truth[::7] = 0
    return truth + draw.normal(0.8, 1.5, 60), truth  # more positive than the truth


def weighted_f1(predicted, true):
    """F1 of each class, weighted by how often it is the truth."""
    total = 0.0
    for kind in (False, True):
        hits = sum(p == t == kind for p, t in zip(predicted, true, strict=True))
        precision = hits / max(1, sum(p == kind for p in predicted))
        recall = hits / sum(t == kind for t in true)
        total += 2 * precision * recall / (precision + recall) * sum(t == kind for t in true)
    return total / len(true)


@pytest.mark.parametrize("exclude_zero", [False, True])
def test_sentiment_is_scored_by_the_definitions(exclude_zero):
    predicted, true = data()
    mae, corr, seven, f1, accuracy = eval_mosei_senti_return(
        torch.tensor(predicted)[:, None], torch.tensor(true), exclude_zero
    )
    pairs = list(zip(predicted, true, strict=True))
    assert mae == pytest.approx(sum(abs(p - t) for p, t in pairs) / 60)
    centred = predicted - predicted.mean(), true - true.mean()
    norm = math.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    assert corr == pytest.approx((centred[0] * centred[1]).sum() / norm)

    def rounded(x):
        return round(max(-3, min(3, x)))

    assert seven == pytest.approx(sum(rounded(p) == rounded(t) for p, t in pairs) / 60)
    kept = [(p > 0, t > 0) for p, t in pairs if t != 0 or not exclude_zero]
    assert accuracy == pytest.approx(sum(p == t for p, t in kept) / len(kept))
    columns = list(zip(*kept, strict=True))
    assert f1 == pytest.approx(weighted_f1(*columns))
    assert abs(f1 - weighted_f1(*columns[::-1])) > 0.01  # prediction and truth differ here


def test_what_is_printed(capsys):
    predicted, true = map(torch.tensor, data())
    values = eval_mosei_senti_return(predicted, true)
    eval_mosei_senti(predicted, true)
    said = capsys.readouterr().out
    eval_mosi(predicted, true)
    assert capsys.readouterr().out == said
    names = ("MAE", "Correlation Coefficient", "mult_acc_7", "mult_acc_5", "F1 score", "Accuracy")
    pattern = "".join(f"{name}:  (.+)\n" for name in names) + "-" * 50 + "\n"
    told = [float(x) for x in re.fullmatch(pattern, said).groups()]
    five = multiclass_acc(*(np.clip(x.numpy(), -2, 2) for x in (predicted, true)))
    assert told == [*values[:3], five, *values[3:]]


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="as many entries, got 3 and 2"):
        eval_mosei_senti(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="a truth that is not 0"):
        eval_mosei_senti(torch.ones(3), torch.zeros(3), exclude_zero=True)
    with pytest.raises(ValueError, match="got 2 positive of 2"):
        weighted_accuracy([1, 0], [1, 1])


def test_the_weighted_accuracy_is_the_mean_recall():
    predicted, true = data()
    hits = [np.mean((predicted > 0)[(true > 0) == kind] == kind) for kind in (False, True)]
    assert weighted_accuracy(predicted, true) == pytest.approx(sum(hits) / 2)


def test_the_area_under_the_precision_recall_curve():
    pairs = [(0.9, 1), (0.8, 0), (0.7, 1), (0.3, 0), (torch.tensor(0.2), 1), (0.1, 0)]
    ranked = [label for _, label in sorted(pairs, key=ptsort, reverse=True)]
    precisions = [sum(ranked[: i + 1]) / (i + 1) for i in range(6) if ranked[i]]
    assert AUPRC(pairs) == pytest.approx(sum(precisions) / 3)
    assert ptsort([4, 1]) == 4


def test_sequential2_is_one_module_after_the_other():
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    model, x = Sequential2(first, second), torch.randn(5, 3)
    torch.testing.assert_close(model(x), second(first(x)))
    assert {name.split(".")[0] for name in model.state_dict()} == {"model"}
