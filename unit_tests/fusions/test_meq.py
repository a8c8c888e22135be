"""MEQ: its map written out, its equilibrium, the gradient of that, and the unrolled control."""

import math

import pytest
import torch
from torch import nn

from deq_fusion.fusions.equilibrium import ConvergenceWarning
from deq_fusion.fusions.meq import MEQ, mutual

WIDTHS, DIM = [3, 5, 2], 6
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
EXACT = {"tol": 1e-13, "max_steps": 300}


def make(count=3, *, std=0.3, **options):
    fusion = MEQ(WIDTHS[:count], DIM, **options)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=std)
    return fusion, [torch.randn(4, width) for width in WIDTHS[:count]]


def centred(x, eps):
    x = x - x.mean()
    return x / (x.square().mean() + eps).sqrt()


def image(fusion, z, sample, keep):
    """T of the states z, i -> (dim,), of those in `keep`."""
    soft = {i: centred(z[i], 1.0) for i in keep}
    found = {}
    for i in keep:
        a = torch.ones(()) if fusion.gates is None else fusion.gates[i].sigmoid()
        others = [j for j in keep if j != i]
        scores = [0.0 for _ in others]
        if fusion.query is not None:
            q = soft[i] @ fusion.query
            scores = [float(q @ (soft[j] @ fusion.key)) / math.sqrt(DIM) for j in others]
        total = sum(math.exp(s) for s in scores)
        fed = torch.zeros(DIM)
        for j, s in zip(others, scores, strict=True):
            fed = fed + math.exp(s) / total * soft[j]
        cross = torch.zeros(DIM) if fusion.cross is None else fed @ fusion.cross[i]
        y = centred(fusion.projections[i].weight @ sample[i], 1e-5)
        found[i] = a * (soft[i] @ fusion.own[i]) + (1 - a) * cross + y
    return found


def by_hand(fusion, sample, keep, steps, damping):
    """The fused feature after so many damped steps from zero."""
    z = {i: torch.zeros(DIM) for i in keep}
    for _ in range(steps):
        new = image(fusion, z, sample, keep)
        before, z = z, {i: (1 - damping) * z[i] + damping * new[i] for i in keep}
        if all((z[i] - before[i]).abs().max() < 1e-13 for i in keep):
            break
    return sum(z[i] @ fusion.outputs[i] for i in keep)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("unroll", "damping"), [(1, 1.0), (3, 0.5), (None, 0.5)])
def test_follows_the_formulas_over_those_present(double, count, masked, unroll, damping):
    fusion, features = make(count, unroll=unroll, damping=damping, **EXACT)
    present = PRESENT[:, :count] | ~PRESENT[:, :count].any(1, keepdim=True) if masked else None
    with torch.no_grad():
        fused = fusion(features, present=present)
        for b in range(4):
            keep = [i for i in range(count) if present is None or present[b, i]]
            steps = unroll or 400
            expected = by_hand(fusion, [x[b] for x in features], keep, steps, damping)
            torch.testing.assert_close(fused[b], expected)


@pytest.mark.parametrize("present", [None, PRESENT])
def test_the_gradient_is_that_of_many_unrolled_steps(double, present):
    fusion, features = make(**EXACT)
    unrolled, _ = make(unroll=200)
    unrolled.load_state_dict(fusion.state_dict())
    cotangent = torch.randn(4, DIM)
    found = []
    for module in (fusion, unrolled):
        inputs = [x.clone().requires_grad_() for x in features]
        module(inputs, present=present).backward(cotangent)
        found.append([x.grad for x in (*inputs, *module.parameters())])
    for exact, control in zip(*found, strict=True):
        assert control.any()
        torch.testing.assert_close(exact, control)


@pytest.mark.parametrize("damping", [0.25, 1.0])
def test_damping_changes_no_fixed_point(double, damping):
    fusion, features = make(**EXACT)
    other, _ = make(damping=damping, **EXACT)
    other.load_state_dict(fusion.state_dict())
    torch.testing.assert_close(other(features), fusion(features))


def test_damping_lets_a_map_settle_that_plain_steps_do_not(double):
    # of one state, whose own path turns it round with slope -1.5 or so
    options = {"solver": "picard", "max_steps": 200, "tol": 1e-8, "on_failure": "ignore"}
    settled = {}
    for damping in (1.0, 0.5):
        fusion = MEQ([DIM], DIM, damping=damping, **options)
        with torch.no_grad():
            fusion.own.copy_(-3 * torch.eye(DIM))
        fusion([0.1 * torch.ones(1, DIM) + torch.eye(DIM)[:1]])
        settled[damping] = bool(fusion.info.converged.all())
    assert settled == {1.0: False, 0.5: True}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_two_modalities_contract_everywhere_at_the_start(double, scale):
    fusion = MEQ(WIDTHS[:2], DIM)
    y = torch.randn(50, 2, DIM)
    inputs = [y, fusion.own, fusion.cross, fusion.gates, None, None]
    one, other = scale * torch.randn(50, 2, DIM), scale * torch.randn(50, 2, DIM)
    with torch.no_grad():
        moved = mutual(one, *inputs) - mutual(other, *inputs)
    ratio = moved.flatten(1).norm(dim=1) / (one - other).flatten(1).norm(dim=1)
    assert (ratio <= 0.5 + 1e-9).all() and ratio.max() > 0


def test_info_tells_of_every_sample_and_what_failed_is_warned_of():
    fusion, features = make(max_steps=2, tol=1e-9)
    with pytest.warns(ConvergenceWarning, match="forward solve of states"):
        fusion(features)
    assert not fusion.info.converged.any() and fusion.info.steps.shape == (4, 1)
    fusion, features = make(std=0.1)
    fusion([x.view(2, 2, -1) for x in features])
    assert fusion.info.converged.all() and fusion.info.steps.shape == (2, 2, 1)
    assert 0 < fusion.info.summary()["steps"] <= 40
    assert make(unroll=2)[0].info is None


@pytest.mark.parametrize(("std", "outside"), [(0.05, True), (0.9, False), (3.0, True)])
def test_the_penalty_is_the_distance_of_the_jacobian_from_the_band(double, std, outside):
    fusion, features = make(std=std, jacobian_weight=0.7)
    states = torch.randn(4, 3, DIM)
    y = torch.randn(4, 3, DIM)
    inputs = [y, fusion.own, fusion.cross, fusion.gates, fusion.query, fusion.key]
    torch.manual_seed(5)
    penalty = fusion._outside(states, inputs, None)
    torch.manual_seed(5)
    probe = torch.randn(4, 3, DIM)
    squares = []
    for b in range(4):
        jacobian = torch.autograd.functional.jacobian(
            lambda z, b=b: mutual(z, y[b : b + 1], *inputs[1:]), states[b : b + 1]
        ).view(3 * DIM, 3 * DIM)
        squares.append((probe[b].flatten() @ jacobian).square())
    size = torch.stack(squares).mean().sqrt()
    expected = max(0, size - 0.9) ** 2 + max(0, 0.7 - size) ** 2
    assert (expected > 0) == outside
    torch.testing.assert_close(penalty, torch.as_tensor(expected).to(penalty))
    grads = torch.autograd.grad(penalty, [fusion.own, fusion.cross])
    assert all(g.any() == outside for g in grads)


def test_the_penalty_is_there_in_training_only():
    fusion, features = make(jacobian_weight=1.0)
    assert fusion.auxiliary_loss == 0
    fusion(features)
    assert fusion.auxiliary_loss > 0
    fusion.auxiliary_loss.backward()
    assert fusion.own.grad.any()
    fusion.eval()(features)
    assert fusion.auxiliary_loss == 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"dim": 1}, "dim must be at least 2, got 1"),
        ({"damping": 0.0}, "damping must be above 0 and at most 1"),
        ({"unroll": 0}, "unroll must be an integer of at least 1"),
        ({"jacobian_weight": -1}, "jacobian_weight must be at least 0"),
        ({"solver": "newton"}, "newton"),
    ],
)
def test_refuses_options_that_make_no_sense(option, message):
    with pytest.raises(ValueError, match=message):
        MEQ(WIDTHS, **{"dim": DIM, **option})
