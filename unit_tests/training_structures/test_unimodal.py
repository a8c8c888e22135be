"""Training of one modality: MultiBench's loop, files and numbers, validated in evaluation mode."""

import inspect
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures import unimodal
from deq_fusion.training_structures.checkpoint import load_checkpoint
from deq_fusion.training_structures.fit import load_best

CRITERIA = {
    "classification": nn.CrossEntropyLoss(),
    "multilabel": nn.BCEWithLogitsLoss(),
    "regression": nn.MSELoss(),
    "posneg-classification": nn.L1Loss(),
}
OUTPUTS = {"classification": 2, "multilabel": 3, "regression": 1, "posneg-classification": 1}
every_task = pytest.mark.parametrize("task", CRITERIA)
NUMBER = r"-?\d+\.?\d*(e-\d+)?"


def modules(task="classification"):
    """An encoder of the second modality and a head, whose mode makes a difference."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3))
    return encoder, nn.Linear(6, OUTPUTS[task])


def batches(task="classification", seed=1, shuffle=False, samples=22):
    """Two modalities of different widths; the truth is in the second."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(samples, 3, generator=generator)
    second = torch.randn(samples, 4, generator=generator).double()  # cast to float
    signal = second[:, :1] - second[:, 1:2]
    truth = {
        "classification": (signal[:, 0] > 0).long(),
        "multilabel": (second[:, :3] > 0).int(),
    }.get(task, signal)
    return DataLoader(TensorDataset(first, second, truth), batch_size=6, shuffle=shuffle)


def run(parts, folder, task="classification", epochs=3, global_seed=5, **options):
    given = {"criterion": CRITERIA[task], "task": task, "modalnum": 1, "track_complexity": False}
    given |= {"save_encoder": folder / "encoder.pt", "save_head": folder / "head.pt"}
    given |= {"device": "cpu", "progress": False}
    torch.manual_seed(global_seed)
    train, valid = batches(task, shuffle=True), batches(task, seed=2)
    return unimodal.train(*parts, train, valid, epochs, **given | options)


def reference(parts, task, epochs, lr=0.001):
    """The loop as the contract describes it, validated in evaluation mode: its losses."""
    encoder, head = parts
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.RMSprop(weights, lr=lr)
    torch.manual_seed(5)
    train, valid = batches(task, shuffle=True), batches(task, seed=2)
    losses = []
    for _ in range(epochs):
        encoder.train()
        for _, x, truth in train:
            optimizer.zero_grad()
            truth = truth if task == "classification" else truth.float()
            CRITERIA[task](head(encoder(x.float())), truth).backward()
            nn.utils.clip_grad_norm_(weights, 8)
            optimizer.step()
        prediction, truth = outputs(parts, valid)
        truth = truth if task == "classification" else truth.float()
        losses.append(CRITERIA[task](prediction, truth).item())
        torch.empty((), dtype=torch.int64).random_()  # the validation loader draws a seed, too
    return losses


def outputs(parts, loader):
    """The whole set at once, in evaluation mode."""
    encoder, head = parts
    _, x, truth = loader.dataset.tensors
    with torch.no_grad():
        return head.eval()(encoder.eval()(x.float())), truth


def weights(parts):
    return dict(nn.Sequential(*parts).state_dict())


# --- training


@every_task
def test_leaves_the_last_weights_of_multibenchs_loop_in_the_callers_modules(tmp_path, task):
    ours, theirs = modules(task), modules(task)
    history = run(ours, tmp_path, task)
    losses = reference(theirs, task, epochs=3)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=0)
    assert [e["valid_loss"] for e in history.epochs] == pytest.approx(losses, rel=1e-5)


def test_least_squares_is_found(tmp_path):
    """A linear encoder and head reach the solution of the normal equations."""
    parts, train = (nn.Linear(4, 1), nn.Identity()), batches("regression", samples=30)
    options = {"save_encoder": tmp_path / "e.pt", "save_head": tmp_path / "h.pt", "modalnum": 1}
    options |= {"task": "regression", "criterion": nn.MSELoss(), "track_complexity": False}
    _, x, truth = train.dataset.tensors
    truth += 0.3 * x[:, 2:3].square() - 1  # not linear
    optimizer = partial(torch.optim.SGD, momentum=0.9)
    full = [next(iter(DataLoader(train.dataset, batch_size=30)))]
    unimodal.train(*parts, full, full, 150, optimtype=optimizer, lr=0.1, progress=False, **options)
    design = torch.cat([x, torch.ones(30, 1)], dim=1)
    solution = torch.linalg.solve(design.T @ design, design.T @ truth.double())[:, 0].float()
    found = torch.cat([parts[0].weight[0], parts[0].bias])
    torch.testing.assert_close(found.detach(), solution, rtol=0, atol=1e-3)
    scores = unimodal.single_test(*parts, full, 0, 1, "regression", nn.MSELoss())
    error = (design @ solution.double() - truth[:, 0]).square().mean().item()
    assert scores == pytest.approx({"MSE": error}, rel=1e-4)


def test_keeps_multibenchs_names_order_and_defaults():
    expected = {
        unimodal.train: "encoder head train_dataloader valid_dataloader total_epochs "
        "early_stop=False optimtype=RMSprop lr=0.001 weight_decay=0.0 "
        "criterion=CrossEntropyLoss() auprc=False save_encoder=encoder.pt save_head=head.pt "
        "modalnum=0 task=classification track_complexity=True",
        unimodal.single_test: "encoder head test_dataloader auprc=False modalnum=0 "
        "task=classification criterion=None",
        unimodal.test: "encoder head test_dataloaders_all dataset=default method_name=My method "
        "auprc=False modalnum=0 task=classification criterion=None no_robust=False",
    }
    for function, names in expected.items():
        found = []
        for p in inspect.signature(function).parameters.values():
            if p.kind is p.POSITIONAL_OR_KEYWORD:
                default = getattr(p.default, "__name__", p.default)
                found.append(p.name if p.default is p.empty else f"{p.name}={default}")
        assert " ".join(found) == names


def test_prints_what_multibench_prints(tmp_path, capsys):
    lines = {
        "classification": rf"tensor\({NUMBER}\) acc: {NUMBER}",
        "multilabel": rf"tensor\({NUMBER}\) f1_micro: {NUMBER} f1_macro: {NUMBER}",
        "regression": NUMBER,
    }
    for task, line in lines.items():
        two_classes = task == "classification"
        run(modules(task), tmp_path, task, 2, track_complexity=True, auprc=two_classes)
        auprc = rf"AUPRC: {NUMBER}\n" if two_classes else ""
        pattern = "".join(
            rf"Epoch {i} train loss: tensor\({NUMBER}\)\nEpoch {i} valid loss: {line}\n"
            rf"(Saving Best\n)?{auprc}"
            for i in range(2)
        )
        parameters = sum(p.numel() for part in modules(task) for p in part.parameters())
        end = rf"Training Time: {NUMBER}\n(Training Peak Mem: {NUMBER}\n)?"
        end += rf"Training Params: {parameters}\n"
        assert re.fullmatch(pattern + end, capsys.readouterr().out)


def whole(path):
    kinds = [nn.Sequential, nn.Linear, nn.BatchNorm1d, nn.Dropout]
    with torch.serialization.safe_globals(kinds):
        return torch.load(path, weights_only=True)


def test_the_files_hold_the_best_modules_and_the_checkpoint_their_weights(tmp_path):
    parts = modules()
    history = run(parts, tmp_path, epochs=8, optimtype=torch.optim.SGD, lr=2.0)
    assert 1 <= history.best_epoch < 8
    saved = whole(tmp_path / "encoder.pt"), whole(tmp_path / "head.pt")
    torch.testing.assert_close(weights(saved), history.best_state, rtol=0, atol=0)
    assert not torch.equal(saved[1].weight, parts[1].weight)  # these are the last
    assert not any(module.training for part in saved for module in part.modules())
    best = nn.Sequential(*modules())
    load_best(best, tmp_path / "encoder.pt.ckpt")
    torch.testing.assert_close(dict(best.state_dict()), history.best_state, rtol=0, atol=0)
    names = {"encoder.pt", "encoder.pt.ckpt", "head.pt"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_the_first_epoch_is_saved_even_if_its_metric_is_zero(tmp_path):
    parts, valid = modules(), batches()
    valid.dataset.tensors[2].fill_(1)
    nn.init.zeros_(parts[1].weight)
    parts[1].bias.data = torch.tensor([1.0, 0.0])  # always class 0
    still = {"optimtype": torch.optim.SGD, "lr": 0.0, "progress": False, "modalnum": 1}
    still |= {"save_encoder": tmp_path / "e.pt", "save_head": tmp_path / "h.pt"}
    unimodal.train(*parts, batches(), valid, 1, **still)
    history = load_checkpoint(tmp_path / "e.pt.ckpt")["history"]
    assert (history["best_epoch"], history["epochs"][0]["valid_accuracy"]) == (1, 0)
    assert (tmp_path / "h.pt").exists()


class Spy(nn.Module):
    """Notes the modes it runs in."""

    seen = []

    def forward(self, x):
        self.seen.append((self.training, torch.is_grad_enabled()))
        return x


def test_training_runs_in_training_mode_and_the_rest_in_evaluation(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Spy, "seen", seen)
    encoder, head = modules()
    head = nn.Sequential(Spy(), head)
    run((encoder, head), tmp_path, epochs=2)  # four batches each
    assert seen == ([(True, True)] * 4 + [(False, False)] * 4) * 2
    before = [buffer.clone() for buffer in encoder.buffers()]
    seen.clear()
    encoder.train()
    unimodal.single_test(encoder, head, batches(), modalnum=1)
    assert seen == [(False, False)] * 4
    assert encoder.training and encoder[2].training  # as they were
    torch.testing.assert_close(before, [*encoder.buffers()], rtol=0, atol=0)


def test_selection_is_by_task(tmp_path):
    keys = {"classification": "valid_accuracy", "multilabel": "valid_f1_macro"}
    for task in CRITERIA:
        key = keys.get(task, "valid_loss")
        history = run(modules(task), tmp_path, task, epochs=6, lr=0.3)
        scores = [record[key] for record in history.epochs]
        best = min(scores) if key == "valid_loss" else max(scores)
        assert history.best_epoch == 1 + scores.index(best)


def test_early_stopping_is_at_the_eighth_epoch_without_improvement(tmp_path):
    still = {"optimtype": torch.optim.SGD, "lr": 0.0, "epochs": 20}
    encoder, head = nn.Linear(4, 6), nn.Linear(6, 2)
    assert len(run((encoder, head), tmp_path, early_stop=True, **still).epochs) == 1 + 8
    assert len(run((encoder, head), tmp_path, patience=2, **still).epochs) == 1 + 2


def test_a_resumed_run_is_the_one_that_was_not_interrupted(tmp_path):
    options = {"seed": 3, "scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=1)}
    straight, first, again = modules(), modules(), modules()
    (tmp_path / "straight").mkdir()
    run(straight, tmp_path / "straight", epochs=3, **options)
    run(first, tmp_path, epochs=1, global_seed=6, **options)  # a seed of its own: no matter
    history = run(again, tmp_path, epochs=3, resume=True, **options)
    torch.testing.assert_close(weights(again), weights(straight), rtol=0, atol=0)
    assert [e["learning_rate"] for e in history.epochs] == pytest.approx([1e-3, 1e-4, 1e-5])
    with pytest.raises(ValueError, match="same settings, but has modalnum 1 instead of 0"):
        run(modules(), tmp_path, epochs=4, resume=True, modalnum=0, **options)


def test_a_criterion_of_ones_own_gets_prediction_and_truth(tmp_path):
    def criterion(prediction, truth):
        assert truth.dtype == torch.int64
        return nn.functional.cross_entropy(prediction, truth)

    ours, theirs = modules(), modules()
    run(ours, tmp_path, criterion=criterion)
    reference(theirs, "classification", epochs=3)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=0)


# --- testing


@every_task
def test_single_test_prints_and_returns_the_tasks_metrics(capsys, task):
    parts, loader = modules(task), batches(task, seed=4)
    loader.dataset.tensors[2][:2] = 0  # posneg leaves these out
    scores = unimodal.single_test(*parts, loader, modalnum=1, task=task, criterion=CRITERIA[task])
    prediction, truth = outputs(parts, loader)
    label = truth if task == "classification" else truth.float()
    loss = CRITERIA[task](prediction, label).item()
    if task == "multilabel":
        counts = [
            ((guess & real).sum().item(), (guess.sum() + real.sum()).item())
            for guess, real in zip((prediction > 0).T, (truth > 0).T, strict=True)
        ]
        hits, both = (sum(column) for column in zip(*counts, strict=True))
        macro = sum(2 * h / b for h, b in counts) / 3
        expected = {"F1 score (micro)": 2 * hits / both, "F1 score (macro)": macro}
        line = " f1_micro: {F1 score (micro)} f1_macro: {F1 score (macro)}\n".format(**scores)
    elif task == "regression":
        expected, line = {"MSE": loss}, ""
    elif task == "classification":
        expected = {"Accuracy": (prediction.argmax(1) == truth).float().mean().item()}
        line = f"acc: {scores['Accuracy']}\n"
    else:
        right = ((prediction > 0) == (truth > 0))[:, 0].double()
        expected = {"Accuracy": right[2:].mean().item()}
        line = f"acc: {scores['Accuracy']}, {right.mean().item()}\n"
    assert scores == pytest.approx(expected)
    printed = capsys.readouterr().out
    assert float(re.match(rf"loss: ({NUMBER})\n", printed)[1]) == pytest.approx(loss, rel=1e-5)
    assert printed.split("\n", 1)[1] == line


def test_without_a_criterion_no_loss_is_printed(capsys):
    scores = unimodal.single_test(*modules(), batches(), True, 1)
    pattern = rf"AUPRC: {NUMBER}\nacc: {scores['Accuracy']}\n"
    assert re.fullmatch(pattern, capsys.readouterr().out)


def test_test_returns_the_numbers_of_one_loader(capsys):
    parts, loader = modules(), batches()
    scores = unimodal.test(*parts, loader, "affect", modalnum=1, no_robust=True)
    parameters = sum(p.numel() for part in parts for p in part.parameters())
    end = rf"acc: .*\nInference Time: {NUMBER}\nInference Params: {parameters}\n"
    assert re.fullmatch(end, capsys.readouterr().out)
    assert scores == unimodal.single_test(*parts, loader, modalnum=1)


def test_test_returns_every_noise_level_and_the_area_under_them():
    parts, loaders = modules(), [batches(seed=seed) for seed in range(3)]
    scores = unimodal.test(*parts, {"text": loaders, "image": loaders[:1]}, modalnum=1)
    levels = [unimodal.single_test(*parts, x, modalnum=1)["Accuracy"] for x in loaders]
    area = 0.1 * (levels[0] / 2 + levels[1] + levels[2] / 2)
    assert scores["text"]["Accuracy"] == {"levels": levels, "area": pytest.approx(area)}
    assert scores["image"]["Accuracy"] == {"levels": levels[:1], "area": 0}


# --- refusals


def test_says_what_is_wrong(tmp_path):
    for modalnum in (-1, 2):
        message = f"modalnum must be one of the 2 inputs of a batch, .* got {modalnum}"
        with pytest.raises(ValueError, match=message):
            run(modules(), tmp_path, modalnum=modalnum)
    packed = [([torch.randn(2, 4)], [torch.tensor([1, 2])], torch.arange(2), torch.arange(2))]
    with pytest.raises(TypeError, match=r"input 0 .* must be a tensor, got list; .* Supervised_"):
        unimodal.single_test(*modules(), packed)
    with pytest.raises(ValueError, match="unknown task 'clasification'; choose from"):
        unimodal.train(*modules(), batches(), batches(), 1, task="clasification")
    with pytest.raises(ValueError, match="criterion=None; pass the loss to report"):
        unimodal.single_test(*modules(), batches(), modalnum=1, task="regression")
    with pytest.raises(TypeError, match="one loader with no_robust=True, a dict of modality"):
        unimodal.test(*modules(), batches(), modalnum=1)
