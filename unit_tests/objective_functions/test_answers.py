"""The losses of answers, against sums written out."""

import math

import pytest
import torch

from deq_fusion.objective_functions.answers import dense, sampled_answer_loss, soft_answer_loss

TRUTH = {
    "answer": torch.tensor([[2, 0], [1, -1], [-1, -1]]),
    "target": torch.tensor([[1.0, 0.3], [0.6, 0.0], [0.0, 0.0]]),
}


def test_dense_leaves_out_what_is_no_answer():
    rows = dense(TRUTH["answer"], TRUTH["target"], 4)
    assert rows.tolist() == torch.tensor([[0.3, 0, 1, 0], [0, 0.6, 0, 0], [0, 0, 0, 0]]).tolist()


def test_the_loss_is_summed_over_answers_and_averaged_over_questions():
    logits = torch.randn(3, 4, dtype=torch.float64)
    targets = [[0.3, 0, 1, 0], [0, 0.6, 0, 0], [0, 0, 0, 0]]
    total = 0.0
    for row, wanted in zip(logits.tolist(), targets, strict=True):
        for logit, target in zip(row, wanted, strict=True):
            p = 1 / (1 + math.exp(-logit))
            total -= target * math.log(p) + (1 - target) * math.log(1 - p)
    expected = torch.tensor(total / 3, dtype=torch.float64)
    torch.testing.assert_close(soft_answer_loss(logits, TRUTH), expected, rtol=1e-6, atol=0)


def test_the_gradient_is_probability_minus_target():
    logits = torch.randn(3, 4, requires_grad=True)
    soft_answer_loss(logits, TRUTH).backward()
    wanted = (logits.detach().sigmoid() - dense(TRUTH["answer"], TRUTH["target"], 4)) / 3
    torch.testing.assert_close(logits.grad, wanted)


DRAWN = {
    "answer": torch.tensor([[3, 0, -1], [1, -1, -1]]),
    "share": torch.tensor([[0.75, 0.25, 0.0], [1.0, 0.0, 0.0]]),
}


def test_the_loss_of_mutan_is_that_of_a_drawn_answer():
    logits = torch.randn(2, 4, requires_grad=True)
    logs = (logits.exp() / logits.exp().sum(1, keepdim=True)).log()
    possible = {answer: -(logs[0, answer] + logs[1, 1]).item() / 2 for answer in (3, 0)}
    drawn = []
    for _ in range(400):
        loss = sampled_answer_loss(logits, DRAWN).item()
        near = [answer for answer, value in possible.items() if abs(value - loss) < 1e-5]
        drawn.append(*near)
    assert abs(drawn.count(3) / 400 - 0.75) < 0.08  # three deviations and a half
    with torch.no_grad():
        expected = 0.75 * possible[3] + 0.25 * possible[0]
        assert sampled_answer_loss(logits, DRAWN).item() == pytest.approx(expected, rel=1e-5)
        unknown = {**DRAWN, "share": DRAWN["share"] * torch.tensor([[1.0], [0.0]])}
        first = -(0.75 * logs[0, 3] + 0.25 * logs[0, 0]).item() / 2
        assert sampled_answer_loss(logits, unknown).item() == pytest.approx(first, rel=1e-5)


def test_an_answer_of_another_vocabulary_is_refused():
    truth = {"answer": torch.tensor([[0, 4], [1, -1]]), "target": torch.ones(2, 2)}
    with pytest.raises(ValueError, match="up to 3, for the prediction has 4, got 4"):
        soft_answer_loss(torch.zeros(2, 4), truth)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_question_without_an_answer_to_draw_is_refused_in_training(value):
    share = torch.tensor([[0.5, 0.5], [value, 0.0]])
    truth = {"answer": torch.tensor([[0, 1], [2, -1]]), "share": share}
    logits = torch.randn(2, 4, requires_grad=True)
    with pytest.raises(ValueError, match="shares of 1 of 2 are zero or no numbers.* of row 1"):
        sampled_answer_loss(logits, truth)
