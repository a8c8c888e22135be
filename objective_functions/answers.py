"""The loss of visual question answering with soft targets."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def soft_answer_loss(logits: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
    """Binary cross-entropy against the answers' soft scores (Teney et al., 2018; MCAN).

    It is summed over the answers and averaged over the questions.

    Args:
        logits: (batch, answers).
        truth: `answer`, (batch, K) numbers of answers, -1 for none, and `target`, (batch, K),
            their scores in [0, 1]. All other answers have the score 0.

    Returns:
        A scalar.
    """
    targets = dense(truth["answer"], truth["target"].to(logits.dtype), logits.shape[1])
    loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return loss.sum(dim=1).mean()


def dense(columns: Tensor, values: Tensor, width: int) -> Tensor:
    """Returns (batch, width) zeros with each row's values in its columns, leaving out column -1."""
    rows = torch.zeros(len(columns), width + 1, dtype=values.dtype, device=values.device)
    spare = torch.where(columns < 0, width, columns)  # one column too many takes what is left out
    return rows.scatter(1, spare, values)[:, :width]
