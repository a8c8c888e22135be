"""The loss of soft answers, against a sum written out."""

import math

import torch

from objective_functions.answers import dense, soft_answer_loss

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
