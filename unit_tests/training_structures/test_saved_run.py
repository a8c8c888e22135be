"""What a checkpoint holds is looked at before anything of a run is changed."""

import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures.checkpoint import load_checkpoint, save_checkpoint
from deq_fusion.training_structures.files import Damaged
from deq_fusion.training_structures.fit import fit, load_best

STEP = partial(torch.optim.lr_scheduler.StepLR, step_size=1)
ADAM = partial(torch.optim.Adam, lr=0.01)


def run(path, epochs=2, optimizer=ADAM, **options):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), torch.randn(8, 3)
    data = TensorDataset(x, x[:, 0].gt(0).long())
    train = DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator())
    options = {"checkpoint": path, "resume": True, "progress": False, "scheduler": STEP} | options
    options |= {"split_batch": lambda batch: tuple(batch), "optimizer": optimizer}
    start = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        return model, fit(
            model, train, train, nn.functional.cross_entropy, epochs=epochs, **options
        )
    except ValueError:
        torch.testing.assert_close(dict(model.state_dict()), start, rtol=0, atol=0)
        raise


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.ckpt"
    run(path)
    return path


def changed(tree, path, value):
    """The tree with another value at a path, or without what is there."""
    if not path:
        return value
    key, *rest = path
    if isinstance(tree, dict):
        others = {k: v for k, v in tree.items() if k != key}
        return (
            others if value is ... and not rest else tree | {key: changed(tree[key], rest, value)}
        )
    return type(tree)(changed(v, rest, value) if i == key else v for i, v in enumerate(tree))


SGD = {"param_groups": [{"lr": 0.1, "momentum": 0.0, "params": [0, 1]}], "state": {}}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["settings"], ..., "a run with its settings"),
        (["settings"], torch.zeros(3), "a run with its settings"),
        (["settings", "seed"], torch.zeros(3), r"seed tensor\(.*instead of None"),
        (["settings", "groups"], [["x" * 10_000]], "groups .* instead of"),
        (["model"], [1, 2], "a run with its model"),
        (["model", "1.weight"], 3.0, "a model's names and tensors"),
        (["model", "1.weight"], torch.zeros(2, 3, device="meta"), "a model's names and tensors"),
        (["model", "1.weight"], torch.zeros(3, 2), "weights of this very model"),
        (
            ["model", "1.weight"],
            torch.zeros(2, 3, dtype=torch.cfloat),
            "weights of this very model",
        ),
        (["optimizer", "state", 0, "exp_avg"], torch.zeros(2, 3).cfloat(), "the state of a Adam"),
        (["model"], {"a\x1b": torch.zeros(1)}, r"weights of this very model.*a\\x1b on one side"),
        (["optimizer"], SGD, "the state of a Adam of this very model"),
        (["optimizer", "param_groups"], [], "the state of a Adam"),
        (["optimizer", "param_groups", 0, "lr"], torch.zeros(3), "the state of a Adam"),
        (["optimizer", "param_groups", 0, "betas"], 0.9, "the state of a Adam"),
        (["optimizer", "param_groups", 0, "params"], [0], "the state of a Adam"),
        (["optimizer", "state"], torch.zeros(3), "the state of a Adam"),
        (["optimizer", "state", 0, "exp_avg"], ..., "the state of a Adam"),
        (["optimizer", "state", 0, "exp_avg"], torch.zeros(7), "the state of a Adam"),
        (["optimizer", "state", 0, "exp_avg_sq"], "text", "the state of a Adam"),
        (["optimizer", "state", 0, "step"], ..., "the states of optimizer, scheduler"),
        (["scheduler"], None, "the state of a StepLR"),
        (["scheduler", "last_epoch"], "three", "the state of a StepLR"),
        (["scheduler", "last_epoch"], ..., "the state of a StepLR"),
        (["history"], {"epochs": []}, "a history of"),
        (["history", "ended"], 1, "a history of"),
        (["history", "epochs"], {"a": 1}, "numbers by name for every epoch"),
        (["history", "epochs", 0, "valid_loss"], "low", "numbers by name for every epoch"),
        (["history", "epochs", 0, "valid_loss"], ..., "valid_loss too"),
        (["history", "best_epoch"], 3, "a best epoch among its 2"),
        (["history", "best_epoch"], 1.0, "a best epoch among its 2"),
        (["history", "best_state"], [], "the best epoch's names and tensors"),
        (["rng"], 3, "the states of random generators"),
        (["rng", "torch"], torch.zeros(3), "the states of random generators"),
        (["rng", "numpy"], ("MT19937",), "the states of random generators"),
        (["rng", "numpy", 1], torch.full((624,), 1e30), "the states of random generators"),
        (["rng", "python"], (3, (1, 2), None), "the states of random generators"),
        (["rng", "cuda"], 5, "the states of random generators"),
        (["generators"], [], "the states of 1 generators of loaders"),
        (["generators", 0], torch.zeros(2, dtype=torch.uint8), "states of random generators"),
    ],
)
def test_wrong_contents_are_one_error_of_ours_and_change_nothing(
    tmp_path, saved, path, value, message
):
    name = tmp_path / "wrong.ckpt"
    save_checkpoint(name, changed(load_checkpoint(saved), path, value))
    before = name.read_bytes()
    with pytest.raises(ValueError, match=f"{re.escape(str(name))} must .*{message}") as caught:
        run(name, epochs=3)
    assert len(str(caught.value)) < 700
    assert name.read_bytes() == before


def test_healthy_contents_resume(tmp_path, saved):
    save_checkpoint(tmp_path / "same.ckpt", load_checkpoint(saved))
    resumed, history = run(tmp_path / "same.ckpt", epochs=4)
    whole, expected = run(tmp_path / "whole.ckpt", epochs=4)
    assert [e["train_loss"] for e in history.epochs] == [e["train_loss"] for e in expected.epochs]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_an_optimiser_that_is_refused_has_its_state_of_before(tmp_path, saved):
    made = []

    def keep(parameters):
        made.append(ADAM(parameters))
        return made[-1]

    contents = changed(load_checkpoint(saved), ["optimizer", "state", 1, "exp_avg"], 3.0)
    save_checkpoint(tmp_path / "wrong.ckpt", contents)
    with pytest.raises(Damaged, match="the state of a Adam"):
        run(tmp_path / "wrong.ckpt", optimizer=keep)
    assert not made[0].state_dict()["state"]
    assert made[0].param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize("kind", ["before", "cut", "folder"])
def test_fit_refuses_a_checkpoint_that_is_of_no_use_and_says_what_to_do(tmp_path, saved, kind):
    path = tmp_path / "run.ckpt"
    if kind == "before":
        torch.save(load_checkpoint(saved), path)
    elif kind == "cut":
        path.write_bytes(saved.read_bytes()[:-1])
    else:
        path.mkdir()
    with pytest.raises(Damaged, match="run.ckpt .*name another one, or remove it to start anew"):
        run(path)
    assert path.exists()


def test_the_best_weights_are_looked_at_as_well(tmp_path, saved):
    contents = changed(load_checkpoint(saved), ["history", "best_state"], {"1.weight": 3})
    save_checkpoint(tmp_path / "wrong.ckpt", contents)
    with pytest.raises(Damaged, match="the best epoch's names and tensors"):
        load_best(nn.Linear(3, 2), tmp_path / "wrong.ckpt")
