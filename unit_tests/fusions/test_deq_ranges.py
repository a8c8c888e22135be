"""Finite before and after the cast, on every path; gradients of tiny features are right."""

import copy
from dataclasses import replace

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import jacobian_penalty
from deq_fusion.fusions.registry import FUSIONS
from unit_tests.fusions.deq_reference import DIM, GROUPS, arguments, gradients, make, make_features

PATHS = [{}, {"joint": True}, {"unroll": 1}, {"unroll": 3}, {"f_theta": False}]
paths = pytest.mark.parametrize("options", PATHS, ids=str)


def close(got, want, tol=1e-4):
    got, want = got.detach(), want.detach()
    torch.testing.assert_close(got, want, rtol=tol, atol=tol * float(want.abs().max()))


@paths
@pytest.mark.parametrize("preset", ["paper", "released", "released_mosi"])
def test_features_beyond_the_dtype_of_the_module_are_named_with_their_rows(options, preset):
    options = arguments(preset, groups=GROUPS, **options)
    fusion = DEQFusion.from_preset(preset, [DIM, DIM], DIM, **options)
    features = [torch.randn(4, DIM), torch.randn(4, DIM, dtype=torch.float64)]
    features[1][2] *= 1e40
    message = (
        r"in torch.float32, but features\[1\], of entries up to .*e\+40, do not in 1 of 4 .*\[2"
    )
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match=message):
        fusion(features)


def test_features_beyond_the_range_of_autocast_are_computed_with():
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS, equations="paper")
    features = [torch.randn(3, 5), torch.randn(3, 7) * 1e5]
    want = fusion(features)
    with torch.autocast("cpu", dtype=torch.float16):
        close(fusion(features), want, 0.05)
        # what is scale-free stays so
        scale_free = DEQFusion([5, 7], DIM, groups=GROUPS)
        close(scale_free(features), scale_free([x / 1024 for x in features]), 0.05)


HALVES = [*PATHS, {"injection": "raw"}, {"injection": "raw", "unroll": 3, "f_fuse": False}]
HALVES += [{"fuse_bias": True, "unroll": 3}, {"preset": "released_imdb", "joint": True}]
halves = pytest.mark.parametrize("options", HALVES, ids=str)


def half_and_whole(options, scale, dtype):
    """A fusion of half precision, features, and both of float32."""
    torch.manual_seed(4)
    settings = {"injection": "scale_free", "on_failure": "ignore", "groups": 2, **options}
    preset = settings.pop("preset", "paper")
    half = DEQFusion.from_preset(preset, [5, DIM], DIM, **arguments(preset, **settings))
    half.to(dtype)
    features = [torch.randn(6, width).to(dtype) * scale for width in (5, DIM)]
    return (half, features), (copy.deepcopy(half).float(), [x.float() for x in features])


@halves
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_half_precision_is_computed_in_single_and_rounded_once(options, dtype, scale):
    results = []
    cotangent = torch.randn(6, DIM).to(dtype)
    for fusion, features in half_and_whole(options, scale, dtype):
        features = [x.requires_grad_() for x in features]
        fused = fusion(features)
        results.append({"fused": fused, **gradients(fused, fusion, features, cotangent.to(fused))})
    got, want = results
    for name, x in want.items():
        assert got[name].dtype == dtype
        # what the float16 gradient cannot hold is infinite, nothing else is
        torch.testing.assert_close(got[name], x.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=0)


@halves
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-7])
def test_gradients_under_autocast_to_float16_stay_in_range(options, scale):
    _, (fusion, features) = half_and_whole(options, 1.0, torch.float32)
    features = [(x * scale).requires_grad_() for x in features]
    with torch.autocast("cpu", dtype=torch.float16):
        fused = fusion(features)
    for size in (1.0, 1e6):
        cotangent = torch.randn(6, DIM) * size
        grads = gradients(fused, fusion, features, cotangent)
        assert all(g.isfinite().all() for g in grads.values())
    if options.get("injection") == "raw" or "preset" in options:
        return  # rounding grows where what is raw is tiny
    want_fused = fusion(features)
    close(fused, want_fused, 0.05)
    want = gradients(want_fused, fusion, features, cotangent)
    for name in ("fuse.bias", "fuse.norm_weight", "unimodal.norm_bias"):
        if name in want:
            assert (grads[name] - want[name]).norm() <= 0.1 * want[name].norm(), name


@pytest.mark.parametrize("options", PATHS[2:4], ids=str)
def test_steps_that_leave_the_range_raise_as_a_solve_does(options):
    shared = arguments(cell="one_layer", f_fuse=False, groups=GROUPS)
    fusion = DEQFusion([5], DIM, **shared, **options)
    with torch.no_grad():
        fusion.unimodal.weight2.fill_(3e38)
    with pytest.raises(FloatingPointError, match=r"leaves the range of torch.float32 in 4 of 4"):
        fusion([torch.randn(4, 5)])
    solved = DEQFusion([5], DIM, **shared)
    solved.load_state_dict(fusion.state_dict())
    with pytest.raises(FloatingPointError, match="iterates must stay finite"):
        solved([torch.randn(4, 5)])
    assert solved.info is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_penalty_of_half_precision_is_that_of_single(dtype):
    def f(z, weight):
        return torch.nn.functional.group_norm(z @ weight, 4)

    z, weight = torch.randn(5, 8).to(dtype), torch.randn(8, 8).to(dtype).requires_grad_()
    wide = weight.detach().float().requires_grad_()
    for probes in (1, 3):
        torch.manual_seed(1)
        got = jacobian_penalty(f, z, [weight], probes=probes)
        torch.manual_seed(1)
        want = jacobian_penalty(f, z.float(), [wide], probes=probes)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        (grad,) = torch.autograd.grad(got, weight)
        (expected,) = torch.autograd.grad(want, wide)
        torch.testing.assert_close(grad, expected.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("blocks", ["diagonal", "joint"])
def test_the_penalty_of_a_fusion_in_half_precision_is_near_that_in_single(blocks):
    for seed in range(3):
        torch.manual_seed(seed)
        half = DEQFusion([5, 6], 64, jacobian_weight=3.0, jacobian_blocks=blocks).half()
        whole = copy.deepcopy(half).float()
        features = [torch.randn(4, 5).half(), torch.randn(4, 6).half()]
        for fusion, x in ((half, features), (whole, [x.float() for x in features])):
            fusion.equilibrium = replace(fusion.equilibrium, on_failure="ignore")
            torch.manual_seed(1)
            fusion(x)
        close(half.auxiliary_loss, whole.auxiliary_loss, 0.05)


def test_the_penalty_is_finite_where_its_second_derivative_is_large():
    for seed in range(20):  # pairs of channels: a normalisation is a sign then
        torch.manual_seed(seed)
        fusion = DEQFusion([5, 6], 8, jacobian_weight=1.0, on_failure="ignore").half()
        fusion([torch.randn(4, 5).half(), torch.randn(4, 6).half()])
        grads = torch.autograd.grad(
            fusion.auxiliary_loss, list(fusion.parameters()), allow_unused=True
        )
        assert all(g.isfinite().all() for g in (fusion.auxiliary_loss, *grads) if g is not None)


TINY = {torch.float32: 1e-40, torch.float64: 1e-310, torch.float16: 1e-6, torch.bfloat16: 1e-39}


@pytest.mark.parametrize("options", [*PATHS, {"fuse_bias": True}], ids=str)
@pytest.mark.parametrize("dtype", TINY, ids=str)
@pytest.mark.parametrize("both", [False, True])
def test_gradients_of_denormal_features_are_those_of_float64(options, dtype, both):
    torch.manual_seed(3)
    tight = {"tol": 1e-6 if dtype.itemsize > 2 else 1e-3, "max_steps": 200, "on_failure": "ignore"}
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS, **tight, **arguments(**options)).to(dtype)
    features = [torch.randn(3, 5), torch.randn(3, 7)]
    features = [x.double().to(dtype) * 1 for x in features]
    factor = torch.tensor(TINY[dtype], dtype=torch.float64)
    tiny = [(x.double() * factor).to(dtype) if i or both else x for i, x in enumerate(features)]
    assert all(x.any() for x in tiny)
    tiny = [x.requires_grad_() for x in tiny]
    fused = fusion(tiny)
    cotangent = torch.randn_like(fused)
    got = gradients(fused, fusion, tiny, cotangent)
    assert fused.isfinite().all() and all(g.isfinite().all() for g in got.values())
    # the same at a scale that float64 is at ease with; scale-free, but for the bias
    wide = copy.deepcopy(fusion).double()
    scale = 1 if "fuse_bias" in options and not both else 2.0**-100
    if dtype == torch.float64:
        scale = 2.0**-900 if both else 1  # beside an ordinary modality there is no second way
    if not both and dtype == torch.float64:
        return
    rows = [(x.detach().double() / (scale if both else 1)).requires_grad_() for x in tiny]
    want_fused = wide(rows)
    want = gradients(want_fused, wide, rows, cotangent.double())
    tol = 1e-3 if dtype.itemsize > 2 else 0.1
    close(fused.double(), want_fused.detach(), tol)
    if dtype.itemsize > 2:
        floor = max(float(g.abs().max()) for n, g in want.items() if not n.startswith("feat"))
        for name, g in want.items():
            if not name.startswith("features") and name != "bias":  # which is at its bound
                assert (got[name].double() - g).abs().max() < 5e-3 * floor, name


def test_the_gradient_by_a_denormal_feature_ends_at_half_of_the_largest_number():
    fusion, _ = make("default", [5])
    fusion.float()
    x = (torch.randn(3, 5) * 1e-44).requires_grad_()
    assert x.any()
    fused = fusion([x])
    (grad,) = torch.autograd.grad(fused, x, torch.randn_like(fused))
    assert grad.abs().max() >= torch.finfo(torch.float32).max / 2


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 3e38, 1e-38])
@paths
def test_zero_and_constant_features_have_finite_results_and_gradients(options, value):
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS, **arguments(**options))
    features = [torch.full((2, 5), value, requires_grad=True), torch.zeros(2, 7)]
    features[1].requires_grad_()
    fused = fusion(features)
    grads = gradients(fused, fusion, features, torch.randn_like(fused))
    assert fused.isfinite().all() and all(g.isfinite().all() for g in grads.values())


@paths
def test_ordinary_and_odd_samples_of_one_batch_do_not_disturb_each_other(options):
    fusion = DEQFusion([20, 30], 64, **arguments(**options))
    features = make_features(fusion.input_dims, batch=4, dtype=torch.float32)
    alone = fusion(features)
    with torch.no_grad():
        odd = [torch.cat([x, x[:1] * 1e-42, x[:1] * 1e37]) for x in features]
    together = fusion(odd)
    torch.testing.assert_close(together[:4], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[5:], alone[:1], rtol=1e-3, atol=1e-3)


CHECKED = [name for name in FUSIONS if not name.startswith("deq")]


def built(name):
    entry = FUSIONS[name]
    widths = [4] * (entry.modalities[1] or max(2, entry.modalities[0]))
    options = {}
    if entry.predicts:
        one = name == "early_transformer"
        options = {"outputs": 1 if one else 3, "task": "regression" if one else "classification"}
    leading = (3, 2) if entry.features == ("sequences",) else (3,)
    return entry(widths, 8, **options)[0], [torch.randn(*leading, 4) for _ in widths]


@pytest.mark.parametrize("name", CHECKED)
def test_every_registered_fusion_refuses_what_is_not_finite_or_no_tensor(name):
    fusion, features = built(name)
    assert fusion(features).isfinite().all()
    for value in (float("nan"), float("inf")):
        spoiled = [x.clone() for x in features]
        spoiled[-1][1, ..., 2] = value
        with pytest.raises(ValueError, match=r"features\[\d\] holds NaN or infinity in"):
            fusion(spoiled)
    with pytest.raises(TypeError, match=r"\[0\] must be a tensor, got None; .*present=mask"):
        fusion([None, *features[1:]])
    with pytest.raises(TypeError, match=r"\[0\] must be a tensor, got ndarray"):
        fusion([features[0].numpy(), *features[1:]])


def test_a_product_that_overflows_is_refused():
    fusion, features = built("interactions3")
    with pytest.raises(FloatingPointError, match=r"leaves the range of torch.float32 in . of 3"):
        fusion([x * 1e30 for x in features])


def test_a_penalty_that_is_not_finite_raises():
    fusion = DEQFusion([5], DIM, groups=GROUPS, jacobian_weight=1e300)
    fusion.eval()([torch.randn(2, 5)])
    with pytest.raises(FloatingPointError, match="the Jacobian penalty must be finite, got inf"):
        fusion.train()([torch.randn(2, 5)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["attention", "mult", "late_transformer", "cross"])
def test_features_whose_powers_a_norm_cannot_hold_are_refused(name, dtype):
    fusion, features = built(name)
    limit = torch.finfo(torch.promote_types(dtype, torch.float32)).max ** 0.25
    features = [x.to(dtype) for x in features]
    features[1][1] = limit / 4
    features = [x.requires_grad_() for x in features]
    leaves = [*fusion.to(dtype).parameters(), *features]
    fused = fusion(features)
    grads = torch.autograd.grad(fused, leaves, torch.randn_like(fused), allow_unused=True)
    assert all(g.isfinite().all() for g in grads if g is not None)
    with torch.no_grad():
        features[1][1] = limit * 4
    with pytest.raises(ValueError, match=rf"must be at most .* in {dtype} where .* features\[1\]"):
        fusion(features)


@pytest.mark.parametrize("name", ["concat", "sum", "mult", "gmu"])
def test_features_without_numbers_and_what_is_no_list_are_refused(name):
    fusion, features = built(name)
    with pytest.raises((TypeError, ValueError), match="must be a list of|one for each encoder"):
        fusion(None)
    with pytest.raises(ValueError, match=r"on the meta device|must be on cpu"):
        fusion([x.to("meta") for x in features])
    with pytest.raises(ValueError, match=r"on the meta device|must be on meta"):
        fusion.to("meta")([x.to("meta") for x in features])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_penalty_of_huge_states_is_that_in_float64(monkeypatch, dtype):
    def f(z, weight, x):
        return torch.nn.functional.group_norm(z @ weight + x, 2)

    drawn = torch.promote_types(dtype, torch.float32)  # the same probes for both
    monkeypatch.setattr(torch, "randn_like", lambda t, **_: torch.randn(t.shape, dtype=drawn).to(t))
    scale = min(1e17, torch.finfo(dtype).max / 100)
    given = [x.to(dtype) for x in (torch.randn(5, 8), torch.randn(8, 8), torch.randn(5, 8) * scale)]
    results = []
    for wide in (dtype, torch.float64):
        z, weight, x = (t.to(wide) for t in given)
        weight.requires_grad_()
        torch.manual_seed(1)
        penalty = jacobian_penalty(f, z, [weight, x])
        results.append((penalty, *torch.autograd.grad(penalty, weight)))
    for got, want in zip(*results, strict=True):
        assert got.isfinite().all()
        close(got.double(), want, 0.02)
    with pytest.raises(FloatingPointError, match="cannot be computed of entries up to 1.0e"):
        jacobian_penalty(f, z, [weight, x * 0 + 1e100])


@pytest.mark.parametrize("name", ["concat", "sum", "tensor"])
def test_under_autocast_features_of_any_dtypes_are_brought_together(name):
    fusion, features = built(name)
    want = fusion(features)
    for dtype in (torch.float16, torch.bfloat16):
        other = torch.bfloat16 if dtype == torch.float16 else torch.float16
        mixed = [x.to(other if i else torch.float32) for i, x in enumerate(features)]
        with torch.autocast("cpu", dtype=dtype):
            close(fusion(mixed).float(), want, 0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_another_module_may_be_put_in_the_place_of_a_projection(dtype, autocast):
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS).to(dtype)
    features = [torch.randn(3, width).to(dtype) for width in fusion.input_dims]
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast)
    if dtype == torch.float16 and autocast._enabled:
        return  # is refused
    with autocast:
        want = fusion(features)
        for i, p in enumerate(fusion.projections):
            linear = torch.nn.Linear(p.in_features, DIM, bias=False, dtype=dtype)
            linear.load_state_dict(p.state_dict())
            fusion.projections[i] = linear
        assert (got := fusion(features)).dtype == dtype
        close(got.float(), want.float(), 0.1)


@paths
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_raw_features_whose_squares_leave_the_range_are_refused(options, dtype):
    options = arguments("paper", groups=GROUPS, **options)
    fusion = DEQFusion([DIM, DIM], DIM, **options).to(dtype)
    limit = (torch.finfo(torch.promote_types(dtype, torch.float32)).max / DIM) ** 0.5 / 2
    features = [torch.randn(4, DIM).to(dtype).requires_grad_() for _ in range(2)]
    with torch.no_grad():
        features[1][2] *= limit / 100
    fused = fusion(features)
    grads = gradients(fused, fusion, features, torch.randn_like(fused))
    assert all(g.isfinite().all() for g in grads.values())
    with torch.no_grad():
        features[1][2] *= 1e4
    with pytest.raises(ValueError, match="what is injected raw must be at most .*scale_free"):
        fusion(features)
