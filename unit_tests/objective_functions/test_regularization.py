"""RMFE by explicit loops and finite differences; what it leaves as it was."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torch import nn
from torch.testing import assert_close

from deq_fusion.objective_functions.regularization import (
    Perturbation,
    RegParameters,
    Regularization,
    RegularizationLoss,
)

COPIES, DELTA = 10, 0.7


class Model(nn.Module):
    """A smooth prediction from every modality, one of which may be ignored."""

    def __init__(self, shapes, outputs=2, ignored=None):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(int(np.prod(shape)), 3) for shape in shapes)
        self.head, self.ignored = nn.Linear(3, outputs), ignored

    def forward(self, inputs):
        parts = [f(x.flatten(1)) for f, x in zip(self.maps, inputs, strict=True)]
        return self.head(sum(p for i, p in enumerate(parts) if i != self.ignored).tanh())


def batch_of(shapes, samples=3):
    return [torch.randn(samples, *shape) for shape in shapes]


def noisy(inputs):
    """The copies that the regulariser draws next, by loops."""
    state, copies = torch.get_rng_state(), []
    for x in inputs:
        rows = np.array([row.numpy().ravel() for row in x for _ in range(COPIES)])
        noise = torch.randn(*rows.shape, dtype=x.dtype).numpy()
        rows = rows + noise * rows.std(axis=0, ddof=1)
        copies.append(rows.reshape(-1, *x.shape[1:]))
    torch.set_rng_state(state)
    return copies


def mean_bce(logits, wanted):
    p = expit(logits)
    return np.mean(-wanted * np.log(p) - (1 - wanted) * np.log(1 - p))


def mean_ce(logits, wanted):
    return np.mean(-(wanted * np.log(softmax(logits, 1))).sum(1))


def mean_square(prediction, wanted):
    return np.mean((prediction - wanted) ** 2)


def mean_absolute(prediction, wanted):
    return np.mean(np.abs(prediction - wanted))


def scores(f, copies, step=1e-6):
    """I_m of every modality, a central difference by every number of every copy."""
    found = []
    for x in copies:
        norms = np.zeros(len(x))
        for index in np.ndindex(*x.shape):
            before = x[index]
            x[index] = before + step
            above = f()
            x[index] = before - step
            below = f()
            x[index] = before
            norms[index[0]] += ((above - below) / (2 * step)) ** 2
        found.append(np.mean(norms / f()))
    return np.array(found)


CRITERIA = [
    (nn.BCEWithLogitsLoss(), mean_bce, lambda logits: softmax(logits, 1)),
    (nn.CrossEntropyLoss(), mean_ce, lambda logits: softmax(logits, 1)),
    (nn.MSELoss(), mean_square, lambda logits: logits),
    (nn.L1Loss(), mean_absolute, lambda logits: logits),
]


@pytest.mark.parametrize("criterion, mean, wanted", CRITERIA)
@pytest.mark.parametrize("shapes", [[(2,)], [(2,), (2, 2)], [(1,), (2,), (1, 2, 1)]])
def test_is_the_norm_of_the_inverse_informations(double, criterion, mean, wanted, shapes):
    model, inputs = Model(shapes), batch_of(shapes)
    copies = noisy(inputs)

    def f():
        prediction = model([torch.from_numpy(x) for x in copies]).detach().numpy()
        return mean(prediction, targets)

    logits = model(inputs)
    targets = np.repeat(wanted(logits.detach().numpy()), COPIES, axis=0)
    term = RegularizationLoss(criterion, model, DELTA, is_pack=False)(logits, inputs)
    expected = DELTA * np.sqrt((1 / scores(f, copies) ** 2).sum())
    assert term.item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_that_of_the_weights(double):
    shapes = [(2,), (3,)]
    model, inputs = Model(shapes), batch_of(shapes)
    parameters = dict(model.named_parameters())

    def term(*values):
        torch.manual_seed(1)  # the same noise
        for value, (_, parameter) in zip(values, parameters.items(), strict=True):
            parameter.data = value.detach()
        return RegularizationLoss(nn.BCEWithLogitsLoss(), model, 1.0, False)(model(inputs), inputs)

    value = term(*[p.detach().clone() for p in parameters.values()])
    gradients = torch.autograd.grad(value, list(parameters.values()))
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        direction = torch.randn_like(parameter)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [
                p.detach() + (step * direction if key == name else 0)
                for key, p in parameters.items()
            ]
            kept = [p.detach().clone() for p in parameters.values()]
            ends.append(term(*moved).item())
            term(*kept)
        slope = (ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-4, abs=1e-6)


def test_the_shape_of_a_modality_does_not_matter(double):
    torch.manual_seed(2)
    flat = Model([(12,), (4,)])
    inputs = batch_of([(12,), (4,)])
    terms = []
    for x in (inputs[0], inputs[0].reshape(3, 2, 6), inputs[0].reshape(3, 2, 2, 3)):
        torch.manual_seed(3)
        loss = RegularizationLoss(nn.BCEWithLogitsLoss(), flat, is_pack=False)
        terms.append(loss(flat([x, inputs[1]]), [x, inputs[1]]).item())
    assert terms == pytest.approx([terms[0]] * 3)


class Padded(nn.Module):
    """Means of sequences without their padding, [[x_1, ...], [lengths_1, ...]]."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 2)

    def forward(self, inputs):
        means = []
        for x, lengths in zip(*inputs, strict=True):
            inside = torch.arange(x.shape[1]) < lengths.reshape(-1, 1)
            means.append((x * inside.unsqueeze(2)).sum(1) / lengths.reshape(-1, 1))
        return self.head(torch.cat(means, 1).tanh())


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_packed_inputs_bring_their_lengths(double, kind):
    model, x = Padded(), [torch.randn(3, 4, 2), torch.randn(3, 4, 3)]
    lengths = [[4, 2, 3], [1, 4, 2]]
    copies = noisy(x)
    repeated = [torch.tensor(row).repeat_interleave(COPIES) for row in lengths]

    def f():
        prediction = model([[torch.from_numpy(c) for c in copies], repeated])
        return mean_bce(prediction.detach().numpy(), targets)

    given = [torch.tensor(row) for row in lengths]
    logits = model([x, given])
    targets = np.repeat(softmax(logits.detach().numpy(), 1), COPIES, axis=0)
    inputs = (x, [kind(row) for row in lengths], "what else a batch holds")
    term = RegularizationLoss(nn.BCEWithLogitsLoss(), model, DELTA)(logits, inputs)
    expected = DELTA * np.sqrt((1 / scores(f, copies) ** 2).sum())
    assert term.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.drop, self.last = nn.BatchNorm1d(3), nn.Dropout(0.5), None
            self.modes = []

        def forward(self, inputs):
            self.modes.append(self.training)
            self.last = self.drop(self.norm(inputs[0]))
            return self.last

    model, x = Keeping().train(training), torch.randn(6, 3)
    logits = model([x])
    last = model.last
    state = {name: value.clone() for name, value in model.state_dict().items()}
    RegularizationLoss(nn.BCEWithLogitsLoss(), model, is_pack=False)(logits, [x]).backward()
    assert model.last is last and model.modes == [training] * 2
    assert all(module.training == training for module in model.modules())
    assert_close(model.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        nn.MultiheadAttention(4, 2, batch_first=True),
        nn.GRU(4, 4, batch_first=True),
    ],
)
def test_attention_and_recurrence_are_differentiated_twice(layer):
    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = layer, nn.Linear(4, 2)

        def forward(self, inputs):
            (x,) = inputs
            if isinstance(self.layer, nn.MultiheadAttention):
                return self.head(self.layer(x, x, x, need_weights=False)[0][:, -1])
            out = self.layer(x)
            return self.head((out[0] if isinstance(out, tuple) else out)[:, -1])

    model, x = Sequences(), torch.randn(3, 5, 4)
    term = RegularizationLoss(nn.BCEWithLogitsLoss(), model, 1.0, is_pack=False)(model([x]), [x])
    term.backward()
    gradients = [p.grad for p in layer.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    assert max(g.abs().max() for g in gradients) > 0


def test_inputs_become_what_the_model_takes():
    model = Model([(2,), (3,)])
    ids, x = torch.randint(0, 9, (4, 2)), torch.randn(4, 3, dtype=torch.float64)
    logits = model([ids.float(), x.float()])
    loss = RegularizationLoss(nn.BCEWithLogitsLoss(), model, is_pack=False)
    assert loss(logits, [ids, x]).dtype == torch.float32


def test_a_modality_without_influence_is_named():
    model, inputs = Model([(2,), (3,)], ignored=1), batch_of([(2,), (3,)])
    loss = RegularizationLoss(nn.BCEWithLogitsLoss(), model, is_pack=False)
    with pytest.raises(ValueError, match="every modality must have influence.*'0'"):
        loss(model(inputs), inputs)


def test_without_gradients_it_raises():
    model, inputs = Model([(2,)]), batch_of([(2,)])
    loss = RegularizationLoss(nn.BCEWithLogitsLoss(), model, is_pack=False)
    with torch.no_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        loss(model(inputs), inputs)


# --- the parts


def test_copies_are_beside_each_other_and_noise_has_the_batchs_deviation():
    x = torch.tensor([[1.0, 50.0], [3.0, 50.0]])
    plain = Perturbation.perturb_tensor(x, 2, perturbation=False)
    assert_close(plain.detach(), torch.tensor([[1.0, 50.0]] * 2 + [[3.0, 50.0]] * 2))
    assert plain.requires_grad
    copies = Perturbation.perturb_tensor(x, 20000).detach()
    assert_close(copies[:, 1], torch.full((40000,), 50.0))  # a feature that does not vary
    noise = copies[:, 0].reshape(2, -1) - x[:, :1]
    assert noise.mean().abs() < 0.02 and abs(noise.std() - 1) < 0.02
    assert Perturbation.perturb_tensor(torch.tensor([[7]]), 1).item() == 7  # one has no deviation


def test_predictions_are_repeated_as_probabilities_or_as_they_are():
    logits = torch.randn(2, 3)
    expanded = Perturbation.get_expanded_logits(logits, 2)
    assert_close(expanded.numpy(), np.repeat(softmax(logits.numpy(), 1), 2, axis=0))
    assert_close(Perturbation.get_expanded_logits(logits, 2, False), logits[[0, 0, 1, 1]])


def test_statistics_of_losses(double):
    loss = torch.rand(12)
    rows = loss.reshape(3, 4).numpy()
    shares = rows / rows.sum(1, keepdims=True)
    entropy = np.mean(shares * np.log(shares)) - np.mean(shares) * np.log(np.mean(shares))
    expected = {
        "ent": entropy,
        "var": np.mean(rows.var(1, ddof=1)),
        "dif_ent": -np.sum(rows * np.log(rows)),
    }
    for name, value in expected.items():
        found = Regularization.get_batch_statistics(loss, 4, name)
        assert found.item() == pytest.approx(value)
    assert Regularization.get_batch_statistics(torch.tensor([0.0, 1.0]), 2).isfinite()


def test_norms_of_gradients(double):
    gradient, loss = torch.randn(5, 2, 3), torch.rand(5)
    squares = (gradient.numpy() ** 2).reshape(5, -1).sum(1)
    assert Regularization.get_batch_norm(gradient, loss).item() == pytest.approx(
        np.mean(squares / loss.numpy())
    )
    plain = Regularization.get_batch_norm(gradient, estimation="var")
    assert plain.item() == pytest.approx(np.mean(squares))


@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_terms(double, norm):
    information = torch.rand(3) + 0.1
    i = information.numpy()
    expected = {
        "max_ent": np.linalg.norm(1 / i, norm),
        "min_ent": np.linalg.norm(i, norm),
        "max_ent_minus": 0.1 - np.linalg.norm(i, norm),
    }
    for name, value in expected.items():
        term = Regularization.get_regularization_term(information, norm, name)
        assert term.item() == pytest.approx(value)


def test_unknown_options_are_errors():
    x = torch.rand(4, 2)
    with pytest.raises(NotImplementedError, match="unknown optim_method 'most'; choose from"):
        Regularization.get_regularization_term(x, optim_method="most")
    with pytest.raises(NotImplementedError, match="unknown estimation 'x'; choose from"):
        Regularization.get_batch_statistics(x, 2, "x")
    with pytest.raises(NotImplementedError, match="unknown estimation 'x'"):
        Regularization.get_batch_norm(x, x[:, 0], "x")
    with pytest.raises(ValueError, match="divides by the loss"):
        Regularization.get_batch_norm(x)
    assert RegParameters() == RegParameters(1e-10, 2.0, "ent", "max_ent", 10, True)
