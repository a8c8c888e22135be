"""The wrapper adds what modules keep, in training only, and casts the truth as MultiBench does."""

import pytest
import torch
from torch import nn

from deq_fusion.objective_functions.auxiliary_loss import WithAuxiliaryLoss


class Host(nn.Module):
    """Two modules with a loss, and a third that passes on that of the first."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.silent = nn.Identity(), nn.Identity(), nn.Identity()
        self.first.auxiliary_loss = torch.tensor(0.25, requires_grad=True)
        self.second.auxiliary_loss = torch.tensor(1.0)
        self.silent.auxiliary_loss = None

    @property
    def auxiliary_loss(self):
        return self.first.auxiliary_loss


@pytest.mark.parametrize(
    "objective, truth, cast",
    [
        (nn.CrossEntropyLoss(), torch.tensor([[1.0], [0.0]]), lambda t: t[:, 0].long()),
        (nn.CrossEntropyLoss(), torch.tensor([1, 0], dtype=torch.int32), lambda t: t.long()),
        (nn.MSELoss(), torch.ones(2, 3, dtype=torch.long), lambda t: t.float()),
        (nn.L1Loss(), torch.ones(2, 3, dtype=torch.long), lambda t: t.float()),
        (nn.BCEWithLogitsLoss(), torch.ones(2, 3, dtype=torch.int32), lambda t: t.float()),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_adds_every_loss_once_and_only_in_training(objective, truth, cast, training):
    prediction = torch.randn(2, 3, requires_grad=True)
    args = {"training": training, "model": Host()}
    total = WithAuxiliaryLoss(objective)(prediction, truth, args)
    expected = objective(prediction, cast(truth)) + (1.25 if training else 0.0)
    torch.testing.assert_close(total, expected)


def test_the_added_loss_is_differentiated():
    host = Host()
    args = {"training": True, "model": host}
    WithAuxiliaryLoss(nn.MSELoss())(torch.zeros(2, 1), torch.zeros(2, 1), args).backward()
    assert host.first.auxiliary_loss.grad == 1


class Supervised(nn.Module):
    """Its loss is a constant times the sum of the truth."""

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def supervised_loss(self, truth):
        return self.scale * truth.sum()


class Passing(Supervised):
    """Passes on the method of a module within, and holds a value of that name that is none."""

    def __init__(self):
        super().__init__(0.0)
        self.first, self.second, self.silent = Supervised(2.0), Supervised(0.5), nn.Identity()
        self.silent.supervised_loss = None
        self.supervised_loss = self.first.supervised_loss


@pytest.mark.parametrize("training", [True, False])
def test_losses_from_the_truth_are_added_once_each_and_only_in_training(training):
    host, prediction, truth = Passing(), torch.randn(3, 1), torch.ones(3, 1)
    args = {"training": training, "model": host}
    total = WithAuxiliaryLoss(nn.MSELoss())(prediction, truth, args)
    plain = nn.functional.mse_loss(prediction, truth)
    torch.testing.assert_close(total, plain + (2.5 * 3 if training else 0.0))
    if training:
        total.backward()
        assert host.first.scale.grad == host.second.scale.grad == 3


def test_truth_goes_where_the_prediction_is():
    seen = []
    host = nn.Identity()
    host.supervised_loss = lambda truth: seen.append(truth.device.type) or 0.0
    objective = WithAuxiliaryLoss(lambda prediction, truth, args: 0.0)
    objective(torch.ones(2, device="meta"), torch.ones(2), {"training": True, "model": host})
    assert seen == ["meta"]


def test_another_objective_gets_all_three_arguments():
    args = {"training": False}
    seen = []
    loss = WithAuxiliaryLoss(lambda *given: seen.append(given) or torch.tensor(2.0))
    assert loss("prediction", "truth", args) == 2
    assert seen == [("prediction", "truth", args)]


@pytest.mark.parametrize("args", [None, {"reps": []}])
def test_says_what_to_pass(args):
    with pytest.raises(ValueError, match=r"pass objective_args_dict=\{\}"):
        WithAuxiliaryLoss(nn.MSELoss())(torch.zeros(1), torch.zeros(1), args)


def test_tells_our_loop_that_it_adds_them():
    assert WithAuxiliaryLoss(nn.MSELoss()).adds_auxiliary_loss is True
