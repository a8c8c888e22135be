"""A hundred random fusions; any number of them by `python -m unit_tests.fuzz.fusions N`."""

from collections import Counter

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from unit_tests.fuzz import fusions as fuzz
from unit_tests.fuzz.fusion_truths import overflows_in_torch


@pytest.mark.parametrize("first", [0, 50])
def test_random_fusions_are_refused_or_right(first):
    found = [fuzz.outcome(seed) for seed in range(first, first + 50)]
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


class Infinite(torch.autograd.Function):
    """The identity as an operation of our own, with an infinite gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g + torch.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_what_leaves_torchs_range_is_told_from_a_fault(dtype):
    x = torch.tensor([3.0, 0.5], dtype=dtype, requires_grad=True)
    beyond = torch.finfo(dtype).max / 2
    assert overflows_in_torch((x * x).sum() * beyond)
    assert overflows_in_torch((x * x * 8).double().sum() * beyond)
    assert not overflows_in_torch(Infinite.apply(x).sum())
    infinite = (x * torch.finfo(dtype).max).tanh()  # 1, with an infinity inside
    assert infinite.isfinite().all()
    assert not overflows_in_torch((infinite * (x * torch.inf).tanh()).sum())


def test_a_gradient_that_is_infinite_without_need_is_noticed(monkeypatch):
    right = DEQFusion.forward

    def wrong(self, features, **options):
        fused = right(self, features, **options)
        if fused.requires_grad and fused.dtype != torch.float64:  # the second computation is right
            fused.register_hook(lambda g: g + torch.inf)
        return fused

    monkeypatch.setattr(DEQFusion, "forward", wrong)
    found = kinds(20)
    assert found["silent"] > 2 and not found["agrees"]


# draws that found something, or were excused too easily, once
KNOWN = [213, 1022, 2698, 3114, 3686, 4046, 4472, 100328, 100683, 100789, 101985, 102336, 102743]
KNOWN += [103043, 103079, 103671, 103888, 104275, 104488, 104538, 200320]
KNOWN += [201426, 203396, 300134, 301466, 400522, 400675, 403331, 403895]


@pytest.mark.parametrize("seed", KNOWN)
def test_draws_that_once_found_something_find_nothing(seed):
    assert fuzz.outcome(seed).kind not in fuzz.FAULTS


def test_the_command_says_what_it_takes(capsys):
    with pytest.raises(SystemExit) as ended:
        fuzz.main(["--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "N [FIRST]" in out and "--chunk" not in out
    for given in ([], ["x"], ["0"], ["5", "-1"]):
        with pytest.raises(SystemExit) as ended:
            fuzz.main(given)
        assert ended.value.code == 2 and "error: " in capsys.readouterr().err
