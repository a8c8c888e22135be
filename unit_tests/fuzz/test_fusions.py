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
    assert {"refused", "agrees", "finite"} <= {o.kind for o in found}


def kinds(draws):
    """What comes of as many draws of DEQ fusion."""
    found = (fuzz.outcome(seed) for seed in range(draws))
    return Counter(o.kind for o in found if o.drawn == "deq")


@pytest.mark.parametrize(
    ("forward", "kind"),
    [
        (lambda self, features, **_: features[0] @ torch.ones(1), "raw"),
        (lambda self, features, **_: torch.full((2, self.dim), float("nan")), "silent"),
    ],
)
def test_faults_are_noticed(monkeypatch, forward, kind):
    monkeypatch.setattr(DEQFusion, "forward", forward)
    found = kinds(20)
    assert found[kind] > 2 and not found["agrees"]


def test_a_wrong_result_is_noticed(monkeypatch):
    right = DEQFusion._combined
    monkeypatch.setattr(DEQFusion, "_combined", lambda *args: right(*args) + 0.3)
    found = kinds(20)
    assert found["wrong"] and not found["agrees"]
