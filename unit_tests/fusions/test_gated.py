"""The gated multimodal unit, entry by entry."""

from math import exp, tanh

import pytest
import torch

from deq_fusion.fusions.gated import GatedMultimodalUnit

WIDTHS, DIM = [3, 5, 2], 4


def dot(row, x):
    return sum(a * b for a, b in zip(row.tolist(), x.tolist(), strict=True))


def by_hand(fusion, features):
    """h of one sample, from the formulas, in plain floats."""
    x, h = torch.cat(features), []
    for k in range(DIM):
        values = [
            tanh(dot(p.weight[k], f)) for p, f in zip(fusion.projections, features, strict=True)
        ]
        gates = [
            1 / (1 + exp(-dot(row, x))) for row in fusion.gate.weight.view(-1, DIM, len(x))[:, k]
        ]
        if len(features) == 2:
            gates = [gates[0], 1 - gates[0]]
        h.append(sum(g * v for g, v in zip(gates, values, strict=True)))
    return torch.tensor(h)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_follows_the_formulas(double, count):
    fusion = GatedMultimodalUnit(WIDTHS[:count], DIM)
    features = [torch.randn(6, width) for width in WIDTHS[:count]]
    expected = torch.stack([by_hand(fusion, sample) for sample in zip(*features, strict=True)])
    torch.testing.assert_close(fusion(features), expected)


def test_two_modalities_are_mixed_and_more_are_added(double):
    for count, most in ((2, 1.0), (3, 3.0)):
        fusion = GatedMultimodalUnit(WIDTHS[:count], DIM)
        for parameter in fusion.parameters():
            torch.nn.init.constant_(parameter, 20.0)
        fused = fusion([torch.ones(1, width) for width in WIDTHS[:count]])
        torch.testing.assert_close(fused, torch.full((1, DIM), most))


def test_a_zero_feature_adds_nothing_and_moves_no_gate(double):
    fusion = GatedMultimodalUnit(WIDTHS, DIM)
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    z = (torch.cat([x, y], 1) @ fusion.gate.weight[:, [0, 1, 2, 8, 9]].T).sigmoid()
    expected = z[:, :DIM] * (x @ fusion.projections[0].weight.T).tanh()
    expected += z[:, 2 * DIM :] * (y @ fusion.projections[2].weight.T).tanh()
    torch.testing.assert_close(fusion([x, torch.zeros(6, 5), y]), expected)
    present = torch.tensor([True, False, True]).expand(6, 3)
    torch.testing.assert_close(fusion([x, torch.randn(6, 5), y], present=present), expected)
