"""Several processes give the result of one; what each does is `job`, run by this very file."""

import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.batches import Spare
from deq_fusion.training_structures.checkpoint import load_checkpoint
from deq_fusion.training_structures.distributed import gathered, process_group, rank, sharded
from deq_fusion.training_structures.fit import evaluate, fit, predict

ROOT = Path(__file__).parents[2]
SECONDS = 180  # after which a process ends itself, whatever it waits for
cross_entropy = nn.functional.cross_entropy
SGD = partial(torch.optim.SGD, lr=0.02, momentum=0.9, weight_decay=0.01)


class Model(nn.Module):
    """With parameters that only the auxiliary loss, only some batches, and nothing depends on."""

    def __init__(self, dropout=0.0, tol=1e-10):
        super().__init__()
        self.encoders = nn.ModuleList([nn.Linear(3, 8), nn.Linear(3, 8)])
        self.fusion = DEQFusion([8, 8], 16, tol=tol, max_steps=200, jacobian_weight=0.0)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(16, 2)
        self.rare, self.never = nn.Linear(16, 2), nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        fused = self.fusion([f(x) for f, x in zip(self.encoders, inputs, strict=True)])
        output = self.head(self.dropout(fused))
        odd = inputs[0][:, :1] > 1
        return output + odd * self.rare(fused) if odd.any() else output

    @property
    def auxiliary_loss(self):
        return 0.1 * self.scale**2


SINGLE, HALF = partial(Model, tol=1e-5), partial(Model, tol=1e-2)  # as far as they get


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def forward(self, inputs):
        return self.layers(torch.cat(inputs, 1))


class Alternating(nn.Module):
    """Learns a layer a round, each without the other."""

    round = None

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 2), nn.Linear(2, 2)

    def forward(self, inputs):
        guess = self.first(torch.cat(inputs, 1))
        return guess if self.round == "first" else self.second(guess.detach())


class Thawing(Normalised):
    """Begins to learn, in its first layer, after the first batch."""

    def __init__(self):
        super().__init__()
        self.layers[0].requires_grad_(False)

    def forward(self, inputs):
        output = super().forward(inputs)
        self.layers[0].requires_grad_()
        return output


def data(samples, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, samples, 3, generator=generator, dtype=torch.float64).to(dtype)
    return TensorDataset(x[0], x[1], (x[0, :, 0] * x[1, :, 0] > 0).long())


def scores(prediction, truth):
    """Depends on the order, and would differ where processes see other samples."""
    weights = torch.arange(len(truth)) / len(truth)
    return {
        "order": (prediction[:, 0] * weights).sum().item(),
        "accuracy": (prediction.argmax(1) == truth).double().mean().item(),
    }


def run(train, valid, *, dtype=torch.float64, model=Model, **options):
    """Trains; returns history, weights and predictions as plain values."""
    torch.manual_seed(rank())  # the first one's weights are to be everyone's
    model = model().to(dtype)
    seen = []
    options = {"optimizer": SGD, "epochs": 4, "metrics": scores, "seed": 5} | options
    told = [lambda history: seen.append(len(history.epochs)), *options.pop("callbacks", ())]
    options |= {"callbacks": told, "progress": False}
    history = fit(model, train, valid, options.pop("objective", cross_entropy), **options)
    return {
        "epochs": [{k: v for k, v in r.items() if k != "seconds"} for r in history.epochs],
        "best": history.best_epoch,
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "predicted": list(predict(model, sharded(valid))),
        "seen": seen,
    }


def accumulated(dtype=torch.float64, **options):
    """An ordinary loader with a generator of its own; 23 samples, of which 5 in the last batch."""
    train = DataLoader(
        data(23, dtype), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    options = {"accumulate": 3, "clip_norm": 0.3} | options
    plan = partial(lr_scheduler.StepLR, step_size=2, gamma=0.5)
    return run(train, DataLoader(data(7, dtype), 4), dtype=dtype, scheduler=plan, **options)


def in_rounds():
    """The second layer has no gradient, and so no weight decay, in the first epochs."""
    return accumulated(
        model=Alternating, rounds=lambda n: ["first"] if n < 3 else ["first", "second"]
    )


def by_rows(**options):
    """This project's loader, with a worker; the last batches have fewer samples than processes."""
    from deq_fusion.datasets.loaders import make_loader  # slow to import, and others need it not

    train = make_loader(data(21), batch_size=4, shuffle=True, workers=1)
    valid = make_loader(data(9), batch_size=4, shuffle=False)
    plan = partial(lr_scheduler.ReduceLROnPlateau, patience=0)
    adam = partial(torch.optim.AdamW, lr=0.01)
    return run(train, valid, scheduler=plan, optimizer=adam, patience=2, **options)


def ended():
    """The first process alone has a callback, which ends the training after epoch 2."""
    return by_rows(callbacks=[lambda history: len(history.epochs) == 2] if not rank() else [])


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)

    def forward(self, inputs):
        return self.linear(torch.cat(inputs, 1))

    @property
    def auxiliary_loss(self):
        return 0.1 * self.linear.weight.square().mean()


def ignored(**options):
    """Class weights, and labels that are ignored, by some shares and in one step all."""
    rows = data(29)
    rows.tensors[-1][[0, 1, 2, 6, 9, 24, 25, 26, 27, 28]] = -100
    weight = torch.tensor([0.3, 4.0], dtype=torch.float64)
    options = {"objective": nn.CrossEntropyLoss(weight=weight, **options), "accumulate": 2}
    return run(DataLoader(rows, 6), DataLoader(rows, 5), model=Plain, metrics=None, **options)


def closure():
    """An optimiser that asks for the loss as often as its line search needs it."""
    lbfgs = partial(torch.optim.LBFGS, lr=0.5, max_iter=3, line_search_fn="strong_wolfe")
    options = {"optimizer": lbfgs, "accumulate": 2, "clip_norm": 5.0, "epochs": 2}
    return run(DataLoader(data(23), 6), DataLoader(data(9), 4), model=Plain, **options)


def long(folder, **options):
    """All that is random: what a resumed run must go on with."""
    train = DataLoader(
        data(23), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    valid = DataLoader(data(9), 4, shuffle=True)
    return run(train, valid, model=partial(Model, dropout=0.5), epochs=5, accumulate=2, **options)


def killed(folder):
    """The first process ends in epoch 4, without a word."""
    calls = []

    def deadly(prediction, truth):
        calls.append(len(truth))
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return scores(prediction, truth)

    long(folder, metrics=deadly, checkpoint=folder / "run.ckpt")


def covered():
    loader = DataLoader(
        TensorDataset(torch.arange(11), torch.arange(11)), batch_size=5, shuffle=True
    )
    torch.manual_seed(rank())
    passes = [list(sharded(loader)) for _ in range(2)]
    return [
        [[] if isinstance(batch, Spare) else batch[1].tolist() for batch in one] for one in passes
    ]


def message_of(error, function):
    with pytest.raises(error) as caught:
        function()
    return str(caught.value)


def diverging(where):
    """The loss of the last process alone is not finite, or its solve fails, in epoch 2."""
    calls = []

    def objective(prediction, truth):
        calls.append(len(truth))
        if rank() == 1 and prediction.requires_grad and len(calls) > 6:
            if where == "solve":
                raise FloatingPointError("an iterate is not finite")
            return prediction.sum() * torch.nan
        return cross_entropy(prediction, truth)

    loader = DataLoader(data(12), 4)
    train = partial(fit, Model().double(), loader, loader, objective, progress=False)
    return message_of(FloatingPointError, lambda: train(epochs=3))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


def refused():
    rows, stray = data(8), nn.Linear(2, 2)
    loaders = {
        "list": [[torch.zeros(2, 3), torch.zeros(2)]],
        "stream": DataLoader(Stream()),
        "shared": DataLoader(rows, 2, sampler=DistributedSampler(rows)),
        "items": DataLoader(rows, batch_size=None, shuffle=False),
    }
    train = partial(fit, objective=cross_entropy, epochs=1, progress=False)
    messages = {
        name: message_of(ValueError, partial(train, Normalised().double(), loader, None))
        for name, loader in loaders.items()
    }
    parameters = {"parameters": stray.parameters()}
    messages["stray"] = message_of(
        ValueError, lambda: train(Normalised(), DataLoader(rows, 4), None, **parameters)
    )
    thawing = Thawing().double()
    parameters = {"parameters": thawing.parameters()}
    wrong = TensorDataset(*data(8).tensors[:2], torch.tensor([0, 1, 0, 5] * 2))
    messages["labels"] = message_of(
        ValueError, lambda: train(Normalised().double(), DataLoader(wrong, 4), None)
    )
    messages["single"] = message_of(
        ValueError, lambda: train(Normalised().double(), DataLoader(rows, 3), None)
    )
    messages["thawing"] = message_of(
        ValueError, lambda: train(thawing, DataLoader(rows, 4), None, **parameters)
    )
    return messages


def everything(folder):
    return {
        "accumulated": accumulated(),
        "single precision": accumulated(torch.float32, model=SINGLE),
        "half precision": accumulated(torch.float32, model=HALF, precision="bf16"),
        "in rounds": in_rounds(),
        "by rows": by_rows(),
        "ended": ended(),
        "ignored": ignored(),
        "summed": ignored(reduction="sum"),
        "closure": closure(),
        "long": long(folder),
        "normalised": run(DataLoader(data(16), 8), DataLoader(data(8), 4), model=Normalised),
        "covered": covered(),
        "refused": refused(),
        "diverging": [diverging("loss"), diverging("solve")],
        "still together": gathered(rank()),
        "threads": threads(),
    }


def resumed(folder):
    return long(folder, checkpoint=folder / "run.ckpt", resume=True)


JOBS = {"everything": everything, "killed": killed, "resumed": resumed}


def main(name, folder):
    signal.alarm(SECONDS)
    torch.set_num_threads(1)
    with process_group("cpu"):
        path, result = Path(folder) / f"{name}.{rank()}.pt", JOBS[name](Path(folder))
    torch.save(result | {"threads left": threads()}, path)


def threads():
    """The names of this process's threads, where the system tells."""
    return [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]


def environment(**variables):
    return {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", **variables}


def results(name, folder):
    return [torch.load(folder / f"{name}.{r}.pt", weights_only=True) for r in range(2)]


def launch(name, folder):
    """Runs a job in two processes, without torchrun; returns how they ended and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, name, str(folder)],
            env=environment(RANK=str(r), WORLD_SIZE="2", **where),
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    said = [process.communicate(timeout=2 * SECONDS)[1] for process in started]
    return [process.returncode for process in started], said


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What both processes returned for each of `everything`, started by torchrun."""
    folder = tmp_path_factory.mktemp("both")
    options = ["--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, __file__, "everything", folder],
        env=environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    first, second = results("everything", folder)
    return {name: (first[name], second[name]) for name in first}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, reference, tolerance",
    [
        ("accumulated", accumulated, 1e-8),
        ("single precision", partial(accumulated, torch.float32, model=SINGLE), 1e-4),
        ("in rounds", in_rounds, 1e-8),
        ("by rows", by_rows, 1e-7),
        ("ended", ended, 1e-7),
        ("ignored", ignored, 1e-9),
        ("summed", partial(ignored, reduction="sum"), 1e-9),
        ("closure", closure, 1e-7),
    ],
)
def test_two_processes_give_the_result_of_one(both, name, reference, tolerance):
    alone, (first, second) = reference(), both[name]
    assert first.pop("seen") == alone.pop("seen") == [r["epoch"] for r in alone["epochs"]]
    assert second.pop("seen") == []
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for ours, theirs in zip(first["epochs"], alone["epochs"], strict=True):
        for key in [key for key in theirs if key.startswith("solver_")]:  # near, not the same
            assert ours.pop(key) == pytest.approx(theirs.pop(key), rel=0.05, abs=1e-5)
    torch.testing.assert_close(first, alone, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_parameters_without_a_gradient_are_left_alone(both):
    torch.manual_seed(0)
    start, result = Model().double(), both["accumulated"][0]["weights"]
    torch.testing.assert_close(result["never.weight"], start.never.weight.data)  # no decay
    for name in ("rare.weight", "scale", "fusion.weights"):
        assert (result[name] != start.state_dict()[name]).any()


@pytest.mark.slow
def test_half_precision_follows_that_of_one_process(both):
    alone = accumulated(torch.float32, model=HALF, precision="bf16")
    for ours, theirs in zip(both["half precision"][0]["epochs"], alone["epochs"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=0.02)


@pytest.mark.slow
def test_every_sample_is_read_once_an_epoch_in_the_first_ones_order(both):
    loader = DataLoader(TensorDataset(torch.arange(11)), batch_size=5, shuffle=True)
    torch.manual_seed(0)
    for first, second in zip(*both["covered"], strict=True):
        whole = [batch[0].tolist() for batch in loader]
        assert [a + b for a, b in zip(first, second, strict=True)] == whole
        assert [len(batch) for batch in first] == [3, 3, 1]
        assert [len(batch) for batch in second] == [2, 2, 0]


@pytest.mark.slow
def test_buffers_are_the_first_ones_everywhere(both):
    first, second = (result["weights"] for result in both["normalised"])
    assert first["layers.1.running_mean"].abs().sum() > 0
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.slow
def test_an_error_of_numbers_in_one_process_ends_all_alike(both):
    for messages in both["diverging"]:
        assert messages[0].startswith("the training loss is nan in epoch 2, batch 1")
        assert messages[1] == "an iterate is not finite"
    assert both["still together"] == ([0, 1], [0, 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, message",
    [
        ("list", "need a DataLoader that batches by indices.*got a list"),
        ("stream", "its dataset gives samples in its own order"),
        ("shared", "its sampler gives a share already"),
        ("items", "its sampler gives 0 and not a list"),
        ("stray", "every parameter of the optimiser must be the model's.*but 2 do not"),
        ("labels", "labels must be classes from 0 to 1.*hold 5 in row 1"),  # of the second share
        ("single", "single sample, as it meets in epoch 1, batch 1"),
        ("thawing", "require a gradient from the start, but 2 do not"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_all(both, name, message):
    for messages in both["refused"]:
        assert re.search(message, messages[name])


@pytest.mark.slow
def test_killed_and_resumed_is_uninterrupted(both, tmp_path):
    codes, said = launch("killed", tmp_path)
    assert codes[0] == -signal.SIGKILL and codes[1] != 0, said  # which does not wait for it
    assert os.listdir(tmp_path) == ["run.ckpt"]
    saved = load_checkpoint(tmp_path / "run.ckpt")
    assert len(saved["history"]["epochs"]) == 3
    seeded = [rng["numpy"][1] for rng in saved["rng"]]  # by the run: nothing drew from it
    assert (seeded[0] != seeded[1]).any()
    with pytest.raises(ValueError, match="processes 2 instead of 1"):
        resumed(tmp_path)
    codes, said = launch("resumed", tmp_path)
    assert codes == [0, 0], said
    for result, whole in zip(results("resumed", tmp_path), both["long"], strict=True):
        result.pop("threads left")
        assert result.pop("seen") == whole.pop("seen")[3:]
        torch.testing.assert_close(result, whole, rtol=0, atol=0)


@pytest.mark.slow
def test_no_thread_of_the_group_is_left(both):
    """At the end of Python it could abort the process."""
    for during, after in zip(both["threads"], both["threads left"], strict=True):
        if not any("gloo" in name for name in during):
            pytest.skip("the system, or this torch, does not name threads")
        assert not any("gloo" in name for name in after)


def test_without_torchrun_nothing_changes(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    loader = DataLoader(data(4), 2)
    with process_group("cpu") as device:
        assert device == torch.device("cpu")
        assert sharded(loader) is loader and gathered(3) == [3] and rank() == 0
        whole = evaluate(Model().double(), [next(iter(loader))], metrics=scores)
    assert whole.keys() == {"order", "accuracy"}


if __name__ == "__main__":
    main(*sys.argv[1:])
