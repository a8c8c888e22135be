"""Batches count so that their mean loss is that of one joined batch, and shapes are made to fit."""

from functools import partial, wraps

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.objective_functions.auxiliary_loss import WithAuxiliaryLoss
from deq_fusion.training_structures.fit import evaluate, fit
from deq_fusion.training_structures.objectives import fitted, loss_of, weight_of
from deq_fusion.training_structures.Supervised_Learning import dealing

WEIGHTS = torch.tensor([0.2, 1.0, 3.5])
SGD = partial(torch.optim.SGD, lr=1.0)


class Model(nn.Module):
    """With a loss of its own, a mean over samples, if `penalty`."""

    def __init__(self, outputs=3, penalty=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.linear, self.penalty = nn.Linear(4, outputs), penalty
        self.auxiliary_loss = None

    def forward(self, inputs):
        output = self.linear(inputs[0])
        self.auxiliary_loss = self.penalty * output.square().mean() if self.penalty else None
        return output


def data(ignored=5, samples=13):
    torch.manual_seed(0)
    x, y = torch.randn(samples, 4), torch.randint(3, (samples,))
    y[:ignored] = -100
    return x, y


def loader(x, y, size):
    return DataLoader(TensorDataset(x, y), batch_size=size)


def labelled_share(truth):
    return (truth != -100).sum()


def own(prediction, truth):
    return F.cross_entropy(prediction, truth)


own.batch_weight = labelled_share


@wraps(F.cross_entropy)
def told(*args, **options):
    return F.cross_entropy(*args, **options)


class Renamed(nn.CrossEntropyLoss):
    """A subclass that computes the same."""


OBJECTIVES = {
    "function": F.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "subclass": Renamed(weight=WEIGHTS),
    "weights": nn.CrossEntropyLoss(weight=WEIGHTS),
    "weights in a partial": partial(F.cross_entropy, weight=WEIGHTS.double().float()),
    "smoothed": nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1),
    "nested partials": partial(partial(F.cross_entropy, ignore_index=0), ignore_index=-100),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted sum": partial(F.cross_entropy, weight=WEIGHTS, reduction="sum"),
    "dealt": dealing(nn.CrossEntropyLoss(weight=WEIGHTS), args=None),
    "its own": own,
    "wrapped": told,
}


def once(objective, size, accumulate, rows, penalty):
    model, batches = Model(penalty=penalty), loader(*rows, size)
    history = fit(
        *(model, batches, batches, objective),
        epochs=1,
        accumulate=accumulate,
        optimizer=SGD,
        progress=False,
    )
    return model.linear.weight.detach(), history.epochs[0]


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_batches_teach_and_score_as_one_joined_batch(name, penalty):
    objective, rows = OBJECTIVES[name], data()
    (one, whole), (many, parts) = (
        once(objective, size, accumulate, rows, penalty) for size, accumulate in ((13, 1), (4, 4))
    )
    torch.testing.assert_close(many, one)
    for key in ("train_loss", "valid_loss"):
        assert parts[key] == pytest.approx(whole[key], rel=1e-5)
    # a second computation, of the first step alone
    model = Model(penalty=penalty)
    loss = objective(model([rows[0]]), rows[1]) + (model.auxiliary_loss or 0)
    assert whole["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    torch.testing.assert_close(one, Model().linear.weight - model.linear.weight.grad)


@pytest.mark.parametrize("name", ["function", "weights", "sum"])
def test_an_epochs_losses_are_those_of_one_batch(name):
    x, y = data()
    frozen = partial(torch.optim.SGD, lr=0.0)
    options = {"epochs": 1, "optimizer": frozen, "progress": False}
    batches, objective = loader(x, y, 3), OBJECTIVES[name]
    record = fit(Model(), batches, batches, objective, **options).epochs[0]
    expected = objective(Model()([x]), y).item()
    assert record["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert record["valid_loss"] == pytest.approx(expected, rel=1e-5)


def test_plain_means_count_the_samples():
    for objective in (F.cross_entropy, nn.MSELoss(), lambda p, t: p.sum(), F.kl_div):
        assert weight_of(objective, torch.arange(3)) == 3
    assert weight_of(F.cross_entropy, torch.zeros(5, 3).softmax(1)) == 5  # probabilities
    assert weight_of(F.cross_entropy, torch.zeros(5, 7).long()) == 5  # seven labels a sample
    assert weight_of(F.mse_loss, {"a": torch.zeros(4)}) == 4


@pytest.mark.parametrize(
    "objective",
    [nn.KLDivLoss(reduction="sum"), nn.MultiMarginLoss(reduction="sum"), nn.GaussianNLLLoss],
)
def test_every_loss_of_torch_says_whether_it_is_a_sum(objective):
    if isinstance(objective, type):
        objective = objective(reduction="sum")
    truth = torch.arange(3)
    assert weight_of(objective, truth) is None
    objective.reduction = "mean"
    assert weight_of(objective, truth) == 3
    assert weight_of(partial(F.multi_margin_loss, reduction="sum"), truth) is None


def test_what_a_batch_counts_by_hand():
    truth = torch.tensor([0, 2, -100, 2, 1])
    assert weight_of(nn.CrossEntropyLoss(weight=WEIGHTS), truth) == pytest.approx(0.2 + 7 + 1)
    assert weight_of(partial(F.nll_loss, ignore_index=2), truth.clamp(min=0)) == 3
    assert weight_of(nn.MSELoss(reduction="sum"), truth) is None
    half = torch.tensor([[0, -100], [1, 1]])  # three of the four labels of two samples
    assert weight_of(F.cross_entropy, half) == pytest.approx(2 * 3 / 4)
    assert weight_of(WithAuxiliaryLoss(nn.CrossEntropyLoss()), truth) == 4


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    def objective(prediction, truth):
        return prediction.sum()

    objective.batch_weight = lambda truth: weight
    with pytest.raises(ValueError, match="batch_weight must be at least 0 and finite, got"):
        weight_of(objective, torch.zeros(2))


# --- batches without a label


@pytest.mark.parametrize("objective", [F.cross_entropy, own])
def test_a_batch_of_ignored_labels_teaches_nothing(objective):
    x, y = data(ignored=6, samples=12)
    momentum = partial(torch.optim.SGD, lr=1.0, momentum=0.9, weight_decay=0.1)
    options = {"epochs": 1, "optimizer": momentum, "progress": False}
    model, alone = Model(penalty=0.1), Model(penalty=0.1)
    history = fit(model, loader(x, y, 6), loader(x, y, 6), objective, **options)
    expected = fit(alone, loader(x[6:], y[6:], 6), loader(x, y, 12), objective, **options)
    torch.testing.assert_close(model.linear.weight, alone.linear.weight, rtol=0, atol=0)
    for key in ("train_loss", "valid_loss"):
        assert history.epochs[0][key] == pytest.approx(expected.epochs[0][key], rel=1e-6)


def test_a_set_without_a_label_is_refused():
    x, y = data()
    none = torch.full_like(y, -100)
    run = partial(fit, Model(), objective=F.cross_entropy, epochs=1, progress=False)
    with pytest.raises(ValueError, match="no label of train counts"):
        run(train=loader(x, none, 4), valid=loader(x, y, 4))
    with pytest.raises(ValueError, match="no label of the set counts"):
        run(train=loader(x, y, 4), valid=loader(x, none, 4))


def test_a_loss_of_ones_own_that_ignores_all_is_told_how_to_say_so():
    x, y = data()
    silent = lambda p, t: F.cross_entropy(p, t)  # noqa: E731
    with pytest.raises(ValueError, match=r"every label is -100.*epoch 1, batch 1.*batch_weight"):
        fit(Model(), loader(x, y, 4), None, silent, epochs=1, progress=False)


# --- shapes


REGRESSIONS = {
    "mse": F.mse_loss,
    "l1": nn.L1Loss(),
    "smooth": partial(F.smooth_l1_loss, beta=0.5),
    "huber": nn.HuberLoss(),
    "dealt": dealing(nn.MSELoss(), args=None),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_targets_may_lack_a_dimension_of_size_1(name):
    x = torch.randn(64, 4)
    y, adam = x @ torch.tensor([1.0, -2.0, 0.5, 3.0]), partial(torch.optim.Adam, lr=0.1)
    losses = []
    for shape in ((64,), (64, 1)):
        batches = loader(x, y.view(shape), 16)
        run = partial(fit, train=batches, valid=batches, optimizer=adam, progress=False)
        history = run(Model(outputs=1), objective=REGRESSIONS[name], epochs=15)
        losses.append([record["valid_loss"] for record in history.epochs])
    assert losses[0] == losses[1] and losses[0][-1] < 0.6 * losses[0][0]


OWN = {
    "difference": lambda p, t: (p - t).square().mean(),
    "reversed": lambda p, t: (t - p).abs().mean(),
    "cast": lambda p, t: (p.sigmoid() - t.double()).square().mean(),
    "product": lambda p, t: (1 - p * t).relu().mean(),
    "of torch": lambda p, t: F.mse_loss(p, t) / 2,
    "squeezed": lambda p, t: (p.squeeze(1) - t[:, None]).square().mean(),
}


@pytest.mark.parametrize("name", OWN)
def test_a_loss_that_pairs_all_predictions_with_all_truths_is_refused(name):
    batches = loader(torch.randn(8, 4), torch.randn(8), 4)
    message = r"combines \(4, 1\) and \(4,\)|combines \(4,\) and \(4, 1\)"
    with pytest.raises(ValueError, match=message):
        fit(Model(outputs=1), batches, None, OWN[name], epochs=1, progress=False)


def test_so_is_it_in_evaluation():
    batches = loader(torch.randn(8, 4), torch.randn(8), 4)
    with pytest.raises(ValueError, match=r"combines \(4, 1\) and \(4,\).*one shape"):
        evaluate(Model(outputs=1), batches, objective=OWN["difference"])


def test_losses_that_mean_pairs_or_take_the_column_are_not():
    def ranking(prediction, truth):
        order = (truth[:, None] - truth).sign()  # (n, 1) and (n,): all truth
        return -(order * (prediction - prediction.T)).sigmoid().mean()

    def column(prediction, truth):
        return F.mse_loss(prediction[:, 0], truth)

    def by_bin(prediction, truth):
        return ((prediction - torch.linspace(-1, 1, 4)[None]) ** 2).mean()

    x, y = torch.randn(8, 4), torch.randn(8)
    for objective in (ranking, column, by_bin):
        fit(Model(outputs=1), loader(x, y, 4), loader(x, y, 4), objective, epochs=1, progress=False)


@pytest.mark.parametrize(
    "objective, prediction, truth",
    [
        (F.mse_loss, (4, 2), (4,)),
        (F.mse_loss, (4, 2), (4, 1)),
        (nn.BCEWithLogitsLoss(), (4, 3), (3, 4)),
        (F.l1_loss, (4, 1), (3, 1)),
        (F.cross_entropy, (4, 3), (3,)),
        (F.cross_entropy, (4, 3), (4, 2)),
        (nn.CrossEntropyLoss(), (4,), (4,)),
    ],
)
def test_other_shapes_are_refused_with_both(objective, prediction, truth):
    shown = [str(shape).replace("(", r"\(").replace(")", r"\)") for shape in (prediction, truth)]
    with pytest.raises(ValueError, match=f"got {shown[0]} and {shown[1]}"):
        loss_of(objective, torch.zeros(prediction), torch.zeros(truth))


def test_the_truth_is_given_in_the_dtype_that_torch_wants():
    logits = torch.randn(4, 3)
    for labels in (torch.tensor([0.0, 2.0, 1.0, -100.0]), torch.tensor([[0], [2], [1], [-100]])):
        for dtype in (torch.int32, torch.float64):
            found = loss_of(F.cross_entropy, logits, labels.to(dtype))
            assert found == F.cross_entropy(logits, torch.tensor([0, 2, 1, -100]))
    bits = torch.tensor([0, 1, 1, 0])
    found = loss_of(nn.BCEWithLogitsLoss(), logits[:, :1], bits)
    assert found == F.binary_cross_entropy_with_logits(logits[:, 0], bits.float())
    assert fitted(F.mse_loss, logits.double(), torch.ones(4, 3).int()).dtype == torch.float64
    shares = logits.softmax(1)
    assert fitted(F.cross_entropy, logits, shares) is shares


@pytest.mark.parametrize(
    "truth, message",
    [
        ([1, 2, 3, 1], r"classes from 0 to 2, .*or -100 to be ignored, but 1 of 4 rows hold 3 in"),
        ([0, -1, 0, 0], "-1 in row 1"),
        ([0.5, 1, 2, 0], "whole numbers, but 1 of 4 rows hold 0.5 in row 0"),
        ([0.0, 1, 2, float("nan")], "whole numbers.*nan in row 3"),
    ],
)
@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_labels_that_are_no_classes_are_refused(truth, message, weight):
    batches = loader(torch.randn(4, 4), torch.tensor(truth), 4)
    objective = nn.CrossEntropyLoss(weight=weight)
    for run in (partial(fit, epochs=1, valid=None, progress=False), evaluate):
        data = "loader" if run is evaluate else "train"
        with pytest.raises(ValueError, match=message):
            run(Model(), **{data: batches}, objective=objective)


def test_class_weights_are_as_many_as_the_classes():
    batches = loader(torch.randn(4, 4), torch.tensor([0, 1, 0, 1]), 4)
    with pytest.raises(ValueError, match="each of the 3 classes.* has 2 weights"):
        fit(
            *(Model(), batches, None, nn.CrossEntropyLoss(weight=torch.ones(2))),
            epochs=1,
            progress=False,
        )


@pytest.mark.parametrize(
    "objective, message",
    [
        (nn.CrossEntropyLoss(reduction="none"), r"one number, got shape \(4,\)"),
        (lambda p, t: 3.0, "one number, got float"),
        (lambda p, t: p.detach().sum(), "has no gradient; is something detached"),
    ],
)
def test_an_objective_returns_a_number_that_teaches(objective, message):
    with pytest.raises(ValueError, match=message):
        fit(Model(), loader(*data(), 4), None, objective, epochs=1, progress=False)
