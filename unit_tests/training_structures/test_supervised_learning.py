"""`train` and `test` do what MultiBench's do: weights, files, printed lines, arguments."""

import copy
import inspect
import io
import pickle
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures import Supervised_Learning as SL
from deq_fusion.training_structures.checkpoint import load_checkpoint
from deq_fusion.training_structures.fit import load_best
from deq_fusion.training_structures.multibench import Trained


class Concat(nn.Module):
    def forward(self, features):
        return torch.cat(features, 1)


class Fusion(nn.Module):
    """A stand-in with a loss of its own."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.auxiliary_loss = None

    def forward(self, features):
        fused = self.mix(torch.cat(features, 1))
        self.auxiliary_loss = fused.square().mean() if self.training else fused.new_zeros(())
        return fused


def parts(fusion=Concat, out=2, dropout=0.2):
    torch.manual_seed(0)
    encoders = [nn.Sequential(nn.Linear(3, 4), nn.Dropout(dropout)) for _ in range(2)]
    return encoders, fusion(), nn.Linear(8, out)


def batches(task="classification", seed=1, shuffle=False, samples=22):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, samples, 3, generator=generator).double()  # cast by input_to_float
    signal = (x[0] * x[1])[:, :2].sum(1, keepdim=True)
    truth = {
        "classification": (signal > 0).int(),
        "multilabel": ((x[0] + x[1])[:, :2] > 0).int(),
    }.get(task, signal)
    return DataLoader(TensorDataset(x[0], x[1], truth), batch_size=6, shuffle=shuffle)


OBJECTIVES = {
    "classification": nn.CrossEntropyLoss(),
    "multilabel": nn.BCEWithLogitsLoss(),
    "regression": nn.MSELoss(),
    "posneg-classification": nn.L1Loss(),
}
OUTPUTS = {"classification": 2, "multilabel": 2, "regression": 1, "posneg-classification": 1}
task_mark = pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])


def run(modules, tmp_path, task="classification", epochs=3, **options):
    defaults = {
        "task": task,
        "objective": OBJECTIVES[task],
        "save": tmp_path / "best.pt",
        "progress": False,
        "device": "cpu",
        "track_complexity": False,
    }
    torch.manual_seed(5)
    train, valid = batches(task, shuffle=True), batches(task, seed=2)
    return SL.train(*modules, train, valid, epochs, **defaults | options)


def stock(modules, task, epochs, additional=(), lr=0.001, weight_decay=0.0):
    """MultiBench's loop as its contract describes it, without its prints and files."""
    encoders, fusion, head = modules
    main = [p for m in (*encoders, fusion, head) for p in m.parameters()]
    more = [p for m in additional for p in m.parameters()]
    optimizer = torch.optim.RMSprop(main + more, lr=lr, weight_decay=weight_decay)
    torch.manual_seed(5)
    train, valid = batches(task, shuffle=True), batches(task, seed=2)

    def loss_of(batch, training):
        for module in (*encoders, fusion, head):
            module.train(training)
        out = head(fusion([f(x.float()) for f, x in zip(encoders, batch[:-1], strict=True)]))
        truth = batch[-1][:, 0].long() if task == "classification" else batch[-1].float()
        return OBJECTIVES[task](out, truth)

    for _ in range(epochs):
        for batch in train:
            optimizer.zero_grad()
            loss_of(batch, True).backward()
            nn.utils.clip_grad_norm_(main, 8)
            optimizer.step()
        with torch.no_grad():
            for batch in valid:
                loss_of(batch, False)


def weights(modules):
    encoders, fusion, head = modules
    return SL.MMDL(encoders, fusion, head).state_dict()


@task_mark
def test_leaves_the_last_weights_of_multibenchs_loop_in_the_callers_modules(tmp_path, task):
    ours, theirs = parts(out=OUTPUTS[task]), parts(out=OUTPUTS[task])
    history = run(ours, tmp_path, task)
    stock(theirs, task, epochs=3)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=0)
    assert len(history.epochs) == 3


def test_keeps_multibenchs_names_order_and_defaults():
    expected = {
        SL.MMDL: "encoders fusion head has_padding=False",
        SL.deal_with_objective: "objective pred truth args",
        SL.train: "encoders fusion head train_dataloader valid_dataloader total_epochs "
        "additional_optimizing_modules=() is_packed=False early_stop=False task=classification "
        "optimtype=RMSprop lr=0.001 weight_decay=0.0 objective=CrossEntropyLoss() auprc=False "
        "save=best.pt validtime=False objective_args_dict=None input_to_float=True clip_val=8 "
        "track_complexity=True",
        SL.single_test: "model test_dataloader is_packed=False criterion=CrossEntropyLoss() "
        "task=classification auprc=False input_to_float=True",
        SL.test: "model test_dataloaders_all dataset=default method_name=My method is_packed=False "
        "criterion=CrossEntropyLoss() task=classification auprc=False input_to_float=True "
        "no_robust=False",
    }
    for function, names in expected.items():
        found = []
        for p in inspect.signature(function).parameters.values():
            if p.kind is p.POSITIONAL_OR_KEYWORD:
                default = getattr(p.default, "__name__", p.default)
                found.append(p.name if p.default is p.empty else f"{p.name}={default}")
        assert " ".join(found) == names


# --- printed lines and files

NUMBER = r"-?\d+\.?\d*(e-\d+)?"
VALID_LINES = {
    "classification": rf"valid loss: tensor\({NUMBER}\) acc: {NUMBER}",
    "multilabel": rf"valid loss: tensor\({NUMBER}\) f1_micro: {NUMBER} f1_macro: {NUMBER}",
    "regression": rf"valid loss: {NUMBER}",
}


@task_mark
def test_prints_what_multibench_prints(tmp_path, capsys, task):
    options = {"validtime": True, "track_complexity": True, "auprc": task == "classification"}
    run(parts(out=OUTPUTS[task]), tmp_path, task, epochs=2, **options)
    auprc = rf"AUPRC: {NUMBER}\n" if task == "classification" else ""
    epoch = (
        rf"Epoch {{}} train loss: tensor\({NUMBER}\)\ntrain total: 22\n"
        rf"Epoch {{}} {VALID_LINES[task]}\n(Saving Best\n)?{auprc}"
        rf"valid time:  {NUMBER}\nValid total: 22\n"
    )
    parameters = sum(w.numel() for w in weights(parts(out=OUTPUTS[task])).values())
    end = (
        rf"Training Time: {NUMBER}\n(Training Peak Mem: {NUMBER}\n)?Training Params: {parameters}\n"
    )
    out, err = capsys.readouterr()
    assert re.fullmatch(epoch.replace("{}", "0") + epoch.replace("{}", "1") + end, out)
    assert err == ""


class Constant(nn.Module):
    """Always class 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(8, 2))

    def forward(self, x):
        return x @ self.w * 0 + torch.tensor([1.0, 0.0])


def test_the_first_epoch_is_saved_even_if_its_metric_is_zero(tmp_path, capsys):
    encoders, fusion, _ = parts()
    ones = DataLoader(TensorDataset(*torch.randn(2, 6, 3), torch.ones(6)), batch_size=6)
    save = tmp_path / "folder" / "best.pt"
    SL.train(encoders, fusion, Constant(), ones, ones, 2, save=save, device="cpu", progress=False)
    assert "acc: 0.0\nSaving Best" in capsys.readouterr().out
    assert save.exists() and load_checkpoint(f"{save}.ckpt")["history"]["best_epoch"] == 1


def whole(path):
    classes = [SL.MMDL, nn.ModuleList, nn.Sequential, nn.Linear, nn.Dropout, Concat, Fusion]
    with torch.serialization.safe_globals(classes):
        return torch.load(path, weights_only=True)


def test_the_file_holds_the_best_model_and_the_checkpoint_its_weights(tmp_path):
    modules = parts()
    history = run(modules, tmp_path, epochs=8, optimtype=torch.optim.SGD, lr=0.5)
    saved = whole(tmp_path / "best.pt")
    assert 1 <= history.best_epoch < 8
    torch.testing.assert_close(saved.state_dict(), history.best_state, rtol=0, atol=0)
    assert not torch.equal(saved.head.weight, modules[2].weight)
    assert saved.reps == [] and saved.fuseout is None
    assert not any(module.training for module in saved.modules())
    best = SL.MMDL(*parts())
    load_best(best, tmp_path / "best.pt.ckpt")
    torch.testing.assert_close(dict(best.state_dict()), history.best_state, rtol=0, atol=0)


def saved(module):
    stream = io.BytesIO()
    torch.save(module, stream)
    return stream.getvalue()


def test_a_batch_is_no_part_of_a_copy_or_a_file():
    model = SL.MMDL([nn.Identity(), nn.Identity()], Concat(), nn.Linear(6, 2))
    empty, x = len(saved(model)), list(torch.randn(2, 500, 3).requires_grad_())
    output = model(x)
    assert model.reps[0] is x[0] and model.fuseout.shape == (500, 6)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert twin.reps == [] and twin.fuseout is None
        torch.testing.assert_close(twin(x), output, rtol=0, atol=0)
    assert len(saved(model)) == empty
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    torch.testing.assert_close(averaged(x), output, rtol=0, atol=0)
    assert len(saved(averaged)) < len(saved(AveragedModel(model))) + 100
    assert model.reps[0] is x[0]  # they stay readable


def test_what_the_objective_is_told_is_no_part_of_a_copy():
    given = {"mine": 1}
    trained = Trained(SL.MMDL(*parts()), [], given, to_float=True)
    _, args = trained([torch.randn(5, 3), torch.randn(5, 3)])
    assert args is given and given["reps"][0].shape == (5, 4)
    twin = copy.deepcopy(trained)
    assert twin.args == {"mine": 1} and twin.model.reps == [] and "reps" in given
    assert twin.encoders[0] is twin.model.encoders[0]
    assert copy.deepcopy(Trained(trained.model, [], None, True)).args is None


def test_numbers_beyond_float32_are_refused(tmp_path):
    x = torch.zeros(6, 3, dtype=torch.float64)
    x[4, 1] = 1e39
    modules, labels = parts(), torch.tensor([0, 1] * 3)
    options = {"save": tmp_path / "b.pt", "device": "cpu", "progress": False}
    wide = DataLoader(TensorDataset(torch.zeros(6, 3), x, labels), 6)
    with pytest.raises(ValueError, match=r"input 1 must fit in float32.*1e\+39 \(1 of 18"):
        SL.train(*modules, wide, wide, 1, **options)
    with pytest.raises(ValueError, match="input 1 must fit in float32"):
        SL.single_test(SL.MMDL(*modules), wide)
    model = SL.MMDL(*parts()).double()
    assert 0 <= SL.single_test(model, double_batches(wide), input_to_float=False)["Accuracy"] <= 1
    far = DataLoader(TensorDataset(torch.zeros(6, 3), torch.zeros(6, 3), x[:, 1:2]), 6)
    modules = parts(out=1)
    with pytest.raises(ValueError, match="the truth must fit in float32"):
        SL.train(*modules, far, far, 1, task="regression", objective=nn.MSELoss(), **options)


def double_batches(loader):
    return [[x1.double(), x2, y] for x1, x2, y in loader]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_class_weights_count_over_accumulated_batches(tmp_path, accumulation):
    modules = parts(dropout=0.0)
    size = 22 if accumulation == 1 else 6
    data = batches().dataset
    loader = DataLoader(data, batch_size=size)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.1, 5.0]))
    history = SL.train(
        *modules,
        loader,
        loader,
        1,
        objective=loss,
        accumulation=accumulation,
        optimtype=torch.optim.SGD,
        lr=1.0,
        clip_val=None,
        save=tmp_path / "best.pt",
        device="cpu",
        track_complexity=False,
        progress=False,
    )
    encoders, fusion, head = parts(dropout=0.0)
    expected = SL.MMDL(encoders, fusion, head)
    x1, x2, truth = data.tensors
    first = loss(expected([x1.float(), x2.float()]), truth[:, 0].long())
    assert history.epochs[0]["train_loss"] == pytest.approx(first.item(), rel=1e-5)
    first.backward()
    with torch.no_grad():
        for p in expected.parameters():
            p -= p.grad
    torch.testing.assert_close(SL.MMDL(*modules).state_dict(), expected.state_dict())


def test_a_model_without_anything_of_ours_can_be_unpickled(tmp_path):
    model = SL.MMDL(*parts())
    model.__dict__ = {
        name: value
        for name, value in model.__dict__.items()
        if name in vars(nn.Module()) or name in ("has_padding", "reps", "fuseout")
    }
    assert sorted(name for name, _ in model.named_children()) == ["encoders", "fuse", "head"]
    assert model([torch.zeros(2, 3)] * 2).shape == (2, 2)


# --- the objective


def test_objectives_get_the_truth_as_multibench_gives_it():
    pred, seen = torch.randn(2, 3), []

    class Subclass(nn.MSELoss):
        def forward(self, *args):
            seen.append(args)
            return args[0].sum()

    labels = torch.tensor([[1.0], [2.0]])
    deal = SL.deal_with_objective
    expected = nn.functional.cross_entropy(pred, torch.tensor([1, 2]))
    assert deal(nn.CrossEntropyLoss(), pred, labels, None) == expected
    for loss in (nn.MSELoss(), nn.L1Loss(), nn.BCEWithLogitsLoss()):
        assert deal(loss, pred, torch.ones(2, 3).int(), None) == loss(pred, torch.ones(2, 3))
    deal(Subclass(), pred, labels, {"a": 1})
    assert seen == [(pred, labels, {"a": 1})]


def test_custom_objectives_are_told_about_the_batch(tmp_path):
    given, modes = {"mine": 1}, []

    def objective(pred, truth, args):
        assert args is given and args["mine"] == 1
        assert args["model"].fuseout is args["fused"] and args["model"].reps is args["reps"]
        assert [x.dtype for x in args["inputs"]] == [torch.float64] * 2  # before the cast
        torch.testing.assert_close(args["fused"], torch.cat(args["reps"], 1))
        assert args["model"].training == args["training"]
        modes.append(args["training"])
        return nn.functional.cross_entropy(pred, truth[:, 0].long())

    ours, theirs = parts(), parts()
    run(ours, tmp_path, epochs=2, objective=objective, objective_args_dict=given)
    assert modes == ([True] * 4 + [False] * 4) * 2
    stock(theirs, "classification", epochs=2)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=0)


def test_a_fusions_own_loss_is_added_once_whoever_adds_it(tmp_path):
    class Adding:
        adds_auxiliary_loss = True

        def __call__(self, pred, truth, args):
            loss = nn.functional.cross_entropy(pred, truth[:, 0].long())
            return loss + args["model"].fuse.auxiliary_loss if args["training"] else loss

    ours, wrapped, without = parts(Fusion), parts(Fusion), parts(Fusion)
    run(ours, tmp_path)
    run(wrapped, tmp_path, objective=Adding(), objective_args_dict={})
    stock(without, "classification", epochs=3)
    torch.testing.assert_close(weights(ours), weights(wrapped), rtol=0, atol=0)
    assert not torch.equal(ours[1].mix.weight, without[1].mix.weight)


# --- the extras


def test_additional_modules_are_trained_unclipped_unsaved_and_resumed(tmp_path):
    def decoder():
        torch.manual_seed(1)
        return nn.Linear(8, 2)

    def objective(extra, pred, truth, args):
        return nn.functional.cross_entropy(pred + 30 * extra(args["fused"]), truth[:, 0].long())

    def once(folder, extra, modules, **options):
        given = {"objective": partial(objective, extra), "objective_args_dict": {}}
        more = {"additional_optimizing_modules": [extra], "optimtype": torch.optim.SGD}
        return run(modules, folder, seed=3, lr=0.01, clip_val=0.1, **given | more | options)

    (tmp_path / "a").mkdir()
    whole_run, first, again = decoder(), decoder(), decoder()
    modules, resumed = parts(), parts()
    once(tmp_path / "a", whole_run, modules, epochs=2)
    once(tmp_path, first, parts(), epochs=1)
    once(tmp_path, again, resumed, epochs=2, resume=True)
    torch.testing.assert_close(dict(again.state_dict()), dict(whole_run.state_dict()))
    torch.testing.assert_close(weights(resumed), weights(modules), rtol=0, atol=0)
    moved = (first.weight - decoder().weight).norm()
    assert moved > 4 * 0.01 * 0.1  # more than four clipped steps could
    assert not any("additional" in name for name in whole(tmp_path / "best.pt").state_dict())


def test_the_fusion_may_have_its_own_learning_rate(tmp_path):
    modules, start = parts(Fusion), parts(Fusion)
    history = run(modules, tmp_path, fusion_lr=0.0)
    assert (history.epochs[0]["learning_rate_0"], history.epochs[0]["learning_rate_1"]) == (1e-3, 0)
    torch.testing.assert_close(modules[1].mix.weight, start[1].mix.weight, rtol=0, atol=0)
    assert not torch.equal(modules[2].weight, start[2].weight)


def test_early_stopping_is_at_the_eighth_epoch_without_improvement(tmp_path):
    still = {"optimtype": torch.optim.SGD, "lr": 0.0, "epochs": 20}
    assert len(run(parts(), tmp_path, early_stop=True, **still).epochs) == 1 + 8
    assert len(run(parts(), tmp_path, patience=2, **still).epochs) == 1 + 2


def test_selection_is_by_task_unless_another_metric_is_named(tmp_path):
    def best_by(key, history, sign):
        values = [sign * e[key] for e in history.epochs]
        return 1 + values.index(max(values))

    for options, key, sign in (
        ({}, "valid_accuracy", 1),
        ({"task": "multilabel"}, "valid_f1_macro", 1),
        ({"task": "regression"}, "valid_loss", -1),
        ({"task": "regression", "selection": "corr"}, "valid_corr", 1),
        ({"selection": "loss"}, "valid_loss", -1),
    ):
        out = OUTPUTS[options.get("task", "classification")]
        history = run(parts(out=out), tmp_path, epochs=5, lr=0.05, **options)
        assert history.best_epoch == best_by(key, history, sign)


def test_an_unknown_task_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="unknown task 'clasification'; choose from"):
        SL.train(*parts(), batches(), batches(), 1, task="clasification")


# --- packed batches


class Padded(nn.Module):
    """Means over the true length; returns [feature, lengths] if asked."""

    def __init__(self, nested):
        super().__init__()
        self.linear, self.nested = nn.Linear(3, 4), nested

    def forward(self, pair):
        assert isinstance(pair, list)
        x, lengths = pair
        mask = torch.arange(x.shape[1]) < lengths[:, None]
        feature = self.linear((x * mask[..., None]).sum(1) / lengths[:, None])
        return [feature, lengths] if self.nested else feature


class Head(nn.Module):
    def __init__(self, nested):
        super().__init__()
        self.linear, self.nested = nn.Linear(8, 2), nested

    def forward(self, x):
        if self.nested:
            fused, lengths = x
            assert lengths.tolist() == [2, 5]
            x = fused
        return self.linear(x)


@pytest.mark.parametrize("nested", [False, True])
def test_packed_batches(tmp_path, nested):
    x, lengths = torch.randn(2, 5, 3), torch.tensor([2, 5])
    batch = ([x, x], [lengths, lengths], torch.arange(2), torch.tensor([[0], [1]]))
    encoders, head = [Padded(nested), Padded(nested)], Head(nested)
    options = {"is_packed": True, "save": tmp_path / "b.pt", "device": "cpu", "progress": False}
    SL.train(encoders, Concat(), head, [batch], [batch], 2, **options)
    model = SL.MMDL(encoders, Concat(), head, True)
    changed = (torch.cat([x[:1], x[1:]]), lengths)
    changed[0][0, 2:] = 9.0  # padding does not count
    out = model([[x, x], [lengths, lengths]])
    torch.testing.assert_close(model([[changed[0], x], [lengths, lengths]]), out)
    scores = SL.single_test(model, [batch], is_packed=True)
    expected = (out.argmax(1) == batch[-1][:, 0]).float().mean().item()
    assert scores == {"Accuracy": expected}


def test_the_head_gets_the_first_item_of_an_exact_tuple():
    class Pair(nn.Module):
        def forward(self, features):
            return torch.cat(features, 1), "statistics"

    encoders, _, head = parts()
    model = SL.MMDL(encoders, Pair(), head).eval()
    x = [torch.randn(2, 3)] * 2
    torch.testing.assert_close(model(x), SL.MMDL(encoders, Concat(), head).eval()(x))
    assert model.fuseout[1] == "statistics"


# --- testing


@pytest.mark.parametrize("task", OUTPUTS)
def test_single_test_prints_and_returns_the_tasks_metrics(capsys, task):
    model = SL.MMDL(*parts(out=OUTPUTS[task])).train()
    loader = batches(task, seed=4)
    x1, x2, truth = loader.dataset.tensors
    scores = SL.single_test(model, loader, criterion=OBJECTIVES[task], task=task)
    out = model.eval()([x1.float(), x2.float()]).detach()
    if task == "regression":
        mse = (out - truth).square().mean().item()
        assert scores == pytest.approx({"MSE": mse})
        line = f"mse: {scores['MSE']}"
    elif task == "multilabel":
        hits = ((out > 0) & (truth > 0)).sum()
        micro = (2 * hits / ((out > 0).sum() + truth.sum())).item()
        assert scores["micro"] == pytest.approx(micro)
        line = f" f1_micro: {scores['micro']} f1_macro: {scores['macro']}"
    else:
        guess = out.argmax(1, keepdim=True) if task == "classification" else out > 0
        accuracy = (guess == (truth > 0)).float().mean().item()
        assert scores == pytest.approx({"Accuracy": accuracy})
        also = "" if task == "classification" else f", {scores['Accuracy']}"
        line = f"acc: {scores['Accuracy']}{also}"
    assert capsys.readouterr().out == line + "\n"


def test_testing_leaves_integer_inputs_alone_if_told():
    model = SL.MMDL([nn.Embedding(5, 2)], Concat(), nn.Linear(2, 2))
    batch = [torch.tensor([1, 2, 4]), torch.tensor([0, 1, 0])]
    scores = SL.single_test(model, [batch], input_to_float=False)
    assert 0 <= scores["Accuracy"] <= 1


def test_test_returns_the_numbers_of_one_loader(capsys):
    model = SL.MMDL(*parts())
    scores = SL.test(model, batches(), no_robust=True)
    out = capsys.readouterr().out
    assert scores == SL.single_test(model, batches())
    parameters = sum(p.numel() for p in model.parameters())
    assert re.search(rf"acc: .*\nInference Time: {NUMBER}\nInference Params: {parameters}\n", out)


def test_test_returns_every_noise_level_and_the_area_under_them():
    model = SL.MMDL(*parts())
    loaders = [batches(seed=seed) for seed in range(3)]
    scores = SL.test(model, {"text": loaders, "image": loaders[:1]})
    levels = [SL.single_test(model, loader)["Accuracy"] for loader in loaders]
    area = 0.1 * (levels[0] / 2 + levels[1] + levels[2] / 2)
    assert scores["text"]["Accuracy"] == {"levels": levels, "area": pytest.approx(area)}
    assert scores["image"]["Accuracy"] == {"levels": levels[:1], "area": 0}


@pytest.mark.parametrize(
    "loaders, no_robust", [(batches(), False), ({"text": [batches()]}, True), ({"text": []}, False)]
)
def test_test_says_which_loaders_it_takes(loaders, no_robust):
    with pytest.raises(TypeError, match="one loader with no_robust=True, a dict of modality"):
        SL.test(SL.MMDL(*parts()), loaders, no_robust=no_robust)
