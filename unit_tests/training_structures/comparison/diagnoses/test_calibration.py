"""Calibration, against sums by hand, and a model whose miscalibration is known."""

import numpy as np
import pytest
import torch
from scipy import optimize, special

from deq_fusion.training_structures.comparison.diagnoses.calibration import (
    BINS,
    Classified,
    Undiagnosed,
    brier,
    calibration,
    classified,
    expected_calibration_error,
    fitted_temperature,
    log_loss,
    reliability,
)


def by_hand(probabilities, labels):
    """The expected calibration error, bin by bin."""
    total = 0.0
    for b in range(15):
        inside = [
            (max(p), float(np.argmax(p) == y))
            for p, y in zip(probabilities, labels, strict=True)
            if b / 15 < max(p) <= (b + 1) / 15
        ]
        if inside:
            gap = np.mean([right for _, right in inside]) - np.mean([sure for sure, _ in inside])
            total += len(inside) / len(labels) * abs(gap)
    return total


def drawn(samples=4000, classes=3, seed=0, scale=1.0):
    """Labels drawn by the softmax of logits, which are then too large by `scale`."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(samples, classes))
    cumulated = special.softmax(logits, axis=1).cumsum(1)
    labels = (rng.random((samples, 1)) > cumulated).sum(1).clip(max=classes - 1)
    return Classified(scale * logits, labels)


def test_the_error_and_the_brier_score_are_those_by_hand():
    found = drawn(200, scale=2.0)
    p = found.probabilities()
    error = expected_calibration_error(reliability(p, found.labels))
    assert error == pytest.approx(by_hand(p, found.labels))
    squares = [sum((p[i, k] - (k == y)) ** 2 for k in range(3)) for i, y in enumerate(found.labels)]
    assert brier(p, found.labels) == pytest.approx(np.mean(squares))


def test_four_samples_on_paper():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 0])
    bins = reliability(p, labels)
    assert bins.shape == (BINS, 3) and bins[:, 0].sum() == 4
    np.testing.assert_allclose(bins[13], [2, 0.9, 0.5])  # 13/15 to 14/15
    np.testing.assert_allclose(bins[8], [2, 0.6, 0.5])  # 0.6 is 9/15, an edge: the lower bin
    assert expected_calibration_error(bins) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert brier(p, labels) == pytest.approx(2 * (0.01 + 0.81 + 0.16 + 0.36) / 4)


def test_a_model_that_is_too_sure_is_found_and_mended_by_its_temperature():
    fine = calibration(drawn(seed=1), drawn(seed=2))
    sure = calibration(drawn(seed=1, scale=3.0), drawn(seed=2, scale=3.0))
    assert fine["ece"] < 0.03 < 0.1 < sure["ece"] and sure["surplus"] > 0.1
    assert abs(fine["surplus"]) < 0.03
    assert fine["temperature"] == pytest.approx(1, abs=0.1)
    assert sure["temperature"] == pytest.approx(3 * fine["temperature"], rel=1e-3)
    assert sure["ece_scaled"] < 0.03 and sure["brier_scaled"] < sure["brier"]
    shy = calibration(drawn(seed=1, scale=0.3), drawn(seed=2, scale=0.3))
    assert shy["surplus"] < -0.1 and shy["temperature"] < 0.4


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_temperature_is_the_least_of_a_grid_refined_by_scipy(scale):
    found = drawn(500, scale=scale)
    loss = lambda t: log_loss(found, float(np.squeeze(t)))  # noqa: E731
    (best,) = np.atleast_1d(optimize.brute(loss, [(0.05, 20)], Ns=150))
    assert fitted_temperature(found) == pytest.approx(best, rel=1e-2)
    assert loss(fitted_temperature(found)) <= loss(best) + 1e-6
    logs = special.log_softmax(found.logits / 2, axis=1)
    by_sample = [-logs[i, y] for i, y in enumerate(found.labels)]
    assert log_loss(found, 2.0) == pytest.approx(np.mean(by_sample))


def test_without_a_validation_part_of_its_own_there_is_no_temperature():
    assert calibration(drawn(50), None).keys() == {"bins", "ece", "brier", "surplus"}


def test_every_label_of_several_is_a_problem_of_two_classes():
    logits, labels = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[1, 0], [0, 1]])
    found = classified(logits, labels, "multilabel")
    p = found.probabilities()
    np.testing.assert_allclose(p[:, 1], torch.sigmoid(logits).flatten())
    assert found.labels.tolist() == [1, 0, 0, 1]


def test_labels_that_are_ignored_are_left_out():
    found = classified(torch.eye(3), torch.tensor([[0], [-100], [1]]), "classification")
    assert found.labels.tolist() == [0, 1] and len(found.logits) == 2


@pytest.mark.parametrize(
    ("prediction", "truth", "task", "why"),
    [
        (torch.zeros(3, 1), torch.zeros(3), "regression", "predicts numbers"),
        (torch.zeros(3, 2), torch.zeros(3), "classification", "of one class"),
        (torch.zeros(3, 1), torch.arange(3), "classification", "of one class"),
        (torch.zeros(3, 2), {"answer": 0}, "classification", "against one label each"),
        (torch.zeros(3, 2), torch.zeros(3, 4), "classification", "against one label each"),
        (torch.full((3, 2), torch.nan), torch.tensor([0, 1, 0]), "classification", "not finite"),
    ],
)
def test_what_has_no_calibration_is_answered(prediction, truth, task, why):
    with pytest.raises(Undiagnosed, match=why):
        classified(prediction, truth, task)
