"""A hundred random fusions; any number of them by `python -m unit_tests.fuzz.fusions N`."""

from collections import Counter

import pytest
import torch

from fusions.deq import DEQFusion
from unit_tests.fuzz import fusions as fuzz


@pytest.mark.parametrize("first", [0, 25, 50, 75])
def test_random_fusions_are_refused_or_right(first):
    found = [fuzz.outcome(seed) for seed in range(first, first + 25)]
    assert not [o for o in found if o.kind in fuzz.FAULTS]


def test_some_are_refused_and_some_compared():
    kinds = Counter(fuzz.outcome(seed).kind for seed in range(100, 125))
    assert set(kinds) == {"refused", "agrees", "finite"}


@pytest.mark.parametrize(
    ("fused", "kind"),
    [
        (lambda self, features, **_: features[0] @ torch.ones(1), "raw"),
        (lambda self, features, **_: torch.full((2, self.dim), float("nan")), "silent"),
    ],
)
def test_faults_are_noticed(monkeypatch, fused, kind):
    monkeypatch.setattr(DEQFusion, "forward", fused)
    found = Counter(fuzz.outcome(seed).kind for seed in range(40))
    assert found[kind] > 3 and not found["agrees"] - found["finite"]


def test_a_wrong_result_is_noticed(monkeypatch):
    right = DEQFusion._combined
    monkeypatch.setattr(DEQFusion, "_combined", lambda *args: right(*args) * 1.01)
    assert Counter(fuzz.outcome(seed).kind for seed in range(60))["wrong"]
