"""The fast engine finds the plain engine's fixed points and gradients."""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from fusions.equilibrium.fast import Traced
from fusions.equilibrium.kernels import TwoLayerKernel
from fusions.equilibrium.products import Weights

from fusions.deq import DEQFusion
from fusions.equilibrium import find_fixed_point
from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    VARIANTS,
    WIDTHS,
    arguments,
    make,
    make_features,
)

PAYS = "fusions.equilibrium.fast._bfloat16_pays"


def run(fusion, features, engine, present=None, seed=1):
    """The fused feature, every gradient by name, and the record, by an engine."""
    fusion.equilibrium = replace(fusion.equilibrium, engine=engine)
    torch.manual_seed(seed)  # the same dropout masks
    fused = fusion(features, present=present)
    cotangent = torch.linspace(-1, 1, fused.numel(), dtype=fused.dtype).view_as(fused)
    named = {name: p for name, p in fusion.named_parameters()}
    named |= {f"features[{i}]": x for i, x in enumerate(features) if x.requires_grad}
    grads = torch.autograd.grad(
        fused, list(named.values()), cotangent, allow_unused=True, materialize_grads=True
    )
    return fused.detach(), dict(zip(named, grads, strict=True)), fusion.info


def assert_close(ours, theirs, tol):
    torch.testing.assert_close(ours[0], theirs[0], rtol=tol, atol=tol)
    for name, expected in theirs[1].items():
        assert (ours[1][name] - expected).norm() <= tol * max(expected.norm(), 1e-3), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "options",
    [{}, {"dropout": 0.2}, {"gate": False}, {"f_theta": False}, {"f_fuse": False}],
    ids=str,
)
def test_engines_agree(variant, options):
    fusion, _ = make(variant, WIDTHS[:3], **options, **EXACT)
    features = make_features(fusion.input_dims, batch=5)
    assert_close(run(fusion, features, "fast"), run(fusion, features, "plain"), 1e-8)


@pytest.mark.parametrize("variant", ["default", "released_mosi"])
def test_engines_agree_where_modalities_are_absent(variant):
    fusion, _ = make(variant, WIDTHS[:3], **EXACT)
    features = make_features(fusion.input_dims, batch=6)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1]] * 2).bool()
    fast, plain = (run(fusion, features, engine, present) for engine in ("fast", "plain"))
    assert_close(fast, plain, 1e-8)
    for side in ("forward", "backward"):
        for name, stats in getattr(plain[2], side).items():
            assert (getattr(fast[2], side)[name].steps == 0).equal(stats.steps == 0)


def mixed_features(batch, width, dtype):
    """Features whose samples take from a few steps to all: scales differ, injected raw."""
    scales = torch.logspace(-0.8, 1, batch, dtype=dtype).unsqueeze(1)
    return [
        (scales.roll(i * 5, 0) * torch.randn(batch, width, dtype=dtype)).requires_grad_()
        for i in range(3)
    ]


@pytest.mark.parametrize("solver", ["anderson", "broyden", "picard"])
def test_samples_that_leave_early_change_nothing(solver):
    options = {"injection": "raw", "groups": 2, "solver": solver, "tol": 1e-11}
    fusion = DEQFusion([DIM] * 3, DIM, **arguments(**options), max_steps=300, start=0.03).double()
    features = mixed_features(16, DIM, torch.float64)
    with (
        mock.patch("fusions.equilibrium.solvers.PATIENCE", 0.0),
        mock.patch.object(Traced, "narrow", autospec=True, side_effect=Traced.narrow) as narrow,
    ):
        fast = run(fusion, features, "fast")
    assert narrow.call_count >= 4
    steps = fast[2].steps
    assert steps.min() < steps.max() / 2
    with mock.patch("fusions.equilibrium.solvers.PATIENCE", float("inf")):
        assert_close(fast, run(fusion, features, "fast"), 1e-8)
    assert_close(fast, run(fusion, features, "plain"), 1e-8)


def test_where_a_solve_ends_early_the_gradient_is_that_of_its_best_iterate(double):
    """Against a dense solve with the Jacobian at that very state."""
    limits = {"tol": 0.0, "max_steps": 4, "backward_tol": 1e-13, "backward_max_steps": 200}
    options = {"f_theta": False, "injection": "raw", "groups": 2, "start": 1.0}
    fusion = DEQFusion([DIM], DIM, **arguments(**options), **limits, on_failure="ignore")
    x = torch.randn(1, DIM)
    z, ours, info = run(fusion, [x], "fast")
    assert info.residual.max() > 1e-6 and info.backward["z_fuse"].converged.all()

    cell, cotangent = fusion.fuse, torch.linspace(-1, 1, DIM)

    def step(z):
        return cell.step(z, x, None, torch.ones(1, 1), None, fusion.weights * x, *cell.tensors())

    jacobian = torch.autograd.functional.jacobian(lambda z: step(z[None])[0], z[0])
    u = torch.linalg.solve(torch.eye(DIM) - jacobian.T, cotangent)
    named = dict(fusion.named_parameters())
    expected = torch.autograd.grad(step(z), list(named.values()), u[None])
    for name, want in zip(named, expected, strict=True):
        torch.testing.assert_close(ours[name], want, msg=name)


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-5])
def test_an_approach_in_bfloat16_ends_at_the_tolerance_of_float32(tol):
    fusion = DEQFusion([32, 48], 64, tol=tol, max_steps=60, start=0.3)
    features = [torch.randn(10, 32).requires_grad_(), torch.randn(10, 48).requires_grad_()]
    with (
        mock.patch(PAYS, lambda rows: True),
        mock.patch(
            "fusions.equilibrium.equilibrium.find_fixed_point", side_effect=find_fixed_point
        ) as find,
    ):
        fast = run(fusion, features, "fast")
    assert find.call_count == 8  # two blocks, forward and backward, approached and solved
    exact = DEQFusion([32, 48], 64, tol=1e-12, max_steps=200, start=0.3).double()
    exact.load_state_dict(fusion.state_dict())
    wide = [x.detach().double().requires_grad_() for x in features]
    truth = run(exact, wide, "plain")
    error = (fast[0] - truth[0]).norm() / truth[0].norm()
    assert error <= 5 * tol
    for stats in (*fast[2].forward.values(), *fast[2].backward.values()):
        assert stats.converged.all() and stats.residual.max() <= tol
        assert stats.steps.max() <= 60
    ours, expected = (
        torch.cat([grad.flatten() for grad in grads.values()]) for grads in (fast[1], truth[1])
    )
    assert (ours - expected).norm() <= 20 * tol * expected.norm()


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7])
def test_an_approach_leaves_steps_for_the_solve(most):
    options = {"tol": 1e-7, "max_steps": most, "on_failure": "ignore", "start": 0.5}
    fusion = DEQFusion([16], 16, **options)
    with mock.patch(PAYS, lambda rows: True):
        fusion([torch.randn(5, 16)])
    assert fusion.info.steps.max() <= most
    assert fusion.info.residual.isfinite().all()


def test_float64_is_never_rounded():
    with (
        mock.patch(PAYS, lambda rows: True),
        mock.patch(
            "fusions.equilibrium.equilibrium.find_fixed_point", side_effect=find_fixed_point
        ) as find,
    ):
        DEQFusion([16], 16).double()([torch.randn(3, 16, dtype=torch.float64)])
    assert find.call_count == 2


@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_mixed_precision_rounds_products_and_nothing_else(engine):
    fusion = DEQFusion([32, 32], 64)
    features = [torch.randn(8, 32).requires_grad_() for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused, grads, info = run(fusion, features, engine)
    single, expected, _ = run(fusion, features, "plain")
    assert fused.dtype == torch.float32
    assert all(grad.dtype == torch.float32 for grad in grads.values())
    assert 0 < (fused - single).norm() / single.norm() < 0.05
    for name in ("unimodal.weight1", "fuse.weight"):
        assert (grads[name] - expected[name]).norm() <= 0.3 * expected[name].norm()


def test_observing_takes_the_plain_engine():
    fusion, seen = DEQFusion([16], 16), []
    with mock.patch.object(Traced, "__call__", side_effect=AssertionError("work was saved")):
        fusion([torch.randn(3, 16)], observe=seen.append)
    assert seen


def test_inference_evaluates_nothing_for_a_gradient():
    options = {"tol": 0.0, "max_steps": 3, "on_failure": "ignore", "f_fuse": False}
    fusion, image = DEQFusion([16], 16, **arguments(**options)), TwoLayerKernel.image
    for grad, evaluations in ((False, 3), (True, 4)):  # the best iterate, once more
        with (
            torch.set_grad_enabled(grad),
            mock.patch.object(TwoLayerKernel, "image", autospec=True, side_effect=image) as counted,
        ):
            fusion([torch.randn(3, 16)])
        assert counted.call_count == evaluations


def test_prepared_weights_do_not_outlive_the_backward_pass():
    fusion = DEQFusion([16], 16)
    with mock.patch(PAYS, lambda rows: True):
        fused = fusion([torch.randn(3, 16)])
    node = fused.grad_fn
    while "_FastGradient" not in node.name():
        node = node.next_functions[0][0]
    fused.backward(torch.ones_like(fused), retain_graph=True)
    assert node.weights is None
    first = fusion.fuse.weight.grad.clone()
    fused.backward(torch.ones_like(fused))
    torch.testing.assert_close(fusion.fuse.weight.grad, 2 * first)


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
    options = {"injection": "raw", "groups": 2, "tol": 1e-11, "max_steps": 300, **options}
    fusion = DEQFusion([DIM] * 3, DIM, **arguments(**options), start=0.03).double()
    features = mixed_features(16, DIM, torch.float64)
    present = torch.ones(16, 3, dtype=torch.bool)
    present[::3, 0] = present[1::5, 2] = False
    with mock.patch("fusions.equilibrium.solvers.PATIENCE", 0.0):
        fast = run(fusion, features, "fast", present)
    assert_close(fast, run(fusion, features, "plain", present), 1e-8)


def test_a_sample_has_its_steps_whatever_its_batch_mates_took():
    options = {"injection": "raw", "max_steps": 24, "on_failure": "ignore", "tol": 1e-4}
    fusion = DEQFusion([64], 64, **arguments(**options), start=0.3)
    x = torch.randn(12, 64) * torch.logspace(-2, 1, 12).unsqueeze(1)
    with mock.patch(PAYS, lambda rows: True):
        fusion([x])
        together = fusion.info.forward["z_1"]
        assert not together.converged.all() and together.steps.max() <= 24
        for i in range(12):
            fusion([x[i : i + 1]])
            alone = fusion.info.forward["z_1"]
            assert alone.converged.item() == together.converged[i].item()
            assert abs(alone.steps.item() - together.steps[i].item()) <= 1  # rounding


def test_an_approach_that_overflows_is_left_to_full_precision():
    fusion, image = DEQFusion([16], 16), TwoLayerKernel.image

    def overflowing(self, weights, *rows):
        result, trace = image(self, weights, *rows)
        return (
            result * float("nan") if weights.w1.matrix.dtype == torch.bfloat16 else result
        ), trace

    x = torch.randn(3, 16)
    expected = fusion([x])
    with (
        mock.patch(PAYS, lambda rows: True),
        mock.patch.object(TwoLayerKernel, "image", overflowing),
    ):
        torch.testing.assert_close(fusion([x]), expected, rtol=1e-2, atol=1e-2)
    assert fusion.info.converged.all()


@pytest.mark.parametrize("options", [{"gradient": "one_step"}, {"gradient": "neumann"}], ids=str)
def test_engines_agree_on_approximate_gradients(options):
    fusion, _ = make("default", WIDTHS[:3], **options, **EXACT)
    features = make_features(fusion.input_dims, batch=5)
    fast, plain = run(fusion, features, "fast"), run(fusion, features, "plain")
    assert_close(fast, plain, 1e-8)
    assert not fast[2].backward


def test_a_long_neumann_series_is_as_exact_as_the_solve():
    """An approach in lower precision has no part in it."""
    options = {"tol": 1e-6, "start": 0.05, "fuse_weights": False}
    options = arguments(**options)
    fusion = DEQFusion([64], 64, **options, gradient="neumann", neumann_terms=60)
    exact = DEQFusion([64], 64, **options)
    exact.load_state_dict(fusion.state_dict())
    features = [torch.randn(5, 64).requires_grad_()]
    with mock.patch(PAYS, lambda rows: True):
        assert_close(run(fusion, features, "fast"), run(exact, features, "fast"), 1e-4)


def test_a_product_with_factor_zero_is_zero_whatever_was_in_the_memory():
    x = torch.randn(2, 4, 16).mT.contiguous().mT.flatten(0, 1)
    weights = Weights(torch.randn(2, 16, 16), 0.0, torch.bfloat16)
    bias = torch.randn(2, 1, 16)
    for _ in range(20):
        dirty = [torch.full((2, 16, 16), torch.nan, dtype=torch.bfloat16) for _ in range(4)]
        del dirty
        assert not weights.times(x, [4, 4]).any() and not weights.pull(x, [4, 4]).any()
        want = bias.bfloat16().float().expand(2, 4, 16).flatten(0, 1)
        assert weights.times(x, [4, 4], bias).equal(want)
