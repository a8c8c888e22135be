"""What cannot be trained is refused, in words that say what to do."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures.fit import evaluate
from unit_tests.training_structures.small_models import (
    SGD,
    Model,
    assert_same,
    cross_entropy,
    loader,
    model_of,
    quiet_fit,
)

NAN = float("nan")


def test_a_batch_norm_of_ones_own_is_told_about_a_single_sample():
    batches = loader(samples=13, batch_size=6)
    with pytest.raises(ValueError, match="single sample, as it meets in epoch 1, batch 3.*drop_l"):
        quiet_fit(model_of(Model), batches, None, cross_entropy, epochs=1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"accumulate": 2.0}, "accumulate must be at least 1, and a whole number, got 2.0"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"patience": NAN}, "patience must be at least 1, and a whole number, got nan"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"clip_norm": 0}, "clip_norm must be positive, got 0; None does not clip"),
        ({"clip_norm": NAN}, "clip_norm must be positive, got nan"),
        ({"clip_norm": -1.0}, "clip_norm must be positive"),
        ({"metrics": lambda p, t: 0.5}, "metrics must return a dict of numbers, got float"),
        ({"metrics": lambda p, t: {"a": [0.5]}}, "but 'a' is a list"),
        ({"metrics": lambda p, t: {"a": torch.ones(2)}}, "but 'a' is a Tensor"),
        ({"metrics": lambda p, t: {"f1": 0.5}, "select": "f2"}, r"\['loss', 'f1'\], got 'f2'"),
        ({"resume": True}, "needs the path of a checkpoint"),
        ({"select": "f1"}, r"one of \['loss'\], got 'f1'"),
        ({"train": []}, "at least one batch"),
        ({"valid": []}, "at least one batch"),
        ({"train": [[torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0)]]}, "empty one"),
    ],
)
def test_mistakes_are_named(options, message):
    options = {"train": loader(), "valid": loader()} | options
    with pytest.raises(ValueError, match=message):
        quiet_fit(model_of(), **{"objective": cross_entropy, "epochs": 1} | options)


def test_options_are_refused_before_training():
    def untouched(prediction, truth):
        raise AssertionError("nothing is to be trained")

    run = partial(quiet_fit, train=loader(), valid=loader(), objective=untouched, epochs=1)
    for options in ({"select": "f1"}, {"clip_norm": 0}, {"precision": "fp8"}, {"patience": 0.5}):
        with pytest.raises(ValueError):
            run(model_of(), **options)
    frozen = model_of().requires_grad_(False)
    for model in (frozen, nn.Flatten()):
        with pytest.raises(ValueError, match="fit needs parameters that require a gradient"):
            run(model)


def test_metrics_may_be_any_numbers():
    given = {"a": torch.tensor([0.5]), "b": np.float32(0.25), "c": True, "d": 3}
    scores = evaluate(model_of(), loader(), metrics=lambda p, t: given)
    assert scores == {"a": 0.5, "b": 0.25, "c": 1.0, "d": 3.0}
    assert all(type(value) is float for value in scores.values())


def test_clipping_at_infinity_clips_nothing():
    models = [model_of(), model_of()]
    for model, clip in zip(models, (None, float("inf")), strict=True):
        quiet_fit(model, loader(), None, cross_entropy, epochs=1, optimizer=SGD, clip_norm=clip)
    assert_same(*models, rtol=0, atol=0)


@pytest.mark.parametrize(
    "second, message",
    [
        (
            {"a": torch.zeros(2, 3)},
            r"first has .*\{'a': '\(n, 4\)'\}\], batch 2 has .*\{'a': '\(n, 3\)'\}",
        ),
        ({"b": torch.zeros(2, 4)}, r"batch 2 has \['\(n, 1\)', \{'b'"),
        ([torch.zeros(2, 4)], r"batch 2 has \['\(n, 1\)', \['\(n, 4\)'\]\]"),
        ({"a": torch.zeros(())}, "a tensor without dimensions"),
        ({"a": None}, "got NoneType"),
        ({}, "got dict"),
        ("text", "got str"),
    ],
)
def test_batches_must_be_alike(second, message):
    batches = [[torch.zeros(2, 1), {"a": torch.zeros(2, 4)}], [torch.zeros(2, 1), second]]
    with pytest.raises((ValueError, TypeError), match=message):
        evaluate(nn.Flatten(), batches, metrics=lambda p, t: {}, split_batch=tuple)


def test_predictions_must_be_alike():
    def dropping(inputs):
        return inputs[0].squeeze()  # the batch, too, where it is of one sample

    model = nn.Flatten()
    model.forward = dropping
    with pytest.raises(ValueError, match=r"first has \['\(n, 3\)', .*, batch 3 has \['\(n\)', "):
        evaluate(model, loader(samples=13), metrics=lambda p, t: {})


def test_another_batch_layout_needs_split_batch():
    with pytest.raises(TypeError, match="got dict; pass split_batch"):
        quiet_fit(model_of(), [{"x": 1}], None, cross_entropy, epochs=1)


def test_a_loss_that_is_not_finite_stops_the_run():
    batches = [list(batch) for batch in loader()]
    batches[2][0] = batches[2][0] / 0
    with pytest.raises(FloatingPointError, match="epoch 1, batch 3; look for non-finite inputs"):
        quiet_fit(model_of(), batches, None, cross_entropy, epochs=1)


def test_a_truth_that_is_not_finite_is_named():
    x, y = torch.randn(8, 6), torch.randn(8, 2)
    y[5, 1] = NAN
    batches = DataLoader(TensorDataset(x[:, :3], x[:, 3:], y), batch_size=4)
    with pytest.raises(ValueError, match="the truth is not finite in epoch 1, batch 2"):
        quiet_fit(model_of(), batches, None, nn.functional.mse_loss, epochs=1)
    with pytest.raises(ValueError, match="the truth is not finite in batch 2"):
        evaluate(model_of(), batches, objective=nn.functional.mse_loss)

    def masked(prediction, truth):  # for which NaN says that there is no number
        return (prediction - truth).square().nanmean()

    record = quiet_fit(model_of(), batches, batches, masked, epochs=1).epochs[0]
    assert record["valid_loss"] > 0


def test_a_gradient_that_is_not_finite_is_not_clipped_away():
    def objective(prediction, truth):
        return (prediction * 0).abs().sqrt().sum()  # zero, with an infinite slope

    with pytest.raises(RuntimeError, match="non-finite"):
        quiet_fit(model_of(), loader(), None, objective, epochs=1, clip_norm=1.0)
