"""PDF: weights from predicted confidences, sample by sample, and where they would be 0 / 0."""

import math

import mpmath
import pytest
import torch

from deq_fusion.fusions.pdf import PDF, calibration, holo_confidence

WIDTHS, CLASSES = [3, 5, 2], 4
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
TRUTH = torch.tensor([0, 3, 1, 1])


def make():
    fusion = PDF(WIDTHS, CLASSES, hidden=6)
    return fusion, [torch.randn(4, width) for width in WIDTHS]


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def confidence(fusion, i, x):
    first, _, second = fusion.confidence[i]
    hidden = (first.weight @ x + first.bias).clamp_min(0)
    return 1 / (1 + math.exp(-(second.weight @ hidden + second.bias).item()))


def joint(logits, p, *, calibrated):
    """The sum of logits, a list for each modality, weighted by the release's formulas."""
    n = len(p)
    total = sum(math.log(v) for v in p)
    holo = [(total - math.log(v)) / total for v in p]
    k = [1.0] * n
    if calibrated and n > 1:
        far = [sum(abs(q - 1 / CLASSES) for q in softmax(row)) / CLASSES for row in logits]
        k = [min(1.0, far[i] * (n - 1) / (sum(far) - far[i])) for i in range(n)]
    w = softmax([k[i] * (p[i] + holo[i]) for i in range(n)])
    return [sum(w[i] * logits[i][c] for i in range(n)) for c in range(CLASSES)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("present", [None, PRESENT])
def test_follows_the_formulas_over_those_present(double, training, present):
    fusion, features = make()
    prediction = fusion.train(training)(features, present=present)
    total = 0.0
    for b in range(4):
        keep = [i for i in range(3) if present is None or present[b, i]]
        heads = [fusion.heads[i] for i in keep]
        xs = [features[i][b] for i in keep]
        logits = [(h.weight @ x + h.bias).tolist() for h, x in zip(heads, xs, strict=True)]
        p = [confidence(fusion, i, x) for i, x in zip(keep, xs, strict=True)]
        expected = torch.tensor(joint(logits, p, calibrated=not training)).log_softmax(0)
        torch.testing.assert_close(prediction[b], expected)
        for row, own in zip(logits, p, strict=True):
            true = softmax(row)[TRUTH[b]]
            total += (-math.log(true) + abs(own - true)) / 4
    if training:
        torch.testing.assert_close(fusion.supervised_loss(TRUTH), torch.tensor(total))


def test_the_weights_are_constants_and_the_networks_learn_confidences_alone(double):
    fusion, features = make()
    features = [x.requires_grad_() for x in features]
    prediction = fusion(features)
    prediction.backward(torch.randn_like(prediction), retain_graph=True)
    assert all(p.grad is None for p in fusion.confidence.parameters())
    before = [x.grad.clone() for x in features]
    fusion.zero_grad()
    fusion.supervised_loss(TRUTH).backward()
    assert all(p.grad.any() for p in fusion.confidence.parameters())
    # to the features and heads that loss is cross-entropy: what the networks see has no gradient
    plain = [x.detach().requires_grad_() for x in features]
    logits = [head(x) for head, x in zip(fusion.heads, plain, strict=True)]
    sum(torch.nn.functional.cross_entropy(y, TRUTH) for y in logits).backward()
    for x, earlier, other in zip(features, before, plain, strict=True):
        torch.testing.assert_close(x.grad - earlier, other.grad)


@pytest.mark.parametrize("size", [0.0, 1.0, 14.99, 15.01, 30.0, 80.0])
def test_holo_confidence_is_what_logarithms_of_many_digits_give(double, size):
    u = torch.tensor([[size, 0.3], [-size, 0.3], [size, size + 2], [-size, size]])
    with mpmath.workdps(80):
        logs = [[mpmath.log(1 / (1 + mpmath.exp(-mpmath.mpf(v)))) for v in r] for r in u.tolist()]
        expected = [[float(b / (a + b)), float(a / (a + b))] for a, b in logs]
    found = holo_confidence(u, torch.ones(4, 2, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bias", [-1e4, 1e4])
@pytest.mark.parametrize("training", [True, False])
def test_one_sample_and_confidences_of_zero_or_one_leave_no_nan(bias, training):
    fusion = PDF(WIDTHS, CLASSES).train(training)
    for network in fusion.confidence:
        torch.nn.init.constant_(network[2].bias, bias)
    for head in fusion.heads:  # uniform predictions: the calibration would be 0 / 0
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    features = [torch.randn(1, width, requires_grad=True) for width in WIDTHS]
    prediction = fusion(features)
    torch.testing.assert_close(prediction.exp(), torch.full((1, CLASSES), 1 / CLASSES))
    if training:
        (prediction[0, 0] + fusion.supervised_loss(torch.tensor([1]))).backward()
        assert all(p.grad.isfinite().all() for p in fusion.parameters())


def test_calibration_of_uniform_predictions_holds_nothing_down():
    uniform, sure = [0.25] * 4, [1.0, 0.0, 0.0, 0.0]
    probabilities = torch.tensor([[uniform, uniform], [sure, uniform], [uniform, sure]])
    found = calibration(probabilities, torch.ones(3, 2, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
