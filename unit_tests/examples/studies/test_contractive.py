"""The guarantee of one fixed point: its lemmas one by one, and random starts that agree."""

import numpy as np
import pytest
import torch

from deq_fusion.examples.studies.candidates import ContractiveFusion
from deq_fusion.examples.studies.candidates import contractive as module
from deq_fusion.examples.studies.candidates.contractive import CLIP, norm_bound, soft_norm
from deq_fusion.fusions.analysis import settle

WIDTHS, DIM, N = (6, 9, 5), 8, 3


def grown(seed, factor, **options):
    """A fusion in float64 whose parameters are far from their start, and features."""
    torch.manual_seed(seed)
    fusion = ContractiveFusion(WIDTHS, DIM, **options).double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter += factor * torch.randn_like(parameter)
    return fusion, [torch.randn(4, width, dtype=torch.float64) for width in WIDTHS]


def apart(fusion, features, seed, steps=250):
    """How far apart, relative to their size, plain iteration from four random starts ends.

    It may not end sooner than rounding, or after `steps`.
    """
    torch.manual_seed(seed)
    f, zero = fusion.whole_map([x.repeat(4, 1) for x in features])
    z = 3 * torch.randn_like(zero)
    for _ in range(steps):
        before, z = z, f(z)
        if (z - before).abs().max() < 1e-14:
            break
    ends = z.reshape(4, -1)
    return ((ends - ends[0]).norm(dim=1).max() / ends.norm(dim=1).max()).item()


@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0])
def test_random_starts_agree_to_1e_10_over_many_seeds(factor):
    for seed in range(20):
        fusion, features = grown(seed, factor)
        assert apart(fusion, features, seed + 1) <= 1e-10


def test_without_the_bound_they_do_not(monkeypatch):
    """So that the test above can fail."""
    monkeypatch.setattr(module, "norm_bound", lambda weight: weight.new_zeros(1, 1))
    assert max(apart(*grown(seed, 3.0), seed + 1) for seed in range(3)) > 0.1


def test_all_solvers_agree():
    fusion, features = grown(0, 1.0)
    found = settle(*fusion.whole_map(features), starts=1, tol=1e-12)
    assert (found.label == 0).all() and found.radius.max() <= fusion.contraction


@pytest.mark.parametrize("factor", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("contraction", [0.5, 0.9])
def test_every_step_brings_states_nearer_by_the_bound(factor, contraction):
    fusion, features = grown(3, factor, contraction=contraction)
    f, zero = fusion.whole_map(features)
    for scale in (1e-3, 1.0, 10.0):
        one, other = scale * torch.randn_like(zero), scale * torch.randn_like(zero)
        # z_fuse with the same z_i: those of the others come before it
        other[:, :-1] = one[:, :-1]
        before, after = (one - other).norm(dim=2), (f(one) - f(other)).norm(dim=2)
        assert (after[:, -1] <= contraction * before[:, -1] + 1e-12).all()
        other = scale * torch.randn_like(zero)
        before, after = (one - other).norm(dim=2), (f(one) - f(other)).norm(dim=2)
        assert (after[:, :-1] <= contraction * before[:, :-1] + 1e-12).all()


def test_dense_jacobians_of_each_block_are_below_the_bound():
    fusion, features = grown(1, 5.0)
    f, zero = fusion.whole_map([x[:1] for x in features])
    for scale in (1e-2, 1.0, 3.0):
        at = scale * torch.randn_like(zero)
        jacobian = torch.autograd.functional.jacobian(f, at).squeeze().movedim(2, 1)
        for i in range(N + 1):
            assert torch.linalg.matrix_norm(jacobian[i, i], 2) <= fusion.contraction
        for i in range(N):  # triangular: no z_i sees another or z
            assert all(not jacobian[i, k].any() for k in range(N + 1) if k != i)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_norm_is_group_norm_with_eps_one_and_lipschitz_one(size):
    x = size * torch.randn(1, 12, dtype=torch.float64)
    groups = x.view(3, 4).numpy()
    centred = groups - groups.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1)
    got = soft_norm(x, 3)
    np.testing.assert_allclose(got.numpy().reshape(3, 4), expected, rtol=1e-10, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda x: soft_norm(x, 3), x).view(12, 12)
    torch.testing.assert_close(jacobian, jacobian.T)
    values = torch.linalg.eigvalsh(jacobian)
    assert values.min() >= -1e-12 and values.max() <= 1 + 1e-12
    centred = torch.from_numpy(centred)
    t = (centred.square().mean(1) + 1).sqrt()
    along = torch.stack([0 * t, 1 / t, 1 / t, 1 / t**3]).flatten().sort().values
    torch.testing.assert_close(values, along, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_bound_of_a_norm_is_above_it_and_near(dtype, scale):
    weight = scale * torch.randn(5, 64, 64, dtype=dtype)
    weight[1, :, 1:] = 0  # of rank one
    weight[2] = scale * torch.eye(64)  # all singular values alike: the worst case
    exact = torch.linalg.matrix_norm(weight.double(), 2)
    ratio = norm_bound(weight).flatten().double() / exact
    assert (ratio >= 1).all() and (ratio <= 64 ** (1 / 256) + 5e-5).all()
    assert norm_bound(torch.zeros(3, 3)).item() < 1e-18


def test_the_bound_is_differentiable():
    weight = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm_bound, weight)


def test_matrices_are_bounded_as_the_proof_has_it():
    for factor in (0.0, 20.0):
        fusion, _ = grown(2, factor)
        (a, _, b, _), (w, _, v, _) = fusion.bounded()
        norm = torch.linalg.matrix_norm
        assert (norm(a, 2) <= 1).all() and (norm(b, 2) <= fusion.contraction).all()
        assert norm(v, 2) * (1 + CLIP * norm(w, 2)) <= fusion.contraction
        assert norm(b, 2).min() > 0.8 * fusion.contraction  # and not far below


@pytest.mark.parametrize("absent", [False, True])
def test_it_is_the_formula_iterated(absent):
    fusion, features = grown(0, 0.5, tol=1e-12, max_steps=300)
    present = torch.ones(4, N, dtype=torch.bool)
    present[2, 1] = not absent
    with torch.no_grad():
        fused = fusion(features, present=present if absent else None).numpy()
        (a, a0, b, b0), (w, w0, v, v0) = [[x.numpy() for x in part] for part in fusion.bounded()]
        projections = [p.weight.numpy() for p in fusion.deq.projections]
        weights, scale, shift = (
            p.detach().numpy() for p in (fusion.deq.weights, fusion.scale, fusion.shift)
        )

    def norm(x):
        parts = x.reshape(fusion.groups, -1)
        parts = parts - parts.mean(1, keepdims=True)
        return (parts / np.sqrt((parts**2).mean(1, keepdims=True) + 1)).reshape(-1)

    for sample in range(4):
        there = [i for i in range(N) if present[sample, i]]
        y = {i: projections[i] @ features[i][sample].numpy() for i in there}
        x_fuse = sum(weights[i] * y[i] for i in there)
        x_fuse = x_fuse / np.sqrt((x_fuse**2).mean())
        states = {}
        for i in there:
            z, x = np.zeros(DIM), y[i] / np.sqrt((y[i] ** 2).mean())
            for _ in range(400):
                h = np.maximum(norm(a[i] @ z + a0[i, 0]), 0)
                z = norm(np.maximum(b[i] @ h + b0[i, 0] + x, 0))
            states[i] = z
        z = np.zeros(DIM)
        for _ in range(400):
            gates = np.mean([np.tanh(w @ (z + states[i]) + w0) for i in there], axis=0)
            z = norm(np.maximum(v @ (np.clip(z, -CLIP, CLIP) * gates) + v0 + x_fuse, 0))
        np.testing.assert_allclose(fused[sample], scale * z + shift, rtol=1e-8, atol=1e-8)


def test_steps_are_within_what_the_proof_allows():
    fusion, features = grown(4, 1.0, solver="picard", tol=1e-3, max_steps=200)
    with torch.no_grad():
        fusion(features)
    assert fusion.info.converged.all()
    # residuals fall by r a step, from the first, which is 1, and norms of states by little
    allowed = 2 + np.log(1e-3 / 2) / np.log(fusion.contraction)
    assert fusion.info.steps.max() <= allowed


@pytest.mark.parametrize("contraction", [0, 1.0, -0.5])
def test_bounds_that_guarantee_nothing_are_refused(contraction):
    with pytest.raises(ValueError, match="contraction must be above 0 and at most 0.99"):
        ContractiveFusion([4, 4], 8, contraction=contraction)
