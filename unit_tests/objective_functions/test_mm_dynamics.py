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
