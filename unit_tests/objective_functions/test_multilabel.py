"""The balanced loss, entry by entry."""

import math

import pytest
import torch

from deq_fusion.objective_functions.multilabel import balanced_bce


def test_presence_weighs_as_much_as_absence():
    logits, truth = torch.randn(6, 2), torch.randint(2, (6, 2)).float()
    shares, total = (0.2, 1.0), 0.0
    for row, labels in zip(logits.tolist(), truth.tolist(), strict=True):
        for x, y, p in zip(row, labels, shares, strict=True):
            said = 1 / (1 + math.exp(-x))
            total -= (1 - p) / p * y * math.log(said) + (1 - y) * math.log(1 - said)
    assert balanced_bce(logits, truth, shares=shares).item() == pytest.approx(total / 12, rel=1e-5)


@pytest.mark.parametrize("shares", [(0.2,), (0.2, 0.0), (0.2, 1.5), (0.2, math.nan), (0.1,) * 3])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ValueError, match=r"shares must be 2 numbers in \(0, 1\], one for each"):
        balanced_bce(torch.zeros(3, 2), torch.zeros(3, 2), shares=shares)
