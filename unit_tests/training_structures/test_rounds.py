"""Rounds: several steps for each step's batches, of other parts; the loop is one by hand."""

from functools import partial

import pytest
import torch
from torch import nn

from deq_fusion.training_structures.fit import load_best
from unit_tests.training_structures.small_models import (
    SGD,
    assert_same,
    cross_entropy,
    loader,
    model_of,
    quiet_fit,
)

ADAM = partial(torch.optim.Adam, lr=0.02)
TWO = ["views", "joint"]


class Alternating(nn.Module):
    """Two views that learn to predict in one round, and what joins their guesses in another."""

    round = None

    def __init__(self):
        super().__init__()
        self.views = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
        self.joint = nn.Linear(4, 2)
        self.seen = []

    def guesses(self, inputs):
        return [view(x) for view, x in zip(self.views, inputs, strict=True)]

    def forward(self, inputs):
        self.seen.append((self.round, self.training))
        guesses = self.guesses(inputs)
        if self.round == "views":
            return sum(guesses)
        return self.joint(torch.cat(guesses, 1).detach())


def losses_of(model, batch):
    *inputs, truth = batch
    for name in TWO:
        model.round = name
        yield name, partial(lambda x, y: cross_entropy(model(x), y), inputs, truth)
    model.round = None


def by_hand(model, batches, epochs, optimisers, clip=None):
    """The last epoch's mean loss of each round."""
    for _ in range(epochs):
        sums, count = dict.fromkeys(TWO, 0.0), 0
        for batch in batches:
            for name, loss in losses_of(model, batch):
                model.zero_grad()
                value = loss()
                value.backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimisers[name].step()
                sums[name] += value.item() * len(batch[-1])
            count += len(batch[-1])
    return {name: total / count for name, total in sums.items()}


def apart(model):
    """An Adam for each part, as published schedules have them."""
    return {name: ADAM(getattr(model, name).parameters()) for name in TWO}


@pytest.mark.parametrize("clip", [None, 0.05])
def test_one_adam_takes_the_steps_of_two_of_which_each_has_a_part(clip):
    model, expected = model_of(Alternating), model_of(Alternating)
    groups = [{"params": getattr(model, name).parameters()} for name in TWO]
    options = {"epochs": 3, "optimizer": ADAM, "parameters": groups, "clip_norm": clip}
    history = quiet_fit(model, loader(), None, cross_entropy, rounds=lambda _: TWO, **options)
    losses = by_hand(expected, loader(), 3, apart(expected), clip)
    assert_same(model, expected, rtol=0, atol=0)
    last = history.epochs[-1]
    assert last["train_loss"] == last["train_loss_joint"] == pytest.approx(losses["joint"])
    assert last["train_loss_views"] == pytest.approx(losses["views"])


def test_accumulated_batches_are_gone_through_once_a_round():
    options = {"epochs": 2, "optimizer": SGD, "rounds": lambda _: TWO}
    model, expected = model_of(Alternating), model_of(Alternating)
    quiet_fit(model, loader(batch_size=4), None, cross_entropy, accumulate=3, **options)
    quiet_fit(expected, loader(batch_size=12), None, cross_entropy, **options)
    assert_same(model, expected)
    names = [name for name, _ in model.seen[:6]]
    assert names == ["views"] * 3 + ["joint"] * 3


def test_the_schedule_is_of_the_epoch_and_a_part_without_a_gradient_stays():
    """Weight decay and momentum leave it alone, too."""
    model, joints = model_of(Alternating), []
    before = model.joint.weight.clone()
    decaying = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    history = quiet_fit(
        *(model, loader(), loader(), cross_entropy),
        epochs=3,
        optimizer=decaying,
        rounds=lambda epoch: TWO[:1] if epoch < 3 else TWO,
        callbacks=[lambda _: joints.append(model.joint.weight.clone())],
    )
    assert torch.equal(joints[0], before) and torch.equal(joints[1], before)
    assert not torch.equal(joints[2], before)
    assert [name for name in history.epochs[0] if name.startswith("train")] == ["train_loss"]


def test_outside_of_steps_there_is_no_round():
    model = model_of(Alternating)
    history = quiet_fit(*(model, loader(), loader(), cross_entropy), epochs=2, rounds=lambda _: TWO)
    assert model.round is None
    assert {name for name, training in model.seen if training} == set(TWO)
    assert {name for name, training in model.seen if not training} == {None}
    assert sum(not training for _, training in model.seen) == 2 * len(loader())
    load_best(model, history)


def test_an_exception_leaves_no_round():
    def fail(prediction, truth):
        raise KeyboardInterrupt

    model = model_of(Alternating)
    with pytest.raises(KeyboardInterrupt):
        quiet_fit(model, loader(), None, fail, epochs=1, rounds=lambda _: TWO)
    assert model.round is None


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    def schedule(epoch):
        return TWO[:1] if epoch <= 2 else TWO

    options = {"optimizer": ADAM, "rounds": schedule, "seed": 3}
    expected = model_of(Alternating)
    whole = quiet_fit(expected, loader(), loader(), cross_entropy, epochs=5, **options)
    options |= {"checkpoint": tmp_path / "run.pt", "resume": True}
    for epochs in (1, 3, 5):
        model = model_of(Alternating)
        history = quiet_fit(model, loader(), loader(), cross_entropy, epochs=epochs, **options)
    assert_same(model, expected, rtol=0, atol=0)
    for was, now in zip(whole.epochs, history.epochs, strict=True):
        assert {**was, "seconds": 0} == {**now, "seconds": 0}


def test_one_round_is_training_without_any():
    """Bit for bit, where the model makes nothing of it."""
    model, expected = model_of(Alternating), model_of(Alternating)
    options = {"epochs": 2, "optimizer": ADAM}
    quiet_fit(model, loader(), None, cross_entropy, rounds=lambda _: ["joint"], **options)
    quiet_fit(expected, loader(), None, cross_entropy, **options)
    assert_same(model, expected, rtol=0, atol=0)


@pytest.mark.parametrize("names", [[], "views", ["views", 1], None, [""], {"views"}])
def test_a_schedule_must_give_names(names):
    model = model_of(Alternating)
    with pytest.raises(ValueError, match="rounds must give the names.*for epoch 1"):
        quiet_fit(model, loader(), None, cross_entropy, epochs=1, rounds=lambda _: names)


def test_the_model_must_know_rounds():
    options = {"epochs": 1, "rounds": lambda _: TWO}
    with pytest.raises(ValueError, match="attribute `round`.*but Linear has none"):
        quiet_fit(nn.Linear(3, 2), loader(), None, cross_entropy, **options)
    model = model_of(Alternating)
    model.round = "views"
    with pytest.raises(ValueError, match="None outside of training.*has 'views' there"):
        quiet_fit(model, loader(), None, cross_entropy, **options)


def test_an_optimiser_that_asks_for_the_loss_is_refused():
    options = {"epochs": 1, "rounds": lambda _: TWO, "optimizer": torch.optim.LBFGS}
    with pytest.raises(ValueError, match="LBFGS learns from earlier steps.*another optimizer"):
        quiet_fit(model_of(Alternating), loader(), None, cross_entropy, **options)
