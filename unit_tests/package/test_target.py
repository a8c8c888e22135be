"""What is to be predicted: what is understood, what is refused, and the losses and scores."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, r2_score
from torch.nn import functional as F

from deq_fusion.target import Target

Y = np.array(["b", "a", "c", "a", "b", "a"])


def test_classes_of_any_label():
    for y in (Y, Y.astype(object), pd.Series(Y), pd.Categorical(Y), list(Y), Y[:, None]):
        target = Target.of(y)
        assert target.task == "classification" and target.classes.tolist() == ["a", "b", "c"]
        assert target.outputs == 3 and target.encode(y).tolist() == [1, 0, 2, 0, 1, 0]
        assert target.described == "classification into 3 classes: a (3), b (2), c (1)"
    assert Target.of(np.array([True, False])).encode([False, True]).tolist() == [0, 1]
    assert Target.of([5.0, -1.0]).predict(torch.tensor([[0.0, 1.0]])).tolist() == [5.0]


def test_probabilities_and_predictions_of_classes():
    target, output = Target.of(Y), torch.randn(4, 3)
    shares = target.probabilities(output)
    np.testing.assert_allclose(shares, output.double().softmax(1).numpy())
    assert (target.predict(output) == target.classes[shares.argmax(1)]).all()


def test_numbers_and_several_of_them():
    target = Target.of([0.5, 2.5, -1.25])
    assert target.task == "regression" and target.outputs == 1
    assert target.encode([0.5, 2.5, -1.25]).tolist() == [[0.5], [2.5], [-1.25]]
    assert target.predict(torch.tensor([[1.5]])).tolist() == [1.5]
    many = Target.of(pd.DataFrame({"u": [0.5, 1.5], "v": [1.5, 2.0]}))
    assert many.outputs == 2 and many.names == ("u", "v")
    assert many.predict(torch.ones(1, 2)).shape == (1, 2)
    mean, spread = many.units(torch.tensor([[0.0, 5.0], [2.0, 5.0]]))
    assert mean.tolist() == [1, 5] and spread.tolist() == [1, 1]  # one that does not vary


def test_several_labels():
    y = pd.DataFrame({"drama": [0, 1, 1], "comedy": [1, 0, 0]})
    target = Target.of(y)
    assert target.task == "multilabel" and target.names == ("drama", "comedy")
    output = torch.tensor([[-1.0, 2.0]])
    assert target.predict(output).tolist() == [[0, 1]]
    np.testing.assert_allclose(target.probabilities(output), output.double().sigmoid())
    assert set(target.metrics(torch.randn(3, 2), target.encode(y))) > {"f1_micro", "f1 drama"}


def test_whole_numbers_are_amounts_only_if_said():
    years = np.arange(1900, 1930)
    assert Target.of(years, task="regression").task == "regression"
    assert Target.of(np.repeat(years, 2), task="classification").outputs == 30
    assert Target.of([1, 2, 3] * 4).task == "classification"


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (np.arange(30), None, '30 whole numbers could be either; say task="classification"'),
        (["a", "a"], None, "two classes at least, but has one class alone, 'a'"),
        (np.array(["2020-01-01"] * 2, "M8[D]"), None, "labels or numbers, but holds datetime64"),
        ([0.5, np.nan], None, "y must have a value in every row.*1 of 2 rows, first in row 1"),
        (["a", None], None, "y must have a value in every row"),
        ([0.5, np.inf], None, "y must be finite"),
        ([1e39, 0.5], None, "y must be finite in float32"),
        (np.zeros((2, 2, 2)), None, "a row for each sample.*shape"),
        ([], None, "a row for each sample.*shape"),
        ([[1, 2], [3, 4]], None, "y of several columns must hold 0 and 1"),
        ([0.5, 1.5], "classification", "must suit classification. Unknown label type"),
        (["a", "b"], "regression", "y must hold numbers"),
        (np.array([1, "a"], object), None, "labels of one kind|all text or all numbers"),
        ([1, 2], "clustering", "task must be one of"),
    ],
)
def test_what_is_refused(y, task, message):
    with pytest.raises(ValueError, match=message):
        Target.of(y, task)


def test_what_does_not_suit_what_is_known():
    with pytest.raises(ValueError, match="classes must be those known.* but 'z' is new"):
        Target.of(Y).encode(["z"])
    with pytest.raises(ValueError, match="y must have 1 columns"):
        Target.of([0.5, 1.5]).encode([[0.5, 1.5]])
    with pytest.raises(ValueError, match="a regression has no probabilities"):
        Target.of([0.5, 1.5]).probabilities(torch.zeros(1, 1))


@pytest.mark.parametrize("y", [Y, [0.5, 1.5], [[0, 1], [1, 1], [1, 0]]], ids=str)
def test_a_state_gives_the_same_target(y):
    target = Target.of(y)
    again = Target.of_state(target.state())
    assert again.state() == target.state()
    torch.testing.assert_close(again.encode(y), target.encode(y), rtol=0, atol=0)


def test_losses_are_weighted_by_row():
    output, weight = torch.randn(6, 3), torch.tensor([0.0, 2, 1, 1, 0, 2])
    target = Target.of(Y)
    truth, kept = target.encode(Y), weight.long()
    repeated = F.cross_entropy(output.repeat_interleave(kept, 0), truth.repeat_interleave(kept))
    assert torch.isclose(target.objective(output, truth, weight), repeated)
    assert torch.isclose(target.objective(output, truth), F.cross_entropy(output, truth))
    labels, numbers = Target.of([[0, 1], [1, 1]]), Target.of([0.5, 1.5])
    two = torch.tensor([[0.0, 1], [1, 1]])
    plain = F.binary_cross_entropy_with_logits(output[:2, :2], two)
    assert torch.isclose(labels.objective(output[:2, :2], two), plain)
    squared = (output[:2, :1] - two[:, :1]).square()
    assert torch.isclose(numbers.objective(output[:2, :1], two[:, :1]), squared.mean())


def test_scores_are_scikit_learns():
    target, output = Target.of(Y), torch.randn(6, 3)
    truth = target.encode(Y)
    found = target.metrics(output, truth)
    guess = output.argmax(1).numpy()
    assert math.isclose(found["balanced_accuracy"], balanced_accuracy_score(truth, guess))
    assert math.isclose(found["f1_macro"], f1_score(truth, guess, average="macro"))
    assert found["recall a"] == (guess[truth == 0] == 0).mean()
    assert target.scores[0].name == "balanced_accuracy"
    numbers, y = Target.of([0.5, 1.5, 4.0]), torch.tensor([[0.5], [1.5], [4.0]])
    guess = torch.randn(3, 1)
    assert math.isclose(numbers.metrics(guess, y)["r2"], r2_score(y, guess), rel_tol=1e-6)
    assert numbers.scores[0].name == "r2"


def test_a_class_that_is_not_there_counts_nowhere():
    target = Target.of(Y)
    found = target.metrics(torch.eye(3), torch.tensor([0, 0, 1]))
    assert found["balanced_accuracy"] == 0.25 and math.isnan(found["recall c"])


def test_a_column_of_words_beside_the_target_is_named():
    y = pd.DataFrame({"patient": ["p1", "p2", "p3"], "stage": [0, 1, 1]})
    with pytest.raises(ValueError, match="column 'patient' holds words, such as 'p1'; take the"):
        Target.of(y)
    with pytest.raises(ValueError, match="its column 1 holds words"):
        Target.of(y[["stage", "patient"]].to_numpy())
    assert Target.of(y[["stage"]]).task == "classification"
