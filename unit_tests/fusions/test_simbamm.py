"""SimBaMM, written out token by token from the layers' weights."""

import math

import pytest
import torch
from torch import nn

from deq_fusion.fusions.simbamm import SimBaMM
from unit_tests.fusions.transformer_reference import affine, post_norm_layer

WIDTHS, DIM = [3, 5, 2], 8
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)


def make(**options):
    fusion = SimBaMM(WIDTHS, DIM, heads=2, layers=2, **{"dropout": 0.0, **options})
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fusion, [torch.randn(4, width) for width in WIDTHS]


def place(position):
    """Sines and cosines in turn, of ever longer waves."""
    angles = [position / 10000 ** (2 * k / DIM) for k in range(DIM // 2)]
    return torch.tensor([f(angle) for angle in angles for f in (math.sin, math.cos)])


def by_hand(fusion, sample, keep):
    """The fused feature of one sample from the modalities in `keep` alone."""
    tokens = [fusion.token + place(0)]
    tokens += [affine(fusion.projections[i], sample[i]) + place(i + 1) for i in keep]
    x = torch.stack(tokens).unsqueeze(1)  # (tokens, 1, dim)
    for layer in fusion.layers:
        x = post_norm_layer(layer, x)
    return x[0, 0]


@pytest.mark.parametrize("present", [None, PRESENT])
@pytest.mark.parametrize("evaluate", [False, True])
def test_follows_the_formulas_over_the_tokens_present(double, present, evaluate):
    fusion, features = make()
    expected = []
    for b in range(4):
        keep = [i for i in range(3) if present is None or present[b, i]]
        expected.append(by_hand(fusion, [x[b] for x in features], keep))
    if evaluate:  # PyTorch has another kernel for this
        with torch.no_grad():
            fused = fusion.eval()(features, present=present)
    else:
        fused = fusion(features, present=present)
    torch.testing.assert_close(fused, torch.stack(expected))


def test_the_layers_are_half_as_wide_inside_as_released_unless_told():
    assert SimBaMM(WIDTHS, DIM).layers[0].linear1.weight.shape == (DIM // 2, DIM)
    assert SimBaMM(WIDTHS, DIM, hidden=5).layers[3].linear1.weight.shape == (5, DIM)


def test_dropout_is_random_in_training_only():
    fusion, features = make(dropout=0.5)
    assert not torch.equal(fusion(features), fusion(features))
    torch.testing.assert_close(fusion.eval()(features), fusion(features), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"heads": 3}, r"dim \(=8\) must be divisible by heads \(=3\)"),
        ({"layers": 0}, "layers must be an integer of at least 1"),
        ({"hidden": 0}, "hidden must be an integer of at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_refuses_options_that_make_no_sense(option, message):
    with pytest.raises(ValueError, match=message):
        SimBaMM(WIDTHS, DIM, **option)
