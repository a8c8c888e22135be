"""A fusion finds the same however seldom it asks whether all samples have converged."""

from dataclasses import replace
from functools import partial
from unittest import mock

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import SOLVERS, Anderson
from unit_tests.fusions.deq_reference import arguments

WIDTHS, DIM, BATCH = (16, 5), 16, 12
# older versions round products otherwise, and a map that hardly contracts multiplies that
NEW = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
OPTIONS = {
    "default": {},
    "hard": {"start": 2.0},
    "paper": {"equations": "paper", "start": 0.3 if NEW else 0.2},
    "released_mosi": {"equations": "released_mosi", "fuse_groups": 1},
    "joint": {"joint": True, "start": 0.3},
    "without f_theta": {"f_theta": False, "start": 2.0},
}
CASES = [(name, "anderson") for name in OPTIONS]
CASES += [(name, solver) for name in ("default", "joint") for solver in ("broyden", "picard")]
some_cases = pytest.mark.parametrize(("name", "solver"), CASES)


def runs(patience, asks, *, equations="scale_free", **options):
    """What is fused, its gradients and its statistics, for every such number of steps to ask."""
    options = arguments(equations, max_steps=14, on_failure="ignore", **options)
    fusion = DEQFusion(WIDTHS, DIM, **options).double()
    scales = torch.logspace(-1, 1, BATCH, dtype=torch.float64).unsqueeze(1)
    features = [scales * torch.randn(BATCH, width, dtype=torch.float64) for width in WIDTHS]
    features = [x.requires_grad_() for x in features]
    cotangent = torch.randn(BATCH, DIM, dtype=torch.float64)
    found = []
    for ask in asks:
        fusion.equilibrium = replace(fusion.equilibrium, ask_every=ask)
        with mock.patch("deq_fusion.fusions.equilibrium.solve.PATIENCE", patience):
            fused = fusion(features)
            grads = torch.autograd.grad(fused, [*fusion.parameters(), *features], cotangent)
        solves = [*fusion.info.forward.values(), *fusion.info.backward.values()]
        counts = [x for s in solves for x in (s.steps, s.converged)]
        found.append((counts, [fused.detach(), *grads], [s.residual for s in solves]))
    return found


@some_cases
def test_it_finds_the_same_to_the_last_bit_where_nobody_leaves(name, solver):
    often, *seldom = runs(torch.inf, (1, 2, 4, 8, None), solver=solver, **OPTIONS[name])
    steps = torch.stack(often[0][::2])
    assert len(steps.unique()) > 1
    for other in seldom:
        for mine, theirs in zip(other, often, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


# whose least squares do not multiply rounding by 10^10
RIDGED = {**SOLVERS, "anderson": partial(Anderson, ridge=1e-6 if NEW else 1e-4)}


@some_cases
def test_it_finds_the_same_to_rounding_where_samples_leave(name, solver):
    solver = RIDGED[solver]
    options = OPTIONS[name]
    (often,) = runs(torch.inf, (1,), solver=solver, **options)
    torch.manual_seed(0)
    for counts, values, residuals in runs(0.0, (1, 4), solver=solver, **options):
        torch.testing.assert_close(counts, often[0], rtol=0, atol=0)
        for x, y in zip(values, often[1], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6 * float(y.abs().max()))
        for x, y in zip(residuals, often[2], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)  # a thousandth of tol
