"""Late fusion averages what the heads of those present predict."""

import pytest
import torch

from deq_fusion.fusions.late import LateFusion

WIDTHS, OUTPUTS = [3, 5, 2], 4
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)


@pytest.mark.parametrize("probabilities", [True, False])
@pytest.mark.parametrize("present", [None, PRESENT])
def test_is_the_mean_over_those_present(double, probabilities, present):
    fusion = LateFusion(WIDTHS, OUTPUTS, probabilities=probabilities)
    features = [torch.randn(4, width) for width in WIDTHS]
    expected = torch.zeros(4, OUTPUTS)
    for b in range(4):
        keep = [i for i in range(3) if present is None or present[b, i]]
        for i in keep:
            y = fusion.heads[i].weight @ features[i][b] + fusion.heads[i].bias
            expected[b] += (y.exp() / y.exp().sum() if probabilities else y) / len(keep)
    fused = fusion(features, present=present)
    torch.testing.assert_close(fused, expected.log() if probabilities else expected)


def test_cross_entropy_is_the_log_likelihood_of_the_mean_probability(double):
    fusion, label = LateFusion(WIDTHS, OUTPUTS), torch.tensor([0, 3, 1, 1])
    features = [torch.randn(4, width) for width in WIDTHS]
    heads = zip(fusion.heads, features, strict=True)
    mean = torch.stack([head(x).softmax(-1) for head, x in heads]).mean(0)
    expected = -mean[range(4), label].log().mean()
    torch.testing.assert_close(torch.nn.functional.cross_entropy(fusion(features), label), expected)


def test_sure_heads_that_disagree_leave_no_nan():
    fusion = LateFusion([2, 2], 2)
    for head in fusion.heads:
        torch.nn.init.eye_(head.weight)
    x = torch.tensor([[1e4, -1e4]], requires_grad=True)
    fused = fusion([x, -x])
    torch.testing.assert_close(fused.exp(), torch.full((1, 2), 0.5))
    torch.testing.assert_close(fusion([x, x]).exp(), torch.tensor([[1.0, 0.0]]))
    fused.sum().backward()
    assert x.grad.isfinite().all()


def test_one_output_has_no_probabilities():
    with pytest.raises(ValueError, match="at least 2 outputs.*pass probabilities=False"):
        LateFusion(WIDTHS, 1)
    assert LateFusion(WIDTHS, 1, probabilities=False)([torch.ones(2, d) for d in WIDTHS]).shape == (
        2,
        1,
    )
