"""The auxiliary loss is the weighted mean square of the Jacobian's entries, in training."""

import copy

import pytest
import torch
from torch import Tensor

from deq_fusion.fusions.deq import DEQFusion
from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    GROUPS,
    WIDTHS,
    arguments,
    make,
    make_features,
)

PROBES = 300


def diagonal(jacobian: Tensor, n: int) -> Tensor:
    """Keeps of (B, n + 1, d, B, n + 1, d) what each state does to itself."""
    same = torch.eye(n + 1, dtype=jacobian.dtype).view(1, n + 1, 1, 1, n + 1, 1)
    return jacobian * same


@pytest.mark.parametrize(
    ("variant", "blocks", "joint", "gate"),
    [
        ("default", "diagonal", False, True),
        ("default", "diagonal", True, False),
        ("default", "joint", False, False),
        ("default", "joint", True, True),
        ("released", "diagonal", False, False),
        ("released", "joint", True, False),
        ("released_mosi", "diagonal", True, True),
        ("released_mosi", "joint", False, True),
    ],
)
def test_the_penalty_estimates_the_mean_square_of_the_dense_jacobian(variant, blocks, joint, gate):
    options = {"jacobian_blocks": blocks, "jacobian_probes": PROBES, "jacobian_weight": 3.0}
    options |= {"joint": joint, "gate": gate, **EXACT}
    fusion, reference = make(variant, WIDTHS[:2], **options)
    if not gate:  # what f_fuse makes of the z_i may be as large as one likes
        with torch.no_grad():
            fusion.fuse.norm_weight *= 1000
    features = make_features(fusion.input_dims, batch=3)
    state = reference.fixed_point(features)
    jacobian = reference.jacobian(state, features).view(*state.shape, *state.shape)
    whole, part = jacobian.square().sum(), diagonal(jacobian, 2).square().sum()
    assert gate or whole > 2 * part  # the readings differ by more than the estimate
    expected = 3.0 * (part if blocks == "diagonal" else whole) / state.numel()
    fusion(features)
    torch.testing.assert_close(fusion.auxiliary_loss, expected, rtol=0.15, atol=0)


def test_its_gradient_is_that_of_the_dense_mean_square_at_a_constant_state():
    options = {"jacobian_blocks": "joint", "jacobian_probes": PROBES, "jacobian_weight": 3.0}
    fusion, reference = make("default", WIDTHS[:2], **options, **EXACT)
    features = make_features(fusion.input_dims, batch=3)
    state = reference.fixed_point(features)
    jacobian = torch.autograd.functional.jacobian(
        lambda s: reference.step(s, features), state, create_graph=True
    )
    names, parameters = zip(*fusion.named_parameters(), strict=True)
    settings = {"allow_unused": True, "materialize_grads": True}
    square = 3.0 * jacobian.square().sum() / state.numel()
    expected = torch.autograd.grad(square, parameters, **settings)
    fusion(features)
    got = torch.autograd.grad(fusion.auxiliary_loss, parameters, **settings)
    for name, g, want in zip(names, got, expected, strict=True):
        if name.endswith("weight"):
            assert want.norm() > 1e-4, name
            assert (g - want).norm() < 0.2 * want.norm(), name


@pytest.mark.parametrize(
    "options",
    [{}, {"joint": True}, {"gate": False}, {"f_theta": False}, {"f_fuse": False}],
    ids=str,
)
def test_it_trains_the_parameters_of_the_map(options):
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS, jacobian_weight=1.0, **arguments(**options))
    fusion(make_features(fusion.input_dims, dtype=torch.float32))
    assert fusion.auxiliary_loss.ndim == 0 and fusion.auxiliary_loss > 0
    fusion.auxiliary_loss.backward()
    cell = fusion.fuse if fusion.unimodal is None else fusion.unimodal
    assert all(p.grad.isfinite().all() for p in fusion.parameters() if p.grad is not None)
    assert cell.weight1.grad.any() if cell is fusion.unimodal else cell.weight.grad.any()


def test_its_weight_scales_it():
    losses = []
    for weight in (1.0, 2.5):
        torch.manual_seed(0)
        fusion = DEQFusion([5, 7], DIM, groups=GROUPS, jacobian_weight=weight)
        fusion(make_features(fusion.input_dims, dtype=torch.float32))
        losses.append(fusion.auxiliary_loss)
    torch.testing.assert_close(losses[1], 2.5 * losses[0])


def test_it_is_zero_where_none_is_taken():
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS, jacobian_weight=1.0)
    features = make_features(fusion.input_dims, dtype=torch.float32)
    assert fusion.auxiliary_loss == 0
    fusion(features)
    assert fusion.auxiliary_loss > 0
    with torch.no_grad():
        fusion(features)
    assert fusion.auxiliary_loss == 0
    fusion.eval()(features)
    assert fusion.auxiliary_loss == 0
    other = DEQFusion([5, 7], DIM, groups=GROUPS)
    other(features)
    assert other.auxiliary_loss.shape == () and other.auxiliary_loss == 0


def test_it_may_be_taken_at_every_kth_training_forward():
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS, jacobian_weight=1.0, jacobian_every=3)
    features = make_features(fusion.input_dims, dtype=torch.float32)

    def taken(module, times):
        hits = []
        for _ in range(times):
            module(features)
            hits.append(bool(module.auxiliary_loss > 0))
            with torch.no_grad():
                module(features)  # no training forward, and does not count
        return hits

    assert taken(fusion, 7) == [False, False, True] * 2 + [False]
    resumed = DEQFusion([5, 7], DIM, groups=GROUPS, jacobian_weight=1.0, jacobian_every=3)
    resumed.load_state_dict(copy.deepcopy(fusion.state_dict()))
    assert taken(resumed, 3) == taken(fusion, 3) == [False, True, False]


def test_the_output_does_not_depend_on_it():
    fusion, _ = make("default", WIDTHS[:2], jacobian_weight=1.0)
    other, _ = make("default", WIDTHS[:2])
    other.load_state_dict(fusion.state_dict())
    features = make_features(fusion.input_dims)
    torch.testing.assert_close(fusion(features), other(features), rtol=0, atol=0)


@pytest.mark.parametrize("blocks", ["diagonal", "joint"])
def test_an_absent_modality_does_not_dilute_it(double, blocks):
    """The mean over many probes is that of a module of the remaining modality."""
    options = {"groups": GROUPS, "jacobian_weight": 1.0, "jacobian_probes": 600}
    both = DEQFusion([5, 7], DIM, jacobian_blocks=blocks, **options)
    one = DEQFusion([5], DIM, jacobian_blocks=blocks, **options)
    shared = {
        name: value[:, :1] if name.startswith("unimodal.norm") else value[:1]
        for name, value in both.state_dict().items()
        if name.startswith(("unimodal", "weights"))
    }
    kept = {k: v for k, v in both.state_dict().items() if k.startswith(("fuse", "projections.0"))}
    one.load_state_dict(shared | kept)
    one.fuse.scale = both.fuse.scale  # it starts smaller for more modalities
    features = make_features((5, 7), dtype=torch.float64)
    both(features, present=torch.tensor([[True, False]]).expand(len(features[0]), 2))
    one(features[:1])
    # counted in, the absent one's zeros would make it two thirds
    torch.testing.assert_close(both.auxiliary_loss, one.auxiliary_loss, rtol=0.2, atol=0)
    assert one.auxiliary_loss > 1e-4


def test_a_frozen_fusion_without_a_gate_has_one():
    fusion = DEQFusion([5, 7], DIM, **arguments(groups=GROUPS, gate=False, jacobian_weight=1.0))
    fusion.requires_grad_(False)(make_features(fusion.input_dims, dtype=torch.float32))
    assert fusion.auxiliary_loss.isfinite()


@pytest.mark.parametrize("joint", [False, True])
def test_under_autocast_it_still_reaches_the_parameters(joint):
    """Autocast keeps casts of parameters; those of the solve have no graph, and must not be met."""
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS, jacobian_weight=1.0, joint=joint)
    features = make_features(fusion.input_dims, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fusion(features)
        penalty = fusion.auxiliary_loss
    penalty.backward()
    for cell, names in (("unimodal", ["weight1", "weight2"]), ("fuse", ["gate_weight", "weight"])):
        for name in names:
            gradient = getattr(getattr(fusion, cell), name).grad
            assert gradient is not None and gradient.abs().max() > 0, (cell, name)
