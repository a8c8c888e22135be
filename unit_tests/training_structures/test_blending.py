"""Gradient blending: weights by hand from losses, the blended loss by its formula, runs resumed."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from deq_fusion.training_structures.blending import (
    BLEND,
    BlendedLoss,
    Blending,
    Heads,
    Losses,
    estimate,
    fit_blended,
    hold_out,
    normalised,
    trial,
    worth,
)
from unit_tests.training_structures.small_models import (
    SGD,
    assert_same,
    cross_entropy,
    loader,
    model_of,
    quiet_fit,
)

param = pytest.mark.parametrize


class TwoHeads(nn.Module):
    """An encoder and a head for each of two modalities, and a head on both."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.encoders = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)])
        self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
        self.joint, self.dropout = nn.Linear(8, 2), nn.Dropout(dropout)
        self.register_buffer("weights", torch.full((3,), 1 / 3))
        self.round = None

    def features(self, inputs):
        return [self.dropout(f(x)) for f, x in zip(self.encoders, inputs, strict=True)]

    def forward(self, inputs):
        features = self.features(inputs)
        joint = self.joint(torch.cat(features, 1))
        if self.round != BLEND:
            return joint
        others = [head(x) for head, x in zip(self.heads, features, strict=True)]
        return joint, Heads(others, self.weights)

    def alone(self, k):
        return Alone(deepcopy(self), k)


class Alone(nn.Module):
    def __init__(self, model, k):
        super().__init__()
        self.encoder, self.head, self.dropout = model.encoders[k], model.heads[k], model.dropout
        self.k = k

    def forward(self, inputs):
        return self.head(self.dropout(self.encoder(inputs[self.k])))


def mean_loss(model, batches):
    """Of all samples as one batch."""
    *inputs, truth = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        return cross_entropy(deepcopy(model).eval()(inputs), truth).item()


# --- weights


@param(
    "before, after, delta, gain, overfitting",
    [
        ((1.0, 1.2), (0.5, 0.9), True, 0.3, 0.2),
        ((1.0, 1.1), (0.5, 0.4), True, 0.7, -0.2),  # the gap shrank: squared all the same
        ((1.0, 1.0), (0.5, 1.5), True, 0.0, 1.0),  # it got worse
        ((1.0, 1.0), (0.5, 0.5), True, 0.5, 1e-4),  # no overfitting
        ((1.0, 1.2), (0.5, 0.9), False, 0.9, 0.4),
        ((1.0, 1.2), (0.9, 0.5), False, 0.5, 1e-4),  # better on what was held out
    ],
)
def test_a_heads_worth_is_its_gain_over_its_overfitting_squared(
    before, after, delta, gain, overfitting
):
    found = worth(Losses(*before), Losses(*after), delta=delta)
    assert found == pytest.approx(gain / overfitting**2)


def test_weights_sum_to_one_in_proportion():
    assert normalised([1.0, 3.0, 0.0]) == [0.25, 0.75, 0.0]
    assert normalised([0.0, 0.0]) == [0.5, 0.5]
    with pytest.raises(FloatingPointError, match="must be finite.*smaller learning rate"):
        normalised([1.0, float("nan")])


def test_a_trial_trains_by_hand_and_measures_before_and_after_without_dropout():
    train, held = loader(batch_size=6), loader(samples=10, seed=2)
    model, expected = (model_of(TwoHeads).alone(1) for _ in range(2))
    before, after = trial(model, train, held, cross_entropy, epochs=3, optimizer=SGD)
    assert before == pytest.approx([mean_loss(expected, train), mean_loss(expected, held)])
    for *inputs, truth in [*train] * 3:
        expected.zero_grad()
        cross_entropy(expected(inputs), truth).backward()
        with torch.no_grad():
            for p in expected.parameters():
                p -= 0.1 * p.grad
    assert_same(model, expected)
    assert after == pytest.approx([mean_loss(expected, train), mean_loss(expected, held)])

    noisy = model_of(TwoHeads, dropout=0.5).alone(1)
    measured, _ = trial(noisy, train, held, cross_entropy, epochs=1, optimizer=SGD)
    assert measured == pytest.approx(before)


@param("delta", [True, False])
def test_estimates_are_of_trials_one_by_one(delta):
    train, held, model = loader(), loader(samples=10, seed=2), model_of(TwoHeads)
    options = {"epochs": 4, "optimizer": SGD}
    copies = [model.alone(0), model.alone(1), deepcopy(model)]
    losses = [trial(copy, train, held, cross_entropy, **options) for copy in deepcopy(copies)]
    raw = []
    for (t0, v0), (t1, v1) in losses:
        raw.append((v0 - v1) / (v1 - t1 - v0 + t0) ** 2 if delta else v1 / (v1 - t1) ** 2)
    assert all(0 < w / sum(raw) < 1 for w in raw)  # none is cut off
    found = estimate(copies, [cross_entropy] * 3, train, held, delta=delta, **options)
    assert found == pytest.approx(np.array(raw) / sum(raw))


# --- the loss


def test_the_blended_loss_is_the_weighted_sum():
    logits = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    truth, weights = torch.tensor([0, 3, 1, 2, 2]), torch.tensor([0.2, 0.5, 0.3])
    heads = Heads([logits[0], logits[1]], weights)
    found = BlendedLoss(cross_entropy)(logits[2], truth, heads)
    logs = logits.detach().numpy()
    logs = logs - np.log(np.exp(logs).sum(2, keepdims=True))
    own = -logs[:, np.arange(5), truth.numpy()].mean(1)
    assert found.item() == pytest.approx(own @ weights.double().numpy())
    (gradient,) = torch.autograd.grad(found, logits)
    each = np.exp(logs) - np.eye(4)[truth.numpy()]
    expected = torch.from_numpy(each * weights.double().numpy()[:, None, None] / 5)
    torch.testing.assert_close(gradient, expected)


def test_heads_may_have_a_loss_of_their_own_and_the_models_extras():
    def objective(prediction, truth, scale):
        return scale * cross_entropy(prediction, truth)

    logits, truth = torch.randn(2, 4, 3), torch.tensor([0, 2, 1, 1])
    blended = BlendedLoss(objective, cross_entropy)
    heads = Heads([logits[0]], torch.tensor([0.25, 0.75]), (3.0,))
    one, own = cross_entropy(logits[0], truth), cross_entropy(logits[1], truth)
    torch.testing.assert_close(blended(logits[1], truth, heads), 0.25 * one + 0.75 * 3 * own)
    torch.testing.assert_close(blended(logits[1], truth, 2.0), 2 * own)  # in evaluation
    assert not blended.adds_auxiliary_loss


def test_labels_that_are_ignored_count_in_no_head():
    model, batches = model_of(TwoHeads), loader(batch_size=6)
    batches.dataset.tensors[2][:5] = -100
    run = partial(quiet_fit, valid=None, epochs=1, rounds=lambda _: [BLEND])
    still = partial(torch.optim.SGD, lr=0.0)
    record = run(model, batches, objective=BlendedLoss(cross_entropy), optimizer=still).epochs[0]
    model.round = BLEND
    *inputs, truth = (part[5:] for part in batches.dataset.tensors)
    joint, heads = model(inputs)
    losses = [cross_entropy(x, truth).item() for x in (*heads.predictions, joint)]
    assert record["train_loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)


# --- the schedule


def test_the_weights_are_set_every_n_epochs_and_recorded():
    model, seen = model_of(TwoHeads), []

    def weigh():
        seen.append(model.training and model.round is None)
        return [0.1 * len(seen), 0.2, 0.8 - 0.1 * len(seen)]

    blending = Blending(model, weigh, 2)
    options = {"rounds": blending, "callbacks": [blending.record], "epochs": 5}
    history = quiet_fit(model, loader(), None, BlendedLoss(cross_entropy), **options)
    assert seen == [True] * 3
    found = [[e[f"weight_{i}"] for i in range(3)] for e in history.epochs]
    expected = [[0.1, 0.2, 0.7]] * 2 + [[0.2, 0.2, 0.6]] * 2 + [[0.3, 0.2, 0.5]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def blend(model, epochs=5, path=None, train=None, objective=cross_entropy, **options):
    train = loader(20, shuffle=True) if train is None else train
    given = {"every": 2, "share": 0.3, "optimizer": SGD, "seed": 3, "checkpoint": path}
    given |= {"progress": False} | options
    return fit_blended(model, train, loader(seed=2), objective, epochs=epochs, **given)


def test_takes_the_steps_of_a_loop_written_by_hand():
    model, expected = model_of(TwoHeads), model_of(TwoHeads)
    full = loader(20, batch_size=20, shuffle=True)  # order is of no matter
    history = blend(model, epochs=4, train=full)
    rest, held = hold_out(loader(20, batch_size=20), 0.3, seed=0)
    (*inputs, truth) = next(iter(rest))
    for epoch in range(4):
        if epoch % 2 == 0:
            copies = [expected.alone(k) for k in range(2)] + [deepcopy(expected)]
            options = {"epochs": 2, "optimizer": SGD}
            weights = estimate(copies, [cross_entropy] * 3, rest, held, **options)
        expected.zero_grad()
        features = expected.features(inputs)
        logits = [head(x) for head, x in zip(expected.heads, features, strict=True)]
        logits.append(expected.joint(torch.cat(features, 1)))
        sum(w * cross_entropy(x, truth) for w, x in zip(weights, logits, strict=True)).backward()
        with torch.no_grad():
            for p in expected.parameters():
                p -= 0.1 * p.grad
    torch.testing.assert_close(model.weights, torch.tensor(weights))
    for ours, by_hand in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, by_hand)
    assert history.epochs[-1]["valid_loss"] == pytest.approx(mean_loss(expected, loader(seed=2)))


class Killed(Exception):
    pass


def counted(kill=None):
    """A cross-entropy that counts its calls, and raises at one of them."""
    calls = []

    def objective(prediction, truth):
        calls.append(1)
        if len(calls) == kill:
            raise Killed
        return cross_entropy(prediction, truth)

    return objective, calls


def without_seconds(history):
    return [{k: v for k, v in e.items() if k != "seconds"} for e in history.epochs]


@param("share_of_calls", [0.35, 0.55, 0.95])
def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path, share_of_calls):
    objective, calls = counted()
    whole = model_of(TwoHeads, dropout=0.3)
    expected = blend(whole, objective=objective)
    killing, _ = counted(int(share_of_calls * len(calls)))
    with pytest.raises(Killed):
        blend(model_of(TwoHeads, dropout=0.3), path=tmp_path / "c", objective=killing)
    resumed = model_of(TwoHeads, dropout=0.3)
    found = blend(resumed, path=tmp_path / "c", objective=counted()[0], resume=True)
    assert_same(resumed, whole, rtol=0, atol=0)
    assert without_seconds(found) == without_seconds(expected)
    with pytest.raises(ValueError, match="blend_every 2 instead of 1"):
        blend(model_of(TwoHeads), path=tmp_path / "c", resume=True, every=1)


def test_every_is_a_number_of_epochs():
    with pytest.raises(ValueError, match="every must be a whole number of epochs.*got 0"):
        blend(model_of(TwoHeads), every=0)


# --- what is held out


class Rows:
    """Rows that are indexed with whole batches, as recipes have them."""

    def __len__(self):
        return 20

    def __getitem__(self, rows):
        assert isinstance(rows, list)
        return [torch.tensor(rows)]


def whole(**options):
    rows = Rows()
    sampler = BatchSampler(RandomSampler(rows, **options), 6, drop_last=False)
    return DataLoader(rows, sampler=sampler, batch_size=None)


def single(**options):
    rows = TensorDataset(torch.arange(20))
    return DataLoader(rows, batch_size=6, shuffle=True, **options)


@param("make", [whole, single])
def test_a_part_is_held_out_in_batches_of_the_same_size(make):
    rest, held = hold_out(make(), 0.4)
    assert [len(batch[0]) for batch in rest] == [6, 6]
    assert [batch[0].tolist() for batch in held] == [[0, 1, 2, 3, 4, 5], [6, 7]]
    orders = [torch.cat([batch[0] for batch in rest]).tolist() for _ in range(2)]
    assert orders[0] != orders[1] and sorted(orders[0]) == [*range(8, 20)]
    drawn = [
        torch.cat([b[0] for b in hold_out(make(), 0.4, seed=s)[1]]).tolist() for s in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 8


@param("make", [whole, single])
def test_the_order_is_that_of_the_loaders_own_generator(make):
    orders = []
    for _ in range(2):
        rest, _ = hold_out(make(generator=torch.Generator().manual_seed(4)), 0.4)
        orders.append(torch.cat([batch[0] for batch in rest]).tolist())
    assert orders[0] == orders[1]


def test_a_last_batch_is_dropped_if_it_was_but_never_the_only_one():
    rest, held = hold_out(single(drop_last=True), 0.2)
    assert [len(batch[0]) for batch in rest] == [6, 6]
    assert [len(batch[0]) for batch in held] == [4]
    one = DataLoader(TensorDataset(torch.arange(20)), batch_size=20, drop_last=True)
    assert [len(batch[0]) for batch in hold_out(one, 0.2)[0]] == [16]


@param("share", [0.0, 0.04, 1.0, float("inf")])
def test_both_parts_must_have_samples(share):
    with pytest.raises(ValueError, match=r"held out must lie in \(0, 1\).*of 20 samples"):
        hold_out(single(), share)


def test_a_loader_whose_batches_have_no_size_is_refused():
    batches = DataLoader(TensorDataset(torch.arange(4)), batch_sampler=[[0, 1], [2, 3]])
    with pytest.raises(ValueError, match="whose batches have one size.*batch_size"):
        hold_out(batches, 0.5)
