"""Late fusion with a loss for each modality: the mean of the outputs, and the losses' sums."""

import math

import pytest
import torch

from deq_fusion.fusions.late_unimodal import LateUnimodal
from deq_fusion.fusions.pdf import PDF
from deq_fusion.fusions.qmf import QMF

WIDTHS, OUTPUTS = [3, 5, 2], 4
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
TRUTHS = {
    "cross_entropy": torch.tensor([0, 3, 1, 1]),
    "binary_cross_entropy": torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 0]]),
    "squared": torch.arange(16.0).view(4, 4) / 7,
    "absolute": torch.arange(16.0).view(4, 4) / 7,
}
criteria = pytest.mark.parametrize("criterion", TRUTHS)


def one_loss(criterion, y, truth):
    """The loss of one sample's outputs, a list of numbers."""
    y = y.tolist()
    if criterion == "cross_entropy":
        return math.log(sum(math.exp(v) for v in y)) - y[int(truth)]
    pairs = list(zip(y, truth.tolist(), strict=True))
    if criterion == "binary_cross_entropy":
        terms = [-math.log(1 / (1 + math.exp(-v if t else v))) for v, t in pairs]
    elif criterion == "squared":
        terms = [(v - t) ** 2 for v, t in pairs]
    else:
        terms = [abs(v - t) for v, t in pairs]
    return sum(terms) / len(terms)


@criteria
@pytest.mark.parametrize("present", [None, PRESENT])
def test_follows_the_formulas_over_those_present(double, criterion, present):
    fusion = LateUnimodal(WIDTHS, OUTPUTS, criterion=criterion)
    features = [torch.randn(4, width) for width in WIDTHS]
    prediction = fusion(features, present=present)
    total = 0.0
    for b in range(4):
        keep = [i for i in range(3) if present is None or present[b, i]]
        own = [fusion.heads[i].weight @ features[i][b] + fusion.heads[i].bias for i in keep]
        mean = sum(own) / len(keep)
        if criterion == "cross_entropy":
            mean = mean - mean.exp().sum().log()
        torch.testing.assert_close(prediction[b], mean)
        total += sum(one_loss(criterion, y, TRUTHS[criterion][b]) for y in own) / 4
    loss = fusion.supervised_loss(TRUTHS[criterion].clone())
    torch.testing.assert_close(loss, torch.tensor(total))


@criteria
def test_the_loss_has_the_gradient_of_its_formula(double, criterion):
    fusion = LateUnimodal(WIDTHS, OUTPUTS, criterion=criterion)
    features = [torch.randn(4, width, requires_grad=True) for width in WIDTHS]

    def loss(*xs):
        fusion(list(xs), present=PRESENT)
        return fusion.supervised_loss(TRUTHS[criterion].clone())

    assert torch.autograd.gradcheck(loss, features)


def test_truth_comes_in_the_shapes_that_loaders_give_it():
    features = [torch.randn(4, width) for width in WIDTHS]
    classes, value = LateUnimodal(WIDTHS, 4), LateUnimodal(WIDTHS, 1, criterion="squared")
    for fusion, truth in ((classes, torch.tensor([0, 3, 1, 1])), (value, torch.randn(4))):
        fusion(features)
        flat = fusion.supervised_loss(truth)
        torch.testing.assert_close(fusion.supervised_loss(truth.unsqueeze(1)), flat)


@pytest.mark.parametrize("make", [LateUnimodal, QMF, PDF])
def test_what_does_not_fit_is_refused(make):
    fusion = make(WIDTHS, OUTPUTS)
    features = [torch.randn(4, width) for width in WIDTHS]
    fusion.eval()(features)
    with pytest.raises(RuntimeError, match="must follow a forward in training mode"):
        fusion.supervised_loss(torch.zeros(4).long())
    fusion.train()(features)
    with pytest.raises(ValueError, match=r"truth must have shape \(4,\)"):
        fusion.supervised_loss(torch.zeros(3).long())
    with pytest.raises(ValueError, match="class indices from 0 to 3, got 0 to 4"):
        fusion.supervised_loss(torch.tensor([0, 1, 2, 4]))
    with torch.no_grad():
        fusion(features)
    with pytest.raises(RuntimeError, match="with gradients"):
        fusion.supervised_loss(torch.zeros(4).long())
    with pytest.raises(ValueError, match=r"at least 2 outputs \(classes\), got 1"):
        make(WIDTHS, 1)


def test_values_and_criteria_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="unknown criterion 'hinge'"):
        LateUnimodal(WIDTHS, OUTPUTS, criterion="hinge")
    fusion = LateUnimodal(WIDTHS, 2, criterion="absolute")
    fusion([torch.randn(4, width) for width in WIDTHS])
    with pytest.raises(ValueError, match=r"truth must have shape \(4, 2\)"):
        fusion.supervised_loss(torch.zeros(4))
