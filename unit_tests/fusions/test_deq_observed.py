"""Who observes a solve changes nothing of it, to the last bit, whether it converges or not."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import SOLVERS
from unit_tests.fusions.deq_reference import arguments
from unit_tests.fusions.equilibrium.fusion_map.oracle import bfloat16_products

WIDTHS, DIM, BATCH = (16, 5, 16), 16, 8
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 1, 0]] * 2).bool()
OPTIONS = {
    "default": {},
    "paper": {"equations": "paper"},
    "released": {"equations": "released"},
    "released_mosi": {"equations": "released_mosi", "fuse_groups": 1},
    "joint": {"joint": True},
    "without f_theta": {"f_theta": False},
    "without gate": {"gate": False},
    "with absent modalities": {"present": PRESENT},
}
some_options = pytest.mark.parametrize("options", OPTIONS)
some_solver = pytest.mark.parametrize("solver", sorted(SOLVERS))


def posed(dtype, *, equations="scale_free", present=None, **options):
    """A fusion with dropout off, and features whose samples are of several scales."""
    fusion = DEQFusion(WIDTHS, DIM, **arguments(equations, **options), on_failure="ignore")
    scales = torch.logspace(-1, 1, BATCH).unsqueeze(1)
    features = [(scales * torch.randn(BATCH, width)).to(dtype) for width in WIDTHS]
    return fusion.to(dtype), [x.requires_grad_() for x in features], present


def run(fusion, features, present, observe):
    fused = fusion(features, present=present, observe=observe)
    torch.manual_seed(1)
    leaves = [*fusion.parameters(), *features]
    grads = torch.autograd.grad(fused, leaves, torch.randn_like(fused), materialize_grads=True)
    solves = [*fusion.info.forward.values(), *fusion.info.backward.values()]
    stats = [x for s in solves for x in (s.steps, s.residual, s.converged)]
    return [fused.detach(), *grads, *stats]


def check(fusion, features, present):
    """Runs it observed and not; returns which samples converged."""
    seen = []
    unobserved = run(fusion, features, present, None)
    observed = run(fusion, features, present, seen.append)
    for ours, theirs in zip(observed, unobserved, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    last = {step.block: step.step for step in seen}
    assert sum(last.values()) == len(seen)  # each block from 1, one after another
    steps = {name: int(s.steps.max()) for name, s in fusion.info.forward.items()}
    assert max(last.values()) == max(steps.values())
    return fusion.info.converged


OBSERVED = [(name, "anderson", torch.float32) for name in OPTIONS]
OBSERVED += [("default", solver, torch.float32) for solver in sorted(SOLVERS)[1:]]
OBSERVED += [("joint", "broyden", torch.float32), ("paper", "picard", torch.float64)]
OBSERVED += [(name, "anderson", torch.bfloat16) for name in ("default", "with absent modalities")]


@pytest.mark.parametrize(("options", "solver", "dtype"), OBSERVED, ids=str)
def test_observed_and_not_are_the_same(options, solver, dtype):
    for hard in ({}, {"start": 3.0}):
        limits = {"max_steps": 9, "backward_max_steps": 6, "solver": solver, **hard}
        converged = check(*posed(dtype, **limits, **OPTIONS[options]))
        assert not converged.all() if hard else converged.any()


@some_options
def test_they_are_so_with_first_steps_in_bfloat16(options):
    with bfloat16_products():
        test_observed_and_not_are_the_same(options, "anderson", torch.float32)


@some_solver
def test_they_are_so_where_samples_leave(solver):
    options = {"equations": "paper", "solver": solver, "tol": 1e-5, "start": 0.3}
    fusion, features, _ = posed(torch.float32, **options)
    check(fusion, features, None)
    steps = fusion.info.steps
    assert steps.min() * 2 < steps.max()


def test_dropout_draws_its_masks_once_whoever_observes():
    fusion, features, _ = posed(torch.float32, dropout=0.4)
    fused, seen = [], []
    for observe in (None, seen.append):
        torch.manual_seed(2)
        fused.append(fusion(features, observe=observe))
        fused.append(torch.rand(3))  # what is drawn next
    assert fused[0].equal(fused[2]) and fused[1].equal(fused[3]) and seen


def test_a_step_can_only_be_read():
    def rename(step):
        step.block = "mine"

    fusion, features, _ = posed(torch.float32)
    with pytest.raises(FrozenInstanceError):
        fusion(features, observe=rename)
