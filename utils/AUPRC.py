"""The area under the precision-recall curve, of pairs, as MultiBench asks for it."""

from collections.abc import Iterable, Sequence
from typing import Any

from sklearn.metrics import average_precision_score


def ptsort(tu: Sequence[Any]) -> Any:
    """Returns the first item, by which pairs are sorted."""
    return tu[0]


def AUPRC(pts: Iterable[Sequence[Any]]) -> float:
    """Returns the average precision of pairs (probability of class 1, label 0 or 1)."""
    probabilities, labels = zip(*pts, strict=True)
    return float(
        average_precision_score([int(y) for y in labels], [float(p) for p in probabilities])
    )
