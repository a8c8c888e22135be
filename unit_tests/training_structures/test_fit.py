"""The loop takes the steps one would take by hand, and a resumed run is the uninterrupted one."""

import random
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from deq_fusion.training_structures.batches import move
from deq_fusion.training_structures.checkpoint import load_checkpoint
from deq_fusion.training_structures.fit import evaluate, load_best, predict
from deq_fusion.training_structures.run import loader_generators
from unit_tests.training_structures.small_models import (
    SGD,
    Info,
    Model,
    Plain,
    assert_same,
    by_hand,
    cross_entropy,
    loader,
    model_of,
    quiet_fit,
)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_takes_the_steps_of_a_loop_written_by_hand(clip):
    model, batches = model_of(), loader()
    history = quiet_fit(
        model, batches, None, cross_entropy, epochs=2, optimizer=SGD, clip_norm=clip
    )
    expected = by_hand(by_hand(model_of(), batches, clip=clip), batches, clip=clip)
    assert_same(model, expected)
    assert not model.training
    assert [e["epoch"] for e in history.epochs] == [1, 2]
    assert history.best_epoch == 2  # without validation data the last is the best


def test_losses_are_means_over_samples():
    model, batches = model_of(), loader(samples=10, batch_size=4)
    frozen = partial(torch.optim.SGD, lr=0.0)
    history = quiet_fit(model, batches, batches, cross_entropy, epochs=1, optimizer=frozen)
    x1, x2, y = batches.dataset.tensors
    expected = cross_entropy(model([x1, x2]), y).item()
    assert history.epochs[0]["train_loss"] == pytest.approx(expected, rel=1e-6)
    assert history.epochs[0]["valid_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("samples", [24, 22, 13], ids=["whole", "uneven", "incomplete"])
def test_accumulated_batches_are_one_joined_batch(samples):
    model = model_of()
    batches, joined = loader(samples, batch_size=4), loader(samples, batch_size=12)
    quiet_fit(model, batches, None, cross_entropy, epochs=1, optimizer=SGD, accumulate=3)
    assert_same(model, by_hand(model_of(), joined))


def test_auxiliary_losses_are_added_in_training_unless_the_objective_adds_them():
    batches = loader(batch_size=24)
    model, own, without = (model_of(Model) for _ in range(3))

    class Adding:
        adds_auxiliary_loss = True

        def __call__(self, prediction, truth):
            return cross_entropy(prediction, truth) + own.fusion.auxiliary_loss

    objective = partial(cross_entropy)
    objective.adds_auxiliary_loss = True
    once = partial(quiet_fit, train=batches, valid=batches, epochs=1, optimizer=SGD)
    history = once(model, objective=cross_entropy)
    once(own, objective=Adding())
    plain = once(without, objective=objective)
    assert_same(model, own)
    assert not torch.equal(model.fusion.mix.weight, without.fusion.mix.weight)
    assert history.epochs[0]["train_loss"] > plain.epochs[0]["train_loss"]
    scored = evaluate(model, batches, objective=cross_entropy)["loss"]
    assert history.epochs[0]["valid_loss"] == scored


class Judged(Plain):
    """Adds a loss of its own from the truth, which a part of it passes on."""

    def __init__(self):
        super().__init__()
        self.part, self.silent = nn.Identity(), nn.Identity()
        self.part.supervised_loss, self.silent.supervised_loss = self.supervised_loss, 0.5

    def forward(self, inputs):
        self.output = super().forward(inputs)
        return self.output

    def supervised_loss(self, truth):
        return 2 * cross_entropy(self.output, truth)


def test_losses_from_the_truth_are_added_once_in_training_unless_the_objective_adds_them():
    model, batches = model_of(Judged), loader(batch_size=24)
    frozen = partial(quiet_fit, epochs=1, optimizer=partial(torch.optim.SGD, lr=0.0))
    history = frozen(model, batches, batches, cross_entropy)
    plain = history.epochs[0]["valid_loss"]
    assert history.epochs[0]["train_loss"] == pytest.approx(3 * plain, rel=1e-6)
    quiet_fit(model, batches, None, cross_entropy, epochs=1, optimizer=SGD)
    assert_same(model, by_hand(model_of(), batches, lr=0.3))
    adding = partial(cross_entropy)
    adding.adds_auxiliary_loss = True
    record = frozen(model, batches, batches, adding).epochs[0]
    assert record["train_loss"] == pytest.approx(record["valid_loss"], rel=1e-6)


def test_solver_reports_are_averaged_over_samples_after_the_backward_pass(monkeypatch):
    model, backwards = model_of(Model), []
    model.head.register_full_backward_hook(lambda *_: backwards.append(1))

    def summary(self):
        return {"steps": self.steps, "backwards": len(backwards)}

    monkeypatch.setattr(Info, "summary", summary)
    batches = loader(samples=10, batch_size=6)
    record = quiet_fit(model, batches, None, cross_entropy, epochs=1).epochs[0]
    assert record["solver_steps"] == pytest.approx((6 * 6 + 4 * 4) / 10)
    assert record["solver_backwards"] == pytest.approx((6 * 1 + 4 * 2) / 10)


def scripted(values):
    remaining = iter(values)
    return lambda prediction, truth: {"score": next(remaining)}


NAN = float("nan")


@pytest.mark.parametrize(
    "values, maximise, best",
    [
        ([0.1, 0.3, 0.3, 0.2], None, 2),
        ([0.1, 0.3, 0.3, 0.2], False, 1),
        ([0.0, 0.0, 0.0, 0.0], None, 1),
        ([NAN, 0.3, NAN, 0.2], None, 2),
        ([NAN, NAN, NAN, NAN], None, None),
    ],
)
def test_the_best_epoch_on_validation_can_be_restored(values, maximise, best):
    model, states = model_of(), []
    history = quiet_fit(
        model,
        loader(),
        loader(),
        cross_entropy,
        epochs=4,
        metrics=scripted(values),
        select="score",
        maximise=maximise,
        callbacks=[lambda history: states.append(model_of_state(model))],
    )
    assert history.best_epoch == best
    assert_same(model, states[-1])  # the last epoch's weights are left
    if best is None:
        with pytest.raises(ValueError, match="no best epoch"):
            load_best(model, history)
    else:
        load_best(model, history)
        assert_same(model, states[best - 1])


def model_of_state(model):
    copy = Plain()
    copy.load_state_dict(model.state_dict())
    return copy


def test_patience_counts_epochs_in_a_row_without_improvement():
    run = partial(quiet_fit, train=loader(), valid=loader(), objective=cross_entropy, epochs=9)
    values = [0.1, 0.0, 0.2, 0.2, 0.1, 0.3]
    history = run(model_of(), metrics=scripted(values), select="score", patience=2)
    assert len(history.epochs) == 5 and history.best_epoch == 3


def test_the_scheduler_steps_once_an_epoch():
    halve = partial(lr_scheduler.StepLR, step_size=1, gamma=0.5)
    run = partial(quiet_fit, train=loader(), objective=cross_entropy, optimizer=SGD)
    history = run(model_of(), valid=None, epochs=3, scheduler=halve)
    assert [e["learning_rate"] for e in history.epochs] == [0.1, 0.05, 0.025]


def test_plateau_follows_the_selection_metric():
    plateau = partial(lr_scheduler.ReduceLROnPlateau, mode="max", patience=0, factor=0.5)
    run = partial(quiet_fit, train=loader(), objective=cross_entropy, optimizer=SGD)
    select = {"metrics": scripted([0.1, 0.2, 0.2, 0.3]), "select": "score"}
    history = run(model_of(), valid=loader(), epochs=4, scheduler=plateau, **select)
    assert [e["learning_rate"] for e in history.epochs] == [0.1, 0.1, 0.1, 0.05]
    with pytest.raises(ValueError, match="needs valid data"):
        run(model_of(), valid=None, epochs=1, scheduler=plateau)


def test_only_the_given_parameters_learn_in_their_groups():
    model, before = model_of(Model), model_of(Model)
    groups = [{"params": model.head.parameters(), "lr": 0.5}, {"params": model.norm.parameters()}]
    run = partial(quiet_fit, train=loader(), valid=None, objective=cross_entropy, epochs=1)
    record = run(model, optimizer=SGD, parameters=groups).epochs[0]
    assert record["learning_rate_0"] == 0.5 and record["learning_rate_1"] == 0.1
    torch.testing.assert_close(model.fusion.mix.weight, before.fusion.mix.weight, rtol=0, atol=0)
    assert not torch.equal(model.head.weight, before.head.weight)


def test_what_no_optimiser_holds_piles_up_no_gradient():
    model, batches = model_of(), loader(batch_size=24)
    run = partial(quiet_fit, epochs=3, optimizer=partial(torch.optim.SGD, lr=0.0))
    run(model, batches, None, cross_entropy, parameters=[model.linear.bias])
    expected = by_hand(model_of(), batches).linear.weight.grad
    torch.testing.assert_close(model.linear.weight.grad, expected)


def test_extras_reach_the_objective_and_nested_batches_the_model():
    class Nested(Plain):
        def forward(self, inputs):
            (x1, named), _ = inputs
            return super().forward([x1, named["x2"]]), {"scale": 2.0}

    def objective(prediction, truth, extras):
        return extras["scale"] * cross_entropy(prediction, truth)

    def split(batch):
        return ((batch[0], {"x2": batch[1]}), "not a tensor"), batch[2]

    model, batches = model_of(Nested), loader()
    run = partial(quiet_fit, epochs=1, optimizer=SGD, split_batch=split)
    run(model, batches, batches, objective)
    assert_same(model, by_hand(model_of(), batches, lr=0.2))


def test_tensors_are_moved_wherever_they_are():
    x = torch.zeros(2)
    moved = move([x, (x, {"a": x, "b": "text"}), None], "meta")
    assert moved[0].is_meta and moved[1][0].is_meta and moved[1][1]["a"].is_meta
    assert moved[1][1]["b"] == "text" and moved[2] is None and isinstance(moved[1], tuple)


def test_nothing_of_a_graph_outlives_its_step():
    losses = []

    def objective(prediction, truth):
        assert all(loss() is None for loss in losses)
        loss = cross_entropy(prediction, truth)
        if loss.requires_grad:
            losses.append(weakref.ref(loss))
        return loss

    quiet_fit(model_of(), loader(), loader(), objective, epochs=2, accumulate=2)
    assert len(losses) == 8


def test_predictions_come_whole_in_order_and_leave_every_mode_alone():
    model = model_of(Model, dropout=0.5).train()
    model.norm.eval()
    prediction, truth = predict(model, loader(samples=10, batch_size=4))
    assert model.training and model.dropout.training and not model.norm.training
    x1, x2, y = loader(samples=10).dataset.tensors
    torch.testing.assert_close(prediction, model.eval()([x1, x2]).detach())
    assert torch.equal(truth, y) and not prediction.requires_grad


def test_a_seed_decides_the_run_and_leaves_the_callers_generators_alone():
    run = partial(quiet_fit, valid=None, objective=cross_entropy, epochs=2)
    models = [model_of(Model, dropout=0.5) for _ in range(3)]
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    for model, seed in zip(models, (1, 1, 2), strict=True):
        run(model, loader(shuffle=True), seed=seed)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected
    assert_same(models[0], models[1], rtol=0, atol=0)
    assert not torch.equal(models[0].head.weight, models[2].head.weight)


# --- resuming


class Killed(Exception):
    pass


def killed_at(call, function):
    """Returns the function, raising at its so-many-th call."""
    calls = iter(range(1, call + 1))

    def wrapped(*args, **options):
        if next(calls, None) == call:
            raise Killed
        return function(*args, **options)

    return wrapped


def long_run(model, path=None, objective=cross_entropy, batches=loader, **options):
    settings = {
        "epochs": 7,
        "optimizer": partial(torch.optim.Adam, lr=0.02),
        "scheduler": partial(lr_scheduler.CosineAnnealingLR, T_max=7),
        "accumulate": 2,
        "clip_norm": 1.0,
        "metrics": lambda prediction, truth: {
            "noisy": torch.rand(()).item() + random.random() + np.random.rand()
        },
        "select": "noisy",
        "patience": 4,
        "seed": 3,
        "checkpoint": path,
    }
    own = torch.Generator().manual_seed(5)
    train, valid = batches(shuffle=True, generator=own, samples=21), batches(seed=2)
    return quiet_fit(model, train, valid, objective, **settings | options)


def without_seconds(history):
    return [{k: v for k, v in e.items() if k != "seconds"} for e in history.epochs]


KILLS = {  # 21 samples in batches of 6: 4 training and 4 validation calls an epoch
    "first epoch": ("objective", 2),
    "mid-epoch": ("objective", 8 * 2 + 3),
    "validation": ("objective", 8 * 2 + 6),
    "callback": ("callback", 3),
    "writing": ("torch.save", 3),
    "replacing": ("os.replace", 3),
}


@pytest.mark.parametrize("kill", KILLS)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path, monkeypatch, kill):
    whole = model_of(Model, dropout=0.3)
    expected = long_run(whole)
    assert 1 < expected.best_epoch < len(expected.epochs)  # there is something to get wrong

    what, call = KILLS[kill]
    path = tmp_path / "run.ckpt"
    options = {}
    if what == "objective":
        options["objective"] = killed_at(call, cross_entropy)
    elif what == "callback":
        options["callbacks"] = [killed_at(call, lambda history: None)]
    with monkeypatch.context() as patch:
        if "." in what:
            module, name = what.split(".")
            owner = {"torch": torch, "os": __import__("os")}[module]
            patch.setattr(owner, name, killed_at(call, getattr(owner, name)))
        with pytest.raises(Killed):
            long_run(model_of(Model, dropout=0.3), path, **options)
    assert path.exists() == (kill != "first epoch")

    resumed = model_of(Model, dropout=0.3)
    found = long_run(resumed, path, resume=True)
    assert_same(resumed, whole, rtol=0, atol=0)
    assert without_seconds(found) == without_seconds(expected)
    assert found.best_epoch == expected.best_epoch
    torch.testing.assert_close(found.best_state, expected.best_state, rtol=0, atol=0)


def test_a_finished_run_resumes_to_itself_or_to_more_epochs(tmp_path):
    run = partial(long_run, patience=None, scheduler=None)
    whole = model_of(Model)
    expected = run(whole, epochs=4)
    run(model_of(Model), tmp_path / "c", epochs=2)
    for epochs in (4, 4):
        model = model_of(Model)
        found = run(model, tmp_path / "c", epochs=epochs, resume=True)
        assert_same(model, whole, rtol=0, atol=0)
        assert without_seconds(found) == without_seconds(expected)
    best = model_of(Model)
    load_best(best, tmp_path / "c")
    torch.testing.assert_close(dict(best.state_dict()), expected.best_state, rtol=0, atol=0)


@pytest.mark.parametrize(
    "optimizer, scheduler",
    [
        (torch.optim.RMSprop, partial(lr_scheduler.ReduceLROnPlateau, patience=0)),
        (torch.optim.AdamW, partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=10)),
        (
            partial(torch.optim.SGD, momentum=0.9),
            partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.5**epoch),
        ),
        (
            partial(torch.optim.Adam, amsgrad=True),
            lambda o: lr_scheduler.SequentialLR(
                o,
                [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.5)],
                milestones=[2],
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # older torch passes it to itself
def test_every_optimizer_and_scheduler_resumes(tmp_path, optimizer, scheduler):
    kind = {"optimizer": partial(optimizer, lr=0.01), "scheduler": scheduler, "patience": None}
    models = [model_of() for _ in range(3)]
    expected = long_run(models[0], epochs=4, **kind)
    long_run(models[1], tmp_path / "c", epochs=2, **kind)
    found = long_run(models[2], tmp_path / "c", epochs=4, resume=True, **kind)
    assert without_seconds(found) == without_seconds(expected)
    assert_same(models[2], models[0], rtol=0, atol=0)


def test_lazy_parameters_train_and_resume(tmp_path):
    def lazy():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))

    def split(batch):
        return torch.cat(batch[:2], 1), batch[2]

    run = partial(long_run, split_batch=split, patience=None)
    whole, resumed = lazy(), lazy()
    run(whole, epochs=3)
    run(lazy(), tmp_path / "c", epochs=1)
    run(resumed, tmp_path / "c", epochs=3, resume=True)
    assert_same(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": partial(Model, width=8)}, r"encoders.0.weight \(4, 3\) instead of \(8, 3\)"),
        ({"model": Plain}, "on one side only"),
        ({"seed": 4}, "seed 3 instead of 4"),
        ({"accumulate": 1}, "accumulate 2 instead of 1"),
        ({"optimizer": partial(torch.optim.Adam, lr=0.02, betas=(0.1, 0.2))}, r"0\.9.*0\.1"),
        ({"optimizer": torch.optim.AdamW}, "optimizer_type Adam instead of AdamW"),
        ({"scheduler": None}, "scheduler_type CosineAnnealingLR instead of NoneType"),
        ({"select": "loss"}, "selection"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left(tmp_path, change, message):
    path = tmp_path / "c"
    long_run(model_of(Model), path, epochs=1)
    before = path.read_bytes()
    model = model_of(change.pop("model", Model))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        long_run(model, path, resume=True, **change)
    torch.testing.assert_close(dict(model.state_dict()), start, rtol=0, atol=0)
    assert path.read_bytes() == before


def test_the_best_weights_of_another_model_are_refused(tmp_path):
    long_run(model_of(Model), tmp_path / "c", epochs=1)
    with pytest.raises(ValueError, match="weights of this very model"):
        load_best(model_of(), tmp_path / "c")


def test_a_checkpoint_holds_plain_values_only(tmp_path):
    long_run(model_of(Model), tmp_path / "c", epochs=2)

    def check(value):
        if isinstance(value, dict):
            value = [*value.keys(), *value.values()]
        if isinstance(value, (list, tuple)):
            for item in value:
                check(item)
        else:
            plain = (torch.Tensor, int, float, str, type(None))
            assert isinstance(value, plain) and not isinstance(value, nn.Parameter)

    check(load_checkpoint(tmp_path / "c"))


# --- optimisers with a closure


LBFGS = partial(torch.optim.LBFGS, lr=0.5, max_iter=4)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_an_optimiser_with_a_closure_sees_the_joined_batch(search, clip):
    model, expected = model_of().double(), model_of().double()
    x1, x2, y = loader().dataset.tensors
    batches = DataLoader(TensorDataset(x1.double(), x2.double(), y), batch_size=5)
    options = {"optimizer": partial(LBFGS, line_search_fn=search), "clip_norm": clip}
    history = quiet_fit(model, batches, batches, cross_entropy, epochs=3, accumulate=5, **options)
    optimiser = LBFGS(expected.parameters(), line_search_fn=search)

    def closure():
        optimiser.zero_grad()
        loss = cross_entropy(expected([x1.double(), x2.double()]), y)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(expected.parameters(), clip)
        return loss

    losses = [optimiser.step(closure).item() for _ in range(3)]
    assert_same(model, expected, rtol=1e-9, atol=1e-9)
    assert [e["train_loss"] for e in history.epochs] == pytest.approx(losses)  # as each step began


def test_an_optimiser_with_a_closure_resumes(tmp_path):
    options = {"optimizer": LBFGS, "scheduler": None, "patience": None, "clip_norm": None}
    models = [model_of() for _ in range(2)]
    expected = long_run(models[0], epochs=4, **options)
    long_run(model_of(), tmp_path / "c", epochs=2, **options)
    found = long_run(models[1], tmp_path / "c", epochs=4, resume=True, **options)
    assert without_seconds(found) == without_seconds(expected)
    assert_same(models[1], models[0], rtol=0, atol=0)


def test_a_closure_goes_without_a_scaled_loss():
    model, before = model_of(), model_of()
    with pytest.raises(ValueError, match="LBFGS evaluates the loss itself.*take precision='bf16'"):
        quiet_fit(model, loader(), None, cross_entropy, epochs=1, optimizer=LBFGS, precision="fp16")
    assert_same(model, before, rtol=0, atol=0)


def test_generators_are_found_wherever_a_loader_keeps_them():
    data, generators = TensorDataset(torch.zeros(4, 1)), [torch.Generator() for _ in range(3)]
    inner = RandomSampler(data, generator=generators[1])
    loaders = [
        DataLoader(data, generator=generators[0]),
        DataLoader(data, sampler=BatchSampler(inner, 2, False), batch_size=None),
        DataLoader(
            data, batch_sampler=BatchSampler(RandomSampler(data, generator=generators[2]), 2, False)
        ),
    ]
    assert [id(g) for g in loader_generators(*loaders)] == [id(g) for g in generators]


def test_a_history_is_printed_in_short():
    history = quiet_fit(model_of(), loader(), loader(), cross_entropy, epochs=2, optimizer=SGD)
    record = history.epochs[history.best_epoch - 1]
    losses = ", ".join(f"{n} {record[n]:.4g}" for n in ("train_loss", "valid_loss"))
    assert repr(history) == f"History(2 epochs, best is {history.best_epoch}, {losses})"
    assert repr(type(history)()) == "History(0 epochs)"
