"""First steps in bfloat16 save time and change nothing that is promised.

Where a processor multiplies faster in bfloat16 the first steps of large solves do; here they do at
any size, or never.
"""

from unittest import mock

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import SOLVERS
from deq_fusion.fusions.equilibrium.fusion_map import gated, residual
from unit_tests.fusions.deq_reference import arguments
from unit_tests.fusions.equilibrium.fusion_map.oracle import bfloat16_products, by_autograd

lower = pytest.mark.parametrize("lower", [False, True], ids=["float32", "bfloat16"])


def gradients(fused, fusion, features):
    named = [*fusion.parameters(), *features]
    cotangent = torch.linspace(-1, 1, fused.numel(), dtype=fused.dtype).view_as(fused)
    grads = torch.autograd.grad(fused, named, cotangent)
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-5])
def test_a_solve_ends_at_the_tolerance_of_float32(tol):
    fusion = DEQFusion([32, 48], 64, tol=tol, max_steps=60, start=0.3)
    features = [torch.randn(10, 32).requires_grad_(), torch.randn(10, 48).requires_grad_()]
    with bfloat16_products():
        fused = fusion(features)
        ours = gradients(fused, fusion, features)
    exact = DEQFusion([32, 48], 64, tol=1e-12, max_steps=200, start=0.3).double()
    exact.load_state_dict(fusion.state_dict())
    wide = [x.detach().double().requires_grad_() for x in features]
    with by_autograd():
        truth = exact(wide)
        expected = gradients(truth, exact, wide)
    assert (fused - truth).norm() <= 5 * tol * truth.norm()
    assert (ours - expected).norm() <= 20 * tol * expected.norm()
    for stats in (*fusion.info.forward.values(), *fusion.info.backward.values()):
        assert stats.converged.all() and stats.residual.max() <= tol
        assert stats.steps.max() <= 60


class Calls:
    """Counts evaluations and products while it is entered, rough ones apart."""

    def __init__(self):
        self.step, self.pull = {False: 0, True: 0}, {False: 0, True: 0}
        self.patches = [
            *(self.patch(kind, "step") for kind in (residual.TwoLayer, gated.GatedMap)),
            *(self.patch(kind, "pull") for kind in (residual.TwoLayerAt, gated.GatedAt)),
        ]

    def patch(self, kind, name):
        of, counts = getattr(kind, name), getattr(self, name)

        def counted(*args, rough=False):
            counts[rough] += 1
            return of(*args, rough=rough)

        return mock.patch.object(kind, name, counted)

    def __enter__(self):
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(self, *_):
        for patch in self.patches:
            patch.stop()


@lower
@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 7])
def test_no_solve_takes_more_evaluations_than_it_may(most, solver, lower):
    limits = {"tol": 1e-5, "max_steps": most, "backward_max_steps": most + 1, "solver": solver}
    fusion = DEQFusion([16], 16, **limits, on_failure="ignore", start=0.5)
    x = torch.randn(5, 16, requires_grad=True)
    with bfloat16_products(lower), Calls() as calls:
        fused = fusion([x])
        assert sum(calls.step.values()) == 2 * most  # one for z_1, and one for z_fuse
        assert bool(calls.step[True]) == (lower and most > 2)
        fused.backward(torch.randn_like(fused))
        assert sum(calls.pull.values()) == 2 * (most + 1)
        assert bool(calls.pull[True]) == (lower and most + 1 > 2)
    assert fusion.info.steps.max() == most and fusion.info.residual.isfinite().all()
    assert max(s.steps.max() for s in fusion.info.backward.values()) == most + 1


def test_wider_states_tighter_tolerances_and_autocast_are_never_rounded():
    x = torch.randn(3, 16)
    for make, precision in (
        (lambda: DEQFusion([16], 16).double(), None),
        (lambda: DEQFusion([16], 16, tol=1e-7, on_failure="ignore"), None),
        (lambda: DEQFusion([16], 16), torch.bfloat16),
    ):
        fusion = make()
        of = next(fusion.parameters()).dtype
        with bfloat16_products(), Calls() as calls:
            with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
                fused = fusion([x.to(of)])
            fused.backward(torch.randn_like(fused))
        assert not calls.step[True] and not calls.pull[True]


def test_as_many_hard_samples_converge():
    fusion = DEQFusion([64] * 3, 64, start=1.0, on_failure="ignore")
    features = [torch.randn(2000, 64) for _ in range(3)]
    shares, steps = [], []
    for pays in (False, True):
        with bfloat16_products(pays), torch.no_grad():
            fusion(features)
        shares.append(fusion.info.converged.float().mean(0))
        steps.append(fusion.info.steps.float().mean())
    assert 0.6 < shares[0].mean() < 0.95  # they are hard
    assert (shares[0].mean() - shares[1].mean()).abs() <= 0.01
    assert (shares[0] - shares[1]).abs().max() <= 0.01  # of each solve, too
    assert (steps[0] - steps[1]).abs() <= 0.25


def test_a_sample_has_its_steps_whatever_its_batch_mates_took():
    options = {"injection": "raw", "max_steps": 24, "on_failure": "ignore", "tol": 1e-4}
    fusion = DEQFusion([64], 64, **arguments(**options), start=0.3)
    x = torch.randn(12, 64) * torch.logspace(-2, 1, 12).unsqueeze(1)
    with bfloat16_products():
        fusion([x])
        together = fusion.info.forward["z_1"]
        assert not together.converged.all() and together.steps.max() <= 24
        for i in range(12):
            fusion([x[i : i + 1]])
            alone = fusion.info.forward["z_1"]
            assert alone.converged.item() == together.converged[i].item()
            assert abs(alone.steps.item() - together.steps[i].item()) <= 1  # rounding


def test_a_long_neumann_series_is_as_exact_as_the_solve():
    """Rough steps have no part in it."""
    options = {"tol": 1e-6, "start": 0.05, "fuse_weights": False}
    options = arguments(**options)
    fusion = DEQFusion([64], 64, **options, gradient="neumann", neumann_terms=60)
    exact = DEQFusion([64], 64, **options)
    exact.load_state_dict(fusion.state_dict())
    features = [torch.randn(5, 64).requires_grad_()]
    with bfloat16_products():
        ours, theirs = (gradients(f(features), f, features) for f in (fusion, exact))
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.parametrize("plain", [False, True], ids=["written out", "plain map"])
def test_mixed_precision_rounds_products_and_nothing_else(plain):
    fusion = DEQFusion([32, 32], 64)
    features = [torch.randn(8, 32).requires_grad_() for _ in range(2)]
    named = dict(fusion.named_parameters())

    def run(enabled, plain):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            if plain:
                with by_autograd():
                    fused = fusion(features)
            else:
                fused = fusion(features)
        cotangent = torch.linspace(-1, 1, fused.numel()).view_as(fused)
        grads = torch.autograd.grad(fused, named.values(), cotangent)
        return fused, dict(zip(named, grads, strict=True))

    fused, grads = run(True, plain)
    single, expected = run(False, True)
    assert fused.dtype == torch.float32
    assert all(grad.dtype == torch.float32 for grad in grads.values())
    assert 0 < (fused - single).norm() / single.norm() < 0.05
    for name in ("unimodal.weight1", "fuse.weight"):
        assert (grads[name] - expected[name]).norm() <= 0.3 * expected[name].norm()
