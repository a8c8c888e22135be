"""Losses of several labels a sample."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def balanced_bce(prediction: Tensor, truth: Tensor, *, shares: Sequence[float]) -> Tensor:
    """Mean binary cross-entropy in which a rare label's presence weighs as much as its absence.

    A present label counts (1 - p) / p times, p its share of the training samples: predicted
    probabilities then pass one half as often as labels deserve, where plain cross-entropy never
    dares to name a rare one (King and Zeng, 2001).

    Args:
        prediction: (batch, labels) logits.
        truth: (batch, labels) of 0 and 1.
        shares: p of each label, in (0, 1].

    Raises:
        ValueError: for other shares, or another number of them.
    """
    if len(shares) != prediction.shape[-1] or not all(0 < share <= 1 for share in shares):
        raise ValueError(
            f"shares must be {prediction.shape[-1]} numbers in (0, 1], one for each label of the "
            f"prediction, got {[round(float(share), 6) for share in shares]}; leave out labels "
            "that no training sample has"
        )
    rare = prediction.new_tensor(shares)
    return binary_cross_entropy_with_logits(prediction, truth, pos_weight=(1 - rare) / rare)
