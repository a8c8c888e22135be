"""MultiBench's gradient blending: its interface, what it prints and saves, and runs resumed."""

import inspect
import re
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures import gradient_blend
from deq_fusion.training_structures.blending import hold_out
from deq_fusion.training_structures.checkpoint import load_checkpoint

NUMBER = r"-?\d+\.?\d*(e-?\d+)?"
TENSOR = rf"tensor\({NUMBER}\)"


class Mix(nn.Module):
    """A fusion with weights."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 5)

    def forward(self, features):
        return self.linear(torch.cat(features, 1)).relu()


def parts(dropout=0.3, outputs=2):
    """Encoders, head, unimodal heads, fusion: in the order of `train`."""
    torch.manual_seed(0)
    encoders = [nn.Sequential(nn.Linear(3, 4), nn.Dropout(dropout)) for _ in range(2)]
    heads = [nn.Linear(4, outputs) for _ in range(2)]
    return encoders, nn.Linear(5, outputs), heads, Mix()


def batches(samples=25, seed=1, size=8, classes=True, shuffle=False):
    """Two modalities of double precision, and labels (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, samples, 3, generator=generator, dtype=torch.float64)
    signal = x[0, :, :1] * x[1, :, :1]
    truth = (signal > 0).long() if classes else signal
    return DataLoader(TensorDataset(*x, truth), batch_size=size, shuffle=shuffle)


def run(modules, folder, epochs=4, **options):
    given = {"gb_epoch": 2, "v_rate": 0.2, "finetune_epoch": 3, "track_complexity": False}
    given |= {"savedir": folder / "best.pt", "device": "cpu", "seed": 3, "progress": False}
    given |= {"optimtype": torch.optim.Adam}
    return gradient_blend.train(
        *modules, batches(), batches(seed=2), epochs, 0.02, **given | options
    )


def saved(path):
    kinds = [
        gradient_blend.completeModule,
        Mix,
        nn.ModuleList,
        nn.Sequential,
        nn.Linear,
        nn.Dropout,
    ]
    with torch.serialization.safe_globals(kinds):
        return torch.load(path, weights_only=True)


def states(modules):
    encoders, head, heads, fuse = modules
    return dict(nn.ModuleList([*encoders, head, *heads, fuse]).state_dict())


def mean_loss(model, loader):
    *inputs, truth = (part.float() for part in loader.dataset.tensors)
    with torch.no_grad():
        return nn.functional.cross_entropy(model(inputs), truth[:, 0].long()).item()


def test_keeps_multibenchs_names_order_and_defaults():
    module = gradient_blend
    expected = {
        module.train: "unimodal_models multimodal_classification_head "
        "unimodal_classification_heads fuse train_dataloader valid_dataloader num_epoch lr "
        "gb_epoch=20 v_rate=0.08 weight_decay=0.0 optimtype=SGD finetune_epoch=25 "
        "classification=True AUPRC=False savedir=best.pt track_complexity=True",
        module.gb_estimate: "unimodal_models multimodal_classification_head fuse "
        "unimodal_classification_heads train_dataloader gb_epoch batch_size v_dataloader lr "
        "weight_decay=0.0 optimtype=SGD",
        module.single_test: "model test_dataloader auprc=False classification=True",
        module.test: "model test_dataloaders_all dataset method_name=My method auprc=False "
        "classification=True no_robust=False",
        module.completeModule: "encoders fuse head",
    }
    for function, names in expected.items():
        found = []
        for p in inspect.signature(function).parameters.values():
            if p.kind is p.POSITIONAL_OR_KEYWORD:
                default = getattr(p.default, "__name__", p.default)
                found.append(p.name if p.default is p.empty else f"{p.name}={default}")
        assert " ".join(found) == names


def test_the_file_holds_a_trained_fusion_and_predicts_as_what_was_fine_tuned(tmp_path):
    modules, initial = parts(), parts()
    history = run(modules, tmp_path)
    model = saved(tmp_path / "best.pt")
    assert not any(module.training for module in model.modules())
    for ours, before in ((model.fuse, initial[3]), (model.head, initial[1])):
        for name, weight in ours.named_parameters():
            assert not torch.equal(weight, before.get_parameter(name))
    tuned = [e["finetuned_loss"] for e in history.epochs if "finetuned_loss" in e]
    assert len(tuned) == 2
    assert mean_loss(model, batches(seed=2)) == pytest.approx(min(tuned), rel=1e-5)


def test_the_modules_are_left_as_blended_and_the_saved_ones_go_on_from_there(tmp_path):
    """One blended epoch and one fine-tuned one: the saved encoders are the caller's."""
    modules = parts()
    run(modules, tmp_path, epochs=1, gb_epoch=1, finetune_epoch=1)
    model = saved(tmp_path / "best.pt")
    encoders, head, _, fuse = modules
    assert states((encoders, *modules[1:])).keys() == states(parts()).keys()
    for ours, theirs in zip(model.encoders, encoders, strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    expected_fuse, expected_head = deepcopy(fuse), deepcopy(head)
    rest, _ = hold_out(batches(), 0.2)
    inputs = [part[5:].float() for part in batches().dataset.tensors[:2]]
    with torch.no_grad():
        features = [encoder.eval()(x) for encoder, x in zip(encoders, inputs, strict=True)]
    truth = batches().dataset.tensors[2][5:, 0]
    before = nn.functional.cross_entropy(expected_head(expected_fuse(features)), truth)
    after = nn.functional.cross_entropy(model.head(model.fuse(features)), truth)
    assert after < before and len(rest.dataset) == len(truth)
    steps = model.fuse.linear.weight - fuse.linear.weight  # of Adam: three, each of at most lr
    assert 0 < steps.abs().max() <= 3.1 * 0.02


def test_weights_are_those_of_gb_estimate_on_the_part_held_out(tmp_path, monkeypatch):
    """Also by differences, as a user may assign; the first weights are those of the first epoch."""
    for delta in (False, True):
        monkeypatch.setattr(gradient_blend, "delta", delta)
        modules = parts(dropout=0.0)
        rest, held = hold_out(batches(size=20), 0.2)
        given = (modules[0], modules[1], modules[3], modules[2], rest, 2, 20, held, 0.02)
        expected = gradient_blend.gb_estimate(*given, optimtype=torch.optim.Adam)
        torch.testing.assert_close(states(modules), states(parts()), rtol=0, atol=0)  # copies
        full = batches(size=20), batches(seed=2), 2, 0.02, 2, 0.2, 0.0, torch.optim.Adam, 1
        options = {"savedir": tmp_path / f"{delta}.pt", "track_complexity": False, "device": "cpu"}
        history = gradient_blend.train(*modules, *full, **options)
        found = [history.epochs[0][f"weight_{i}"] for i in range(3)]
        assert found == pytest.approx(expected, rel=1e-4) and sum(found) == pytest.approx(1)


class Killed(Exception):
    pass


class Counted(nn.Module):
    """A cross-entropy that counts its calls, and raises at one of them."""

    def __init__(self, kill=None):
        super().__init__()
        self.kill, self.calls = kill, 0

    def forward(self, prediction, truth):
        self.calls += 1
        if self.calls == self.kill:
            raise Killed
        return nn.functional.cross_entropy(prediction, truth)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The modules of a run, its history, its file's weights, and the calls of its criterion."""
    folder, modules, criterion = tmp_path_factory.mktemp("whole"), parts(), Counted()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_blend, "criterion", criterion)
        history = run(modules, folder)
    return modules, history, saved(folder / "best.pt").state_dict(), criterion.calls


@pytest.mark.parametrize("share", [0.35, 0.45, 0.6, 0.98], ids=["blend", "tune", "trial", "end"])
def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path, monkeypatch, undisturbed, share):
    whole, expected, weights, calls = undisturbed
    resumed = parts()
    monkeypatch.setattr(gradient_blend, "criterion", Counted(int(share * calls)))
    with pytest.raises(Killed):
        run(parts(), tmp_path)
    monkeypatch.setattr(gradient_blend, "criterion", Counted())
    found = run(resumed, tmp_path, resume=True)
    torch.testing.assert_close(states(resumed), states(whole), rtol=0, atol=0)
    for ours, theirs in zip(found.epochs, expected.epochs, strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    found = saved(tmp_path / "best.pt").state_dict()
    torch.testing.assert_close(found, weights, rtol=0, atol=0)


def test_the_checkpoint_is_where_one_says_and_another_run_is_refused(tmp_path):
    run(parts(), tmp_path, epochs=2, checkpoint=tmp_path / "other.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"best.pt", "other.ckpt"}
    assert load_checkpoint(tmp_path / "other.ckpt")["model"]["weights"].sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="finetune_epoch 3 instead of 4"):
        again = {"checkpoint": tmp_path / "other.ckpt", "resume": True}
        run(parts(), tmp_path, epochs=4, finetune_epoch=4, **again)


def test_prints_what_multibench_prints(tmp_path, capsys):
    run(parts(), tmp_path, track_complexity=True, AUPRC=True)
    trial = rf"(Epoch [01] loss: {TENSOR}\n){{2}}Final train loss: {TENSOR} valid loss: {TENSOR}\n"
    trial += rf"raw: {TENSOR}\n"
    weighed = "".join(rf"At gb_estimate unimodal {i}\n{trial}" for i in range(2))
    weighed += rf"At gb_estimate multimodal \n{trial}"
    tuned = rf"finetune train loss: {TENSOR}\nepoch {{}} valid loss: {TENSOR} acc: {NUMBER}\n"
    tuned += rf"With AUPRC: {NUMBER}\n(Saving best\n)?"
    pattern = ""
    for start in (0, 2):
        pattern += rf"{weighed}epoch {start} weights: \[{NUMBER}, {NUMBER}, {NUMBER}\]\n"
        pattern += "".join(rf"epoch {start + i} blend train loss: {TENSOR}\n" for i in range(2))
        pattern += r"Length of ftt_dataloader: 20\n"
        pattern += 3 * tuned.replace("{}", str(start + 1))
    pattern += rf"Training Time: {NUMBER}\n(Training Peak Mem: {NUMBER}\n)?Training Params: \d+\n"
    assert re.fullmatch(pattern, capsys.readouterr().out)


def test_numbers_are_learnt_by_another_criterion(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gradient_blend, "criterion", nn.MSELoss())
    modules, loader = parts(outputs=1), batches(classes=False)
    options = {"savedir": tmp_path / "best.pt", "classification": False, "device": "cpu"}
    gradient_blend.train(*modules, loader, loader, 1, 0.01, 1, 0.2, finetune_epoch=1, **options)
    model = saved(tmp_path / "best.pt")
    printed = capsys.readouterr().out
    scores = gradient_blend.single_test(model, loader, classification=False)
    *inputs, truth = (part.float() for part in loader.dataset.tensors)
    expected = (model(inputs) - truth).square().mean().item()
    assert scores == pytest.approx({"MSE": expected}) and " acc: " not in printed


def test_tests_run_in_evaluation_mode_and_return_multibenchs_numbers(capsys):
    encoders, head, _, fuse = parts()
    model, loader = gradient_blend.completeModule(encoders, fuse, head).train(), batches()
    scores = gradient_blend.single_test(model, loader, True)
    assert model.training
    model.eval()
    *inputs, truth = (part.float() for part in loader.dataset.tensors)
    accuracy = (model(inputs).argmax(1) == truth[:, 0]).float().mean().item()
    assert scores == pytest.approx({"Accuracy": accuracy})
    line = rf"test loss: tensor\(({NUMBER})\) acc: {NUMBER}\nWith AUPRC: {NUMBER}\n"
    printed = re.fullmatch(line, capsys.readouterr().out)
    assert float(printed[1]) == pytest.approx(mean_loss(model, loader), abs=1e-4)
    assert gradient_blend.test(model, loader, "mosi", no_robust=True) == scores
    curves = gradient_blend.test(model, {"text": [loader, batches(seed=2)]}, "mosi")
    assert curves["text"]["Accuracy"]["levels"][0] == scores["Accuracy"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 1}, "num_epoch must be .* at least the 2 of gb_epoch.*got 1"),
        ({"gb_epoch": 0}, "gb_epoch must be a whole number from 1 up, got 0"),
        ({"finetune_epoch": 0}, "finetune_epoch must be a whole number from 1 up, got 0"),
        ({"v_rate": 0.01}, "held out must .* got 0.01 of 25 samples"),
    ],
)
def test_says_what_is_wrong(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(parts(), tmp_path, **options)


def test_heads_are_as_many_as_encoders_and_these_return_tensors(tmp_path):
    encoders, head, heads, fuse = parts()
    with pytest.raises(ValueError, match="one for each of the 2 unimodal_models, got 1"):
        run((encoders, head, heads[:1], fuse), tmp_path)

    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    encoders[1] = Pair(3, 4)
    heads[1] = nn.Sequential(First(), heads[1])
    with pytest.raises(TypeError, match="unimodal_models must return a tensor.*tuple of number 1"):
        run((encoders, head, heads, FuseFirst(fuse)), tmp_path)


class First(nn.Module):
    def forward(self, pair):
        return pair[0]


class FuseFirst(nn.Module):
    def __init__(self, fuse):
        super().__init__()
        self.fuse = fuse

    def forward(self, features):
        return self.fuse([features[0], features[1][0]])
