"""MultiBench's training of MCTN: its loop by hand, its lines and file, and runs resumed."""

import inspect
import random
import re

import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from deq_fusion.fusions.MCTN import L2_MCTN, Attention, Decoder, Encoder, Seq2Seq
from deq_fusion.training_structures import MCTN_Level2
from deq_fusion.training_structures.fit import load_best

WIDTHS = (2, 3, 5)  # of vision, audio and text
HIDDEN = 4
NUMBER = r"-?\d+\.?\d*(e-?\d+)?"


def parts():
    torch.manual_seed(0)
    encoders = [Encoder(5, HIDDEN), Encoder(HIDDEN, HIDDEN)]
    decoders = [Decoder(HIDDEN, 5), Decoder(HIDDEN, 5)]
    return *(encoders[0], decoders[0], encoders[1], decoders[1]), nn.GRU(HIDDEN, 3), nn.Linear(3, 1)


def batches(seed=1, sizes=(6, 4), steps=7):
    """Batches as of packed affect data: sequences, lengths, numbers, labels (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for size in sizes:
        views = [torch.randn(size, steps, w, generator=generator) for w in WIDTHS]
        labels = views[2][:, 0, :1].clamp(-3, 3)
        made.append([views, [torch.full((size,), steps)] * 3, torch.arange(size), labels])
    made[-1][-1][0] = 0  # which one of the accuracies leaves out
    return made


def run(modules, folder, epochs=3, train=None, **options):
    given = {"max_seq_len": 4, "epoch": epochs, "model_save": folder / "m.pt", "lr": 0.01}
    given |= {"device": "cpu", "seed": 3, "progress": False} | options
    return MCTN_Level2.train(train or batches(), batches(2), *modules, **given)


def states(modules):
    return dict(nn.ModuleList(modules).state_dict())


def saved(path):
    kinds = [L2_MCTN, Seq2Seq, Encoder, Decoder, Attention, nn.GRU, nn.Linear, nn.Dropout]
    with torch.serialization.safe_globals(kinds):
        return torch.load(path, weights_only=True)


def ready(batch, cut=4):
    vision, audio, text = (pad(x[:, :cut], (0, 5 - x.shape[2])).transpose(0, 1) for x in batch[0])
    return text, vision, audio


def reference(modules, mu):
    """The loop as the contract describes it, for one epoch, and its losses over all samples."""
    encoder0, decoder0, encoder1, decoder1, regression, head = modules
    levels = Seq2Seq(encoder0, decoder0), Seq2Seq(encoder1, decoder1)
    model = L2_MCTN(*levels, regression, head, 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.01)
    torch.manual_seed(3)
    random.seed(3)
    totals, owns = [], []
    for batch in batches():
        text, vision, audio = ready(batch)
        *found, prediction = model(text, vision, audio)
        loss = own = (prediction - batch[-1]).abs().mean()
        for weight, y, x in zip(mu, found, (vision, text, audio), strict=True):
            loss = loss + weight * (y - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item() * len(prediction))
        owns.append(own.item() * len(prediction))
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(ready(batch)[0])[-1] for batch in batches(2)])
    return sum(totals) / 10, sum(owns) / 10, found


def scores(prediction, loader):
    truth = torch.cat([batch[-1] for batch in loader])
    right = ((prediction > 0) == (truth > 0)).double()
    mae = (prediction - truth).abs().mean().item()
    return mae, right.mean().item(), right[truth != 0].mean().item()


def test_takes_the_steps_of_the_loop_written_by_hand(tmp_path):
    mu = 0.3, 0.2, 0.1
    modules, expected = parts(), parts()
    options = {"mu_t0": 0.3, "mu_c": 0.2, "mu_t1": 0.1, "op_type": torch.optim.SGD}
    history = run(modules, tmp_path, 1, **options)
    total, _, prediction = reference(expected, mu)
    torch.testing.assert_close(states(modules), states(expected))
    (record,) = history.epochs
    assert record["train_loss"] == pytest.approx(total, rel=1e-5)
    mae, acc1, acc2 = scores(prediction, batches(2))
    names = ("valid_mae", "valid_accuracy", "valid_accuracy_nonzero")
    assert [record[name] for name in names] == pytest.approx([mae, acc1, acc2], rel=1e-5)


def test_criteria_are_of_each_step_and_may_be_others(tmp_path):
    seen = []

    def criterion(found, wanted):
        seen.append(found.shape)
        assert found.shape == wanted.shape
        return (found - wanted).abs().max()

    run(parts(), tmp_path, 1, criterion_c=criterion, criterion_r=nn.MSELoss())
    assert seen == [(6, 5)] * 4 + [(4, 5)] * 4


def test_the_file_holds_the_epoch_with_the_least_error(tmp_path):
    history = run(parts(), tmp_path, 6, lr=0.3)
    errors = [record["valid_mae"] for record in history.epochs]
    assert history.best_epoch == 1 + errors.index(min(errors)) < 6
    model = saved(tmp_path / "m.pt")
    assert not any(part.training for part in model.modules())
    with torch.no_grad():
        prediction = torch.cat([model(ready(batch)[0])[-1] for batch in batches(2)])
    assert scores(prediction, batches(2))[0] == pytest.approx(min(errors))
    best = nn.ModuleDict({"model": saved(tmp_path / "m.pt")})
    for p in best.parameters():
        nn.init.zeros_(p)
    load_best(best, tmp_path / "m.pt.ckpt")
    torch.testing.assert_close(best["model"].state_dict(), model.state_dict(), rtol=0, atol=0)


def test_early_stopping_allows_so_many_epochs_without_improvement(tmp_path):
    still = {"op_type": torch.optim.SGD, "lr": 0.0, "weight_decay": 0.0}
    options = {"early_stop": True, "patience_num": 2, **still}
    assert len(run(parts(), tmp_path, 9, **options).epochs) == 1 + 3


class Killed(Exception):
    pass


def killing(call):
    """An absolute error that raises at one of its calls."""
    calls = iter(range(1, call + 1))

    def criterion(prediction, truth):
        if next(calls, None) == call:
            raise Killed
        return (prediction - truth).abs().mean()

    return criterion


@pytest.mark.parametrize("call", [6, 11])  # of four an epoch, two of them in training
def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path, call):
    (tmp_path / "whole").mkdir()
    whole, first, resumed = parts(), parts(), parts()
    expected = run(whole, tmp_path / "whole", criterion_r=killing(0))
    with pytest.raises(Killed):
        run(first, tmp_path, criterion_r=killing(call))
    found = run(resumed, tmp_path, resume=True, criterion_r=killing(0))
    torch.testing.assert_close(states(resumed), states(whole), rtol=0, atol=0)
    for ours, theirs in zip(found.epochs, expected.epochs, strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    files = [saved(folder / "m.pt").state_dict() for folder in (tmp_path, tmp_path / "whole")]
    torch.testing.assert_close(*files, rtol=0, atol=0)


def test_prints_what_multibench_prints(tmp_path, capsys):
    history = run(parts(), tmp_path, 2, op_type=torch.optim.SGD)
    printed = capsys.readouterr().out
    epoch = (
        r"start training ---------->>\n"
        rf"Train Epoch {{}}, total loss: ({NUMBER}), regression loss: ({NUMBER}), "
        rf"embedding loss: ({NUMBER})\n"
        r"Start Evaluating ---------->>\n"
        rf"Eval Epoch: {{}}, MAE: ({NUMBER}), Acc1: {NUMBER}, Acc2: {NUMBER}\n"
        r"(<------------ Saving Best Model\n\n)?"
    )
    found = re.fullmatch("".join(epoch.replace("{}", str(i)) for i in range(2)), printed)
    total, own, embedding, mae = (float(found[i]) for i in (1, 3, 5, 7))
    _, expected, _ = reference(parts(), (0.01,) * 3)
    assert [own, mae] == pytest.approx([expected, history.epochs[0]["valid_mae"]], rel=1e-5)
    assert total == pytest.approx(own + embedding)


def test_tests_print_and_return_multibenchs_numbers(tmp_path, capsys):
    run(parts(), tmp_path, 1)
    model, loader = saved(tmp_path / "m.pt"), batches(4)
    capsys.readouterr()
    found = MCTN_Level2.single_test(model.train(), loader, 4)
    model.eval()
    with torch.no_grad():
        prediction = torch.cat([model(ready(batch)[0])[-1] for batch in loader])
    mae, acc1, acc2 = scores(prediction, loader)
    assert found == pytest.approx({"Acc:": acc2}) and acc1 != acc2
    line = rf"Start Testing ---------->>\nTest: MAE: ({NUMBER}), Acc1: ({NUMBER}), Acc2: {NUMBER}\n"
    printed = re.fullmatch(line, capsys.readouterr().out)
    assert [float(printed[1]), float(printed[3])] == pytest.approx([mae, acc1])
    whole = MCTN_Level2.test(model, loader, "mosi")  # of up to 20 steps
    assert whole == MCTN_Level2.single_test(model, loader)
    noisy = MCTN_Level2.test(model, {"text": [loader, batches(5)]}, "mosi", no_robust=False)
    assert noisy["text"]["Acc:"]["levels"][0] == whole["Acc:"]


def test_keeps_multibenchs_names_order_and_defaults():
    expected = {
        MCTN_Level2.train: "traindata validdata encoder0 decoder0 encoder1 decoder1 reg_encoder "
        "head criterion_t0=MSELoss() criterion_c=MSELoss() criterion_t1=MSELoss() "
        "criterion_r=L1Loss() max_seq_len=20 mu_t0=0.01 mu_c=0.01 mu_t1=0.01 dropout_p=0.1 "
        "early_stop=False patience_num=15 lr=0.0001 weight_decay=0.01 op_type=AdamW epoch=100 "
        "model_save=best_mctn.pt testdata=None",
        MCTN_Level2.single_test: "model testdata max_seq_len=20",
        MCTN_Level2.test: "model test_dataloaders_all dataset method_name=My method "
        "is_packed=False criterion=CrossEntropyLoss() task=classification auprc=False "
        "input_to_float=True no_robust=True",
    }
    for function, names in expected.items():
        found = []
        for p in inspect.signature(function).parameters.values():
            if p.kind is p.POSITIONAL_OR_KEYWORD:
                default = getattr(p.default, "__name__", p.default)
                found.append(p.name if p.default is p.empty else f"{p.name}={default}")
        assert " ".join(found) == names


def test_sequences_that_are_not_aligned_and_other_decoders_are_refused(tmp_path):
    loader = batches()
    loader[0][0][1] = loader[0][0][1][:, :3]
    with pytest.raises(ValueError, match=r"aligned.*\(6, 4, 2\), \(6, 3, 3\), \(6, 4, 5\)"):
        run(parts(), tmp_path, train=loader)
    encoder0, _, *rest = parts()
    with pytest.raises(TypeError, match="decoder0 must be a Decoder of fusions.MCTN.*got GRU"):
        run((encoder0, nn.GRU(4, 5), *rest), tmp_path)
