"""A batch of no samples is fused, differentiated, observed and reported like any other."""

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import SOLVERS
from unit_tests.fusions.deq_reference import arguments
from unit_tests.fusions.equilibrium.fusion_map.oracle import bfloat16_products

WIDTHS, DIM = (16, 5, 16), 16
OPTIONS = [
    *({"equations": name} for name in ("paper", "released", "released_imdb", "released_mosi")),
    *({"solver": solver} for solver in sorted(SOLVERS)),
    *({"gradient": gradient} for gradient in ("one_step", "neumann")),
    *({"jacobian_weight": 1.0, "jacobian_blocks": blocks} for blocks in ("diagonal", "joint")),
    {"joint": True, "jacobian_weight": 1.0},
    {"dropout": 0.3},
    {"f_theta": False},
    {"f_fuse": False},
    {"gate": False},
    {"unroll": 2},
    {"fuse_bias": True, "fuse_weights": False},
    {"on_failure": "raise", "tol": 0.0, "max_steps": 1},
]


def fuse(leading, *, equations="scale_free", masked=False, dtype=torch.float32, **options):
    """Fuses empty features, trains by them, and returns the fusion and the result."""
    fusion = DEQFusion(WIDTHS, DIM, **arguments(equations, **options)).to(dtype)
    features = [torch.zeros(*leading, w, dtype=dtype, requires_grad=True) for w in WIDTHS]
    present = torch.ones(*leading, 3, dtype=torch.bool) if masked else None
    seen = []
    fused = fusion(features, present=present, observe=seen.append)
    (fused.square().sum() + fusion.auxiliary_loss).backward()
    assert fused.shape == (*leading, DIM) and fused.dtype == dtype
    assert all(x.grad is not None and x.grad.shape == x.shape for x in features)
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name
    return fusion, seen


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_no_samples_are_fused_and_trained_by(options, masked):
    fusion, seen = fuse((0,), masked=masked, **options)
    assert fusion.auxiliary_loss == 0
    if fusion.unroll is not None:
        return
    info = fusion.info
    for column in (info.steps, info.residual, info.converged):
        assert column.shape == (0, len(info.forward))
    assert info.summary() == {}
    assert bool(info.backward) == (options.get("gradient") is None)
    assert all(step.state.numel() == 0 for step in seen)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_they_may_be_of_any_dtype(dtype):
    fuse((0,), dtype=dtype)


def test_they_are_so_under_autocast_and_with_first_steps_in_bfloat16():
    with bfloat16_products():
        fuse((0,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fuse((0,))


@pytest.mark.parametrize("leading", [(0, 5), (5, 0), (2, 0, 4)], ids=str)
def test_they_may_have_leading_dimensions(leading):
    fusion, _ = fuse(leading)
    assert fusion.info.steps.shape == (*leading, 4)
