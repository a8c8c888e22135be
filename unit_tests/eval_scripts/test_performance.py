"""MultiBench's metrics, counted by hand."""

import numpy as np
import pytest
import torch

from deq_fusion.eval_scripts.performance import AUPRC, accuracy, eval_affect, f1_score, ptsort


def test_average_precision_is_the_mean_precision_at_each_positive():
    scores, labels = [0.9, 0.8, 0.6, 0.5, 0.1], [1, 0, 1, 1, 0]
    ranked = [labels[: i + 1] for i, label in enumerate(labels) if label]
    wanted = np.mean([np.mean(above) for above in ranked])
    pairs = list(zip(scores, labels, strict=True))
    assert AUPRC(pairs) == pytest.approx(wanted)
    assert AUPRC(reversed(pairs)) == pytest.approx(wanted)


def test_without_a_positive_there_is_no_average_precision():
    assert np.isnan(AUPRC([(0.5, 0), (0.2, 0)]))


def test_pairs_are_sorted_by_their_score():
    assert sorted([(2.0, 0), (1.0, 1)], key=ptsort) == [(1.0, 1), (2.0, 0)]


def test_f1_and_accuracy():
    truth, said = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 0, 0])
    each = [2 * 1 / (2 * 1 + 2 + 1), 2 * 2 / (2 * 2 + 1 + 1), 0.0]
    assert f1_score(truth, said, "macro") == pytest.approx(np.mean(each))
    assert f1_score(truth, said, "micro") == pytest.approx(3 / 6)
    assert accuracy(truth, said) == pytest.approx(3 / 6)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_sentiment_is_right_where_the_sign_is(kind, shape):
    truths = kind([1.0, -2.0, 0.0, 0.5]).reshape(shape)
    results = kind([0.1, 0.3, 0.2, -1.0]).reshape(shape)
    assert eval_affect(truths, results) == pytest.approx(1 / 3)
    assert eval_affect(truths, results, exclude_zero=False) == pytest.approx(1 / 4)


def test_sentiment_of_zeros_alone_is_undefined():
    assert np.isnan(eval_affect(torch.zeros(3), torch.ones(3)))
    assert eval_affect(torch.zeros(3), torch.ones(3), exclude_zero=False) == 0


def test_truths_and_results_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="got 3 and 1"):
        eval_affect(torch.ones(3), torch.ones(1))
