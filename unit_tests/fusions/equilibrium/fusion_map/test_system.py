"""A system is solved and differentiated as its plain maps are; what leaves a solve leaves whole."""

from contextlib import nullcontext
from dataclasses import replace
from unittest import mock

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium.fusion_map.gated import GatedMap
from deq_fusion.fusions.equilibrium.fusion_map.residual import ResidualMap, TwoLayer
from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    VARIANTS,
    WIDTHS,
    arguments,
    make,
    make_features,
)
from unit_tests.fusions.equilibrium.fusion_map.oracle import by_autograd

PATIENCE = "deq_fusion.fusions.equilibrium.solve.PATIENCE"


def run(fusion, features, *, plain=False, present=None, seed=1):
    """The fused feature, every gradient by name, and the record."""
    torch.manual_seed(seed)  # the same dropout masks
    with by_autograd() if plain else nullcontext():
        fused = fusion(features, present=present)
        cotangent = torch.linspace(-1, 1, fused.numel(), dtype=fused.dtype).view_as(fused)
        named = dict(fusion.named_parameters())
        named |= {f"features[{i}]": x for i, x in enumerate(features) if x.requires_grad}
        grads = torch.autograd.grad(
            fused, list(named.values()), cotangent, allow_unused=True, materialize_grads=True
        )
    return fused.detach(), dict(zip(named, grads, strict=True)), fusion.info


def assert_close(ours, theirs, tol=1e-8):
    torch.testing.assert_close(ours[0], theirs[0], rtol=tol, atol=tol)
    for name, expected in theirs[1].items():
        assert (ours[1][name] - expected).norm() <= tol * max(expected.norm(), 1e-3), name


PLAIN = [(variant, {"dropout": 0.2}) for variant in VARIANTS]
PLAIN += [
    (variant, options)
    for variant in ("default", "released", "released_mosi")
    for options in ({}, {"gate": False}, {"f_theta": False}, {"f_fuse": False})
]


@pytest.mark.parametrize(("variant", "options"), PLAIN, ids=str)
def test_result_and_gradients_are_those_of_the_plain_maps(variant, options):
    fusion, _ = make(variant, WIDTHS[:3], **options, **EXACT)
    features = make_features(fusion.input_dims, batch=5)
    assert_close(run(fusion, features), run(fusion, features, plain=True))


@pytest.mark.parametrize("variant", ["default", "released_mosi"])
def test_they_are_so_where_modalities_are_absent(variant):
    fusion, _ = make(variant, WIDTHS[:3], **EXACT)
    features = make_features(fusion.input_dims, batch=6)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1]] * 2).bool()
    ours, theirs = (run(fusion, features, plain=plain, present=present) for plain in (False, True))
    assert_close(ours, theirs)
    for side in ("forward", "backward"):
        for name, stats in getattr(theirs[2], side).items():
            torch.testing.assert_close(
                getattr(ours[2], side)[name].steps == 0, stats.steps == 0, rtol=0, atol=0
            )


@pytest.mark.parametrize("options", [{"gradient": "one_step"}, {"gradient": "neumann"}], ids=str)
def test_approximate_gradients_are_those_of_the_plain_maps(options):
    fusion, _ = make("default", WIDTHS[:3], **options, **EXACT)
    features = make_features(fusion.input_dims, batch=5)
    ours, theirs = run(fusion, features), run(fusion, features, plain=True)
    assert_close(ours, theirs)
    assert not ours[2].backward


def mixed_features(batch, width, dtype):
    """Features whose samples take from a few steps to all: scales differ, injected raw."""
    scales = torch.logspace(-0.8, 1, batch, dtype=dtype).unsqueeze(1)
    return [
        (scales.roll(i * 5, 0) * torch.randn(batch, width, dtype=dtype)).requires_grad_()
        for i in range(3)
    ]


def leaving(**options):
    """A fusion of which samples leave, and its features."""
    options = {"injection": "raw", "groups": 2, "tol": 1e-11, "max_steps": 300, **options}
    fusion = DEQFusion([DIM] * 3, DIM, **arguments(**options), start=0.03).double()
    fusion.equilibrium = replace(fusion.equilibrium, ask_every=1)
    return fusion, mixed_features(16, DIM, torch.float64)


@pytest.mark.parametrize("solver", ["anderson", "broyden", "picard"])
def test_samples_that_leave_early_change_nothing(solver):
    fusion, features = leaving(solver=solver)
    with (
        mock.patch(PATIENCE, 0.0),
        mock.patch.object(
            ResidualMap, "narrow", autospec=True, side_effect=ResidualMap.narrow
        ) as left,
        mock.patch.object(
            GatedMap, "narrow", autospec=True, side_effect=GatedMap.narrow
        ) as left_fused,
    ):
        some = run(fusion, features)
    assert left.call_count and left_fused.call_count
    steps = some[2].steps
    assert steps.min() < steps.max() / 2
    with mock.patch(PATIENCE, float("inf")):
        whole = run(fusion, features)
    assert_close(some, whole)
    torch.testing.assert_close(steps, whole[2].steps, rtol=0, atol=0)
    assert_close(some, run(fusion, features, plain=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.3},
        {"residual": True},
        {"cell": "one_layer"},
        {"gate": False},
        {"norm_order": "norm_relu"},
        {"f_theta": False, "dropout": 0.3},
    ],
    ids=str,
)
def test_samples_leave_with_all_that_is_theirs(options):
    fusion, features = leaving(**options)
    present = torch.ones(16, 3, dtype=torch.bool)
    present[::3, 0] = present[1::5, 2] = False
    with mock.patch(PATIENCE, 0.0):
        ours = run(fusion, features, present=present)
    assert_close(ours, run(fusion, features, plain=True, present=present))


def test_where_a_solve_ends_early_the_gradient_is_that_of_its_best_iterate(double):
    """Against a dense solve with the Jacobian at that very state."""
    limits = {"tol": 0.0, "max_steps": 4, "backward_tol": 1e-13, "backward_max_steps": 200}
    options = {"f_theta": False, "injection": "raw", "groups": 2, "start": 1.0}
    fusion = DEQFusion([DIM], DIM, **arguments(**options), **limits, on_failure="ignore")
    x = torch.randn(1, DIM)
    z, ours, info = run(fusion, [x])
    assert info.residual.max() > 1e-6 and info.backward["z_fuse"].converged.all()

    cell, cotangent = fusion.fuse, torch.linspace(-1, 1, DIM)

    def step(z):
        f = cell.map(x, None, torch.ones(1, 1), None, fusion.weights * x, *cell.inputs())
        return f.step(z)[0]

    jacobian = torch.autograd.functional.jacobian(lambda z: step(z[None])[0], z[0])
    u = torch.linalg.solve(torch.eye(DIM) - jacobian.T, cotangent)
    named = dict(fusion.named_parameters())
    expected = torch.autograd.grad(step(z), list(named.values()), u[None])
    for name, want in zip(named, expected, strict=True):
        torch.testing.assert_close(ours[name], want, msg=name)


def test_a_forward_evaluates_nothing_for_a_gradient():
    options = {"tol": 0.0, "max_steps": 3, "on_failure": "ignore", "f_fuse": False}
    fusion, step = DEQFusion([16], 16, **arguments(**options), gradient="one_step"), TwoLayer.step
    for learns in (False, True):
        with (
            torch.set_grad_enabled(learns),
            mock.patch.object(TwoLayer, "step", autospec=True, side_effect=step) as counted,
        ):
            fused = fusion([torch.randn(3, 16)])
            assert counted.call_count == 3
            if learns:
                fused.backward(torch.randn_like(fused))
                assert counted.call_count == 4  # at the best iterate, once more
