"""Attention bottlenecks, sample by sample and layer by layer from their weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.fusions.mbt import BottleneckTransformer
from deq_fusion.fusions.tokens import sinusoids
from unit_tests.fusions.transformer_reference import affine, attention, layer_norm

WIDTHS, DIM = [3, 5, 2], 8
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
KINDS = {"vectors": [(), (), ()], "sequences": [(4,), (2,), (3,)], "both": [(), (3,), (1,)]}
kinds = pytest.mark.parametrize("steps", KINDS.values(), ids=KINDS)


def make(steps, **options):
    fusion = BottleneckTransformer(WIDTHS, DIM, heads=2, bottlenecks=2, **options)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fusion, [torch.randn(4, *time, w) for time, w in zip(steps, WIDTHS, strict=True)]


def pre_norm_layer(layer, x):
    """Of tokens (number, dim)."""
    normed = layer_norm(layer.norm1, x).unsqueeze(1)
    x = x + attention(layer.self_attn, normed, normed, normed).squeeze(1)
    inner = F.gelu(affine(layer.linear1, layer_norm(layer.norm2, x)))
    return x + affine(layer.linear2, inner)


def by_hand(fusion, sample, keep, alone):
    """The fused feature of one sample; the first `alone` layers have no bottleneck."""
    z = {}
    for i in keep:
        rows = sample[i].reshape(-1, WIDTHS[i])
        tokens = [fusion.classes[i], *(affine(fusion.projections[i], row) for row in rows)]
        z[i] = torch.stack(tokens) + sinusoids(len(tokens), fusion.classes)
    b = fusion.bottleneck
    for depth, layer in enumerate(fusion.layers):
        if depth < alone:
            z = {i: pre_norm_layer(layer[i], x) for i, x in z.items()}
            continue
        seen = {i: pre_norm_layer(layer[i], torch.cat([x, b])) for i, x in z.items()}
        z = {i: x[: len(z[i])] for i, x in seen.items()}
        b = sum(x[len(z[i]) :] for i, x in seen.items()) / len(keep)
    return sum(layer_norm(fusion.norm, z[i][0]) for i in keep) / len(keep)


@kinds
@pytest.mark.parametrize("present", [None, PRESENT])
@pytest.mark.parametrize("fusion_layers", [1, None])
def test_follows_the_formulas_over_those_present(double, steps, present, fusion_layers):
    fusion, features = make(steps, fusion_layers=fusion_layers)
    fused = fusion(features, present=present)
    for b in range(4):
        keep = [i for i in range(3) if present is None or present[b, i]]
        expected = by_hand(fusion, [x[b] for x in features], keep, alone=fusion_layers or 0)
        torch.testing.assert_close(fused[b], expected)


@kinds
def test_what_an_absent_modality_holds_gets_no_gradient(steps):
    fusion, features = make(steps)
    odd = []
    for i, x in enumerate(features):
        x[~PRESENT[:, i]] = torch.nan
        odd.append(x.requires_grad_())
    fused = fusion(odd, present=PRESENT)
    fused.backward(torch.randn_like(fused))
    for i, x in enumerate(odd):
        assert not x.grad[~PRESENT[:, i]].any() and x.grad[PRESENT[:, i]].any()
    assert all(p.grad.isfinite().all() for p in fusion.parameters())


def test_layers_without_a_bottleneck_see_their_own_modality_only(double):
    fusion, features = make(KINDS["vectors"], layers=2, fusion_layers=1)
    # what the other modality says reaches a class token through two layers with a bottleneck
    with torch.no_grad():
        fusion.bottleneck.zero_()
        changed = [features[0], features[1] + 1, features[2]]
        weight = torch.eye(3, dtype=torch.bool)[0].expand(4, 3)
        alone = fusion(features, present=weight)
        torch.testing.assert_close(fusion(changed, present=weight), alone, rtol=0, atol=0)


def test_dropout_is_random_in_training_only():
    fusion, features = make(KINDS["both"], dropout=0.5)
    assert not torch.equal(fusion(features), fusion(features))
    torch.testing.assert_close(fusion.eval()(features), fusion(features), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"heads": 3}, r"dim \(=8\) must be divisible by heads \(=3\)"),
        ({"bottlenecks": 0}, "bottlenecks must be an integer of at least 1"),
        ({"fusion_layers": 3}, r"fusion_layers must be at most layers \(=2\), got 3"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_refuses_options_that_make_no_sense(option, message):
    with pytest.raises(ValueError, match=message):
        BottleneckTransformer(WIDTHS, DIM, **option)
