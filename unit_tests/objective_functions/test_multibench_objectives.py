"""MultiBench's objectives against numpy, and the truth as they cast it."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from torch import nn
from torch.testing import assert_close

from deq_fusion.objective_functions.objectives_for_supervised_learning import (
    CCA_objective,
    MFM_objective,
    MVAE_objective,
    RefNet_objective,
    RMFE_object,
)
from deq_fusion.objective_functions.recon import sigmloss1d
from deq_fusion.objective_functions.regularization import RegularizationLoss

BATCH = 5


def cross_entropy(logits, labels):
    rows = zip(logits.detach().numpy(), labels.reshape(-1).tolist(), strict=True)
    return np.mean([np.log(np.exp(row).sum()) - row[int(label)] for row, label in rows])


def squares(x, y):
    """(x - y)^2, summed over a sample's numbers."""
    return (x - y).square().flatten(1).sum(1)


def told(**more):
    return {"inputs": [torch.randn(BATCH, 4), torch.randn(BATCH, 2, 3)], **more}


def prediction():
    return torch.randn(BATCH, 3), torch.tensor([0, 2, 1, 1, 0])


def test_mfm(double):
    pred, truth = prediction()
    args = told(
        reps=[torch.randn(BATCH, 2), torch.randn(BATCH, 3)],
        fused=torch.randn(BATCH, 4),
        intermediates=[nn.Linear(2, 5), nn.Linear(3, 1)],
        decoders=[nn.Linear(9, 4), nn.Linear(5, 6)],
    )
    made = 0.0
    for i, weight in enumerate([0.5, 3.0]):
        factor = args["intermediates"][i](args["reps"][i])
        x = args["decoders"][i](torch.cat([factor, args["fused"]], 1)).detach().numpy()
        original = args["inputs"][i].float().numpy().reshape(BATCH, -1)  # input_to_float
        made += weight * np.mean(((x - original) ** 2).sum(1))
    loss = MFM_objective(2.0, [squares, squares], [0.5, 3.0])(pred, truth, args)
    assert loss.item() == pytest.approx(2 * cross_entropy(pred, truth) + made)


def elbo(recons, originals, mu, logvar, weights, annealing):
    """The negative bound of the modalities that are made, by loops over the samples."""
    total = []
    for b in range(BATCH):
        m, log = mu[b].numpy(), logvar[b].numpy()
        own = annealing * 0.5 * np.sum(np.exp(log) + m**2 - 1 - log)
        for x, y, weight in zip(recons, originals, weights, strict=True):
            if x is not None:
                own += weight * np.sum((x[b].detach().numpy() - y[b].numpy().ravel()) ** 2)
        total.append(own)
    return np.mean(total)


@pytest.mark.parametrize("training", [True, False])
def test_mvae(double, training):
    pred, truth = prediction()
    codes = [tuple(torch.randn(2, BATCH, 2)) for _ in range(3)]
    decoders = [nn.Linear(2, 4), nn.Linear(2, 6)]
    args = told(reps=codes[:2], fused=codes[2], decoders=decoders, training=training)
    weights, annealing = [0.5, 3.0], 0.7
    objective = MVAE_objective(
        2.0, [squares, squares], weights, input_to_float=False, annealing=annealing
    )
    torch.manual_seed(4)
    loss = objective(pred, truth, args).item()

    torch.manual_seed(4)

    def code(mu, logvar):
        return mu + torch.randn(BATCH, 2) * (logvar / 2).exp() if training else mu

    joint = [decode(code(*codes[2])) for decode in decoders]
    expected = elbo(joint, args["inputs"], *codes[2], weights, annealing)
    first = [decoders[0](code(*codes[0])), None]
    expected += elbo(first, args["inputs"], *codes[0], weights, annealing)
    second = [None, decoders[1](code(*codes[1]))]
    expected += elbo(second, args["inputs"], *codes[1], weights, annealing)
    assert loss == pytest.approx(expected + 2 * cross_entropy(pred, truth))


def test_the_bound_is_below_the_likelihood(double):
    """Of a linear decoder the likelihood is known: a negative ELBO, constants added, exceeds it."""
    decode, x = nn.Linear(2, 4), torch.randn(BATCH, 4)
    w, b = decode.weight.detach(), decode.bias.detach()
    covariance = w @ w.T + torch.eye(4)
    x_density = torch.distributions.MultivariateNormal(b, covariance).log_prob(x)
    precision = w.T @ w + torch.eye(2)  # of the posterior, which is Gaussian
    mu = (x - b) @ w @ precision.inverse()

    def half_squares(x, y):
        return squares(x, y) / 2

    objective = MVAE_objective(0.0, [half_squares], [1.0], input_to_float=False)
    pred, truth = prediction()
    draws, gaps = 400, []
    for logvar in (torch.log(1 / precision.diagonal()), torch.zeros(2)):
        pair = mu.repeat(draws, 1), logvar.expand(draws * BATCH, 2)
        args = {"reps": [pair], "fused": pair, "decoders": [decode]}
        args |= {"inputs": [x.repeat(draws, 1)], "training": True}
        loss = objective(pred, truth, args).item() / 2  # joint and alone are the same
        bound = -loss - 2 * np.log(2 * np.pi)
        gaps.append(x_density.mean().item() - bound)
    assert gaps[0] > 0 and gaps[1] > gaps[0]


def test_cca(double):
    pred, truth = prediction()
    reps = [torch.randn(BATCH, 2), torch.randn(BATCH, 2), torch.randn(BATCH, 9)]
    first, second = (h.numpy() - h.numpy().mean(0) for h in reps[:2])
    roots = [
        fractional_matrix_power(h.T @ h / (BATCH - 1) + 1e-3 * np.eye(2), -0.5)
        for h in (first, second)
    ]
    s = np.linalg.svd(roots[0] @ (first.T @ second / (BATCH - 1)) @ roots[1])[1]
    loss = CCA_objective(2, cca_weight=0.3)(pred, truth, {"reps": reps})
    expected = cross_entropy(pred, truth) - 0.3 * np.sqrt(s**2 + 1e-3).sum()
    assert loss.item() == pytest.approx(expected)


def test_refnet(double):
    pred, truth = prediction()
    args = told(fused=torch.randn(BATCH, 3), refiner=nn.Linear(3, 12))  # two columns too many
    made = args["refiner"](args["fused"]).detach().numpy()
    distance = 0.0
    for columns, x in ((slice(0, 4), args["inputs"][0]), (slice(4, 10), args["inputs"][1])):
        for a, b in zip(made[:, columns], x.float().double().numpy(), strict=True):
            b = b.ravel()
            distance += (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)) / BATCH
    loss = RefNet_objective(0.1)(pred, truth, args)
    assert loss.item() == pytest.approx(cross_entropy(pred, truth) + 0.1 * distance)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(4, 3), nn.Linear(6, 3)])

    def forward(self, inputs):
        parts = [f(x.flatten(1)) for f, x in zip(self.maps, inputs, strict=True)]
        return sum(parts).tanh()


def test_rmfe():
    model, args = Model(), told()
    args["model"] = model
    pred, truth = model(args["inputs"]), torch.randint(0, 2, (BATCH, 3))
    torch.manual_seed(4)
    loss = RMFE_object(0.7)(pred, truth, args)
    torch.manual_seed(4)
    term = RegularizationLoss(nn.BCEWithLogitsLoss(), model, 0.7, is_pack=False)
    p, y = pred.sigmoid().detach().numpy(), truth.numpy()
    expected = np.mean(-y * np.log(p) - (1 - y) * np.log(1 - p))
    assert loss.item() == pytest.approx(expected + term(pred, args["inputs"]).item(), rel=1e-6)


def test_rmfe_is_the_criterion_alone_without_gradients_and_draws_nothing(capsys):
    model, args = Model(), told()
    args["model"] = model
    truth = torch.randint(0, 2, (BATCH, 3))
    state = torch.get_rng_state()
    with torch.no_grad():
        pred = model(args["inputs"])
        loss = RMFE_object(0.7)(pred, truth, args)
    assert_close(loss, nn.functional.binary_cross_entropy_with_logits(pred, truth.float()))
    assert torch.equal(torch.get_rng_state(), state) and capsys.readouterr().out == ""


@pytest.mark.parametrize("criterion", [nn.BCEWithLogitsLoss(), nn.MSELoss()])
def test_one_sample_has_neither_correlation_nor_noise(criterion):
    model, inputs = Model(), [torch.randn(1, 4), torch.randn(1, 2, 3)]
    pred, truth = model(inputs), torch.ones(1, 3)
    args = {"model": model, "inputs": inputs, "reps": [pred, pred]}
    for objective in (RMFE_object(0.7, criterion), CCA_objective(2, criterion=criterion)):
        assert_close(objective(pred, truth, args), criterion(pred, truth))


# --- what all of them share

ALL = [
    (MFM_objective(1.0, [squares] * 2, [0.0] * 2), "decoders, intermediates"),
    (MVAE_objective(1.0, [squares] * 2, [0.0] * 2), "decoders"),
    (RefNet_objective(0.0), "refiner"),
    (CCA_objective(2), "reps"),
    (RMFE_object(), "model, inputs"),
]


@pytest.mark.parametrize("objective, missing", ALL)
def test_what_is_missing_is_named(objective, missing):
    pred, truth = torch.randn(BATCH, 3, requires_grad=True), torch.ones(BATCH, 3)
    args = {"reps": [0, 0], "fused": 0, "inputs": [], "training": True}
    if missing in ("reps", "model, inputs"):
        args = None
    if missing != "model, inputs":
        truth = truth[:, 0]
    with pytest.raises(ValueError, match=f"the objective needs {missing}, but was given"):
        objective(pred, truth, args)


@pytest.mark.parametrize("objective, _", ALL)
def test_objectives_can_be_copied_and_pickled(objective, _):
    pred, truth = prediction()
    args = {"reps": [torch.randn(BATCH, 2)] * 2}
    twins = copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))
    assert all(twin.func is objective.func for twin in twins)
    if objective.func.__name__ == "_cca":
        assert_close(twins[1](pred, truth, args), objective(pred, truth, args))


@pytest.mark.parametrize(
    "criterion, truth, cast",
    [
        (nn.CrossEntropyLoss(), torch.tensor([[1.0], [0.0]]), lambda t: t[:, 0].long()),
        (nn.CrossEntropyLoss(), torch.tensor([1, 0], dtype=torch.int32), lambda t: t.long()),
        (nn.MSELoss(), torch.arange(6).reshape(2, 3), lambda t: t.float()),
        (nn.L1Loss(), torch.arange(6.0).double().reshape(2, 3), lambda t: t.float()),
        (nn.BCEWithLogitsLoss(), torch.ones(2, 3, dtype=torch.int32), lambda t: t.float()),
        (nn.SoftMarginLoss(), torch.ones(2, 3), lambda t: t),
    ],
)
def test_the_truth_is_cast_as_the_criterion_needs_it(criterion, truth, cast):
    pred = torch.randn(2, 3)
    args = {"fused": torch.randn(2, 3), "inputs": [pred], "refiner": nn.Linear(3, 3)}
    loss = RefNet_objective(0.0, criterion)(pred, truth, args)
    assert_close(loss, criterion(pred, cast(truth)))


def test_numbers_of_a_regression_are_never_paired():
    pred, truth = torch.randn(4, 1), torch.randn(4)
    args = {"fused": pred, "inputs": [pred], "refiner": nn.Linear(1, 1)}
    loss = RefNet_objective(0.0, nn.MSELoss())(pred, truth, args)
    assert_close(loss, (pred[:, 0] - truth).square().mean())
    with pytest.raises(ValueError, match=r"equally many entries.*\(4, 1\) and \(4, 2\)"):
        RefNet_objective(0.0, nn.MSELoss())(pred, torch.randn(4, 2), args)


def test_a_batch_of_one_keeps_its_dimension():
    pred, args = torch.randn(1, 3), {"fused": torch.ones(1, 2), "inputs": [torch.ones(1, 3)]}
    args["refiner"] = nn.Linear(2, 3)
    loss = RefNet_objective(0.0)(pred, torch.tensor([[2]]), args)
    assert loss.item() == pytest.approx(cross_entropy(pred, torch.tensor([2])), rel=1e-6)


def test_what_does_not_fit_is_named():
    pred, truth = prediction()
    args = told(fused=torch.randn(BATCH, 3), refiner=nn.Linear(3, 9))
    with pytest.raises(ValueError, match=r"at least the 10 numbers.*\(4 \+ 6\), got 9"):
        RefNet_objective(0.1)(pred, truth, args)
    args["inputs"] = [args["inputs"], [torch.ones(BATCH)] * 2]
    with pytest.raises(ValueError, match=r"\['list', 'list'\]; it takes no packed"):
        RefNet_objective(0.1)(pred, truth, args)
    args = told(reps=[pred, pred], fused=pred, decoders=[nn.Identity()], intermediates=[None] * 2)
    with pytest.raises(ValueError, match="2 modalities, got {'decoders': 1, 'intermediates': 2}"):
        MFM_objective(1.0, [sigmloss1d] * 2, [1.0] * 2)(pred, truth, args)


def test_names_order_and_defaults_are_multibenchs():
    cross_entropy, bce = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss
    contract = {
        MFM_objective: "ce_weight modal_loss_funcs recon_weights input_to_float=True criterion",
        MVAE_objective: "ce_weight modal_loss_funcs recon_weights input_to_float=True "
        "annealing=1.0 criterion",
        CCA_objective: "out_dim cca_weight=0.001 criterion",
        RefNet_objective: "ref_weight criterion input_to_float=True",
        RMFE_object: "reg_weight=1e-10 criterion is_packed=False",
    }
    for function, expected in contract.items():
        words = []
        for name, parameter in inspect.signature(function).parameters.items():
            if name == "criterion":
                kind = bce if function is RMFE_object else cross_entropy
                assert type(parameter.default) is kind
                words.append(name)
            elif parameter.default is parameter.empty:
                words.append(name)
            else:
                words.append(f"{name}={parameter.default}")
        assert " ".join(words) == expected
