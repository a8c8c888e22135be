"""Metrics agree with counting by hand, and stay quiet where they are undefined."""

import math

import numpy as np
import pytest
import torch

from deq_fusion.training_structures.metrics import (
    answer_accuracy,
    average_precision,
    classification,
    multilabel,
    posneg,
    regression,
    sentiment,
)


def f1_by_counting(guess, truth):
    hits = int((guess & truth).sum())
    return 2 * hits / max(1, int(guess.sum() + truth.sum()))


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
@pytest.mark.parametrize("dtype", [torch.long, torch.float])
def test_classification(shape, dtype):
    logits, truth = torch.randn(60, 3), torch.randint(3, (60,))
    scores = classification(logits, truth.reshape(shape).to(dtype))
    guess = logits.argmax(1)
    each = [f1_by_counting(guess == c, truth == c) for c in range(3)]
    shares = [(truth == c).float().mean().item() for c in range(3)]
    assert scores == pytest.approx(
        {
            "accuracy": (guess == truth).float().mean().item(),
            "f1_macro": sum(each) / 3,
            "f1_weighted": sum(f * s for f, s in zip(each, shares, strict=True)),
        }
    )


def test_auc_is_the_share_of_pairs_in_order():
    logits, truth = torch.randn(40, 2), torch.randint(2, (40,))
    margin = logits[:, 1] - logits[:, 0]
    pairs = margin[truth == 1][:, None] > margin[truth == 0]
    assert classification(logits, truth)["auc"] == pytest.approx(pairs.float().mean().item())


def test_average_precision_is_the_mean_precision_at_the_positives():
    logits, truth = torch.randn(40, 2), torch.randint(2, (40,))
    order = (logits[:, 1] - logits[:, 0]).argsort(descending=True)
    hits = truth[order].cumsum(0) / torch.arange(1, 41)
    expected = hits[truth[order] == 1].mean().item()
    assert average_precision(logits, truth) == pytest.approx(expected)


def test_one_class_alone_has_no_auc_and_no_warning():
    logits, truth = torch.randn(5, 2), torch.zeros(5)
    assert math.isnan(classification(logits, truth)["auc"])
    assert math.isnan(average_precision(logits, truth))


def test_multilabel_counts_probabilities_above_a_half():
    logits, truth = torch.randn(50, 4), torch.randint(2, (50, 4))
    logits[0] = 0.0  # exactly a half: no label
    guess = logits.double().sigmoid().round() == 1
    each = [f1_by_counting(guess[:, c], truth[:, c] == 1) for c in range(4)]
    expected = {"f1_micro": f1_by_counting(guess, truth == 1), "f1_macro": sum(each) / 4}
    assert multilabel(logits, truth) == pytest.approx(expected)


def test_a_label_that_never_occurs_counts_as_zero_without_a_warning():
    logits = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    assert multilabel(logits, torch.tensor([[1, 0], [1, 0]]))["f1_macro"] == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(30,), (30, 1)])
def test_regression(shape):
    guess, truth = torch.randn(30, 1), torch.randn(30)
    expected = {
        "mse": (guess[:, 0] - truth).square().mean().item(),
        "mae": (guess[:, 0] - truth).abs().mean().item(),
        "corr": torch.corrcoef(torch.stack([guess[:, 0], truth]))[0, 1].item(),
    }
    assert regression(guess, truth.reshape(shape)) == pytest.approx(expected, rel=1e-5)


def test_a_constant_has_no_correlation():
    assert math.isnan(regression(torch.ones(4, 1), torch.randn(4, 1))["corr"])


def test_posneg_without_and_with_zeros():
    prediction = torch.tensor([[2.0], [-1.0], [-0.5], [-3.0], [0.0], [0.5]])
    truth = torch.tensor([[1.0], [0.0], [0.0], [1.0], [2.0], [0.0]])  # 0 is not positive
    expected = {"accuracy_nonzero": 1 / 3, "accuracy": 3 / 6}  # one of three, and two of three
    assert posneg(prediction, truth) == pytest.approx(expected)


def binary_by_counting(guess, truth, zero=False):
    """Accuracy, and F1 weighted by the truth, of "above 0", a sample at a time; is 0 too?"""
    pairs = [
        (g > 0 or g == 0 and zero, t > 0 or t == 0 and zero)
        for g, t in zip(guess, truth, strict=True)
    ]
    f1 = 0.0
    for positive in (False, True):
        hits = sum(g == t == positive for g, t in pairs)
        said, is_so = (sum(pair[side] == positive for pair in pairs) for side in (0, 1))
        f1 += is_so / len(pairs) * 2 * hits / max(1, said + is_so)
    return sum(g == t for g, t in pairs) / len(pairs), f1


@pytest.mark.parametrize("shape", [(80,), (80, 1)])
def test_sentiment(shape):
    rng = np.random.default_rng(0)
    truth = rng.integers(-15, 16, 80) / 5  # tenths and zeros among them
    truth[:10] = 0
    guess = 0.7 * truth + rng.normal(size=80) + 0.5
    guess[:12] = [0, 0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.5, -4.2, 9, 0, 0.4]
    truth[4:9] = [2, 2, -2, 3, -3]  # halves go to the even neighbour, 3.5 is clipped
    scores = sentiment(*(torch.from_numpy(x).float().reshape(shape) for x in (guess, truth)))
    near = [
        np.round(min(3, max(-3, g))) == np.round(min(3, max(-3, t)))
        for g, t in zip(guess, truth, strict=True)
    ]
    expected = {
        "mae": sum(abs(g - t) for g, t in zip(guess, truth, strict=True)) / 80,
        "corr": np.corrcoef(guess, truth)[0, 1],
        "acc7": sum(near) / 80,
    }
    kept = [i for i in range(80) if truth[i] != 0]
    expected["acc2"], expected["f1"] = binary_by_counting(guess, truth)
    expected["acc2_nonzero"], expected["f1_nonzero"] = binary_by_counting(guess[kept], truth[kept])
    nonnegative = binary_by_counting(guess, truth, zero=True)
    expected["acc2_nonnegative"], expected["f1_nonnegative"] = nonnegative
    expected["f1_swapped"] = binary_by_counting(truth, guess)[1]
    expected["f1_nonzero_swapped"] = binary_by_counting(truth[kept], guess[kept])[1]
    assert scores == pytest.approx(expected, rel=1e-5)
    assert len({round(score, 6) for score in scores.values()}) == 11  # no two can be mixed up


def test_sentiment_weights_f1_by_the_truth():
    guess, truth = torch.ones(4), torch.tensor([1.0, -1.0, -1.0, -1.0])
    assert sentiment(guess, truth)["f1"] == pytest.approx(1 / 4 * 2 / 5)  # none for the negatives
    assert sentiment(guess, truth)["f1_swapped"] == pytest.approx(2 / 5)  # the published order
    assert sentiment(guess, truth)["f1_nonzero_swapped"] == pytest.approx(2 / 5)


def test_sentiment_counts_zeros_by_either_convention():
    guess, truth = torch.tensor([0.0, 0.0, -1.0, 2.0]), torch.tensor([0.0, -1.0, 0.0, 1.0])
    scores = sentiment(guess, truth)
    assert scores["acc2"] == scores["acc2_nonzero"] == 1  # a predicted 0 is negative
    assert scores["acc2_nonnegative"] == 2 / 4  # now the second is wrong, and the third
    assert scores["f1_nonnegative"] == pytest.approx(3 / 4 * 2 / 3)


def test_sentiment_without_a_nonzero_truth_has_no_score_on_them():
    scores = sentiment(torch.tensor([1.0, -1.0, -2.0]), torch.zeros(3))
    assert all(
        math.isnan(scores[name]) for name in ("acc2_nonzero", "f1_nonzero", "f1_nonzero_swapped")
    )
    assert scores["acc2"] == pytest.approx(2 / 3) and math.isnan(scores["corr"])


@pytest.mark.parametrize("metric", [classification, multilabel, regression, posneg, sentiment])
def test_predictions_must_be_finite(metric):
    prediction = torch.tensor([[0.0, math.nan], [0.0, 1.0]])
    with pytest.raises(FloatingPointError, match="1 of 4 are not"):
        whole = metric in (multilabel, regression, sentiment)
        metric(prediction, torch.zeros(2, 2) if whole else torch.ones(2))


@pytest.mark.parametrize("metric", [classification, regression, sentiment])
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match=r"got \(4, 2\) and \(3,\)"):
        metric(torch.zeros(4, 2), torch.zeros(3))


def test_answers_are_as_right_as_the_annotators_say():
    logits = torch.randn(6, 5)
    truth = {
        "answer": torch.tensor([[0, 1], [2, -1], [4, 3], [-1, -1], [1, 0], [3, 2]]),
        "accuracy": torch.tensor([[1, 0.3], [0.6, 0], [0.9, 0.3], [0, 0], [0.3, 0.3], [1, 0.3]]),
        "type": torch.tensor([0, 0, 2, 2, 2, 0]),
    }
    right = []
    for row, answers, values in zip(
        logits.tolist(), truth["answer"].tolist(), truth["accuracy"].tolist(), strict=True
    ):
        given = max(range(5), key=row.__getitem__)
        right.append(dict(zip(answers, values, strict=True)).get(given, 0.0))
    scores = answer_accuracy(logits, truth)
    assert scores["accuracy"] == pytest.approx(sum(right) / 6)
    assert scores["accuracy_yes_no"] == pytest.approx((right[0] + right[1] + right[5]) / 3)
    assert scores["accuracy_other"] == pytest.approx(sum(right[2:5]) / 3)
    assert "accuracy_number" not in scores  # none was asked for


# --- a truth that cannot be scored


@pytest.mark.parametrize("metric", [classification, average_precision])
@pytest.mark.parametrize(
    "truth, message",
    [
        ([1, 2, 1, 2], r"classes from 0 to 1, .* but 2 of 4 rows hold 2 in row 1, 2 in row 3"),
        ([0, -1, 1, 1], "-1 in row 1"),
        ([0.0, 1.0, 0.5, 1.0], "whole numbers, but 1 of 4 rows hold 0.5 in row 2"),
        ([0.0, math.nan, 1.0, 1.0], "whole numbers.*nan in row 1"),
        ([0.0, math.inf, 1.0, 1.0], "whole numbers.*inf in row 1"),
    ],
)
def test_labels_that_are_no_column_are_refused(metric, truth, message):
    with pytest.raises(ValueError, match=message):
        metric(torch.randn(4, 2), torch.tensor(truth))


def test_one_column_has_one_class():
    with pytest.raises(ValueError, match="classes from 0 to 0, .* 2 of 4 rows hold 1 in row 0"):
        classification(torch.tensor([[2.0], [-1.0], [3.0], [-2.0]]), torch.tensor([1, 0, 1, 0]))


def test_ignored_labels_are_left_out_and_that_is_said():
    logits, truth = torch.randn(20, 2), torch.randint(2, (20,))
    truth[[3, 7]] = -100
    logits[3] = math.nan  # nobody asked
    counted = truth != -100
    for metric in (classification, average_precision):
        with pytest.warns(UserWarning, match="2 of 20 labels are -100: their samples are left out"):
            scores = metric(logits, truth)
        assert scores == metric(logits[counted], truth[counted])
    with pytest.warns(UserWarning, match="20 of 20"), pytest.raises(ValueError, match="got none"):
        classification(logits, torch.full((20,), -100))


def test_average_precision_is_of_two_classes():
    with pytest.raises(ValueError, match=r"two classes, \(n, 2\), got \(4, 3\)"):
        average_precision(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize("value", [2, -1, 0.7, math.nan, -100])
def test_several_labels_are_0_or_1(value):
    truth = torch.tensor([[0, 1], [1, 0], [value, 1]])
    with pytest.raises(ValueError, match=f"0 or 1, but 1 of 3 rows hold {value}.* in row 2"):
        multilabel(torch.randn(3, 2), truth)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.bfloat16])
def test_several_labels_may_have_any_dtype(dtype):
    logits, truth = torch.randn(9, 3), torch.randint(2, (9, 3))
    assert multilabel(logits, truth.to(dtype)) == multilabel(logits, truth)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 3)])
def test_several_labels_have_a_column_each(shape):
    with pytest.raises(ValueError, match=r"\(n, labels\), got \(3, 2\) and"):
        multilabel(torch.randn(3, 2), torch.ones(shape))


@pytest.mark.parametrize("metric", [regression, posneg, sentiment])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_to_score_are_finite(metric, value):
    with pytest.raises(ValueError, match=f"truth must be finite, but 1 of 3 rows hold {value} in"):
        metric(torch.zeros(3, 1), torch.tensor([0.0, value, 1.0]))


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((1, 3), (3,)), ((6,), (2, 3))])
def test_entries_of_other_samples_are_not_compared(shapes):
    prediction, truth = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="of one shape, got"):
        regression(prediction, truth)


@pytest.mark.parametrize("prediction", [(6, 1), (1, 3)])
def test_signs_of_other_samples_are_not_compared(prediction):
    with pytest.raises(ValueError, match=r"and \(n,\) or \(n, 1\), got"):
        posneg(torch.ones(prediction), torch.ones(3))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30])
def test_the_rounding_of_a_constant_has_no_correlation(value):
    truth = torch.arange(7.0)
    assert math.isnan(regression(torch.full((7,), value), truth)["corr"])
    assert math.isnan(sentiment(torch.full((7,), value), truth / 3)["corr"])


def test_sentiment_has_its_range():
    with pytest.raises(ValueError, match=r"in \[-3, 3\], but 2 of 4 rows hold 3.5 in row 1, -4"):
        sentiment(torch.zeros(4, 1), torch.tensor([[3.0], [3.5], [-3.0], [-4.0]]))


@pytest.mark.parametrize("metric", [classification, multilabel, regression, posneg, sentiment])
def test_no_sample_has_no_score(metric):
    truth = torch.zeros(0, 2) if metric in (multilabel, regression, sentiment) else torch.zeros(0)
    with pytest.raises(ValueError, match="at least one sample"):
        metric(torch.zeros(0, 2), truth)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"answer": [[0, 5], [1, -1]]}, "up to 4, or -1 for none, but 1 of 2 rows hold 5 in row 0"),
        ({"answer": [[0, 1], [-2, 1]]}, "-2 in row 1"),
        ({"answer": [[0, 0], [1, -1]]}, "every answer must be there once, .* 0 in row 0"),
        ({"answer": [[0], [1]]}, r"shape \(2, K\), got \(2, 1\) and \(2, 2\)"),
        ({"accuracy": [[0.3, 1.3], [0, 0]]}, r"in \[0, 1\], but 1 of 2 rows hold 1.3 in row 0"),
        ({"accuracy": [[0.3, math.nan], [0, 0]]}, "nan in row 0"),
        ({"type": [0, 3]}, "type must be 0, 1 or 2, but 1 of 2 rows hold 3 in row 1"),
        ({"type": [0]}, r"type must have shape \(2,\), got \(1,\)"),
    ],
)
def test_answers_that_would_be_counted_wrongly_are_refused(change, message):
    truth = {"answer": [[0, 1], [2, -1]], "accuracy": [[1.0, 0.3], [0.6, 0.0]], "type": [0, 2]}
    truth = {name: torch.tensor(value) for name, value in (truth | change).items()}
    with pytest.raises(ValueError, match=message):
        answer_accuracy(torch.randn(2, 5), truth)
