"""DynMM against its formula in numpy loops, the closed form of its straight-through gradient, and
what it saves."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.unimodals.dynmm import DynMM, OneModality, straight_through

DIMS, OUTPUTS, FILMS = (5, 7), 3, 6


class Joined(nn.Module):
    """Reads all inputs; counts the samples that it is given."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(sum(DIMS), OUTPUTS)
        self.seen = 0

    def forward(self, inputs):
        self.seen += len(inputs[0])
        return self.map(torch.cat(inputs, dim=1)).tanh()


def make(**options):
    experts = [OneModality(nn.Linear(DIMS[0], OUTPUTS)), Joined()]
    return DynMM(experts, DIMS, hidden=4, **options)


def inputs(films=FILMS):
    return [torch.randn(films, d) for d in DIMS]


def numbers(*tensors):
    return [x.detach().numpy() for x in tensors]


def gate(model, x):
    """p and each expert's output for one sample, in numpy."""
    w1, b1, w2, b2, wt, bt, wj, bj = numbers(
        *(model.gate.fc.weight, model.gate.fc.bias, model.gate.fc2.weight, model.gate.fc2.bias),
        *model.experts[0].parameters(),
        *model.experts[1].parameters(),
    )
    joined = np.concatenate(x)
    logits = (w2 @ np.maximum(w1 @ joined + b1, 0) + b2) / model.temperature
    p = np.exp(logits) / np.exp(logits).sum()
    return p, np.stack([wt @ x[0] + bt, np.tanh(wj @ joined + bj)])


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_prediction_is_the_formula(temperature, double):
    model, batch = make(temperature=temperature), inputs()
    expected, chosen = [], []
    for x in zip(*numbers(*batch), strict=True):
        p, outputs = gate(model, x)
        chosen.append(int(p.argmax()))
        expected.append(outputs[chosen[-1]])
    assert 0 < sum(chosen) < FILMS  # both experts are asked
    expected = torch.from_numpy(np.stack(expected))
    torch.testing.assert_close(model.train()(batch), expected)
    torch.testing.assert_close(model.eval()(batch), expected)
    share = sum(chosen) / FILMS
    summary = model.info.summary()
    assert summary["share_of_expert_2"] == pytest.approx(share)
    assert summary["share_of_expert_1"] == pytest.approx(1 - share)


def test_the_cost_is_the_weighted_share_of_the_last_expert(double):
    model, batch = make(cost_weight=0.5), inputs()
    assert model.auxiliary_loss is None
    model(batch)
    share = model.info.experts[1]
    assert 0 < share < 1
    torch.testing.assert_close(model.auxiliary_loss, torch.tensor(0.5 * share))
    model.eval()(batch)
    assert model.auxiliary_loss is None
    own = make(costs=(2.0, 3.0), cost_weight=1.0)
    own(batch)
    a, b = own.info.experts
    torch.testing.assert_close(own.auxiliary_loss, torch.tensor(2 * a + 3 * b))


def test_the_gradient_goes_straight_through(double):
    weight, temperature = 0.7, 0.6
    model = make(cost_weight=weight, temperature=temperature)
    batch, cotangent = inputs(), torch.randn(FILMS, OUTPUTS)
    seen = []
    model.gate.register_forward_hook(lambda m, args, out: seen.append(out) or out.retain_grad())
    output = model(batch)
    ((output * cotangent).sum() + model.auxiliary_loss).backward()
    expected, by_hand = [], np.zeros((OUTPUTS, DIMS[0]))
    samples = zip(*numbers(*batch), strict=True)
    for x, v in zip(samples, cotangent.numpy(), strict=True):
        p, outputs = gate(model, x)
        a = outputs @ v + weight * np.array([0, 1]) / FILMS  # dloss / dg, as it reaches p
        expected.append(p * (a - p @ a) / temperature)
        if p.argmax() == 0:
            by_hand += np.outer(v, x[0])
    torch.testing.assert_close(seen[0].grad, torch.from_numpy(np.stack(expected)))
    torch.testing.assert_close(model.experts[0].network.weight.grad, torch.from_numpy(by_hand))


def test_straight_through_is_exactly_hard():
    weights = straight_through(torch.randn(50, 3) / 7)
    assert ((weights == 0) | (weights == 1)).all() and (weights.sum(dim=1) == 1).all()


def test_in_evaluation_an_expert_sees_its_own_samples_alone():
    model, batch = make().eval(), inputs(40)
    model(batch)
    expert = model.experts[1]
    assert expert.seen == round(model.info.experts[1] * 40) and 0 < expert.seen < 40
    expert.seen = 0
    model.train()(batch)
    assert expert.seen == 40


@pytest.mark.parametrize("only", [0, 1])
def test_an_expert_without_samples_is_not_asked(only):
    model, batch = make().eval(), inputs()
    with torch.no_grad():
        model.gate.fc2.bias[only] += 100
    torch.testing.assert_close(model(batch), model.experts[only](batch))
    assert model.experts[1].seen == (0, 2 * FILMS)[only]
    assert model(inputs(0)).shape == (0, OUTPUTS)


def test_a_sample_does_not_depend_on_its_batch():
    model, batch = make().eval(), inputs()
    whole = model(batch)
    alone = torch.cat([model([x[i : i + 1] for x in batch]) for i in range(FILMS)])
    torch.testing.assert_close(alone, whole)


def test_without_an_image_all_go_to_the_text_expert():
    model, batch = make().eval(), inputs()
    with model.without(1):
        assert torch.equal(model(batch), model.experts[0](batch))
    assert model.experts[1].seen == 0
    assert model.without(0) is None  # no expert reads images alone


def test_outputs_may_have_any_shape():
    experts = [OneModality(nn.Unflatten(1, (1, 5))), OneModality(nn.Unflatten(1, (1, 5)))]
    model, batch = DynMM(experts, DIMS), inputs()
    assert model(batch).shape == (FILMS, 1, 5)
    torch.testing.assert_close(model.eval()(batch), batch[0].unsqueeze(1))


def trained(steps=150):
    torch.manual_seed(3)
    model, batch, truth = make(), inputs(8), torch.rand(8, OUTPUTS).round()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch), truth)
        (loss + model.auxiliary_loss).backward()
        optimizer.step()
    return model.eval(), batch, truth


def test_it_learns_a_batch_by_heart():
    model, batch, truth = trained()
    assert ((model(batch) > 0) == truth.bool()).float().mean() > 0.95


def test_it_is_trained_the_same_every_time():
    (model, batch, _), (other, _, _) = trained(5), trained(5)
    assert torch.equal(model(batch), other(batch))


def test_a_dear_expert_is_chosen_less():
    def share(weight):
        torch.manual_seed(1)
        model, batch = make(cost_weight=weight), inputs(64)
        optimizer = torch.optim.Adam(model.gate.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            (model(batch).square().mean() + model.auxiliary_loss).backward()
            optimizer.step()
        model.eval()(batch)
        return model.info.experts[1]

    assert share(100.0) < 0.05 < share(0.0)


def test_it_is_saved_and_copied():
    model, other, batch = make(), make(), inputs()
    expected = model.eval()(batch)
    other.load_state_dict(model.state_dict())
    model.train()(batch)  # leaves a loss with its graph
    for copied in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied.eval()(batch), expected)
    assert model.auxiliary_loss.requires_grad


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"with \[5, 7\] numbers a sample, got \[5\]; give all"):
        make()(inputs()[:1])
    with pytest.raises(ValueError, match=r"got \[7, 5\]"):
        make()(inputs()[::-1])
    with pytest.raises(ValueError, match="two or more experts, .* got 1 experts and 1 costs"):
        DynMM([Joined()], DIMS)
    with pytest.raises(ValueError, match="got 2 experts and 3 costs"):
        make(costs=(1, 2, 3))
    with pytest.raises(ValueError, match="temperature must be positive, .* got 0 and 0.1"):
        make(temperature=0)
