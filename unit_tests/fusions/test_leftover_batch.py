"""Every registered fusion trains when a pass ends with a batch of a single sample."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.fusions.cross import CrossFusion
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.fit import fit
from deq_fusion.training_structures.metrics import classification, regression

WIDTHS, DIM, BATCH = [4, 5, 6], 8, 4


class Model(nn.Module):
    """A fusion, and a head where it does not predict on its own."""

    def __init__(self, name, widths):
        super().__init__()
        entry = FUSIONS[name]
        self.outputs = 3 if "classification" in entry.tasks else 1
        options = {"task": entry.tasks[0], "outputs": self.outputs} if entry.predicts else {}
        self.fusion, width = entry(widths, DIM, **options)
        self.head = nn.Identity() if width is None else nn.Linear(width, self.outputs)

    def forward(self, inputs):
        return self.head(self.fusion(inputs))


@pytest.mark.parametrize(
    ("name", "accumulate"), [*((name, 1) for name in FUSIONS), ("cross", 3), ("deq", 3)]
)
def test_a_leftover_batch_of_one_trains(name, accumulate):
    entry = FUSIONS[name]
    widths = WIDTHS[: max(2, entry.modalities[0])]
    if name == "early_transformer":
        widths = widths[:1] * len(widths)
    steps = () if "vectors" in entry.features else (3,)
    model, samples = Model(name, widths), 2 * BATCH + 1
    x = [torch.randn(samples, *steps, width) for width in widths]
    y = torch.randint(3, (samples,)) if model.outputs == 3 else torch.randn(samples, 1)
    loss = nn.functional.cross_entropy if model.outputs == 3 else nn.functional.mse_loss
    metrics = classification if model.outputs == 3 else regression
    batches = DataLoader(TensorDataset(*x, y), batch_size=BATCH)
    options = {"epochs": 2, "accumulate": accumulate, "metrics": metrics, "progress": False}
    history = fit(model, batches, batches, loss, optimizer=partial(torch.optim.SGD), **options)
    assert all(math.isfinite(value) for value in history.epochs[-1].values())
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_single_sample_of_cross_takes_the_running_statistics(double):
    fusion, other = CrossFusion([3, DIM], DIM), [torch.randn(7, 3) + 2, torch.randn(7, DIM)]
    for _ in range(3):
        fusion(other)
    before = {name: value.clone() for name, value in fusion.named_buffers()}
    x = [torch.randn(1, 3), torch.randn(1, DIM)]
    fused, penalty = fusion(x), fusion.auxiliary_loss
    found = torch.autograd.grad(fused.sum() + penalty, fusion.joint.weight, retain_graph=True)[0]
    for name, value in fusion.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    torch.testing.assert_close(fused, fusion.eval()(x))
    assert penalty > 0
    eps, step = 1e-6, torch.randn_like(fusion.joint.weight)
    fusion.train()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            fusion.joint.weight.add_(sign * eps * step)
        values.append((fusion(x).sum() + fusion.auxiliary_loss).item())
        with torch.no_grad():
            fusion.joint.weight.sub_(sign * eps * step)
    slope = (values[0] - values[1]) / (2 * eps)
    assert (found * step).sum().item() == pytest.approx(slope, rel=1e-5)


def test_a_later_batch_does_not_disturb_its_gradient():
    fusion = CrossFusion([3], DIM)
    loss = fusion([torch.randn(1, 3)]).sum() + fusion([torch.randn(5, 3)]).sum()
    loss.backward()
    assert fusion.joint.weight.grad.isfinite().all()
