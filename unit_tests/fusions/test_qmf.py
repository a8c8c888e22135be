"""QMF: logits weighted by energy, and the ranking of confidences, pair by pair."""

import math

import pytest
import torch

from deq_fusion.fusions.qmf import QMF

WIDTHS, CLASSES = [3, 5, 2], 4
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=torch.bool)
TRUTH = torch.tensor([0, 3, 1, 1, 2])


def make(**options):
    fusion = QMF(WIDTHS, CLASSES, **options)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=3.0)  # so that confidences differ by more than r
    return fusion, [torch.randn(5, width) for width in WIDTHS]


def own(fusion, features, i, b):
    return (fusion.heads[i].weight @ features[i][b] + fusion.heads[i].bias).tolist()


def energy(logits):
    return math.log(sum(math.exp(x) for x in logits))


def ranking(fusion, features, present):
    """The ranking, and how many pairs it is active for."""
    total, active = 0.0, 0
    for i in range(3):
        here = [b for b in range(5) if present[b, i]]
        loss = {b: energy(own(fusion, features, i, b)) for b in here}
        loss = {b: value - own(fusion, features, i, b)[TRUTH[b]] for b, value in loss.items()}
        low, high = min(loss.values()), max(loss.values())
        r = {b: (value - low) / (high - low) for b, value in loss.items()}
        c = {b: 0.1 * energy(own(fusion, features, i, b)) for b in here}
        pairs = [(b, (b + 1) % 5) for b in range(5)]
        pairs = [(a, b) for a, b in pairs if a in r and b in r]
        for a, b in pairs:
            sign = (r[a] > r[b]) - (r[a] < r[b])
            excess = max(0.0, sign * (c[a] - c[b]) - abs(r[a] - r[b]))
            total, active = total + excess / len(pairs), active + (excess > 0)
    return total, active


@pytest.mark.parametrize("present", [None, PRESENT])
def test_follows_the_formulas_over_those_present(double, present):
    fusion, features = make(rank_weight=0.7)
    prediction = fusion(features, present=present)
    present = torch.ones_like(PRESENT) if present is None else present
    entropies = 0.0
    for b in range(5):
        rows = [own(fusion, features, i, b) for i in range(3) if present[b, i]]
        joint = [sum(0.1 * energy(row) * row[k] for row in rows) for k in range(CLASSES)]
        expected = torch.tensor([x - energy(joint) for x in joint])
        torch.testing.assert_close(prediction[b], expected)
        entropies += sum(energy(row) - row[TRUTH[b]] for row in rows) / 5
    rank, active = ranking(fusion, features, present)
    assert active >= 2  # else the ranking would not be seen
    torch.testing.assert_close(fusion.supervised_loss(TRUTH), torch.tensor(entropies + 0.7 * rank))


def test_the_ranking_moves_confidences_and_no_loss(double):
    # a step against its gradient lowers the confidence of the sample with the greater loss
    fusion, features = make()
    fusion(features)
    full = fusion.supervised_loss(TRUTH)
    fusion.rank_weight = 0.0
    ranked = full - fusion.supervised_loss(TRUTH)
    grads = torch.autograd.grad(ranked, list(fusion.parameters()))
    with torch.no_grad():
        for parameter, grad in zip(fusion.parameters(), grads, strict=True):
            parameter.sub_(1e-4 * grad)
    assert ranking(fusion, features, torch.ones_like(PRESENT))[0] < float(ranked.detach())


@pytest.mark.parametrize("batch", [1, 2])
def test_samples_that_are_alone_or_alike_leave_no_nan(batch):
    fusion = QMF(WIDTHS, CLASSES)
    features = [torch.ones(batch, width, requires_grad=True) for width in WIDTHS]
    fusion(features)
    loss = fusion.supervised_loss(torch.zeros(batch).long())
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in fusion.parameters())
    present = torch.tensor([[True, False, False]]).expand(batch, 3)
    fusion(features, present=present)
    assert fusion.supervised_loss(torch.zeros(batch).long()).isfinite()


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="rank_weight must be at least 0"):
        QMF(WIDTHS, CLASSES, rank_weight=-1.0)
