"""Half precision is autocast and, for fp16, a scaled loss: the rest of a run stays as it is."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.batches import widened
from deq_fusion.training_structures.checkpoint import load_checkpoint
from deq_fusion.training_structures.fit import evaluate, fit

SGD = partial(torch.optim.SGD, lr=0.1)
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
half = pytest.mark.parametrize("precision", HALF)
cross_entropy = nn.functional.cross_entropy


class Model(nn.Module):
    def __init__(self, seen=()):
        super().__init__()
        torch.manual_seed(0)
        self.fusion = DEQFusion([3, 3], 32, tol=2e-2)
        self.head, self.seen = nn.Linear(32, 2), seen

    def forward(self, inputs):
        output = self.head(self.fusion(inputs))
        if isinstance(self.seen, list):
            self.seen.append(output.dtype)
        return output


class Line(nn.Module):
    """Its gradient is the mean input, exactly, also in half precision."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 1))

    def forward(self, inputs):
        return inputs[0] @ self.weight


def loader(**options):
    x = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(1))
    label = (x[0, :, 0] > 0).long()
    return DataLoader(TensorDataset(x[0], x[1], label), batch_size=8, **options)


def mean(prediction, truth):
    return (prediction.float() * truth).mean()


def line(values, *, scale=1.0, **options):
    """Trains `Line` for one epoch in steps of two samples, whose gradient is their mean."""
    x = torch.tensor(values, dtype=torch.float32).reshape(-1, 2)
    batches = DataLoader(TensorDataset(x, torch.full((len(x), 1), scale)), 2)
    model = Line()
    options = {"epochs": 1, "optimizer": SGD, "progress": False} | options
    return model, fit(model, batches, None, mean, **options)


def train(model, **options):
    options = {
        "epochs": 3,
        "optimizer": partial(SGD, lr=0.05),
        "clip_norm": 1.0,
        "progress": False,
    } | options
    return fit(model, loader(), loader(), cross_entropy, **options)


@half
def test_half_precision_trains_and_differs_a_little(precision):
    seen = []
    model, reference = Model(seen), Model()
    epochs = train(model, precision=precision).epochs
    exact = train(reference).epochs
    assert set(seen) == {HALF[precision]}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert epochs[-1]["valid_loss"] < epochs[0]["train_loss"]
    near = 0.01 if precision == "bf16" else 0.2  # fp16 leaves out steps until its scale fits
    for ours, theirs in zip(epochs, exact, strict=True):
        assert ours["train_loss"] != theirs["train_loss"]
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=near)


@half
def test_metrics_see_single_precision_and_the_objective_autocasts(precision):
    dtypes = []

    def metrics(prediction, truth):
        dtypes.append(prediction.dtype)
        return {"mean": prediction.mean().item()}

    model = Model()
    scores, exact = (
        evaluate(model, loader(), objective=cross_entropy, metrics=metrics, precision=p)
        for p in (precision, "fp32")
    )
    assert dtypes == [torch.float32] * 2
    assert scores != exact and scores == pytest.approx(exact, abs=0.02)


def test_only_half_precision_is_widened():
    batch = {"a": [torch.zeros(2, dtype=dtype) for dtype in (*HALF.values(), torch.int64)]}
    wide = widened([batch, torch.zeros(2, dtype=torch.float64), "text"])
    assert [x.dtype for x in wide[0]["a"]] == [torch.float32, torch.float32, torch.int64]
    assert wide[1].dtype == torch.float64 and wide[2] == "text"


@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_scale_of_the_loss_does_not_reach_the_weights(clip):
    model, _ = line([[0.375, 0.5]] * 2, precision="fp16", clip_norm=clip)
    step = 0.1 * torch.tensor([[0.375], [0.5]]) * (1 if clip is None else clip / 0.625)
    torch.testing.assert_close(model.weight.data, 1 - step, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_overflows_is_left_out_and_the_scale_halved(tmp_path):
    # a sample's cotangent is the scale itself: 2^16 leaves the range of fp16, 2^15 does not
    kept = {"precision": "fp16", "checkpoint": tmp_path / "c"}
    model, _ = line([[0.5, 0.0]] * 2, scale=2.0, **kept)
    assert (model.weight.data == 1).all()
    assert load_checkpoint(tmp_path / "c")["scaler"]["scale"] == 2.0**15
    model, _ = line([[0.5, 0.0]] * 2, scale=2.0, resume=True, epochs=2, **kept)
    torch.testing.assert_close(model.weight.data, torch.tensor([[0.9], [1.0]]))
    assert load_checkpoint(tmp_path / "c")["scaler"]["scale"] == 2.0**15


def test_a_gradient_that_is_finite_at_no_scale_ends_the_run():
    with pytest.raises(FloatingPointError, match="however little the loss is scaled"):
        line([[1.0, 0.0]] * 100, scale=1e38, precision="fp16")


def test_a_loss_that_is_not_finite_ends_the_run():
    with pytest.raises(FloatingPointError, match="loss is nan in epoch 1, batch 1"):
        line([[torch.nan, 0.0]] * 2, precision="fp16")


@half
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path, precision):
    whole, resumed = Model(), Model()
    train(whole, precision=precision)
    run = partial(train, precision=precision, checkpoint=tmp_path / "c")
    run(Model(), epochs=1)
    assert ("scaler" in load_checkpoint(tmp_path / "c")) == (precision == "fp16")
    run(resumed, resume=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_run_of_another_precision_is_not_resumed(tmp_path):
    path = tmp_path / "c"
    train(Model(), epochs=1, precision="bf16", checkpoint=path)
    with pytest.raises(ValueError, match="precision bf16 instead of fp32"):
        train(Model(), checkpoint=path, resume=True)


@pytest.mark.parametrize("call", [train, partial(evaluate, loader=loader())])
def test_another_precision_is_refused(call):
    with pytest.raises(ValueError, match=r"one of \['fp32', 'bf16', 'fp16'\], got 'fp8'"):
        call(Model(), precision="fp8")
