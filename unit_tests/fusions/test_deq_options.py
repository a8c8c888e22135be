"""Options and features that do not fit are refused with a message that helps."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from deq_fusion.fusions.deq import PRESETS, DEQFusion, Equations
from deq_fusion.fusions.gated import GatedMultimodalUnit
from deq_fusion.fusions.late import LateFusion
from unit_tests.fusions.deq_reference import EXACT, WIDTHS, make, make_features


def good():
    return [torch.randn(4, 5), torch.randn(4, 7)]


NAN, INF = float("nan"), float("inf")


COUNTS = ("max_steps", "unroll", "jacobian_probes", "jacobian_every", "neumann_terms")
TEXTS = ("equations", "gradient", "on_failure", "jacobian_blocks", "solver")
NUMBERS = ("tol", "backward_tol", "dropout", "start", "jacobian_weight")
SENSELESS = [
    *((name, value) for name in COUNTS for value in (0, -1, 2.0, True, "3", NAN, 10**12, [4])),
    *(("joint", value) for value in ("no", "False", 0, 1, NAN, None, [])),
    *((name, value) for name in TEXTS for value in ("x", None, 1, NAN, True, [], {"anderson": 1})),
    *((name, value) for name in NUMBERS for value in (INF, NAN, -1e-9, True, "x", [1.0], 1j)),
    *(("neumann_damping", value) for value in (0, 1.1, NAN, INF, True, "x", None)),
    *(("dim", value) for value in (0, -4, 16.0, True, "16", None, [16], 10**12, 2**20, NAN)),
    *(("groups", value) for value in (0, -1, 3, 2.0, True, "2", 16)),
    *(("fuse_groups", value) for value in (0, 3, True, "2", 16)),
    *(("max_steps", value) for value in (None, INF)),
    *(("tol", value) for value in (None, torch.tensor(1e-3))),
]


@pytest.mark.parametrize(("name", "value"), SENSELESS, ids=str)
def test_every_option_refuses_what_makes_no_sense(name, value):
    with pytest.raises(ValueError, match=rf"(must|unknown) .*|{name}") as raised:
        DEQFusion(**{"input_dims": [5, 7], "dim": 16, "groups": 2, name: value})
    assert name in str(raised.value) and len(str(raised.value)) < 300


@pytest.mark.parametrize("value", [lambda: 3, lambda: None, lambda: "anderson"])
def test_a_solver_that_makes_no_rule_is_refused(value):
    with pytest.raises(ValueError, match=r"a callable solver must return a rule.*, got"):
        DEQFusion([5], 16, solver=value)


@pytest.mark.parametrize("value", ["512", b"ab", {5: 7}, {5, 7}, np.array([5, 7]), iter([5]), None])
def test_widths_are_a_list(value):
    with pytest.raises(TypeError, match="input_dims must list a width for each modality, got"):
        DEQFusion(value, 16)


@pytest.mark.parametrize("value", [[5, [7]], [5, True], [5, "7"], [5, None], [5, 10**9], [5, NAN]])
def test_a_width_is_an_integer(value):
    with pytest.raises(ValueError, match=r"input_dims\[1\] must be (an integer|at most 16777216)"):
        DEQFusion(value, 16)


def test_what_would_only_take_memory_is_refused_first():
    with pytest.raises(ValueError, match="at most 1000 modalities, got 100000000"):
        DEQFusion(range(10**8), 16)
    with pytest.raises(ValueError, match="every weight must have at most 2147483648 entries"):
        DEQFusion([2**24], 2**10)
    with pytest.raises(ValueError, match="every weight must have at most 2147483648 entries"):
        DEQFusion([4] * 900, 2**11)


def test_numbers_of_numpy_are_numbers():
    torch.manual_seed(1)
    options = {"groups": np.int64(2), "dropout": np.float32(0.0), "max_steps": np.int32(30)}
    fusion = DEQFusion(list(np.array([5, 7])), np.int64(16), **options)
    torch.manual_seed(1)
    other = DEQFusion([5, 7], 16, groups=2, max_steps=30)
    assert all(type(width) is int for width in (*fusion.input_dims, fusion.dim))
    features = good()
    torch.testing.assert_close(fusion(features), other(features), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dims": []}, "input_dims must name the width of at least one modality"),
        ({"input_dims": [5, 0]}, r"input_dims\[1\] must be an integer of at least 1, got 0"),
        ({"input_dims": [5.0]}, r"input_dims\[0\] must be an integer of at least 1, got 5.0"),
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        (
            {"groups": 5},
            r"dim \(=16\) must be divisible by groups \(=5\); choose groups from \[1, 2",
        ),
        ({"groups": 0}, "groups must be an integer of at least 1"),
        ({"fuse_groups": 3}, r"divisible by fuse_groups \(=3\)"),
        ({"jacobian_blocks": "all"}, r"unknown jacobian_blocks 'all'; choose from \['diagonal'"),
        ({"solver": "newton"}, r"unknown solver 'newton'; choose from \['anderson', 'broyden'"),
        ({"on_failure": "cry"}, "unknown on_failure 'cry'; choose from"),
        ({"tol": -1e-3}, "tol must be at least 0 and below inf, got -0.001"),
        ({"tol": NAN}, "tol must be at least 0 and below inf, got nan"),
        ({"backward_tol": -1.0}, "backward_tol must be at least 0 and below inf, got -1.0"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1, got 0"),
        ({"max_steps": 2.5}, "max_steps must be an integer of at least 1, got 2.5"),
        ({"backward_max_steps": 0}, "backward_max_steps must be an integer of at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
        ({"dropout": NAN}, "dropout must be at least 0"),
        ({"start": "zero"}, r"start must be one of \('contractive', 'released'\) or a number"),
        ({"start": -1.0}, "start must be at least 0"),
        ({"start": INF}, "start must be at least 0 and below inf, got inf"),
        ({"jacobian_weight": -1.0}, "jacobian_weight must be at least 0"),
        ({"jacobian_probes": 0}, "jacobian_probes must be an integer of at least 1"),
        ({"jacobian_every": 0}, "jacobian_every must be an integer of at least 1"),
        ({"unroll": 0}, "unroll must be an integer of at least 1"),
        ({"unroll": 2, "joint": True}, "joint=True must not be given with unroll"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DEQFusion(**{"input_dims": [5, 7], "dim": 16, "groups": 2, **options})


def test_one_width_is_no_list_of_widths():
    with pytest.raises(TypeError, match="input_dims must list a width for each modality, got 512"):
        DEQFusion(512, 512)


def test_features_of_several_parts_are_refused():
    fusion, x = DEQFusion([5, 7], 16, groups=2), torch.randn(2, 5)
    with pytest.raises(
        TypeError, match=r"features\[1\] must be a tensor, got tuple; of an encoder"
    ):
        fusion([x, (torch.randn(2, 7), None)])


def test_unknown_options_and_presets_are_refused():
    with pytest.raises(TypeError, match="tolerance"):
        DEQFusion([5], 16, tolerance=1e-3)
    with pytest.raises(TypeError, match="tolerance"):
        DEQFusion.from_preset("paper", [5], 16, tolerance=1e-3)
    with pytest.raises(ValueError, match=r"unknown preset 'brca'; choose from \['paper', 'rel"):
        DEQFusion.from_preset("brca", [5], 16)


OLD = [
    ({"injection": "raw"}, " injection='raw' ", "equations=Equations(injection='raw')"),
    ({"gate": False, "cell": "one_layer"}, "s gate=False, cell='one_layer' ", None),
    ({"recurrent_scale": 0.3}, " recurrent_scale=0.3 ", "start=0.3"),
    ({"fuse_bias": 3, "recurrent_scale": 1.0}, None, "equations=Equations(fuse_bias=3), start=1.0"),
    ({"equations": "paper", "gate": False}, None, "equations=Equations.like('paper', gate=False)"),
    (
        {"equations": Equations(cell="one_layer"), "residual": False},
        " residual=False ",
        "equations=Equations.like(Equations(cell='one_layer'), residual=False)",
    ),
]


@pytest.mark.parametrize(("options", "was", "now"), OLD, ids=str)
def test_options_of_before_name_what_took_their_place(options, was, now):
    with pytest.raises(TypeError, match=r"^DEQFusion has no option.* any more: pass ") as raised:
        DEQFusion([5], 16, **options)
    first, _, last = str(raised.value).partition("any more: pass ")
    assert first == f"DEQFusion has no option{was}" or was is None
    assert last == now or now is None


def test_presets_name_it_too_and_what_they_name_works():
    with pytest.raises(TypeError, match=r"equations=Equations.like\('paper', gate=False\)$"):
        DEQFusion.from_preset("paper", [5], 16, gate=False)
    equations = Equations.like("paper", gate=False)
    assert not DEQFusion.from_preset("paper", [5], 16, equations=equations).fuse.gate


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_equations_of_its_name_and_how_they_are_trained(preset):
    fusion, plain = DEQFusion.from_preset(preset, [5], 16), DEQFusion([5], 16, equations=preset)
    assert fusion.equations == plain.equations == Equations.like(preset)
    assert plain.jacobian_weight == 0 and plain.jacobian_blocks == "diagonal"
    assert fusion.jacobian_blocks == ("diagonal" if preset == "paper" else "joint")
    assert fusion.start == plain.start == "contractive"


def test_there_are_about_twenty_options():
    parameters = inspect.signature(DEQFusion).parameters.values()
    assert sum(p.kind is p.KEYWORD_ONLY for p in parameters) <= 20


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ""),
        ({"equations": "paper"}, ", equations='paper'"),
        ({"equations": Equations(injection="raw"), "tol": 1e-3}, ", equations='paper'"),
        ({"equations": Equations(gate=False)}, ", equations=Equations(gate=False)"),
        (
            {"max_steps": 9, "groups": 2, "start": 0.3, "joint": True},
            ", start=0.3, groups=2, joint=True, max_steps=9",
        ),
        ({"unroll": 3, "jacobian_every": 2}, ", unroll=3, jacobian_every=2"),
    ],
    ids=str,
)
def test_a_fusion_shows_its_widths_and_what_differs_from_the_defaults(options, shown):
    fusion = DEQFusion([5, 7], 16, **options)
    assert fusion.extra_repr() == f"input_dims=(5, 7), dim=16{shown}"
    assert f"DEQFusion(\n  {fusion.extra_repr()}\n" in repr(fusion)


def test_what_is_shown_is_what_holds():
    fusion = DEQFusion([5], 16, jacobian_weight=1.0)
    fusion.jacobian_weight, fusion.equilibrium = 0.5, replace(fusion.equilibrium, tol=1e-6)
    assert fusion.extra_repr().endswith("dim=16, tol=1e-06, jacobian_weight=0.5")


class Alone:
    """Neither a list nor a tensor."""


SPARSE = torch.eye(4, 7).to_sparse()
NO_FEATURES = [
    ([good()[0], None], TypeError, r"features\[1\] must be a tensor, got None; .*present=mask, b"),
    ([None, good()[1]], TypeError, r"features\[0\] must be a tensor, got None; .*zeros"),
    ([good()[0], good()[1].numpy()], TypeError, r"features\[1\] .*got ndarray; .*as_tensor"),
    ([good()[0], good()[1].tolist()], TypeError, r"features\[1\] must be a tensor, got list"),
    ([good()[0], SPARSE], TypeError, r"features\[1\] must be a dense tensor, .*sparse_coo; see"),
    ([good()[0], good()[1] + 1j], TypeError, r"features\[1\] must be a floating-point.*complex64"),
    ([good()[0], good()[1] > 0], TypeError, r"features\[1\] must be a floating-point.*torch.bool"),
    ([good()[0], good()[1].to("meta")], ValueError, r"features\[1\] must be on cpu, .* got meta"),
    ([good()[0], torch.tensor(1.0)], ValueError, r"features\[1\] must have shape .* got \(\)"),
    ({0: good()[0], 1: good()[1]}, TypeError, "features must be a list of 2 tensors.*got dict"),
    (None, TypeError, "features must be a list of 2 tensors.*got NoneType"),
    ("ab", TypeError, "features must be a list of 2 tensors.*got str"),
    (iter(good()), TypeError, "features must be a list of 2 tensors.*got list_iterator"),
    (Alone(), TypeError, "features must be a list of 2 tensors.*got Alone"),
    (torch.randn(2, 4, 7).numpy(), TypeError, "features must be a list of 2 tensors.*got ndarray"),
]


@pytest.mark.parametrize(("features", "error", "message"), NO_FEATURES)
@pytest.mark.parametrize("make_fusion", [DEQFusion, GatedMultimodalUnit, LateFusion])
def test_what_is_no_feature_is_refused(make_fusion, features, error, message):
    if isinstance(features, type(iter([]))):
        features = iter(good())
    with pytest.raises(error, match=message):
        make_fusion([5, 7], 16)(features)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused():
    nested = torch.nested.nested_tensor([torch.randn(2, 7), torch.randn(3, 7)])
    with pytest.raises(TypeError, match=r"features\[1\] must be a dense tensor, got a nested one"):
        DEQFusion([5, 7], 16, groups=2)([good()[0], nested])


@pytest.mark.parametrize("present", [[True, True], np.ones((4, 2), bool), "yes"])
def test_a_mask_that_is_no_tensor_is_refused(present):
    with pytest.raises(TypeError, match="present must be a bool tensor, got"):
        DEQFusion([5, 7], 16, groups=2)(good(), present=present)


def test_channels_come_last():
    fusion = DEQFusion([6, 6], 16, groups=2)
    pictures = [torch.randn(2, 6, 5, 4) for _ in range(2)]  # (batch, channels, height, width)
    with pytest.raises(ValueError, match=r"channels come last: features\[0\].movedim\(1, -1\)"):
        fusion(pictures)
    with pytest.raises(ValueError, match="got .2, 5, 4.; input_dims gives the widths"):
        fusion([torch.randn(2, 5, 4) for _ in range(2)])  # which no other reading fits either
    right = fusion([x.movedim(1, -1) for x in pictures])
    assert right.shape == (2, 5, 4, 16)
    # where width and channels are as many, both readings fit
    square = [torch.randn(2, 6, 5, 6) for _ in range(2)]
    with pytest.warns(UserWarning, match=r"\(2, 6, 5, 6\) are read with their channels last"):
        read = fusion(square)
    flat = fusion([x.flatten(1, -2) for x in square])  # nothing is warned of
    torch.testing.assert_close(read.flatten(1, 2), flat)
    # sequences are read as they are, and so are pictures of whose modalities one does not fit
    DEQFusion([6, 6], 16, groups=2)([torch.randn(2, 6, 6) for _ in range(2)])
    DEQFusion([6, 7], 16, groups=2)([torch.randn(2, 6, 5, 6), torch.randn(2, 6, 5, 7)])


def spoiled(i, row, value):
    features = good()
    features[i][row, 2] = value
    return features


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (good()[:1], ValueError, r"a list of 2 tensors.*input_dims=\(5, 7\), got 1"),
        ([*good(), torch.randn(4, 5)], ValueError, "a list of 2 tensors.*got 3"),
        ([], ValueError, "a list of 2 tensors.*got 0"),
        (torch.randn(2, 4, 5), ValueError, "a list of 2 tensors.*got one tensor"),
        (
            good()[::-1],
            ValueError,
            r"features\[0\] must have shape \(batch, ..., 5\), got \(4, 7\)",
        ),
        (
            [torch.randn(5), torch.randn(7)],
            ValueError,
            r"features\[0\] must have shape .* got \(5,\)",
        ),
        (
            [good()[0], torch.randn(3, 7)],
            ValueError,
            r"features\[0\] has \(4,\), features\[1\] has \(3,",
        ),
        (
            [good()[0], torch.randn(4, 1, 7)],
            ValueError,
            "must agree in all dimensions but the last",
        ),
        (
            [good()[0], torch.ones(4, 7).long()],
            TypeError,
            r"features\[1\] must be a floating-point.*int64",
        ),
        (
            [x.double() for x in good()],
            TypeError,
            "parameters' dtype torch.float32, got torch.float64",
        ),
        (spoiled(1, 2, NAN), ValueError, r"features\[1\] holds NaN or infinity in 1 of 4 .*\[2\]"),
        (spoiled(0, 3, -INF), ValueError, r"features\[0\] holds .*first: \[3\].*`present`"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_features_that_do_not_fit_are_refused_and_nothing_is_lost(features, error, message):
    fusion = DEQFusion([5, 7], 16, groups=2)
    fitting = good()
    first, info = fusion(fitting), fusion.info
    with pytest.raises(error, match=message):
        fusion(features)
    assert fusion.info is info
    torch.testing.assert_close(fusion(fitting), first, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("present", "error", "message"),
    [
        (torch.ones(4, 3).bool(), ValueError, r"present must have shape \(4, 2\).*got \(4, 3\)"),
        (torch.ones(3, 2).bool(), ValueError, r"present must have shape \(4, 2\).*got \(3, 2\)"),
        (torch.ones(2).bool(), ValueError, r"present must have shape \(4, 2\)"),
        (
            torch.ones(4, 2),
            TypeError,
            r"present must be a bool tensor, got torch.float32; use .bool",
        ),
        (
            torch.eye(4, 2).bool(),
            ValueError,
            r"at least one modality present, but 2 .*first: \[2, 3\]",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_masks_that_do_not_fit_are_refused(present, error, message):
    fusion = DEQFusion([5, 7], 16, groups=2)
    features = good()
    with pytest.raises(error, match=message):
        fusion(features, present=present)
    torch.testing.assert_close(
        fusion(features, present=torch.ones(4, 2).bool()), fusion(features), rtol=0, atol=0
    )


def test_a_present_modality_that_is_not_finite_is_refused_beside_an_absent_one():
    features = spoiled(1, 2, NAN)
    features[0][0] = NAN
    present = torch.ones(4, 2, dtype=torch.bool)
    present[0, 0] = False
    with pytest.raises(ValueError, match=r"features\[1\] holds NaN"):
        DEQFusion([5, 7], 16, groups=2)(features, present=present)


def test_iterates_that_leave_the_range_of_the_dtype_raise():
    equations = Equations(f_fuse=False, cell="one_layer")
    fusion = DEQFusion([5], 16, groups=2, equations=equations)
    with torch.no_grad():
        fusion.unimodal.weight2.fill_(1e38)
    with pytest.raises(FloatingPointError, match="iterates must stay finite"):
        fusion([torch.randn(4, 5)])


def test_a_solver_may_be_a_callable():
    class Halfway:
        """A damped iteration."""

        def __call__(self, z, fz):
            return (z + fz) / 2

    fusion, _ = make("default", WIDTHS[:2], **EXACT)
    other, _ = make("default", WIDTHS[:2], solver=Halfway, **EXACT)
    other.load_state_dict(fusion.state_dict())
    features = make_features(fusion.input_dims)
    torch.testing.assert_close(other(features), fusion(features), rtol=1e-11, atol=1e-11)


def test_the_backward_solve_has_limits_of_its_own():
    fusion, _ = make("default", WIDTHS[:2], tol=1e-2, backward_tol=1e-10, backward_max_steps=90)
    fused = fusion(make_features(fusion.input_dims))
    fused.backward(torch.randn_like(fused))
    backward = fusion.info.backward["z_fuse"]
    assert backward.residual.max() <= 1e-10 < fusion.info.residual.max()
