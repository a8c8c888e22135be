"""DEQFusion computes its variants' equations, and solves them."""

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion, Equations
from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    GROUPS,
    PRESETS,
    VARIANTS,
    WIDTHS,
    make,
    make_features,
    recorded_masks,
)

variants = pytest.mark.parametrize("variant", VARIANTS)
SOME = ["default", "paper", "released", "released_mosi"]
some_variants = pytest.mark.parametrize("variant", SOME)
TRACE = {"solver": "picard", "tol": 0, "max_steps": 5, "on_failure": "ignore"}
ABLATIONS = [{}, {"gate": False}, {"f_theta": False}, {"f_fuse": False}]


def close(got, want, tol=1e-12):
    torch.testing.assert_close(got, want, rtol=tol, atol=tol)


def traced(fusion, features):
    """Returns the iterates of a solve by block; plain iteration shows every step of the map."""
    seen = {}
    fusion(features, observe=lambda s: seen.setdefault(s.block, []).append(s.state))
    return seen


@variants
@pytest.mark.parametrize(("n", "dropout"), [(1, 0.4), (2, 0.0), (5, 0.4)])
def test_every_step_of_all_states_together_is_the_written_one(variant, n, dropout):
    fusion, reference = make(variant, WIDTHS[:n], joint=True, dropout=dropout, **TRACE)
    features = make_features(fusion.input_dims)
    with recorded_masks() as masks:
        states = traced(fusion, features)["joint"]
    assert len(states) == 5 and len(masks) == (2 if dropout else 0)
    for state, following in zip(states, states[1:], strict=False):
        close(following, reference.step(state, features, masks or None))


@variants
def test_every_step_of_the_blocks_is_the_written_one(variant):
    fusion, reference = make(variant, WIDTHS[:3], dropout=0.4, **TRACE)
    features = make_features(fusion.input_dims)
    with recorded_masks() as masks:
        seen = traced(fusion, features)
    y = reference.projected(features)
    for state, following in zip(seen["unimodal"], seen["unimodal"][1:], strict=False):
        for i, y_i in enumerate(y):
            close(following[i], reference.f_i(i, state[i], reference.scaled(y_i)))
    # f_fuse sees the best iterates of the z_i, and these get better at every step
    states, x_fuse = list(seen["unimodal"][-1]), reference.x_fuse(y)
    for z, following in zip(seen["fuse"], seen["fuse"][1:], strict=False):
        close(following, reference.f_fuse(z, states, x_fuse, masks))


UNROLLED = [(variant, {}) for variant in VARIANTS]
UNROLLED += [(variant, options) for variant in ("default", "released") for options in ABLATIONS[1:]]


@pytest.mark.parametrize(("variant", "options"), UNROLLED, ids=str)
def test_unrolled_steps_are_the_written_ones(variant, options):
    for steps, reading in ((1, "features"), (3, "features"), (1, "states"), (3, "states")):
        fusion, reference = make(
            variant, WIDTHS[:2], unroll=steps, unroll_injection=reading, dropout=0.4, **options
        )
        features = make_features(fusion.input_dims)
        with recorded_masks() as masks:
            got = fusion(features)
        close(got, reference.unrolled(steps, features, masks, inject_states=reading == "states"))
        assert fusion.info is None


def test_one_unrolled_step_trains_f_theta_in_the_second_reading_only():
    for reading, trains in (("features", False), ("states", True)):
        fusion, _ = make("paper", WIDTHS[:2], unroll=1, unroll_injection=reading)
        z = fusion(make_features(fusion.input_dims))
        z.backward(torch.randn_like(z))
        assert bool(fusion.unimodal.weight2.grad.any()) is trains


ABSENT = [("default", options) for options in (*ABLATIONS, {"joint": True}, {"unroll": 3})]
ABSENT += [("released", {}), ("released", {"joint": True})]


@pytest.mark.parametrize(("variant", "options"), ABSENT, ids=str)
def test_absent_modalities_take_no_part_in_the_equations(variant, options):
    fusion, reference = make(variant, WIDTHS[:3], **EXACT, **options)
    features = make_features(fusion.input_dims, batch=3)
    present = torch.tensor([[True, True, True], [False, True, True], [True, False, False]])
    fused = fusion(features, present=present)
    for k, row in enumerate(present):
        left = [x[k : k + 1] if here else None for x, here in zip(features, row, strict=True)]
        if "unroll" in options:
            want = reference.unrolled(3, left)
        else:
            want = reference.fixed_point(left)[:, -1]
        close(fused[k : k + 1], want, 1e-11)


@variants
@pytest.mark.parametrize("n", [1, 3])
def test_blocks_and_joint_solve_find_the_fixed_point_of_the_equations(variant, n):
    fusion, reference = make(variant, WIDTHS[:n], **EXACT)
    features = make_features(fusion.input_dims)
    states = reference.fixed_point(features)
    found = fusion(features)
    assert fusion.info.converged.all() and fusion.info.residual.max() <= 1e-12
    close(found, states[:, -1], 1e-11)
    # z alone, put into the written equations, comes back
    states[:, -1] = found.detach()
    close(reference.step(states, features)[:, -1], found, 1e-11)

    joint, _ = make(variant, WIDTHS[:n], joint=True, **EXACT)
    joint.load_state_dict(fusion.state_dict())
    close(joint(features), found, 1e-8)
    assert joint.info.residual.max() <= 1e-12


@some_variants
@pytest.mark.parametrize("options", ABLATIONS[1:], ids=str)
def test_ablations_find_the_fixed_point_of_their_equations(variant, options):
    fusion, reference = make(variant, WIDTHS[:3], dropout=0.2, **EXACT, **options)
    features = make_features(fusion.input_dims)
    with recorded_masks() as masks:
        found = fusion(features)
    close(found, reference.fixed_point(features, masks)[:, -1], 1e-11)


@some_variants
@pytest.mark.parametrize("joint", [False, True])
def test_solvers_agree(variant, joint):
    fusion, _ = make(variant, WIDTHS[:2], joint=joint, **EXACT)
    features = make_features(fusion.input_dims)
    found = fusion(features)
    for solver in ("picard", "broyden"):
        other, _ = make(variant, WIDTHS[:2], joint=joint, solver=solver, **EXACT)
        other.load_state_dict(fusion.state_dict())
        close(other(features), found, 1e-11)
        assert other.info.converged.all()


@pytest.mark.parametrize(("n", "dim", "count"), [(3, 500, 2_014_004), (2, 512, 1_583_107)])
def test_released_variant_has_the_release_s_number_of_parameters(n, dim, count):
    fusion = DEQFusion.from_preset("released", [dim] * n, dim)
    assert sum(p.numel() for p in fusion.parameters()) == count


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_set_the_penalty_of_the_paper(preset):
    weights = {"released_brca": 20.0, "released_imdb": 0.1, "released_mosi": 0.01}
    assert DEQFusion.from_preset(preset, [8], 8).jacobian_weight == weights.get(preset, 0.0)


def test_options_come_before_a_preset_s():
    equations = Equations.like("released", residual=False, fuse_bias=False)
    fusion = DEQFusion.from_preset("released", [8], 8, equations=equations)
    assert not fusion.unimodal.residual and fusion.bias is None


@pytest.mark.parametrize("width", [8, 16, 40])
def test_scale_free_injection_projects_orthogonally(width):
    weight = DEQFusion([width], DIM, groups=GROUPS).projections[0].weight
    gram = weight @ weight.T if width > DIM else weight.T @ weight
    torch.testing.assert_close(gram, torch.eye(min(width, DIM)))


def test_raw_injection_projects_only_where_the_width_differs():
    fusion = DEQFusion([DIM, 5], DIM, equations="paper")
    assert not list(fusion.projections[0].parameters())
    assert fusion.projections[1].weight.shape == (DIM, 5)


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e3, 1e30])
def test_scale_free_fusion_does_not_depend_on_a_common_scale(factor):
    fusion = DEQFusion([20, 30], 64)
    features = make_features(fusion.input_dims, dtype=torch.float32)
    scaled = fusion([factor * x for x in features])
    torch.testing.assert_close(scaled, fusion(features), rtol=1e-3, atol=1e-3)


def test_relative_magnitudes_of_modalities_weigh_in_the_scale_free_fusion():
    fusion, _ = make("default", WIDTHS[:2])
    x, y = make_features(fusion.input_dims)
    assert (fusion([x, 0.1 * y]) - fusion([x, y])).norm() > 0.1
