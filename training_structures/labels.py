"""Class labels and targets: whole, finite and in range, or refused with their rows."""

import torch
from torch import Tensor

IGNORED = -100  # torch's own word for a label that does not count


def as_labels(truth: Tensor) -> Tensor:
    """Returns labels of any dtype as int64.

    Raises:
        ValueError: for labels that are not whole numbers, NaN among them.
    """
    labels = truth.long()
    if labels is truth:
        return truth
    refuse(labels != truth, truth, "labels must be whole numbers")
    return labels


def check_classes(labels: Tensor, classes: int, ignored: int = IGNORED) -> None:
    """Raises ValueError unless labels, int64, are in [0, classes), or the one that is ignored."""
    if labels.numel():
        least, most = (x.item() for x in labels.aminmax())
        if 0 <= least and most < classes:
            return
    wrong = ((labels < 0) | (labels >= classes)) & (labels != ignored)
    refuse(
        wrong,
        labels,
        f"labels must be classes from 0 to {classes - 1}, or {ignored} to be ignored",
    )


def check_finite(truth: Tensor) -> None:
    """Raises ValueError unless all of the truth is finite."""
    refuse(~torch.isfinite(truth), truth, "the truth must be finite")


def refuse(wrong: Tensor, values: Tensor, rule: str) -> None:
    """Raises ValueError with the rule, and the first rows that break it, if any is `wrong`."""
    if not wrong.any():
        return
    wrong, values = wrong.reshape(len(wrong), -1), values.reshape(len(values), -1)
    rows, columns = wrong.nonzero()[:3].T
    shown = ", ".join(
        f"{f'{value:.6g}' if isinstance(value, float) else value} in row {row}"
        for row, value in zip(rows.tolist(), values[rows, columns].tolist(), strict=True)
    )
    raise ValueError(f"{rule}, but {int(wrong.any(1).sum())} of {len(wrong)} rows hold {shown}")
