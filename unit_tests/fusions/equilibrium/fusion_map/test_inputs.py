"""Odd features in a batch: an error names them, or they are fused as if they had a usual scale."""

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium.fusion_map.features import check_finite
from deq_fusion.fusions.equilibrium.fusion_map.inputs import Projection, rms_normalised
from unit_tests.fusions.deq_reference import arguments, recorded_masks
from unit_tests.fusions.equilibrium.fusion_map.oracle import bfloat16_products

WIDTHS, DIM, BATCH, ODD = (20, 16), 32, 5, 2
OPTIONS = {
    "default": {},
    "joint": {"joint": True},
    "dropout": {"dropout": 0.3},
    "without f_theta": {"f_theta": False},
    "without f_fuse": {"f_fuse": False},
    "bias": {"fuse_bias": True},
    "picard": {"solver": "picard"},
}
some_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def posed(options):
    fusion = DEQFusion(WIDTHS, DIM, **arguments(**options))
    if fusion.bias is not None:
        torch.nn.init.zeros_(fusion.bias)  # the one that does not scale with the features
    return fusion, [torch.randn(BATCH, width) for width in WIDTHS]


def spoiled(features, change):
    """The features with those of one sample changed."""
    rows = [x.clone() for x in features]
    for x in rows:
        x[ODD] = change(x[ODD])
    return rows


def shown(fusion, features, seed=1):
    """What is fused, and the steps that an observer saw."""
    seen = []
    torch.manual_seed(seed)
    fused = fusion(features, observe=lambda s: seen.append((s.block, s.step)))
    return fused, seen


@some_options
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("equations", ["scale_free", "paper"])
def test_what_is_not_finite_is_named_and_nothing_is_shown(options, value, equations):
    fusion = DEQFusion(WIDTHS, DIM, **arguments(equations, **options))
    features = [torch.randn(BATCH, width) for width in WIDTHS]
    features[1][ODD, 3] = value
    seen = []
    with pytest.raises(ValueError, match=r"features\[1\] holds NaN or infinity in 1 of 5 .*\[2\]"):
        fusion(features, observe=seen.append)
    assert not seen and fusion.info is None


def test_values_are_not_asked_for_where_none_can_be_looked_at():
    def checked(x):
        check_finite([x])
        return x

    rows = torch.full((3, 4, 2), torch.nan)
    with pytest.raises(ValueError, match="features must be finite"):
        checked(rows[0])
    for shown in (torch.zeros(3, 4, 2), rows):
        assert torch.func.vmap(checked)(shown).shape == shown.shape


@some_options
@pytest.mark.parametrize("scale", [1e-43, 1e-38, 1e-30, 1e30, 1e37])
def test_the_scale_of_a_sample_does_not_matter(options, scale):
    fusion, features = posed(options)
    # of few digits, so that denormal numbers hold them
    features = spoiled(features, lambda x: x.sign())
    expected, steps = shown(fusion, features)
    with recorded_masks() as masks:
        fused, seen = shown(fusion, spoiled(features, lambda x: x * scale))
    assert len(masks) == (2 if "dropout" in options else 0)  # gates' and update's, once each
    torch.testing.assert_close(fused, expected, rtol=1e-3, atol=1e-3)
    usual = torch.arange(BATCH) != ODD
    torch.testing.assert_close(fused[usual], expected[usual], rtol=1e-5, atol=1e-5)
    blocks = list(dict.fromkeys(block for block, _ in seen))
    assert blocks == list(dict.fromkeys(block for block, _ in steps))
    for name in blocks:  # no step of an attempt that was given up
        of_block = [step for block, step in seen if block == name]
        assert of_block == list(range(1, len(of_block) + 1))


def test_a_sample_whose_modalities_cancel_is_fused_and_shown_once():
    """x_fuse is zero, which only the second solve meets."""
    fusion, features = posed({})
    torch.nn.init.zeros_(fusion.weights)
    fused, seen = shown(fusion, features)
    assert fused.isfinite().all()
    assert [step for block, step in seen if block == "unimodal"].count(1) == 1


@pytest.mark.parametrize("scale", [1e-42, 1e37])
def test_odd_samples_are_so_with_first_steps_in_bfloat16(scale):
    fusion, features = posed({})
    features = spoiled(features, lambda x: x.sign())
    with bfloat16_products():
        expected, _ = shown(fusion, features)
        fused, _ = shown(fusion, spoiled(features, lambda x: x * scale))
    torch.testing.assert_close(fused, expected, rtol=5e-3, atol=5e-3)


def test_gradients_of_the_others_are_as_without_the_odd_one():
    fusion, features = posed({})
    cotangent = torch.randn(BATCH, DIM)
    grads = []
    for scale in (1.0, 1e30):
        leaves = [x.requires_grad_() for x in spoiled(features, lambda x, s=scale: x * s)]
        grads.append(torch.autograd.grad(fusion(leaves), leaves, cotangent))
    usual = torch.arange(BATCH) != ODD
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours[usual], theirs[usual], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(theirs[ODD] * 1e30, ours[ODD], rtol=1e-2, atol=1e-3)


def test_a_projection_is_orthogonal_at_the_start(double):
    for width in (5, 32, 50):
        weight = Projection(width, 32).weight
        small = min(width, 32)
        gram = weight.T @ weight if width <= 32 else weight @ weight.T
        torch.testing.assert_close(gram, torch.eye(small))


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e37])
def test_rms_is_one_at_any_scale(scale):
    x = torch.randn(3, 8).sign() * torch.tensor([1.0, 2.0]).repeat(4)
    got = rms_normalised(x * scale)
    torch.testing.assert_close(got, x / 2.5**0.5, rtol=1e-2 if scale < 1e-38 else 1e-5, atol=0)
    assert not rms_normalised(torch.zeros(2, 4)).any()
