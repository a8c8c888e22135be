"""DEQFusion's gradient is that of the fixed point, for features and every parameter.

Cotangents are random: the sum of what a GroupNorm returns has gradient zero.
"""

import gc
import weakref

import pytest
import torch
from torch import Tensor

from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    VARIANTS,
    WIDTHS,
    gradients,
    make,
    make_features,
    recorded_masks,
)

variants = pytest.mark.parametrize("variant", VARIANTS)


def assert_same_gradients(got: dict[str, Tensor], want: dict[str, Tensor], tol=1e-6, zero=()):
    """Compares by norm; only what is named in `zero` may be too small to be seen."""
    assert got.keys() == want.keys()
    for name, expected in want.items():
        size = expected.norm()
        assert size > 1e-6 or name in zero, f"{name} has no gradient to compare"
        assert (got[name] - expected).norm() <= tol * max(size, 1e-6), name


def structural_zeros(variant: str, n: int) -> list[str]:
    """A lone modality's weight is its scale, and a shift before a GroupNorm is taken off."""
    scale_free, imdb = VARIANTS[variant].scale_free, VARIANTS[variant].relu_last
    return ["weights"] * (scale_free and n == 1) + ["bias"] * (imdb and not scale_free)


@variants
@pytest.mark.parametrize(("n", "training"), [(1, True), (2, False), (3, True)])
def test_gradient_solves_the_dense_linear_system(variant, n, training):
    fusion, reference = make(variant, WIDTHS[:n], dropout=0.2, **EXACT)
    joint, _ = make(variant, WIDTHS[:n], dropout=0.2, joint=True, **EXACT)
    joint.load_state_dict(fusion.state_dict())
    features = make_features(fusion.input_dims)
    cotangent = torch.randn(2, DIM, dtype=torch.float64)
    for module in (fusion, joint):
        module.train(training)
        with recorded_masks() as masks, torch.random.fork_rng():  # the same masks in both
            fused = module(features)
        assert bool(masks) is training
        if module is fusion:
            state = reference.fixed_point(features, masks or None)
            want = reference.dense_gradients(state, features, cotangent, masks or None)
        got = gradients(fused, module, features, cotangent)
        assert_same_gradients(got, want, zero=structural_zeros(variant, n))
        assert all(bool(stats.converged.all()) for stats in module.info.backward.values())


@pytest.mark.parametrize("variant", ["default", "released"])
@pytest.mark.parametrize(
    "options", [{"gate": False}, {"f_theta": False}, {"f_fuse": False}], ids=str
)
def test_gradient_of_ablations_solves_the_dense_linear_system(variant, options):
    fusion, reference = make(variant, WIDTHS[:3], **options, **EXACT)
    features = make_features(fusion.input_dims)
    cotangent = torch.randn(2, DIM, dtype=torch.float64)
    want = reference.dense_gradients(reference.fixed_point(features), features, cotangent)
    assert_same_gradients(gradients(fusion(features), fusion, features, cotangent), want)


@pytest.mark.parametrize("variant", ["default", "released_imdb", "released_mosi scale_free"])
@pytest.mark.parametrize("joint", [False, True])
def test_gradient_equals_central_differences(variant, joint):
    fusion, _ = make(variant, WIDTHS[:2], joint=joint, **EXACT)
    features = make_features(fusion.input_dims)
    cotangent = torch.randn(2, DIM, dtype=torch.float64)
    grads = gradients(fusion(features), fusion, features, cotangent)
    leaves = {f"features[{i}]": x for i, x in enumerate(features)} | dict(fusion.named_parameters())
    step = 1e-5
    with torch.no_grad():
        for name, leaf in leaves.items():
            direction = torch.nn.functional.normalize(torch.randn_like(leaf), dim=None)
            ends = []
            for sign in (1, -1):
                leaf += sign * step * direction
                ends.append((fusion(features) * cotangent).sum())
                leaf -= sign * step * direction
            difference = (ends[0] - ends[1]) / (2 * step)
            error = (difference - (grads[name] * direction).sum()).abs()
            assert error <= 1e-6 * max(grads[name].norm(), 1e-2), name


@pytest.mark.parametrize("joint", [False, True])
def test_gradcheck_passes(joint):
    fusion, _ = make("default", WIDTHS[:2], joint=joint, **EXACT)
    features = make_features(fusion.input_dims)
    assert torch.autograd.gradcheck(
        lambda *inputs: fusion(inputs[:2]), (*features, *fusion.parameters()), fast_mode=True
    )


def test_equation_18_and_the_path_through_x_fuse_make_up_the_gradient():
    fusion, reference = make("paper", [DIM, DIM], **EXACT)
    features = make_features(fusion.input_dims, batch=1)
    cotangent = torch.randn(1, DIM, dtype=torch.float64)
    state = reference.fixed_point(features)
    states, z = [state[:, i] for i in range(2)], state[:, -1]
    x_fuse = reference.x_fuse(features).detach()

    def jacobian(f, x):
        return torch.autograd.functional.jacobian(f, x).view(DIM, DIM)

    def inverse(j):  # of -J_g, with g = f - identity
        return torch.linalg.inv(torch.eye(DIM).double() - j)

    solved = cotangent @ inverse(jacobian(lambda s: reference.f_fuse(s, states, x_fuse), z))
    by_x_fuse = solved @ jacobian(lambda x: reference.f_fuse(z, states, x), x_fuse)
    for i, x in enumerate(features):
        others = [s.clone() for s in states]
        by_z_i = jacobian(
            lambda s, i=i, o=others: reference.f_fuse(z, [*o[:i], s, *o[i + 1 :]], x_fuse),
            states[i],
        )
        by_z = inverse(jacobian(lambda s, i=i, x=x: reference.f_i(i, s, x), states[i]))
        by_x = jacobian(lambda x, i=i: reference.f_i(i, states[i], x), x)
        equation_18 = solved @ by_z_i @ by_z @ by_x
        rest = fusion.weights[i] * by_x_fuse
        (got,) = torch.autograd.grad(fusion(features), x, cotangent)
        torch.testing.assert_close(got, equation_18 + rest, rtol=1e-6, atol=1e-9)
        assert rest.norm() > 0.1 * got.norm() and equation_18.norm() > 1e-3 * got.norm()


def test_gradient_of_unrolled_steps_tends_to_that_of_the_fixed_point():
    fusion, _ = make("default", WIDTHS[:2], **EXACT)
    unrolled, _ = make("default", WIDTHS[:2], unroll=60)
    unrolled.load_state_dict(fusion.state_dict())
    features = make_features(fusion.input_dims)
    cotangent = torch.randn(2, DIM, dtype=torch.float64)
    want = gradients(unrolled(features), unrolled, features, cotangent)
    assert_same_gradients(gradients(fusion(features), fusion, features, cotangent), want, 1e-8)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_two_forwards_may_be_differentiated_in_either_order(joint, first):
    fusion, _ = make("default", WIDTHS[:2], joint=joint, **EXACT)
    inputs = [make_features(fusion.input_dims) for _ in range(2)]
    cotangents = torch.randn(2, 2, DIM, dtype=torch.float64)
    want = [gradients(fusion(x), fusion, x, c) for x, c in zip(inputs, cotangents, strict=True)]
    outputs = [fusion(x) for x in inputs]
    for k in (first, 1 - first):
        got = gradients(outputs[k], fusion, inputs[k], cotangents[k])
        assert_same_gradients(got, want[k], 1e-10)


@pytest.mark.parametrize("joint", [False, True])
def test_one_graph_may_use_the_fusion_twice(joint):
    fusion, reference = make("default", [DIM, DIM], joint=joint, **EXACT)
    features = make_features(fusion.input_dims)
    cotangent = torch.randn(2, DIM, dtype=torch.float64)
    first = fusion(features)
    got = gradients(fusion([first, features[1]]), fusion, features, cotangent)

    # the chain rule by hand, each link from the dense system
    inner = reference.fixed_point(features)[:, -1].requires_grad_()
    outer = [inner, features[1]]
    want = reference.dense_gradients(reference.fixed_point(outer), outer, cotangent)
    through = want.pop("features[0]")
    link = reference.dense_gradients(reference.fixed_point(features), features, through)
    for name, grad in link.items():
        want[name] = want.get(name, 0) + grad
    assert_same_gradients(got, want)


def test_a_retained_graph_gives_the_same_gradient_again():
    fusion, _ = make("default", WIDTHS[:2], **EXACT)
    features = make_features(fusion.input_dims)
    fused, cotangent = fusion(features), torch.randn(2, DIM, dtype=torch.float64)
    first = gradients(fused, fusion, features, cotangent)
    assert_same_gradients(gradients(fused, fusion, features, cotangent), first, 1e-12)


@pytest.mark.parametrize("joint", [False, True])
def test_a_second_derivative_raises(joint):
    fusion, _ = make("default", WIDTHS[:2], joint=joint)
    features = make_features(fusion.input_dims)
    fused = fusion(features)
    grads = torch.autograd.grad(fused, features, torch.randn_like(fused), create_graph=True)
    with pytest.raises(RuntimeError, match="can be taken once"):
        sum(g.square().sum() for g in grads).backward()


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("jacobian_weight", [0.0, 1.0])
def test_nothing_of_the_graph_stays_after_backward(joint, jacobian_weight):
    fusion, _ = make("default", WIDTHS[:2], joint=joint, jacobian_weight=jacobian_weight)
    leaves = make_features(fusion.input_dims, batch=37)  # no other test's tensors are so long
    features = [2 * x for x in leaves]
    watched = [weakref.ref(x) for x in features]
    fused = fusion(features)
    ((fused * torch.randn_like(fused)).sum() + fusion.auxiliary_loss).backward()
    del features
    # the result is still there, but what its gradient needed is not
    assert [ref() for ref in watched] == [None, None]
    shapes = [t.shape for t in gc.get_objects() if type(t) is Tensor]
    assert (37, DIM) in shapes and (2, 37, DIM) not in shapes


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("scale", [1e-24, 1e24])
def test_tiny_and_huge_cotangents_give_the_scaled_gradient(joint, scale):
    fusion, _ = make("default", WIDTHS[:2], joint=joint, tol=1e-6)
    fusion.float()
    features = make_features(fusion.input_dims, dtype=torch.float32)
    fused, cotangent = fusion(features), torch.randn(2, DIM)
    want = gradients(fused, fusion, features, cotangent)
    got = gradients(fused, fusion, features, scale * cotangent)
    assert_same_gradients({name: g / scale for name, g in got.items()}, want, 1e-4)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_cotangent_that_is_not_finite_passes_through_its_own_sample(joint, value):
    fusion, _ = make("default", WIDTHS[:2], joint=joint, **EXACT)
    features = make_features(fusion.input_dims, batch=3)
    fused, cotangent = fusion(features), torch.randn(3, DIM, dtype=torch.float64)
    want = torch.autograd.grad(fused, features, cotangent, retain_graph=True)
    cotangent[1, 4] = value
    got = torch.autograd.grad(fused, features, cotangent)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g[[0, 2]], w[[0, 2]], rtol=1e-9, atol=1e-11)
        assert not g[1].isfinite().all()


def test_a_modality_that_is_zero_has_a_bounded_gradient():
    fusion, _ = make("default", WIDTHS[:2], on_failure="ignore")
    fusion.float()
    features = make_features(fusion.input_dims, batch=8, dtype=torch.float32)
    with torch.no_grad():
        features[0][1] = 0  # of a dead encoder, or padding
    fused = fusion(features)
    grads = gradients(fused, fusion, features, torch.randn_like(fused))
    assert {name: g.norm() for name, g in grads.items() if not g.norm() < 1e4} == {}
