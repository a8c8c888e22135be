"""Labels that the loss of MM-Dynamics cannot judge by."""

import pytest
import torch

from deq_fusion.objective_functions.mm_dynamics import mm_dynamics_loss


@pytest.mark.parametrize("label", [3, -1, -100])
def test_labels_that_are_no_classes_are_refused(label):
    extras = {
        "gates": [torch.rand(2, 4)],
        "view_logits": [torch.randn(2, 3)],
        "confidences": [torch.rand(2)],
    }
    assert mm_dynamics_loss(torch.randn(2, 3), torch.tensor([0, 2]), extras).isfinite()
    with pytest.raises(ValueError, match=f"classes from 0 to 2, got .*{label}"):
        mm_dynamics_loss(torch.randn(2, 3), torch.tensor([1, label]), extras)


def test_balanced_every_class_that_is_there_counts_alike():
    torch.manual_seed(0)
    truth = torch.tensor([0, 0, 0, 0, 2, 2, 3])  # no sample of class 1
    logits, own = torch.randn(2, 7, 4, dtype=torch.float64).unbind()
    extras = {
        "gates": [torch.zeros(7, 4, dtype=torch.float64)],
        "view_logits": [own],
        "confidences": [own.softmax(1)[torch.arange(7), truth]],
    }
    expected = 0.0
    for each in (logits, own):
        losses = each.logsumexp(1) - each[torch.arange(7), truth]
        expected += sum(losses[truth == c].mean() for c in (0, 2, 3)) / 3
    found = mm_dynamics_loss(logits, truth, extras, balanced=True)
    assert found == pytest.approx(float(expected))
    assert mm_dynamics_loss(logits, truth, extras) != pytest.approx(float(expected))
