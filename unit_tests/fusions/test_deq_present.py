"""A modality that is absent takes no part: the others are fused as if it did not exist."""

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion
from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    GROUPS,
    WIDTHS,
    gradients,
    make,
    make_features,
)


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def remaining(fusion: DEQFusion, keep: list[int], variant: str, **options) -> DEQFusion:
    """A fusion of the modalities in `keep` with the parameters that `fusion` has for them."""
    small, _ = make(variant, [fusion.input_dims[i] for i in keep], **options)
    source = fusion.state_dict()
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name.startswith("projections."):
                k = int(name.split(".")[1])
                parameter.copy_(source[name.replace(f".{k}.", f".{keep[k]}.")])
            elif name.startswith("unimodal.norm"):
                parameter.copy_(source[name][:, keep])
            elif name.startswith("unimodal.") or name == "weights":
                parameter.copy_(source[name][keep])
            else:
                parameter.copy_(source[name])
        # the weight of the map is this parameter times a constant that depends on N
        small.fuse.weight *= fusion.fuse.tensors()[2] / small.fuse.tensors()[2]
    return small


@pytest.mark.parametrize("variant", ["default", "paper", "released", "released_mosi"])
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("held", [1.0, float("nan"), float("inf")])
def test_an_absent_modality_equals_a_fusion_without_it(variant, joint, held):
    fusion, _ = make(variant, WIDTHS[:3], joint=joint, **EXACT)
    small = remaining(fusion, [0, 2], variant, joint=joint, **EXACT)
    features = make_features(fusion.input_dims)
    with torch.no_grad():
        features[1].fill_(held)
    present = torch.tensor([True, False, True]).expand(2, 3)
    fused = fusion(features, present=present)
    assert fusion.info.converged.all()
    expected = small([features[0], features[2]])
    close(fused, expected)

    cotangent = torch.randn_like(fused)
    got = gradients(fused, fusion, features, cotangent)
    want = gradients(expected, small, [features[0], features[2]], cotangent)
    close(got["features[0]"], want["features[0]"])
    close(got["features[2]"], want["features[1]"])
    assert not got["features[1]"].any()
    for name in ("bias1", "weight2"):
        grad = got[f"unimodal.{name}"]
        close(grad[[0, 2]], want[f"unimodal.{name}"])
        assert not grad[1].any()
    if "projections.1.weight" in got:
        assert not got["projections.1.weight"].any()


def test_samples_of_one_batch_may_lack_different_modalities():
    fusion, _ = make("default", WIDTHS[:3], **EXACT)
    features = make_features(fusion.input_dims, batch=7)
    present = torch.tensor([[k & 1 > 0, k & 2 > 0, k & 4 > 0] for k in range(1, 8)])
    with torch.no_grad():
        for i, x in enumerate(features):
            x[~present[:, i]] = float("nan")
    fused = fusion(features, present=present)
    cotangent = torch.randn_like(fused)
    whole = torch.autograd.grad(fused, features, cotangent)
    for k, row in enumerate(present):
        keep = row.nonzero().flatten().tolist()
        left = [features[i][k : k + 1] for i in keep]
        alone = remaining(fusion, keep, "default", **EXACT)(left)
        close(alone, fused[k : k + 1])
        grads = torch.autograd.grad(alone, left, cotangent[k : k + 1])
        for i, grad in zip(keep, grads, strict=True):
            close(whole[i][k : k + 1], grad)
    assert all(not g[~present[:, i]].any() for i, g in enumerate(whole))


def test_what_is_absent_counts_no_steps():
    fusion = DEQFusion([5, 7], DIM, groups=GROUPS)
    features = make_features(fusion.input_dims, batch=3, dtype=torch.float32)
    present = torch.tensor([[True, True], [False, True], [True, False]])
    fusion(features, present=present)
    torch.testing.assert_close(fusion.info.steps[:, :2] > 0, present, rtol=0, atol=0)
    assert fusion.info.converged.all()
    solved = fusion.info.steps[fusion.info.steps > 0]
    assert fusion.info.summary()["steps"] == pytest.approx(solved.float().mean().item())
