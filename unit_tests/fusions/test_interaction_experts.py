"""I2MoE's experts: losses by loops of numpy, the mixture, absent modalities, mistakes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.fusions.interaction_experts import Expert, InteractionExperts

DIMS = (3, 2, 4)
COUNT = len(DIMS)


class Side(nn.Module):
    """Concatenation, which keeps what it was given."""

    def forward(self, features, present=None):
        self.given, self.present = features, present
        return torch.cat(features, 1)


def mixture(**options):
    torch.manual_seed(0)
    experts = [Expert(Side(), sum(DIMS), 2) for _ in range(COUNT + 2)]
    return InteractionExperts(experts, DIMS, hidden=8, **options).double()


def features(batch=5):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, d, generator=generator, dtype=torch.float64) for d in DIMS]


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def closeness(a, b):
    return math.exp(-np.sum((a - b) ** 2))


@pytest.mark.parametrize("numbers", [False, True])
def test_the_loss_by_its_formula(numbers):
    outputs = torch.randn(COUNT + 2, 1 + COUNT, 5, 2, dtype=torch.float64)
    y, batch, similar = outputs.numpy(), 5, closeness if numbers else cosine
    losses = []
    for m in range(COUNT):
        each = []
        for i in range(COUNT):
            for b in range(batch if i != m else 0):
                whole, near, away = y[m, 0, b], y[m, i + 1, b], y[m, m + 1, b]
                further = np.linalg.norm(whole - near) - np.linalg.norm(whole - away)
                each.append(max(0.0, further + 1))
        losses.append(np.mean(each))
    for e in (COUNT, COUNT + 1):
        each = [similar(y[e, 0, b], y[e, i + 1, b]) for i in range(COUNT) for b in range(batch)]
        losses.append(np.mean(each) if e == COUNT else 1 - np.mean(each))
    found = mixture(numbers=numbers).interaction_loss(outputs)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)  # torch adds 1e-6 in distances


@pytest.mark.parametrize("batch", [1, 5])
def test_in_training_each_expert_meets_the_batch_and_copies_with_noise(batch):
    model, given = mixture(weight=0.5, dropout=0.0).train(), features(batch)
    found = model(given)
    outputs = []
    for expert in model.experts:
        seen = [x.unflatten(0, (1 + COUNT, batch)) for x in expert.fusion.given]
        for k in range(1 + COUNT):
            for i in range(COUNT):
                assert torch.equal(seen[i][k], given[i]) == (k != i + 1)
        outputs.append(torch.stack([expert([x[k] for x in seen]) for k in range(1 + COUNT)]))
    expected = 0.5 * model.interaction_loss(torch.stack(outputs))
    torch.testing.assert_close(model.auxiliary_loss, expected)
    torch.testing.assert_close(found, model.eval()(given))
    assert model.auxiliary_loss is None


def test_the_prediction_is_the_mean_by_importance():
    model, given = mixture().eval(), features()
    shares = model.importance(given)
    torch.testing.assert_close(shares.sum(1), torch.ones(5, dtype=torch.float64))
    hidden = np.maximum(
        np.concatenate([x.numpy() for x in given], 1) @ model.weigh[0].weight.detach().numpy().T
        + model.weigh[0].bias.detach().numpy(),
        0,
    )
    last = hidden @ model.weigh[3].weight.detach().numpy().T + model.weigh[3].bias.detach().numpy()
    np.testing.assert_allclose(shares.detach(), np.exp(last) / np.exp(last).sum(1)[:, None])
    expected = sum(shares[:, e, None] * expert(given) for e, expert in enumerate(model.experts))
    torch.testing.assert_close(model(given), expected)


def test_gradients():
    model, given = mixture(dropout=0.0).train(), [x.requires_grad_() for x in features(2)]

    def run(*xs):
        torch.manual_seed(3)
        prediction = model(list(xs))
        return prediction, model.auxiliary_loss

    assert torch.autograd.gradcheck(run, given)


def test_experts_are_told_who_is_absent():
    model, given = mixture().train(), features()
    present = torch.tensor([[True, True, False], [True, False, True]] + [[True] * 3] * 3)
    model(given, present=present)
    assert torch.equal(model.experts[0].fusion.present, present.repeat(1 + COUNT, 1))
    model.eval()
    other = [torch.where(p[:, None], x, 9) for x, p in zip(given, present.T, strict=True)]
    assert not torch.allclose(model.importance(given), model.importance(other))
    found = (model.importance(x, present=present) for x in (given, other))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("count", "dims", "options", "message"),
    [
        (3, (3,), {}, "one for each of two modalities or more.* got 3 for 1"),
        (3, (3, 2), {}, "got 3 for 2 modalities"),
        (4, (3, 2), {"weight": -1.0}, "weight must be at least 0, got -1.0"),
        (4, (3, 2), {"hidden": 0}, "hidden must be"),
    ],
)
def test_mistakes_are_told(count, dims, options, message):
    with pytest.raises(ValueError, match=message):
        InteractionExperts([nn.Identity() for _ in range(count)], dims, **options)
