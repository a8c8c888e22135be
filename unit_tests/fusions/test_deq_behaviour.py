"""A sample is fused on its own; what the solves did is told; the module copies and saves."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import ConvergenceWarning
from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    GROUPS,
    WIDTHS,
    arguments,
    gradients,
    make,
    make_features,
    recorded_masks,
)

joint = pytest.mark.parametrize("joint", [False, True])
variants = pytest.mark.parametrize("variant", ["default", "paper", "released", "released_mosi"])


def close(got, want, tol=1e-10):
    torch.testing.assert_close(got, want, rtol=tol, atol=tol)


@variants
@joint
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_a_sample_alone_and_in_a_batch_are_the_same(variant, joint, dtype, tol):
    fusion, _ = make(variant, WIDTHS[:3], joint=joint)  # at the default tolerance
    fusion.to(dtype)
    scales = torch.tensor([1.0, 0.3, 30.0, 3.0], dtype=dtype).unsqueeze(1)
    features = make_features(fusion.input_dims, batch=4, dtype=dtype)
    cotangent = torch.randn(4, DIM, dtype=dtype)

    def run(rows):
        fused = fusion([scales[rows] * x[rows] for x in features])
        grads = torch.autograd.grad(fused, features, cotangent[rows])
        assert fused.dtype == dtype
        return [fused, fusion.info.steps, *(g[rows] for g in grads)]

    whole = run(slice(None))
    for k in range(4):
        for alone, together in zip(run(slice(k, k + 1)), whole, strict=True):
            close(alone, together[k : k + 1], tol)


@joint
def test_an_earlier_forward_leaves_no_trace(joint):
    fusion, _ = make("default", WIDTHS[:2], joint=joint)
    features = make_features(fusion.input_dims)
    first, info = fusion(features), fusion.info
    between = fusion([100 * x for x in make_features(fusion.input_dims, batch=5)])
    between.backward(torch.randn_like(between))
    torch.testing.assert_close(fusion(features), first, rtol=0, atol=0)
    assert fusion.info is not info and not fusion.info.backward
    assert fusion.info.steps.equal(info.steps) and fusion.info.residual.equal(info.residual)


@joint
def test_leading_dimensions_are_samples(joint):
    fusion, _ = make("default", WIDTHS[:2], joint=joint)
    features = make_features(fusion.input_dims, batch=6)
    present = torch.tensor([[True, True], [True, False], [False, True]]).repeat(2, 1)
    flat = fusion(features, present=present)
    steps = fusion.info.steps
    nested = fusion([x.view(2, 3, -1) for x in features], present=present.view(2, 3, 2))
    assert nested.shape == (2, 3, DIM)
    close(nested.view(6, DIM), flat)
    torch.testing.assert_close(fusion.info.steps, steps.view(2, 3, -1), rtol=0, atol=0)


def test_info_tells_what_the_solves_did():
    fusion = DEQFusion([5, 7], 64)
    assert fusion.info is None
    features = make_features(fusion.input_dims, batch=4, dtype=torch.float32)
    fused = fusion(features)
    info = fusion.info
    assert list(info.forward) == ["z_1", "z_2", "z_fuse"] and not info.backward
    for column in (info.steps, info.residual, info.converged):
        assert column.shape == (4, 3)
    assert info.converged.equal(info.residual <= 1e-3) and info.converged.all()
    assert info.steps.dtype == torch.long and info.steps.min() >= 2
    assert set(info.summary()) == {"steps", "converged", "residual"}

    fused.backward(torch.randn_like(fused))
    assert sorted(info.backward) == sorted(info.forward) and fusion.info is info
    assert all(s.steps.shape == (4,) and s.converged.all() for s in info.backward.values())
    summary = info.summary()
    assert summary["steps"] == pytest.approx(info.steps.float().mean().item())
    assert summary["residual"] == pytest.approx(info.residual.max().item())
    assert summary["converged"] == summary["backward_converged"] == 1.0
    assert {"backward_steps", "backward_residual"} < set(summary)


@joint
def test_observe_sees_every_step(joint):
    fusion, reference = make("default", WIDTHS[:2], joint=joint, tol=1e-6)
    features = make_features(fusion.input_dims, batch=3)
    seen = []
    fusion(features, observe=seen.append)
    blocks = {"joint": slice(0, 1)} if joint else {"unimodal": slice(0, 2), "fuse": slice(2, 3)}
    steps = [(name, int(fusion.info.steps[:, part].max())) for name, part in blocks.items()]
    assert [(s.block, s.step) for s in seen] == [
        (name, k) for name, last in steps for k in range(1, last + 1)
    ]
    y = reference.projected(features)
    x, x_fuse = [reference.scaled(y_i) for y_i in y], reference.x_fuse(y)
    states = None if joint else [s.state for s in seen if s.block == "unimodal"][-1]
    for s in seen:
        if joint:
            image, z = reference.step(s.state, features), s.state[:, -1]
            gates = image[:, :-1].unbind(1)  # equation 9 has the new z_i
        elif s.block == "unimodal":
            image, gates = torch.stack([reference.f_i(i, s.state[i], x[i]) for i in range(2)]), None
        else:
            image, gates, z = reference.f_fuse(s.state, list(states), x_fuse), states, s.state
        flat = (1, 2) if joint else -1
        residual = (image - s.state).norm(dim=flat) / image.norm(dim=flat)
        torch.testing.assert_close(s.residual, residual, rtol=1e-6, atol=1e-12)
        if gates is None:
            assert s.gates is None
        else:
            close(s.gates, torch.stack([reference.alpha(z, z_i) for z_i in gates], 1))


def test_observe_sees_no_gates_where_there_are_none():
    fusion = DEQFusion([5, 7], DIM, **arguments(groups=GROUPS, gate=False))
    seen = []
    fusion(make_features(fusion.input_dims, dtype=torch.float32), observe=seen.append)
    assert {s.block for s in seen} == {"unimodal", "fuse"}
    assert all(s.gates is None for s in seen)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_samples_that_do_not_converge_are_reported(direction):
    options = {"groups": GROUPS, "backward_tol": 1e-3, "backward_max_steps": 40}
    prefix = "backward_" * (direction == "backward")
    options |= {f"{prefix}tol": 1e-12, f"{prefix}max_steps": 2}

    def run(policy):
        fusion = DEQFusion([5, 7], DIM, on_failure=policy, **options)
        fused = fusion(make_features(fusion.input_dims, dtype=torch.float32))
        fused.backward(torch.randn_like(fused))
        return fusion.info

    told = f"{direction} solve of .*tol=1e-12 .worst .*; raise"
    with pytest.warns(ConvergenceWarning, match=told):
        run("warn")
    with pytest.raises(RuntimeError, match=f"{direction} solve .* must reach tol=1e-12, but"):
        run("raise")
    stats = getattr(run("ignore"), direction)["z_fuse"]
    assert not stats.converged.any() and (stats.steps == 2).all()


class Host(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(5, 5)
        self.fusion = DEQFusion([5, 7], DIM, groups=GROUPS, jacobian_weight=1.0)

    def forward(self, x, y):
        return self.fusion([self.encoder(x), y])


def test_copies_and_pickles_work_after_forward_and_backward():
    host, (x, y) = Host(), make_features([5, 7], dtype=torch.float32)
    fused = host(x, y)
    for _ in range(2):
        buffer = io.BytesIO()
        torch.save(host, buffer)
        for other in (copy.deepcopy(host), pickle.loads(pickle.dumps(host))):
            assert other.fusion.info is None and other.fusion.auxiliary_loss == 0
            torch.testing.assert_close(other(x, y), fused, rtol=0, atol=0)
        assert host.fusion.info is not None and host.fusion.auxiliary_loss > 0
        ((fused * torch.randn_like(fused)).sum() + host.fusion.auxiliary_loss).backward()
        fused = host(x, y)


@variants
def test_state_dict_round_trip(variant):
    fusion, _ = make(variant, WIDTHS[:2])
    other, _ = make(variant, WIDTHS[:2])
    features = make_features(fusion.input_dims)
    assert not other(features).equal(fusion(features))
    other.load_state_dict(fusion.state_dict())
    torch.testing.assert_close(other(features), fusion(features), rtol=0, atol=0)


def test_no_forward_changes_a_parameter():
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS, jacobian_weight=1.0, dropout=0.1)
    before = copy.deepcopy(fusion)
    fused = fusion(make_features(fusion.input_dims, dtype=torch.float32))
    fused.backward(torch.randn_like(fused))
    assert fusion.fuse.weight.grad.abs().max() > 0
    torch.testing.assert_close([*before.parameters()], [*fusion.parameters()], rtol=0, atol=0)


@joint
def test_dropout_has_one_mask_a_solve(joint):
    fusion, reference = make("default", WIDTHS[:2], joint=joint, dropout=0.3, **EXACT)
    features = make_features(fusion.input_dims)
    with recorded_masks() as masks:
        first, second = fusion(features), fusion(features)
    assert fusion.info.converged.all()
    assert [tuple(mask.shape) for mask in masks] == [(2, 2, DIM), (2, DIM)] * 2
    assert not masks[0].equal(masks[2]) and not masks[1].equal(masks[3])
    close(first, reference.fixed_point(features, masks[:2])[:, -1])
    close(second, reference.fixed_point(features, masks[2:])[:, -1])
    fusion.eval()
    with recorded_masks() as masks:
        close(fusion(features), reference.fixed_point(features)[:, -1])
    assert not masks


@pytest.mark.parametrize(
    "options", [{}, {"joint": True}, {"equations": "paper"}, {"unroll": 3}], ids=str
)
def test_mixed_precision_stays_near_single(options):
    fusion = DEQFusion([20, 30], 64, on_failure="ignore", **options)
    features = make_features(fusion.input_dims, batch=8, dtype=torch.float32)
    cotangent = torch.randn(8, 64)
    want = fusion(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = fusion(features)
    assert got.dtype == torch.float32
    assert (got - want).norm() < 0.02 * want.norm()
    grads, expected = (gradients(z, fusion, features, cotangent) for z in (got, want))
    assert all(grad.dtype == torch.float32 for grad in grads.values())
    flat, flat_expected = (torch.cat([g.flatten() for g in x.values()]) for x in (grads, expected))
    assert (flat - flat_expected).norm() < 0.2 * flat_expected.norm()
