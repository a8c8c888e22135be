"""The losses of visual question answering: soft targets, and one answer drawn."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


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


def sampled_answer_loss(logits: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy with one of a question's answers, drawn anew each time.

    It is the loss of Mutan's release (Ben-younes et al., 2017). Without gradients, as in
    evaluation, nothing is drawn: the loss is the mean over the draws.

    Args:
        logits: (batch, answers).
        truth: `answer`, (batch, K) numbers of answers, -1 for none, and `share`, (batch, K), with
            what probability each is drawn; a row of zeros, which training must not have, counts
            as no loss.

    Returns:
        A scalar.

    Raises:
        ValueError: for such a row in training.
    """
    share = truth["share"]
    if torch.is_grad_enabled():
        empty = (~(share.sum(dim=1) > 0)).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                "every question must have an answer to draw in training, but the shares of "
                f"{len(empty)} of {len(share)} are zero or no numbers, such as those of row "
                f"{empty[0]}; leave these questions out"
            )
        drawn = torch.multinomial(share, 1)
        return cross_entropy(logits, truth["answer"].gather(1, drawn).squeeze(1))
    found = logits.log_softmax(dim=1).gather(1, truth["answer"].clamp(min=0))
    return -(share * found).sum(dim=1).mean()


def dense(columns: Tensor, values: Tensor, width: int) -> Tensor:
    """Returns (batch, width) zeros with each row's values in its columns, leaving out column -1.

    Raises:
        ValueError: for a column beyond the width.
    """
    most = columns.max().item() if columns.numel() else -1
    if most >= width:
        raise ValueError(
            f"numbers of answers must be up to {width - 1}, for the prediction has {width}, got "
            f"{most}; is it of another vocabulary?"
        )
    rows = torch.zeros(len(columns), width + 1, dtype=values.dtype, device=values.device)
    spare = torch.where(columns < 0, width, columns)  # one column too many takes what is left out
    return rows.scatter(1, spare, values)[:, :width]
