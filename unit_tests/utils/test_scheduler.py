"""Learning rates: the cosine by its formula, with cycles that are whole steps and that are not."""

import math

import pytest
import torch
from torch import nn

from deq_fusion.utils.scheduler import FixedScheduler, LRCosineAnnealingScheduler


def cosine(t, cycle, high=0.1, low=0.01):
    return low + (high - low) * (1 + math.cos(math.pi * min(t, cycle) / cycle)) / 2


@pytest.mark.parametrize("steps", [4, 2.5, 0.75])
def test_cycles_of_cosines_each_longer_than_the_last(steps):
    scheduler = LRCosineAnnealingScheduler(0.1, 0.01, 2, 3, steps)
    expected = []
    for cycle in (2, 6, 18):  # epochs; the step that reaches the end is the last of its cycle
        count = math.ceil(cycle * steps)
        expected += [cosine(i / steps, cycle) for i in range(count + 1)]
    rates = [scheduler.step() for _ in expected]
    torch.testing.assert_close(rates, expected, rtol=1e-12, atol=0)
    assert rates.count(0.1) == 3 and sum(abs(r - 0.01) < 1e-12 for r in rates) == 3


def test_the_optimiser_gets_the_rate():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weight]}, {"params": [nn.Parameter(weight + 1)]}], 5.0)
    scheduler = LRCosineAnnealingScheduler(0.1, 0.01, 1, 2, 10)
    for _ in range(4):
        scheduler.step()
    scheduler.update_optimizer(optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [scheduler.eta] * 2
    assert scheduler.eta == pytest.approx(cosine(0.3, 1))
    fixed = FixedScheduler(0.3)
    assert fixed.step() == 0.3
    fixed.update_optimizer(optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3] * 2


@pytest.mark.parametrize("wrong", [(0, 2, 10), (1, 0, 10), (1, 2, 0)])
def test_lengths_must_be_positive(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        LRCosineAnnealingScheduler(0.1, 0.01, *wrong)
